"""Is a region of one picture shown in another, wherever it lies, however large, turned, mirrored or as a negative?

Each region, and what lies around it, is looked for at a low resolution in every place and size of the other picture.
The likeliest places are looked at again, step by step from what lies around to the region itself, and compared by
what is fine in them.

Measured on 8 portraits of London, one a person, shrunk so that the face has these pixels a side; below 60 px it lies
in a photo of something else. The lowest score of copies, and where that is below the bound the share found:

====================================  =========  =========  ====  ====  =====
side of the face, px                  16         24         48    96    148
====================================  =========  =========  ====  ====  =====
the face cut out, as PNG              0.93       0.94       0.91  0.87  0.88
with a third more, JPEG of 30         0.72, 75%  0.82, 87%  0.90  0.87  0.85
with a third more, as 112 x 112       0.93       0.92       0.91  0.91  0.88
with half as much more, turned by 10  0.92       0.88       0.91  0.87  0.85
with half as much more, mirrored      0.90       0.89       0.96  0.88  0.87
all in a square, brought to 256 px    0.77, 75%  0.89       0.90  0.91  0.91
all as a negative                     0.93       0.94       0.87  0.92  0.91
all turned by 10 or 90 degrees        0.88       0.93       0.91  0.90  0.89
with a third more, half the size      0.00, 12%  0.76, 50%  0.85  0.89  0.87
highest of other people               0.81       0.81       0.77  0.78  0.77
====================================  =========  =========  ====  ====  =====

In another draw of five people the highest was 0.86, of a face of 24 px. What presets make of a face has at most 0.53,
generated faces in its place 0.46, its edges 0.56, its light and shade 0.68, and photos of other things 0.6. Another
photo of the same person in the same pose has 0.89 to 0.95, and counts as a copy.

Not found: faces below 16 px in the kept picture, or that are less than a sixteenth of its long side where little of
what lies around them is shown; most faces turned by 20 degrees. One face costs 0.1 s, five 0.2 s, on a busy core: a
fifth to a third of what anonymizing takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.crops import resize
from anondata.loaders.leaks.faces import SHIFT_PX, SIDE_PX, Box, detail

COPY = 0.84  # see above

COARSE_PX = 12  # of what is looked for, when it is looked for everywhere
LONG_PX = 192  # of the other picture's long side, then: a region is found from a sixteenth of it on
STEP = 1.2  # from one size to the next: 1.15 found no more, and took half as long again
BEYOND = 1.25  # a region may be cut a little by the other picture's border
NEST = 4.0  # times as large is each area around
FINE_PX, FINE_FROM_PX = 64, 48  # other people in one pose reach 0.82 by what is coarse in their faces, else 0.70
INNER = 0.85  # of a region, which may have been cut out tightly
LONG = 2.0  # times as long as broad: then no part of a region stands for it
TURNS = (0.0, 10.0, -10.0, 90.0, 180.0, 270.0)
LIKELY, HOPELESS, NEARLY = 0.75, 0.5, 0.65  # scores from which a place is looked at, looked at further, and finely
CANDIDATES = 4  # of each area; eight found no more
NOISE = 3.0  # squared grey levels: below that detail is the encoder's


@dataclass(frozen=True)
class Area:
    """A part of the original: its centre and its sides in pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Place:
    """Where an area would be in the other picture. turn: in degrees. mirrored: before it is turned."""

    x: float
    y: float
    width: float
    height: float
    turn: float = 0.0
    mirrored: bool = False
    score: float = 0.0

    def moved(self, across: float, down: float) -> Place:
        """The place that lies there from its middle, in its own directions."""
        cos, sin = math.cos(math.radians(self.turn)), math.sin(math.radians(self.turn))
        across = -across if self.mirrored else across
        return replace(self, x=self.x + cos * across - sin * down, y=self.y + sin * across + cos * down)

    def of(self, outer: Area, inner: Area) -> Place:
        """Where an area within that of this place would be."""
        across, down = self.width / outer.width, self.height / outer.height
        there = self.moved((inner.x - outer.x) * across, (inner.y - outer.y) * down)
        return replace(there, width=inner.width * across, height=inner.height * down)

    def affine(self, width: float, height: float) -> list[list[float]]:
        """What :func:`torch.nn.functional.affine_grid` takes, for a picture of that size."""
        cos, sin = math.cos(math.radians(self.turn)), math.sin(math.radians(self.turn))
        across = -self.width if self.mirrored else self.width
        return [
            [cos * across / width, -sin * self.height / width, 2 * self.x / width - 1],
            [sin * across / height, cos * self.height / height, 2 * self.y / height - 1],
        ]


