"""What techniques share that lay another face over a face: whose, how it is brought there, and what stays."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anondata.kernels import bounded, resize
from anondata.randomness import normal
from anondata.transforms._faces_blend import (
    MIRRORED,
    below_chin,
    blended,
    depth_within,
    face_mask,
    head_mask,
    landmarks_or_usual,
    moments,
    recoloured,
    sample,
    thin_plate,
    to_ycc,
    trimmed,
    within,
)
from anondata.transforms._smiles import smiles
from anondata.transforms.base import RegionTransform

if TYPE_CHECKING:
    from anondata.models.face_pool import FacePool

# What makes one unit of unlikeness between a face and a member of the pool.
SHAPE_UNIT = 0.06  # what no affine map can mend of the landmarks, relative to the distance of the eyes
STRETCH_UNIT = 0.25  # logarithm of how much longer one axis has to be drawn than the other
TONE_UNIT = 0.4  # distance of mean colours; a choice by them, or by the whole mouth, lets parrots name people
# What a face's colour is drawn apart from the original's by: half of what faces differ by from their own necks in
# generated pictures. Of 51 people the exact mean colour alone named 54 % in another photo, and its spread in three
# channels 39 %; that of luma, which says how hard the light is, 6 %.
TONE_DRAW = (0.05, 0.007, 0.008)
SMILE_UNIT = 0.5  # of how much a face smiles; the reading of one is off by as much


@dataclass(frozen=True, eq=False)
class Members:
    """A pool and its mirror images: ``M`` faces, and what they are chosen by.

    pictures: ``(M, 4, P, P)`` uint8, the fourth channel 255 where the person is.
    landmarks: ``(M, 5, 2)`` float64, in shares of the picture. shapes: the same in shares of the face's box.
    tones: ``(M, 3)`` mean colour of the face, luma and two differences.
    people: ``(M,)`` whose face each is, the same for its mirror image. smiles: ``(M,)`` how much each smiles.
    """

    pictures: Tensor
    landmarks: Tensor
    shapes: Tensor
    tones: Tensor
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
    boxes = torch.cat(
        [
            pool.boxes,
            torch.stack([1 - pool.boxes[:, 2], pool.boxes[:, 1], 1 - pool.boxes[:, 0], pool.boxes[:, 3]], dim=1),
        ]
    ).double()
    shapes = (marks - boxes[:, None, :2]) / (boxes[:, 2:] - boxes[:, :2])[:, None]
    tones = [
        moments(to_ycc(picture[None, :3].float() / 255), face_mask(mark[None], picture.shape[-1]))[0].flatten()
        for picture, mark in zip(pictures, marks, strict=True)
    ]
    twice = torch.cat([pool.people, pool.people]), torch.cat([pool.smiles, pool.smiles]).double()
    return Members(pictures, marks, shapes, torch.stack(tones), *twice)


def _mirrored(landmarks: Tensor) -> Tensor:
    flipped = landmarks[:, list(MIRRORED)].clone()
    flipped[..., 0] = 1 - flipped[..., 0]
    return flipped


def unlikeness(landmarks: Tensor, look: Look, members: Members) -> Tensor:
    """``(R, M)`` how ill a member suits a face: by landmarks, mean colour and how much it smiles.

    Nothing is asked of a network that tells people apart: the choice should say as little as can be of who it is.

    landmarks: ``(R, 5, 2)`` float64 in shares of a crop whose sides are the same multiple of the face's box.
    """
    homogeneous = torch.cat([members.shapes, torch.ones_like(members.shapes[..., :1])], dim=2)
    project = torch.linalg.pinv(homogeneous)  # (M, 3, 5)
    fits = torch.einsum("mij,rjk->rmik", project, landmarks)
    rest = landmarks[:, None] - torch.einsum("mji,rmik->rmjk", homogeneous, fits)
    eyes = (landmarks[:, 0] - landmarks[:, 1]).norm(dim=1).clamp(min=1e-6)
    shape = rest.square().sum(dim=(2, 3)).sqrt() / eyes[:, None]
    a, b, c, d = fits[..., 0, 0], fits[..., 0, 1], fits[..., 1, 0], fits[..., 1, 1]
    # Singular values of the 2x2 part: half the sum and half the difference of two lengths.
    high, low = torch.hypot(a + d, b - c), torch.hypot(a - d, b + c)
    stretch = ((high + low) / (high - low).abs().clamp(min=1e-6)).log()
    tone = (look.mean.flatten(1).double().cpu()[:, None] - members.tones[None].double()).norm(dim=2) / TONE_UNIT
    smile = (look.smile[:, None] - members.smiles[None]) / SMILE_UNIT
    costs = torch.stack((shape / SHAPE_UNIT, stretch / STRETCH_UNIT, tone, smile)).square().sum(dim=0)
    return costs.where(_like_smiling(smile, members), torch.inf)


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
    """Lays another face over each face: aligned by landmarks, in the face's mean colour, without a seam.

    Of the original there remain, within the covered area: where its five landmarks lie (pose, the width of the
    mouth), roughly its mean colour and, within bounds, its contrast, and in whose face it is, how much it smiles.
    Behind the new head goes on, as smoothly as can be, what lies around the covered area; below the chin, what lies
    right below it. No pixel of the covered area is in the result.
    """

    crop_px = 256
    aligns = True
    redraws = True
    kinds = ("face",)
    networks = ("mobile-stylegan-mapping", "mobile-stylegan-synthesis")

    @abstractmethod
    def members(self) -> Members:
        """Whom to choose from."""

    @abstractmethod
    def faces(self, order: Tensor, landmarks: Tensor, look: Look, seeds: Sequence[int]) -> Tensor:
        """The faces to lay on, ``(R, 4, S, S)`` in [0, 1]; the fourth channel says how far.

        order: ``(R, M)`` members, the most suitable first. landmarks: ``(R, 5, 2)`` where they must go.
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
        look = look_of(work, marks)
        unlike = unlikeness(marks, look, self.members())
        order = unlike.argsort(dim=1, stable=True)[:, : int(unlike.isfinite().sum())]
        faces = self.faces(order, marks, redrawn(look, seeds), seeds).to(work)
        depth = depth_within(side, self.shape, self.coverage / extent).to(work.device)
        neck = below_chin(marks, side).to(work)
        out = blended(work, faces[:, :3], faces[:, 3:], depth, neck)
        return _as(bounded(resize(out, *crop.shape[-2:])), crop)


