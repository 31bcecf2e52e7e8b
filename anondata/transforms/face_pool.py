"""Faces that belong to nobody.

Mixtures of portraits come with anondata; generated faces are made once, checked, and kept in one file of the cache.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from anondata.crops import cut, resize, similarity
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import UndecodableError, WeightsError
from anondata.models.dlib_resnet import CHIP_PX, EMBEDDING_DIM, TEMPLATE
from anondata.models.registry import cache_folder, entry, locate
from anondata.models.shared import network
from anondata.models.stylegan import MAPPING, STYLE_DIM, SYNTHESIS, MobileStyleGAN, read_generator
from anondata.randomness import RunKey, normal
from anondata.regions import Regions
from anondata.transforms._faces_blend import face_mask, warp
from anondata.transforms._smiles import SMILE_SHA256, SMILES, learnt, smiles

PICTURE_PX = 256
MIXED_NAME, MIXED = "mixed-people", "mixed_people.safetensors"
MAX_MEMBERS = 1024
TRUNCATION = 0.7  # of a style towards the mean: 1 gives freaks, 0.5 gives everybody the same face
MEAN_OF = 4096  # styles
SURE = 0.5  # of the detector; it scores photos of faces at 0.7 and more
APART = 0.5  # of two members, by dlib's network; its own verdict, 0.6, takes two of three generated faces for another
SAME = 0.6  # of a face to itself with another smile: dlib's own verdict
NEAR = 0.25  # of a smile: a picture further from being at rest is drawn again
CLEAR = 0.75  # how far a picture may smile from what it is for: half way to the next
MAX_UNSURE, MAX_BITTEN, BITE_PX = 0.02, 0.025, 20  # of mattes: those beyond looked torn
SAVE_SHARE = (
    16  # written again when it has grown by this part: a kill loses no more, and large pools are not only written
)
SECONDS_A_MEMBER = 5
TRIES_A_MEMBER = 20
RECIPE = "3"  # changes when the same seed would give another member

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class FacePool:
    """``N`` faces, each alone in its picture; several may be of one person.

    pictures: ``(N, 3, 256, 256)`` uint8. landmarks: ``(N, 5, 2)`` float32 x, y as shares of a picture's side.
    boxes: ``(N, 4)`` float32 x0, y0, x1, y1, as shares too.
    mattes: ``(N, 1, 256, 256)`` uint8, 255 where the person is.
    people: ``(N,)`` int64, whose each is, from 0 on. smiles: ``(N,)`` float32, how much each smiles, see
    :func:`anondata.transforms._smiles.smiles`.
    """

    pictures: Tensor
    landmarks: Tensor
    boxes: Tensor
    mattes: Tensor
    people: Tensor
    smiles: Tensor

    def __len__(self) -> int:
        """How many people there are."""
        return int(self.people.max()) + 1 if len(self.people) else 0

    def first(self, count: int) -> FacePool:
        """What there is of the first ``count`` people."""
        return FacePool(*(getattr(self, field.name)[self.people < count] for field in fields(self)))

    def of(self, person: int) -> FacePool:
        """The same, all of one person."""
        return replace(self, people=torch.full_like(self.people, person))

    def cat(self, other: FacePool) -> FacePool:
        return FacePool(*(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


_PARTS = tuple(field.name for field in fields(FacePool))


def empty_pool() -> FacePool:
    pictures = torch.zeros(0, 4, PICTURE_PX, PICTURE_PX, dtype=torch.uint8)
    nobody = torch.zeros(0, dtype=torch.int64)
    return FacePool(pictures[:, :3], torch.zeros(0, 5, 2), torch.zeros(0, 4), pictures[:, 3:], nobody, torch.zeros(0))


@lru_cache(maxsize=4)
def shared_pool(members: int) -> FacePool:
    """The first ``members`` people, made on first use and kept for this process; see :func:`generated_pool`."""
    return generated_pool(members)


def generated_pool(members: int, *, folder: Path | None = None, progress: Progress | None = None) -> FacePool:
    """The first ``members`` generated people out of the cache; those that are lacking are made and added.

    Of each there are three pictures, which differ in how much they smile (:data:`SMILES`).

    Seeds come from a fixed key and the number of the try: they have to do with nobody's photo or run key, and every
    machine makes the same faces (but for rounding). Kept are those in which CenterFace finds one face and no other,
    who stand out clearly from their background, whom dlib's network does not take for one kept before (distance of
    0.5), and whom it takes for themselves whether they smile or not (0.6), which must show. A smaller pool is the
    beginning of a larger one. Each person costs about five seconds of CPU, once.

    folder: where the file lies, the cache's unless told another. progress: called with (people there, members) before
    the first and after each that is made; without, one warning is logged that they are. Several processes may ask at
    once: one makes, the others wait. What was made before an interruption is kept, but for the last few.

    Raises:
        WeightsError: the generator's weights are not on this machine (the message says how to get them), the file
            of faces is damaged, or too few faces pass.
    """
    if not 1 <= members <= MAX_MEMBERS:
        raise WeightsError(f"a pool of {members} faces was asked for; expected 1 to {MAX_MEMBERS}")
    path = pool_file(folder)
    kept, generate, say = _read(path), None, progress or _Logged()
    if kept is None or len(kept.pool) < members:
        say(len(kept.pool) if kept else 0, members)
    while kept is None or len(kept.pool) < members:
        path.parent.mkdir(parents=True, exist_ok=True)
        generate = generate or Generator()
        # Locked for a few faces at a time: who asks for fewer need not wait for all.
        with FileLock(path.with_suffix(".lock")):
            kept = _read(path) or _Kept(empty_pool(), torch.zeros(0, EMBEDDING_DIM), 0)
            kept = _grown(
                kept,
                min(members, len(kept.pool) + max(1, len(kept.pool) // SAVE_SHARE)),
                generate,
                lambda n: say(n, members),
            )
            _write(path, kept)
    return kept.pool.first(members)


def pool_file(folder: Path | None = None) -> Path:
    """Where generated faces lie. The name stands for the recipe and every weight that has a say in it."""
    says = [
        RECIPE,
        SMILE_SHA256,
        *(entry(name).sha256 for name in (MAPPING, SYNTHESIS, "centerface", "dlib-face-resnet")),
    ]
    digest = hashlib.sha256(" ".join(says).encode()).hexdigest()[:16]
    return (folder or cache_folder().parent / "faces") / f"mobile-stylegan-{digest}.safetensors"


class _Logged:
    """Says once that faces are made, which takes minutes, and each that is made only to who asks."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, there: int, members: int) -> None:
        if not self._said:
            self._said = True
            said = "%d synthetic people are made, once, in about %d minutes; `Anonymizer.prepare` shows how far it is"
            _log.warning(said, members - there, max(1, round((members - there) * SECONDS_A_MEMBER / 60)))
        _log.info("synthetic people: %d of %d", there, members)


