"""Comparing probes with a gallery, on plain arrays: ranks and pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from anondata.errors import AuditError
from anondata.verifiers.audit.metrics import TIE, Bools, Floats, Integers, Pairs

MAX_PAIRS = 1_000_000  # of different people; of more, a random subset stands for all in accept rates
BLOCK = 4_000_000  # distances in memory at once


@dataclass(frozen=True, eq=False)
class Templates:
    """``N`` templates and whose they are.

    vectors: ``(N, D)``; rows that are not finite count as unusable. owners: ``(N,)`` number of the person.
    photos: ``(N,)`` number of the photo. Templates of one photo are never compared; -1 is compared with all.
    rounds: ``(N,)`` templates of one round are never compared, either; -1 is compared with all. None: no rounds.
    """

    vectors: Floats
    owners: Integers
    photos: Integers
    rounds: Integers | None = None

    def __len__(self) -> int:
        return len(self.owners)

    def select(self, index: npt.NDArray[Any]) -> Templates:
        """The templates of an integer index or a boolean mask."""
        rounds = None if self.rounds is None else self.rounds[index]
        return Templates(self.vectors[index], self.owners[index], self.photos[index], rounds)

    @property
    def usable(self) -> Bools:
        """``(N,)``: all numbers of a template are finite."""
        return np.asarray(np.isfinite(self.vectors).all(axis=1))


@dataclass(frozen=True, eq=False)
class Standing:
    """Where each of ``P`` probes' own person stands in a gallery, by the nearest of that person's templates.

    nearer, tied: ``(P,)`` others' templates that are nearer, and as near. tied_own: own templates that are as near.
    """

    nearer: Integers
    tied: Integers
    tied_own: Integers

    def named_at(self, ranks: Sequence[int] | Integers) -> Floats:
        """``(P, K)`` probability that an own template is among the first ``k``, ties broken at random.

        A constant fill makes all templates alike: each order is then as good as any other, and a metric that broke
        ties in favour of one side would call it perfect or useless. Here it is what guessing would give.
        """
        total = self.tied + self.tied_own
        log = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, total.max(initial=0) + 1)))])
        drawn = np.clip(np.asarray(ranks)[None, :] - self.nearer[:, None], 0, total[:, None])
        others, both = self.tied[:, None], total[:, None]
        spared = np.clip(others - drawn, 0, None)  # C(others, drawn) / C(both, drawn): no own template was drawn
        missed = np.exp(log[others] - log[spared] - log[both] + log[both - drawn])
        named: Floats = np.where(drawn > others, 1.0, 1.0 - missed)
        return named


@dataclass(frozen=True, eq=False)
class Trials:
    """All that came of comparing probes with a gallery.

    rows: ``(P,)`` which of the given probes could be named: those with a template of their own in the gallery.
    owners: ``(P,)`` of these. nearest_own: ``(P,)`` distance to the nearest own template.
    chance: where they would stand if all templates were alike. impostor_pairs: all, also those that ``pairs`` leaves
    out where there are very many.
    """

    rows: Integers
    owners: Integers
    standing: Standing
    chance: Standing
    nearest_own: Floats
    pairs: Pairs
    impostor_pairs: int


def compare(
    probes: Templates, gallery: Templates, *, mirrored: bool = False, distances: Floats | None = None
) -> Trials:
    """Compares every probe with every template of the gallery that is not of its own photo or round.

    mirrored: both are the same templates in the same order, so that each pair would come up twice: counted once.
    distances: ``(P, G)`` that somebody measured otherwise, in place of those of the vectors; NaN is not compared.

    Raises: AuditError when no probe has a template of its own in the gallery, or when there is nobody else.
    """
    parts = list(_blocks(probes, gallery, mirrored, distances))
    rows = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.int64)
    if not len(rows):
        raise AuditError(
            "no face has another photo of the same person to compare with; if folders are not people, say "
            "`anondata audit --identity -`"
        )
    counts = np.concatenate([part[1] for part in parts], axis=1)
    if not (counts[3] > counts[4]).any():
        raise AuditError("there is only one person; an audit needs at least two")
    columns = (np.concatenate([getattr(part[3], name) for part in parts]) for name in ("distances", "left", "right"))
    return Trials(
        rows,
        probes.owners[rows],
        Standing(*counts[:3]),
        Standing(np.zeros(len(rows), np.int64), counts[3] - counts[4], counts[4]),
        np.concatenate([part[2] for part in parts]),
        Pairs(*columns),
        sum(part[4] for part in parts),
    )


def comparable(probes: Templates, gallery: Templates) -> Bools:
    """``(P, G)``: neither of one photo nor of one round."""
    allowed: Bools = (probes.photos[:, None] != gallery.photos) | (gallery.photos == -1)
    if probes.rounds is not None and gallery.rounds is not None:
        allowed &= (probes.rounds[:, None] != gallery.rounds) | (gallery.rounds == -1)
    return allowed


def _blocks(
    probes: Templates, gallery: Templates, mirrored: bool, measured: Floats | None
) -> Iterator[tuple[Integers, Integers, Floats, Pairs, int]]:
    random = np.random.default_rng(0)
    expected = len(probes) * len(gallery) / (2 if mirrored else 1)
    kept_share = min(1.0, MAX_PAIRS / max(1.0, expected))
    step = max(1, BLOCK // max(1, len(gallery)))
    for start in range(0, len(probes), step):
        block = probes.select(np.arange(start, min(start + step, len(probes))))
        allowed = comparable(block, gallery)
        if measured is None:
            distances = _distances(block.vectors, gallery.vectors)
        else:
            distances = measured[start : start + step]
            allowed &= np.isfinite(distances)
        own = (block.owners[:, None] == gallery.owners) & allowed
        mated = own.any(axis=1)
        counts, nearest = _stand(distances[mated], own[mated], allowed[mated])
        once = np.arange(start, start + len(block))[:, None] < np.arange(len(gallery)) if mirrored else allowed
        others = once & allowed & ~own
        drawn = others if kept_share == 1 else others & (random.random(others.shape) < kept_share)
        row, column = np.nonzero(drawn | (once & own))
        pairs = Pairs(distances[row, column], block.owners[row], gallery.owners[column])
        yield np.flatnonzero(mated) + start, counts, nearest, pairs, int(others.sum())


def _distances(left: Floats, right: Floats) -> Floats:
    """``(P, G)``, exact for near templates: the usual way by a product of matrices is wrong by 3e-4 there."""
    a, b = (torch.from_numpy(np.ascontiguousarray(side, dtype=np.float32)) for side in (left, right))
    found: Floats = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    return found


def _stand(distances: Floats, own: Bools, allowed: Bools) -> tuple[Integers, Floats]:
    """``(5, P)`` counts: nearer, tied, tied_own, comparable, own; and ``(P,)`` distances to the nearest own."""
    nearest = np.where(own, distances, np.inf).min(axis=1, initial=np.inf)
    gap, others = distances - nearest[:, None], allowed & ~own
    masks = (others & (gap < -TIE), others & (np.abs(gap) <= TIE), own & (gap <= TIE), allowed, own)
    return np.stack([mask.sum(axis=1, dtype=np.int64) for mask in masks]), nearest
