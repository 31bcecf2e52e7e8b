"""The pictures in parquet files, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anondata.errors import PublishError

ROWS = 16  # in memory at once


def pictures_in(path: Path, fields: Mapping[str, str]) -> Iterator[bytes]:
    """Encoded pictures of a parquet file in the order of its rows: all of columns that hold images, declared or not.

    fields: the declared schema; fields of a content type may hold pictures as plain bytes.

    Raises: PublishError for what is no parquet file, or a picture that is only a path.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features

    try:
        with pq.ParquetFile(path) as file:
            features = Features.from_arrow_schema(file.schema_arrow)
            declared = {name.partition(".")[0] for name, kind in fields.items() if kind == "image"} | {
                name for name, kind in fields.items() if kind == "image"
            }
            names = [name for name, feature in features.items() if name in declared or has_images(feature)]
            for batch in file.iter_batches(batch_size=ROWS, columns=names):
                for row in batch.to_pylist():
                    for name in names:
                        yield from _leaves(row[name])
    except (OSError, ValueError, pa.ArrowException) as error:
        raise PublishError(f"a parquet file cannot be read: {type(error).__name__}") from error


def has_images(feature: Any) -> bool:
    """Whether a feature of `datasets` is an image, or holds one at any depth."""
    from datasets import Image

    if isinstance(feature, Image):
        return True
    inner = getattr(feature, "feature", None)  # of lists
    if inner is not None:
        return has_images(inner)
    parts = feature.values() if isinstance(feature, Mapping) else feature if isinstance(feature, list) else ()
    return any(map(has_images, parts))


def _leaves(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, Mapping):
        if set(value) == {"bytes", "path"} and value["path"] is not None:
            raise PublishError("a row holds the path of a picture, which could tell who is in it")
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part)
