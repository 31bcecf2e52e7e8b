"""Views of other rows: which ones is decided by `datasets`, on a table of row numbers and kept columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, Value

from anondata.errors import RefusedError
from anondata.loaders.hf.dicts import AnonymizedDatasetDict
from anondata.loaders.hf.layout import NOTE

ROW = NOTE  # which no kept column is called
V = TypeVar("V", bound="Ordered")


class Ordered(ABC):
    """Selects and orders rows as `datasets.Dataset` does. No content is looked at, and nothing is written.

    Subclasses have ``_numbers``: the rows of the source that the view shows.
    """

    _numbers: Any

    @abstractmethod
    def _with(self: V, **changes: Any) -> V:
        """The view with some of its parts changed, such as ``numbers`` or ``split``."""

    @abstractmethod
    def _kept_columns(self, names: Sequence[str]) -> tuple[Features, Iterable[dict[str, Any]]]:
        """Types and rows of kept columns alone. Raises: RefusedError, for a column that holds content."""

    def __len__(self) -> int:
        return len(self._numbers)

    def select(self: V, indices: Iterable[int]) -> V:
        """The rows of some positions."""
        return self._ordered(lambda rows: rows.select(indices, keep_in_memory=True))

    def shuffle(self: V, seed: int | None = None, generator: np.random.Generator | None = None) -> V:
        """The rows in another order: by a seed, that in which `datasets` puts them. Leaves numpy's global state."""
        chosen = generator if generator is not None or seed is not None else np.random.default_rng()
        return self._ordered(lambda rows: rows.shuffle(seed=seed, generator=chosen, keep_in_memory=True))

    def shard(self: V, num_shards: int, index: int, contiguous: bool = True) -> V:
        """One of ``num_shards`` parts."""
        return self._ordered(lambda rows: rows.shard(num_shards, index, contiguous=contiguous, keep_in_memory=True))

    def skip(self: V, n: int) -> V:
        """All rows but the first ``n``."""
        return self._ordered(lambda rows: rows.skip(n))

    def take(self: V, n: int) -> V:
        """The first ``n`` rows."""
        return self._ordered(lambda rows: rows.take(n))

    def repeat(self: V, num_times: int) -> V:
        """The rows, several times over."""
        return self._ordered(lambda rows: rows.repeat(num_times))

    def sort(
        self: V,
        column_names: str | Sequence[str],
        reverse: bool | Sequence[bool] = False,
        null_placement: str = "at_end",
    ) -> V:
        """The rows in the order of kept columns."""
        names = [column_names] if isinstance(column_names, str) else list(column_names)
        return self._ordered(
            lambda rows: rows.sort(names, reverse=reverse, null_placement=null_placement, keep_in_memory=True),
            columns=names,
        )

    def train_test_split(
        self: V,
        test_size: float | int | None = None,
        train_size: float | int | None = None,
        shuffle: bool = True,
        stratify_by_column: str | None = None,
        seed: int | None = None,
        generator: np.random.Generator | None = None,
    ) -> AnonymizedDatasetDict:
        """Two views, "train" and "test", as `datasets` splits."""
        chosen = generator if generator is not None or seed is not None else np.random.default_rng()
        rows = self._table([stratify_by_column] if stratify_by_column else [])
        parts = rows.train_test_split(
            test_size=test_size,
            train_size=train_size,
            shuffle=shuffle,
            stratify_by_column=stratify_by_column,
            seed=seed,
            generator=chosen,
            keep_in_memory=True,
        )
        views = {name: self._with(numbers=_numbers_of(part), split=name) for name, part in parts.items()}
        return AnonymizedDatasetDict(cast(Any, views))

    def filter(self: V, function: Callable[..., Any], input_columns: str | Sequence[str] | None = None) -> V:
        """The rows of which a function of kept columns says yes; it is called with their values, a row at a time.

        input_columns: their names; needed, because a function of whole rows would run the engine on all of them.
        """
        if input_columns is None:
            raise RefusedError(
                "filter without input_columns would need the content of every row; name kept columns: "
                "view.filter(f, input_columns=[...]), or filter what view.materialize(folder) returns"
            )
        names = [input_columns] if isinstance(input_columns, str) else list(input_columns)
        _, rows = self._kept_columns(names)
        chosen = [bool(function(*(row[name] for name in names))) for row in rows]
        return self._with(numbers=np.asarray(self._numbers)[np.asarray(chosen, bool)])

    def unique(self, column: str) -> list[Any]:
        """The values of a kept column, each once, in the order in which they come first."""
        _, rows = self._kept_columns([column])
        return list(dict.fromkeys(row[column] for row in rows))

    def _ordered(self: V, change: Callable[[Dataset], Dataset], columns: Sequence[str] = ()) -> V:
        return self._with(numbers=_numbers_of(change(self._table(columns))))

    def _table(self, columns: Sequence[str]) -> Dataset:
        """Row numbers, with some kept columns."""
        table = Dataset(pa.table({ROW: np.asarray(self._numbers, np.int64)}))
        if not columns:
            return table
        features, rows = self._kept_columns(columns)
        kept = Dataset.from_list(list(rows), features=features)
        return Dataset(
            pa.table({ROW: table.data.column(ROW), **{name: kept.data.column(name) for name in columns}}),
            info=DatasetInfo(features=Features({ROW: Value("int64"), **features})),
        )


def _numbers_of(rows: Dataset) -> Any:
    return np.asarray(rows.with_format("numpy")[ROW][:], np.int64) if len(rows) else np.empty(0, np.int64)
