"""Samples of torch datasets (tuples, dicts, namedtuples, bare images) taken apart into fields, and put together."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from torch import Tensor

from anondata.errors import FieldTypeError, PolicyError, UndeclaredFieldError
from anondata.loaders._flow import Settled
from anondata.samples import DROP, KEEP, Schema, declare

Name: TypeAlias = int | str
"""A field of a sample: a position, or a key."""
Names: TypeAlias = Iterable[Name] | Name

NOTE = "anondata"
"""The key of a dict sample that says whether the sample was released or replaced."""

FORM = "\0form"
"""The field in which a row carries what its sample was, so that one that stands in is put together as what it was."""

_DECLARE = "declare it in fields=, keep= or drop="


@dataclass(frozen=True)
class Form:
    """What a sample was. kind: its class, or None for a bare image. names: its fields in their order."""

    kind: type | None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """How the fields of samples are declared.

    schema: by the names of fields; a position's is its digits. positions: which names are positions.
    """

    schema: Schema
    positions: frozenset[str]

    def row(self, sample: Any) -> dict[str, Any]:
        """The fields of a sample without the dropped ones, and its form.

        Raises:
            UndeclaredFieldError: the sample has a field that nobody declared.
            FieldTypeError: the sample is of another kind, or shorter, than what was declared.
        """
        if isinstance(sample, Mapping):
            form, values = Form(dict, self._keys(sample)), list(sample.values())
        elif isinstance(sample, tuple | list):
            form, values = self._sequence(sample), list(sample)
        elif isinstance(sample, Tensor | np.ndarray | Image.Image | bytes | bytearray | memoryview):
            form, values = Form(None, self._bare(sample)), [sample]
        else:
            raise FieldTypeError(
                f"a sample is a {type(sample).__name__}; expected a tuple, a dict, a namedtuple or an image: "
                "change what the dataset returns"
            )
        fields = {n: v for n, v in zip(form.names, values, strict=True) if self.schema.fields[n] != DROP}
        return {**fields, FORM: form}

    def sample(self, settled: Settled, *, note: bool) -> Any:
        """What the consumer gets. note: whether a dict says in ``"anondata"`` what became of the sample."""
        fields = dict(settled.fields or {})
        form: Form = fields.pop(FORM)
        kind: Any = form.kind
        if kind is None:
            return next(iter(fields.values()))
        if issubclass(kind, dict):
            return {**fields, NOTE: settled.note} if note else fields
        values = [fields[name] for name in form.names if name in fields]
        if hasattr(kind, "_make"):  # a namedtuple cannot go without a field
            return kind._make(values) if len(values) == len(form.names) else tuple(values)
        return kind(values)

    def kept(self, row: Mapping[str, Any]) -> dict[Name, Any]:
        """The kept fields of a row, by the names that the user wrote."""
        return {self.written(n): row[n] for n in self.schema.kept() if n in row and n != FORM}

    def written(self, name: str) -> Name:
        return int(name) if name in self.positions else name

    def _keys(self, sample: Mapping[Any, Any]) -> tuple[str, ...]:
        if self.positions:
            raise FieldTypeError("a sample is a dict, but positions are declared; declare its fields by key")
        if not all(isinstance(key, str) for key in sample):
            raise FieldTypeError("a sample is a dict with keys that are not strings; expected names of fields")
        self.schema.check(sample)
        return tuple(sample)

    def _sequence(self, sample: tuple[Any, ...] | list[Any]) -> Form:
        known = getattr(sample, "_fields", None)
        kind = type(sample) if known else list if isinstance(sample, list) else tuple
        form = Form(kind, tuple(self._names(len(sample), known or ())))
        for name, what in self.schema.fields.items():
            if name not in form.names and what != DROP and name != FORM:
                by = f"position {name}" if name in self.positions else f"field {name!r}"
                raise FieldTypeError(
                    f"a sample is a {type(sample).__name__} of {len(sample)} values without {by}, which is declared"
                )
        return form

    def _names(self, count: int, known: tuple[str, ...]) -> Iterator[str]:
        for i in range(count):
            if str(i) in self.positions:
                yield str(i)
            elif known and known[i] in self.schema.fields:
                yield known[i]
            else:
                what = f"field {known[i]!r}" if known else f"position {i}"
                raise UndeclaredFieldError(f"{what} of a sample is not declared; {_DECLARE}")

    def _bare(self, sample: Any) -> tuple[str]:
        if set(self.schema.fields) - {FORM} != {"0"}:
            raise FieldTypeError(
                f"a sample is a bare {type(sample).__name__}, but other fields than position 0 are declared; "
                "expected fields={0: 'image'} alone"
            )
        return ("0",)


def layout_of(fields: Mapping[Any, str], keep: Names = (), drop: Names = ()) -> Layout:
    """How samples are declared, by position or key.

    Raises:
        PolicyError: a field that is declared twice, or is neither a position nor a key, or nothing that is content.
    """
    written = [*fields, *_each(keep), *_each(drop)]
    schema = declare({_name(n): kind for n, kind in fields.items()}, map(_name, _each(keep)), map(_name, _each(drop)))
    schema.regions()
    if schema.fields.get(NOTE, DROP) != DROP:
        raise PolicyError(f"{NOTE!r} is the field that says what became of a sample; drop yours, or rename it")
    positions = frozenset(_name(n) for n in written if not isinstance(n, str))
    return Layout(Schema({**schema.fields, FORM: KEEP}), positions)


def _each(names: Names) -> list[Name]:
    return [names] if isinstance(names, str | int) else list(names)


def _name(written: Any) -> str:
    if isinstance(written, str) and not written.isdecimal():
        return written
    if isinstance(written, str | bool) or not hasattr(written, "__index__") or operator.index(written) < 0:
        raise PolicyError(
            f"a field is declared by a {type(written).__name__} that is neither a position, which is a number "
            "from 0, nor a key, which is a string that is no number"
        )
    return str(operator.index(written))
