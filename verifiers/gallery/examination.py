"""Examination: what a photo must show before a template is made of it.

A photo is refused, with a reason, rather than taken on trust: the template of a wrong face would protect a stranger
in the place of the person. Photos are looked at a few at a time, so the pictures of a stream of any length take no
more memory than that.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from anondata.content.codec import Picture, encode
from anondata.content.images import ImageContent
from anondata.crops import resize
from anondata.detectors.centerface import DETECTABLE_PX, CenterFaceDetector
from anondata.errors import (
    FieldTypeError,
    GalleryError,
    MissingExtraError,
    PolicyError,
    UndecodableError,
    WeightsError,
)
from anondata.protocols import Detector, Embedder
from anondata.regions import Regions, cat_regions
from anondata.verifiers.alignment import landmarks_or_usual
from anondata.verifiers.gallery.gallery import Floats, Portrait
from anondata.verifiers.gallery.photos import Photo

log = logging.getLogger("anondata")

Several = Literal["refuse", "largest"]
Numbered = tuple[int, Photo]

# 102 photos of 51 people, shrunk, each against the person's other photo at full size. With faces of 32 px all are
# found and 101 lie within 0.54 (the threshold at a false-accept rate of 0.002), as with 40 px; with 24 px one is not
# found and 97 lie within. For rank 1 alone 20 px would do: tools/bench/results/small_faces.json.
SMALLEST_PX = 32.0

SECOND_FACE = 0.5  # of the largest face's size: smaller ones are taken for the background
THRESHOLD = 0.35  # of the detector: all faces and no false region in tools/bench/results/detection.json

FIRST_LOOK_PX = 1280  # long side of a large picture at its first look
CLEAR = 4.0  # times what a look must find: if the widest face is wider, no other half its size can have been missed

BATCH = 8  # photos looked at together; a decoded one of 12 megapixels takes 36 MB
AHEAD = 2  # batches in memory: one is decoded while the other is looked at
PORTRAIT_SCALE = 3.0  # of the face's box: all that a technique covers, and as much again
PORTRAIT_PX = 512

# These concern the whole enrolment, not the photo at hand.
_RUN_ERRORS = (PolicyError, WeightsError, MissingExtraError, GalleryError)

REASONS: Mapping[str, str] = {
    "error": "an error that nobody foresaw",
    "no_face": "no face was found",
    "no_identity": "nothing says whose photo it is, or no Unicode text does",
    "no_landmarks": "eyes, nose and mouth were not found, so the face cannot be aligned",
    "no_template": "the network returned numbers that are not finite",
    "several_faces": "a second face is at least half as large as the largest",
    "too_plain": "of a place: it has too few features for another view of it to be found",
    "too_small": "the face is narrower than the least width",
    "undecodable": "no picture, damaged, or too large",
    "unreadable": "not there, or it cannot be read",
}
"""Why a photo may be refused."""


@dataclass(frozen=True, eq=False)
class Examined:
    """A photo after all checks: either a template, or the reason why there is none.

    number: place in the stream, from 1. reason: a key of :data:`REASONS`, empty for a photo that was taken.
    template: ``(D,)`` float32, finite.
    """

    number: int
    identity: str = field(repr=False)
    label: str = field(default="", repr=False)
    reason: str = ""
    template: Floats | None = field(default=None, repr=False)
    portrait: Portrait | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Examiner:
    """Turns photos into templates, or says why not.

    detector: by default CenterFace, told to find faces half as wide as the smallest that is taken.
    smallest_px: least width of a face's box. several: what to do with a photo of several people: ``refuse`` it, or
        take the ``largest`` face. Faces below half of the largest one's size do not count.
    keep_portraits: whether to keep a picture of each face with its surroundings.

    Raises:
        GalleryError: parameters out of range.
    """

    embedder: Embedder
    detector: Detector | None = None
    smallest_px: float = SMALLEST_PX
    several: Several = "refuse"
    keep_portraits: bool = False
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if self.several not in get_args(Several):
            raise GalleryError(f"several is 'refuse' or 'largest', got {self.several!r}")
        if not 8 <= self.smallest_px <= 1000:
            raise GalleryError(f"smallest_px must be between 8 and 1000, got {self.smallest_px:g}")

    def examine(self, photos: Iterable[Photo], *, first: int = 1) -> Iterator[Examined]:
        """Every photo's outcome, in order, while the stream goes on. first: number of the first photo.

        Raises:
            WeightsError, MissingExtraError: a network cannot be loaded.
        """
        for batch, views in self._decoded(zip(count(first), photos, strict=False)):
            yield from self._apart(batch, views)

    def _decoded(self, photos: Iterator[Numbered]) -> Iterator[tuple[list[Numbered], list[Tensor | str]]]:
        """Batches with their pictures, of which the next is decoded while one is looked at."""
        ahead: deque[tuple[list[Numbered], list[Future[Tensor | str]]]] = deque()
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            while batch := list(islice(photos, BATCH)):
                ahead.append((batch, [pool.submit(view_of, photo, self.device) for _, photo in batch]))
                if len(ahead) == AHEAD:
                    yield _waited(*ahead.popleft())
            while ahead:
                yield _waited(*ahead.popleft())

    def _apart(self, batch: Sequence[Numbered], views: Sequence[Tensor | str]) -> list[Examined]:
        """The outcomes of a batch; when it breaks, each photo alone, so that one cannot cost the others."""
        try:
            return self._batch(batch, views)
        except _RUN_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - an hour's work must not end with one photo
            if len(batch) == 1:
                return [_outcome(batch[0], _unforeseen(error))]
            return [self._apart([b], [v])[0] for b, v in zip(batch, views, strict=True)]

    @torch.no_grad()
    def _batch(self, batch: Sequence[Numbered], views: Sequence[Tensor | str]) -> list[Examined]:
        pictures = {i: view for i, view in enumerate(views) if isinstance(view, Tensor)}
        reasons = {i: view for i, view in enumerate(views) if isinstance(view, str)}
        faces: dict[int, Regions] = {}
        for i, face in zip(pictures, self._faces(list(pictures.values())), strict=True):
            if isinstance(face, str):
                reasons[i] = face
            else:
                faces[i] = face
        rows = dict(zip(faces, self._templates(list(pictures.values()), list(faces.values())), strict=True))
        reasons |= {i: "no_template" for i, row in rows.items() if not np.isfinite(row).all()}
        out = []
        for i, photo in enumerate(batch):
            done = _outcome(photo, reasons.get(i, ""))
            if not done.reason:
                portrait = portrait_of(pictures[i], faces[i]) if self.keep_portraits else None
                done = replace(done, template=rows[i], portrait=portrait)
            out.append(done)
        return out

    def _faces(self, pictures: Sequence[Tensor]) -> list[Regions | str]:
        """Of each picture the face that is to be taken, or the reason why none is."""
        return [self._chosen(found) for found in self._found(pictures)]

    def _found(self, pictures: Sequence[Tensor]) -> list[Regions]:
        """The regions of each picture. A large one is looked at shrunk first, which does where its face is large."""
        if self.detector is not None:
            return _looked(self.detector, pictures)
        finest = max(self.smallest_px / 2, 4.0)
        first = [max(finest, DETECTABLE_PX * max(p.shape[1:]) / FIRST_LOOK_PX) for p in pictures]
        found = _at(first, pictures)
        again = [i for i, px in enumerate(first) if px > finest and not _widest(found[i]) >= CLEAR * px]
        for i, regions in zip(again, _at([finest] * len(again), [pictures[i] for i in again]), strict=True):
            found[i] = regions
        return found

    def _chosen(self, found: Regions) -> Regions | str:
        faces = found.select([i for i, kind in enumerate(found.kinds) if kind == "face"])
        if not len(faces):
            return "no_face"
        size = faces.sizes.prod(dim=1).sqrt()
        if self.several == "refuse" and int((size >= SECOND_FACE * size.max()).sum()) > 1:
            return "several_faces"
        face = faces.select([int(size.argmax())])
        if not float(face.sizes[0, 0]) >= self.smallest_px:
            return "too_small"
        return face if torch.equal(landmarks_or_usual(face), face.landmarks) else "no_landmarks"

    def _templates(self, pictures: Sequence[Tensor], faces: Sequence[Regions]) -> Floats:
        """``(R, D)`` for the faces, of which each knows its picture's place."""
        if not faces:
            return np.zeros((0, 0), np.float32)
        rows = self.embedder.embed(pictures, cat_regions(faces))
        if rows.ndim != 2 or len(rows) != len(faces):
            raise ValueError("an embedder returned a matrix of the wrong shape")
        matrix: Floats = rows.float().cpu().numpy()
        return matrix


