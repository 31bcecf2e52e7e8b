"""From an output to the parquet files of a publication: embedded pictures, no file name, no key."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from anondata.errors import PublishError
from anondata.loaders.files.output import INSIGHTS

if TYPE_CHECKING:
    from datasets import Features

    from anondata.manifest import FileDigest, Manifest

_RENAMED = re.compile("[0-9a-f]{32}")  # a sample's key as `--rename-keys` writes it
FILE_BYTES = 256 << 20
"""About how large a parquet file is."""
GROUP_BYTES = 16 << 20  # of a row group: what a reader must hold, and what the Hub's viewer may read
LABEL = "label"
NUMBERS = ("cls", "cls2", "index", "inx", "id")  # suffixes that WebDataset decodes as whole numbers

Show = Callable[[int], None]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Options:
    """rows_per_file: None makes files of about 256 MiB. webdataset: tars are put beside the parquet files.

    labels: the folder that each picture lies in becomes its label, as an imagefolder has it.
    """

    rows_per_file: int | None = None
    webdataset: bool = False
    labels: bool = False


def write_rows(folder: Path, manifest: Manifest, out: Path, options: Options, show: Show) -> Counter[str] | None:
    """Writes ``out/data/*.parquet``; returns how often the picture of each sha256 must be there, None if unknown.

    Raises: PublishError for what was changed while it was read, or cannot be a table.
    """
    (out / "data").mkdir()
    if manifest.kind == "parquet":
        _copy(folder, manifest, sorted(manifest.files), out, show)
        return None
    if manifest.kind == "shards":
        if options.webdataset:
            _check_keys(folder, manifest)
            _copy(folder, manifest, sorted(manifest.files), out / "webdataset", show)
        return _shards(folder, manifest, out, options, show)
    return _images(folder, manifest, out, options, show)


# --- folders of pictures ------------------------------------------------------------------------------------------


def _images(folder: Path, manifest: Manifest, out: Path, options: Options, show: Show) -> Counter[str]:
    """Rows by the digest of the picture: neither their order nor a name tells where one comes from."""
    from datasets import ClassLabel, Features, Image, Value

    told = _insights(folder, manifest) if INSIGHTS in manifest.files else None
    order = sorted((one.sha256, name) for name, one in manifest.files.items() if name != INSIGHTS)
    labels = _labels([name for _, name in order]) if options.labels else {}
    classes = ClassLabel(names=sorted(set(labels.values()))) if labels else None
    features = Features(
        {
            "image": Image(),
            **({LABEL: classes} if classes else {}),
            **({"insights": Value("string")} if told is not None else {}),
        }
    )

    def row(name: str) -> Row:
        picture = {"bytes": _unchanged(folder / name, manifest.files[name]), "path": None}
        label = {LABEL: classes.str2int(labels[name])} if classes else {}
        return {"image": picture, **label, **({"insights": told.get(name)} if told is not None else {})}

    sizes = [manifest.files[name].size for _, name in order]
    _write((row(name) for _, name in order), sizes, features, out / "data", options, show)
    return Counter(sha256 for sha256, _ in order)


def _labels(names: Iterable[str]) -> dict[str, str]:
    """The folder that each picture lies in, by the picture's name. Raises: PublishError for one that is in none."""
    found = {name: PurePosixPath(name).parent.name for name in names}
    if not all(found.values()):
        raise PublishError(
            "not every picture of the output lies in a folder that could be its label; anonymize a folder of "
            "folders, one for each class, and without --rename"
        )
    return found


def _insights(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Insights by the name of a picture."""
    data = _unchanged(folder / INSIGHTS, manifest.files[INSIGHTS])
    try:
        lines = [json.loads(line) for line in data.splitlines()]
        told = {str(line["file_name"]): str(line["insights"]) for line in lines}
    except (ValueError, KeyError, TypeError) as error:
        raise PublishError("the insights of the output cannot be read; run the same command again") from error
    if set(told) - set(manifest.files):
        raise PublishError("the insights of the output are about pictures that are not there; run the command again")
    return told


def _unchanged(path: Path, wanted: FileDigest) -> bytes:
    """A file's bytes, if they still are what was checked."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PublishError(f"the output cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != wanted.sha256:
        raise PublishError("the output was changed while it was published; nothing was")
    return data


# --- parquet ------------------------------------------------------------------------------------------------------


def _write(
    rows: Iterable[Row], sizes: Sequence[int], features: Features, folder: Path, options: Options, show: Show
) -> None:
    """Writes rows of known sizes in bytes into files and row groups of about the right size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, left, done = features.arrow_schema, iter(rows), 0
    files = list(_cut(sizes, FILE_BYTES, options.rows_per_file))
    for number, part in enumerate(files):
        name = f"train-{number:05d}-of-{len(files):05d}.parquet"
        with pq.ParquetWriter(folder / name, schema) as writer:
            for group in _cut(part, GROUP_BYTES, None):
                table = pa.Table.from_pylist([next(left) for _ in group], schema=schema)
                writer.write_table(table, row_group_size=len(group))
                done += len(group)
                show(done)


def _cut(sizes: Sequence[int], most: int, rows: int | None) -> Iterator[list[int]]:
    """Cuts a list of sizes into runs of at most so many bytes (one may be larger) and rows."""
    run, total = list[int](), 0
    for size in sizes:
        if run and (len(run) == rows or (rows is None and total + size > most)):
            yield run
            run, total = [], 0
        run.append(size)
        total += size
    if run:
        yield run


def _copy(folder: Path, manifest: Manifest, names: Iterable[str], out: Path, show: Show) -> None:
    from anondata.manifest import digest_of

    for done, name in enumerate(names, 1):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, out / name)
        if digest_of(out / name) != manifest.files[name]:
            raise PublishError("the output was changed while it was published; nothing was")
        show(done)


# --- shards -------------------------------------------------------------------------------------------------------


@dataclass
class _Column:
    """What is known of a field after a look at all of its values. pictures: it is of a content type."""

    pictures: bool
    text: bool = True
    number: bool = True

    def feature(self) -> Any:
        from datasets import Image, Value

        return Image() if self.pictures else Value("int64" if self.number else "string" if self.text else "binary")

    def value(self, data: bytes | None) -> Any:
        if data is None:
            return None
        if self.pictures:
            return {"bytes": data, "path": None}
        return int(data) if self.number else data.decode() if self.text else data


def _shards(folder: Path, manifest: Manifest, out: Path, options: Options, show: Show) -> Counter[str]:
    """Two passes: what the columns are, then the rows."""
    from datasets import Features

    names = sorted(manifest.files)
    sizes, columns, single = _survey(folder, names, manifest.fields)
    kept = sorted(name for name, column in columns.items() if not column.pictures)
    images = ["image"] if single else sorted(name for name, column in columns.items() if column.pictures)
    features = Features({n: (columns[n] if n in columns else _Column(True)).feature() for n in (*images, *kept)})
    found: Counter[str] = Counter()

    def rows() -> Iterator[Row]:
        for name in names:
            for sample in _samples(folder / name):
                pictures = {n: data for n, data in sample.items() if columns[n].pictures}
                found.update(hashlib.sha256(data).hexdigest() for data in pictures.values())
                if single:
                    pictures = {"image": next(iter(pictures.values()))}
                told = {n: _Column(True).value(pictures.get(n)) for n in images}
                yield told | {n: columns[n].value(sample.get(n)) for n in kept}

    _write(rows(), sizes, features, out / "data", options, show)
    _still(folder, manifest)
    return found


def _survey(
    folder: Path, names: Iterable[str], fields: Mapping[str, str]
) -> tuple[list[int], dict[str, _Column], bool]:
    """Sizes of all samples, what their fields are, and whether each has one picture."""
    sizes: list[int] = []
    columns: dict[str, _Column] = {}
    single = True
    for name in names:
        for sample in _samples(folder / name):
            sizes.append(sum(map(len, sample.values())))
            for field, data in sample.items():
                column = columns.setdefault(
                    field, _Column(_is_picture(field, fields), number=_last(field) in NUMBERS)
                )
                if not column.pictures:
                    _look(column, data)
            single &= sum(columns[field].pictures for field in sample) == 1
    return sizes, columns, single and "image" not in {n for n, c in columns.items() if not c.pictures}


def _is_picture(field: str, fields: Mapping[str, str]) -> bool:
    """A field may have been renamed to the suffix of the format that its picture was written in."""
    declared = fields.get(field)
    if declared is not None:
        return declared == "image"
    before = field.rpartition(".")[0]
    return any(kind == "image" and name.rpartition(".")[0] == before for name, kind in fields.items())


def _last(field: str) -> str:
    return field.rpartition(".")[2]


def _look(column: _Column, data: bytes) -> None:
    """Narrows down what a field is by one more of its values."""
    try:
        text = data.decode()
        column.number = column.number and str(int(text)) == text.strip() and abs(int(text)) < 1 << 63
    except UnicodeDecodeError:
        column.text = column.number = False
    except ValueError:
        column.number = False


def _samples(path: Path) -> Iterator[dict[str, bytes]]:
    """Samples of a shard, as fields without their key: it may be a name.

    Raises: ShardsError, UnreadableSourceError.
    """
    from fsspec.implementations.local import LocalFileSystem

    from anondata.loaders.shards.read import Left, Stream, samples

    with closing(Stream(LocalFileSystem(), str(path))) as stream:
        for sample in samples(stream, Left()):
            yield {name: value for name, value in sample.items() if name != "__key__"}


def shard_members(path: Path, fields: Mapping[str, str]) -> Iterator[tuple[str, bytes, bool]]:
    """All fields of a shard's samples, and whether each was declared to hold a picture."""
    for sample in _samples(path):
        yield from ((name, data, _is_picture(name, fields)) for name, data in sample.items())


def _check_keys(folder: Path, manifest: Manifest) -> None:
    """Raises :class:`PublishError` unless every sample is called by what a run key made of its name."""
    for name in manifest.files:
        with tarfile.open(folder / name) as tar:
            if not all(_RENAMED.fullmatch(member.name.partition(".")[0]) for member in tar):
                raise PublishError(
                    "the shards' keys are those of the originals, which can tell who it is; write them again with "
                    "`anondata shards --rename-keys`, or publish the rows alone, without --webdataset"
                )


def shard_pictures(path: Path, fields: Mapping[str, str]) -> Iterator[bytes]:
    """Pictures of a shard in its order; of fields that were declared to hold such."""
    for sample in _samples(path):
        yield from (data for name, data in sample.items() if _is_picture(name, fields))


def _still(folder: Path, manifest: Manifest) -> None:
    from anondata.manifest import digest_of

    if any(digest_of(folder / name) != one for name, one in manifest.files.items()):
        raise PublishError("the output was changed while it was published; nothing was")
