"""Faces by CenterFace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from anondata.detectors import pyramid
from anondata.detectors.second_look import without_doubtful
from anondata.errors import PolicyError
from anondata.models.shared import network
from anondata.protocols import UPRIGHT
from anondata.regions import Regions, empty_regions

STRIDE = 4
LOOKS = (UPRIGHT, "turned", "range", "shape", "channels", "larger")
"""What detectors of faces may be shown of a picture: as it is, and the looks of :mod:`anondata.content.looks`."""

DETECTABLE_PX = 10.0  # width of the smallest face that the network finds reliably: 102 of 102 at a threshold of 0.2
MERGE_IOU = 0.4
SURE = 0.5  # animals and things of 187 pictures had up to 0.48


@dataclass(frozen=True)
class CenterFaceDetector:
    """Finds faces and their five landmarks with CenterFace (Xu, Yan, Sun et al. 2019, arXiv:1911.03599).

    threshold: the least score of a face, in (0, 1). Lower finds more faces, and more that are none.
    smallest_px: width of the smallest face that must be found, in pixels of the picture; sets the finest scale, and
        with it most of the cost, which grows with its square. At 10 px, native size, all of 102 people are found, of
        whom a naive attacker names half; at 8 px 71 % are found, of whom a fifth is named.
    looks: which of :data:`LOOKS` it is shown.
    second_look: whether what it finds with a low score is looked at again at other sizes, and dropped where it is no
        face there: animals and things, mostly. Regions below 12 px are not judged.
    """

    kinds: ClassVar[tuple[str, ...]] = ("face",)

    threshold: float = 0.2
    smallest_px: float = 10.0
    looks: Sequence[str] = field(default_factory=lambda: list(LOOKS))
    second_look: bool = True

    def __post_init__(self) -> None:
        check_params("centerface", threshold=self.threshold, smallest_px=self.smallest_px, looks=self.looks)

    def detect(self, views: Sequence[Tensor]) -> Regions:
        return self.confirm(views, self.propose(views))

    def propose(self, views: Sequence[Tensor]) -> Regions:
        return pyramid.detect(views, self._faces, finest=finest_scale(self.smallest_px), iou=MERGE_IOU)

    def confirm(self, views: Sequence[Tensor], proposed: Regions) -> Regions:
        """Those that stand the second look."""
        return without_doubtful(views, proposed, sure=SURE) if self.second_look else proposed

    def _faces(self, batch: Tensor) -> Regions:
        heat, scale, offset, landmarks = network("centerface", batch.device)(batch)
        return decode(heat, scale, offset, landmarks, threshold=self.threshold)


def finest_scale(smallest_px: float) -> float:
    """Scale of the finest level at which a face of this width is still found; at most 2, where blur sets in."""
    return min(2.0, DETECTABLE_PX / smallest_px)


def check_params(name: str, *, threshold: float, smallest_px: float, looks: Sequence[str] = LOOKS) -> None:
    """Raises :class:`PolicyError` where a detector's parameters are out of range."""
    if not 0 < threshold < 1:
        raise PolicyError(f"detector {name!r}: threshold must be between 0 and 1, got {threshold:g}")
    if not 4 <= smallest_px <= 1000:
        raise PolicyError(f"detector {name!r}: smallest_px must be between 4 and 1000, got {smallest_px:g}")
    if isinstance(looks, str) or not looks or not set(looks) <= set(LOOKS):
        raise PolicyError(f"detector {name!r}: looks must be a list of {', '.join(LOOKS)}")


def decode(heat: Tensor, scale: Tensor, offset: Tensor, landmarks: Tensor, *, threshold: float) -> Regions:
    """Faces from the network's maps at stride 4: peaks of ``heat (B, 1, h, w)`` above the threshold.

    scale: ``(B, 2, h, w)`` log height and width in cells. offset: ``(B, 2, h, w)`` vertical, horizontal.
    landmarks: ``(B, 10, h, w)`` five times vertical, horizontal, relative to the box.
    """
    if not bool(heat.isfinite().all()):  # NaN would be no face anywhere
        raise ValueError("the detector's heatmap is not finite")
    image, _, row, column = (heat >= threshold).nonzero(as_tuple=True)
    if not len(image):
        return empty_regions(heat.device)
    peak = _is_peak(heat, image, row, column)
    image, row, column = image[peak], row[peak], column[peak]
    high, wide = (STRIDE * scale[image, i, row, column].clamp(max=12).exp() for i in (0, 1))
    centre_y = STRIDE * (row + offset[image, 0, row, column] + 0.5)
    centre_x = STRIDE * (column + offset[image, 1, row, column] + 0.5)
    left, top = centre_x - wide / 2, centre_y - high / 2
    relative = landmarks[image, :, row, column].reshape(-1, 5, 2)
    points = relative.flip(2) * _pair(wide, high)[:, None] + _pair(left, top)[:, None]
    boxes = _pair(left, top).repeat(1, 2)
    boxes[:, 2:] += _pair(wide, high)
    return Regions(image, boxes, points, heat[image, 0, row, column], ("face",) * len(image))


def _is_peak(heat: Tensor, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Which cells are no lower than their eight neighbours; looks at candidates only, of which there are few."""
    height, width = heat.shape[2:]
    around = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    neighbours = [heat[image, 0, (row + y).clamp(0, height - 1), (column + x).clamp(0, width - 1)] for y, x in around]
    return heat[image, 0, row, column] >= torch.stack(neighbours).amax(dim=0)


def _pair(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([x, y], dim=1)
