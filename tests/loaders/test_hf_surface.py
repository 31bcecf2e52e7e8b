"""The whole public surface of `datasets`, method by method: none of what can be called hands out an original.

A method that a new release of `datasets` brings is on no list, and fails here.
"""

from __future__ import annotations

import base64
import io
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Image, IterableDataset, IterableDatasetDict, Value
from PIL import Image as Pictures
from torch.utils.data import DataLoader

from anondata import Anonymizer
from anondata.errors import RefusedError
from anondata.loaders import hf
from anondata.loaders.hf.dicts import EACH, IN_PLACE, TOLD
from anondata.loaders.hf.surface import REFUSED, SAFE, WRAPPED

pytestmark = pytest.mark.filterwarnings("ignore:Specifying null_placement:FutureWarning")

COUNT = 3
SECRET = "Jane Doe"


@cache
def photos() -> tuple[bytes, ...]:
    """Faces, with a name in the EXIF of each."""
    from skimage import data

    face, out = Pictures.fromarray(data.astronaut()).crop((140, 20, 310, 190)), []
    for i in range(COUNT):
        buffer, exif = io.BytesIO(), Pictures.Exif()
        exif[0x013B] = SECRET
        face.crop((i, i, 160 + i, 160 + i)).save(buffer, "PNG", exif=exif)
        out.append(buffer.getvalue())
    return tuple(out)


