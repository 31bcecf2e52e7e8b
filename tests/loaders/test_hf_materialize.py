"""Parquet files of anonymized rows: what is in them, and what is left when a run is stopped."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as Pictures

from anondata import Anonymizer
from anondata.errors import LeakError, OutputError, PolicyError, WithheldError
from anondata.loaders import hf
from anondata.loaders._flow import Flow
from anondata.loaders._spares import Spares
from anondata.loaders.hf import materialize
from anondata.report import from_json
from anondata.samples import declare

COUNT = 5
Photo = Callable[..., bytes]
FEATURES = Features({"image": Image(), "label": ClassLabel(names=["a", "b"]), "caption": Value("string")})
DECLARED: dict[str, Any] = {"keep": "label", "drop": "caption"}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where datasets puts its copies."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


@cache
def anonymizer() -> Anonymizer:
    return Anonymizer("faces", device="cpu", run_key=b"0123456789abcdef")


def table(photo: Photo, count: int = COUNT, **changed: bytes) -> Dataset:
    photos = [changed.get(f"row{i}", photo(i, "PNG")) for i in range(count)]
    images = [{"bytes": data, "path": f"/home/jane/{i}.png"} for i, data in enumerate(photos)]
    columns = {"image": images, "label": [i % 2 for i in range(count)], "caption": ["Jane"] * count}
    named = Dataset.from_dict(columns, features=FEATURES)
    named.info.description = named.info.homepage = "https://jane.example"
    return named


def view_of(ds: Any, **options: Any) -> Any:
    return hf.anonymize(ds, anonymizer(), **{**DECLARED, **options})


def pixels(value: Any) -> bytes:
    image = Pictures.open(io.BytesIO(value)) if isinstance(value, bytes) else value
    return np.asarray(image).tobytes()


@cache
def released(data: bytes) -> bytes:
    """The oracle: a photo by itself through the engine."""
    [settled] = Flow(anonymizer(), declare({"image": "image"})).settle([{"image": data}], Spares())
    assert settled.fields is not None
    return pixels(settled.fields["image"])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("data/*"))}


def test_the_files_hold_what_the_engine_alone_releases(photo: Photo, tmp_path: Path) -> None:
    made = view_of(table(photo)).materialize(tmp_path / "out", rows_per_file=2)
    assert isinstance(made, Dataset)
    assert [pixels(image) for image in made["image"]] == [released(photo(i, "PNG")) for i in range(COUNT)]
    assert made["label"][:] == [0, 1, 0, 1, 0]
    assert list(files(tmp_path / "out")) == [f"train-0000{i}-of-00003.parquet" for i in range(3)]


def test_load_dataset_finds_the_files(photo: Photo, tmp_path: Path) -> None:
    splits = DatasetDict({"train": table(photo, 3), "test": table(photo, 1)})
    made = view_of(splits).materialize(tmp_path / "out", rows_per_file=2)
    loaded = datasets.load_dataset(str(tmp_path / "out"))
    assert isinstance(made, DatasetDict)
    assert {name: len(part) for name, part in loaded.items()} == {"train": 3, "test": 1}
    for name in splits:
        assert loaded[name].features == made[name].features == {n: f for n, f in FEATURES.items() if n != "caption"}
        assert [pixels(i) for i in loaded[name]["image"]] == [pixels(i) for i in made[name]["image"]]


def test_types_of_nested_columns_are_kept(photo: Photo, tmp_path: Path) -> None:
    features = Features(
        {
            "frames": List(Image()),
            "shots": List({"photo": Image(), "id": Value("int8")}),
            "raw": Value("binary"),
            "name": Value("string"),
        }
    )
    file = [{"bytes": photo(i, "PNG"), "path": "jane.png"} for i in range(3)]
    rows = [
        {"frames": file[:2], "shots": [{"photo": file[2], "id": 3}], "raw": photo(4), "name": "Jane"},
        {"frames": [], "shots": [], "raw": photo(5), "name": "Jane"},
    ]
    fields = {"frames": "image", "shots.photo": "image", "raw": "image"}
    ds = Dataset.from_list(rows, features=features)
    view = hf.anonymize(ds, anonymizer(), fields=fields, keep="shots.id", drop="name")
    made = view.materialize(tmp_path / "out")
    assert made.features == {name: kind for name, kind in features.items() if name != "name"}
    assert [pixels(image) for image in made[0]["frames"]] == [pixels(image) for image in view[0]["frames"]]
    assert pixels(made[0]["shots"][0]["photo"]) == pixels(view[0]["shots"][0]["photo"])
    assert made[0]["raw"] == view[0]["raw"]
    assert made[0]["shots"][0]["id"] == 3
    assert (made[1]["frames"], made[1]["shots"]) == ([], [])


def test_columns_are_those_of_the_view(photo: Photo, tmp_path: Path) -> None:
    view = (
        view_of(table(photo)).select([3, 0]).rename_column("image", "photo").with_format("torch", columns=["label"])
    )
    made = view.materialize(tmp_path / "out")
    assert made.column_names == ["photo", "label"]
    assert [pixels(image) for image in made["photo"]] == [released(photo(i, "PNG")) for i in (3, 0)]


def test_images_may_be_files(photo: Photo, tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"jane{i}.png").write_bytes(photo(i, "PNG"))
    paths = [str(tmp_path / f"jane{i}.png") for i in range(3)]  # one is not there
    ds = Dataset.from_dict({"image": paths}).cast_column("image", Image())
    made = hf.anonymize(ds, anonymizer()).materialize(tmp_path / "out")
    assert [pixels(image) for image in made["image"]] == [released(photo(i, "PNG")) for i in range(2)]
    assert from_json((tmp_path / "out" / "report.json").read_text()).withheld == {"unreadable": 1}


# nothing of the source


def test_nothing_of_the_source_is_told(photo: Photo, tmp_path: Path, cache_folder: Path) -> None:
    """Neither in the files nor in what is beside them, nor in the copy that datasets reads them from."""
    made = view_of(table(photo)).materialize(tmp_path / "out", rows_per_file=2)
    for path in tmp_path.glob("out/data/*"):
        read = pq.read_table(path)
        assert [row["image"]["path"] for row in read.to_pylist()] == [None] * len(read)
        told = json.loads(read.schema.metadata[b"huggingface"])
        assert told == {"info": {"features": made.features.to_dict()}}
        assert set(read.schema.metadata) == {b"huggingface"}
        assert set(pq.read_metadata(path).metadata) <= {b"huggingface", b"ARROW:schema", b"content_defined_chunking"}
    assert made.info.description == made.info.homepage == ""
    search([*tmp_path.glob("out/**/*"), *cache_folder.rglob("*")], photo)
    assert b"jane" not in pickle.dumps(made[:])


def test_what_is_written_on_the_way_holds_no_original(photo: Photo, tmp_path: Path) -> None:
    view = view_of(table(photo))
    split = materialize._split_of("train", view, "drop", COUNT, None)
    [file] = split.files()
    rows = materialize._written(split, file, split.source.flow, tmp_path / "part.parquet")
    assert rows == COUNT
    assert (tmp_path / "rows.arrow").stat().st_size > 10_000
    search([tmp_path / "rows.arrow", tmp_path / "part.parquet"], photo)


def search(paths: list[Path], photo: Photo) -> None:
    looked = 0
    for path in (path for path in paths if path.is_file()):
        data = path.read_bytes()
        looked += 1
        assert b"jane" not in data.lower()
        for i in range(COUNT):
            original = photo(i, "PNG")
            middle = range(len(original) // 4, 3 * len(original) // 4, 999)
            assert not any(original[at : at + 32] in data for at in middle)
    assert looked > 1


def test_nothing_is_left_of_the_work(photo: Photo, tmp_path: Path) -> None:
    view_of(table(photo)).materialize(tmp_path / "out")
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in tmp_path.glob("out/**/*") if path.is_file())
    part = "data/train-00000-of-00001.parquet"
    work = [".anondata/lock", ".anondata/manifest.json", f".anondata/parts/{part}.json", ".anondata/run.json"]
    assert names == [*work, part, "report.json"]


def test_a_kept_copy_of_an_original_is_found(photo: Photo, tmp_path: Path) -> None:
    """What was kept by mistake stops the file from being put in place."""
    ds = table(photo).add_column("thumb", [photo(i, "PNG") for i in range(COUNT)])
    with pytest.raises(LeakError):
        view_of(ds, keep=["label", "thumb"]).materialize(tmp_path / "out")
    assert not files(tmp_path / "out")
    search([path for path in tmp_path.glob("out/**/*") if path.is_file()] * 2, photo)


# withheld rows


def test_withheld_rows_are_dropped_and_counted(photo: Photo, tmp_path: Path) -> None:
    made = view_of(table(photo, row1=b"no image", row4=photo(4)[:2000])).materialize(
        tmp_path / "out", rows_per_file=2
    )
    assert [pixels(image) for image in made["image"]] == [released(photo(i, "PNG")) for i in (0, 2, 3)]
    report = from_json((tmp_path / "out" / "report.json").read_text())
    assert (report.seen, report.released) == (COUNT, 3)
    assert report.counts["instead"] == {"replaced": 0, "dropped": 2}


def test_withheld_rows_are_replaced_and_said_so(photo: Photo, tmp_path: Path) -> None:
    view = view_of(table(photo, row1=b"no image"), group="label")
    made = view.materialize(tmp_path / "out", on_withheld="replace", rows_per_file=2)
    assert made["anondata"][:] == ["released", "replaced: not_an_image", *["released"] * 3]
    assert pixels(made[1]["image"]) == released(photo(3, "PNG")) == pixels(view[1]["image"])


@pytest.mark.parametrize("processes", [1, 2])
def test_stand_ins_are_rows_of_the_view_from_any_file(photo: Photo, tmp_path: Path, processes: int) -> None:
    view = view_of(table(photo, row0=b"no image")).select([0, 3])
    out = tmp_path / "out"
    made = view.materialize(out, on_withheld="replace", rows_per_file=1, num_proc=processes)
    assert [pixels(image) for image in made["image"]] == [released(photo(3, "PNG"))] * 2


def test_withheld_rows_may_stop_the_run(photo: Photo, tmp_path: Path) -> None:
    view = view_of(table(photo, row3=b"no image"))
    with pytest.raises(WithheldError, match="not_an_image"):
        view.materialize(tmp_path / "out", on_withheld="raise", rows_per_file=2)
    assert list(files(tmp_path / "out")) == ["train-00000-of-00003.parquet"]


def test_splits_of_which_nothing_is_left_are_empty(photo: Photo, tmp_path: Path) -> None:
    ds = DatasetDict({"train": table(photo, 2), "none": table(photo, 0), "bad": table(photo, 1, row0=b"")})
    made = view_of(ds).materialize(tmp_path / "out")
    assert made.num_rows == {"train": 2, "none": 0, "bad": 0}
    assert made["none"].features == made["bad"].features == made["train"].features


# runs that are stopped, and go on


def test_a_second_call_does_nothing_again(photo: Photo, tmp_path: Path) -> None:
    view = view_of(table(photo))
    first = view.materialize(tmp_path / "out", rows_per_file=2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/data/*")}
    report = (tmp_path / "out" / "report.json").read_text()
    again = view.materialize(tmp_path / "out", rows_per_file=2)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/data/*")}
    assert (tmp_path / "out" / "report.json").read_text() == report
    assert [pixels(image) for image in again["image"]] == [pixels(image) for image in first["image"]]


def test_files_that_are_not_whole_are_made_again(photo: Photo, tmp_path: Path) -> None:
    view = view_of(table(photo))
    view.materialize(tmp_path / "out", rows_per_file=2)
    before = files(tmp_path / "out")
    (tmp_path / "out/data/train-00000-of-00003.parquet").unlink()
    with open(tmp_path / "out/data/train-00001-of-00003.parquet", "r+b") as file:
        file.truncate(1000)
    view.materialize(tmp_path / "out", rows_per_file=2)
    assert files(tmp_path / "out") == before


def test_rows_that_changed_are_made_again(photo: Photo, tmp_path: Path) -> None:
    view_of(table(photo)).materialize(tmp_path / "out")
    made = view_of(table(photo).select([4, 3, 2, 1, 0])).materialize(tmp_path / "out")
    assert pixels(made[0]["image"]) == released(photo(4, "PNG"))


@pytest.mark.parametrize("on_withheld", ["drop", "replace"])
def test_files_that_changed_are_made_again(photo: Photo, tmp_path: Path, on_withheld: str) -> None:
    place = tmp_path / "jane.png"
    place.write_bytes(photo(0, "PNG"))
    ds = Dataset.from_dict({"image": [str(place)]}).cast_column("image", Image())
    view = hf.anonymize(ds, anonymizer())
    view.materialize(tmp_path / "out", on_withheld=on_withheld)
    place.write_bytes(photo(1, "PNG"))
    made = view.materialize(tmp_path / "out", on_withheld=on_withheld)
    assert pixels(made[0]["image"]) == released(photo(1, "PNG"))


def test_stand_ins_of_other_rows_are_made_again(photo: Photo, tmp_path: Path) -> None:
    view = view_of(table(photo, row0=b"no image"))
    for other in (1, 3):
        chosen = view.select([0, other])
        made = chosen.materialize(tmp_path / "out", on_withheld="replace", rows_per_file=1)
        assert pixels(made[0]["image"]) == released(photo(other, "PNG"))


SCRIPT = """
import pickle, sys
from anondata import Anonymizer
from anondata.loaders import hf
from datasets import Dataset
if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        ds, count = pickle.load(file)
    key = b"0123456789abcdef"
    view = hf.anonymize(ds, Anonymizer("faces", device="cpu", run_key=key), keep="label", drop="caption")
    view.materialize(sys.argv[2], rows_per_file=1, num_proc=count)
