"""What techniques share that lay another face over a face: whose, how it is brought there, and what stays."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Literal, Unpack, get_args

import torch
from torch import Tensor

from anondata.crops import bounded, resize
from anondata.leakage import Leakage
from anondata.randomness import normal
from anondata.transforms._faces_blend import (
    MIRRORED,
    Pose,
    ahead,
    blended,
    coarse,
    depth_within,
    face_mask,
    head_mask,
    landmarks_or_usual,
    mean_within,
    pose_of,
    posed,
    recoloured,
    sample,
    thin_plate,
    to_ycc,
    trimmed,
    within,
)
from anondata.transforms._smiles import SMILES, smiles
from anondata.transforms.base import Common, RegionTransform
from anondata.transforms.random_colors import gradient

if TYPE_CHECKING:
    from anondata.transforms.face_pool import FacePool

POSE_UNIT = 0.15  # of what turns a head, see Pose.turn: makes one unit of unlikeness between a face and a member
SMILE_UNIT = 0.5  # of how much a face smiles; the reading of one is off by as much
Kept = Literal["tilt", "smile", "skin"]
People = Literal["mixed", "generated"]
PEOPLE: dict[People, tuple[int, tuple[str, ...]]] = {  # how many at most, and the weights that they come from
    "mixed": (64, ("mixed-people",)),
    "generated": (1024, ("mobile-stylegan-mapping", "mobile-stylegan-synthesis")),
}
GROUPS: dict[Kept, int] = {"tilt": 12, "smile": 3, "skin": 2}  # how many a result can tell apart
# Mean colours, luma and two differences, of the two groups of skin that a result tells apart, and the luma between
# them. The exact mean colour of a face names 54 % of 51 people in another photo (chance is 2); of two groups the best
# guess is right for 4 %. Noise would not do: it averages out over releases.
TONES = ((0.36, -0.04, 0.075), (0.54, -0.06, 0.105))  # means of darker and lighter generated faces
TONE_BORDER = 0.42
TONE_DRAW = (0.04, 0.005, 0.005)  # so that not all of a group have one colour; drawn by the seed alone
GROUND_CELLS, GROUND_SPREAD = 3, 0.15  # of the colours behind the new head


@dataclass(frozen=True, eq=False)
class Members:
    """A pool and its mirror images: ``M`` faces, and what they are chosen by.

    pictures: ``(M, 4, P, P)`` uint8, the fourth channel 255 where the person is.
    landmarks: ``(M, 5, 2)`` float64, in shares of the picture. pose: of each head.
    people: ``(M,)`` whose face each is, the same for its mirror image. smiles: ``(M,)`` how much each smiles.
    """

    pictures: Tensor
    landmarks: Tensor
    pose: Pose
    people: Tensor
    smiles: Tensor

    def __len__(self) -> int:
        return len(self.pictures)


@lru_cache(maxsize=8)
def members_of(pool: FacePool) -> Members:
    mattes = (trimmed(pool.mattes.float() / 255) * 255).round().to(torch.uint8)
    drawn = torch.cat([pool.pictures, mattes], dim=1)
    pictures = torch.cat([drawn, drawn.flip(-1)])
    marks = torch.cat([pool.landmarks, _mirrored(pool.landmarks)]).double()
    smiles = torch.cat([pool.smiles, pool.smiles]).double()
    return Members(pictures, marks, pose_of(marks), torch.cat([pool.people, pool.people]), smiles)


def _mirrored(landmarks: Tensor) -> Tensor:
    flipped = landmarks[:, list(MIRRORED)].clone()
    flipped[..., 0] = 1 - flipped[..., 0]
    return flipped


def unlikeness(pose: Pose, smile: Tensor, members: Members) -> Tensor:
    """``(R, M)`` how ill a member suits a new face: by how their heads are turned and how much they smile.

    Nothing else is asked, and of nothing that tells people apart: over many releases the choice shows all that it
    depends on.
    """
    turned = (pose.turn[:, None] - members.pose.turn[None]).norm(dim=2) / POSE_UNIT
    smiling = (smile[:, None] - members.smiles[None]) / SMILE_UNIT
    costs = torch.stack((turned, smiling)).square().sum(dim=0)
    return costs.where(_like_smiling(smiling, members), torch.inf)


def _like_smiling(off: Tensor, members: Members) -> Tensor:
    """``(R, M)`` bool: of each person's pictures, and of each mirror image's, those whose smile ``off`` is least.

    So who is chosen does not depend on how much a face smiles, where everybody is there with every smile.
    """
    half = len(members) // 2
    key = members.people * 2 + (torch.arange(len(members)) >= half)
    least = torch.full((len(off), int(key.max()) + 1), torch.inf, dtype=off.dtype)
    least = least.scatter_reduce(1, key.expand(len(off), -1), off.abs(), "amin")
    return off.abs() <= least[:, key]


class FaceSwap(RegionTransform):
    """Lays another face over each face, in the same place, before random colours. All new heads look ahead.

    Of the original there remains, within the covered area, what ``keep`` names and nothing else: no pixel, and
    nothing of what lies around. By default that is nothing, in one release as in many.

    Whatever is kept divides people into groups, however coarse it is. Where everybody is in one of ``K`` groups of
    the same size, an attacker names ``K`` of ``N`` people from one photo; several photos of somebody tell more, if
    what is kept differs between them. That bound is in :meth:`leakage`.

    Args:
        members: how many people to choose from: of ``mixed`` 1 to 64, of ``generated`` 1 to 1024.
        people: ``"mixed"``, means of four consented people each, which come with anondata and may be used by anybody
            (CC BY 4.0); or ``"generated"`` by MobileStyleGAN, which is believed to allow no commercial use and takes
            five seconds a person, once. See :mod:`anondata.transforms.face_pool`.
        keep: any of ``"tilt"`` (how the head is tilted, in steps of 30 degrees: 12 groups), ``"smile"`` (which of
            three is nearest) and ``"skin"`` (lighter or darker). Of 51 people all three named 10 % from one release
            (chance is 2). How a head is turned and its exact place are never kept: they name people.

    Raises:
        ValueError: for other people or more of them, anything else in ``keep``, or the same twice.
    """

    crop_px = 256
    redraws = True
    kinds = ("face",)

    def __init__(self, members: int, people: People, *, keep: Sequence[Kept] = (), **common: Unpack[Common]) -> None:
        super().__init__(**common)
        if people not in PEOPLE:
            raise ValueError(f"people must be {' or '.join(PEOPLE)}, got {people!r}")
        most, self.networks = PEOPLE[people]
        self.pool_size, self.people = whole("members", members, 1, most), people
        self.generated_people = members if people == "generated" else 0
        known = get_args(Kept)
        if isinstance(keep, str) or not isinstance(keep, Sequence) or any(one not in known for one in keep):
            raise ValueError(f"keep must be a list of any of {', '.join(known)}, got {keep!r}")
        if len(set(keep)) < len(keep):
            raise ValueError(f"keep names the same twice: {', '.join(keep)}")
        self.keep = tuple(one for one in GROUPS if one in keep)
        self.aligns = bool(keep)

    def leakage(self) -> Leakage:
        return Leakage(numbers=0, snr=0.0, groups=prod(GROUPS[one] for one in self.keep))

    def members(self) -> Members:
        """Whom to choose from."""
        from anondata.transforms.face_pool import mixed_pool, shared_pool

        return members_of((mixed_pool if self.people == "mixed" else shared_pool)(self.pool_size))

    @abstractmethod
    def faces(self, order: Tensor, look: Look, seeds: Sequence[int]) -> Tensor:
        """The faces to lay on, ``(R, 4, S, S)`` in [0, 1]; the fourth channel says how far.

        order: ``(R, M)`` members, the most suitable first.
        """

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        unknown = torch.full((len(crops), 5, 2), float("nan"))
        return self.change_aligned(crops, extent=extent, seeds=seeds, landmarks=unknown)

    def change_aligned(self, crops: Tensor, *, extent: float, seeds: Sequence[int], landmarks: Tensor) -> Tensor:
        with torch.no_grad():
            rows = [self._one(crops[i : i + 1], extent, [seeds[i]], landmarks[i : i + 1]) for i in range(len(crops))]
            return torch.cat(rows)

    def _one(self, crop: Tensor, extent: float, seeds: Sequence[int], landmarks: Tensor) -> Tensor:
        """A crop at a time: memory stays small, and no row can depend on another."""
        side = self.crop_px
        work = resize(_three(crop).float(), side, side)
        marks = landmarks_or_usual(landmarks, extent)
        look = look_of(work, marks, seeds, extent=extent, keep=self.keep)
        unlike = unlikeness(look.pose, look.smile, self.members())
        order = unlike.argsort(dim=1, stable=True)[:, : int(unlike.isfinite().sum())]
        faces = self.faces(order, look, seeds).to(work)
        depth = depth_within(side, self.shape, self.coverage / extent).to(work.device)
        ground = gradient(
            [seed + 1 for seed in seeds], 3, cells=GROUND_CELLS, spread=GROUND_SPREAD, size=(side, side)
        ).to(work)
        out = blended(work, faces[:, :3], faces[:, 3:], depth, ground)
        return _as(bounded(resize(out, *crop.shape[-2:])), crop)


@dataclass(frozen=True, eq=False)
class Look:
    """How ``R`` new faces are to look.

    pose: of their heads, in shares of the crop. tone: ``(R, 3, 1, 1)`` mean colour to bring them to, in YCbCr, or
    None for their own. smile: ``(R,)`` how much they smile. side: of the crop in pixels. device: where to draw them.
    """

    pose: Pose
    tone: Tensor | None
    smile: Tensor
    side: int
    device: torch.device

    def of(self, row: int, count: int) -> Look:
        """That of one face, ``count`` times."""
        rows = [row] * count
        tone = None if self.tone is None else self.tone[rows]
        return Look(Pose(*(part[rows] for part in self.pose)), tone, self.smile[rows], self.side, self.device)


def look_of(
    crops: Tensor, landmarks: Tensor, seeds: Sequence[int], *, extent: float, keep: Collection[Kept] = ()
) -> Look:
    """The original is asked for what is kept alone; the rest is usual, drawn by the seeds or the new face's own."""
    tilt = pose_of(landmarks).angle if "tilt" in keep else torch.zeros(len(crops), dtype=torch.float64)
    likely = torch.tensor(SMILES, dtype=torch.float64)
    if "smile" in keep:
        smile = (smiles(crops, landmarks)[:, None] - likely).abs().argmin(dim=1)
    else:
        smile = normal([seed + 2 for seed in seeds], (len(SMILES),)).argmax(dim=1)
    tone = _tone_of(crops, landmarks, seeds) if "skin" in keep else None
    return Look(ahead(coarse(tilt), extent), tone, likely[smile], crops.shape[-1], crops.device)


