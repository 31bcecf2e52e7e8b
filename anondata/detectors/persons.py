"""Persons, from head to foot or as far as they can be seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from anondata.crops import resize
from anondata.detectors.centerface import check_params
from anondata.detectors.pyramid import merge
from anondata.models.pedestrian import SIDE_PX, anchors, boxes_of
from anondata.models.shared import network
from anondata.regions import LANDMARKS, Regions, cat_regions

DETECTABLE_PX = (
    120.0  # height in the network's 300 px input at which most persons are found: 8 of 11; at 60 px 6 of 14
)
MERGE_IOU = 0.5
EDGE = 0.02  # of a tile's side: a box that ends this near an edge may go on behind it
HELD = 0.7  # share of a box that others hold, from which on it is their part
SAMPLES = 8  # points along each side at which that share is counted
BATCH = 16  # tiles in one call on a GPU; one by one on a CPU, where batching gains nothing

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class PersonDetector:
    """Finds persons with SSDLite over MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381).

    The network sees 300 x 300 px. So it looks at the whole picture, squashed as in its training, and at square tiles
    of a half, a quarter, … of the long side, each overlapping its neighbours by half, down to where the smallest
    person is tall enough. Its weights are fetched once: ``anondata weights pull persons-ssdlite``.

    threshold: the least score of a person, in (0, 1). Lower finds more persons, and more that are none.
    smallest_px: height of the smallest person who is still looked for at a size that suits the network, in pixels of
        the picture. The cost grows with its square: a picture of 1280 x 886 is 1 look at 512 px and more, 15 at 240.

    Not guaranteed: that everybody is found. Of 14 people in six photos all were at 240 px, but the boxes of two were
    so short that a third more of them still left a tenth of the person out; of 20 fresh ones 16, most of them a tenth
    of the picture's height. Far, lying and crowded people are missed.
    Finer tiles take textures for people, too: 10 regions in six photos without any. A face detector beside this one
    finds some of those whom it misses.
    """

    kinds: ClassVar[tuple[str, ...]] = ("person",)

    networks: ClassVar[tuple[str, ...]] = ("persons-ssdlite",)

    threshold: float = 0.2
    smallest_px: float = 240.0

    def __post_init__(self) -> None:
        check_params("persons", threshold=self.threshold, smallest_px=self.smallest_px)

    def detect(self, views: Sequence[Tensor]) -> Regions:
        device = views[0].device if views else torch.device("cpu")
        found = [self._in_picture(i, view) for i, view in enumerate(views)]
        return merge(cat_regions(found, device), iou=MERGE_IOU)

    def _in_picture(self, image: int, view: Tensor) -> Regions:
        spots = windows(view.shape[1], view.shape[2], smallest_px=self.smallest_px)
        many = 1 if view.device.type == "cpu" else BATCH
        parts = [self._look(view, spots[i : i + many]) for i in range(0, len(spots), many)]
        boxes, scores, cut = (torch.cat(column) for column in zip(*parts, strict=True))
        keep = ~(cut & _is_part(boxes, cut))
        boxes, scores = boxes[keep], scores[keep]
        return Regions(
            torch.full((len(boxes),), image, dtype=torch.int64, device=view.device),
            boxes,
            torch.full((len(boxes), LANDMARKS, 2), torch.nan, device=view.device),
            scores,
            ("person",) * len(boxes),
        )

    def _look(self, view: Tensor, spots: Sequence[Window]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes ``(N, 4)`` in the picture, scores ``(N,)``, and which boxes their window's edge may have cut."""
        looks = torch.cat([resize(view[None, :, y0:y1, x0:x1], SIDE_PX, SIDE_PX) for x0, y0, x1, y1 in spots])
        codes, scores = network("persons-ssdlite", view.device)(looks.float())
        if not bool(scores.isfinite().all()):  # NaN would be no person anywhere
            raise ValueError("the detector's scores are not finite")
        window, anchor = (scores >= self.threshold).nonzero(as_tuple=True)
        relative = boxes_of(codes[window, anchor], _anchors().to(view.device)[anchor])
        frame = relative.new_tensor(spots)[window]
        size = (frame[:, 2:] - frame[:, :2]).repeat(1, 2)
        sides = frame.new_tensor([view.shape[2], view.shape[1]])
        inner = torch.cat([frame[:, :2] > 0, frame[:, 2:] < sides], dim=1)  # edges that are none of the picture
        near = torch.cat([relative[:, :2] < EDGE, relative[:, 2:] > 1 - EDGE], dim=1)
        # Nobody is seen beyond their window; the regressed box may reach out of it.
        boxes = relative.clamp(0, 1) * size + frame[:, :2].repeat(1, 2)
        return boxes, scores[window, anchor], (inner & near).any(dim=1)


@cache
def _anchors() -> Tensor:
    return anchors()


def windows(height: int, width: int, *, smallest_px: float) -> list[Window]:
    """Where to look: the whole picture, then square tiles of half the side of those before, as x0, y0, x1, y1.

    >>> windows(300, 400, smallest_px=200)
    [(0, 0, 400, 300)]
    >>> windows(300, 600, smallest_px=120)
    [(0, 0, 600, 300), (0, 0, 300, 300), (150, 0, 450, 300), (300, 0, 600, 300)]
    """
    out = [(0, 0, width, height)]
    side, enough = float(max(height, width)), smallest_px * SIDE_PX / DETECTABLE_PX
    while side > enough:
        side = max(side / 2, enough)
        out += _tiles(height, width, max(1, round(side)))
    return out


def _tiles(height: int, width: int, side: int) -> Iterator[Window]:
    for y in _starts(height, side):
        for x in _starts(width, side):
            yield x, y, min(x + side, width), min(y + side, height)


def _starts(length: int, side: int) -> list[int]:
    """Evenly spread, each overlapping the next by a half or more."""
    if length <= side:
        return [0]
    count = -(-2 * (length - side) // side) + 1
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def _is_part(boxes: Tensor, cut: Tensor) -> Tensor:
    """``(N,)`` bool: boxes that no edge cut hold nearly all of this one together, so that nothing is lost with it."""
    along = (torch.arange(SAMPLES, device=boxes.device) + 0.5) / SAMPLES
    spots = torch.cartesian_prod(along, along)  # of each box
    places = boxes[:, None, :2] + spots * (boxes[:, 2:] - boxes[:, :2])[:, None]
    held = torch.zeros(places.shape[:2], dtype=torch.bool, device=boxes.device)
    for whole in boxes[~cut]:
        held |= ((places >= whole[:2]) & (places <= whole[2:])).all(dim=2)
    return held.float().mean(dim=1) >= HELD
