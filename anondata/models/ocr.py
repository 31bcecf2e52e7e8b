"""Reading text: what goes into the PP-OCR networks and what is made of what comes out.

Two networks of PP-OCRv4 (Apache-2.0): one marks where lines of text are (differentiable binarization: Liao, Wan, Yao,
Chen, Bai 2020, arXiv:1911.08947), one reads a line that was cut out straight (a CTC recognizer). A line's outline has
four corners, clockwise, the first two its top as it is read; both networks are fetched once:
``anondata weights pull ppocr-det`` and ``ppocr-rec``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.crops import resize
from anondata.errors import WeightsError
from anondata.models import _blobs
from anondata.models.protobuf import fields
from anondata.models.registry import locate
from anondata.models.shared import network

DETECTOR, RECOGNIZER = "ppocr-det", "ppocr-rec"

MAP_THRESHOLD = 0.3  # of the map, for a pixel to be text; the published one
UNCLIP = 1.6  # the network marks the core of a line; how far its outline is moved out again, likewise published
LEAST_PX = 3.0  # height of a core below which it is noise
LINE_PX = 48  # height of a line that the recognizer reads
BUCKET_PX = 160  # lines are padded to a multiple of this, so that they go through in batches
LONGEST = 40  # a line is read up to this many times as long as high
SQUARE = 2.0  # an outline is read along a side unless the other is so many times as long
KEPT = 2048  # readings that are kept in memory
METADATA_FIELD = 14  # of an ONNX file: its key-value pairs

Way = tuple[int, bool]
"""How an outline is read: turned by quarters clockwise, and whether in a mirror."""

WAYS: tuple[Way, ...] = tuple((quarters, mirrored) for mirrored in (False, True) for quarters in (0, 2, 1, 3))


@dataclass(frozen=True)
class Lines:
    """``N`` lines of text in one picture. outlines: ``(N, 4, 2)`` x, y in pixels. scores: ``(N,)`` in [0, 1]."""

    outlines: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Reading:
    """What a line says. confidence: mean probability of its characters, 0 where there are none."""

    text: str
    confidence: float


_readings: dict[bytes, Reading] = {}


def find_lines(pictures: Tensor, *, threshold: float) -> list[Lines]:
    """The lines of each picture.

    pictures: ``(B, 3, H, W)`` floats RGB in [0, 255], any device; sides are multiples of 32.
    threshold: the least mean of the map over a line.
    """
    maps = network(DETECTOR, pictures.device)(_normalised(pictures))
    if isinstance(maps, tuple) or not bool(maps.isfinite().all()):  # NaN would be no text anywhere
        raise ValueError("the text detector's map is not finite")
    return [_lines(each[0].cpu().numpy(), threshold, pictures.device) for each in maps]


def _lines(values: _blobs.Array, threshold: float, device: torch.device) -> Lines:
    blobs = _blobs.find_blobs(values, threshold=MAP_THRESHOLD)
    kept = (blobs.means >= threshold) & (blobs.sides.min(axis=1, initial=np.inf) >= LEAST_PX)
    corners, sides = blobs.corners[kept], blobs.sides[kept]
    outlines, _ = _blobs.grown(corners, sides, UNCLIP * sides.prod(axis=1) / np.maximum(2 * sides.sum(axis=1), 1e-9))
    return Lines(
        torch.from_numpy(outlines.astype(np.float32)).to(device),
        torch.from_numpy(blobs.means[kept].astype(np.float32)).to(device),
    )


def lines_in(picture: Tensor, *, threshold: float = 0.5, line_px: float | None = None) -> Lines:
    """The lines of one picture ``(3, H, W)`` uint8 or float in [0, 255] at one scale.

    line_px: about how high its text is, where that is known; the picture is scaled so that the network sees it best.
    """
    height, width = picture.shape[-2:]
    scale = min((LINE_PX * 0.75) / line_px if line_px else 1.0, 1280 / max(height, width), 8.0)
    scaled = resize(picture[None].float(), max(1, round(height * scale)), max(1, round(width * scale)))
    h, w = scaled.shape[-2:]
    found = find_lines(F.pad(scaled, (0, -w % 32, 0, -h % 32), mode="constant", value=127.5), threshold=threshold)[0]
    ratio = found.outlines.new_tensor([width / w, height / h])
    return Lines(found.outlines * ratio, found.scores)


def read(strips: Sequence[Tensor]) -> list[Reading]:
    """What lines say. strips: ``(3, LINE_PX, W)`` floats RGB in [0, 255], widths may differ.

    The same strip is read once: what stays in a picture is looked at again at every rung of every ladder in it.
    """
    hosts = [strip.detach().to("cpu", torch.float32).contiguous() for strip in strips]
    keys = [hashlib.blake2b(host.numpy().tobytes(), digest_size=16).digest() for host in hosts]
    known = {key: _readings[key] for key in keys if key in _readings}
    new = {key: host for key, host in zip(keys, hosts, strict=True) if key not in known}
    known.update(zip(new, _read(list(new.values())), strict=True))
    if len(_readings) + len(new) > KEPT:
        _readings.clear()
    _readings.update({key: known[key] for key in new})
    return [known[key] for key in keys]


def _read(strips: Sequence[Tensor]) -> list[Reading]:
    out: dict[int, Reading] = {}
    for width, rows in _by_width(strips):
        batch = torch.full((len(rows), 3, LINE_PX, width), 127.5)
        for place, row in enumerate(rows):
            batch[place, :, :, : strips[row].shape[2]] = strips[row]
        chances = network(RECOGNIZER)(_normalised(batch))
        if isinstance(chances, tuple):
            raise ValueError("the text recognizer has more than one output")
        if not bool(chances.isfinite().all()):  # NaN would read as nothing written
            raise ValueError("the text recognizer's chances are not finite")
        out.update(zip(rows, map(_decoded, chances), strict=True))
    return [out[row] for row in range(len(strips))]


def read_in(picture: Tensor, outlines: Sequence[Tensor], ways: Sequence[Way]) -> list[list[Reading]]:
    """What outlines ``(4, 2)`` of a picture say, each in those of the ways that its proportions allow."""
    strips, owners = [], []
    for row, outline in enumerate(outlines):
        along, across = (float((outline[i] - outline[0]).norm()) for i in (1, 3))
        for quarters, mirrored in ways:
            length, height = (along, across) if quarters % 2 == 0 else (across, along)
            if length * SQUARE > height:
                strips.append(cut_line(picture, turned(outline, quarters, mirrored=mirrored)))
                owners.append(row)
    out: list[list[Reading]] = [[] for _ in outlines]
    for row, reading in zip(owners, read(strips), strict=True):
        out[row].append(reading)
    return out


def _by_width(strips: Sequence[Tensor]) -> Iterator[tuple[int, list[int]]]:
    widths = [-(-strip.shape[2] // BUCKET_PX) * BUCKET_PX for strip in strips]
    for width in sorted(set(widths)):
        rows = [row for row, each in enumerate(widths) if each == width]
        yield from ((width, rows[i : i + 8]) for i in range(0, len(rows), 8))


def _decoded(chances: Tensor) -> Reading:
    """Greedy CTC: the best symbol of each step, repeats and blanks dropped. chances: ``(T, symbols)``."""
    best, symbols = chances.max(dim=1)
    new = torch.ones_like(symbols, dtype=torch.bool)
    new[1:] = symbols[1:] != symbols[:-1]
    kept = new & (symbols != 0)
    if not bool(kept.any()):
        return Reading("", 0.0)
    letters = alphabet()
    return Reading("".join(letters[i] for i in symbols[kept].tolist()), float(best[kept].mean()))


def cut_line(picture: Tensor, outline: Tensor, *, height: int = LINE_PX) -> Tensor:
    """A line cut out straight: ``(C, height, W)`` floats in the picture's range, W by the outline's proportions.

    picture: ``(C, H, W)``. outline: ``(4, 2)`` x, y in pixels; it may reach out of the picture, whose border then
    goes on.
    """
    points = outline.detach().to("cpu", torch.float64)
    along, across = (float((points[i] - points[0]).norm()) for i in (1, 3))
    width = min(max(round(height * along / max(across, 1e-3)), 8), height * LONGEST)
    near, far = points.amin(dim=0).floor() - 2, points.amax(dim=0).ceil() + 2
    sides = picture.new_tensor([picture.shape[-1], picture.shape[-2]], dtype=torch.float64).cpu()
    near = torch.minimum(near.clamp(min=0), sides - 1)
    far = torch.maximum(torch.minimum(far, sides), near + 1)
    (x0, y0), (x1, y1) = near.long().tolist(), far.long().tolist()
    part = picture[None, :, y0:y1, x0:x1].float()
    shrink = min(1.0, 1.5 * height / max(across, 1e-3))  # antialiased first: the grid alone would skip pixels
    part = resize(part, max(1, round((y1 - y0) * shrink)), max(1, round((x1 - x0) * shrink)))
    scale = points.new_tensor([part.shape[3] / (x1 - x0), part.shape[2] / (y1 - y0)])
    return warp(part[0], (points - near) * scale, height, width)


def warp(picture: Tensor, outline: Tensor, height: int, width: int) -> Tensor:
    """What lies in an outline ``(4, 2)`` of ``picture (C, H, W)``, as ``(C, height, width)``."""
    to_picture = homography(_frame(height, width), outline.to("cpu", torch.float64))
    return sample(picture, to_picture, height, width)


def sample(picture: Tensor, to_picture: Tensor, height: int, width: int) -> Tensor:
    """``picture (C, H, W)`` seen through a homography ``(3, 3)`` from the result's pixels to its own."""
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    seen = torch.stack([xs, ys, torch.ones_like(xs)], dim=-1).double() @ to_picture.T
    where = seen[..., :2] / seen[..., 2:].clamp(min=1e-6)
    sides = where.new_tensor([picture.shape[2], picture.shape[1]])
    grid = (where / sides * 2 - 1).to(picture.device, torch.float32)
    return F.grid_sample(picture[None].float(), grid[None], padding_mode="border", align_corners=False)[0]