@dataclass(frozen=True, eq=False)
class _Kept:
    """What the file holds: the pool, templates ``(N, 128)`` of its faces, and the number of tries so far."""

    pool: FacePool
    templates: Tensor
    tries: int


def _grown(kept: _Kept, members: int, generate: Generator, say: Callable[[int], None]) -> _Kept:
    """With what is lacking to ``members``. say: told how many there are after each that is added."""
    pool, templates, tries = kept.pool, kept.templates, kept.tries
    while len(pool) < members:
        if tries >= TRIES_A_MEMBER * members:
            raise WeightsError(
                f"only {len(pool)} of {tries} generated faces passed the checks; ask for fewer members"
            )
        drawn = _person(generate, tries, templates)
        tries += 1
        if drawn is not None:
            pool, templates = pool.cat(drawn[0].of(len(pool))), torch.cat([templates, drawn[1]])
            say(len(pool))
    return _Kept(pool, templates, tries)


def _person(generate: Generator, number: int, others: Tensor) -> tuple[FacePool, Tensor] | None:
    """The pictures of one person and their template ``(1, 128)``, unless they fail a check."""
    style = generate.style(number, TRUNCATION)
    known = learnt()
    moved = -float(style @ known["style"] + known["style_bias"])
    first = checked(*generate(style, moved))
    if first is None or (len(others) and float(torch.cdist(template_of(first), others).min()) < APART):
        return None
    own, pool = template_of(first), empty_pool()
    moved -= float(first.smiles)  # what a style says is off by half a unit, what its picture shows by less
    for smile in SMILES:
        near = smile == SMILES[0] and abs(float(first.smiles)) <= NEAR
        one = first if near else checked(*generate(style, moved + smile))
        if one is None or abs(float(one.smiles) - smile) > CLEAR or float((own - template_of(one)).norm()) > SAME:
            return None
        pool = pool.cat(replace(one, smiles=torch.tensor([smile])))
    return pool, own


