"""What looks wrong in a gallery: one person under two names, or a photo under the wrong name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anondata.errors import PolicyError
from anondata.verifiers.calibration import Calibration, shipped
from anondata.verifiers.gallery.gallery import Gallery

MOST_PAIRS = 2 * 10**10  # all against all of 140 000 templates: minutes on two cores
_PAIRS_AT_ONCE = 1 << 24  # 64 MB of distances
_LEAST_ROWS = 64


@dataclass(frozen=True)
class Pair:
    """Templates of two people, by their rows in the gallery, and how far they are from each other."""

    row: int
    other: int
    distance: float


@dataclass(frozen=True)
class Doubts:
    """What a person should look at.

    look_alikes: pairs of people who are nearer to each other than the threshold at the lowest calibrated false-accept
        rate: of each template the nearest stranger, each two people once; nearest first.
    near: how many templates have such a stranger. by_chance: how many would, were nobody in the gallery twice.
    astray: rows farther from every other template of their own person than the threshold at the highest rate.
    """

    look_alikes: tuple[Pair, ...]
    near: int
    by_chance: float
    astray: tuple[int, ...]


def doubts(
    gallery: Gallery,
    *,
    since: int = 0,
    calibration: Calibration | None = None,
    device: torch.device | str = "cpu",
) -> Doubts | None:
    """Compares the templates from row ``since`` on with all of a gallery, by brute force.

    calibration: whose thresholds; by default those that come with the gallery's embedder.
    Returns None where that would take too long, or where no calibration comes with the embedder.
    """
    if (len(gallery) - since) * len(gallery) > MOST_PAIRS:
        return None
    try:
        thresholds = (calibration or shipped(gallery.embedder)).thresholds
    except PolicyError:
        return None
    strict, loose = min(thresholds, key=lambda t: t.far), max(thresholds, key=lambda t: t.far)
    pairs, astray = list[Pair](), list[int]()
    for rows, stranger, other, own in _nearest(gallery, since, device):
        near = stranger < strict.distance
        pairs += [_pair(gallery, *places) for places in zip(rows[near].tolist(), other[near].tolist(), strict=True)]
        astray += rows[(own > loose.distance) & own.isfinite()].tolist()
    chance = (len(gallery) - since) * (1 - (1 - strict.far) ** (len(gallery.identities) - 1))
    return Doubts(_of_people(gallery, pairs), len(pairs), chance, tuple(astray))


def _pair(gallery: Gallery, row: int, other: int) -> Pair:
    """With the distance as it is; from squares, that of one photo enrolled twice would be some thousandths."""
    return Pair(row, other, float(np.linalg.norm(gallery.templates[row] - gallery.templates[other])))


def _of_people(gallery: Gallery, pairs: list[Pair]) -> tuple[Pair, ...]:
    """The nearest pair of each two people, nearest first."""
    nearest: dict[frozenset[int], Pair] = {}
    for pair in sorted(pairs, key=lambda p: p.distance):
        nearest.setdefault(frozenset(gallery.owners[[pair.row, pair.other]].tolist()), pair)
    return tuple(nearest.values())


def _nearest(
    gallery: Gallery, since: int, device: torch.device | str
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Of some rows at a time: their numbers, distance and row of the nearest template of somebody else, and distance
    of the nearest other one of the same person; infinite where there is none."""
    templates, owners = torch.from_numpy(gallery.templates).to(device), torch.from_numpy(gallery.owners).to(device)
    by_owner, counts = owners.argsort(), owners.bincount()
    first = counts.cumsum(0) - counts
    squares = templates.square().sum(dim=1)
    step = max(_LEAST_ROWS, _PAIRS_AT_ONCE // max(1, len(gallery)))
    for start in range(since, len(gallery), step):
        rows = torch.arange(start, min(start + step, len(gallery)), device=templates.device)
        distances = torch.addmm(squares, templates[rows], templates.T, alpha=-2)  # squared, less the row's own square
        # Their own templates by index: masks over all pairs would take several times as long as the distances.
        many = counts[owners[rows]]
        place = torch.arange(len(rows), device=rows.device).repeat_interleave(many)
        nth = torch.arange(len(place), device=rows.device) - (many.cumsum(0) - many)[place]
        column = by_owner[first[owners[rows]][place] + nth]
        others = distances[place, column].masked_fill(column == rows[place], torch.inf)
        own = torch.full_like(rows, torch.inf, dtype=others.dtype).scatter_reduce(0, place, others, "amin")
        distances[place, column] = torch.inf
        stranger = distances.min(dim=1)
        back = squares[rows]
        yield rows, _root(stranger.values + back), stranger.indices, _root(own + back)


def _root(squares: Tensor) -> Tensor:
    return squares.clamp(min=0).sqrt()
