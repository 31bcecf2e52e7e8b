"""Connected parts of a map of labels, by its runs: stretches of one value in a row.

Of 200 objects in 4000 x 3000 pixels there are some 30 000, and only they are looked at: 0.03 s. Parts touch at sides
or corners.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Runs:
    """``N`` runs in reading order. value: ``(N,)``. row, start, stop: ``(N,)`` int64, the stop exclusive.

    width: of the map.
    """

    value: NDArray[Any]
    row: Ints
    start: Ints
    stop: Ints
    width: int

    def __len__(self) -> int:
        return len(self.row)

    def select(self, mask: NDArray[np.bool_]) -> Runs:
        """Those where a mask ``(N,)`` is true."""
        return Runs(self.value[mask], self.row[mask], self.start[mask], self.stop[mask], self.width)


def runs_of(labels: NDArray[Any], *, most: int) -> Runs | None:
    """The runs of a map ``(H, W)`` of whole numbers that are not 0; None where it has more than ``most`` in all."""
    labels = np.ascontiguousarray(labels)
    height, width = labels.shape
    begins = np.ones((height, width), dtype=bool)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
    if np.count_nonzero(begins) > most:
        return None
    first = np.flatnonzero(begins)
    row = first // width
    start, length = first - row * width, np.diff(first, append=labels.size)
    found = Runs(labels.ravel()[first], row, start, start + length, width)
    return found.select(found.value != 0)


def boxes_of_parts(runs: Runs) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Boxes ``(P, 4)`` x0, y0, x1, y1 of the connected parts of one value, the far side exclusive, and the values."""
    if not len(runs):
        return np.zeros((0, 4)), runs.value
    part = _parts(runs)
    order = np.argsort(part, kind="stable")
    heads = np.flatnonzero(np.diff(part[order], prepend=-1))
    sides = (
        np.minimum.reduceat(runs.start[order], heads),
        np.minimum.reduceat(runs.row[order], heads),
        np.maximum.reduceat(runs.stop[order], heads),
        np.maximum.reduceat(runs.row[order], heads) + 1,
    )
    return np.stack(sides, axis=1).astype(np.float64), runs.value[order[heads]]


def _parts(runs: Runs) -> Ints:
    """``(N,)``: of each run the first run of its part.

    Union-find over all pairs at once: the root of one side is hung below the smaller root of the other, then every
    path is made one step long, until no pair is apart. Noise of a million pixels took 4 rounds, a spiral 2.
    """
    above, below = _touching(runs)
    root = np.arange(len(runs))
    while True:
        a, b = root[above], root[below]
        apart = a != b
        if not apart.any():
            return root
        above, below, a, b = above[apart], below[apart], a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(shorter := root[root], root):
            root = shorter


def _touching(runs: Runs) -> tuple[Ints, Ints]:
    """Pairs of runs of one value in rows that follow one another which share a side or a corner."""
    stride = runs.width + 2  # so that a run at the end of a row touches none at the beginning of the next one
    starts, stops = runs.row * stride + runs.start, runs.row * stride + runs.stop
    first = np.searchsorted(stops, starts + stride, side="left")
    after = np.searchsorted(starts, stops + stride, side="right")
    count = np.maximum(after - first, 0)
    above = np.repeat(np.arange(len(runs)), count)
    below = np.arange(len(above)) + np.repeat(first - np.cumsum(count) + count, count)
    same = runs.value[above] == runs.value[below]
    return above[same], below[same]
