"""Text by PP-OCR's detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from anondata.detectors import pyramid
from anondata.detectors.centerface import check_params
from anondata.errors import PolicyError
from anondata.models import ocr
from anondata.regions import Regions, cat_regions

DETECTABLE_PX = 10.0  # height of capitals that the network finds reliably; see `tools/bench/text_plates.py`
MERGE_IOU = 0.5
INSIDE = 0.8  # share of an outline's box that lies in another's, for the two to be about the same text
MARGIN = 0.15  # of its height, by which a box is larger than its letters on each side
TILED = 0.9  # share of a box that smaller ones cover, for it to be a block of lines that one level ran together
LEAST_CHARS = 2  # of what counts as read: one is read into any ring or stroke
GRID = 24  # cells a side in which that is counted


@dataclass(frozen=True)
class TextDetector:
    """Finds lines of text, in any script and at any angle, with the detector of PP-OCRv4.

    A region's box is upright and holds the whole line. Its landmarks are the line's own four corners, clockwise,
    the first two its top as it is read, and the point on that top that is as far from the first corner as the line is
    high: so techniques know a line's slope and proportions whatever the crop that they get. Which of two ways round
    a line is, is not told. Weights are fetched once: ``anondata weights pull ppocr-det``.

    threshold: the least mean of the network's map over a line, in (0, 1). Lower finds more, and more that is no text.
    smallest_px: height of the smallest capitals that must be found, in pixels of the picture.
    readable: confidence with which a recognizer must read a line, one way round or another, for it to count, in
        [0, 1). 0 takes whatever looks like text, which now and then is a cup or a fence; above, the weights of
        ``ppocr-rec`` are needed, too.
    """

    kinds: ClassVar[tuple[str, ...]] = ("text",)

    networks: ClassVar[tuple[str, ...]] = ("ppocr-det", "ppocr-rec")

    threshold: float = 0.5
    smallest_px: float = 8.0
    readable: float = 0.0

    def __post_init__(self) -> None:
        check_params("text", threshold=self.threshold, smallest_px=self.smallest_px)
        if not 0 <= self.readable < 1:
            raise PolicyError(f"detector 'text': readable must be at least 0 and below 1, got {self.readable:g}")

    def detect(self, views: Sequence[Tensor]) -> Regions:
        found = find(views, threshold=self.threshold, smallest_px=self.smallest_px)
        if not self.readable:
            return found
        parts = [self._readable(view, found.of_image(i)) for i, view in enumerate(views)]
        return cat_regions(parts, found.boxes.device)

    def _readable(self, view: Tensor, found: Regions) -> Regions:
        """Those that are read; the likely way first, because most are settled by it."""
        doubtful = list(range(len(found)))
        for way in ocr.WAYS:
            outlines = [found.landmarks[row, :4] for row in doubtful]
            readings = ocr.read_in(view, outlines, [way])
            doubtful = [row for row, r in zip(doubtful, readings, strict=True) if not _says(r, self.readable)]
        return found.select([row for row in range(len(found)) if row not in doubtful])


def find(views: Sequence[Tensor], *, threshold: float, smallest_px: float) -> Regions:
    """Lines of text in pictures ``(3, H, W)`` uint8 as regions of kind ``text``."""

    def lines(batch: Tensor) -> Regions:
        found = ocr.find_lines(batch, threshold=threshold)
        return cat_regions([as_regions(each, "text").renumbered(i) for i, each in enumerate(found)], batch.device)

    found = pyramid.detect(views, lines, finest=min(2.0, DETECTABLE_PX / smallest_px), iou=MERGE_IOU)
    kept = [found.of_image(i).select(_distinct(found.of_image(i).boxes)) for i in range(len(views))]
    return cat_regions(kept, found.boxes.device)


def _says(readings: Sequence[ocr.Reading], confidence: float) -> bool:
    return any(r.confidence >= confidence and sum(c.isalnum() for c in r.text) >= LEAST_CHARS for r in readings)


def as_regions(lines: ocr.Lines, kind: str) -> Regions:
    """Regions of a kind from outlines: upright boxes, the outlines as landmarks; all of image 0."""
    outlines = lines.outlines
    sides = (outlines[:, [1, 3]] - outlines[:, :1]).norm(dim=2).clamp(min=1e-6)
    em = outlines[:, 0] + (outlines[:, 1] - outlines[:, 0]) * (sides[:, 1] / sides[:, 0])[:, None]
    return Regions(
        torch.zeros(len(outlines), dtype=torch.int64, device=outlines.device),
        torch.cat([outlines.amin(dim=1), outlines.amax(dim=1)], dim=1),
        torch.cat([outlines, em[:, None]], dim=1),
        lines.scores.clamp(0, 1),
        (kind,) * len(outlines),
    )


def _distinct(boxes: Tensor) -> list[int]:
    """The rows of boxes ``(N, 4)`` that are left when the same text was found at two scales, in their order.

    A coarse level sees a paragraph as one blob, a fine one a large word as pieces. So the largest box wins over what
    lies in it, unless that covers it: then all of it is kept, and the large one goes.
    """
    if len(boxes) < 2:
        return list(range(len(boxes)))
    host = boxes.cpu()
    area = (host[:, 2:] - host[:, :2]).clamp(min=1e-6).prod(dim=1)
    low = torch.maximum(host[:, None, :2], host[None, :, :2])
    high = torch.minimum(host[:, None, 2:], host[None, :, 2:])
    margin = MARGIN * (host[:, 2:] - host[:, :2]).amin(dim=1)[:, None]  # a box is that much larger than its letters
    core_low, core_high = (
        torch.maximum(low, (host[:, :2] + margin)[:, None]),
        torch.minimum(high, (host[:, 2:] - margin)[:, None]),
    )
    core = (host[:, 2:] - host[:, :2] - 2 * margin).clamp(min=1e-6).prod(dim=1)
    within = (core_high - core_low).clamp(min=0).prod(dim=2) / core[
        :, None
    ]  # of the row's letters in the column's box
    gone: set[int] = set()
    for row in area.argsort(descending=True).tolist():
        if row in gone:
            continue
        inside = [
            i for i in (within[:, row] >= INSIDE).nonzero().flatten().tolist()
            if i != row and i not in gone and area[i] < area[row]
        ]  # fmt: skip
        if inside:
            gone |= {row} if _tiled(host[row], host[inside]) else set(inside)
    return [i for i in range(len(boxes)) if i not in gone]


def _tiled(box: Tensor, parts: Tensor) -> bool:
    steps = (torch.arange(GRID) + 0.5) / GRID
    x, y = (box[i] + steps * (box[i + 2] - box[i]) for i in (0, 1))
    across = (x >= parts[:, :1]) & (x <= parts[:, 2:3])
    down = (y >= parts[:, 1:2]) & (y <= parts[:, 3:])
    return float((down[:, :, None] & across[:, None]).any(dim=0).float().mean()) >= TILED