def homography(source: Tensor, target: Tensor) -> Tensor:
    """The ``(3, 3)`` float64 projective map that takes four points to four others; ``(4, 2)`` each."""
    rows, right = [], []
    for (x, y), (u, v) in zip(source.tolist(), target.tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    system = torch.tensor(rows, dtype=torch.float64)
    solved = torch.linalg.lstsq(system, torch.tensor(right, dtype=torch.float64)).solution
    return torch.cat([solved, solved.new_ones(1)]).reshape(3, 3)


def turned(outline: Tensor, quarters: int, *, mirrored: bool = False) -> Tensor:
    """The same outline for a line that is read turned by quarters clockwise, or in a mirror."""
    out = outline.roll(-quarters, dims=0)
    return out[[1, 0, 3, 2]] if mirrored else out


def _frame(height: int, width: int) -> Tensor:
    return torch.tensor([[0, 0], [width, 0], [width, height], [0, height]], dtype=torch.float64)


def _normalised(pictures: Tensor) -> Tensor:
    return pictures.flip(1) / 127.5 - 1  # blue first


@cache
def alphabet() -> tuple[str, ...]:
    """The recognizer's symbols by number; the blank is empty. They are in its file's metadata."""
    path = locate(RECOGNIZER)
    whole = memoryview(path.read_bytes())
    pairs = [dict(fields(value)) for number, value in fields(whole) if number == METADATA_FIELD]
    for pair in pairs:
        if bytes(pair.get(1, b"")) == b"character":
            return ("", *bytes(pair[2]).decode().splitlines(), " ")
    raise WeightsError(f"{Path(path).name} names no characters; pull {RECOGNIZER!r} again")
