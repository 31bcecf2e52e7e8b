"""Kept pictures are compared with the originals, whatever their format, and those that cannot be are not passed."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from skimage import data

from anondata import Anonymizer
from anondata.errors import LeakError
from anondata.loaders.leaks import Traces
from anondata.loaders.leaks.placed import COPY, likenesses
from anondata.records import Released, SampleRecord

KEY = b"0123456789abcdef"


def picture(value: bytes) -> Image.Image:
    return Image.open(io.BytesIO(value)).convert("RGB")


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@cache
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


def face_of(value: bytes, room: float = 1.0, number: int = 0) -> Image.Image:
    """A face of a picture, cut out with its box made wider."""
    x0, y0, x1, y1 = released(value)[1].regions[number].box
    across, down = (x1 - x0) * (room - 1) / 2, (y1 - y0) * (room - 1) / 2
    box = (max(round(x0 - across), 0), max(round(y0 - down), 0), round(x1 + across), round(y1 + down))
    return picture(value).crop(box)


def in_a_square(image: Image.Image, border: int = 30) -> Image.Image:
    side = max(image.size) + 2 * border
    out = Image.new("RGB", (side, side), (12, 12, 12))
    out.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return out


SHOWN: dict[str, Callable[[bytes], Any]] = {
    "the face": lambda value: encoded(face_of(value)),
    "the face in a JPEG": lambda value: encoded(face_of(value, 1.3), "JPEG", quality=75),
    "the face made a square": lambda value: encoded(face_of(value, 1.3).resize((112, 112)), "JPEG"),
    "the face mirrored": lambda value: encoded(ImageOps.mirror(face_of(value, 1.5))),
    "the face turned": lambda value: encoded(face_of(value, 1.5).rotate(-10, Image.Resampling.BICUBIC)),
    "all of it in a square": lambda value: encoded(in_a_square(picture(value)), "JPEG", quality=80),
    "all of it, small, in a square": lambda value: encoded(in_a_square(picture(value), 9).resize((128, 128))),
    "a negative": lambda value: encoded(ImageOps.invert(picture(value))),
    "all of it turned": lambda value: encoded(picture(value).rotate(10, Image.Resampling.BICUBIC)),
    "all of it on its side": lambda value: encoded(picture(value).rotate(90, expand=True)),
    "an array from its end": lambda value: np.asarray(picture(value))[::-1, ::-1, ::-1].copy(),
    "pixels XORed with 0x55": lambda value: encoded(Image.fromarray(np.asarray(face_of(value)) ^ 0x55)),
}


@pytest.mark.parametrize("how", SHOWN)
@pytest.mark.parametrize("side_px", [160, 64])
def test_a_face_that_a_kept_picture_shows_anywhere_is_found(
    how: str, side_px: int, photo: Callable[..., bytes]
) -> None:
    original = photo() if side_px == 160 else encoded(picture(photo()).resize((side_px, side_px)))
    value, record = released(original)
    with pytest.raises(LeakError, match="a kept picture shows a region"):
        Traces().add({"image": original}, record, {"image": value}, {"face.png": SHOWN[how](original)})


def test_each_face_of_many_is_looked_for(photo: Callable[..., bytes]) -> None:
    original = photo(group=True)
    value, record = released(original)
    for number in range(len(record.regions)):
        kept = encoded(face_of(original, 1.3, number), "JPEG", quality=85)
        with pytest.raises(LeakError, match="a kept picture shows a region"):
            Traces().add({"image": original}, record, {"image": value}, {"face.jpg": kept})


def test_what_shows_no_face_of_it_passes(photo: Callable[..., bytes]) -> None:
    """A label, a scene, what a policy made of the photo in any place, and its light and shade alone."""
    original = photo()
    value, record = released(original)
    covered = picture(original)
    x0, y0, x1, y1 = (round(side) for side in record.regions[0].box)
    covered.paste((90, 120, 60), (x0, y0, x1, y1))
    for kept in (
        picture(value),
        in_a_square(picture(value)),
        covered,
        covered.rotate(10),
        face_of(original, 1.3).filter(ImageFilter.GaussianBlur(20)),
        Image.linear_gradient("L"),
        picture(original).convert("L").filter(ImageFilter.FIND_EDGES),
        Image.fromarray(data.coffee()).resize((300, 200)),
        Image.fromarray(data.chelsea()).resize((225, 150)),
        Image.new("L", (3, 5)),
    ):
        Traces().add({"image": original}, record, {"image": value}, {"more": encoded(kept)})


def test_other_people_are_not_taken_for_the_one(shared_data: Path) -> None:
    """Portraits of one studio, in one pose, are the most alike that there are."""
    files = sorted((shared_data / "faces_london").glob("*.jpg"))[::17]
    _, record = released(files[0].read_bytes())
    first, *others = (torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1) for file in files)
    boxes = [region.box for region in record.regions]
    assert min(likenesses(first, first, boxes)) > COPY
    assert max(score for other in others for score in likenesses(first, other, boxes)) < COPY


@pytest.mark.parametrize("how", ["reversed", "XORed", "reversed and XORed"])
def test_bytes_of_an_original_are_found_reversed_and_xored(
    how: str, photo: Callable[..., bytes], tmp_path: Path
) -> None:
    """Of its file and of its pixels, whether they are kept or lie where nobody declared anything."""
    original = photo()
    value, record = released(original)
    for raw in (original, np.asarray(picture(original)).tobytes()):
        hidden = raw[::-1] if "reversed" in how else raw
        hidden = bytes(byte ^ 0xA7 for byte in hidden) if "XORed" in how else hidden
        traces = Traces()
        traces.add({"image": original}, record, {"image": value}, {"blob": hidden})
        with pytest.raises(LeakError, match="a part of an original"):
            traces.check_file(write(tmp_path / "x.parquet", [value], blob=[hidden]))


def test_other_files_of_the_same_kind_are_no_parts_of_it(photo: Callable[..., bytes], tmp_path: Path) -> None:
    """What all JPEGs of a quality have in common tells nothing."""
    scene = Image.fromarray(data.coffee()).resize((300, 200))
    more = [encoded(scene, "JPEG", quality=quality) for quality in (75, 87, 95)]
    original = photo(quality=87)
    value, record = released(original)
    traces = Traces()
    traces.add({"image": original}, record, {"image": value}, {str(i): one for i, one in enumerate(more)})
    traces.check_file(write(tmp_path / "x.parquet", [value] * 3, more=more, mixed=[one[::-1] for one in more]))