class Generator:
    """Pictures of people by their number."""

    def __init__(self) -> None:
        self.network: MobileStyleGAN = read_generator(locate(MAPPING), locate(SYNTHESIS))
        self._key = RunKey(b"anondata/generated-faces")  # no secret: nothing of anybody depends on it
        with torch.no_grad():
            self._mean = self.network.styles(normal([self._key.seed("mean")], (MEAN_OF, STYLE_DIM))[0])
            self._mean = self._mean.mean(dim=0, keepdim=True)

    def style(self, number: int, truncation: float) -> Tensor:
        """``(1, 512)``."""
        with torch.no_grad():
            style = self.network.styles(normal([self._key.seed("face", number)], (STYLE_DIM,)))
        return torch.lerp(self._mean, style, truncation)

    def __call__(self, style: Tensor, moved: float) -> tuple[Tensor, Tensor]:
        """Picture ``(3, 256, 256)`` and matte ``(1, 256, 256)``, uint8, of somebody who smiles so much more."""
        with torch.no_grad():
            picture, matte = self.network.portraits(style, style + moved * learnt()["style_step"])
        return pixels(picture), pixels(matte)


def pixels(drawn: Tensor) -> Tensor:
    """``(1, C, H, W)`` in [0, 1] as ``(C, 256, 256)`` uint8."""
    return (resize(drawn, PICTURE_PX, PICTURE_PX)[0] * 255).round().to(torch.uint8)


def checked(picture: Tensor, matte: Tensor) -> FacePool | None:
    """A pool of one picture, or None unless ``picture (3, 256, 256)`` uint8 shows one face, whole, and no other."""
    found = CenterFaceDetector().detect([picture])
    if len(found) != 1 or float(found.scores[0]) < SURE or not bool(found.has_landmarks[0]):
        return None
    box, landmarks = found.boxes / PICTURE_PX, found.landmarks / PICTURE_PX
    if bool((box[0, :2] <= 0).any()) or bool((box[0, 2:] >= 1).any()) or not clear_cut(matte):
        return None
    smile = smiles(picture[None].float() / 255, landmarks.double())
    return _single(picture, landmarks.float(), box.float(), matte, smile)


def _single(picture: Tensor, landmarks: Tensor, box: Tensor, matte: Tensor, smile: Tensor) -> FacePool:
    nobody = torch.zeros(1, dtype=torch.int64)
    return FacePool(picture[None], landmarks, box, matte[None], nobody, smile.float())


