"""Which samples of a map-style dataset may stand in for one another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from anondata.errors import PolicyError, WithheldError
from anondata.loaders._flow import Flow
from anondata.loaders._spares import group_of
from anondata.loaders.torch.reading import Key, SampleReader
from anondata.loaders.torch.samples import Layout, Name
from anondata.records import Withheld

GroupOf: TypeAlias = Name | Callable[[Mapping[Name, Any]], Hashable] | Sequence[Hashable] | None
"""A kept field, a function of a sample's kept fields, each sample's group in the dataset's order, or None."""

READS = 1024
"""How many samples are read to find one of a group. Of 100 even groups one is then missed once in 30,000 times."""


@dataclass(frozen=True)
class OfKept:
    """The user's function of kept fields, which are named as the user wrote them."""

    layout: Layout
    function: Callable[[Mapping[Name, Any]], Hashable]

    def __call__(self, kept: Mapping[str, Any]) -> Hashable:
        return self.function(self.layout.kept(kept))


def in_rows(group: GroupOf, layout: Layout) -> Any:
    """What :class:`Flow` takes as a group: a name, a function, or None where the groups are given as a sequence."""
    if callable(group):
        return OfKept(layout, group)
    if isinstance(group, str | int):
        return str(group)
    return None


class Groups:
    """Finds the samples of a group.

    known: the group of each sample, in the dataset's order. Without it samples are read until one is of the group.

    Raises:
        PolicyError: ``known`` is not as long as the dataset.
    """

    def __init__(self, reader: SampleReader, known: Sequence[Hashable] | None) -> None:
        self._reader = reader
        self._known: Sequence[Hashable] | None = getattr(known, "tolist", lambda: known)()
        if known is not None and len(known) != self.count:
            raise PolicyError(f"group holds {len(known)} values; expected one for each of {self.count} samples")

    def __getstate__(self) -> dict[str, Any]:
        return {"_reader": self._reader, "_known": self._known}

    @property
    def count(self) -> int:
        """Samples of the dataset; 0 where it does not say."""
        return len(self._reader.dataset) if hasattr(self._reader.dataset, "__len__") else 0

    def of(self, keys: Sequence[Key]) -> list[Hashable] | None:
        """The groups of some samples, or None where they stand in the samples alone.

        Raises:
            PolicyError: the sampler gives keys that are no indices.
        """
        if self._known is None:
            return None
        if not all(hasattr(key, "__index__") for key in keys):
            raise PolicyError("group is a sequence, but samples are not named by an index; give a function instead")
        return [_plain(self._known[key]) for key in keys]

    def candidates(self, flow: Flow, group: Hashable) -> Sequence[int]:
        """The indices of the samples of a group; of all when it is None."""
        if group is None:
            return range(self.count)
        if self._known is not None:
            return self._members.get(group, [])
        return _Searched(self._reader, flow, group, self.count)

    @cached_property
    def _members(self) -> dict[Hashable, list[int]]:
        members: dict[Hashable, list[int]] = {}
        for i in range(self.count):
            members.setdefault(_plain((self._known or ())[i]), []).append(i)
        return members


class _Searched(Sequence[int]):
    """Samples of a group, each found by reading others in an order that the run key fixes.

    Raises:
        WithheldError: none was found in :data:`READS`.
    """

    def __init__(self, reader: SampleReader, flow: Flow, group: Hashable, count: int) -> None:
        self._reader, self._flow, self._group, self._count = reader, flow, group, count
        self._left = READS

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: Any) -> Any:
        step = 0
        while self._left:
            index = self._flow.anonymizer.draw("candidate", place, step) % self._count
            step, self._left = step + 1, self._left - 1
            [row] = self._reader.rows([index])
            if not isinstance(row, Withheld) and self._flow._group(row) == self._group:
                return index
        raise WithheldError(
            f"a sample was withheld, and none of its group was found among {READS} others: give group= the groups "
            "of all samples in their order, such as dataset.targets, so that none must be read"
        )


def _plain(value: Hashable) -> Hashable:
    return group_of("it", {"it": value})
