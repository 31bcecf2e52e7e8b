"""What the techniques that replace writing share: reading what is there, new characters of the same kind, drawing."""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from anondata.crops import resize
from anondata.models import ocr

FONT_PX = 96  # size at which letters are drawn, before they are fitted
STRIP_PX = 64  # height of a line that is taken apart and drawn
MOST_CHARS = 60
SURE = 0.4  # confidence below which a line is taken for text that cannot be read
VOWELS, CONSONANTS = "aeiou", "bcdfghjklmnprstvwxyz"
ASPECTS = (1.5, 3.0, 6.0, 12.0)  # tried for a line of unknown proportions


@dataclass(frozen=True)
class Line:
    """A line in a square crop. outline: ``(4, 2)`` in pixels of the crop, as read. aspect: length by height, as it is
    in the picture. text: what it says, empty where it cannot be read."""

    outline: Tensor
    aspect: float
    text: str


def line_of(crop: Tensor, landmarks: Tensor | None, extent: float) -> Line:
    """The line of a crop ``(C, S, S)`` in [0, 1], by the landmarks of a text detector or else by trying.

    Without landmarks the line fills the region, and its proportions are those at which it reads best.
    """
    side, rgb = crop.shape[-1], _rgb(crop)
    if landmarks is not None and bool(landmarks.isfinite().all()):
        outline = landmarks[:4].to("cpu", torch.float64) * side
        em = landmarks[4].to("cpu", torch.float64) * side
        aspect = float((outline[1] - outline[0]).norm() / (em - outline[0]).norm().clamp(min=1e-6))
        lines = [(outline, min(max(aspect, 0.5), ocr.LONGEST))]
    else:
        low, high = side * (1 - 1 / extent) / 2, side * (1 + 1 / extent) / 2
        outline = torch.tensor([[low, low], [high, low], [high, high], [low, high]], dtype=torch.float64)
        lines = [(outline, aspect) for aspect in ASPECTS]
    best, reading = _best(rgb, lines)
    if reading.confidence < SURE:
        best, reading = _best(rgb, [(ocr.turned(outline, 2), aspect) for outline, aspect in lines])
    if reading.confidence < SURE:
        return Line(outline, lines[0][1] if len(lines) == 1 else 4.0, "")
    return Line(*best, reading.text[:MOST_CHARS])


def _best(rgb: Tensor, lines: list[tuple[Tensor, float]]) -> tuple[tuple[Tensor, float], ocr.Reading]:
    """The line that reads best, and what it reads; a few sure characters beat one."""
    readings = ocr.read([strip_of(rgb * 255, outline, aspect, ocr.LINE_PX) for outline, aspect in lines])
    best = max(range(len(lines)), key=lambda i: readings[i].confidence * min(len(readings[i].text), 4))
    return lines[best], readings[best]


def strip_of(picture: Tensor, outline: Tensor, aspect: float, height: int) -> Tensor:
    """What lies in an outline, ``(C, height, W)`` of the line's true proportions."""
    return ocr.warp(picture, outline, height, max(8, round(height * aspect)))


def _rgb(crop: Tensor) -> Tensor:
    return crop[:3] if crop.shape[0] >= 3 else crop[:1].expand(3, -1, -1)


def same_kind(text: str, rng: np.random.Generator) -> str:
    """Other characters of the same kinds: digits for digits, capitals for capitals, lower case for lower case.

    No character stays in its place. Letters alternate between vowels and consonants from a random start, so that
    words look like words and tell nothing of what was there. Letters of other scripts become Latin ones, because the
    font has no others; spaces and ASCII punctuation stay.
    """
    out, vowel = [], bool(rng.integers(2))
    for c in text:
        if c.isdecimal():
            out.append(_other(string.digits, c, rng))
        elif c.isalpha():
            vowel = not vowel
            new = _other(VOWELS if vowel else CONSONANTS, c.lower(), rng)
            out.append(new.upper() if c.isupper() else new)
        else:
            out.append(c if c in string.printable else "-")
    return "".join(out)


def _other(choices: str, but: str, rng: np.random.Generator) -> str:
    left = choices.replace(but, "")
    return left[int(rng.integers(len(left)))]


def glyphs(text: str, height: int, width: int, *, weight: float = 0.0) -> Tensor:
    """``(height, width)`` float32 in [0, 1]: how far ink covers each pixel when a text fills the frame.

    weight: stroke added around the letters, relative to their size. The font is Aileron (CC0), which comes inside
    Pillow.
    """
    drawn = torch.from_numpy(_drawn(text, round(weight * FONT_PX))).float() / 255
    return resize(drawn[None, None], max(1, height), max(1, width))[0, 0].clamp(0, 1)


