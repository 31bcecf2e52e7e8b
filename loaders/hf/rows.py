"""Rows of a dataset as the engine takes them, and what it released as consumers take it.

Files are read as `datasets` reads them: bytes that a table holds, or a path, also remote (``hf://``, ``s3://``,
``zip://…::…``). Of a kept file only its bytes pass, never its path.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, DownloadConfig, Features, Image, config
from datasets.utils.file_utils import is_remote_url, xopen
from datasets.utils.py_utils import string_to_dict
from PIL import Image as Pictures

from anondata.content.base import opened
from anondata.content.codec import decode, to_pil
from anondata.content.given import ClassNumber, Told
from anondata.errors import FieldTypeError, UndeclaredFieldError, UndecodableError, UnreadableSourceError
from anondata.loaders._flow import Flow, Row
from anondata.loaders._retry import with_retries
from anondata.loaders.hf.layout import NOTE, Layout, Leaf, is_file, item_of
from anondata.records import Withheld
from anondata.samples import DROP, KEEP, Sample, is_masks, is_regions

_NUMBERS = (int, float, decimal.Decimal, np.number, np.bool_)
_TIMES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)
_FILE = {"bytes", "path"}


class _UnreadableError(Exception):
    """A file that cannot be read. Its text is a type's name alone: what raised it would quote the path."""


@dataclass(frozen=True)
class RowReader:
    """Takes rows apart for the engine, and puts together what it released.

    pictures: hand out PIL images where the dataset does, so that a JPEG does not become one twice; otherwise all
    is encoded bytes, as a table stores it. tokens: of private repositories on the Hub, by their names.
    """

    flow: Flow
    layout: Layout
    pictures: bool
    tokens: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def sample(self, row: Mapping[str, Any]) -> Row:
        """A sample of the declared values; its key comes from the encoded bytes, however pixels are handed on.

        Raises:
            UndeclaredFieldError: a column that was not declared, as a stream may have.
        """
        self.flow.schema.check(name for name in row if name not in self.layout.source and not self._is_dropped(name))
        leaves = self.layout.by_name()
        raw: dict[str, Any] = {}
        try:
            raw = self.layout.take_apart(row)
            values = {name: self._read(leaves[name], value) for name, value in raw.items()}
        except FieldTypeError as error:
            return Withheld(self._key_of(row), "wrong_type", str(error))
        except _UnreadableError as error:
            detail = f"a file could not be read ({error}); check that it is there and may be read"
            return Withheld(self._key_of(raw), "unreadable", detail)
        key = self.flow.key(values)
        if self.pictures:
            shown = (name for name, leaf in leaves.items() if leaf.kind == "image" and _decodes(leaf))
            values |= {name: each(values[name], _picture) for name in shown if name in values}
        named = (leaf for leaf in leaves.values() if is_regions(leaf.kind) and not is_masks(leaf.kind))
        values |= {x.name: _with_names(values[x.name], x.feature) for x in named if x.name in values}
        return Sample(key, values)

    def kept(self, row: Mapping[str, Any], *, files: bool) -> dict[str, Any]:
        """The kept values of some columns of a row, by their dotted names. files: those that are files, too.

        Raises:
            UnreadableSourceError: a kept file cannot be read.
        """
        leaves = self.layout.by_name()
        chosen = {
            name: value
            for name, value in self.layout.take_apart(row).items()
            if leaves[name].kind == KEEP and (files or not is_stored_file(leaves[name]))
        }
        try:
            return {name: self._read(leaves[name], value) for name, value in chosen.items()}
        except _UnreadableError as error:
            detail = f"a kept file could not be read ({error}); check that it is there and may be read"
        raise UnreadableSourceError(detail)

    def _is_dropped(self, column: str) -> bool:
        return column in self.layout.dropped or self.flow.schema.fields.get(column) == DROP

    def _key_of(self, values: Mapping[str, Any]) -> str:
        return self.flow.key(dict.fromkeys(self.flow.schema.content(), repr(values).encode()))

    def _read(self, leaf: Leaf, value: Any) -> Any:
        if leaf.kind != KEEP:
            return each(value, self._opened)
        if leaf.feature is None:
            return each(value, lambda item: self._kept(leaf.name, item))
        return each(value, self._without_path) if is_stored_file(leaf) else value

    def _opened(self, value: Any) -> Any:
        """The bytes of a file, or a value that is none as it is."""
        if not isinstance(value, Mapping) or not _is_file(value):
            return value
        if value.get("bytes") is not None or value.get("path") is None:
            return value.get("bytes")
        try:
            return read_file(value["path"], self.tokens)
        except Exception as error:  # noqa: BLE001 - storages raise what they like; the sample is withheld
            reason = type(error).__name__
        raise _UnreadableError(reason)  # outside of the handler: not even the context leads to the path

    def _without_path(self, value: Any) -> Any:
        return None if value is None else {"bytes": self._opened(value), "path": None}

    def _kept(self, name: str, value: Any) -> Any:
        """A kept value of unknown type, if it is one whose every part may pass."""
        if isinstance(value, Pictures.Image):
            return value.copy()  # which forgets the file's name
        if isinstance(value, Mapping) and _is_file(value) and "bytes" in value:
            return self._without_path(value)
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            raise UndeclaredFieldError(
                f"field {name!r} is kept, but holds a numpy array of Python objects, which could be anything; make "
                "it one of numbers or a list, or tell its type by ds.cast(datasets.Features(...))"
            )
        return value if isinstance(value, bytes | np.ndarray | torch.Tensor) else _plain(name, value)

    def row(self, values: Mapping[str, Any], columns: Collection[str] | None = None) -> dict[str, Any]:
        """What a consumer gets: by the columns' types, PIL images or file structs without a path."""
        names = self.layout.columns if columns is None else [name for name in columns if name != NOTE]
        leaves = [leaf for column in names for leaf in self.layout.leaves(column)]
        shown = {leaf.name: self._shown(leaf, values[leaf.name]) for leaf in leaves if leaf.name in values}
        return self.layout.put_together(shown, names)

    def _shown(self, leaf: Leaf, value: Any) -> Any:
        item = item_of(leaf.feature)
        if leaf.kind == KEEP:
            if not self.pictures or not hasattr(item, "decode_example") or not getattr(item, "decode", True):
                return value
            return Features({leaf.name: leaf.feature}).decode_example({leaf.name: value})[leaf.name]
        if not isinstance(item, Image):
            return value
        return each(value, lambda v: _as_pil(v, item.mode) if self.pictures and item.decode else _as_file(v))


