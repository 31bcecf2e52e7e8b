"""The originals of a view: rows by number, which leave through the engine or as kept columns alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Value
from datasets.utils.file_utils import is_remote_url

from anondata.loaders._flow import Flow, Row, Settled
from anondata.loaders._spares import group_of
from anondata.loaders.hf.layout import NOTE, Layout
from anondata.loaders.hf.rows import RowReader, is_stored_file
from anondata.samples import KEEP, Sample, comes_out

ROW = "row"
CHUNK = 1000
"""Rows of kept columns that are read at once."""
FILES = 32
"""Rows of files that are read at once."""


class HfSource:
    """The originals and how they are anonymized. Nothing is read before rows are asked for.

    Args:
        dataset: what the user gave; columns that are dropped are not even read.
        flow, layout: what was declared. pictures: hand out PIL images where the dataset does.
    """

    def __init__(self, dataset: Dataset, flow: Flow, layout: Layout, *, pictures: bool = True) -> None:
        # As Arrow tables, because that decodes nothing and opens no file.
        self._table = dataset.select_columns(list(layout.read)).with_format("arrow")
        self.reader = RowReader(flow, layout, pictures)
        self._shown: Any = range(len(self))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def flow(self) -> Flow:
        return self.reader.flow

    @property
    def layout(self) -> Layout:
        return self.reader.layout

    def with_flow(self, flow: Flow, *, pictures: bool) -> HfSource:
        """The same originals, anonymized or handed out in another way."""
        other = copy(self)
        other.reader = replace(self.reader, flow=flow, pictures=pictures)
        return other

    def showing(self, numbers: Sequence[int]) -> HfSource:
        """The same originals, of which these rows alone may stand in for others."""
        other = copy(self)
        other._shown = np.unique(np.asarray(numbers, np.int64))  # sorted, so that the view's order does not matter
        other.__dict__.pop("_groups", None)
        return other

    def features(self, *, note: bool) -> Features:
        """Types of the columns that come out. note: with that of the column that says what came of each row."""
        features = self.layout.features()
        return self.with_note(features) if note else features

    @staticmethod
    def with_note(features: Features) -> Features:
        """These types, and that of the column that says what came of each row."""
        return Features({**features, NOTE: Value("string")})

    @property
    def fingerprint(self) -> str:
        """What `datasets` tells versions of the table apart by. It knows of paths, not of the files there."""
        return str(self._table._fingerprint)

    def version(self, numbers: Sequence[int]) -> str:
        """Stands for some rows: their numbers, and size and time of their local files; remote ones are not asked."""
        digest = hashlib.sha256(np.asarray(numbers, np.int64).tobytes())
        names = self.layout.columns_with(is_stored_file)
        for row in self._read(numbers, names, FILES) if names else ():
            for path in _paths(list(row.values())):
                digest.update(repr((path, _state(path))).encode())
        return digest.hexdigest()

    @cached_property
    def stand_ins(self) -> str:
        """Stands for the rows that may stand in for others."""
        return self.version(self._shown)

    def size_of(self, number: int) -> int:
        """About how many bytes a row takes when it is stored."""
        [row] = self.with_flow(self.flow, pictures=False)._rows([number])
        declared = self.flow.schema.fields
        out = [v for n, v in row.fields.items() if comes_out(declared[n])] if isinstance(row, Sample) else []
        return _size(out)

    def settle(self, numbers: Sequence[int]) -> list[Settled]:
        """What consumers get for some rows. A stand-in is one of the rows that the view shows."""
        groups = None if self.flow.group is None else list(self._groups_of(numbers))
        return self.flow.fetch(numbers, self._rows, self._members, groups)

    def _rows(self, numbers: Sequence[int]) -> list[Row]:
        return [self.reader.sample(row) for row in self._table[list(numbers)].to_pylist()]

    def kept(self, numbers: Sequence[int], columns: Collection[str]) -> Iterator[dict[str, Any]]:
        """Kept columns of some rows, as they are in the dataset; no content is read.

        columns: those of which ``layout.is_kept`` says that they hold no content; others are left out.
        """
        names = [name for name in columns if self.layout.is_kept(name)]
        for row in self._read(numbers, names):
            yield self.reader.row(self.reader.kept(row, files=True), names)

    def _read(self, numbers: Sequence[int], columns: Sequence[str], chunk: int = CHUNK) -> Iterator[dict[str, Any]]:
        if not columns:
            yield from ({} for _ in numbers)
            return
        table = self._table.select_columns(list(columns))
        for start in range(0, len(numbers), chunk):
            yield from table[list(numbers[start : start + chunk])].to_pylist()

    def _groups_of(self, numbers: Sequence[int]) -> Iterator[Hashable]:
        """Groups are told from what is kept and no file, so that one can be told of a row that is unreadable."""
        group, leaves = self.flow.group, self.layout.leaves
        wanted = {n: [leaf.name for leaf in leaves(n) if leaf.kind == KEEP] for n in self.layout.columns}
        columns = [n for n, names in wanted.items() if (group in names if isinstance(group, str) else names)]
        for row in self._read(numbers, columns):
            yield group_of(group, self.reader.kept(row, files=False))

    def _members(self, group: Hashable) -> Sequence[int]:
        if self.flow.group is None or group is None:
            shown: Sequence[int] = self._shown
            return shown
        return self._groups.get(group, ())

    @cached_property
    def _groups(self) -> Mapping[Hashable, Sequence[int]]:
        """Row numbers by group; all kept fields are read when the first sample is withheld."""
        found: dict[Hashable, list[int]] = {}
        for number, group in zip(self._shown, self._groups_of(self._shown), strict=True):
            found.setdefault(group, []).append(number)
        return found


def _size(value: Any) -> int:
    if isinstance(value, bytes | str):
        return len(value)
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return sum(map(_size, items)) or 8


def _paths(value: Any) -> Iterator[str]:
    """The paths of files whose bytes the table does not hold."""
    if isinstance(value, Mapping) and set(value) == {"bytes", "path"}:
        if value["bytes"] is None and value["path"] is not None:
            yield value["path"]
        return
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for item in items:
        yield from _paths(item)


def _state(path: str) -> tuple[int, int] | None:
    """Size and time of a local file, or of the archive that it is in; None where there is none."""
    place = path.split("::")[-1]
    try:
        found = None if is_remote_url(place) else os.stat(place)
    except (OSError, ValueError):
        return None
    return (found.st_size, found.st_mtime_ns) if found else None


def row_table(numbers: Sequence[int]) -> Dataset:
    """A dataset of row numbers, for `datasets` to map over: it holds no original, and tells nothing of the source."""
    return Dataset(pa.table({ROW: np.asarray(numbers, np.int64)}))


@dataclass(frozen=True)
class Stored:
    """For ``map`` over row numbers: the anonymized rows as a table stores them. It never sees an original itself.

    columns: names that come out, with those of the layout.
    """

    source: HfSource
    columns: Mapping[str, str]

    def __call__(self, batch: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        given = [(s.fields, s.note) for s in self.source.settle(batch[ROW]) if s.fields is not None]
        rows = [self.source.reader.row(fields, self.columns.values()) | {NOTE: note} for fields, note in given]
        return {name: [row[column] for row in rows] for name, column in self.columns.items()}
