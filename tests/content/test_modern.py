"""AVIF, HEIC and JPEG 2000: the guarantees of the other formats."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageCms, ImageFile

from anondata import Anonymizer
from anondata.content.codec import SUFFIXES, decode, encode
from anondata.content.metadata import metadata_in
from anondata.errors import ShapeError, UndecodableError

heif = pytest.importorskip("pillow_heif")

SECRET = b"SECRETMARKER"
FORMS = ["AVIF", "HEIF", "JPEG2000"]
TURNED = ["AVIF", "HEIF"]


def photo(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(skimage.data.astronaut()[0:220, 110:330]).resize((104, 96)).convert(mode)


def save(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    if form == "HEIF":
        heif.from_pillow(image).save(buffer, format="HEIF", **options)
    else:
        image.save(buffer, form, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112], tags[0x010E] = orientation, SECRET.decode()
    return tags.tobytes()


def profile() -> bytes:
    """Red and blue change places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.index(b"rXYZ", 128), data.index(b"bXYZ", 128)
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def off(picture: Any, image: Image.Image) -> float:
    shown = picture.pixels.permute(1, 2, 0).numpy().astype(int)
    return float(np.abs(shown - np.asarray(image.convert("RGB"))).mean())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_pixels_come_through_and_are_written_alike(form: str, mode: str) -> None:
    image = photo(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size).point(lambda level: max(level, 1)))
    data = save(image, form, **({} if form == "JPEG2000" else {"quality": 90}))
    picture = decode(data)
    assert (picture.format, picture.grey, picture.alpha is not None) == (form, mode == "L", mode == "RGBA")
    assert off(picture, image) < (1e-9 if form == "JPEG2000" else 3)
    out = encode(picture)
    again = decode(out)
    assert (again.format, again.grey, again.pixels.shape) == (form, picture.grey, picture.pixels.shape)
    assert (again.pixels.int() - picture.pixels.int()).abs().float().mean() < 2
    assert encode(picture) == out
    assert metadata_in(out) == ()


@pytest.mark.parametrize("form", TURNED)
def test_metadata_stays_behind_and_a_turn_is_made_once(form: str) -> None:
    xmp = b"<x:xmpmeta>" + SECRET + b"</x:xmpmeta>"
    data = save(photo(), form, exif=exif(6), xmp=xmp, quality=95)
    assert SECRET in data
    assert "EXIF or XMP" in metadata_in(data)
    picture = decode(data)
    assert off(picture, photo().transpose(Image.Transpose.ROTATE_270)) < 3
    out = encode(picture)
    assert SECRET not in out
    assert metadata_in(out) == ()
    assert torch.equal(decode(out).pixels, decode(out).pixels)
    assert off(decode(out), photo().transpose(Image.Transpose.ROTATE_270)) < 4


def test_boxes_and_comments_of_jpeg_2000_stay_behind() -> None:
    data = save(photo(), "JPEG2000", comment=SECRET.decode())
    data += (len(SECRET) + 8).to_bytes(4, "big") + b"xml " + SECRET
    assert set(metadata_in(data)) == {"a comment", "other boxes"}
    out = encode(decode(data))
    assert SECRET not in out
    assert metadata_in(out) == ()
    assert off(decode(save(photo(), "JPEG2000", no_jp2=True)), photo()) == 0


@pytest.mark.parametrize("form", TURNED)
def test_colour_profiles_are_applied(form: str) -> None:
    picture = decode(save(photo(), form, icc_profile=profile(), quality=95))
    assert picture.notes == ("converted_to_srgb",)
    red, _, blue = np.asarray(photo()).transpose(2, 0, 1).astype(int)
    assert np.abs(picture.pixels[0].numpy() - blue).mean() < 12
    assert np.abs(picture.pixels[2].numpy() - red).mean() < 12
    assert "a colour profile" not in metadata_in(encode(picture))


def test_more_than_eight_bits_are_reduced_and_noted() -> None:
    wide = np.asarray(photo("L")).astype(np.uint16) << 8
    picture = decode(save(Image.fromarray(wide), "JPEG2000"))
    assert (picture.notes, off(picture, photo("L"))) == (("reduced_to_8_bit",), 0.0)


def test_of_a_sequence_the_first_picture_is_read() -> None:
    other = Image.new("RGB", photo().size, (9, 9, 200))
    buffer = io.BytesIO()
    photo().save(buffer, "AVIF", save_all=True, append_images=[other], quality=90)
    picture = decode(buffer.getvalue())
    assert "first_frame_only" in picture.notes
    assert off(picture, photo()) < 3


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_cut_file_is_truncated(form: str, lenient: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    data = save(photo(), form)
    for end in (len(data) - 1, len(data) - 2, len(data) // 2, 200, 60, 20):
        with pytest.raises(UndecodableError) as caught:
            decode(data[:end])
        assert caught.value.reason in ("truncated", "not_an_image", "corrupt")
    with pytest.raises(UndecodableError) as caught:
        decode(data, max_pixels=96 * 104 - 1)
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("form", FORMS)
def test_damaged_files_raise_one_error(form: str) -> None:
    data, random, reasons = save(photo(), form), np.random.default_rng(3), {"never"}
    for _ in range(60):
        bad = bytearray(data)
        for at in random.integers(0, len(bad), 6):
            bad[at] = random.integers(256)
        try:
            decode(bytes(bad))
        except UndecodableError as found:
            reasons.add(found.reason)
    assert "" not in reasons


def test_heic_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(photo(), "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UndecodableError, match=r"anondata\[heif\]") as caught:
        decode(data)
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("form", FORMS)
def test_the_engine_gives_the_same_format_back_with_the_face_changed(form: str) -> None:
    [out] = Anonymizer("faces", run_key=b"k" * 16).anonymize([save(photo(), form)])
    assert out.released, out.detail
    picture = decode(out.image)
    assert picture.format == form
    assert SUFFIXES[form] in (".avif", ".heic", ".jp2")
    assert off(picture, photo()) > 5


@pytest.mark.parametrize("shape", [(1, 1), (2, 250), (200, 3)])
def test_small_shapes_of_heic_work(shape: tuple[int, int]) -> None:
    picture = decode(save(Image.new("RGB", shape, (200, 90, 30)), "HEIF"))
    assert decode(encode(picture)).pixels.shape == (3, shape[1], shape[0])
    tall = torch.zeros(3, 4000, 4, dtype=torch.uint8)
    with pytest.raises(ShapeError, match="write PNG"):
        encode(replace(picture, pixels=tall))
