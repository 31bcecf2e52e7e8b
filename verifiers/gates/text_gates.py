"""Gates for text: can a machine still read there what was written?"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from anondata.errors import PolicyError
from anondata.models import ocr
from anondata.models.ocr import WAYS, Reading, Way
from anondata.protocols import Embedder, Probe, Verdicts
from anondata.transforms.base import in_range

GROWN = 1.25  # how far around its box a region is searched for lines
SURE = 0.5  # confidence of a reading that counts as what was written
LEAST_CHARS = 2  # of such a reading
WORD_CHARS = 4  # words this long must not be left by themselves, nor shorter ones be looked for inside others
CHANGED = 12  # grey levels by which pixels must differ, of a region that could not be read before either
CHANGED_SHARE = 0.25  # and how many of them

# Signs that recognizers, and plates' own fonts, do not tell apart.
CONFUSED = str.maketrans({"O": "0", "Q": "0", "D": "0", "I": "1", "L": "1", "B": "8", "S": "5", "Z": "2"})


@dataclass(frozen=True)
class TextUnread:
    """Passes a region in which a recognizer no longer reads what it read before.

    Before, PP-OCR reads every line in and right around the region, upright and upside down, short ones also turned by
    a quarter, and all of it in a mirror where nothing can be read otherwise. After, it reads the lines that are there
    then, and the exact outlines of before, which grants the attacker perfect alignment, in the ways that told
    something before. Case, spaces and punctuation do not count. The scores are similarities: 1 - edits / length, of
    the original in the best matching part of a reading; also of each single word of four characters or more. Before
    it is 1, or 0 where nothing could be read; such a region passes only when the technique visibly changed it.

    most: the similarity that must not be reached. At the default, 0.6, other text of the same kind and length is
    taken for the original in about 1 % of cases and the original itself, read again, is missed in fewer; measured by
    ``tools/bench/text_plates.py``.

    Not guaranteed: that a stronger recognizer, or a person, fails too; or that length and layout do not tell.
    """

    networks: ClassVar[tuple[str, ...]] = ("ppocr-rec",)
    kinds: ClassVar[tuple[str, ...]] = ("text", "plate")

    most: float = 0.6

    word: ClassVar[str] = "text_unread"

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "most", in_range("most", self.most, 0.05, 1.0))
        except ValueError as error:
            raise PolicyError(f"{self.word}: {error}") from error

    @property
    def name(self) -> str:
        return f"{self.word}(most={self.most:g})"

    @property
    def embedders(self) -> Sequence[Embedder]:
        return ()

    def judge(self, probe: Probe) -> Verdicts:
        rows = [self._score(probe, row) for row in range(len(probe.regions))]
        before, after, changed = (
            torch.tensor([row[i] for row in rows], device=probe.erased.device, dtype=torch.float32) for i in range(3)
        )
        threshold = torch.full_like(after, self.most)
        return Verdicts(self.name, before, after, threshold, (after < threshold) & (changed > 0))

    def _score(self, probe: Probe, row: int) -> tuple[float, float, float]:
        region = probe.regions.select([row])
        image = int(region.image)
        original, result = probe.original[image], probe.result[image]
        outlines = _outlines(original, region.boxes[0], region.landmarks[0])
        were, ways = self._written(original, outlines)
        if not were:
            return 0.0, 0.0, float(bool(probe.erased[row]) or _differs(original, result, region.boxes[0]))
        also = [] if bool(probe.erased[row]) else _found(result, region.boxes[0], _height(outlines[0]))
        now = _read(result, _unlike(outlines, also), ways)
        return 1.0, max((self.similarity(a.text, b.text) for a in were for b in now), default=0.0), 1.0

    def _written(self, picture: Tensor, outlines: Sequence[Tensor]) -> tuple[list[Reading], list[Way]]:
        """What is written in outlines, and the ways in which that could be read."""
        for mirrored in (False, True):
            ways = [way for way in WAYS if way[1] == mirrored]
            by_way = {way: self.readable(_read(picture, outlines, [way])) for way in ways}
            if any(by_way.values()):
                return [r for found in by_way.values() for r in found], [way for way in by_way if by_way[way]]
        return [], []

    def readable(self, readings: Sequence[Reading]) -> list[Reading]:
        """Those that count as what is written."""
        return [r for r in readings if r.confidence >= SURE and len(self.fold(r.text)) >= LEAST_CHARS]

    def similarity(self, original: str, reading: str) -> float:
        """How much of ``original`` a reading shows, in [0, 1].

        >>> TextUnread().similarity("A1-B2", "x a1b3"), TextUnread().similarity("Sally Smith", "for SALLY")
        (0.75, 1.0)
        """
        there = self.fold(reading)
        words = [folded for part in original.split() if len(folded := self.fold(part)) >= WORD_CHARS]
        return max(likeness(self.fold(original), there), *(likeness(word, there) for word in words), 0.0)

    def fold(self, text: str) -> str:
        """What counts of a text."""
        plain = unicodedata.normalize("NFKC", text).upper()
        return "".join(c for c in plain if c.isalnum())


class PlateUnread(TextUnread):
    """Passes a region in which a recognizer no longer reads the number plate that it read before.

    As :class:`TextUnread`, except that what recognizers mix up on plates counts as the same: O, Q, D and 0; I, L and
    1; B and 8; S and 5; Z and 2; and what is no letter from A to Z or digit does not count.
    """

    word = "plate_unread"

    def fold(self, text: str) -> str:
        return "".join(c for c in super().fold(text) if c.isascii()).translate(CONFUSED)


@dataclass(frozen=True)
class StillText:
    """Utility: passes a region that still looks like text to the detector, whatever is written there.

    least: share of the region's box that lines found there must cover.
    """

    networks: ClassVar[tuple[str, ...]] = ("ppocr-det",)
    kinds: ClassVar[tuple[str, ...]] = ("text", "plate")

    least: float = 0.3

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "least", in_range("least", self.least, 0.05, 1.0))
        except ValueError as error:
            raise PolicyError(f"still_text: {error}") from error

    @property
    def name(self) -> str:
        return f"still_text(least={self.least:g})"

    @property
    def embedders(self) -> Sequence[Embedder]:
        return ()

    def judge(self, probe: Probe) -> Verdicts:
        shares = [
            [
                _text_share(pictures[int(region.image)], region.boxes[0], region.landmarks[0])
                for region in probe.regions
            ]
            for pictures in (probe.original, probe.result)
        ]
        before, after = (torch.tensor(column, device=probe.erased.device).float() for column in shares)
        threshold = torch.full_like(after, self.least)
        return Verdicts(self.name, before, after, threshold, after >= threshold)


def likeness(wanted: str, there: str) -> float:
    """1 - edits / length of ``wanted`` in the best matching part of ``there``; in all of it where it is short.

    Source: Sellers (1980), doi 10.1016/0196-6774(80)90016-4, for matching a part.

    >>> likeness("AB12CD", "XXAB12CDXX"), likeness("AB", "XABX"), likeness("", "A")
    (1.0, 0.5, 0.0)
    """
    if not wanted:
        return 0.0
    part = len(wanted) >= WORD_CHARS
    row = [0 if part else i for i in range(len(there) + 1)]
    for i, a in enumerate(wanted, 1):
        above, row = row, [i]
        for j, b in enumerate(there, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b)))
    edits, length = (min(row), len(wanted)) if part else (row[-1], max(len(wanted), len(there)))
    return max(0.0, 1 - edits / length)


def _outlines(picture: Tensor, box: Tensor, landmarks: Tensor) -> list[Tensor]:
    """Where to read: the region's own outline, its box, and the lines found in and right around it."""
    x0, y0, x1, y1 = box.tolist()
    upright = box.new_tensor([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    own = landmarks[:4] if bool(landmarks.isfinite().all()) else upright
    return _unlike([own], _found(picture, box, _height(own)))


def _unlike(outlines: Sequence[Tensor], more: Sequence[Tensor]) -> list[Tensor]:
    """The outlines, and more of them where they would be read otherwise."""
    out = list(outlines)
    for line in more:
        if not any(_alike(line, other) for other in out):
            out.append(line)
    return out


def _found(picture: Tensor, box: Tensor, line_px: float) -> list[Tensor]:
    """Lines in the surroundings of a box whose middle is in it or right beside."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).clamp(min=4) / 2
    height, width = picture.shape[-2:]
    near = (centre - half * GROWN - 4).floor().clamp(min=0).long().tolist()
    far = (centre + half * GROWN + 4).ceil().long().tolist()
    part = picture[:, near[1] : min(far[1], height), near[0] : min(far[0], width)]
    if 0 in part.shape:
        return []
    lines = ocr.lines_in(part, line_px=line_px).outlines + centre.new_tensor(near)
    inside = ((lines.mean(dim=1) - centre).abs() <= half * 1.1).all(dim=1)
    return list(lines[inside])


def _height(outline: Tensor) -> float:
    sides = [float((outline[i] - outline[0]).norm()) for i in (1, 3)]
    return max(min(sides), 2.0)


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two outlines would be read alike: no corner is off by more than a third of the height."""
    return float((a - b).norm(dim=1).amax()) < _height(a) / 3


def _read(picture: Tensor, outlines: Sequence[Tensor], ways: Sequence[Way]) -> list[Reading]:
    return [reading for readings in ocr.read_in(picture, outlines, ways) for reading in readings]


def _differs(original: Tensor, result: Tensor, box: Tensor) -> bool:
    height, width = original.shape[-2:]
    x0, y0 = (max(int(v), 0) for v in box[:2].floor())
    x1, y1 = min(int(box[2].ceil()), width), min(int(box[3].ceil()), height)
    before, after = (p[:, y0:y1, x0:x1].int() for p in (original, result))
    if before.numel() == 0:
        return True  # nothing of it is in the picture
    return float(((before - after).abs().amax(dim=0) >= CHANGED).float().mean()) >= CHANGED_SHARE


def _text_share(picture: Tensor, box: Tensor, landmarks: Tensor) -> float:
    own = landmarks[:4] if bool(landmarks.isfinite().all()) else box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2)
    lines = _found(picture, box, _height(own))
    area = float((box[2:] - box[:2]).prod())
    shared = 0.0
    for line in lines:
        low, high = torch.maximum(line.amin(dim=0), box[:2]), torch.minimum(line.amax(dim=0), box[2:])
        shared += float((high - low).clamp(min=0).prod())
    return min(1.0, shared / max(area, 1e-6))
