"""Faces by YuNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from anondata.detectors import pyramid
from anondata.detectors.centerface import LOOKS, MERGE_IOU, check_params, finest_scale
from anondata.detectors.second_look import without_doubtful
from anondata.models.shared import network
from anondata.regions import Regions, cat_regions, empty_regions

STRIDES = (8, 16, 32)
SURE = 0.88  # of 319 animals and things one had more


@dataclass(frozen=True)
class YuNetDetector:
    """Finds faces and their five landmarks with YuNet (Wu, Peng, Yu 2023, doi 10.1007/s11633-023-1423-y).

    A quarter of CenterFace's cost on a CPU. It finds small faces as well, and none in noise: let it look beside
    CenterFace.

    threshold: the least score of a face, in (0, 1). smallest_px, looks, second_look: as for CenterFace, which is what
    looks again.
    """

    kinds: ClassVar[tuple[str, ...]] = ("face",)

    networks: ClassVar[tuple[str, ...]] = ("yunet", "centerface")

    threshold: float = 0.6
    smallest_px: float = 10.0
    looks: Sequence[str] = field(default_factory=lambda: list(LOOKS))
    second_look: bool = True

    def __post_init__(self) -> None:
        check_params("yunet", threshold=self.threshold, smallest_px=self.smallest_px, looks=self.looks)

    def detect(self, views: Sequence[Tensor]) -> Regions:
        return self.confirm(views, self.propose(views))

    def propose(self, views: Sequence[Tensor]) -> Regions:
        finest = finest_scale(self.smallest_px)
        return pyramid.detect(views, self._faces, finest=finest, iou=MERGE_IOU, blue_first=True)

    def confirm(self, views: Sequence[Tensor], proposed: Regions) -> Regions:
        """Those that stand the second look."""
        return without_doubtful(views, proposed, sure=SURE) if self.second_look else proposed

    def _faces(self, batch: Tensor) -> Regions:
        run = network("yunet", batch.device)
        parts = []
        for i, picture in enumerate(batch):  # the published file has a batch of one
            maps = tuple(run(picture[None]))
            per_stride = [decode(maps, k, picture, threshold=self.threshold) for k in range(len(STRIDES))]
            parts.append(cat_regions(per_stride).renumbered(i))
        return cat_regions(parts, batch.device)


def decode(maps: Sequence[Tensor], level: int, picture: Tensor, *, threshold: float) -> Regions:
    """Faces of one stride from the network's twelve outputs (classes, objectness, boxes, points; by stride)."""
    stride, groups = STRIDES[level], len(STRIDES)
    classes, objects, boxes, points = (maps[level + groups * k][0] for k in range(4))
    score = (classes.clamp(0, 1) * objects.clamp(0, 1)).sqrt().flatten()
    if not bool(score.isfinite().all()):
        raise ValueError("the detector's scores are not finite")
    kept = (score >= threshold).nonzero().flatten()
    if not len(kept):  # as in most pictures at most strides
        return empty_regions(score.device)
    columns = picture.shape[2] // stride
    cell = torch.stack([kept % columns, kept // columns], dim=1).float()
    centre = (cell + boxes[kept, :2]) * stride
    half = boxes[kept, 2:].clamp(max=12).exp() * stride / 2
    landmarks = (points[kept].reshape(-1, 5, 2) + cell[:, None]) * stride
    return Regions(
        torch.zeros_like(kept),
        torch.cat([centre - half, centre + half], dim=1),
        landmarks,
        score[kept],
        ("face",) * len(kept),
    )
