"""The pieces of parquet and Arrow files: every value of every column, however nested, and what lies beside them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from anondata.loaders.leaks.piece import Piece, leak

ROWS = 64  # held together; a column's short values among them are looked at together
_SHORT = 64  # bytes
_TEXT = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")

Rows: TypeAlias = NDArray[np.int64]
"""Of each value of an array, the row that it is in."""


def parquet(path: Path) -> Iterator[Piece]:
    """The pieces of a parquet file. Dictionaries and what no column owns are raw bytes: footer, indexes, and gaps."""
    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    yield from _schema(file.schema_arrow)
    yield from _words(file.metadata.metadata)
    start = 0
    for batch in file.iter_batches(batch_size=ROWS):
        yield from _batch(batch, start)
        start += len(batch)
    yield from _unowned(path, file.metadata)


def arrow(path: Path) -> Iterator[Piece]:
    """The pieces of an Arrow stream or file."""
    with pa.memory_map(str(path)) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        if is_file:
            reader: Any = pa.ipc.open_file(source)
            batches: Iterator[Any] = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            reader = batches = pa.ipc.open_stream(source)
        yield from _schema(reader.schema)
        start = 0
        for batch in batches:
            for at in range(0, len(batch), ROWS):
                yield from _batch(batch.slice(at, ROWS), start + at)
            start += len(batch)


def _schema(schema: Any) -> Iterator[Piece]:
    yield from _words(schema.metadata)
    yield Piece("the names and types of columns", "value", str(schema).encode())
    for field in schema:
        yield from _words(field.metadata)


def _words(metadata: Mapping[bytes, bytes] | None) -> Iterator[Piece]:
    for name, value in (metadata or {}).items():
        yield Piece("the file's metadata", "value", name)
        yield Piece("the file's metadata", "value", value)


def _unowned(path: Path, metadata: Any) -> Iterator[Piece]:
    owned, dictionaries = [], []
    for group, column in itertools.product(range(metadata.num_row_groups), range(metadata.num_columns)):
        chunk = metadata.row_group(group).column(column)
        offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
        start = min(offset for offset in offsets if offset is not None)
        owned.append((start, start + chunk.total_compressed_size))
        if chunk.compression == "UNCOMPRESSED" and chunk.has_dictionary_page:
            dictionaries.append((start, chunk.data_page_offset))
    with open(path, "rb") as file:
        for start, stop in dictionaries:  # may hold values that no row uses
            file.seek(start)
            yield Piece("the dictionary of a column", "raw", file.read(stop - start))
        at, size = 0, path.stat().st_size
        for start, stop in [*sorted(owned), (size, size)]:
            file.seek(at)
            if start > at:
                yield Piece("between the columns", "raw", file.read(start - at))
            at = max(at, stop)


def _batch(batch: Any, start: int) -> Iterator[Piece]:
    rows = np.arange(start, start + len(batch))
    for column in batch.columns:
        yield from _values(column, rows)


def _values(array: Any, rows: Rows) -> Iterator[Piece]:
    """The pieces of an array of any type.

    Raises:
        LeakError: a picture that names a file, or a type that nobody taught this to look into.
    """
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        yield from _values(array.storage, rows)
    elif pa.types.is_dictionary(kind):
        yield from _values(array.dictionary_decode(), rows)
    elif pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}:
        yield from _files(array, rows)
    elif pa.types.is_struct(kind):
        for i in range(kind.num_fields):
            yield from _values(array.field(i), rows)
    elif pa.types.is_map(kind):
        parents = rows[np.repeat(np.arange(len(array)), np.diff(array.offsets.to_numpy()))]
        for part in (array.keys, array.items):
            yield from _values(part, parents if len(part) == len(parents) else np.resize(rows[:1], len(part)))
    elif str(kind).startswith(("list", "large_list", "fixed_size_list")):
        yield from _values(array.flatten(), rows[pc.list_parent_indices(array).to_numpy()])
    elif str(kind) in _TEXT or pa.types.is_fixed_size_binary(kind):
        yield from _texts(array, rows)
    elif pa.types.is_integer(kind):
        yield from _numbers(array, rows)
    elif pa.types.is_primitive(kind) and kind.bit_width in (16, 32, 64):  # floats and times may stand for bytes, too
        yield from _numbers(array.view(f"int{kind.bit_width}"), rows)
    elif not (pa.types.is_primitive(kind) or pa.types.is_null(kind)):
        raise leak("a column", "is of a type that is not looked into")


def _files(array: Any, rows: Rows) -> Iterator[Piece]:
    """Images as `datasets` stores them. A path names a file of the source, or has it read and sent along."""
    data, paths = array.field("bytes").to_pylist(), array.field("path").to_pylist()
    for row, value, path in zip(rows.tolist(), data, paths, strict=True):
        if path is not None:
            raise leak(f"row {row}", "holds a file with a path; expected its bytes and no path")
        if value is not None:
            yield Piece(f"row {row}", "picture", value)


def _texts(array: Any, rows: Rows) -> Iterator[Piece]:
    short = []
    for row, value in zip(rows.tolist(), array.to_pylist(), strict=True):
        data = value.encode() if isinstance(value, str) else value
        if data is None:
            continue
        if len(data) >= _SHORT:
            yield Piece(f"row {row}", "value", data)
        else:
            short.append(data)
    if short:
        yield Piece(_span(rows), "value", b"".join(short))


def _numbers(array: Any, rows: Rows) -> Iterator[Piece]:
    """Numbers that may be bytes: pixels, or a file as a list, of one byte or more in each number."""
    numbers = array.drop_null().to_numpy(zero_copy_only=False)
    if not len(numbers):
        return
    low, high = int(numbers.min()), int(numbers.max())
    width = next(width for width in (1, 2, 4, 8) if low >= -(1 << 8 * width - 1) and high < 1 << 8 * width)
    data = numbers.astype(f"<u{width}")
    if data.nbytes < _SHORT:
        return
    yield Piece(_span(rows), "value", data.tobytes())
    if len(data) == len(rows):
        for start, stop in itertools.pairwise([0, *(np.flatnonzero(np.diff(rows)) + 1).tolist(), len(rows)]):
            if (stop - start) * width >= _SHORT and start:
                yield Piece(f"row {rows[start]}", "value", data[start:stop].tobytes())


def _span(rows: Rows) -> str:
    return f"one of the rows {rows[0]} to {rows[-1]}"
