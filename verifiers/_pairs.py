"""Pairs of labelled templates: distances within and between people, and resampling of the people."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

MAX_PAIRS = 5_000_000  # all pairs of about 3 160 templates; of more, a sample: 20 s on one core with 1 000 repeats
TAIL = 4  # how far beyond the highest rate pairs are weighted first; all are where that is not enough
CHUNK = 1 << 16  # pairs in one step of computing distances: 64 MiB at 128 dimensions
PHOTOS_EACH = 64  # of one person, when there are more than MAX_PAIRS genuine pairs


@dataclass(frozen=True, eq=False)
class Pairs:
    """``P`` pairs in ascending order of distance.

    distance: ``(P,)`` float32, Euclidean. first, second: ``(P,)`` int32, the number of each template's person.
    """

    distance: Array
    first: Array
    second: Array

    def __len__(self) -> int:
        return len(self.distance)

    def nearest(self, n: int) -> Pairs:
        """The first ``n``."""
        return Pairs(self.distance[:n], self.first[:n], self.second[:n])


def count_apart(photos: Array) -> int:
    """How many pairs of templates of different people there are, from how many templates each person has."""
    total = int(photos.sum())
    return (total * total - int((photos.astype(np.int64) ** 2).sum())) // 2


def apart(templates: Tensor, people: Array) -> Pairs:
    """Pairs of different people: all, or of more than ``MAX_PAIRS`` pairs a sample that is always the same one.

    templates: ``(N, D)``. people: ``(N,)`` int, the number of each template's person.
    The sample is stratified: from each of ``MAX_PAIRS`` equal stretches of the list of all pairs one at random, so
    that every pair is as likely as any other.
    """
    row, column = _rows_and_columns(_chosen(len(people)), len(people))
    different = people[row] != people[column]
    return _measured(templates, people, row[different], column[different])


def together(templates: Tensor, people: Array) -> Pairs:
    """Pairs of one person: all; when they are more than ``MAX_PAIRS``, those of 64 evenly chosen photos of each."""
    photos = np.bincount(people).astype(np.int64)
    groups = np.split(np.argsort(people, kind="stable"), np.cumsum(photos)[:-1])
    if int((photos * (photos - 1) // 2).sum()) > MAX_PAIRS:
        groups = [g[np.linspace(0, len(g) - 1, min(len(g), PHOTOS_EACH)).astype(int)] for g in groups]
    pairs = [(g[i], g[j]) for g in groups if len(g) > 1 for i, j in [np.triu_indices(len(g), k=1)]]
    row, column = (np.concatenate([p[side] for p in pairs] or [np.zeros(0, int)]) for side in (0, 1))
    return _measured(templates, people, row, column)


def draws(n: int, repeats: int) -> Iterator[Array]:
    """``(n,)`` int: how often each of ``n`` people is drawn, with replacement; always the same sequence."""
    random = np.random.default_rng(0)
    for _ in range(repeats):
        yield np.bincount(random.integers(0, n, n), minlength=n).astype(np.int32)


def at_rates(pairs: Pairs, photos: Array, rates: Sequence[float], draw: Array) -> Array:
    """``(len(rates),)`` distances below which those shares of impostor pairs lie, when people come as often as drawn.

    photos: ``(n,)`` int, templates of each person. draw: ``(n,)`` int. A person is never paired with themselves.
    Only the nearest pairs are weighted; the weight of all follows from the people alone: exactly, or where pairs were
    left to sampling in expectation.
    """
    total = count_apart(photos * draw) * len(pairs) // count_apart(photos)
    wanted = [int(rate * total) for rate in rates]
    for n in (math.ceil(TAIL * max(rates) * len(pairs)), len(pairs)):
        near = pairs.nearest(n)
        weight = np.cumsum(draw[near.first] * draw[near.second], dtype=np.int64)
        if weight[-1] > max(wanted):
            break
    place = np.searchsorted(weight, wanted, side="right")
    distance: Array = near.distance[np.minimum(place, len(near) - 1)]
    return distance


def accepted(genuine: Pairs, people: int, distance: float, repeats: int) -> tuple[float | None, ...]:
    """The share of genuine pairs below a distance and its 95 % interval, over people; None three times without pairs.

    Where all pairs or none are below, resampling shows no spread: there Wilson's interval of a share of so many
    *people* stands in.
    """
    if not len(genuine):
        return None, None, None
    each, below = (
        np.bincount(g, minlength=people) for g in (genuine.first, genuine.first[genuine.distance < distance])
    )
    share = float(below.sum() / len(genuine))
    if share in (0.0, 1.0):
        return share, *wilson(share, int(np.count_nonzero(each)))
    shares = [float(draw @ below / (draw @ each)) for draw in draws(people, repeats) if draw @ each]
    low, high = np.quantile(shares, [0.025, 0.975]).tolist()
    return share, low, high


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of ``n`` (Wilson 1927, doi 10.1080/01621459.1927.10502953); of none, [0, 1]."""
    if n == 0:
        return 0.0, 1.0
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))  # rounding must not leave it out


def _chosen(n: int) -> Array:
    """Ascending numbers of the pairs to look at, in the list (0, 1), (0, 2), …, (1, 2), … of ``n`` templates."""
    total = n * (n - 1) // 2
    if total <= MAX_PAIRS:
        return np.arange(total)
    place = np.arange(MAX_PAIRS) + np.random.default_rng(0).random(MAX_PAIRS)
    return np.unique(np.minimum((place * (total / MAX_PAIRS)).astype(np.int64), total - 1))


def _rows_and_columns(number: Array, n: int) -> tuple[Array, Array]:
    lengths = np.arange(n - 1, -1, -1)
    starts = np.cumsum(lengths) - lengths
    row = np.searchsorted(starts[: max(n - 1, 0)], number, side="right") - 1
    return row, number - starts[row] + row + 1


def _measured(templates: Tensor, people: Array, row: Array, column: Array) -> Pairs:
    distance = np.empty(len(row), np.float32)
    for start in range(0, len(row), CHUNK):
        a, b = (templates[torch.from_numpy(side[start : start + CHUNK])] for side in (row, column))
        distance[start : start + CHUNK] = (a - b).norm(dim=1).cpu().numpy()
    order = np.argsort(distance, kind="stable")
    number = people.astype(np.int32)
    return Pairs(distance[order], number[row[order]], number[column[order]])