def _tone_of(crops: Tensor, landmarks: Tensor, seeds: Sequence[int]) -> Tensor:
    mean = mean_within(to_ycc(crops), face_mask(landmarks, crops.shape[-1]).to(crops))
    dark, light = (crops.new_tensor(tone)[None, :, None, None] for tone in TONES)
    tone = torch.where(mean[:, :1] < TONE_BORDER, dark, light)
    drawn = normal(seeds, (3, 1, 1)).to(crops) * crops.new_tensor(TONE_DRAW)[:, None, None]
    return tone + drawn


def laid(members: Members, which: Tensor, look: Look) -> Tensor:
    """Members ``which (R,)`` brought to the pose and tone of a look, ``(R, 4, S, S)``."""
    own = Pose(*(part[which] for part in members.pose))
    landmarks = posed(members.landmarks[which], own, look.pose)
    places = thin_plate(landmarks, members.landmarks[which], look.side).to(look.device)
    faces = sample(members.pictures[which].to(places) / 255, places)
    mattes = faces[:, 3:] * within(places) * head_mask(landmarks, look.side).to(places)
    colours = faces[:, :3]
    if look.tone is not None:
        colours = recoloured(colours, look.tone.to(places), face_mask(landmarks, look.side).to(places))
    return torch.cat([colours, mattes], dim=1)


def each_once(order: Tensor, members: Members) -> Tensor:
    """The same order of members with each person once, as themselves or mirrored, whichever comes first."""
    seen: dict[int, int] = {}
    for member in order.tolist():
        seen.setdefault(int(members.people[member]), member)
    return torch.tensor(list(seen.values()))


def whole(name: str, value: int, low: int, high: int) -> int:
    """``value``, or a ``ValueError`` that names the range."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number between {low} and {high}, got {value!r}")
    return value


def _three(crop: Tensor) -> Tensor:
    return crop[:, :3] if crop.shape[1] >= 3 else crop[:, :1].expand(-1, 3, -1, -1)


def _as(out: Tensor, crop: Tensor) -> Tensor:
    """``(R, 3, H, W)`` in the channels and dtype of a crop: grey if it is, opaque if it has alpha."""
    channels = crop.shape[1]
    if channels < 3:
        out = to_ycc(out)[:, :1].expand(-1, channels, -1, -1)
    elif channels > 3:
        out = torch.cat([out, torch.ones_like(out[:, :1]).expand(-1, channels - 3, -1, -1)], dim=1)
    return bounded(out.to(crop.dtype))