def clear_cut(matte: Tensor) -> bool:
    """Whether a matte ``(1, 256, 256)`` uint8 is sure of itself and has no bites out of it, shoulders aside."""
    part = matte[None, :, : PICTURE_PX * 4 // 5].float() / 255
    unsure = float((part * (1 - part)).mean())
    person = (part > 0.5).float()
    grown = F.max_pool2d(F.pad(person, (2 * BITE_PX,) * 4), 2 * BITE_PX + 1, stride=1)
    closed = -F.max_pool2d(-grown, 2 * BITE_PX + 1, stride=1)
    return unsure <= MAX_UNSURE and float((closed - person).mean()) <= MAX_BITTEN


def template_of(pool: FacePool) -> Tensor:
    """``(N, 128)`` templates of dlib's network."""
    turn = similarity(torch.tensor(TEMPLATE) / CHIP_PX, pool.landmarks)
    templates = network("dlib-face-resnet")(warp(pool.pictures.float() / 255, turn, CHIP_PX))
    return templates if isinstance(templates, Tensor) else templates[0]


@lru_cache(maxsize=4)
def mixed_pool(members: int) -> FacePool:
    """The first ``members`` of 64 people who are mixtures, at once and without a network; they come with anondata.

    Each is the mean of four consented people of one gender, neutral and smiling, bent to the mean of their faces by
    468 points: see :mod:`anondata.tools.build.mix_people`. Networks see that: a mixture is nearer to one of its four
    (by dlib's at a distance of 0.52, the median) than people are to each other (0.63), and mixtures are alike (0.39).
    Take ``generated`` people where networks must tell all of them apart.

    Licence: CC BY 4.0, DeBruine and Jones (2017), Face Research Lab London Set, doi 10.6084/m9.figshare.5047666.

    Raises:
        WeightsError: more people were asked for than there are, or the file is damaged.
    """
    pool = read_mixed(locate(MIXED_NAME))
    if not 1 <= members <= len(pool):
        raise WeightsError(
            f"a pool of {members} mixed faces was asked for; expected 1 to {len(pool)}. `pool: generated` has more"
        )
    return pool.first(members)


def read_mixed(path: Path) -> FacePool:
    tensors = load_file(path)
    data, ends = tensors.pop("webp").numpy().tobytes(), tensors.pop("ends").tolist()
    drawn = [Image.open(BytesIO(data[start:end])).convert("RGBA") for start, end in pairwise(ends)]
    both = torch.from_numpy(np.stack([np.asarray(one) for one in drawn])).permute(0, 3, 1, 2)
    return FacePool(pictures=both[:, :3].contiguous(), mattes=both[:, 3:].contiguous(), **tensors)


@lru_cache(maxsize=4)
def photographed_pool(folder: str) -> FacePool:
    """The largest face of each photo in a folder, such as consented portraits; photos without a face are left out.

    Raises:
        WeightsError: no folder, or no photo with a face in it.
    """
    from anondata.content.codec import decode

    files = sorted(path for path in Path(folder).iterdir() if path.is_file()) if Path(folder).is_dir() else []
    pool = empty_pool()
    for path in files:
        try:
            view = decode(path.read_bytes()).pixels
        except UndecodableError:  # a list of names, a licence
            continue
        one = _framed(view, CenterFaceDetector().detect([view]))
        pool = pool if one is None else pool.cat(one.of(len(pool)))
    if not len(pool):
        raise WeightsError("the folder of faces has no photo in which a face is found; expected a photo a person")
    return pool


def _framed(view: Tensor, found: Regions) -> FacePool | None:
    """The largest face in a square of twice its box, as generated ones lie in theirs."""
    if not len(found):
        return None
    face = found.select([int(found.sizes.prod(dim=1).argmax())])
    x0, y0, x1, y1 = face.boxes[0].tolist()
    half = max(x1 - x0, y1 - y0)
    corner = torch.tensor([(x0 + x1) / 2 - half, (y0 + y1) / 2 - half])
    left, top, side = int(corner[0]), int(corner[1]), max(1, round(2 * half))
    crop = cut(view, torch.tensor([[left, top, left + side, top + side]]), PICTURE_PX)
    shift = torch.tensor([left, top])
    if not bool(face.has_landmarks[0]):
        return None
    boxes, marks = (face.boxes - shift.repeat(2)) / side, (face.landmarks - shift) / side
    matte = face_mask(marks.double(), PICTURE_PX)
    pixels, opaque = ((part * 255).round().to(torch.uint8) for part in (crop, matte))
    return _single(pixels[0], marks.float(), boxes.float(), opaque[0], smiles(crop, marks.double()))


def _read(path: Path) -> _Kept | None:
    """None where there is no file."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            tries = int(file.metadata()["tries"])
            tensors = {name: file.get_tensor(name) for name in (*_PARTS, "templates")}
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise WeightsError(f"the file of generated faces {path} is damaged: remove it, it is made again") from error
    templates = tensors.pop("templates")
    return _Kept(FacePool(**tensors), templates, tries)


def _write(path: Path, kept: _Kept) -> None:
    """The file appears under its name only when it is whole."""
    tensors = {name: getattr(kept.pool, name).contiguous() for name in _PARTS}
    draft = path.with_suffix(".part")
    try:
        save_file(tensors | {"templates": kept.templates}, draft, {"tries": str(kept.tries)})
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
