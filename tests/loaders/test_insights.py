"""A field that is declared ``"insights"`` comes out of every adapter with a text, and nothing of the source in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, IterableDataset, Value

from anondata import Anonymizer
from anondata.errors import PolicyError
from anondata.loaders import hf
from anondata.loaders.torch import anonymize as anonymize_torch
from anondata.loaders.webdataset import anonymize

Photo = Callable[..., bytes]
FIELDS = {"image": "image", "note": "insights"}
COUNT = 3


@pytest.fixture(scope="module")
def anonymizer() -> Anonymizer:
    return Anonymizer("faces", device="cpu", run_key=b"0123456789abcdef")


def table(photo: Photo, **columns: list[Any]) -> Dataset:
    features = Features({"image": Image(), **{name: Value("string") for name in columns}})
    images = [{"bytes": photo(i, "PNG"), "path": None} for i in range(COUNT)]
    return Dataset.from_dict({"image": images, **columns}, features=features)


def test_a_view_has_a_column_of_texts(anonymizer: Anonymizer, photo: Photo) -> None:
    view = hf.anonymize(table(photo), anonymizer, fields=FIELDS)
    assert view.features["note"] == Value("string")
    assert all(text.startswith("One face: ") for text in view["note"])


def test_a_stand_in_has_its_own_text(anonymizer: Anonymizer, photo: Photo) -> None:
    dataset = table(photo)
    images = [{"bytes": b"no picture", "path": None}, {"bytes": photo(0, "PNG"), "path": None}]
    view = hf.anonymize(Dataset.from_dict({"image": images}, features=dataset.features), anonymizer, fields=FIELDS)
    assert view[0]["anondata"].startswith("replaced")
    assert view[0]["note"] == view[1]["note"] != ""


def test_they_are_written(anonymizer: Anonymizer, photo: Photo, tmp_path: Path) -> None:
    view = hf.anonymize(table(photo, caption=["Jane"] * COUNT), anonymizer, fields=FIELDS, drop="caption")
    written = view.materialize(tmp_path / "out", cache_dir=tmp_path / "cache")
    assert written.column_names == ["image", "note"]
    assert written["note"][:] == view["note"][:]


def test_a_column_of_that_name_must_be_dropped(anonymizer: Anonymizer, photo: Photo) -> None:
    with pytest.raises(PolicyError, match="is a column; drop it"):
        hf.anonymize(table(photo, note=["Jane"] * COUNT), anonymizer, fields=FIELDS)


@pytest.mark.parametrize("typed", [True, False])
def test_a_stream_has_them(anonymizer: Anonymizer, photo: Photo, typed: bool) -> None:
    """Where types are not known, a column of that name is overwritten."""
    if typed:
        stream = table(photo).to_iterable_dataset()
    else:
        rows = [{"image": photo(i, "PNG"), "note": "Jane"} for i in range(COUNT)]
        stream = IterableDataset.from_generator(lambda: iter(rows))
    texts = [row["note"] for row in hf.anonymize(stream, anonymizer, fields=FIELDS)]
    assert len(texts) == COUNT
    assert all(text.startswith("One face: ") for text in texts)


def test_a_stage_of_webdataset_has_them_as_bytes_beside_encoded_pictures(
    anonymizer: Anonymizer, photo: Photo
) -> None:
    stage = anonymize(anonymizer, fields={"jpg;png": "image", "insights.txt": "insights"})
    samples = [{"__key__": str(i), "png": photo(i, "PNG")} for i in range(COUNT)]
    out = list(stage(samples))
    assert len(out) == COUNT
    assert all(sample["insights.txt"].startswith(b"One face: ") for sample in out)


def test_a_torch_dataset_of_dicts_has_them(anonymizer: Anonymizer, photo: Photo) -> None:
    rows = [{"image": photo(i, "PNG")} for i in range(COUNT)]
    safe = anonymize_torch(rows, anonymizer, fields=FIELDS)
    assert safe[0]["note"].startswith("One face: ")