@lru_cache(maxsize=256)
def _drawn(text: str, stroke: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    font = ImageFont.load_default(FONT_PX)
    x0, y0, x1, y1 = font.getbbox(text, stroke_width=stroke)
    picture = Image.new("L", (max(1, round(x1 - x0)), max(1, round(y1 - y0))))
    ImageDraw.Draw(picture).text((-x0, -y0), text, font=font, fill=255, stroke_width=stroke)
    return np.array(picture)


def smooth_fit(picture: Tensor, weight: Tensor, order: int = 2) -> Tensor:
    """The polynomial of two variables that comes closest to ``picture (C, H, W)``, weighted by ``weight (H, W)``.

    Six numbers a channel at order 2: whatever was written, they cannot hold it. Returns ``(C, H, W)`` float64, in
    [0, 1] and within what the weighted pixels have.
    """
    channels, height, width = picture.shape
    basis = _basis(height, width, order)
    step = max(1, height * width // 16384)
    rows, weights = basis[::step], weight.reshape(-1)[::step].double().clamp(min=0)[:, None]
    values = picture.reshape(channels, -1).T[::step].double()
    if float(weights.sum()) < 8:
        weights = torch.ones_like(weights)
    for _ in range(3):  # what is far off, such as ink that was taken for background, counts less each time
        ridge = 1e-6 * weights.sum() * torch.eye(basis.shape[1], dtype=torch.float64)
        solved = torch.linalg.solve(rows.T @ (weights * rows) + ridge, rows.T @ (weights * values))
        off = (values - rows @ solved).abs().mean(dim=1, keepdim=True)
        scale = (off * weights).sum() / weights.sum() * 2 + 1e-3
        weights = weights / (1 + (off / scale).square())
    heavy = values[weights[:, 0] > weights.mean() / 2]
    low, high = (heavy.quantile(q, dim=0)[:, None] for q in (0.02, 0.98))
    fitted = torch.maximum(torch.minimum((basis @ solved).T, high), low)
    return fitted.clamp(0, 1).reshape(channels, height, width)


def _basis(height: int, width: int, order: int) -> Tensor:
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, dtype=torch.float64), torch.linspace(-1, 1, width, dtype=torch.float64),
        indexing="ij",
    )  # fmt: skip
    terms = [x**i * y**j for i in range(order + 1) for j in range(order + 1 - i)]
    return torch.stack(terms, dim=-1).reshape(-1, len(terms))


@dataclass(frozen=True)
class Ink:
    """What a line is written with. share: ``(H, W)`` in [0, 1], how far each pixel of its strip is ink.

    colour: ``(C,)``. box: rows and columns that hold the writing, as y0, y1, x0, x1 shares of the strip.
    """

    share: Tensor
    colour: Tensor
    box: tuple[float, float, float, float]


def ink_of(strip: Tensor) -> Ink:
    """Splits a line's strip ``(C, H, W)`` into two colours; the one that its middle has less of is the ink.

    What bars the strip's rim from end to end is neither: it lies beyond the sign that the line is on.
    """
    flat = strip.reshape(strip.shape[0], -1).double()
    height, width = strip.shape[1:]
    rows = slice(height // 5, height - height // 5)
    middle = strip[:, rows].reshape(strip.shape[0], -1).double()
    mean = middle.mean(dim=1, keepdim=True)
    axis = torch.linalg.eigh((middle - mean) @ (middle - mean).T)[1][:, -1]
    along = (axis @ (flat - mean)).reshape(height, width)
    share = along > _otsu(along[rows])
    share = ~share if float(share[rows].float().mean()) > 0.5 else share
    share = share & ~_bars(share)
    if not bool(share.any()) or bool(share.all()):
        return Ink(torch.zeros_like(share).float(), flat.median(dim=1).values, (0.2, 0.8, 0.05, 0.95))
    there = flat[:, share.reshape(-1)]
    rest = flat[:, ~share.reshape(-1)].median(dim=1, keepdim=True).values
    far = (there - rest).norm(dim=0)
    colour = there[:, far >= far.median()].median(dim=1).values  # its edges are mixed with the background
    return Ink(share.float(), colour, _box_of(share))


def _bars(share: Tensor) -> Tensor:
    """``(H, W)`` bool: rows and columns at the rim that are nearly all of the ink's colour."""
    out = torch.zeros_like(share)
    for axis in (0, 1):
        full = share.float().mean(dim=1 - axis) > 0.7
        low, high = full.cumprod(dim=0).bool(), full.flip(0).cumprod(dim=0).flip(0).bool()
        out |= (low | high).unsqueeze(1 - axis)
    return out


def _otsu(values: Tensor) -> float:
    """Otsu (1979), doi 10.1109/TSMC.1979.4310076."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9:
        return high
    counts = torch.histc(values.float(), 64, low, high).double()
    centres = low + (torch.arange(64, dtype=torch.float64) + 0.5) / 64 * (high - low)
    below = counts.cumsum(0)
    above = below[-1] - below
    sums = (counts * centres).cumsum(0)
    apart = (sums / below.clamp(min=1) - (sums[-1] - sums) / above.clamp(min=1)).square() * below * above
    return low + (int(apart[:-1].argmax()) + 1) / 64 * (high - low)


def _box_of(share: Tensor) -> tuple[float, float, float, float]:
    ends: list[float] = []
    for axis, least in ((1, 0.03), (0, 0.04)):
        profile = share.float().mean(dim=axis)
        rows = (profile > least).nonzero().flatten()
        count = len(profile)
        ends += [float(rows[0]) / count, float(rows[-1] + 1) / count] if len(rows) else [0.2, 0.8]
    y0, y1, x0, x1 = ends
    return (y0, y1, x0, x1) if y1 - y0 > 0.2 and x1 - x0 > 0.2 else (0.15, 0.85, 0.04, 0.96)


def place(mask: Tensor, outline: Tensor, side: int) -> Tensor:
    """A strip's mask ``(H, W)`` put into a crop of ``side`` pixels; 0 outside of the outline."""
    height, width = mask.shape
    frame = torch.tensor([[0, 0], [width, 0], [width, height], [0, height]], dtype=torch.float64)
    to_strip = ocr.homography(outline, frame)
    pad = 2
    padded = F.pad(mask[None], (pad, pad, pad, pad))
    shift = torch.tensor([[1, 0, pad], [0, 1, pad], [0, 0, 1]], dtype=torch.float64)
    return ocr.sample(padded, shift @ to_strip, side, side)[0].clamp(0, 1)