def _with_names(value: Any, feature: Any) -> Any:
    """A value of regions, whose categories are read by the names of their classes, too, and come out as they are."""
    item = item_of(feature)
    if not isinstance(item, Mapping):
        return value
    classes = {name: item_of(part) for name, part in item.items() if isinstance(item_of(part), ClassLabel)}
    if not classes:
        return value
    return each(value, lambda one: Told(one, _named(one, classes)) if isinstance(one, Mapping) else one)


def _named(one: Mapping[str, Any], classes: Mapping[str, ClassLabel]) -> Any:
    def name(number: Any, labels: ClassLabel) -> Any:
        known = type(number) is int and 0 <= number < labels.num_classes
        return ClassNumber(number, labels.int2str(number)) if known else number

    own = {n: each(part, partial(name, labels=classes[n])) for n, part in one.items() if n in classes}
    return {**one, **own}


def each(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value, or all of a list of them, also nested, changed."""
    if type(value) in (list, tuple):
        return [each(item, change) for item in value]
    return change(value)


def read_file(path: str, tokens: Mapping[str, Any]) -> bytes:
    """The bytes of a file or URL, with the Hub's token where there is one; what is remote is tried again."""
    source = path.split("::")[-1]
    on_hub = source.startswith(config.HF_ENDPOINT)
    parts = string_to_dict(source, config.HUB_DATASETS_URL if on_hub else config.HUB_DATASETS_HFFS_URL)
    token = tokens.get(parts["repo_id"]) if parts else None

    def read() -> bytes:
        with xopen(path, "rb", download_config=DownloadConfig(token=token)) as file:
            data: bytes = file.read()
        return data

    return with_retries(read) if is_remote_url(source) else read()


def _is_file(value: Mapping[str, Any]) -> bool:
    return bool(value) and set(value) <= _FILE


def _plain(name: str, value: Any) -> Any:
    """A value in which no picture can be, also nested."""
    if isinstance(value, Mapping) and not _is_file(value):
        return {key: _plain(name, item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [_plain(name, item) for item in value]
    if value is None or isinstance(value, (str, *_NUMBERS, *_TIMES)):
        return value
    raise UndeclaredFieldError(
        f"field {name!r} is kept, but holds {type(value).__name__} in a struct whose types are not known; tell them "
        "by ds.cast(datasets.Features(...)), and declare the struct's members one by one"
    )


def is_stored_file(leaf: Leaf) -> bool:
    return leaf.feature is not None and is_file(item_of(leaf.feature))


def _decodes(leaf: Leaf) -> bool:
    item = item_of(leaf.feature)
    return isinstance(item, Image) and item.decode


def _picture(value: Any) -> Any:
    """Encoded bytes as a PIL image; several pictures in one file, and what cannot be decoded, go to the engine."""
    if not isinstance(value, bytes) or opened(value) is not None:
        return value
    try:
        return to_pil(decode(value))
    except UndecodableError:
        return value


def _as_pil(value: Any, mode: str | None) -> Any:
    several = opened(value) if isinstance(value, bytes) else None
    image = _picture(value) if several is None else several
    return image.convert(mode) if mode and mode != image.mode else image


def _as_file(value: Any) -> Any:
    return {"bytes": value, "path": None} if isinstance(value, bytes) else value
