"""Where the photos of known people come from: folders, datasets and tar shards become one stream in a stable order.

Nothing is copied on the way: a cache would keep originals where nobody looks for them.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anondata.errors import AnondataError, ArgumentError, MissingExtraError, UnreadableSourceError
from anondata.sources import Source, list_sources
from anondata.verifiers.gallery.labelled import list_photos

if TYPE_CHECKING:
    from anondata.verifiers.gallery.photos import Photo

Kind = Literal["folder", "dataset", "parquet", "shards", "matrix"]
Placed = tuple[str, "Photo"]
"""Where a photo lies, which may identify somebody and is never printed; and the photo."""

IMAGE_FIELDS = ("jpg", "jpeg", "png", "webp", "tif", "tiff", "gif", "bmp", "avif", "heic", "jp2")
MATRIX_SUFFIXES = (".npy", ".npz", ".safetensors")


@dataclass(frozen=True)
class Stream:
    """Photos that are read when they are asked for. version: changes when the files do.

    total: how many there are, where that is known without reading them.
    """

    open: Callable[[], Iterator[Placed]] = field(repr=False)
    version: str
    total: int | None = None


@dataclass(frozen=True)
class Columns:
    """Where identities and pictures are, by the options: names of columns or fields, or one person for all."""

    identity: str | None = None
    image: str | None = None
    person: str | None = None


def kind_of(given: Sequence[str]) -> Kind:
    """What the sources are. Raises ``ArgumentError`` for sources of several kinds."""
    kinds = [_kind(src) for src in given]
    if len(set(kinds)) > 1:
        raise ArgumentError("the sources are of several kinds; build from one, then `anondata gallery add` the rest")
    return kinds[0]


def open_stream(given: Sequence[str], columns: Columns, *, out: Path) -> Stream:
    """The photos of all sources, of whichever kind.

    Raises:
        ArgumentError: a source that is not there or says nobody's name, or an option that does not fit its kind.
        MissingExtraError: a kind that needs a package that is not installed.
        UnreadableSourceError, GalleryError: a source that cannot be read.
    """
    kind = kind_of(given)
    if columns.person is not None and kind != "folder":
        raise ArgumentError("--person goes with folders and files of photos only")
    if kind == "folder":
        return _folders(given, columns, out)
    for number, src in enumerate(given, 1):
        if "://" in src:
            raise ArgumentError(f"SRC {number} is a URL; datasets and shards are read from local paths, fetch them")
    if kind == "dataset":
        return _rows(given, [_saved(src, number) for number, src in enumerate(given, 1)], columns, _below(given))
    files = [file for number, src in enumerate(given, 1) for file in _files(src, number)]
    if kind == "parquet":
        return _rows(files, [_parquet(file) for file in files], columns, files)
    return Stream(lambda: _shards(files, columns), _version(files))


def _kind(src: str) -> Kind:
    name = src.lower()
    if name.endswith(MATRIX_SUFFIXES):
        return "matrix"
    if name.endswith(".parquet"):
        return "parquet"
    if name.endswith(".tar"):
        return "shards"
    saved = any((Path(src) / mark).is_file() for mark in ("state.json", "dataset_dict.json"))
    return "dataset" if saved else "folder"


@dataclass(frozen=True)
class _File:
    """A photo in a file: whose it is, what reads it, and what changes when it does."""

    place: str = field(repr=False)
    identity: str = field(repr=False)
    read: Callable[[], bytes] = field(repr=False)
    version: str


def _folders(given: Sequence[str], columns: Columns, out: Path) -> Stream:
    files: list[_File] = []
    for number, src in enumerate(given, 1):
        labelled = columns.person is None and os.path.isdir(src)
        files += _labelled(src, number, columns) if labelled else _plain(src, columns, out)
    if not any(file.identity for file in files):
        raise ArgumentError(
            "nothing says who is in the photos: put each person's into a folder named after them, or name them in a "
            "metadata.csv with the columns file_name and identity, or say --person NAME"
        )

    def photos() -> Iterator[Placed]:
        from anondata.verifiers.gallery.photos import Photo

        return ((file.place, Photo(file.identity, file.read)) for file in files)

    return Stream(photos, _digest(f"{f.place} {f.identity} {f.version}" for f in files), len(files))


def _labelled(src: str, number: int, columns: Columns) -> Iterator[_File]:
    """The photos of an imagefolder or a folder of folders; those without a label are counted at its end."""
    folder = list_photos(Path(src), identity=columns.identity or "identity", called=f"SRC {number}")
    for photo in folder.photos:
        yield _file(Source(photo.path.name, str(photo.path), number), photo.identity)
    yield from [_File("a photo without a label", "", bytes, "")] * folder.unlabelled


def _plain(src: str, columns: Columns, out: Path) -> Iterator[_File]:
    """Files, globs and URLs: of one person, or each person's in a folder below the first wildcard or the URL."""
    for source in list_sources([src], out=out).sources:
        folder, slash, _ = source.name.partition("/")
        yield _file(source, columns.person.strip() if columns.person else folder if slash else "")


