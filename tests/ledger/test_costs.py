"""What a sample costs is what was released of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from anondata.errors import FieldTypeError
from anondata.ledger import cost_of
from anondata.records import RegionRecord, SampleRecord
from anondata.samples import Schema

IMAGE = Schema({"image": "image", "label": "keep", "caption": "drop"})


def region(place: str, kind: str = "face") -> RegionRecord:
    return RegionRecord(place, (0, 0, 9, 9), kind, 9.0, 0.9, "detect", False, 0, "fill")


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (b"12345", 5),
        (bytearray(b"123"), 3),
        (Image.new("RGB", (7, 5)), 105),
        (Image.new("L", (7, 5)), 35),
        (np.zeros((4, 5, 3), np.uint8), 60),
        (torch.zeros(3, 4, 5), 240),
        ({"bytes": b"1234", "path": None}, 4),
        ("Zoë", 4),
        (None, 0),
        ([b"12", [b"3", (b"4",)]], 4),
        ([], 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bytes_are_those_of_the_value(value, size):
    assert cost_of({"image": value}, IMAGE, SampleRecord())["image"]["bytes"] == size


def test_a_sample_is_one_however_many_pictures_it_holds():
    schema = Schema({"frames": "image", "cover": "image"})
    cost = cost_of({"frames": [b"12", b"34"], "cover": b"5"}, schema, SampleRecord())
    assert cost == {"image": {"samples": 1, "bytes": 5, "seconds": 0, "faces": 0}}


def test_faces_are_those_of_the_fields_of_a_content_type():
    schema = Schema({"a": "image", "ab": "video", "c": "keep"})
    record = SampleRecord((region("a"), region("ab[0]"), region("ab[3]"), region("a[1][2]"), region("a", "plate")))
    cost = cost_of({"a": b"", "ab": [b"", b""], "c": 3}, schema, record)
    assert {kind: amounts["faces"] for kind, amounts in cost.items()} == {"image": 2, "video": 2}


def test_what_is_kept_or_missing_costs_nothing():
    schema = Schema({"image": "image", "sound": "audio", "label": "keep"})
    assert list(cost_of({"image": b"1", "label": b"12345"}, schema, SampleRecord())) == ["image"]


def test_a_value_whose_size_nobody_knows_is_refused_without_showing_it():
    with pytest.raises(FieldTypeError, match="the size of a set is not known") as refused:
        cost_of({"image": {"Jane"}}, IMAGE, SampleRecord())
    assert "Jane" not in str(refused.value)
