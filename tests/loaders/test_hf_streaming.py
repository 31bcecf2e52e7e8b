"""Anonymized streams of Hugging Face datasets: datasets' own IterableDataset, with nothing original downstream."""

from __future__ import annotations

import gc
import io
import pickle
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import (
    ClassLabel,
    Dataset,
    DatasetInfo,
    Features,
    Image,
    IterableDataset,
    IterableDatasetDict,
    List,
    Value,
)
from datasets.distributed import split_dataset_by_node
from PIL import Image as Pictures
from torch.utils.data import DataLoader

from anondata import Anonymizer
from anondata.errors import RefusedError, UndeclaredFieldError, WithheldError
from anondata.loaders import hf
from anondata.loaders._flow import Flow
from anondata.loaders._spares import Spares
from anondata.samples import declare

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")

COUNT = 6
Photo = Callable[..., bytes]
FEATURES = Features({"image": Image(), "label": Value("int64"), "caption": Value("string")})
DECLARED: dict[str, Any] = {"keep": "label", "drop": "caption"}


@cache
def anonymizer() -> Anonymizer:
    return Anonymizer("faces", device="cpu", run_key=b"0123456789abcdef")


def table(photo: Photo, **changed: bytes) -> Dataset:
    photos = [changed.get(f"row{i}", photo(i, "PNG")) for i in range(COUNT)]
    images = [{"bytes": data, "path": f"/home/jane/{i}.png"} for i, data in enumerate(photos)]
    return Dataset.from_dict(
        {"image": images, "label": list(range(COUNT)), "caption": ["Jane"] * COUNT}, features=FEATURES
    )


@pytest.fixture
def stream(photo: Photo) -> Any:
    return hf.anonymize(table(photo).to_iterable_dataset(num_shards=3), anonymizer(), **DECLARED)


@pytest.fixture
def expected(photo: Photo) -> dict[int, bytes]:
    """The oracle: each photo by itself through the engine."""
    return {i: released(photo(i, "PNG")) for i in range(COUNT)}


@cache
def released(data: bytes) -> bytes:
    flow = Flow(anonymizer(), declare({"image": "image"}))
    [settled] = flow.settle([{"image": data}], Spares())
    assert settled.fields is not None
    return pixels(settled.fields["image"])


def pixels(value: Any) -> bytes:
    image = Pictures.open(io.BytesIO(value)) if isinstance(value, bytes) else value
    return np.asarray(image).tobytes()


def gather(samples: Any) -> dict[int, bytes]:
    """Pixels by label, each of which comes once."""
    given: dict[int, bytes] = {}
    for sample in samples:
        assert sample["label"] not in given
        given[int(sample["label"])] = pixels(sample["image"])
    return given


def test_a_stream_gives_what_the_engine_alone_releases(stream: Any, expected: dict[int, bytes], photo: Photo) -> None:
    assert isinstance(stream, IterableDataset)
    assert gather(stream) == expected
    assert not set(expected.values()) & {pixels(photo(i, "PNG")) for i in range(COUNT)}


def test_features_are_kept_and_rows_are_decoded_by_them(stream: Any) -> None:
    assert stream.features == {"image": Image(), "label": Value("int64")}
    assert stream.column_names == ["image", "label"]
    row = next(iter(stream))
    assert isinstance(row["image"], Pictures.Image)
    assert set(row) == {"image", "label"}


def test_building_a_stream_reads_nothing() -> None:
    def never() -> Iterator[dict[str, Any]]:
        raise AssertionError
        yield {}

    for features in (FEATURES, None):
        made = hf.anonymize(IterableDataset.from_generator(never, features=features), anonymizer(), **DECLARED)
        assert (made.features is None) == (features is None)


WAYS: dict[str, Callable[[Any], Any]] = {
    "shuffle": lambda s: s.shuffle(seed=3, buffer_size=4),
    "epoch": lambda s: (s := s.shuffle(seed=3, buffer_size=4), s.set_epoch(2))[0],
    "shards": lambda s: [row for i in range(3) for row in s.shard(num_shards=3, index=i)],
    "take and skip": lambda s: [*s.take(3), *s.skip(3)],
    "nodes": lambda s: [row for i in range(3) for row in split_dataset_by_node(s, rank=i, world_size=3)],
    "examples of nodes": lambda s: [row for i in range(2) for row in split_dataset_by_node(s, rank=i, world_size=2)],
    "batches": lambda s: [
        {"image": i, "label": n} for b in s.iter(2) for i, n in zip(b["image"], b["label"], strict=True)
    ],
    "map": lambda s: s.map(lambda row: {"image": row["image"], "label": row["label"]}),
    "pickled": lambda s: pickle.loads(pickle.dumps(s)),
}


