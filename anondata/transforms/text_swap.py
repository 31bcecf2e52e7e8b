"""Other text in the place of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from anondata.crops import bounded, resize
from anondata.transforms import _glyphs
from anondata.transforms._glyphs import Ink, Line
from anondata.transforms.base import Edged, RegionTransform, in_range


class TextSwap(RegionTransform):
    """Replaces a line of text by other text of the same kind, length, colour, slope and size.

    The line is read, and each character drawn by another of its kind: digits for digits, capitals for capitals, lower
    case for lower case. What is left of the original is:

    * a smooth field of background colour, six numbers a channel within the line and fifteen around it, one colour of
      ink, and the strength of the grain;
    * the box and the slope of the writing;
    * how many characters there were, of which kind, and where spaces and punctuation were.

    No pixel is kept, also where the line cannot be read: then as many letters are drawn as fit. Letter shapes are
    those of one font, whatever the original's. The pattern tells something of the text, so a region does not count as
    erased.

    It needs the weights ``ppocr-rec``, and a text detector's landmarks for lines that slope; without landmarks the
    line is taken to fill its box.

    Args:
        grain: how much of the background's grain is drawn again as noise, 0 to 1.

    Shape:
        crops: ``(R, C, H, W)``; of four channels the last is changed like a colour.
    """

    networks = ("ppocr-rec",)

    name = "text_swap"
    crop_px = 256
    aligns = True
    redraws = True
    kinds = ("text", "plate")

    def __init__(self, grain: float = 1.0, coverage: float = 1.1, **common: Unpack[Edged]) -> None:
        super().__init__(coverage=coverage, **common)
        self.grain = in_range("grain", grain, 0.0, 1.0)

    def strength(self) -> dict[str, Any]:
        return {"grain": self.grain}

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        unknown = crops.new_full((len(crops), 5, 2), torch.nan)
        return self.change_aligned(crops, extent=extent, seeds=seeds, landmarks=unknown)

    def change_aligned(self, crops: Tensor, *, extent: float, seeds: Sequence[int], landmarks: Tensor) -> Tensor:
        home = crops.detach().to("cpu", torch.float32)
        height, width = home.shape[-2:]
        square = resize(home, self.crop_px, self.crop_px)
        rows = zip(square, landmarks.detach().cpu(), seeds, strict=True)
        out = torch.stack([self._one(crop, points, extent, seed) for crop, points, seed in rows])
        return bounded(resize(out, height, width)).to(crops)

    def _one(self, crop: Tensor, landmarks: Tensor, extent: float, seed: int) -> Tensor:
        rng = np.random.Generator(np.random.Philox(key=seed))
        line = _glyphs.line_of(crop, landmarks, extent)
        strip = _glyphs.strip_of(crop, line.outline, line.aspect, _glyphs.STRIP_PX)
        ink = _glyphs.ink_of(strip)
        within = _glyphs.place(torch.ones(strip.shape[1:]), line.outline, crop.shape[-1])
        field = self.field(crop, strip, ink, line, within)
        noise = torch.from_numpy(rng.standard_normal(crop.shape[1:], dtype=np.float32))
        mask = _glyphs.place(self.drawn(strip, ink, line, rng), line.outline, crop.shape[-1])
        written = torch.lerp(field, self.inked(field, ink.colour), mask.double())
        return bounded(written + self.grain * _grain_of(strip, ink) * noise).float()

    def field(self, crop: Tensor, strip: Tensor, ink: Ink, line: Line, within: Tensor) -> Tensor:
        """``(C, S, S)``: what lies behind the writing."""
        inked = _glyphs.place(ink.share, line.outline, crop.shape[-1])
        behind = _glyphs.smooth_fit(crop, within * (1 - inked))
        if float((1 - within).mean()) < 0.02:
            return behind
        return torch.lerp(_glyphs.smooth_fit(crop, 1 - within, order=4), behind, within.double())

    def inked(self, field: Tensor, colour: Tensor) -> Tensor:
        """``(C, S, S)``: the colour of ink at each place."""
        return colour[:, None, None].expand_as(field)

    def words(self, line: Line, ink: Ink, rng: np.random.Generator) -> str:
        """What is written instead."""
        return _glyphs.same_kind(line.text or self.stand_in(line, ink), rng)

    def stand_in(self, line: Line, ink: Ink) -> str:
        """A text of the kind to be drawn where nothing could be read: as many letters as fit."""
        y0, y1, x0, x1 = ink.box
        return "a" * int(min(max(round(1.7 * line.aspect * (x1 - x0) / (y1 - y0)), 2), 30))

    def drawn(self, strip: Tensor, ink: Ink, line: Line, rng: np.random.Generator) -> Tensor:
        """``(H, W)``: the new writing in its strip."""
        height, width = strip.shape[1:]
        y0, y1, x0, x1 = (round(v * n) for v, n in zip(ink.box, (height, height, width, width), strict=True))
        out = torch.zeros(height, width)
        out[y0:y1, x0:x1] = self.letters(self.words(line, ink, rng), y1 - y0, x1 - x0, ink)
        return out

    def letters(self, text: str, height: int, width: int, ink: Ink) -> Tensor:
        """The text as it fills a frame, about as bold as the original."""
        share = float(ink.share.mean()) / max(1e-3, (ink.box[1] - ink.box[0]) * (ink.box[3] - ink.box[2]))
        return _glyphs.glyphs(text, height, width, weight=0.02 if share > 0.33 else 0.0)


def _grain_of(strip: Tensor, ink: Ink) -> float:
    """Standard deviation between neighbouring background pixels: one number, and the size of noise, not of marks."""
    plain = ink.share[:, 1:] + ink.share[:, :-1] == 0
    if not bool(plain.any()):
        return 0.0
    steps = (strip[:, :, 1:] - strip[:, :, :-1]).mean(dim=0)[plain]
    return min(float(steps.abs().median()) * 1.0484, 0.06)  # of normal noise: 1.4826 / sqrt(2)
