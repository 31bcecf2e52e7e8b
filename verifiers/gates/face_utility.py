"""Utility gates for faces: what the result must still show of them. They protect nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from anondata.components import build
from anondata.detectors.pyramid import box_iou
from anondata.errors import PolicyError
from anondata.protocols import Detector, Embedder, Probe, Verdicts
from anondata.regions import Regions, cat_regions
from anondata.transforms.base import in_range

SAME_FACE_IOU = 0.3  # a face in the result that overlaps the region so far is taken for what became of it
WIDE = 0.85  # mouth's width relative to the eyes' distance that parts neutral from smiling portraits best, and badly


class _Detects:
    """A gate that looks at the results with a detector, once a picture, and needs no templates."""

    detector: str

    def __post_init__(self) -> None:
        _ = self.made

    @property
    def embedders(self) -> Sequence[Embedder]:
        return ()

    @property
    def made(self) -> Detector:
        """The detector itself; cheap, its network is loaded on first use."""
        if not isinstance(self.detector, str):
            raise PolicyError(f"detector must be the name of a detector, got {type(self.detector).__name__}")
        made: Detector = build("detector", self.detector, {})
        return made


def seen_again(probe: Probe, detector: Detector, kind: str) -> Regions:
    """What became of each region, ``R`` rows in their order: the detection of this kind in the result's picture that
    overlaps the region most, or boxes and landmarks of NaN where none does by :data:`SAME_FACE_IOU`."""
    found = in_results(probe, detector, kind)
    return cat_regions([_nearest(region, found) for region in probe.regions], probe.regions.boxes.device)


def in_results(probe: Probe, detector: Detector, kind: str) -> Regions:
    """Detections of a kind in every result that a region lies in, by the pictures' own numbers."""
    return detect_in(probe.result, probe.regions, detector, kind)


def detect_in(pictures: Sequence[Tensor], regions: Regions, detector: Detector, kind: str) -> Regions:
    """Detections of a kind in those pictures that a region lies in, by the pictures' own numbers."""
    numbers = sorted(set(regions.image.tolist()))
    found = detector.detect([pictures[i] for i in numbers])
    found = found.select([row for row, k in enumerate(found.kinds) if k == kind])
    own = torch.tensor(numbers, dtype=torch.int64, device=found.image.device)
    return Regions(own[found.image], found.boxes, found.landmarks, found.scores, found.kinds)


def _nearest(region: Regions, found: Regions) -> Regions:
    there = found.of_image(int(region.image[0]))
    if len(there):
        overlap = box_iou(region.boxes, there.boxes)[0]
        if float(overlap.amax()) >= SAME_FACE_IOU:
            return there.select([int(overlap.argmax())])
    nowhere = torch.full_like(region.boxes, torch.nan)
    return Regions(
        region.image, nowhere, torch.full_like(region.landmarks, torch.nan), region.scores * 0, region.kinds
    )


@dataclass(frozen=True)
class KeepsFace(_Detects):
    """Passes a face that is still found as one, its landmarks about where they were.

    detector: by name. within: mean distance of the landmarks from where they were, relative to the distance of the
    eyes, above which a face has moved; in (0, 2]. A region without landmarks need only be found again.
    The scores are that distance; NaN, which never passes, where no face is found.
    """

    kinds: ClassVar[tuple[str, ...]] = ("face",)

    detector: str = "centerface"
    within: float = 0.35

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "within", in_range("within", self.within, 0.001, 2))

    @property
    def name(self) -> str:
        return f"keeps_face({self.detector}, within={self.within:g})"

    def judge(self, probe: Probe) -> Verdicts:
        again = seen_again(probe, self.made, "face")
        apart = (again.landmarks - probe.regions.landmarks).norm(dim=2).mean(dim=1)
        moved = apart / _eyes(probe.regions.landmarks).clamp(min=1)
        known = probe.regions.has_landmarks & again.has_landmarks
        moved = torch.where(known, moved, torch.zeros_like(moved))
        moved = torch.where(again.boxes.isfinite().all(dim=1), moved, torch.nan)
        return Verdicts(self.name, torch.zeros_like(moved), moved, _all(moved, self.within), moved <= self.within)


@dataclass(frozen=True)
class KeepsMouth(_Detects):
    """Passes a face whose mouth is still on the same side: drawn wide, as in a smile, or not.

    Told by the mouth's width relative to the eyes' distance in five landmarks, which do not say whether lips are
    parted. **A weak sign**: of 51 people's portraits the neutral ones have a width of 0.843 ± 0.014 and the smiling
    ones of 0.856 ± 0.014, so that it ranks a smile above a neutral face in 73 % of the pairs, and the best bound
    is right about 67 %. A turned head changes it as a smile does. It proves no expression; what it notices is a
    mouth that became another altogether.

    detector: by name. wide: the width from which on a mouth is drawn wide. slack: nothing is asked of mouths that are
    nearer to ``wide`` than this, before or after, because there the sign says nothing.
    The scores are the widths before and after; NaN, which never passes, where no landmarks are found after. A region
    that had none before passes: there is nothing to keep.
    """

    kinds: ClassVar[tuple[str, ...]] = ("face",)

    detector: str = "centerface"
    wide: float = WIDE
    slack: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "wide", in_range("wide", self.wide, 0.2, 3))
        object.__setattr__(self, "slack", in_range("slack", self.slack, 0, 1))

    @property
    def name(self) -> str:
        return f"keeps_mouth({self.detector}, wide={self.wide:g})"

    def judge(self, probe: Probe) -> Verdicts:
        before = mouth_width(probe.regions.landmarks)
        after = mouth_width(seen_again(probe, self.made, "face").landmarks)
        same = (before >= self.wide) == (after >= self.wide)
        unsure = ((before - self.wide).abs() <= self.slack) | ((after - self.wide).abs() <= self.slack)
        blank = ~before.isfinite()
        passed = blank | ((same | unsure) & after.isfinite())
        zero = torch.zeros_like(before)
        return Verdicts(
            self.name,
            torch.where(blank, zero, before),
            torch.where(blank, zero, after),
            _all(after, self.wide),
            passed,
        )


def mouth_width(landmarks: Tensor) -> Tensor:
    """``(R,)`` distance of the mouth's corners relative to that of the eyes, of landmarks ``(R, 5, 2)``."""
    width: Tensor = (landmarks[:, 4] - landmarks[:, 3]).norm(dim=1)
    return width / _eyes(landmarks).clamp(min=1)


def _eyes(landmarks: Tensor) -> Tensor:
    apart: Tensor = (landmarks[:, 1] - landmarks[:, 0]).norm(dim=1)
    return apart


def _all(like: Tensor, value: Any) -> Tensor:
    return torch.full_like(like, value)