@cache
def pieces() -> tuple[bytes, ...]:
    """Parts of the files and of the pixels of the faces, also as text would hold them."""
    raw = [SECRET.encode()]
    for data in photos():
        raw += [data[len(data) * i // 16 :][:48] for i in range(1, 15)]
        row = np.asarray(Pictures.open(io.BytesIO(data)))[90, 55:100]
        raw += [row.tobytes(), np.ascontiguousarray(row[:, 0]).tobytes(), str(row[10:14].tolist()).encode()]
    coded = [base64.b64encode(piece[start:])[:-4] for piece in raw for start in range(3)]
    return (*raw, *(repr(piece)[2:-1].encode() for piece in raw), *(piece for piece in coded if len(piece) > 16))


def holds_original(value: Any) -> bool:
    """Whether something of an original is in a value, however it is nested."""
    data = value if isinstance(value, bytes) else pickle.dumps(plain(value))
    return any(piece in data for piece in pieces())


def plain(value: Any) -> Any:
    """Views, streams and columns as what they hand out; the rest as it is."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Dataset):
        return [value.with_format(None)[:], value.info, str(value.cache_files)]
    if isinstance(value, hf.AnonymizedDataset | hf.AnonymizedColumn | IterableDataset | Iterator | list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Pictures.Image):
        return [value.tobytes(), value.info, getattr(value, "filename", ""), dict(value.getexif())]
    if isinstance(value, str | bytes | int | float | np.ndarray | type(None)) or hasattr(value, "numpy"):
        return value
    return repr(value)


def files_hold_originals(folder: Path) -> bool:
    return any(holds_original(read) for path in folder.rglob("*") if path.is_file() for read in contents(path))


def contents(path: Path) -> Iterator[Any]:
    """A file's bytes, and what a compressed format hides in them."""
    yield path.read_bytes()
    if path.suffix == ".parquet":
        yield pq.read_table(path).to_pylist()
    if path.suffix == ".arrow":
        yield pa.ipc.open_stream(path).read_all().to_pylist()


@cache
def anonymizer() -> Anonymizer:
    return Anonymizer("faces", device="cpu", run_key=b"0123456789abcdef")


def table() -> Dataset:
    features = Features({"image": Image(), "label": Value("int64"), "caption": Value("string")})
    images = [{"bytes": data, "path": f"{SECRET}.png"} for data in photos()]
    columns = {"image": images, "label": list(range(COUNT)), "caption": [SECRET] * COUNT}
    named = Dataset.from_dict(columns, features=features)
    named.info.description = named.info.citation = named.info.homepage = named.info.license = SECRET
    return named


@pytest.fixture
def view() -> Any:
    return hf.anonymize(table(), anonymizer(), keep="label", drop="caption")


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_the_search_finds_originals(tmp_path: Path) -> None:
    """Otherwise nothing below would tell anything."""
    ds = table()
    for leak in (ds, ds[0]["image"], ds.with_format("torch")[:1], ds.with_format("numpy")["image"][:], ds["caption"]):
        assert holds_original(leak)
    assert holds_original({"deep": [{"image": photos()[1]}]})
    assert holds_original(np.asarray(ds[0]["image"])[80:100])
    for write in (ds.to_parquet, ds.to_csv):
        folder = tmp_path / write.__name__
        folder.mkdir()
        write(folder / "file.parquet" if write == ds.to_parquet else folder / "file")
        assert files_hold_originals(folder)


# views


def test_every_method_of_a_dataset_is_on_one_list() -> None:
    known = SAFE | {name for name in WRAPPED if not name.startswith("_")} | REFUSED.keys()
    assert public(Dataset) == known, "a method is new, or gone: put it on a list of anondata.loaders.hf.surface"
    assert not SAFE & WRAPPED
    assert not (SAFE | WRAPPED) & REFUSED.keys()


def test_a_view_is_no_dataset(view: Any) -> None:
    """Then what works on any dataset would work on originals."""
    assert not isinstance(view, Dataset)
    assert {name for name in SAFE | WRAPPED if not hasattr(hf.AnonymizedDataset, name)} == set()
    ours = {"materialize", "report"}
    assert public(hf.AnonymizedDataset) == ours | SAFE | {name for name in WRAPPED if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refused_method_says_what_to_take_instead(view: Any, name: str) -> None:
    with pytest.raises(RefusedError, match=f"^{name} is not there on an anonymized view; take ") as error:
        getattr(view, name)
    assert not hasattr(view, name)
    assert not holds_original(str(error.value))


def _set(view: Any, name: str, *args: Any) -> Any:
    getattr(view, name)(*args)
    return view


def _formatted(view: Any) -> Any:
    with view.formatted_as("numpy"):
        return plain(view)


def double(batch: dict[str, list[Any]]) -> dict[str, Any]:
    return {**batch, "size": [image.size for image in batch["image"]]}


CALLS: dict[str, Callable[[Any], Any]] = {
    "__getitem__": lambda v: [v[0], v[-1], v[:2], v[[1]], v["image"], v["image"][0], v["image"][:], v["label"]],
    "__getitems__": lambda v: v.__getitems__([0, 1]),
    "__iter__": lambda v: list(v),
    "column_names": lambda v: v.column_names,
    "features": lambda v: str(v.features),
    "filter": lambda v: v.filter(lambda label: label, input_columns=["label"]),
    "format": lambda v: v.format,
    "formatted_as": _formatted,
    "info": lambda v: str(v.info),
    "iter": lambda v: list(v.iter(2)),
    "num_columns": lambda v: v.num_columns,
    "num_rows": lambda v: v.num_rows,
    "remove_columns": lambda v: v.remove_columns("label"),
    "rename_column": lambda v: v.rename_column("image", "caption"),
    "rename_columns": lambda v: v.rename_columns({"image": "caption"}),
    "repeat": lambda v: v.repeat(2),
    "reset_format": lambda v: _set(v, "reset_format"),
    "select": lambda v: v.select([1]),
    "select_columns": lambda v: v.select_columns(["image"]),
    "set_format": lambda v: _set(v, "set_format", "torch"),
    "set_transform": lambda v: _set(v, "set_transform", double),
    "shape": lambda v: v.shape,
    "shard": lambda v: v.shard(2, 1),
    "shuffle": lambda v: v.shuffle(),
    "skip": lambda v: v.skip(1),
    "sort": lambda v: v.sort("label"),
    "split": lambda v: v.split,
    "take": lambda v: v.take(1),
    "to_iterable_dataset": lambda v: v.to_iterable_dataset(num_shards=2),
    "train_test_split": lambda v: v.train_test_split(test_size=1),
    "unique": lambda v: v.unique("label"),
    "with_format": lambda v: [v.with_format("numpy"), v.with_format("torch")],
    "with_transform": lambda v: v.with_transform(double),
}


def test_every_method_of_a_view_is_called_here() -> None:
    assert set(CALLS) == SAFE | WRAPPED


@pytest.mark.parametrize("name", sorted(CALLS))
def test_no_method_of_a_view_hands_out_an_original(view: Any, name: str) -> None:
    result = CALLS[name](view)
    assert not holds_original(result)
    assert not holds_original(repr(result))


@pytest.mark.parametrize("column", ["image", "caption"])
def test_rows_are_chosen_by_kept_columns_alone(view: Any, column: str) -> None:
    kind = RefusedError if column == "image" else KeyError
    for call in (
        lambda: view.sort(column),
        lambda: view.unique(column),
        lambda: view.filter(bool, input_columns=column),
        lambda: view.train_test_split(test_size=1, stratify_by_column=column),
    ):
        with pytest.raises(kind) as error:
            call()
        assert not holds_original(str(error.value))
    with pytest.raises(RefusedError, match="input_columns"):
        view.filter(lambda row: True)


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "map": (double,),
    "filter": (bool,),
    "cast_column": ("image", Image(decode=False)),
    "remove_columns": ("label",),
    "select": ([0],),
    "unique": ("image",),
    "with_format": ("arrow",),
    "shard": (1, 0),
}


@pytest.mark.parametrize("name", sorted(n for n in public(Dataset) if not n.startswith(("from_", "load_"))))
def test_a_function_of_datasets_itself_finds_no_original_in_a_view(view: Any, name: str, tmp_path: Path) -> None:
    """As ``Dataset.to_parquet(view, …)``, or a library that takes whatever looks like a dataset."""
    function = getattr(Dataset, name)
    function = function.fget if isinstance(function, property) else function
    writes = name.startswith(("to_", "save_", "push_"))
    try:
        result = plain(function(view, *((str(tmp_path / "file"),) if writes else ARGUMENTS.get(name, ()))))
    except (AttributeError, TypeError, ValueError, AssertionError, ImportError) as error:
        result = str(error)
    assert not holds_original(result)
    assert not files_hold_originals(tmp_path)


def test_datasets_cannot_be_joined_to_a_view(view: Any) -> None:
    for join in (datasets.concatenate_datasets, datasets.interleave_datasets):
        with pytest.raises((ValueError, TypeError)) as error:
            join([view, table()])
        assert not holds_original(str(error.value))


def test_a_loader_over_a_view_holds_no_original(view: Any) -> None:
    assert not holds_original(list(DataLoader(view.with_format("torch"), batch_size=2)))


# splits


def test_every_method_of_a_dict_of_datasets_is_on_a_list() -> None:
    ours = {"formatted_as", "unique", *TOLD, *EACH, *IN_PLACE}
    theirs = public(DatasetDict) - public(dict)
    assert theirs - ours <= REFUSED.keys()
    assert ours <= theirs


@pytest.mark.parametrize("name", sorted(public(DatasetDict) - public(dict)))
def test_no_method_of_a_dict_of_views_hands_out_an_original(name: str) -> None:
    views = hf.anonymize(DatasetDict({"train": table()}), anonymizer(), keep="label", drop="caption")
    if name in REFUSED:
        assert not hasattr(views, name)
        return
    result = getattr(views, name) if name in TOLD else CALLS[name](views)
    assert not holds_original(result)


# streams: all that can be done with one comes after the stage that anonymizes


def _write(method: str, suffix: str) -> Callable[[Any, Path], Any]:
    return lambda stream, folder: getattr(stream, method)(str(folder / f"file.{suffix}"))


STREAM: dict[str, Callable[[Any, Path], Any]] = {
    "add_column": lambda s, _: s.add_column("n", list(range(COUNT))),
    "batch": lambda s, _: s.batch(2),
    "cast": lambda s, _: s.cast(Features({"image": Image(decode=False), "label": Value("string")})),
    "cast_column": lambda s, _: s.cast_column("image", Image(decode=False)),
    "decode": lambda s, _: [s.decode(False), s.decode()],
    "filter": lambda s, _: s.filter(lambda row: not holds_original(row)),
    "iter": lambda s, _: s.iter(2),
    "load_state_dict": lambda s, _: s.load_state_dict(s.state_dict()),
    "map": lambda s, _: [s.map(lambda row: {"copy": row["image"]}), s.map(double, batched=True)],
    "remove_columns": lambda s, _: s.remove_columns("label"),
    "rename_column": lambda s, _: s.rename_column("image", "caption"),
    "rename_columns": lambda s, _: s.rename_columns({"image": "caption"}),
    "repeat": lambda s, _: s.repeat(2),
    "reshard": lambda s, _: s.reshard(),
    "select_columns": lambda s, _: s.select_columns("image"),
    "set_epoch": lambda s, _: [s.set_epoch(1), s],
    "shard": lambda s, _: s.shard(2, 0),
    "shuffle": lambda s, _: s.shuffle(seed=1, buffer_size=2),
    "skip": lambda s, _: s.skip(1),
    "state_dict": lambda s, _: [list(s), s.state_dict()],
    "take": lambda s, _: s.take(1),
    "to_csv": _write("to_csv", "csv"),
    "to_dict": lambda s, _: s.to_dict(),
    "to_json": lambda s, folder: s.remove_columns("image").to_json(folder / "file"),  # pandas writes no bytes
    "to_list": lambda s, _: s.to_list(),
    "to_pandas": lambda s, _: s.to_pandas().to_dict(),
    "to_parquet": _write("to_parquet", "parquet"),
    "with_format": lambda s, _: [s.with_format("numpy"), s.with_format("torch"), *tables(s)],
}
TOLD_OF_STREAMS = {
    "builder_name", "citation", "column_names", "config_name", "dataset_size", "description", "download_checksums",
    "download_size", "epoch", "features", "homepage", "info", "license", "n_shards", "num_columns", "num_shards",
    "size_in_bytes", "split", "supervised_keys", "version",
}  # fmt: skip
NOT_HERE = {"push_to_hub", "to_polars", "to_sql"}
"""What needs a network, or a library that is not a dependency; they write what to_parquet and to_pandas do."""


def tables(stream: IterableDataset) -> Iterable[Any]:
    yield from (table.to_pylist() for table in stream.with_format("arrow"))
    yield from (frame.to_dict() for frame in stream.with_format("pandas"))


@pytest.fixture
def stream() -> Any:
    source = table().to_iterable_dataset(num_shards=2)
    named = IterableDataset(source._ex_iterable, info=table().info)
    return hf.anonymize(named, anonymizer(), keep="label", drop="caption")


def test_every_method_of_a_stream_is_called_here() -> None:
    made = {name for name in public(IterableDataset) if name.startswith("from_")}
    assert public(IterableDataset) == made | set(STREAM) | TOLD_OF_STREAMS | NOT_HERE
    theirs = public(IterableDatasetDict) - public(dict)
    assert theirs <= set(STREAM) | TOLD_OF_STREAMS | NOT_HERE | {"column_names"}


@pytest.mark.parametrize("name", sorted(STREAM))
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_method_of_a_stream_hands_out_an_original(stream: Any, name: str, tmp_path: Path) -> None:
    result = plain(STREAM[name](stream, tmp_path))
    assert not holds_original(result)
    assert not files_hold_originals(tmp_path)
    if name in ("filter", "map", "shuffle", "repeat"):  # and it does hand out something
        assert len(result) >= 2


@pytest.mark.parametrize("name", sorted(TOLD_OF_STREAMS))
def test_nothing_that_a_stream_tells_is_of_its_source(stream: Any, name: str) -> None:
    assert not holds_original(repr(getattr(stream, name)))


def test_what_cannot_be_called_here_is_missing() -> None:
    """Should polars become a dependency, its method belongs on the list above."""
    assert not datasets.config.POLARS_AVAILABLE
