"""Another number on a number plate."""

from __future__ import annotations

import string
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from anondata.crops import bounded
from anondata.detectors.plates import to_rim
from anondata.models import ocr
from anondata.transforms import _glyphs
from anondata.transforms._glyphs import Ink, Line
from anondata.transforms.base import Edged
from anondata.transforms.text_swap import TextSwap

LETTERS = string.ascii_uppercase.translate({ord(c): None for c in "IOQ"})  # as on many countries' own plates
WEIGHT = 0.03  # stroke added: plates are bold
CELL = 0.84  # of a character's cell that it fills
SAME = 0.4  # of the contrast between plate and characters, by which a pixel may differ and still be the plate
GAP = 0.5  # width of a space, in cells


class PlateSwap(TextSwap):
    """Replaces the characters of a number plate by random ones: letters for letters, digits for digits.

    The plate is drawn anew: a smooth field of its colour, which keeps the light that falls on it, and as many bold
    capitals and digits as were read, in cells of one width, in the colour of the original ones and under the same
    light and perspective. What is left of the original is what :class:`TextSwap` leaves; bands, seals and emblems go.
    Where nothing could be read, as many characters are drawn as fit.

    A number that is drawn may be somebody's: there are few enough of them.

    Args:
        grain: how much of the background's grain is drawn again as noise, 0 to 1.
    """

    name = "plate_swap"

    def __init__(self, grain: float = 1.0, coverage: float = 1.05, **common: Unpack[Edged]) -> None:
        super().__init__(grain, coverage, **common)

    def field(self, crop: Tensor, strip: Tensor, ink: Ink, line: Line, within: Tensor) -> Tensor:
        side = crop.shape[-1]
        rim = _rim(crop, strip, ink, line)
        inked = _glyphs.place(ink.share, line.outline, side)
        plate = _glyphs.place(torch.ones(64, 256), rim, side)
        behind = _glyphs.smooth_fit(crop, within * (1 - inked))
        if float((1 - plate).mean()) < 0.02:
            return behind
        around = _glyphs.smooth_fit(crop, 1 - plate, order=4)
        return torch.lerp(around, behind, plate.double())

    def words(self, line: Line, ink: Ink, rng: np.random.Generator) -> str:
        text = line.text.upper() or self.stand_in(line, ink)
        return "".join(_sign(c, rng) for c in text)

    def stand_in(self, line: Line, ink: Ink) -> str:
        y0, y1, x0, x1 = ink.box
        count = int(min(max(round(1.6 * line.aspect * (x1 - x0) / (y1 - y0)), 4), 9))
        return "A" * (count // 2) + "0" * (count - count // 2)

    def letters(self, text: str, height: int, width: int, ink: Ink) -> Tensor:
        widths = [GAP if c in " -.·" else 1.0 for c in text]
        ends = np.cumsum([0.0, *widths]) / max(sum(widths), 1e-6) * width
        out = torch.zeros(height, width)
        for sign, start, stop in zip(text, ends[:-1], ends[1:], strict=True):
            x0, x1 = (
                round(float(start + (stop - start) * (1 - CELL) / 2)),
                round(float(stop - (stop - start) * (1 - CELL) / 2)),
            )
            if x1 > x0 and sign not in " ·":
                y0, y1 = (0, height) if sign.isalnum() else (round(height * 0.42), round(height * 0.58))
                if sign == "1":
                    x0 += (x1 - x0) // 3
                out[y0:y1, x0:x1] = _glyphs.glyphs(sign, y1 - y0, x1 - x0, weight=WEIGHT)
        return out

    def inked(self, field: Tensor, colour: Tensor) -> Tensor:
        light = field / field.mean(dim=(1, 2), keepdim=True).clamp(min=1e-3)
        return bounded(colour[:, None, None] * light.clamp(0.5, 1.5))


def _rim(crop: Tensor, strip: Tensor, ink: Ink, line: Line) -> Tensor:
    """``(4, 2)``: the plate's outline, as far out as its colour goes, and no farther than plates do."""
    reach = to_rim(to_rim(line.outline[None]))[0]
    x_out, y_out = (float((reach[i] - reach[0]).norm() / (line.outline[i] - line.outline[0]).norm()) for i in (1, 3))
    aspect = line.aspect * x_out / y_out
    wide = _glyphs.strip_of(crop, reach, aspect, _glyphs.STRIP_PX).double()
    plain = strip.double()[:, ink.share == 0]
    colour = plain.median(dim=1).values if plain.shape[1] else strip.double().mean(dim=(1, 2))
    contrast = float((colour - ink.colour).norm())
    alike = ((wide - colour[:, None, None]).norm(dim=0) < max(SAME * contrast, 0.05)).float()
    height, width = alike.shape
    top, bottom = _span(alike[:, width // 4 : width - width // 4].mean(dim=1), 1 / y_out)
    left, right = _span(alike[round(top) : max(round(bottom), round(top) + 1)].mean(dim=0), 1 / x_out)
    corners = torch.tensor([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=torch.float64)
    frame = torch.tensor([[0, 0], [width, 0], [width, height], [0, height]], dtype=torch.float64)
    mapped = torch.cat([corners, corners.new_ones(4, 1)], dim=1) @ ocr.homography(frame, reach).T
    return mapped[:, :2] / mapped[:, 2:]


def _span(profile: Tensor, inner: float) -> tuple[float, float]:
    """From where to where a profile stays on the plate, at least over most of the ``inner`` part in its middle."""
    count = len(profile)
    low, high = round(count * (1 - inner * 0.92) / 2), round(count * (1 + inner * 0.92) / 2)
    while low > 0 and float(profile[low - 1]) > 0.5:
        low -= 1
    while high < count and float(profile[high]) > 0.5:
        high += 1
    return float(low), float(high)


def _sign(c: str, rng: np.random.Generator) -> str:
    if c.isdecimal():
        choices = string.digits.replace(c, "")
    elif c.isalpha():
        choices = LETTERS.replace(c, "")
    else:
        return c if c in " -.·" else " "
    return choices[int(rng.integers(len(choices)))]
