"""Who is named more often than others? Rank 1 by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anondata.errors import AuditError
from anondata.verifiers.audit.metrics import Floats, Integers, Share, share

MIN_PEOPLE = 10  # of fewer, a share says next to nothing: 1 of 9 is 11 [2-44] %
MAX_GROUPS = 20
FEW_NUMBERS = 8  # more different ones become quartiles
UNKNOWN = "not stated"
MISSING = frozenset(("", "na", "n/a", "nan", "none", "null", "unknown", "?", "-"))  # what tables write for it


@dataclass(frozen=True)
class Group:
    """How often the people of one group are named at rank 1. too_few: to be compared with others."""

    value: str
    probes: int
    people: int
    rank1: Share

    @property
    def too_few(self) -> bool:
        return self.people < MIN_PEOPLE

    def to_json(self) -> dict[str, Any]:
        counts = {"value": self.value, "probes": self.probes, "people": self.people}
        return {**counts, "rank1": self.rank1.to_json(), "too_few_people": self.too_few}


def by_group(
    columns: Mapping[str, tuple[str, ...]], rows: Integers, named: Floats, owners: Integers
) -> dict[str, tuple[Group, ...]]:
    """Groups by column. rows: ``(P,)`` places of the probes in the columns. named, owners: ``(P,)``."""
    return {column: tuple(_groups(np.array(values)[rows], named, owners)) for column, values in columns.items()}


def _groups(values: Any, named: Floats, owners: Integers) -> list[Group]:
    order = sorted(set(values.tolist()), key=_in_order)
    chosen = [(value, values == value) for value in order]
    return [
        Group(value, int(who.sum()), len(np.unique(owners[who])), share(named[who], owners[who]))
        for value, who in chosen
    ]


def worst_of(groups: Sequence[Group]) -> dict[str, Any] | None:
    """The group that is named most, among those with enough people; None where there is nothing to compare."""
    enough = [g for g in groups if not g.too_few]
    if len(enough) < 2:
        return None
    return max(enough, key=lambda g: (g.rank1.value, g.rank1.low)).to_json()


def binned(values: Sequence[str]) -> tuple[str, ...]:
    """Group names of a column's values: numbers of many kinds become quartiles, everything else stays.

    Raises: AuditError for a column of so many words that it may well name people.
    """
    stated = ["" if value.lower() in MISSING else value for value in values]
    kinds = set(stated) - {""}
    if len(kinds) > FEW_NUMBERS and all(_is_number(kind) for kind in kinds):
        return _quartiles(stated)
    if len(kinds) > MAX_GROUPS:
        raise AuditError(
            f"a group column has {len(kinds)} values, at most {MAX_GROUPS} are compared; does it name people?"
        )
    return tuple(value or UNKNOWN for value in stated)


def _quartiles(values: Sequence[str]) -> tuple[str, ...]:
    """Each value as the range of its quarter. Equal numbers are never parted."""
    numbers = np.array([float(v) for v in values if v])
    edges = np.unique(np.quantile(numbers, [0.25, 0.5, 0.75]))
    names = {}
    for quarter in range(len(edges) + 1):
        inside = numbers[np.searchsorted(edges, numbers, side="left") == quarter]
        names[quarter] = f"{inside.min():g} to {inside.max():g}" if len(inside) else ""
    return tuple(names[int(np.searchsorted(edges, float(v), side="left"))] if v else UNKNOWN for v in values)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _in_order(value: str) -> tuple[int, float, str]:
    """Ranges of numbers by their first, then words, then what is not stated."""
    first = value.split(" to ")[0]
    if value == UNKNOWN:
        return 2, 0.0, ""
    return (0, float(first), "") if _is_number(first) else (1, 0.0, value)
