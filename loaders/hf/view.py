"""A dataset whose rows are anonymized when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from datasets import Dataset, DatasetInfo, Features, IterableDataset

from anondata.errors import FieldTypeError, PolicyError, RefusedError
from anondata.loaders.hf._order import Ordered
from anondata.loaders.hf.form import Form, check_columns, form_of
from anondata.loaders.hf.layout import NOTE
from anondata.loaders.hf.source import CHUNK, ROW, HfSource, Stored, row_table
from anondata.loaders.hf.surface import Refusing
from anondata.report import Report


class AnonymizedDataset(Ordered, Refusing):
    """What `datasets.Dataset` does for training, on anonymized rows. :func:`anondata.loaders.hf.anonymize` makes one.

    Rows go through the engine when they are asked for, some at a time, and again when they are asked for again: to
    keep them, :meth:`materialize`. What would reach originals raises :class:`~anondata.errors.RefusedError`.

    It is no ``datasets.Dataset``, so that nothing of that works on originals by default. A pickle of it holds the
    originals, or where they are on disk, and the run key: it is for the workers of a DataLoader, not for others.

    What stands in for a withheld row is one of the rows that this view shows, never one that was filtered out or is
    in another split. So it is the same in any order, but may be another after ``filter``, ``select`` or ``shard``.

    Kept columns alone (``view["label"]``, ``sort``, ``filter``, ``unique``) are read as the dataset holds them,
    without the engine: also of rows whose content is withheld, and which then show another row.
    """

    def __init__(
        self,
        source: HfSource,
        *,
        numbers: Any = None,
        columns: Mapping[str, str] | None = None,
        form: Form | None = None,
    ) -> None:
        self._source = source
        self._numbers = range(len(source)) if numbers is None else numbers
        names = self._all_features(source)
        self._columns = dict(columns) if columns is not None else {name: name for name in names}
        self._form = form or Form()
        self._split: str | None = None

    @staticmethod
    def _all_features(source: HfSource) -> Features:
        return source.features(note=source.flow.on_withheld == "replace")

    def _with(self, **changes: Any) -> AnonymizedDataset:
        split = changes.pop("split", self._split)
        now = {"numbers": self._numbers, "columns": self._columns, "form": self._form}
        source = self._source.showing(changes["numbers"]) if "numbers" in changes else self._source
        view = AnonymizedDataset(source, **{**now, **changes})
        view._split = split
        return view

    # numbers, names and types

    @property
    def features(self) -> Features:
        """Types of the columns, without those that are dropped; ``"anondata"`` says what came of each row."""
        known = self._all_features(self._source)
        return Features({name: known[column] for name, column in self._columns.items()})

    @property
    def column_names(self) -> list[str]:
        return list(self._columns)

    @property
    def num_columns(self) -> int:
        return len(self._columns)

    @property
    def num_rows(self) -> int:
        return len(self)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), len(self._columns)

    @property
    def split(self) -> str | None:
        return self._split

    @property
    def info(self) -> DatasetInfo:
        """The types alone: nothing else of the source's is told."""
        return DatasetInfo(features=self.features)

    @property
    def format(self) -> dict[str, Any]:
        columns = self.column_names if self._form.columns is None else list(self._form.columns)
        told = {"type": self._form.type, "format_kwargs": dict(self._form.options), "columns": columns}
        return {**told, "output_all_columns": self._form.others}

    @property
    def report(self) -> Report:
        """What was done so far, by this and all other views of the dataset, in all processes.

        A row that was asked for twice was anonymized, and is counted, twice.
        """
        return self._source.flow.report

    def __repr__(self) -> str:
        return f"AnonymizedDataset({{\n    features: {self.column_names},\n    num_rows: {len(self)}\n}})"

    # rows

    def __getitem__(self, key: Any) -> Any:
        """A row by its position, a batch by a slice or positions, or a column by its name, which is lazy."""
        if isinstance(key, str):
            check_columns(key, self.column_names)
            return AnonymizedColumn(self, (key,))
        if isinstance(key, int | np.integer) and not isinstance(key, bool):
            return self._form.row(self._rows([self._position(int(key))])[0])
        return self._batch(self._positions(key))

    def __getitems__(self, keys: Sequence[int]) -> list[Any]:
        """Rows by their positions; a DataLoader asks for its batches like this."""
        positions = [self._position(int(key)) for key in keys]
        if self._form.transform is None:
            return [self._form.row(row) for row in self._rows(positions)]
        batch = self._batch(positions)
        return [{name: values[i] for name, values in batch.items()} for i in range(len(next(iter(batch.values()))))]

    def __iter__(self) -> Iterator[Any]:
        needed = [self._columns[name] for name in self._form.needed(self.column_names)]
        size = CHUNK if all(map(self._is_kept, needed)) else self._source.flow.size
        for start in range(0, len(self), size):
            for row in self._rows(range(start, min(start + size, len(self)))):
                yield self._form.row(row)

    def iter(self, batch_size: int, drop_last_batch: bool = False) -> Iterator[Any]:
        """Batches of ``batch_size`` rows."""
        for start in range(0, len(self), batch_size):
            positions = range(start, min(start + batch_size, len(self)))
            if len(positions) == batch_size or not drop_last_batch:
                yield self._batch(positions)

    def _batch(self, positions: Sequence[int]) -> Any:
        rows = self._rows(positions)
        return self._form.batch({name: [row[name] for row in rows] for name in self._form.needed(self.column_names)})

    def _rows(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Rows as plain Python values, of the columns that the format needs."""
        names = self._form.needed(self.column_names)
        columns = [self._columns[name] for name in names]
        numbers = [self._numbers[position] for position in positions]
        if all(self._is_kept(column) for column in columns):
            rows = self._source.kept(numbers, columns)
        else:
            settled = self._source.settle(numbers)
            rows = (self._source.reader.row(s.fields or {}, columns) | {NOTE: s.note} for s in settled)
        return [{name: row[column] for name, column in zip(names, columns, strict=True)} for row in rows]

    def _is_kept(self, column: str) -> bool:
        return column != NOTE and self._source.layout.is_kept(column)

    def _position(self, key: int) -> int:
        if not -len(self) <= key < len(self):
            raise IndexError(f"row {key} is out of range; the view has {len(self)}")
        return key % len(self)

    def _positions(self, key: Any) -> Sequence[int]:
        if isinstance(key, slice):
            return range(len(self))[key]
        keys = np.asarray(key if hasattr(key, "__array__") else list(key) if isinstance(key, Iterable) else key)
        if keys.ndim != 1 or not (np.issubdtype(keys.dtype, np.integer) or not len(keys)):
            raise FieldTypeError(
                "rows are asked for by a position, a slice, a list of positions or a column's name; "
                "where there is a mask, take numpy.flatnonzero(mask)"
            )
        return [self._position(int(position)) for position in keys]

    # which columns, and in what format

    def select_columns(self, column_names: str | Sequence[str]) -> AnonymizedDataset:
        """The view without other columns. A sample's other content still counts: it is withheld as a whole."""
        names = check_columns(column_names, self.column_names) or ()
        form = self._form_for({name: name for name in names})
        return self._with(columns={name: self._columns[name] for name in names}, form=form)

    def remove_columns(self, column_names: str | Sequence[str]) -> AnonymizedDataset:
        """The view without some columns; see :meth:`select_columns`. A column declared ``drop`` is not even read."""
        names = check_columns(column_names, self.column_names) or ()
        return self.select_columns([name for name in self.column_names if name not in names])

    def rename_column(self, original_column_name: str, new_column_name: str) -> AnonymizedDataset:
        """The view with another name of a column."""
        return self.rename_columns({original_column_name: new_column_name})

    def rename_columns(self, column_mapping: Mapping[str, str]) -> AnonymizedDataset:
        """The view with other names of columns."""
        check_columns(list(column_mapping), self.column_names)
        columns = {column_mapping.get(name, name): column for name, column in self._columns.items()}
        if len(columns) != len(self._columns) or any(n == NOTE != column for n, column in columns.items()):
            raise PolicyError(
                f"two columns would have the same name, or one the name {NOTE!r}, which anondata uses; choose others"
            )
        form = self._form_for({name: column_mapping.get(name, name) for name in self._columns})
        return self._with(columns=columns, form=form)

    def _form_for(self, names: Mapping[str, str]) -> Form:
        """The format, of columns that are left, by their new names."""
        form = self._form
        columns = None if form.columns is None else tuple(names[n] for n in form.columns if n in names)
        return Form(form.type, columns, form.others, form.options, form.transform)

    def with_format(
        self,
        type: str | None = None,
        columns: str | Sequence[str] | None = None,
        output_all_columns: bool = False,
        **format_kwargs: Any,
    ) -> AnonymizedDataset:
        """The view in another format: None, ``"numpy"`` or ``"torch"``; see ``datasets.Dataset.with_format``.

        Raises: RefusedError for formats that are tables of their own, such as ``"pandas"``.
        """
        return self._with(form=form_of(type, columns, output_all_columns, self.column_names, **format_kwargs))

    def with_transform(
        self,
        transform: Callable[[dict[str, Any]], Any] | None,
        columns: str | Sequence[str] | None = None,
        output_all_columns: bool = False,
    ) -> AnonymizedDataset:
        """The view with a function of batches applied on the fly: to anonymized ones, it never sees an original."""
        chosen = check_columns(columns, self.column_names)
        return self._with(form=Form("custom" if transform else None, chosen, output_all_columns, {}, transform))

    def set_format(self, *args: Any, **kwargs: Any) -> None:
        """:meth:`with_format`, in place."""
        self._form = self.with_format(*args, **kwargs)._form

    def set_transform(self, *args: Any, **kwargs: Any) -> None:
        """:meth:`with_transform`, in place."""
        self._form = self.with_transform(*args, **kwargs)._form

    def reset_format(self) -> None:
        """Plain Python values of all columns again."""
        self._form = Form()

    @contextmanager
    def formatted_as(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Another format within a ``with`` block."""
        before = self._form
        try:
            self.set_format(*args, **kwargs)
            yield
        finally:
            self._form = before

    # what leaves the view

    def to_iterable_dataset(self, num_shards: int = 1) -> IterableDataset:
        """A stream of the view's anonymized rows. What a transform did, ``map`` does on the stream."""
        if self._form.transform is not None or self._form.columns is not None:
            raise RefusedError("a stream has no transform and no columns of a format; take view.reset_format() first")
        stored = Stored(self._source.with_flow(self._source.flow, pictures=False), self._columns)
        rows = row_table(self._numbers).to_iterable_dataset(num_shards)
        mapped = rows.map(stored, batched=True, batch_size=self._source.flow.size, remove_columns=[ROW])
        stream = mapped.cast(self.features)
        return stream.with_format(self._form.type) if self._form.type else stream

    def materialize(self, folder: str | os.PathLike[str], **options: Any) -> Dataset:
        """Writes parquet files of the rows, scans and loads them; the same call goes on after a kill.

        options, told in full in :mod:`anondata.loaders.hf.materialize`: ``on_withheld="drop"``, or ``"replace"`` or
        ``"raise"``; ``num_proc=1``; ``rows_per_file=None``; ``cache_dir=None``.
        """
        from anondata.loaders.hf.materialize import materialize

        return materialize({self._split or "train": self}, folder, **options)[self._split or "train"]

    def _kept_columns(self, names: Sequence[str]) -> tuple[Features, Iterable[dict[str, Any]]]:
        check_columns(names, self.column_names)
        for name in names:
            if not self._is_kept(self._columns[name]):
                raise RefusedError(
                    f"column {name!r} holds content; rows are chosen and ordered by kept columns alone"
                )
        columns = [self._columns[name] for name in names]
        rows = self._source.kept(self._numbers, columns)
        renamed = ({n: row[column] for n, column in zip(names, columns, strict=True)} for row in rows)
        return Features({name: self.features[name] for name in names}), renamed


class AnonymizedColumn(Sequence[Any]):
    """A column of a view, or a member of its structs, made when it is asked for."""

    def __init__(self, view: AnonymizedDataset, path: tuple[str, ...]) -> None:
        form, self._path = view._form, path
        if form.transform is None:  # which may need the other columns
            view = view.select_columns(path[0])
            if path[0] not in form.needed([path[0]]):
                view = view.with_format(None)
        self._view = view

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return AnonymizedColumn(self._view, (*self._path, key))
        if len(self._path) == 1 or isinstance(key, int | np.integer):
            return self._member(self._view[key])
        return [_inside(value, self._path[1:]) for value in self._view[key][self._path[0]]]

    def __iter__(self) -> Iterator[Any]:
        return (self._member(row) for row in self._view)

    def __len__(self) -> int:
        return len(self._view)

    def __repr__(self) -> str:
        return f"AnonymizedColumn({'.'.join(self._path)!r}, {len(self)} rows)"

    def _member(self, row: Mapping[str, Any]) -> Any:
        return _inside(row, self._path)


def _inside(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = value[name]
    return value