@pytest.mark.parametrize("way", WAYS)
def test_any_way_through_a_stream_gives_the_same(stream: Any, expected: dict[int, bytes], way: str) -> None:
    assert gather(WAYS[way](stream)) == expected


def test_nodes_may_be_split_before(photo: Photo, expected: dict[int, bytes]) -> None:
    source = table(photo).to_iterable_dataset(num_shards=2)
    parts = [split_dataset_by_node(source, rank=i, world_size=2) for i in range(2)]
    assert gather(row for part in parts for row in hf.anonymize(part, anonymizer(), **DECLARED)) == expected


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("taken", [1, 4])
def test_a_resumed_stream_goes_on_where_it_was(photo: Photo, batch: int, taken: int, expected: Any) -> None:
    def fresh() -> Any:
        source = table(photo, row3=b"no image").to_iterable_dataset(num_shards=2)
        return hf.anonymize(source, anonymizer(), batch=batch, **DECLARED)

    first, before = fresh(), []
    for row in first:
        before.append(row)
        if len(before) == taken:
            break
    again = fresh()
    again.load_state_dict(first.state_dict())
    given = gather([*before, *again])
    assert given == {i: value for i, value in expected.items() if i != 3}


def rows(batch: list[Any]) -> list[Any]:
    return batch


@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (2, "spawn")])
def test_workers_share_the_shards(stream: Any, expected: Any, workers: int, start: str | None) -> None:
    loader = DataLoader(stream, batch_size=2, collate_fn=rows, num_workers=workers, multiprocessing_context=start)
    assert gather(row for batch in loader for row in batch) == expected
    assert hf.report(stream).seen == COUNT


def test_a_format_is_kept(photo: Photo, expected: dict[int, bytes]) -> None:
    source = table(photo).to_iterable_dataset().with_format("torch")
    for row in hf.anonymize(source, anonymizer(), **DECLARED):
        assert isinstance(row["image"], torch.Tensor)
        assert row["image"].permute(1, 2, 0).numpy().tobytes() == expected[int(row["label"])]


def test_a_format_of_tables_is_refused(photo: Photo) -> None:
    with pytest.raises(RefusedError, match=r"ds\.with_format\(None\)"):
        hf.anonymize(table(photo).to_iterable_dataset().with_format("arrow"), anonymizer(), **DECLARED)


