"""Which regions of pictures in a row are the same one, by how they overlap, and where one is that nobody saw.

Pure functions of regions in pixels of their pictures; ``image`` of a region is the picture's number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from anondata.crops import cut
from anondata.detectors.pyramid import box_iou
from anondata.regions import Regions, cat_regions, empty_regions

REACH = 3.0  # boxes are compared at that many times their size: a face may move by twice its width between pictures
AROUND = 2.0  # times its size is what a region is looked at with, to tell whether it is still there
OVERLAP = 0.15
ALIKE_SIZES = 2.0  # how much larger one may be than the other
LOST = 8  # pictures in which a region may be missed before it counts as another one
HOLD = 3  # pictures for which it is held before it was first seen, and after it was last seen
INSIDE = 0.25  # share of it that must lie in the picture then
LOOK_PX = 8
ANOTHER_SCENE = 48.0  # of 256 levels on average, of a region and what is around: nothing of it is there any more
ANOTHER_PAGE = 24.0  # of the region alone: pages need not show one scene, and a line of one page is none of the next
TWIN = 0.6  # of the smaller of two boxes in one picture, from which on they are of one region


@dataclass
class _Track:
    """Rows of one region, in the order of their pictures."""

    rows: list[int]
    numbers: list[int]
    boxes: list[Tensor] = field(default_factory=list)
    again: list[int] = field(default_factory=list)  # rows of what was found more than once in a picture

    def at(self, number: int) -> Tensor:
        """Where it should be in a later picture, if it goes on as in its last two."""
        if len(self.boxes) < 2 or self.numbers[-1] == self.numbers[-2]:
            return self.boxes[-1]
        step = (self.boxes[-1] - self.boxes[-2]) / (self.numbers[-1] - self.numbers[-2])
        return self.boxes[-1] + _shift(step) * (number - self.numbers[-1])


def _shift(step: Tensor) -> Tensor:
    """How a box moves, without how it grows."""
    return ((step[:2] + step[2:]) / 2).repeat(2)


def labels(regions: Regions) -> list[int]:
    """A number for each region, the same for those that are one."""
    out = [0] * len(regions)
    for label, track in enumerate(_tracks(regions)):
        for row in (*track.rows, *track.again):
            out[row] = label
    return out


def extended(regions: Regions, pictures: Sequence[Tensor], *, pages: bool = False) -> Regions:
    """Where some regions are, too, that were seen before and after, or were just seen or about to be.

    Between two sightings a region is in between. Before the first and after the last it is held for :data:`HOLD`
    pictures, unless these show another scene there.

    pictures: ``(3, H, W)`` uint8 each. pages: they need not follow each other in time, so that a region is held only
        where the picture is much as it was.
    """
    parts, alike = list[Regions](), partial(_alike, pictures, pages=pages)
    for track in _tracks(regions):
        first = regions.select([track.rows[0]])
        parts += [one for one in _between(regions, track) if not pages or alike(first, one)]
        parts += _beyond(regions, track, pictures, alike, step=1)
        parts += _beyond(regions, track, pictures, alike, step=-1)
    return cat_regions(parts, regions.boxes.device) if parts else empty_regions(regions.boxes.device)


def _between(regions: Regions, track: _Track) -> list[Regions]:
    out = list[Regions]()
    for a, b, first, last in zip(track.rows, track.rows[1:], track.numbers, track.numbers[1:], strict=False):
        for number in range(first + 1, last):
            out.append(_mixed(regions.select([a]), regions.select([b]), (number - first) / (last - first), number))
    return out


def _mixed(a: Regions, b: Regions, share: float, number: int) -> Regions:
    near = a if share < 0.5 else b
    marks = torch.lerp(a.landmarks, b.landmarks, share)
    return Regions(
        image=torch.full_like(a.image, number),
        boxes=torch.lerp(a.boxes, b.boxes, share),
        landmarks=marks if bool(marks.isfinite().all()) else near.landmarks,
        scores=torch.minimum(a.scores, b.scores),
        kinds=a.kinds,
    )


def _beyond(
    regions: Regions,
    track: _Track,
    pictures: Sequence[Tensor],
    alike: Callable[[Regions, Regions], bool],
    *,
    step: int,
) -> list[Regions]:
    rows, numbers = (track.rows, track.numbers) if step > 0 else (track.rows[::-1], track.numbers[::-1])
    last, out = regions.select([rows[-1]]), list[Regions]()
    speed = torch.zeros_like(last.boxes[0])
    if len(rows) > 1 and numbers[-1] != numbers[-2]:
        before = regions.select([rows[-2]])
        speed = _shift((last.boxes[0] - before.boxes[0]) / abs(numbers[-1] - numbers[-2]))
    for further in range(1, HOLD + 1):
        number = numbers[-1] + step * further
        if not 0 <= number < len(pictures):
            break
        moved = last.shifted(*(speed[:2] * further).tolist())
        height, width = pictures[number].shape[-2:]
        if float(moved.shares_inside(height, width)[0]) < INSIDE:
            break
        if not alike(last, moved.renumbered(number)):
            break
        out.append(moved.renumbered(number))
    return out


def _alike(pictures: Sequence[Tensor], one: Regions, other: Regions, *, pages: bool) -> bool:
    """Whether two pictures show the same where a region is, and around it, as far as a few pixels tell."""
    views = [
        cut(pictures[int(at.image)], _whole(at.scaled(1.0 if pages else AROUND).boxes), LOOK_PX)
        for at in (one, other)
    ]
    return float((views[0] - views[1]).abs().mean()) * 255 <= (ANOTHER_PAGE if pages else ANOTHER_SCENE)


def _whole(boxes: Tensor) -> Tensor:
    low = boxes[:, :2].floor()
    return torch.cat([low, torch.maximum(boxes[:, 2:].ceil(), low + 1)], dim=1).long()


def _tracks(regions: Regions) -> list[_Track]:
    """Each region goes to the track that it overlaps most, the best pairs first."""
    out, numbers = list[_Track](), regions.image.tolist()
    for number in sorted(set(numbers)):
        rows = [row for row, its in enumerate(numbers) if its == number]
        live = [track for track in out if number - track.numbers[-1] <= LOST + 1]
        for row, track in _pairs(regions, rows, live, number):
            track.rows.append(row)
            track.numbers.append(number)
            track.boxes.append(regions.boxes[row])
            rows.remove(row)
        for row in rows:
            known = [track for track in out if track.numbers[-1] == number]
            twin = next((track for track in known if _is_twin(regions, row, track.rows[-1])), None)
            if twin is None:
                out.append(_Track([row], [number], [regions.boxes[row]]))
            else:
                twin.again.append(row)
    return out


def _is_twin(regions: Regions, row: int, other: int) -> bool:
    """Whether two boxes of one picture are of one region: of faces beside each other none has so much of another."""
    near = torch.maximum(regions.boxes[row, :2], regions.boxes[other, :2])
    far = torch.minimum(regions.boxes[row, 2:], regions.boxes[other, 2:])
    shared = (far - near).clamp(min=0).prod() / _areas(regions.boxes[[row, other]]).min()
    return regions.kinds[row] == regions.kinds[other] and float(shared) >= TWIN


def _pairs(regions: Regions, rows: Sequence[int], live: Sequence[_Track], number: int) -> list[tuple[int, _Track]]:
    if not rows or not live:
        return []
    here, there = regions.boxes[list(rows)], torch.stack([track.at(number) for track in live])
    overlap = box_iou(_scaled(here), _scaled(there))
    ratio = _areas(here)[:, None] / _areas(there)[None]
    same = torch.tensor([[regions.kinds[r] == regions.kinds[t.rows[0]] for t in live] for r in rows])
    fits = same.to(ratio.device) & (ratio < ALIKE_SIZES**2) & (ratio > ALIKE_SIZES**-2)
    overlap = torch.where(fits, overlap, 0.0)
    out, used = list[tuple[int, _Track]](), set[tuple[str, int]]()
    for best in overlap.flatten().argsort(descending=True, stable=True).tolist():
        i, j = divmod(best, len(live))
        if float(overlap[i, j]) < OVERLAP:
            break
        if ("row", i) not in used and ("track", j) not in used:
            used |= {("row", i), ("track", j)}
            out.append((rows[i], live[j]))
    return out


def _scaled(boxes: Tensor) -> Tensor:
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (REACH / 2)
    return torch.cat([centre - half, centre + half], dim=1)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3).prod(dim=1)
