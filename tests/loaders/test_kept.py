"""Pictures that are kept come out as originals, and that is said aloud."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Pictures

from anondata import Anonymizer
from anondata.loaders import hf
from anondata.loaders.torch import anonymize as anonymize_torch
from anondata.loaders.webdataset import anonymize

SAID = "kept as they are, and not looked at: 'raw'"


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "anondata")
    return lambda: [record.getMessage() for record in caplog.records]


def table(photo: Callable[..., bytes]) -> Dataset:
    features = Features({"image": Image(), "raw": Image(), "label": Value("int64")})
    return Dataset.from_dict({"image": [photo()], "raw": [photo(1)], "label": [1]}, features=features)


def test_of_views_and_streams_of_datasets(
    photo: Callable[..., bytes], said: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    ds = table(photo)
    for each in (ds, DatasetDict({"train": ds}), ds.to_iterable_dataset()):
        hf.anonymize(each, Anonymizer("faces"), keep=("raw", "label"))
        assert [text.partition(". ")[0] for text in said()] == [SAID]
        caplog.clear()
    hf.anonymize(ds, Anonymizer("faces"), keep="label", drop="raw")
    assert said() == []


def test_of_fields_of_shards_by_their_suffix(said: Callable[[], list[str]]) -> None:
    anonymize(Anonymizer("faces"), fields={"jpg": "image"}, keep=("cls", "seg.png"))
    assert [text.partition(". ")[0] for text in said()] == [SAID.replace("raw", "seg.png")]


def test_of_torch_datasets_when_the_first_sample_is_read(
    photo: Callable[..., bytes], said: Callable[[], list[str]]
) -> None:
    pictures = [Pictures.open(io.BytesIO(photo(i))) for i in range(2)]
    safe = anonymize_torch([(*pictures, 3)] * 2, Anonymizer("faces"), fields={0: "image"}, keep=(1, 2))
    assert said() == []
    _ = safe[0], safe[1]
    assert [text.partition(". ")[0] for text in said()] == [SAID.replace("raw", "1")]
