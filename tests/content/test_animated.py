"""Files of several pictures: read as Pillow shows them, written whole, and refused when they end early."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from anondata.content import animated
from anondata.content._reel import take_apart
from anondata.content.animated import decode, encode, in_format, several
from anondata.content.codec import Picture
from anondata.errors import UndecodableError

FORMATS = ("GIF", "PNG", "WEBP", "TIFF")
SAID: dict[str, dict[str, Any]] = {
    "GIF": {"comment": b"a secret name"},
    "PNG": {},
    "WEBP": {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0a secret name", "lossless": True},
    "TIFF": {"description": "a secret name", "compression": "tiff_lzw"},
}


def drawn(count: int = 5, *, clear: bool = False) -> list[Image.Image]:
    """A square that moves over a gradient, or over nothing."""
    out = []
    for k in range(count):
        levels = np.zeros((40, 60, 4), np.uint8)
        if not clear:
            levels[..., 0], levels[..., 3] = np.arange(60)[None] * 4, 255
        levels[10:20, 5 * k : 5 * k + 12] = (20, 30 * k, 200, 255)
        out.append(Image.fromarray(levels if clear else levels[..., :3]))
    return out


def saved(form: str, pictures: list[Image.Image] | None = None, **options: Any) -> bytes:
    first, *others = pictures or drawn()
    buffer = io.BytesIO()
    timed = {} if form == "TIFF" else {"duration": 70, "loop": 3}
    first.save(buffer, form, save_all=True, append_images=others, **{**SAID[form], **timed, **options})
    return buffer.getvalue()


def shown(data: bytes) -> list[np.ndarray[Any, Any]]:
    """As Pillow shows it."""
    return [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]


def levels(picture: Picture) -> np.ndarray[Any, Any]:
    alpha = torch.full_like(picture.pixels[0], 255) if picture.alpha is None else picture.alpha
    return torch.cat([picture.pixels, alpha[None]]).permute(1, 2, 0).numpy()


def alike(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    seen = (one[..., 3] > 0) | (other[..., 3] > 0)
    return bool((one[seen] == other[seen]).all())


@pytest.mark.parametrize("form", FORMATS)
def test_all_pictures_are_read_as_pillow_shows_them(form: str) -> None:
    data = saved(form)
    film = decode(data)
    assert several(data)
    assert (film.form, len(film.pictures)) == (form, 5)
    assert all(alike(levels(p), other) for p, other in zip(film.pictures, shown(data), strict=True))


@pytest.mark.parametrize("disposal", [0, 1, 2])
@pytest.mark.parametrize("form", ["GIF", "PNG"])
def test_pictures_that_show_a_part_are_laid_on_what_was_there(form: str, disposal: int) -> None:
    pictures = drawn(clear=True)
    data = saved(form, pictures, disposal=disposal, **({"blend": 1} if form == "PNG" else {}))
    # Pillow's reader loses what such a PNG goes back to, its writer does not.
    wanted = [np.asarray(p) for p in pictures] if (form, disposal) == ("PNG", 2) else shown(data)
    assert all(alike(levels(p), other) for p, other in zip(decode(data).pictures, wanted, strict=True))


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_is_read_by_pillow_as_it_was(form: str, clear: bool) -> None:
    data = saved(form, drawn(clear=clear))
    film = decode(data)
    written = encode(film)
    again = decode(written)
    if form == "WEBP":
        assert all(
            np.abs(levels(p).astype(int) - o).max() < 40 for p, o in zip(film.pictures, shown(written), strict=True)
        )
    else:
        assert all(alike(levels(p), other) for p, other in zip(film.pictures, shown(written), strict=True))
    assert (again.durations, again.plays, len(again.pictures)) == (film.durations, film.plays, 5)
    if form != "TIFF":
        assert film.durations == (70,) * 5
        assert film.plays == (4 if form == "GIF" else 3)  # a GIF says how often it is repeated


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_but_pictures_durations_and_plays_is_written(form: str) -> None:
    data = saved(form)
    assert (form == "PNG") or b"secret" in data
    assert b"secret" not in encode(decode(data))


@pytest.mark.parametrize("form", FORMATS)
def test_pictures_that_are_equal_stay_as_many(form: str) -> None:
    film = decode(saved(form))
    still = replace(film, pictures=film.pictures[:1] * 5)
    assert len(decode(encode(still)).pictures) == 5


def test_a_picture_for_those_who_show_no_animation_is_read_and_written_too() -> None:
    film = decode(saved("PNG", default_image=True))
    assert film.aside
    assert len(film.pictures) == 5
    again = Image.open(io.BytesIO(encode(film)))
    assert (again.default_image, again.n_frames) == (True, 5)


@pytest.mark.parametrize("form", FORMATS)
def test_a_still_picture_is_not_several(form: str) -> None:
    buffer = io.BytesIO()
    drawn()[0].save(buffer, form)
    assert not several(buffer.getvalue())


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_ends_early_is_refused_wherever_it_ends(form: str) -> None:
    data = saved(form)
    for end in range(30, len(data), max(1, len(data) // 60)):
        if several(data[:end]):
            with pytest.raises(UndecodableError):
                decode(data[:end])


def test_a_gif_that_ends_in_its_second_picture_is_several_and_refused() -> None:
    data = saved("GIF")
    end = data.index(b",", data.index(b",") + 200) + 20
    assert several(data[:end])
    with pytest.raises(UndecodableError, match="truncated"):
        decode(data[:end])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMATS), st.integers(0, 10_000), st.integers(0, 255))
def test_whatever_byte_is_wrong_pictures_come_out_or_a_reason(form: str, at: int, value: int) -> None:
    data = bytearray(saved(form))
    data[at % len(data)] = value
    if several(bytes(data)):
        with suppress(UndecodableError):  # and nothing else
            assert decode(bytes(data), max_pixels=1_000_000).pictures


@pytest.mark.parametrize("form", FORMATS)
def test_too_many_pictures_or_pixels_are_refused_before_they_are_decoded(form: str) -> None:
    data = saved(form)
    assert len(decode(data, max_frames=5, max_pixels=5 * 40 * 60).pictures) == 5
    with pytest.raises(UndecodableError, match="more than 4 pictures; raise max_frames"):
        decode(data, max_frames=4)
    with pytest.raises(UndecodableError, match="raise max_pixels") as caught:
        decode(data, max_pixels=5 * 40 * 60 - 1)
    assert caught.value.reason == "too_large"


def test_chunks_out_of_order_and_with_a_wrong_sum_are_refused() -> None:
    data = saved("PNG")
    at = data.index(b"fdAT")
    assert several(data)
    with pytest.raises(UndecodableError):
        decode(data[: at + 8] + bytes([data[at + 8] ^ 1]) + data[at + 9 :])


def test_pages_that_lead_in_a_circle_are_refused() -> None:
    data = saved("TIFF", compression="raw")
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    at = first + 2 + 12 * count
    with pytest.raises(UndecodableError, match="breaks the rules"):
        decode(data[:at] + struct.pack("<I", first) + data[at + 4 :])


def test_pages_become_an_animation_only_where_they_are_of_one_size() -> None:
    film = decode(saved("TIFF"))
    assert in_format(film, "").form == "TIFF"
    webp = in_format(film, "WEBP")
    assert decode(encode(webp)).durations == (animated.PAGE_MS,) * 5
    mixed = decode(saved("TIFF", [drawn()[0], drawn()[1].resize((30, 30))]))
    assert [tuple(p.pixels.shape) for p in decode(encode(mixed)).pictures] == [(3, 40, 60), (3, 30, 30)]
    with pytest.raises(UndecodableError, match="pages of several sizes"):
        in_format(mixed, "PNG")


def test_no_page_is_copied_before_its_turn() -> None:
    """Each page's file is as large as all of them: 300 pages of 20 MB together took 6 GB."""
    pictures = [Image.new("RGB", (64, 64), (i, 0, 0)) for i in range(40)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "TIFF", save_all=True, append_images=pictures[1:])
    parts = take_apart(buffer.getvalue(), 40).parts
    assert [isinstance(part.data, bytes) for part in parts] == [False] * 40
    assert {len(part.still()) for part in parts} == {len(buffer.getvalue())}
