"""One original and what a tool made of it: its faces, which of them were left, and what attackers see of each."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from anondata.content import codec
from anondata.crops import outer_rects, resize
from anondata.errors import UndecodableError
from anondata.protocols import Detector
from anondata.regions import Regions, cat_regions
from anondata.transforms.base import RegionTransform
from anondata.transforms.blur import gaussian_blur
from anondata.verifiers.audit.attacks import ALONE, ANONYMIZED, CLEAR, SMOOTHED
from anondata.verifiers.audit.change import alike, same_shape, scaled, unchanged
from anondata.verifiers.audit.crops import Alignment, crops_of, face_alone
from anondata.verifiers.audit.rerun import Reruns, rerun

SMOOTHING = 0.25  # sigma of the smoothing parrot, relative to the width of the face
ENOUGH_PX = 96  # width of a face at which it is smoothed: a sigma of 24 px needs no more
SAME_FACE_IOU = 0.5
WINDOW = 3.0  # side of what is kept of a picture around a face, relative to its box: more than any network's chip

Bytes = bytes | Callable[[], bytes]


@dataclass(frozen=True)
class Face:
    """A face that somebody marked in an original.

    box: x0, y0, x1, y1 in pixels. landmarks: ten numbers, x and y of eyes, nose and mouth corners; or none.
    identity: whose it is, if known. groups: by column.
    """

    box: tuple[float, float, float, float]
    landmarks: tuple[float, ...] = ()
    identity: str = field(default="", repr=False)
    groups: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class PhotoPair:
    """An original and what a tool made of it, as encoded bytes or functions that read them when their turn comes.

    faces: those marked in the original; None: they are detected. identity, groups: of the person that the photo shows
    (the largest face, if there are several), where faces are detected.
    """

    original: Bytes = field(repr=False)
    anonymized: Bytes = field(repr=False)
    identity: str = field(default="", repr=False)
    groups: Mapping[str, str] = field(default_factory=dict, repr=False)
    faces: tuple[Face, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class SeenFace:
    """One face as attackers see it.

    views: by name, a part of the picture and the one region in it. found_by: detectors that see it in the original;
    ``marked`` where somebody did. detected_after: still found. unchanged: the tool left it as it was.
    before, after: crops for attackers without a network, by alignment; runs: of the technique, where it is known.
    place: see :class:`anondata.verifiers.audit.evidence.Evidence`.
    """

    identity: str
    groups: Mapping[str, str]
    views: Mapping[str, tuple[Tensor, Regions]]
    found_by: tuple[str, ...]
    detected_after: bool
    unchanged: bool
    before: Mapping[Alignment, Tensor] = field(default_factory=dict)
    after: Mapping[Alignment, Tensor] = field(default_factory=dict)
    runs: Reruns | None = None
    place: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class SeenPair:
    """What one pair shows, or in one word why it cannot be used.

    unlike: the pictures look like two different ones. left_alone: unchanged faces that only the second detector
    finds; they are nobody's probes.
    """

    problem: str = ""
    faces: tuple[SeenFace, ...] = ()
    unlike: bool = False
    left_alone: int = 0


@dataclass(frozen=True)
class Eyes:
    """What looks at pairs. detectors: by name; the first finds the faces, a second confirms them.

    technique: what the tool did, where that is known: it is run again.
    """

    detectors: Mapping[str, Detector]
    device: torch.device | str = "cpu"
    technique: RegionTransform | None = None

    def see(self, pair: PhotoPair, wanted: Container[str] = ()) -> SeenPair:
        """Reads and examines one pair; unreadable pictures end as a problem and raise nothing.

        wanted: identities of the faces that get crops and runs, too.
        """
        before, after = self._picture(pair.original), self._picture(pair.anonymized)
        if before is None or after is None:
            return SeenPair("unreadable_original" if before is None else "unreadable_anonymized")
        scale = same_shape(before, after)
        if scale is None:
            return SeenPair("different_shape")
        found = {name: detector.detect([before]) for name, detector in self.detectors.items()}
        first = next(iter(found))
        faces, people = _faces(pair, found[first], before.device)
        unlike = not alike(before, after, scaled(faces, scale))
        extra = _only(found, faces)
        if not len(faces) and not len(extra):
            return SeenPair("no_face", unlike=unlike)
        everything = cat_regions([faces, extra], before.device)
        same = unchanged(before, after, scaled(everything, scale))
        detected = _overlaps(scaled(faces, scale), self.detectors[first].detect([after]))
        finders = _finders(faces, found, marked=pair.faces is not None)
        seen = []
        for i, face in enumerate(faces):
            views = _views(before, after, face, scale)
            one = SeenFace(
                *people[i], views, finders[i], bool(detected[i]), bool(same[i]), place=_place(face, before)
            )
            seen.append(self._closer(one) if people[i][0] in wanted else one)
        left = int(same[len(faces) :].sum())
        return SeenPair("" if seen else "no_face", tuple(seen), unlike, left)

    def _closer(self, face: SeenFace) -> SeenFace:
        """A face with what attackers without a network look at."""
        before, after = (crops_of(*face.views[view]) for view in (CLEAR, ANONYMIZED))
        views = {**face.views, ALONE: face_alone(*face.views[ANONYMIZED])}
        if self.technique is None:
            return replace(face, views=views, before=before, after=after)
        made = rerun(self.technique, *face.views[CLEAR])
        return replace(face, views={**views, **made.views}, before=before, after=after, runs=made)

    def _picture(self, source: Bytes) -> Tensor | None:
        try:
            pixels = codec.decode(source if isinstance(source, bytes) else source()).pixels
        except UndecodableError:
            return None
        except Exception:  # noqa: BLE001 - storages raise what they like; one file must not stop an audit
            return None
        return pixels.to(self.device)


def _faces(
    pair: PhotoPair, detected: Regions, device: torch.device
) -> tuple[Regions, list[tuple[str, Mapping[str, str]]]]:
    """Regions to be audited, and who and what each is."""
    if pair.faces is not None:
        return _marked(pair.faces, device), [(face.identity, face.groups) for face in pair.faces]
    people = [("", pair.groups)] * len(detected)
    if len(detected):
        people[int(detected.sizes.prod(dim=1).argmax())] = (pair.identity, pair.groups)
    return detected, people


def _marked(faces: Sequence[Face], device: torch.device) -> Regions:
    boxes = torch.tensor([face.box for face in faces], dtype=torch.float32).reshape(-1, 4)
    none = (float("nan"),) * 10
    points = torch.tensor([face.landmarks or none for face in faces], dtype=torch.float32).reshape(-1, 5, 2)
    image = torch.zeros(len(faces), dtype=torch.int64)
    return Regions(image, boxes, points, torch.ones(len(faces)), ("face",) * len(faces)).to(device)


def _place(face: Regions, picture: Tensor) -> tuple[float, ...]:
    """Height, width by height, and the middle of what a cover of a face hides, in sides of its photo."""
    high, wide = picture.shape[1:]
    [(x0, y0, x1, y1)] = face.outlined().boxes.tolist()
    return (y1 - y0) / high, (x1 - x0) / max(y1 - y0, 1e-6), (x0 + x1) / 2 / wide, (y0 + y1) / 2 / high


def _overlaps(regions: Regions, others: Regions) -> Tensor:
    """``(R,)`` bool: a region has one of the others in its place."""
    a, b = regions.boxes[:, None], others.boxes[None]
    common = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(dim=-1)
    areas = regions.sizes.prod(dim=1)[:, None] + others.sizes.prod(dim=1)[None]
    return (common >= SAME_FACE_IOU * (areas - common)).any(dim=1)


def _only(found: Mapping[str, Regions], faces: Regions) -> Regions:
    """What detectors but the first find where no face is known."""
    others = list(found.values())[1:]
    return cat_regions([r.select(~_overlaps(r, faces)) for r in others], faces.boxes.device)


def _finders(faces: Regions, found: Mapping[str, Regions], *, marked: bool) -> list[tuple[str, ...]]:
    seen = {name: _overlaps(faces, regions).tolist() for name, regions in found.items()}
    first = ("marked",) if marked else ()
    return [first + tuple(name for name, hits in seen.items() if hits[i]) for i in range(len(faces))]


def _views(
    before: Tensor, after: Tensor, face: Regions, scale: tuple[float, float]
) -> dict[str, tuple[Tensor, Regions]]:
    hidden = _window(after, scaled(face, scale))
    return {CLEAR: _window(before, face), ANONYMIZED: hidden, SMOOTHED: _smoothed(*hidden)}


def _window(picture: Tensor, face: Regions) -> tuple[Tensor, Regions]:
    """The part of a picture around one face, and the face in it."""
    height, width = picture.shape[1:]
    [(x0, y0, x1, y1)] = outer_rects(face.boxes, WINDOW, torch.tensor([height, width])).tolist()
    left, top = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    part = picture[:, top : max(y1, top + 1), left : max(x1, left + 1)].clone()
    shift = face.boxes.new_tensor([left, top])
    return part, replace(face, boxes=face.boxes - shift.repeat(2), landmarks=face.landmarks - shift)


def _smoothed(window: Tensor, face: Regions) -> tuple[Tensor, Regions]:
    """A window blurred, first shrunk as far as the blur lets nobody notice."""
    shrink = min(1.0, ENOUGH_PX / max(float(face.sizes[0, 0]), 1e-3))
    height, width = (max(1, round(side * shrink)) for side in window.shape[1:])
    small = resize(window[None].float() / 255, height, width)
    place = scaled(face, (width / window.shape[2], height / window.shape[1]))
    sigma = max(SMOOTHING * float(place.sizes[0, 0]), 1e-3)
    return (gaussian_blur(small, sigma_px=(sigma, sigma))[0] * 255).round().to(torch.uint8), place
