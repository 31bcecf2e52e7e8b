"""The formats that a view can hand rows out in, by the formatters of `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets.formatting import get_format_type_from_alias, get_formatter

from anondata.errors import RefusedError

FORMATS = (None, "numpy", "torch")


@dataclass(frozen=True)
class Form:
    """How rows are handed out. type: None is plain Python, "custom" a user's transform of anonymized batches.

    columns: that come out; None for all. others: hand out the rest of the columns, too, as plain Python.
    """

    type: str | None = None
    columns: tuple[str, ...] | None = None
    others: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    transform: Callable[[dict[str, Any]], Any] | None = None

    def needed(self, columns: Sequence[str]) -> list[str]:
        """Which of a view's columns have to be made."""
        chosen = self.columns is None or self.others
        return [name for name in columns if chosen or name in (self.columns or ())]

    def batch(self, columns: Mapping[str, list[Any]]) -> Any:
        """A batch as the consumer gets it."""
        formatted, others = self._parted(columns)
        if self.transform is not None:
            out = self.transform(formatted)
            return {**out, **others} if others else out
        return {**self._tensors(formatted), **others}

    def row(self, row: Mapping[str, Any]) -> Any:
        """A row as the consumer gets it."""
        if self.transform is not None:
            batch = self.batch({name: [value] for name, value in row.items()})
            return {name: value[0] for name, value in batch.items()}
        formatted, others = self._parted(row)
        return {**self._scalars(self._tensors(formatted)), **others}

    def _parted(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        inside = {n: v for n, v in values.items() if self.columns is None or n in self.columns}
        return inside, {n: v for n, v in values.items() if n not in inside}

    def _tensors(self, values: dict[str, Any]) -> dict[str, Any]:
        if self.type is None:
            return values
        if self.type == "numpy":
            values = {name: _as_text(value) for name, value in values.items()}
        out: dict[str, Any] = get_formatter(self.type, **self.options).recursive_tensorize(values)
        return out

    def _scalars(self, values: dict[str, Any]) -> dict[str, Any]:
        """numpy's format hands out single numbers as scalars, not as arrays without an axis."""
        if self.type != "numpy":
            return values
        return {n: v[()] if isinstance(v, np.ndarray) and v.ndim == 0 else v for n, v in values.items()}


def _as_text(value: Any) -> Any:
    """Strings as numpy's, which the formatter expects them to be already."""
    if isinstance(value, str) or (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
        return np.asarray(value)[()]
    return value


def form_of(
    type: str | None, columns: str | Sequence[str] | None, others: bool, known: Sequence[str], **options: Any
) -> Form:
    """A format by the arguments of ``with_format``.

    Raises:
        RefusedError: a format that would build tables of its own. KeyError: a column that the view does not have.
    """
    name = get_format_type_from_alias(type)
    if name not in FORMATS:
        raise RefusedError(
            f"the format {name!r} is not handed out by an anonymized view; expected None, 'numpy' or 'torch'. "
            "For others take view.materialize(folder), which returns a real dataset"
        )
    return Form(name, check_columns(columns, known), others, options)


def check_columns(columns: str | Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...] | None:
    """Names of columns as a tuple. Raises: KeyError."""
    if columns is None:
        return None
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    for name in names:
        if name not in known:
            raise KeyError(f"there is no column {name!r}; the view has {', '.join(known)}")
    return names