def view_of(photo: Photo, device: torch.device | str) -> Tensor | str:
    """A photo's picture ``(3, H, W)`` uint8, or the reason why there is none: a key of :data:`REASONS`."""
    if not _is_text(photo.identity):
        return "no_identity"
    try:
        image = photo.image() if callable(photo.image) else photo.image
    except Exception:  # noqa: BLE001 - storages raise what they like; none of it may stop the others
        return "unreadable"
    content = ImageContent()
    try:
        return content.view(content.decode(image, torch.device(device)))
    except (UndecodableError, FieldTypeError):
        return "undecodable"
    except Exception as error:  # noqa: BLE001 - fail closed: whatever a decoder does ends here
        return _unforeseen(error)


def portrait_of(view: Tensor, face: Regions) -> Portrait:
    """A face with its surroundings, at most 512 px a side, as lossless WebP.

    view: ``(3, H, W)`` uint8. face: one region of it. The surroundings end where the picture does.
    """
    height, width = view.shape[1:]
    near = face.scaled(PORTRAIT_SCALE).boxes[0].cpu()
    x0, y0 = (int(v) for v in near[:2].floor().clamp(min=0))
    x1, y1 = min(int(near[2].ceil()), width), min(int(near[3].ceil()), height)
    part = view[None, :, y0:y1, x0:x1]
    shrink = min(1.0, PORTRAIT_PX / max(part.shape[2:]))
    rows, columns = (max(1, round(side * shrink)) for side in part.shape[2:])
    pixels = resize(part, rows, columns)[0].cpu()
    scale = torch.tensor([columns / (x1 - x0), rows / (y1 - y0)])
    box = (face.boxes[0].cpu() - torch.tensor([x0, y0, x0, y0])) * scale.repeat(2)
    landmarks = (face.landmarks[0].cpu() - torch.tensor([x0, y0])) * scale
    image = encode(Picture(pixels, None, "WEBP", grey=False, subsampling=None, notes=(), lossless=True))
    return Portrait(image, box.float().numpy(), landmarks.float().numpy())