def _file(source: Source, identity: str) -> _File:
    try:
        version = source.version() if source.fs is None else ""  # asking a server for each takes too long
    except OSError:
        version = ""  # counted as unreadable when its turn comes
    return _File(source.place, identity, source.read, version)


def _files(src: str, number: int) -> list[str]:
    """The local files of a path, a glob, or a brace expression like ``shard-{000..003}.tar``."""
    expanded = (
        _extra("braceexpand", "webdataset").braceexpand(src) if "{" in src and not os.path.exists(src) else [src]
    )
    files = [file for one in expanded for file in ([one] if os.path.exists(one) else sorted(glob.glob(one)) or [one])]
    missing = sum(not os.path.isfile(file) for file in files)
    if missing:
        raise ArgumentError(f"{missing} file(s) of SRC {number} are not there")
    return files


def _saved(src: str, number: int) -> Any:
    """A dataset that ``save_to_disk`` wrote."""
    if (Path(src) / "dataset_dict.json").is_file():
        raise ArgumentError(f"SRC {number} is a dataset of several splits; name the folder of one of them")
    try:
        return _extra("datasets", "hf").load_from_disk(src)
    except MissingExtraError:
        raise
    except Exception as error:  # the library raises what it likes; its text names the path
        raise UnreadableSourceError(f"SRC {number} cannot be read as a dataset: {type(error).__name__}") from error


def _parquet(file: str) -> Any:
    """Rows of a parquet file, streamed: a cache on disk would keep the originals."""
    return _extra("datasets", "hf").load_dataset(
        "parquet", data_files={"train": [file]}, split="train", streaming=True
    )


def _rows(places: Sequence[str], datasets: Sequence[Any], columns: Columns, files: Sequence[str]) -> Stream:
    def photos() -> Iterator[Placed]:
        from anondata.verifiers.gallery.photos import photos_of_dataset

        for place, dataset in zip(places, datasets, strict=True):
            rows = photos_of_dataset(dataset, image=columns.image, identity=columns.identity)
            yield from ((f"{place} row {i}", photo) for i, photo in enumerate(_readable(rows)))

    total = sum(len(d) for d in datasets) if all(hasattr(d, "__len__") for d in datasets) else None
    return Stream(photos, _version(files), total)


def _shards(files: Sequence[str], columns: Columns) -> Iterator[Placed]:
    """Samples of tar files, grouped by the webdataset library. Files are opened here: it would run a "pipe:" URL."""
    tar = _extra("webdataset.tariterators", "webdataset")

    def opened() -> Iterator[dict[str, Any]]:
        for file in files:
            with open(file, "rb") as stream:
                yield {"url": file, "stream": stream}

    for sample in _readable(tar.group_by_keys(tar.tar_file_expander(opened()))):
        yield f"{sample['__url__']} {sample['__key__']}", _photo_of(sample, columns)


def _photo_of(sample: Mapping[str, Any], columns: Columns) -> Photo:
    from anondata.verifiers.gallery.photos import Photo

    image = next(
        (sample[name] for name in ([columns.image] if columns.image else IMAGE_FIELDS) if name in sample), None
    )
    return Photo(_identity_of(sample, columns.identity), image)


def _identity_of(sample: Mapping[str, Any], identity: str | None) -> str:
    """From the field of that name, or from that entry of the sample's JSON."""
    from anondata.verifiers.gallery.photos import IDENTITY_COLUMNS, name_of

    if (identity or "cls") in sample:
        return name_of(sample[identity or "cls"])
    try:
        entries = json.loads(sample.get("json", b"{}"))
    except ValueError:
        return ""
    names = [identity] if identity else IDENTITY_COLUMNS
    found = [entries[name] for name in names if name in entries] if isinstance(entries, Mapping) else []
    return name_of(found[0]) if found else ""


def _readable(rows: Iterable[Any]) -> Iterator[Any]:
    """The same rows; what the libraries raise becomes an error that quotes nothing."""
    done = 0
    try:
        for row in rows:
            yield row
            done += 1
    except AnondataError:
        raise
    except Exception as error:
        raise UnreadableSourceError(
            f"the sources cannot be read beyond photo {done} of a part: {type(error).__name__}; repair that part, or "
            "leave it out"
        ) from error


def _extra(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"these sources need a package: pip install 'anondata[{extra}]'") from error


def _below(folders: Sequence[str]) -> list[str]:
    return sorted(str(file) for folder in folders for file in Path(folder).rglob("*") if file.is_file())


def _version(files: Sequence[str]) -> str:
    stats = [(file, os.stat(file)) for file in files]
    return _digest(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats)


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