"""


@pytest.mark.parametrize(("how", "processes"), [(signal.SIGKILL, 1), (signal.SIGKILL, 2), (signal.SIGINT, 2)])
def test_a_run_that_was_stopped_goes_on(photo: Photo, tmp_path: Path, how: signal.Signals, processes: int) -> None:
    ds, out = table(photo), tmp_path / "out"
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "job").write_bytes(pickle.dumps((ds, processes)))
    command = [sys.executable, "script.py", "job", "out"]
    with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE) as run:
        wait_until(lambda: len(files(out)) >= 1 or run.poll() is not None)
        (os.killpg if how == signal.SIGINT else os.kill)(run.pid, how)  # Ctrl-C goes to all processes
        errors = run.communicate(timeout=60)[1]
    assert run.returncode in (-how, 1), errors
    wait_until(lambda: not is_alive(run.pid))  # with all that it started
    interrupted = files(out)
    assert 1 <= len(interrupted) < COUNT
    assert not (out / "report.json").exists()
    if how == signal.SIGINT:
        assert not (out / ".anondata" / "tmp").exists()
    made = view_of(ds).materialize(out, rows_per_file=1)
    assert {name: files(out)[name] for name in interrupted} == interrupted
    assert [pixels(image) for image in made["image"]] == [released(photo(i, "PNG")) for i in range(COUNT)]
    view_of(ds).materialize(tmp_path / "straight", rows_per_file=1)
    assert files(tmp_path / "straight") == files(out)
    assert (tmp_path / "straight/report.json").read_text() == (out / "report.json").read_text()


def is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(done: Callable[[], bool], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_several_processes_write_the_same_files(photo: Photo, tmp_path: Path) -> None:
    view = view_of(table(photo, 4))
    for processes in (1, 2):
        view.materialize(tmp_path / str(processes), rows_per_file=2, num_proc=processes)
    assert files(tmp_path / "1") == files(tmp_path / "2")
    assert (tmp_path / "1/report.json").read_text() == (tmp_path / "2/report.json").read_text()


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"on_withheld": "replace"}, "on_withheld"),
        ({"rows_per_file": 3}, "number of rows or files"),
    ],
)
def test_a_folder_of_another_setting_is_left_alone(photo: Photo, tmp_path: Path, options: Any, changed: str) -> None:
    view = view_of(table(photo, 2))
    view.materialize(tmp_path / "out", rows_per_file=1)
    before = files(tmp_path / "out")
    with pytest.raises(OutputError, match=f"settings: {changed}"):
        view.materialize(tmp_path / "out", **{"rows_per_file": 1, **options})
    assert files(tmp_path / "out") == before


def test_a_folder_with_other_data_is_left_alone(photo: Photo, tmp_path: Path) -> None:
    (tmp_path / "out" / "data").mkdir(parents=True)
    (tmp_path / "out" / "data" / "train-00000-of-00002.parquet").write_bytes(b"")
    with pytest.raises(OutputError, match="holds files that no run of anondata wrote"):
        view_of(table(photo, 2)).materialize(tmp_path / "out")


def test_data_that_came_later_is_left_alone(photo: Photo, tmp_path: Path) -> None:
    view_of(table(photo, 1)).materialize(tmp_path / "out")
    (tmp_path / "out" / "data" / "train-00000-of-00002.parquet").write_bytes(b"")
    with pytest.raises(OutputError, match="holds files that this would not write"):
        view_of(table(photo, 1)).materialize(tmp_path / "out")


def test_a_folder_of_originals_is_refused(photo: Photo, tmp_path: Path) -> None:
    (tmp_path / "jane.png").write_bytes(photo(0, "PNG"))
    with pytest.raises(OutputError, match="no run of anondata wrote"):
        view_of(table(photo, 1)).materialize(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["jane.png"]


def test_data_that_is_a_link_is_refused(photo: Photo, tmp_path: Path) -> None:
    view_of(table(photo, 1)).materialize(tmp_path / "out")
    (tmp_path / "out" / "data").rename(tmp_path / "elsewhere")
    (tmp_path / "out" / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="link to another place"):
        view_of(table(photo, 1)).materialize(tmp_path / "out")


@pytest.mark.parametrize(
    "options", [{"on_withheld": "forget"}, {"num_proc": 0}, {"rows_per_file": 0}], ids=["what", "processes", "rows"]
)
def test_wrong_options_are_refused(photo: Photo, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="expected"):
        view_of(table(photo, 1)).materialize(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
