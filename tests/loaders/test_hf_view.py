"""The anonymized view of a Hugging Face dataset: what it hands out, and what it does with bad input."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as Pictures
from torch.utils.data import DataLoader

from anondata import Anonymizer
from anondata.errors import (
    FieldTypeError,
    PolicyError,
    RefusedError,
    UndeclaredFieldError,
    UnreadableSourceError,
    WithheldError,
)
from anondata.loaders import hf
from anondata.loaders._flow import Flow
from anondata.loaders._spares import Spares
from anondata.samples import declare

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork"),
    pytest.mark.filterwarnings("ignore:Specifying null_placement:FutureWarning"),  # datasets 5.2 with pyarrow 26
]

COUNT = 6
Photo = Callable[..., bytes]


@cache
def anonymizer() -> Anonymizer:
    return Anonymizer("faces", device="cpu", run_key=b"0123456789abcdef")


def stored(data: bytes | None, path: str | None = None) -> dict[str, Any]:
    return {"bytes": data, "path": path}


def table(photo: Photo, count: int = COUNT, **changed: bytes | None) -> Dataset:
    """Photos, labels and captions; ``changed`` are photos by ``rowN``."""
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"]), "caption": Value("string")})
    photos = [changed.get(f"row{i}", photo(i, "PNG")) for i in range(count)]
    labels, captions = [i % 2 for i in range(count)], [f"Jane {i}" for i in range(count)]
    columns = {"image": [p and stored(p) for p in photos], "label": labels, "caption": captions}
    return Dataset.from_dict(columns, features=features)


@pytest.fixture
def view(photo: Photo) -> Any:
    return hf.anonymize(table(photo), anonymizer(), keep="label", drop="caption")


def pixels(value: Any) -> bytes:
    image = Pictures.open(io.BytesIO(value)) if isinstance(value, bytes) else value
    return np.asarray(image).tobytes()


def engine_alone(photos: list[bytes], name: str = "image") -> list[bytes]:
    """The oracle: each photo by itself through the engine, as encoded bytes."""
    return [released(photo, name) for photo in photos]


@cache
def released(photo: bytes, name: str) -> bytes:
    [settled] = Flow(anonymizer(), declare({name: "image"})).settle([{name: photo}], Spares())
    assert settled.fields is not None
    return pixels(settled.fields[name])


def test_rows_hold_what_the_engine_alone_releases(view: Any, photo: Photo) -> None:
    expected = engine_alone([photo(i, "PNG") for i in range(COUNT)])
    assert [pixels(row["image"]) for row in view] == expected
    assert pixels(view[2]["image"]) == pixels(view[-4]["image"]) == expected[2]
    assert not set(expected) & {pixels(photo(i, "PNG")) for i in range(COUNT)}


def test_a_jpeg_is_not_encoded_again(astronaut: torch.Tensor) -> None:
    """Far from the face pixels are those of the original, which a second JPEG would have changed."""
    buffer = io.BytesIO()
    Pictures.fromarray(astronaut[:, :400].permute(1, 2, 0).numpy()).save(buffer, "JPEG")
    view = hf.anonymize(Dataset.from_list([{"image": buffer.getvalue()}]).cast_column("image", Image()), anonymizer())
    before, after = np.asarray(Pictures.open(buffer)), np.asarray(view[0]["image"])
    assert (after[300:] == before[300:]).all()
    assert (after[:300] != before[:300]).any()


@pytest.mark.parametrize(
    "key", [slice(1, 4), slice(None, None, -2), [4, -1, 0], np.array([2, 5]), torch.tensor([0, 3]), range(2, 4), []]
)
def test_batches_hold_the_rows_that_datasets_would_give(view: Any, photo: Photo, key: Any) -> None:
    batch = view[key]
    expected = engine_alone([photo(i, "PNG") for i in range(COUNT)])
    numbers = list(range(COUNT))[key] if isinstance(key, slice) else [int(k) % COUNT for k in key]
    assert [pixels(image) for image in batch["image"]] == [expected[n] for n in numbers]
    assert batch["label"] == [n % 2 for n in numbers]
    assert list(batch) == ["image", "label", "anondata"]


@pytest.mark.parametrize("key", [COUNT, -COUNT - 1, [0, COUNT]])
def test_a_row_out_of_range_is_an_index_error(view: Any, key: Any) -> None:
    with pytest.raises(IndexError, match="the view has 6"):
        view[key]


@pytest.mark.parametrize("key", [True, [True, False, True, True, False, True], 1.5, [[0, 1]], ["image"]])
def test_what_is_no_position_is_refused(view: Any, key: Any) -> None:
    with pytest.raises(FieldTypeError, match="a position, a slice, a list of positions or a column's name"):
        view[key]


def test_a_column_is_lazy_and_anonymized(view: Any, photo: Photo) -> None:
    column = view["image"]
    assert view.report.seen == 0
    expected = engine_alone([photo(i, "PNG") for i in range(COUNT)])
    assert [pixels(image) for image in column] == expected
    assert pixels(column[1]) == expected[1]
    assert [pixels(image) for image in column[2:4]] == expected[2:4]
    assert len(column) == COUNT
    with pytest.raises(KeyError, match="there is no column 'caption'"):
        view["caption"]


def test_kept_columns_are_read_without_the_engine(view: Any) -> None:
    assert view["label"][:] == [0, 1, 0, 1, 0, 1]
    assert view.unique("label") == [0, 1]
    assert len(view.filter(lambda label: label == 1, input_columns="label")) == 3
    assert view.sort("label", reverse=True)["label"][:] == [1, 1, 1, 0, 0, 0]
    assert view.report.seen == 0


def test_building_and_describing_a_view_reads_nothing(photo: Photo, tmp_path: Path) -> None:
    missing = Dataset.from_dict({"image": [str(tmp_path / "none.jpg")] * 3}).cast_column("image", Image())
    view = hf.anonymize(missing, anonymizer(), on_withheld="raise").shuffle(seed=1).take(2)
    assert (len(view), view.shape, view.num_columns, view.column_names) == (2, (2, 1), 1, ["image"])
    assert "num_rows: 2" in repr(view)
    with pytest.raises(
        WithheldError, match=r"\(unreadable\): a file could not be read \(FileNotFoundError\)"
    ) as error:
        view[0]
    assert "none.jpg" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__context__ is None


def test_features_are_those_of_what_comes_out(view: Any) -> None:
    assert view.features == {"image": Image(), "label": ClassLabel(names=["a", "b"]), "anondata": Value("string")}
    assert view.info.features == view.features
    assert view.info.description == ""


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_micro_batches_change_nothing(photo: Photo, batch: int) -> None:
    view = hf.anonymize(table(photo), anonymizer(), keep="label", drop="caption", batch=batch)
    assert [pixels(image) for image in view["image"]] == engine_alone([photo(i, "PNG") for i in range(COUNT)])


ORDERS: dict[str, Callable[[Any], Any]] = {
    "shuffle": lambda d: d.shuffle(seed=3),
    "generator": lambda d: d.shuffle(generator=np.random.default_rng(4)),
    "select": lambda d: d.select([4, 4, 1]),
    "shard": lambda d: d.shard(4, 1),
    "interleaved": lambda d: d.shard(num_shards=4, index=1, contiguous=False),
    "skip": lambda d: d.skip(4),
    "take": lambda d: d.take(2),
    "repeat": lambda d: d.repeat(2),
    "sort": lambda d: d.sort("label", reverse=True),
    "filter": lambda d: d.filter(lambda label: label == 1, input_columns=["label"]),
    "all at once": lambda d: d.shuffle(seed=1).skip(1).sort("label").shard(2, 0).select(range(2)),
    "split": lambda d: d.train_test_split(test_size=2, seed=5)["train"],
    "stratified": lambda d: d.train_test_split(test_size=2, seed=5, stratify_by_column="label")["test"],
}


@pytest.mark.parametrize("name", ORDERS)
def test_rows_are_ordered_as_datasets_orders_them(photo: Photo, name: str) -> None:
    numbered = table(photo).add_column("number", list(range(COUNT)))
    view = hf.anonymize(numbered, anonymizer(), keep=["label", "number"], drop="caption")
    chosen, expected = ORDERS[name](view), ORDERS[name](numbered)
    assert chosen["number"][:] == expected["number"][:]
    assert view.report.seen == 0
    assert [pixels(chosen[0]["image"])] == engine_alone([photo(expected[0]["number"], "PNG")])


def test_shuffling_leaves_the_global_random_state_alone(view: Any) -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    orders = {tuple(view.shuffle()._numbers.tolist()) for _ in range(8)}
    view.train_test_split(test_size=2)
    assert len(orders) > 1
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index, union-attr]


def test_columns_can_be_renamed_and_removed(view: Any, photo: Photo) -> None:
    renamed = view.rename_columns({"image": "photo", "label": "cls"}).remove_columns("anondata")
    assert renamed.column_names == ["photo", "cls"]
    assert pixels(renamed[1]["photo"]) == engine_alone([photo(1, "PNG")])[0]
    labels = renamed.select_columns("cls")
    assert labels[:] == {"cls": [0, 1, 0, 1, 0, 1]}
    assert labels.report.seen == 1  # and no more: labels alone need no engine
    with pytest.raises(PolicyError, match="two columns would have the same name"):
        view.rename_column("label", "image")


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_formats_are_those_of_datasets(view: Any, kind: str) -> None:
    plain = [view[i] for i in range(COUNT)]
    features = Features({"image": Image(), "label": Value("int64"), "anondata": Value("string")})
    oracle = Dataset.from_list(plain, features=features).with_format(kind)
    for key in (1, slice(0, 3)):
        ours, theirs = view.with_format(kind)[key], oracle[key]
        assert list(ours) == list(theirs)
        for name in ours:
            assert type(ours[name]) is type(theirs[name])
            assert getattr(ours[name], "dtype", None) == getattr(theirs[name], "dtype", None)
            assert np.array_equal(np.asarray(ours[name]), np.asarray(theirs[name]))


def test_a_format_can_be_set_in_place_and_for_some_columns(view: Any) -> None:
    view.set_format("torch", columns=["label"])
    assert view[:3].keys() == {"label"}
    assert view.report.seen == 0
    assert view.format["columns"] == ["label"]
    with view.formatted_as("numpy", columns=["label"], output_all_columns=True):
        row = view[0]
        assert isinstance(row["label"], np.int64)
        assert isinstance(row["image"], Pictures.Image)
    assert isinstance(view["image"][0], Pictures.Image)
    view.reset_format()
    assert list(view[0]) == ["image", "label", "anondata"]


def test_the_format_of_the_dataset_is_kept(photo: Photo) -> None:
    formatted = table(photo).with_format("torch", columns=["image", "label"])
    row = hf.anonymize(formatted, anonymizer(), keep="label", drop="caption")[0]
    assert row["image"].shape == (3, 160, 160)
    assert row["label"].dtype == torch.int64


@pytest.mark.parametrize("kind", ["pandas", "arrow", "polars"])
def test_formats_that_are_tables_are_refused(view: Any, photo: Photo, kind: str) -> None:
    with pytest.raises(RefusedError, match="materialize"):
        view.with_format(kind)
    if kind != "polars":
        with pytest.raises(RefusedError, match=r"ds\.with_format\(None\)"):
            hf.anonymize(table(photo).with_format(kind), anonymizer(), keep="label", drop="caption")


def test_a_transform_sees_anonymized_batches_alone(view: Any, photo: Photo) -> None:
    seen: list[Any] = []

    def transform(batch: dict[str, Any]) -> dict[str, Any]:
        seen.append(batch)
        return {"width": [image.width for image in batch["image"]]}

    changed = view.with_transform(transform)
    assert changed[1] == {"width": 160}
    assert changed[1:3] == {"width": [160, 160]}
    assert changed.__getitems__([0, 1]) == [{"width": 160}] * 2
    assert [len(batch["image"]) for batch in seen] == [1, 2, 2]
    assert pixels(seen[0]["image"][0]) == engine_alone([photo(1, "PNG")])[0]
    assert "caption" not in seen[0]


def test_a_dataset_with_a_transform_is_refused(photo: Photo) -> None:
    with pytest.raises(RefusedError, match=r"set a\s+format or transform on the view"):
        hf.anonymize(table(photo).with_transform(lambda batch: batch), anonymizer(), keep="label", drop="caption")


def rows(batch: list[Any]) -> list[Any]:
    return batch


@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (2, "spawn")])
def test_workers_give_the_same_rows(view: Any, photo: Photo, workers: int, start: str | None) -> None:
    loader = DataLoader(view, batch_size=2, collate_fn=rows, num_workers=workers, multiprocessing_context=start)
    given = [row for batch in loader for row in batch]
    assert [pixels(row["image"]) for row in given] == engine_alone([photo(i, "PNG") for i in range(COUNT)])
    assert view.report.seen == COUNT


def test_tensors_are_collated_by_a_plain_loader(photo: Photo) -> None:
    one_size = table(photo, 2).select([0, 0])
    view = hf.anonymize(one_size, anonymizer(), keep="label", drop="caption").with_format("torch")
    [batch] = DataLoader(view, batch_size=2)
    assert batch["image"].shape == (2, 3, 160, 160)
    assert batch["anondata"] == ["released", "released"]


def test_a_pickled_view_is_still_anonymized(view: Any, photo: Photo) -> None:
    again = pickle.loads(pickle.dumps(view.select([3, 1]).with_format("numpy")))
    assert again[1]["image"].tobytes() == engine_alone([photo(1, "PNG")])[0]
    with pytest.raises(RefusedError):
        again.map(lambda row: row)


def test_images_come_in_the_mode_of_their_column(photo: Photo) -> None:
    ds = table(photo, 1).cast_column("image", Image(mode="L"))
    image = hf.anonymize(ds, anonymizer(), keep="label", drop="caption")[0]["image"]
    assert image.mode == "L"
    assert image.tobytes() != Pictures.open(io.BytesIO(photo(0, "PNG"))).convert("L").tobytes()


def test_without_datasets_the_extra_is_named() -> None:
    code = "import sys; sys.modules['datasets'] = None; import anondata.loaders.hf"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stderr.splitlines()[-1].endswith(
        "MissingExtraError: datasets is not installed: pip install 'anondata[hf]'"
    )


# withheld samples


def test_a_corrupt_image_is_replaced_and_said_so(photo: Photo) -> None:
    view = hf.anonymize(table(photo, row2=b"no image"), anonymizer(), keep="label", drop="caption", group="label")
    row = view[2]
    assert row["anondata"] == "replaced: not_an_image"
    assert row["label"] == 0
    others = engine_alone([photo(i, "PNG") for i in (0, 4)])
    assert pixels(row["image"]) in others
    assert len(view) == len(list(view)) == COUNT
    assert view.report.counts["instead"] == {"replaced": 2, "dropped": 0}


def test_a_stand_in_depends_on_no_order(photo: Photo) -> None:
    view = hf.anonymize(table(photo, row2=b"no image"), anonymizer(), keep="label", drop="caption")
    [shuffled] = [row["image"] for row in view.shuffle(seed=1) if row["anondata"] != "released"]
    backwards = view.select(range(len(view) - 1, -1, -1))[len(view) - 3]["image"]
    assert pixels(backwards) == pixels(shuffled) == pixels(view[2]["image"])


def test_a_row_that_was_filtered_out_never_stands_in(photo: Photo) -> None:
    ds = table(photo, row0=b"no image").select([0, 1, 2, 3, 4])
    ds = ds.remove_columns("label").add_column("label", [1, 0, 0, 0, 1])
    for key in range(4):  # any of three others would be chosen by chance
        keyed = Anonymizer("faces", device="cpu", run_key=b"run key %08d" % key)
        view = hf.anonymize(ds, keyed, keep="label", drop="caption")
        assert view.filter(lambda label: label == 1, "label")["label"][:] == [1, 1]
        row = view.filter(lambda label: label == 1, "label")[0]
        assert (row["anondata"], row["label"]) == ("replaced: not_an_image", 1)


def test_a_row_of_another_split_never_stands_in(photo: Photo) -> None:
    view = hf.anonymize(table(photo, row0=b"no image"), anonymizer(), keep="label", drop="caption", group="label")
    splits = view.train_test_split(test_size=4, shuffle=False)
    with pytest.raises(WithheldError, match="may stand in"):  # only the row itself is left
        splits["train"][0]


@pytest.mark.parametrize(("bad", "reason"), [(None, "wrong_type"), (b"", "empty")])
def test_a_sample_without_an_image_is_withheld(photo: Photo, bad: bytes | None, reason: str) -> None:
    view = hf.anonymize(table(photo, row1=bad), anonymizer(), keep="label", drop="caption")
    assert view[1]["anondata"] == f"replaced: {reason}"


def test_a_truncated_image_is_withheld_for_that(photo: Photo) -> None:
    ds = table(photo, row1=photo(1)[:3000])
    with pytest.raises(WithheldError, match="truncated"):
        hf.anonymize(ds, anonymizer(), keep="label", drop="caption", on_withheld="raise")[1]


def test_an_unreadable_path_is_replaced_within_its_group(photo: Photo, tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i in (0, 1, 2):
        paths[i].write_bytes(photo(i, "PNG"))
    columns = {"image": [str(path) for path in paths], "label": [0, 1, 0, 1]}
    ds = Dataset.from_dict(columns).cast_column("image", Image())
    row = hf.anonymize(ds, anonymizer(), keep="label", group="label")[3]
    assert row["anondata"] == "replaced: unreadable"
    assert pixels(row["image"]) == engine_alone([photo(1, "PNG")])[0]


def test_a_group_may_be_a_function_of_kept_fields(photo: Photo) -> None:
    ds = table(photo, row5=b"no image").add_column("number", list(range(COUNT)))
    view = hf.anonymize(
        ds, anonymizer(), keep=["label", "number"], drop="caption", group=lambda row: row["number"] > 3
    )
    assert view[5]["number"] == 4


def test_files_are_read_as_datasets_reads_them(photo: Photo, tmp_path: Path) -> None:
    import zipfile

    (tmp_path / "a.png").write_bytes(photo(0, "PNG"))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("in/b.png", photo(1, "PNG"))
    paths = [str(tmp_path / "a.png"), f"zip://in/b.png::{tmp_path / 'b.zip'}"]
    view = hf.anonymize(Dataset.from_dict({"image": paths}).cast_column("image", Image()), anonymizer())
    assert [pixels(image) for image in view["image"]] == engine_alone([photo(0, "PNG"), photo(1, "PNG")])


# nested columns


def nested(photo: Photo) -> Dataset:
    features = Features(
        {
            "frames": List(Image()),
            "meta": {"photo": Image(decode=False), "place": Value("string"), "name": Value("string")},
            "shots": List({"photo": Value("binary"), "id": Value("int64")}),
            "depth": Image(),
        }
    )
    row = {
        "frames": [stored(photo(0, "PNG"), "jane.png"), stored(photo(1, "PNG"))],
        "meta": {"photo": stored(photo(2, "PNG"), "/home/jane.png"), "place": "lake", "name": "Jane"},
        "shots": [{"photo": photo(3, "PNG"), "id": 7}, {"photo": photo(4, "PNG"), "id": 8}],
        "depth": stored(photo(5, "PNG"), "/home/jane_depth.png"),
    }
    empty = {
        "frames": [],
        "meta": {"photo": stored(photo(2, "PNG")), "place": None, "name": ""},
        "shots": [],
        "depth": None,
    }
    return Dataset.from_list([row, empty], features=features)


NESTED: dict[str, Any] = {
    "fields": {"frames": "image", "meta.photo": "image", "shots.photo": "image"},
    "keep": ["meta.place", "shots.id", "depth"],
    "drop": "meta.name",
}


def test_content_is_found_in_lists_and_structs(photo: Photo) -> None:
    view = hf.anonymize(nested(photo), anonymizer(), **NESTED)
    originals = {pixels(photo(i, "PNG")) for i in range(5)}
    row = view[0]
    content = [*row["frames"], row["meta"]["photo"]["bytes"], *(shot["photo"] for shot in row["shots"])]
    assert len(content) == 5
    assert not {pixels(value) for value in content} & originals
    assert row["meta"].keys() == {"photo", "place"}
    assert row["meta"]["photo"]["path"] is None
    assert (row["meta"]["place"], [shot["id"] for shot in row["shots"]]) == ("lake", [7, 8])
    assert view.features["meta"] == {"photo": Image(decode=False), "place": Value("string")}
    assert view[1]["frames"] == view[1]["shots"] == []
    assert view[1]["depth"] is None


def test_a_kept_image_passes_its_pixels_and_not_its_path(photo: Photo) -> None:
    row = hf.anonymize(nested(photo), anonymizer(), **NESTED)[0]
    assert pixels(row["depth"]) == pixels(photo(5, "PNG"))
    assert b"jane_depth" not in pickle.dumps(row)
    assert getattr(row["depth"], "filename", "") == ""


def test_a_kept_image_that_cannot_be_read_withholds_the_row(photo: Photo, tmp_path: Path) -> None:
    lost = table(photo).add_column("depth", [str(tmp_path / "jane.png")] * COUNT).cast_column("depth", Image())
    view = hf.anonymize(lost, anonymizer(), keep=["label", "depth"], drop="caption", on_withheld="raise")
    with pytest.raises(WithheldError, match="unreadable"):
        view[0]
    with pytest.raises(UnreadableSourceError, match="FileNotFoundError") as error:
        view["depth"][0]
    assert "jane" not in str(error.value)


def test_members_of_a_column_are_reached_by_name(photo: Photo) -> None:
    view = hf.anonymize(nested(photo), anonymizer(), **NESTED)
    assert list(view["meta"]["place"]) == ["lake", None]
    assert view["meta"]["place"][0] == "lake"
    with pytest.raises(KeyError):
        view["meta"]["name"][0]


# declarations


UNDECLARED: list[tuple[dict[str, Any], str]] = [
    ({"fields": {"frames": "image"}}, "'meta' is not declared.*meta.photo, meta.place, meta.name"),
    ({**NESTED, "drop": ()}, "'meta.name' is not declared"),
    ({**NESTED, "keep": ["meta.place", "shots.id"]}, "'depth' is not declared"),
    ({**NESTED, "keep": ["shots", "meta.place", "depth"], "fields": {"frames": "image", "meta.photo": "image"}},
     "'shots' is kept, but its member 'shots.photo' holds Value"),
    ({"fields": {"frames": "image"}, "keep": ["meta", "depth"], "drop": "shots"},
     "'meta' is kept, but its member 'meta.photo' holds Image"),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "message"), UNDECLARED)
def test_what_nobody_declared_stops_the_build(photo: Photo, declared: dict[str, Any], message: str) -> None:
    with pytest.raises(UndeclaredFieldError, match=message):
        hf.anonymize(nested(photo), anonymizer(), **declared)


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"fields": {"caption": "image"}, "drop": ["image", "label"]}, FieldTypeError,
     r"holds string.*ds\.cast_column\('caption', datasets\.Image\(\)\)"),
    ({"keep": ["label", "age"], "drop": "caption"}, FieldTypeError, "'age' is declared, but the dataset has no such"),
    ({"keep": ["label", "image"], "drop": "caption"}, PolicyError, "declared twice"),
    ({"keep": "label", "drop": "caption", "on_withheld": "drop"}, PolicyError, "a view cannot drop samples"),
    ({"keep": "label", "drop": "caption", "group": "caption"}, PolicyError, "group names a field that is not kept"),
    ({"fields": {"image": "video"}, "keep": "label", "drop": "caption"}, PolicyError, "rules for frames, image only"),
]  # fmt: skip


@pytest.mark.parametrize(("declared", "kind", "message"), WRONG)
def test_a_wrong_declaration_is_refused_at_build(
    photo: Photo, declared: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        hf.anonymize(table(photo), anonymizer(), **declared)


def test_structs_are_declared_by_their_members(photo: Photo) -> None:
    with pytest.raises(FieldTypeError, match=r"holds structs; declare their members, such as 'meta\.photo'"):
        hf.anonymize(nested(photo), anonymizer(), fields={"meta": "image"}, drop=["frames", "shots", "depth"])
    with pytest.raises(PolicyError, match=r"'meta' and its member 'meta\.photo' are both declared"):
        hf.anonymize(nested(photo), anonymizer(), fields={"meta.photo": "image"}, drop=["meta", "frames", "shots"])


def test_a_dot_in_a_column_name_is_no_member(photo: Photo) -> None:
    ds = table(photo, 2).rename_column("image", "left.png")
    view = hf.anonymize(ds, anonymizer(), fields={"left.png": "image"}, keep="label", drop="caption")
    assert pixels(view[1]["left.png"]) == engine_alone([photo(1, "PNG")], "left.png")[0]


def test_a_name_that_means_two_things_is_refused(photo: Photo) -> None:
    twice = Dataset.from_list([{"a": {"b": stored(photo(0))}, "a.b": stored(photo(1))}])
    twice = twice.cast(Features({"a": {"b": Image()}, "a.b": Image()}))
    with pytest.raises(PolicyError, match="both a column and a member"):
        hf.anonymize(twice, anonymizer(), fields={"a.b": "image"})


def test_a_column_called_like_ours_is_refused(photo: Photo) -> None:
    ds = table(photo).rename_column("label", "anondata")
    with pytest.raises(PolicyError, match="rename it"):
        hf.anonymize(ds, anonymizer(), keep="anondata", drop="caption")
    assert "anondata" in hf.anonymize(ds, anonymizer(), drop=["anondata", "caption"])[0]


@pytest.mark.parametrize("ds", [[{"image": b""}], {"train": 1}, None])
def test_what_is_no_dataset_is_refused(ds: Any) -> None:
    with pytest.raises(FieldTypeError, match=f"not {type(ds).__name__}; for torch datasets"):
        hf.anonymize(ds, anonymizer())


# splits


def test_a_dict_of_datasets_is_a_dict_of_views(photo: Photo) -> None:
    views = hf.anonymize(
        DatasetDict({"train": table(photo, 4), "test": table(photo, 2)}), anonymizer(), keep="label", drop="caption"
    )
    assert list(views) == ["train", "test"]
    assert views.num_rows == {"train": 4, "test": 2}
    assert views.unique("label") == {"train": [0, 1], "test": [0, 1]}
    smaller = views.select_columns(["image"]).with_format("numpy")
    assert smaller["test"][1]["image"].tobytes() == engine_alone([photo(1, "PNG")])[0]
    views.set_format("torch")
    assert isinstance(views["train"][0]["image"], torch.Tensor)
    assert views.report.seen == hf.report(views).seen == 2
    with pytest.raises(RefusedError, match="push_to_hub is not there"):
        views.push_to_hub("someone/something")


def test_there_is_no_report_of_what_was_not_anonymized(photo: Photo) -> None:
    for ds in (table(photo), table(photo).to_iterable_dataset(), 3):
        with pytest.raises(FieldTypeError, match="not anonymized"):
            hf.report(ds)


def test_datasets_own_functions_do_not_reach_originals(view: Any) -> None:
    for join in (datasets.concatenate_datasets, datasets.interleave_datasets):
        with pytest.raises((ValueError, TypeError)) as error:
            join([view, view])
        assert "Jane" not in str(error.value)


@pytest.mark.parametrize("keep", ["file.path", "file"])
def test_a_struct_that_readers_take_for_a_file_is_refused(keep: str) -> None:
    kind = "binary" if keep == "file.path" else "string"
    features = Features({"image": Image(), "file": {"bytes": Value(kind), "path": Value("string")}})
    ds = Dataset.from_dict({"image": [], "file": []}, features=features)
    fields = {"image": "image"} | ({"file.bytes": "image"} if keep == "file.path" else {})
    with pytest.raises(FieldTypeError, match="which readers take for a file"):
        hf.anonymize(ds, anonymizer(), fields=fields, keep=keep)


def test_a_mask_is_told_how_to_become_positions(view: Any) -> None:
    with pytest.raises(FieldTypeError, match="flatnonzero"):
        view[np.arange(COUNT) > 2]