@dataclass(frozen=True, eq=False)
class Look:
    """What faces look like: mask ``(R, 1, S, S)`` of where they are, mean colour ``(R, 3, 1, 1)`` in YCbCr there, the
    spread of luma ``(R, 1, 1, 1)``, and how much they smile ``(R,)``."""

    mask: Tensor
    mean: Tensor
    spread: Tensor
    smile: Tensor


def look_of(crops: Tensor, landmarks: Tensor) -> Look:
    mask = face_mask(landmarks, crops.shape[-1]).to(crops)
    mean, spread = moments(to_ycc(crops), mask)
    return Look(mask, mean, spread[:, :1], smiles(crops, landmarks))


def redrawn(look: Look, seeds: Sequence[int]) -> Look:
    """The same, its mean colour a little off."""
    off = normal(seeds, (3, 1, 1)) * torch.tensor(TONE_DRAW)[:, None, None]
    return replace(look, mean=look.mean + off.to(look.mean))


def laid(members: Members, which: Tensor, landmarks: Tensor, look: Look) -> Tensor:
    """Members ``which (R,)`` brought to landmarks ``(R, 5, 2)`` and to the colours of a look, ``(R, 4, S, S)``."""
    side = look.mask.shape[-1]
    places = thin_plate(landmarks, members.landmarks[which], side).to(look.mask)
    faces = sample((members.pictures[which].float() / 255).to(look.mask), places)
    mattes = faces[:, 3:] * within(places) * head_mask(landmarks, side).to(places)
    colours = recoloured(faces[:, :3], look.mean, look.spread, look.mask)
    return torch.cat([colours, mattes], dim=1)


def each_once(order: Tensor, members: Members) -> Tensor:
    """The same order of members with each person once, as themselves or mirrored, whichever comes first."""
    seen: dict[int, int] = {}
    for member in order.tolist():
        seen.setdefault(int(members.people[member]), member)
    return torch.tensor(list(seen.values()))


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
