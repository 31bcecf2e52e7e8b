"""Views of the splits of a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from anondata.errors import RefusedError
from anondata.loaders.hf.surface import Refusing
from anondata.report import Report

if TYPE_CHECKING:
    from datasets import DatasetDict

    from anondata.loaders.hf.view import AnonymizedDataset

EACH = frozenset(
    {
        "filter", "remove_columns", "rename_column", "rename_columns", "select_columns", "shuffle", "sort",
        "with_format", "with_transform",
    }
)  # fmt: skip
"""Methods that make a view of each split."""

IN_PLACE = frozenset({"reset_format", "set_format", "set_transform"})
TOLD = frozenset({"column_names", "num_columns", "num_rows", "shape"})
"""What is told of each split."""


class AnonymizedDatasetDict(Refusing, Mapping[str, "AnonymizedDataset"]):
    """Views of the splits of a dataset, by name. What `datasets.DatasetDict` does for training is done to each."""

    def __init__(self, views: Mapping[str, AnonymizedDataset]) -> None:
        self._views = dict(views)

    def __getitem__(self, name: str) -> AnonymizedDataset:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def __repr__(self) -> str:
        return f"AnonymizedDatasetDict({self._views!r})"

    def __getattr__(self, name: str) -> Any:
        if name in TOLD:
            return {split: getattr(view, name) for split, view in self._views.items()}
        if name in EACH:
            return lambda *args, **kwargs: AnonymizedDatasetDict(
                {split: getattr(view, name)(*args, **kwargs) for split, view in self._views.items()}
            )
        if name in IN_PLACE:
            return lambda *args, **kwargs: self._set(name, *args, **kwargs)
        return super().__getattr__(name)

    def _set(self, name: str, *args: Any, **kwargs: Any) -> None:
        for view in self._views.values():
            getattr(view, name)(*args, **kwargs)

    @contextmanager
    def formatted_as(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Another format of each split within a ``with`` block."""
        with ExitStack() as stack:
            for view in self._views.values():
                stack.enter_context(view.formatted_as(*args, **kwargs))
            yield

    def unique(self, column: str) -> dict[str, list[Any]]:
        """The values of a kept column of each split."""
        return {split: view.unique(column) for split, view in self._views.items()}

    @property
    def report(self) -> Report:
        """What was done so far, over all splits."""
        if not self._views:
            raise RefusedError("there is no split to report on")
        return next(iter(self._views.values())).report

    def materialize(self, folder: str | os.PathLike[str], **options: Any) -> DatasetDict:
        """Writes parquet files of all splits into a folder, scans and loads them; the same call goes on after a kill.

        options, told in full in :mod:`anondata.loaders.hf.materialize`: ``on_withheld="drop"``, or ``"replace"`` or
        ``"raise"``; ``num_proc=1``; ``rows_per_file=None``; ``cache_dir=None``.
        """
        from anondata.loaders.hf.materialize import materialize

        return materialize(self._views, folder, **options)