class Looked:
    """A picture ``(3, H, W)`` as it is looked at: its brightness, also at half, a fourth ... of its size."""

    def __init__(self, picture: Tensor) -> None:
        self.height, self.width = picture.shape[-2:]
        self.full = picture.float().mean(dim=-3)[None, None]

    @cached_property
    def halves(self) -> list[Tensor]:
        out = [self.full]
        while min(out[-1].shape[-2:]) >= 16:
            out.append(F.avg_pool2d(out[-1], 2))
        return out

    def views(self, places: Sequence[Place], size: int) -> Tensor:
        """``(V, 1, size, size)`` of places of about one size, upright; beyond the picture lies its border."""
        finest = min(max(p.width, p.height) for p in places)
        level = min(len(self.halves) - 1, int(math.log2(max(finest / size, 1.0))))
        source = self.halves[level]
        height, width = (side * 2.0**level for side in source.shape[-2:])
        turned = torch.tensor([place.affine(width, height) for place in places])
        grid = F.affine_grid(turned, [len(places), 1, size, size], align_corners=False)
        found = F.grid_sample(source, grid.reshape(1, -1, size, 2), padding_mode="border", align_corners=False)
        return found.reshape(len(places), 1, size, size)


def is_shown(original: Tensor, other: Tensor, boxes: Sequence[Box]) -> bool:
    """Whether one of these regions of the original is shown in the other picture.

    original, other: ``(3, H, W)`` uint8. boxes: of the regions, in pixels of the original.
    """
    return any(score > COPY for score in likenesses(original, other, boxes))


def likenesses(original: Tensor, other: Tensor, boxes: Sequence[Box]) -> Iterator[float]:
    """0 to 1, for each region: how alike the likeliest place in the other picture is."""
    before, after = Looked(original), Looked(other)
    nests = [_nests(before, box) for box in boxes]
    areas = dict.fromkeys(area for nest in nests for way in nest for area in way)
    found = _candidates(before, after, list(areas))
    for nest in nests:
        yield max(_best(before, after, way, found) for way in nest)


def _nests(picture: Looked, box: Box) -> list[list[Area]]:
    """Ways from a region to all of the picture: areas, each in the next. A small region is too small to be looked for
    in what shows much more, and is found by what lies around it."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    width, height = max(box[2] - box[0], 1.0), max(box[3] - box[1], 1.0)
    most, side = min(picture.width, picture.height), min(width, height)
    around = []
    while side * NEST < most * 0.75:
        side *= NEST
        around.append(_shared(picture, x, y, side))
    around.append(_shared(picture, x, y, float(most)))
    inner, whole = min(width, height) * INNER, Area(x, y, width, height)
    if max(width, height) > LONG * min(width, height):  # a square of a line of text would be a letter
        return [[whole, *around]]
    return [[Area(x, y, inner, inner), *around], [whole]]


def _shared(picture: Looked, x: float, y: float, side: float) -> Area:
    """A square around a place that those of places nearby share."""
    raster = side / 4
    middle = [
        min(max(round(at / raster) * raster, side / 2), whole - side / 2)
        for at, whole in ((x, picture.width), (y, picture.height))
    ]
    return Area(middle[0], middle[1], side, side)


def _candidates(before: Looked, after: Looked, areas: Sequence[Area]) -> Mapping[Area, list[Place]]:
    """The likeliest places of each area, by brightness at a low resolution, in every size and some turns.

    Source: normalised cross-correlation; Lewis (1995), "Fast normalized cross-correlation".
    """
    looks = [(turn, mirrored) for turn in TURNS for mirrored in (False, True) if not mirrored or abs(turn) < 45]
    kernels = _kernels(before, areas, looks)
    sides, alike, where = [], [], []
    side = COARSE_PX * max(max(after.height, after.width) / LONG_PX, 0.5)
    while side <= min(after.height, after.width) * BEYOND:
        score, at = _everywhere(after, kernels, side)
        sides.append(side)
        alike.append(score.reshape(len(areas), len(looks)))
        where.append(at.reshape(len(areas), len(looks), 2))
        side *= STEP
    if not sides:
        return {}
    scores, places = torch.stack(alike, dim=1).flatten(1), torch.stack(where, dim=1).flatten(1, 2)
    top = scores.topk(min(CANDIDATES, scores.shape[1]), dim=1)

    def place(row: int, at: int) -> Place:
        (x, y), side, (turn, mirrored) = places[row, at].tolist(), sides[at // len(looks)], looks[at % len(looks)]
        return Place(x, y, side, side, turn, mirrored)

    ranked = zip(areas, top.values.tolist(), top.indices.tolist(), strict=True)
    return {
        area: [place(row, at) for score, at in zip(own, found, strict=True) if score > LIKELY]
        for row, (area, own, found) in enumerate(ranked)
    }


def _kernels(before: Looked, areas: Sequence[Area], looks: Sequence[tuple[float, bool]]) -> Tensor:
    """``(areas * looks, 1, K, K)``: what areas look like turned and mirrored, weighted, without mean, of length 1."""
    turned = [(turn if mirrored else -turn, mirrored) for turn, mirrored in looks]
    views = [
        before.views([Place(a.x, a.y, a.width, a.height, turn, mirrored) for turn, mirrored in turned], 2 * COARSE_PX)
        for a in areas
    ]
    seen, window = F.avg_pool2d(torch.cat(views), 2), _window(COARSE_PX)
    centred = seen - (seen * window).sum(dim=(-2, -1), keepdim=True)
    length = (centred.square() * window).sum(dim=(-2, -1), keepdim=True).sqrt()
    return centred / length.clamp(min=2.0) * window


def _everywhere(after: Looked, kernels: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """``(K,)`` how alike the likeliest place of this side is to each kernel, and ``(K, 2)`` x and y of its middle."""
    height, width = (max(COARSE_PX // 2, round(whole * COARSE_PX / side)) for whole in (after.height, after.width))
    room = COARSE_PX // 4
    level = F.pad(resize(after.full, height, width), [room] * 4, mode="replicate")
    window = _window(COARSE_PX)[None, None]
    mean, square = F.conv2d(level, window), F.conv2d(level.square(), window)
    deviation = (square - mean.square()).clamp(min=0).sqrt().clamp(min=2.0)
    alike = (F.conv2d(level, kernels) / deviation).abs()[0]
    best = alike.flatten(1).max(dim=1)
    rows, columns = best.indices // alike.shape[-1], best.indices % alike.shape[-1]
    middle = COARSE_PX / 2 - room
    at = torch.stack([(columns + middle) * (after.width / width), (rows + middle) * (after.height / height)], dim=1)
    return best.values, at


def _best(before: Looked, after: Looked, way: Sequence[Area], found: Mapping[Area, list[Place]]) -> float:
    """The score of the likeliest place of the first area of a way, begun at places of any of them."""
    best = 0.0
    for depth, outer in enumerate(way):
        for place in found.get(outer, []):
            here, own = place, outer
            for inner in reversed(way[: depth + 1]):
                here, own = _refined(before, after, inner, here.of(own, inner), 0.075, 5.0), inner
                if here.score < HOPELESS:
                    break
            else:
                best = max(best, _final(before, after, own, here))
            if best > COPY:  # a copy needs no better one
                return best
    return best


def _final(before: Looked, after: Looked, area: Area, place: Place) -> float:
    """How alike an area and a place are in what is fine, which in large ones is one face's alone."""
    smallest = min(area.width, area.height, place.width, place.height)
    side = SIDE_PX if smallest < FINE_FROM_PX else FINE_PX
    here = _refined(before, after, area, place, 0.03, 2.5, side)
    return here.score if here.score < NEARLY else _refined(before, after, area, here, 0.012, 1.0, side).score