@pytest.mark.parametrize(
    "change",
    [lambda s: s.decode(num_threads=2), lambda s: s.decode(num_threads=2).shuffle(seed=1, buffer_size=2)],
    ids=["threads", "threads, then more"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stream_that_decodes_in_threads(photo: Photo, change: Callable[[Any], Any]) -> None:
    """As load_dataset makes them of remote data."""
    source = change(table(photo).to_iterable_dataset())
    given = gather(hf.anonymize(source, anonymizer(), **DECLARED))
    del source
    gc.collect()  # datasets leaves an event loop open
    assert len(given) == COUNT
    assert all(given[i] != pixels(photo(i, "PNG")) for i in given)


def as_read(photo: Photo, i: int) -> Any:
    return Pictures.open(io.BytesIO(photo(i, "PNG")))


def test_what_a_users_map_made_is_anonymized(photo: Photo) -> None:
    made = IterableDataset.from_generator(lambda: ({"n": i} for i in range(3)))
    features = Features({"image": Image(), "label": Value("int64")})
    source = made.map(
        lambda r: {"image": as_read(photo, r["n"]), "label": r["n"]}, remove_columns=["n"], features=features
    )
    given = gather(hf.anonymize(source, anonymizer(), keep="label"))
    assert len(given) == 3
    assert all(given[i] != pixels(photo(i, "PNG")) for i in given)


# withheld samples


def test_withheld_samples_are_dropped_and_counted(photo: Photo, expected: dict[int, bytes]) -> None:
    source = table(photo, row2=b"no image", row5=photo(5)[:2000]).to_iterable_dataset()
    stream = hf.anonymize(source, anonymizer(), **DECLARED)
    assert gather(stream) == {i: v for i, v in expected.items() if i not in (2, 5)}
    report = hf.report(stream)
    assert (report.seen, report.released) == (COUNT, COUNT - 2)
    assert report.withheld == {"not_an_image": 1, "truncated": 1}
    assert report.counts["instead"] == {"replaced": 0, "dropped": 2}


def test_a_stream_of_which_nothing_is_left_in_a_batch_goes_on(photo: Photo, expected: dict[int, bytes]) -> None:
    source = table(photo, row0=b"", row1=b"").to_iterable_dataset()
    given = gather(hf.anonymize(source, anonymizer(), batch=2, **DECLARED))
    assert given == {i: v for i, v in expected.items() if i > 1}


def test_withheld_samples_are_replaced_by_released_ones(photo: Photo) -> None:
    source = table(photo, row0=b"", row4=b"").to_iterable_dataset()
    stream = hf.anonymize(source, anonymizer(), on_withheld="replace", batch=2, **DECLARED)
    assert stream.features["anondata"] == Value("string")
    for _ in range(2):  # a second pass gives the same as the first one
        given = list(stream)
        notes = {i: row["anondata"] for i, row in enumerate(given) if row["anondata"] != "released"}
        assert len(given) == COUNT - 1  # for the first one, nothing was there yet
        assert notes == {3: "replaced: empty"}
        assert pixels(given[3]["image"]) in {pixels(row["image"]) for row in given[:3]}


def test_withheld_samples_may_raise(photo: Photo) -> None:
    source = table(photo, row1=b"").to_iterable_dataset()
    with pytest.raises(WithheldError, match="empty"):
        list(hf.anonymize(source, anonymizer(), on_withheld="raise", **DECLARED))


def test_unreadable_files_are_withheld(photo: Photo, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(photo(0, "PNG"))
    paths = [str(tmp_path / "0.png"), str(tmp_path / "jane.png"), "hf+jane://nowhere/1.png"]
    source = Dataset.from_dict({"image": paths, "label": [0, 1, 2]}).cast_column("image", Image())
    stream = hf.anonymize(source.to_iterable_dataset(), anonymizer(), keep="label")
    assert list(gather(stream)) == [0]
    assert hf.report(stream).withheld == {"unreadable": 2}


# streams that do not know their types


def generated(*samples: dict[str, Any]) -> IterableDataset:
    return IterableDataset.from_generator(lambda: iter(samples))


def test_values_of_unknown_type_are_anonymized(photo: Photo, expected: dict[int, bytes]) -> None:
    stream = hf.anonymize(
        generated(
            {"image": photo(0, "PNG"), "label": 0, "caption": "Jane"},
            {"image": {"bytes": photo(1, "PNG"), "path": "jane.png"}, "label": 1, "caption": "Jane"},
            {"image": as_read(photo, 2), "label": 2, "caption": "Jane"},
            {"image": "jane.png", "label": 3, "caption": "Jane"},
            {"image": None, "label": 4, "caption": None},
            {"image": [photo(5, "PNG")], "label": 5, "caption": "Jane"},
        ),
        anonymizer(),
        batch=4,
        **DECLARED,
    )
    given = list(stream)
    assert [row["label"] for row in given] == [0, 1, 2, 5]
    assert all(set(row) == {"image", "label"} for row in given)
    assert [pixels(row["image"]) for row in given[:2]] == [expected[0], expected[1]]
    assert pixels(given[2]["image"]) != pixels(photo(2, "PNG"))
    assert pixels(given[3]["image"][0]) != pixels(photo(5, "PNG"))
    assert hf.report(stream).withheld == {"wrong_type": 2}


@pytest.mark.parametrize("first", [True, False])
def test_a_column_that_comes_unannounced_stops_the_stream(photo: Photo, first: bool) -> None:
    good = {"image": photo(0, "PNG"), "label": 0, "caption": ""}
    bad = {**good, "name": "Jane"}
    stream = hf.anonymize(generated(*([bad] if first else [good, bad])), anonymizer(), batch=1, **DECLARED)
    given = []
    with pytest.raises(UndeclaredFieldError, match="'name' is not declared"):
        given.extend(stream)
    assert "Jane" not in str(given)


@pytest.mark.parametrize(
    "kept",
    [{"face": b"jpeg"}, {"face": {"bytes": None, "path": "jane.png"}}, {"face": Pictures.new("L", (8, 8))}, object()],
)
def test_a_kept_struct_of_unknown_type_holds_plain_values_alone(photo: Photo, kept: Any) -> None:
    stream = hf.anonymize(generated({"image": photo(0, "PNG"), "meta": kept}), anonymizer(), keep="meta")
    with pytest.raises(UndeclaredFieldError, match="'meta' is kept, but holds"):
        list(stream)


def test_a_kept_array_of_objects_is_refused(photo: Photo) -> None:
    hidden = np.array([Pictures.new("L", (8, 8))], dtype=object)
    stream = hf.anonymize(generated({"image": photo(0, "PNG"), "meta": hidden}), anonymizer(), keep="meta")
    with pytest.raises(UndeclaredFieldError, match="array of Python objects"):
        list(stream)


def test_kept_values_of_unknown_type_pass_without_paths(photo: Photo, tmp_path: Path) -> None:
    (tmp_path / "jane.png").write_bytes(photo(1, "PNG"))
    sample = {
        "image": photo(0, "PNG"),
        "depth": {"bytes": None, "path": str(tmp_path / "jane.png")},
        "mask": Pictures.open(tmp_path / "jane.png"),
        "meta": {"place": "lake", "tags": ["a", {"n": 1.5}]},
    }
    [row] = hf.anonymize(generated(sample), anonymizer(), keep=["depth", "mask", "meta"])
    assert row["depth"] == {"bytes": photo(1, "PNG"), "path": None}
    assert pixels(row["mask"]) == pixels(photo(1, "PNG"))
    assert row["meta"] == sample["meta"]
    assert b"jane" not in pickle.dumps(row)
    assert not hasattr(row["mask"], "filename")


def test_a_column_that_types_do_not_tell_of_stops_the_stream(photo: Photo) -> None:
    """A map may return more than the features that it was given."""
    made = generated({"n": 0}).map(
        lambda row: {"image": photo(0, "PNG"), "face": photo(0, "PNG")},
        remove_columns=["n"],
        features=Features({"image": Image()}),
    )
    with pytest.raises(UndeclaredFieldError, match="'face' is not declared"):
        list(hf.anonymize(made, anonymizer()))


def test_a_value_that_is_left_out_is_none(photo: Photo) -> None:
    file = {"bytes": photo(0, "PNG"), "path": None}
    source = IterableDataset.from_generator(
        lambda: iter([{"image": file}, {"label": 1, "caption": "Jane"}]), features=FEATURES
    )
    stream = hf.anonymize(source, anonymizer(), **DECLARED)
    assert [row["label"] for row in stream] == [None]
    assert hf.report(stream).withheld == {"wrong_type": 1}


def test_undeclared_columns_of_known_types_stop_the_build(photo: Photo) -> None:
    with pytest.raises(UndeclaredFieldError, match="'caption' is not declared"):
        hf.anonymize(table(photo).to_iterable_dataset(), anonymizer(), keep="label")


# what is downstream


def test_nested_columns_keep_their_types(photo: Photo) -> None:
    features = Features(
        {
            "frames": List(Image()),
            "shots": List({"photo": Image(), "id": ClassLabel(names=["a"])}),
            "name": Value("string"),
        }
    )
    files = [{"bytes": photo(i, "PNG"), "path": "jane.png"} for i in range(3)]
    source = Dataset.from_list(
        [{"frames": files[:2], "shots": [{"photo": files[2], "id": 0}], "name": "Jane"}], features=features
    )
    fields = {"frames": "image", "shots.photo": "image"}
    stream = hf.anonymize(source.to_iterable_dataset(), anonymizer(), fields=fields, keep="shots.id", drop="name")
    assert stream.features == {n: f for n, f in features.items() if n != "name"}
    [row] = stream
    view = hf.anonymize(source, anonymizer(), fields=fields, keep="shots.id", drop="name")
    assert [pixels(image) for image in row["frames"]] == [pixels(image) for image in view[0]["frames"]]
    assert pixels(row["shots"][0]["photo"]) == pixels(view[0]["shots"][0]["photo"])
    assert row["shots"][0]["id"] == 0


def test_nothing_of_where_a_stream_comes_from_is_told(photo: Photo) -> None:
    named = table(photo)
    named.info.description, named.info.homepage = "photos of Jane", "https://jane.example"
    source = IterableDataset(named.to_iterable_dataset()._ex_iterable, info=named.info)
    stream = hf.anonymize(source, anonymizer(), **DECLARED)
    assert source.info.description == "photos of Jane"
    assert stream.info == DatasetInfo(features=stream.features)


def test_a_dict_of_streams_is_one_of_anonymized_streams(photo: Photo, expected: dict[int, bytes]) -> None:
    ds = IterableDatasetDict(
        {"train": table(photo).to_iterable_dataset(), "test": table(photo).to_iterable_dataset()}
    )
    streams = hf.anonymize(ds, anonymizer(), **DECLARED)
    assert isinstance(streams, IterableDatasetDict)
    assert gather(streams["test"]) == expected
    assert hf.report(streams).seen == COUNT


def test_a_view_becomes_a_stream(photo: Photo, expected: dict[int, bytes]) -> None:
    view = hf.anonymize(table(photo, row3=b""), anonymizer(), **DECLARED)
    stream = view.shuffle(seed=1).to_iterable_dataset(num_shards=2)
    assert stream.features == view.features
    given = list(stream)
    assert [pixels(row["image"]) for row in given] == [pixels(row["image"]) for row in view.shuffle(seed=1)]
    assert sorted(row["anondata"] for row in given)[-1] == "replaced: empty"
    first = iter(stream)
    before = [next(first), next(first)]
    stream.load_state_dict(stream.state_dict())
    assert [pixels(row["image"]) for row in [*before, *stream]] == [pixels(row["image"]) for row in given]
    with pytest.raises(RefusedError, match="reset_format"):
        view.with_transform(lambda batch: batch).to_iterable_dataset()
    assert isinstance(next(iter(view.with_format("torch").to_iterable_dataset()))["image"], torch.Tensor)
