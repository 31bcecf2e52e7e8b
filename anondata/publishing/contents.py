"""What a finished output holds, for its card: splits, columns, files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from anondata.cards.facts import Feature, File, Split
from anondata.errors import CardError
from anondata.loaders.files.output import INSIGHTS

if TYPE_CHECKING:
    from anondata.manifest import Manifest

MEDIA_TYPES = {".parquet": "application/x-parquet", ".tar": "application/x-tar"}


@dataclass(frozen=True)
class Contents:
    """As :class:`anondata.cards.facts.Facts` has them. files: none where their names could be somebody's."""

    splits: tuple[Split, ...]
    features: tuple[Feature, ...]
    files: tuple[File, ...]


def contents_of(folder: Path, manifest: Manifest, *, opened: Callable[[str], Any] | None = None) -> Contents:
    """The contents of an output. Of parquet files the footers are read, of others nothing.

    opened: gives the files of a place that is no folder by their names, as paths or files to be read.

    Raises: CardError where a file cannot be read, or where there is none.
    """
    if not manifest.files:
        raise CardError("the card needs at least one file: the run released nothing")
    if manifest.kind == "images":
        return _images(manifest)
    files = tuple(
        File(name, one.sha256, one.size, MEDIA_TYPES[PurePosixPath(name).suffix])
        for name, one in sorted(manifest.files.items())
        if PurePosixPath(name).suffix in MEDIA_TYPES
    )
    return _shards(manifest, files) if manifest.kind == "shards" else _parquet(opened or folder.joinpath, files)


def _images(manifest: Manifest) -> Contents:
    """A folder of pictures. Neither names nor folders of its files are told: they may be people's."""
    pictures = {name: one for name, one in manifest.files.items() if name != INSIGHTS}
    suffixes = sorted({PurePosixPath(name).suffix for name in pictures})
    globs = tuple(f"**/*{suffix}" for suffix in suffixes)  # leaves hidden folders out
    split = Split("train", len(pictures), sum(one.size for one in pictures.values()), globs)
    return Contents((split,), (Feature("image", "image"),), ())


def _shards(manifest: Manifest, files: tuple[File, ...]) -> Contents:
    """Shards for WebDataset. Their columns are told by their members."""
    rows = manifest.report.released + int(manifest.report.counts.get("instead", {}).get("replaced", 0))
    split = Split("train", rows, sum(file.size for file in files), ("*.tar",))
    return Contents((split,), (), files)


def _parquet(opened: Callable[[str], Any], files: tuple[File, ...]) -> Contents:
    rows, sizes = Counter[str](), Counter[str]()
    features: Mapping[str, Feature] = {}
    for file in files:
        split = PurePosixPath(file.path).name.split("-")[0]
        number, features = footer(opened(file.path))
        rows[split] += number
        sizes[split] += file.size
    splits = tuple(Split(name, rows[name], sizes[name]) for name in rows)
    return Contents(splits, tuple(features.values()), files)


def footer(path: Any) -> tuple[int, dict[str, Feature]]:
    """Rows and columns of a parquet file that `datasets` wrote. Raises: CardError."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features

    try:
        found = pq.read_metadata(path)
        columns = Features.from_arrow_schema(found.schema.to_arrow_schema())
    except (OSError, ValueError, pa.ArrowException) as error:
        raise CardError(
            f"a parquet file cannot be read: {type(error).__name__}; `anondata verify` says more"
        ) from error
    return found.num_rows, {row["name"]: _feature(row) for row in columns._to_yaml_list()}


def _feature(row: dict[str, object]) -> Feature:
    return Feature(str(row["name"]), {key: value for key, value in row.items() if key != "name"})
