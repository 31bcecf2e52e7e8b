"""Kept pictures are compared with the originals, whatever their format, and those that cannot be are not passed."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from anondata import Anonymizer
from anondata.errors import LeakError
from anondata.loaders.leaks import Traces
from anondata.records import Released, SampleRecord

KEY = b"0123456789abcdef"


def picture(value: bytes) -> Image.Image:
    return Image.open(io.BytesIO(value)).convert("RGB")


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def released(value: bytes) -> tuple[Any, SampleRecord]:
    [outcome] = Anonymizer("faces", device="cpu", run_key=KEY).anonymize([value])
    assert isinstance(outcome, Released)
    return outcome.image, outcome.record


def write(path: Path, values: list[bytes], **more: list[Any]) -> Path:
    pq.write_table(pa.table({"image": [{"bytes": v, "path": None} for v in values], **more}), path)
    return path


def small(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def test_kept_pictures_pass_where_they_are_given(photo: Callable[..., bytes], tmp_path: Path) -> None:
    original = photo()
    value, record = released(original)
    mask = encoded(Image.linear_gradient("L"))
    path = write(tmp_path / "x.parquet", [value], mask=[{"bytes": mask, "path": None}], depth=[mask])
    traces = Traces()
    traces.add({"image": original}, record, {"image": value})
    with pytest.raises(LeakError, match="neither released nor kept"):
        traces.check_file(path)
    traces.add({"image": original}, record, {"image": value}, {"mask": {"bytes": mask, "path": "m.png"}, "label": 3})
    traces.check_file(path)


def test_a_kept_picture_that_shows_the_face_is_found(photo: Callable[..., bytes]) -> None:
    original = photo()
    value, record = released(original)
    thumbnail = encoded(small(picture(original), 0.5), "JPEG", quality=75)
    spelled_out = "data:image/jpeg;base64," + base64.b64encode(thumbnail).decode()
    for kept in (thumbnail, small(picture(original), 0.4), original, {"in": [{"bytes": thumbnail}]}, spelled_out):
        with pytest.raises(LeakError, match="a kept picture"):
            Traces().add({"image": original}, record, {"image": value}, {"thumbnail": kept})


def test_what_techniques_redraw_is_looked_for_in_kept_pictures_as_strictly_as_ever(
    photo: Callable[..., bytes],
) -> None:
    original = photo()
    value, record = released(original)
    swapped = SampleRecord(tuple(replace(r, technique="synthetic_face {}") for r in record.regions))
    [region] = record.regions
    face = picture(original).rotate(5, Image.Resampling.BICUBIC, center=center(region.box))
    for kept in (encoded(face), encoded(small(picture(original), 0.15))):
        with pytest.raises(LeakError, match="a kept picture"):
            Traces().add({"image": original}, swapped, {"image": value}, {"thumbnail": kept})


def center(box: tuple[float, float, float, float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


@pytest.mark.parametrize("form", ["AVIF", "JPEG2000", "PPM", "TGA"])
def test_a_kept_picture_of_any_format_is_compared(form: str, photo: Callable[..., bytes]) -> None:
    value, record = released(photo())
    with pytest.raises(LeakError, match="a kept picture"):
        Traces().add({"image": photo()}, record, {"image": value}, {"more": encoded(picture(photo()), form)})
    Traces().add({"image": photo()}, record, {"image": value}, {"more": encoded(picture(value), form)})


@pytest.mark.parametrize(("form", "cut"), [("JPEG", 2), ("JPEG", 700), ("PNG", 12), ("AVIF", 99), ("JPEG2000", 2000)])
def test_a_kept_picture_that_ends_early_is_not_passed(form: str, cut: int, photo: Callable[..., bytes]) -> None:
    value, record = released(photo())
    early = encoded(picture(photo()), form)[:-cut]
    for kept in (early, {"bytes": early, "path": None}, base64.b64encode(early).decode()):
        with pytest.raises(LeakError, match="a kept picture"):
            Traces().add({"image": photo()}, record, {"image": value}, {"more": kept})
    Traces().add({"image": photo()}, SampleRecord(), {"image": value}, {"more": early})


@pytest.mark.parametrize("rest", range(3))
def test_base64_is_read_to_its_last_byte(rest: int, photo: Callable[..., bytes]) -> None:
    value, record = released(photo())
    kept = encoded(picture(photo()), "JPEG", quality=75)
    kept = kept[:-2] + bytes(-(len(kept) - rest) % 3) + kept[-2:]
    assert len(kept) % 3 == rest
    text = base64.b64encode(kept).decode()
    with pytest.raises(LeakError, match="shows a region"):
        Traces().add({"image": photo()}, record, {"image": value}, {"more": f'{{"thumb": "{text}"}}'})


def test_kept_arrays_and_texts_that_are_no_pictures_pass(photo: Callable[..., bytes]) -> None:
    value, record = released(photo())
    kept = {"boxes": np.ones((5, 4)), "text": "P6 is a road, and nobody walks there " * 9, "bytes": bytes(range(256))}
    Traces().add({"image": photo()}, record, {"image": value}, kept)
