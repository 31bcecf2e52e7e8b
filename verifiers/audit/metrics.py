"""How often somebody is named: ranks, accept rates and their intervals, on plain arrays.

Intervals are 95 %, by bootstrap over *people*: photos of one person are not independent, and neither are pairs that
share one. Where fewer than :data:`EDGE_PEOPLE` people could have made the difference, a bootstrap is known to be too
sure of itself (of 0 in 51 it says 0 to 0); there the interval is at least as wide as Wilson's (1927) over people.
All draws are the same on every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from anondata.verifiers._pairs import wilson
from anondata.verifiers.calibration import PAIRS_PER_ACCEPT

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TIE = 1e-5  # distances this close are one: identical faces come out of a network's batches 1e-6 apart
REPEATS = 1000
EDGE_PEOPLE = 5
FEWER_REPEATS = 200  # with many pairs, whose intervals are narrow anyway
MANY_PAIRS = 100_000
SHOWN_RANKS = 200


@dataclass(frozen=True)
class Share:
    """A share in [0, 1] and its interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """In percent, to two digits."""
        return {k: round(100 * v, 2) for k, v in (("percent", self.value), ("low", self.low), ("high", self.high))}


# --- shares over people ------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _draws(people: int, repeats: int) -> Floats:
    """``(repeats, people)`` how often each person is drawn, with replacement."""
    return np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), size=repeats).astype(np.float64)


def shares(values: Floats, people: Integers) -> list[Share]:
    """The mean of each column of ``values (P, K)`` in [0, 1], with intervals over the people of the ``P`` rows."""
    _, index = np.unique(people, return_inverse=True)
    count = int(index.max()) + 1
    sums, sizes = np.zeros((count, values.shape[1])), np.bincount(index).astype(float)
    np.add.at(sums, index, values)
    draws = _draws(count, REPEATS)
    drawn = (draws @ sums) / (draws @ sizes)[:, None]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    rows = zip(values.mean(axis=0).tolist(), low.tolist(), high.tolist(), strict=True)
    return [widened(Share(*row), count) for row in rows]


def share(values: npt.NDArray[Any], people: Integers) -> Share:
    """The mean of ``values (P,)`` in [0, 1] with its interval."""
    return shares(np.asarray(values, dtype=np.float64)[:, None], people)[0]


def widened(found: Share, people: int) -> Share:
    """At least Wilson's interval where fewer than :data:`EDGE_PEOPLE` people are on one side."""
    if min(found.value, 1 - found.value) * people >= EDGE_PEOPLE:
        return found
    low, high = wilson(found.value, people)
    return Share(found.value, min(found.low, low), max(found.high, high))


def shown_ranks(most: int) -> Integers:
    """Ranks of a curve: each up to 100, then ever sparser up to the last."""
    sparse = np.geomspace(100, most, SHOWN_RANKS - 100).round() if most > 100 else np.array([])
    ranks: Integers = np.unique(np.concatenate([np.arange(1, min(most, 100) + 1), sparse])).astype(np.int64)
    return ranks


# --- accept rates ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Pairs:
    """Distances of ``M`` pairs of templates and the two people of each."""

    distances: Floats
    left: Integers
    right: Integers

    @property
    def genuine(self) -> Bools:
        """``(M,)``: both templates are of one person."""
        same: Bools = self.left == self.right
        return same


class Curve:
    """The trade between accepted impostors and accepted owners over all thresholds.

    Pairs as far apart as each other are accepted together or, where a rate lies between, at random: between two
    thresholds the curve is a straight line. So ties favour nobody, and templates that are all alike give TAR = FAR.
    """

    def __init__(self, pairs: Pairs) -> None:
        ticks = np.rint(pairs.distances / TIE).astype(np.int64)
        order = np.argsort(ticks, kind="stable")
        self._ends = np.flatnonzero(np.diff(ticks[order], append=ticks[order[-1:]] + 1))
        self._genuine = pairs.genuine[order]
        _, both = np.unique(np.concatenate([pairs.left, pairs.right]), return_inverse=True)
        self._left, self._right = both[: len(order)][order], both[len(order) :][order]
        self.people = int(both.max()) + 1
        self.pairs = len(order)

    def points(self, drawn: Floats | None = None) -> tuple[Floats, Floats]:
        """False and true accept rates from (0, 0) to (1, 1); NaN where the people drawn make no pairs of a kind.

        drawn: ``(people,)`` how often each person counts. Somebody drawn twice is two people with the same face who
        are not compared with each other.
        """
        weight: Floats = np.ones(self.pairs)
        if drawn is not None:
            weight = drawn[self._left] * np.where(self._genuine, 1.0, drawn[self._right])
        with np.errstate(invalid="ignore"):
            impostor, owner = (
                np.concatenate([[0.0], np.cumsum(weight * kind)[self._ends]])
                for kind in (~self._genuine, self._genuine)
            )
            return impostor / impostor[-1], owner / owner[-1]


def tar_at(far: Floats, tar: Floats, wanted: float) -> float:
    """The true accept rate of a curve at a false accept rate."""
    last = int(np.searchsorted(far, wanted + 1e-12, side="right")) - 1
    if last >= len(far) - 1:
        return float(tar[-1])
    step = (wanted - far[last]) / (far[last + 1] - far[last])
    return float(tar[last] + step * (tar[last + 1] - tar[last]))


def eer(far: Floats, tar: Floats) -> float:
    """The rate at which as many impostors are accepted as owners are refused."""
    excess = far + tar - 1
    after = int(np.argmax(excess >= 0))
    before = max(after - 1, 0)
    rise = excess[after] - excess[before]
    step = -excess[before] / rise if rise > 0 else 0.0
    return float(far[before] + step * (far[after] - far[before]))


def supported(far: float, impostor_pairs: int) -> bool:
    """Whether there are enough pairs of different people to speak of this false accept rate."""
    return impostor_pairs * far >= PAIRS_PER_ACCEPT - 1e-9


def accept_rates(curve: Curve, fars: Sequence[float]) -> tuple[list[Share], Share]:
    """TAR at each FAR, and the equal error rate, with intervals."""
    repeats = REPEATS if curve.pairs <= MANY_PAIRS else FEWER_REPEATS
    rows = [_rates(*curve.points(drawn), fars) for drawn in _draws(curve.people, repeats)]
    low, high = np.nanquantile(np.array(rows), [0.025, 0.975], axis=0)
    found = zip(_rates(*curve.points(), fars), low.tolist(), high.tolist(), strict=True)
    *tars, error = [widened(Share(*row), curve.people) for row in found]
    return tars, error


def _rates(far: Floats, tar: Floats, fars: Sequence[float]) -> list[float]:
    if not (np.isfinite(far[-1]) and np.isfinite(tar[-1])):
        return [float("nan")] * (len(fars) + 1)
    return [*(tar_at(far, tar, wanted) for wanted in fars), eer(far, tar)]
