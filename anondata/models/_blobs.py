"""Connected areas of a map and the smallest rectangles around them, in plain NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ANGLES = np.deg2rad(np.arange(90.0))  # a degree too far lifts the end of a line 20 times as long as high by a third
UPRIGHT = 0.97  # how much smaller a turned rectangle must be: blobs have round corners, and are mostly upright


@dataclass(frozen=True)
class Blobs:
    """``N`` connected areas. corners: ``(N, 4, 2)`` x, y of their rectangles, as a line is read; see below.

    means: ``(N,)`` mean value of the map within each area. sides: ``(N, 2)`` length along and across the reading.

    The first two corners are the top of a line read from left to right; of a rectangle that is higher than wide, its
    left side, read upwards. Which way round a line really is, its shape does not tell.
    """

    corners: Array
    means: Array
    sides: Array


def find_blobs(values: Array, *, threshold: float) -> Blobs:
    """The areas of ``values (H, W)`` above a threshold, neighbours over corners included."""
    row, start, stop = _runs(values > threshold)
    if not len(row):
        return Blobs(np.zeros((0, 4, 2)), np.zeros(0), np.zeros((0, 2)))
    label = _labels(row, start, stop, values.shape[1])
    total = np.cumsum(np.pad(values.astype(np.float64), ((0, 0), (1, 0))), axis=1)
    count = int(label.max()) + 1
    area = np.bincount(label, stop - start, count)
    means = np.bincount(label, total[row, stop] - total[row, start], count) / area
    corners, sides = _rectangles(label, row, start, stop, count)
    return Blobs(corners, means, sides)


def _runs(mask: Array) -> tuple[Array, Array, Array]:
    """Row, first column and column after the last of every run of true values, row by row."""
    steps = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    row, start = np.nonzero(steps == 1)
    _, stop = np.nonzero(steps == -1)
    return row, start, stop


def _labels(row: Array, start: Array, stop: Array, width: int) -> Array:
    """A number for each run, the same for those that touch, from 0 without gaps."""
    key = width + 2
    first = np.searchsorted(row * key + stop, (row + 1) * key + start, side="left")
    last = np.searchsorted(row * key + start, (row + 1) * key + stop, side="right")
    many = np.maximum(last - first, 0)
    above = np.repeat(np.arange(len(row)), many)
    below = np.repeat(first - np.cumsum(many) + many, many) + np.arange(many.sum())
    label = np.arange(len(row))
    while True:
        least = np.minimum(label[above], label[below])
        after = label.copy()
        # Roots are hooked, too, or a long chain would take as many rounds as it has runs.
        for place in (above, below, label[above], label[below]):
            np.minimum.at(after, place, least)
        after = after[after]
        if np.array_equal(after, label):
            break
        label = after
    return np.unique(label, return_inverse=True)[1]


def _rectangles(label: Array, row: Array, start: Array, stop: Array, count: int) -> tuple[Array, Array]:
    order = np.argsort(label, kind="stable")
    begins = np.searchsorted(label[order], np.arange(count)) * 4
    points = np.stack(
        [np.stack([x[order], row[order] + y], axis=1) for x in (start, stop) for y in (0, 1)], axis=1
    ).reshape(-1, 2)
    along = np.stack([np.cos(ANGLES), np.sin(ANGLES)])
    across = np.stack([-along[1], along[0]])
    spans = [
        (np.minimum.reduceat(points @ axis, begins), np.maximum.reduceat(points @ axis, begins))
        for axis in (along, across)
    ]
    (low_u, high_u), (low_v, high_v) = spans
    area = (high_u - low_u) * (high_v - low_v)
    area[:, 0] *= UPRIGHT
    best = area.argmin(axis=1)
    pick = np.arange(count), best
    u, v = along.T[best], across.T[best]
    box = [(low_u[pick], low_v[pick]), (high_u[pick], low_v[pick]), (high_u[pick], high_v[pick]),
           (low_u[pick], high_v[pick])]  # fmt: skip
    corners = np.stack([a[:, None] * u + b[:, None] * v for a, b in box], axis=1)
    sides = np.stack([high_u[pick] - low_u[pick], high_v[pick] - low_v[pick]], axis=1)
    return _as_read(corners, sides, best)


def _as_read(corners: Array, sides: Array, angle: Array) -> tuple[Array, Array]:
    """Starts each rectangle at its longer side; one about as long as high at the side that is nearer to level."""
    ratio = sides[:, 1] / np.maximum(sides[:, 0], 1e-9)
    steep = (ratio > 1.3) | ((ratio > 1 / 1.3) & (angle > 45))
    turned = np.roll(corners, 1, axis=1)  # the side that went down on the left, now read upwards
    return np.where(steep[:, None, None], turned, corners), np.where(steep[:, None], sides[:, ::-1], sides)


def grown(corners: Array, sides: Array, by: Array) -> tuple[Array, Array]:
    """The rectangles with every side moved outwards by ``by (N,)``."""
    middle = corners.mean(axis=1, keepdims=True)
    u = (corners[:, 1] - corners[:, 0]) / np.maximum(sides[:, :1], 1e-9)
    v = (corners[:, 3] - corners[:, 0]) / np.maximum(sides[:, 1:], 1e-9)
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    larger = sides + 2 * by[:, None]
    half = larger[:, None] * signs / 2
    return middle + half[..., :1] * u[:, None] + half[..., 1:] * v[:, None], larger