def _refined(
    before: Looked, after: Looked, area: Area, place: Place, size: float, turn: float, side_px: int = SIDE_PX
) -> Place:
    """The likeliest place near another one: a tenth away, larger or smaller, longer or broader, and turned."""
    room = 1 + 2 * SHIFT_PX / side_px
    ways = [(1 + s, 1 + s, t) for s in (-size, 0.0, size) for t in (-turn, 0.0, turn)]
    ways += [(1 + size, 1 - size, 0.0), (1 - size, 1 + size, 0.0)]
    tries = [replace(place, width=place.width * w, height=place.height * h, turn=place.turn + t) for w, h, t in ways]
    side = side_px + 2 * SHIFT_PX
    own = detail(before.views([Place(area.x, area.y, area.width * room, area.height * room)], side))
    views = [replace(one, width=one.width * room, height=one.height * room) for one in tries]
    alike = _alike(own[..., SHIFT_PX:-SHIFT_PX, SHIFT_PX:-SHIFT_PX], detail(after.views(views, side)))
    at = int(alike.argmax())
    shifts = alike.shape[-1]
    chosen = tries[at // shifts**2]
    across, down = at % shifts - SHIFT_PX, at // shifts % shifts - SHIFT_PX
    there = chosen.moved(across * chosen.width / side_px, down * chosen.height / side_px)
    return replace(there, score=float(alike.flatten()[at]))


def _alike(template: Tensor, views: Tensor) -> Tensor:
    """``(V, shifts, shifts)``: by correlation, which brightness, contrast and sign do not change."""
    window = _window(template.shape[-1])
    centred = template - (template * window).sum()
    own = (centred.square() * window).sum()
    mean, square = F.conv2d(views, window[None, None]), F.conv2d(views.square(), window[None, None])
    shared = F.conv2d(views, centred * window)
    return (shared / ((own + NOISE) * (square - mean.square() + NOISE)).sqrt())[:, 0].abs()


@cache
def _window(size: int) -> Tensor:
    """``(S, S)`` weights that favour the middle, and add up to 1."""
    place = (torch.arange(size) - (size - 1) / 2).square()
    weight = torch.exp(-0.5 * (place[:, None] + place) / (size * 9 / 32) ** 2)
    return weight / weight.sum()
