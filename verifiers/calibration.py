"""Thresholds at stated false-accept rates, with the data that they come from.

A threshold is a distance below which two templates are taken for one person. The false-accept rate (FAR) is the share
of pairs of *different* people that fall below it. A gate wants results to be farther from a protected face than that:
the higher its FAR, the stricter it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from anondata.errors import PolicyError

PAIRS_PER_ACCEPT = 10  # fewer than 10 / FAR impostor pairs cannot support a FAR


@dataclass(frozen=True)
class Threshold:
    """A distance at a false-accept rate, and its 95 % bootstrap interval."""

    far: float
    distance: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """What an embedder's thresholds are and where they come from.

    data: the labelled faces. identities, impostor_pairs: how many. thresholds: by FAR.
    """

    embedder: str
    data: str
    identities: int
    impostor_pairs: int
    thresholds: tuple[Threshold, ...]

    def at(self, far: float) -> Threshold:
        """The threshold at a calibrated FAR; :class:`PolicyError` names those that there are."""
        for threshold in self.thresholds:
            if threshold.far == far:
                return threshold
        known = ", ".join(f"{t.far:g}" for t in self.thresholds)
        raise PolicyError(f"embedder {self.embedder!r} has no threshold at FAR {far:g}; calibrated: {known}")


@cache
def shipped(embedder: str) -> Calibration:
    """The calibration that comes with the package."""
    source = files("anondata.verifiers") / "thresholds" / f"{embedder}.json"
    if not source.is_file():
        raise PolicyError(f"no calibration for embedder {embedder!r} comes with anondata")
    return from_json(json.loads(source.read_text()))


def from_json(data: Mapping[str, Any]) -> Calibration:
    """A calibration from its JSON form."""
    rows = tuple(Threshold(**row) for row in data["thresholds"])
    return Calibration(**{**data, "thresholds": rows})