def _is_text(identity: object) -> bool:
    """Whether an identity can be kept: folders may have names that are no Unicode."""
    return (
        isinstance(identity, str) and bool(identity.strip()) and not any("\ud800" <= c <= "\udfff" for c in identity)
    )


def _waited(batch: list[Numbered], views: list[Future[Tensor | str]]) -> tuple[list[Numbered], list[Tensor | str]]:
    return batch, [view.result() for view in views]


def _looked(detector: Detector, pictures: Sequence[Tensor]) -> list[Regions]:
    found = detector.detect(pictures) if pictures else None
    return [found.of_image(i) for i in range(len(pictures))] if found is not None else []


def _at(smallest_px: Sequence[float], pictures: Sequence[Tensor]) -> list[Regions]:
    """The faces of each picture from a width of its own on; pictures of one width go through together."""
    found: dict[int, Regions] = {}
    for px in set(smallest_px):
        places = [i for i, own in enumerate(smallest_px) if own == px]
        detector = CenterFaceDetector(THRESHOLD, smallest_px=min(px, 1000.0))
        found |= zip(places, _looked(detector, [pictures[i] for i in places]), strict=True)
    return [found[i] for i in range(len(pictures))]


def _widest(found: Regions) -> float:
    return float(found.sizes[:, 0].max()) if len(found) else 0.0


def _outcome(numbered: Numbered, reason: str) -> Examined:
    number, photo = numbered
    identity = photo.identity if isinstance(photo.identity, str) else ""
    return Examined(number, identity, photo.label, reason)


def _unforeseen(error: Exception) -> str:
    """The error's text is not logged: it could quote the photo."""
    log.error("a photo was refused because of %s", type(error).__name__)
    return "error"
