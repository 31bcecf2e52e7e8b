"""Number plates: lines of text that look like one and read like one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from anondata.detectors.centerface import check_params
from anondata.detectors.text import find
from anondata.errors import PolicyError
from anondata.models import ocr
from anondata.regions import Regions, cat_regions

TEXT_THRESHOLD = 0.4
ASPECT = (1.5, 9.0)  # length by height of the line: plates of 2:1 to 6:1, whose rims are farther above than beside
CHARS = (4, 9)
FILLERS = " -.:·•・,'|_/"
RIM = (1.16, 1.5)  # how much longer and higher a plate is than the outline of its characters
LIKE_CAPITALS = frozenset("ciloskpuvwxz")  # lower-case letters for which capitals are often taken


@dataclass(frozen=True)
class PlateDetector:
    """Finds number plates: lines of text of a plate's proportions that read as four to nine capitals and digits.

    Letters and digits must both be there: a plate of digits alone is found as text, not as a plate, and so is one
    whose two lines are too short by themselves. A region's box holds the plate up to its rim, as far as the usual
    proportions tell; its landmarks are those of the characters, see :class:`anondata.detectors.text.TextDetector`.
    Needs the weights ``ppocr-det`` and ``ppocr-rec``.

    threshold: the least confidence of a reading, in (0, 1). smallest_px: height of the smallest characters that must
    be found, in pixels of the picture; below some ten they are found and cannot be read.
    """

    kinds: ClassVar[tuple[str, ...]] = ("plate",)

    networks: ClassVar[tuple[str, ...]] = ("ppocr-det", "ppocr-rec")

    threshold: float = 0.6
    smallest_px: float = 8.0

    def __post_init__(self) -> None:
        check_params("plates", threshold=self.threshold, smallest_px=self.smallest_px)

    def detect(self, views: Sequence[Tensor]) -> Regions:
        lines = find(views, threshold=TEXT_THRESHOLD, smallest_px=self.smallest_px)
        found = [self._plates(view, lines.of_image(i)) for i, view in enumerate(views)]
        return cat_regions(found, lines.boxes.device)

    def _plates(self, view: Tensor, lines: Regions) -> Regions:
        outlines = lines.landmarks[:, :4]
        sides = (outlines[:, [1, 3]] - outlines[:, :1]).norm(dim=2).clamp(min=1e-6)
        aspect = sides[:, 0] / sides[:, 1]
        lines = lines.select((aspect >= ASPECT[0]) & (aspect <= ASPECT[1]))
        readings = ocr.read_in(view, list(lines.landmarks[:, :4]), [(0, False), (2, False)])
        sure = [max((r.confidence for r in each if is_plate(r.text)), default=0.0) for each in readings]
        scores = torch.tensor(sure, device=lines.scores.device, dtype=torch.float32)
        plates = lines.select(scores >= self.threshold)
        rims = to_rim(plates.landmarks[:, :4])
        return replace(
            plates,
            boxes=torch.cat([rims.amin(dim=1), rims.amax(dim=1)], dim=1),
            scores=scores[scores >= self.threshold].clamp(max=1),
            kinds=("plate",) * len(plates),
        )


def is_plate(text: str) -> bool:
    """Whether a reading has the characters of a number plate.

    >>> is_plate("B-MW 1234"), is_plate("EXIT"), is_plate("2024"), is_plate("Gate 12")
    (True, False, False, False)
    """
    signs = [c for c in text if c not in FILLERS]
    if any(c.islower() and c not in LIKE_CAPITALS for c in signs):
        return False
    letters = [c.upper() for c in signs if c.isascii() and c.isalpha()]
    digits = [c for c in signs if c.isascii() and c.isdigit()]
    foreign = len(signs) - len(letters) - len(digits)  # a band, a seal or a bolt may be read as some sign
    return CHARS[0] <= len(letters) + len(digits) <= CHARS[1] and bool(letters) and bool(digits) and foreign <= 1


def to_rim(outlines: Tensor) -> Tensor:
    """Outlines ``(N, 4, 2)`` of a plate's characters, moved out to its rim."""
    if outlines.shape[1:] != (4, 2):
        raise PolicyError(f"outlines have shape {tuple(outlines.shape)}, expected (N, 4, 2)")
    middle = outlines.mean(dim=1, keepdim=True)
    u, v = ((outlines[:, i] - outlines[:, 0] + outlines[:, 2] - outlines[:, 4 - i]) / 4 for i in (1, 3))
    signs = outlines.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    half_u, half_v = u * RIM[0], v * RIM[1]
    return middle + signs[None, :, :1] * half_u[:, None] + signs[None, :, 1:] * half_v[:, None]
