"""What a file holds beside its pixels is found; of what the codec writes, nothing is."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from anondata.content._containers import tiff_directory
from anondata.content.codec import decode, encode
from anondata.content.metadata import metadata_in

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
Write = Callable[..., bytes]


@pytest.fixture
def write() -> Write:
    pixels = np.random.default_rng(3).integers(0, 255, (96, 80, 3), dtype=np.uint8)

    def write(format: str, mode: str = "RGB", **options: object) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, format, **options)
        return buffer.getvalue()

    return write


def exif() -> Image.Exif:
    out = Image.Exif()
    out[0x010F] = "a camera"
    return out


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("format", FORMATS)
def test_what_the_codec_writes_holds_nothing(write: Write, format: str, mode: str) -> None:
    if mode == "RGBA" and format in ("JPEG", "BMP"):
        pytest.skip("has no alpha")
    assert metadata_in(encode(decode(write(format, mode)))) == ()


@pytest.mark.parametrize("options", [{"progressive": True}, {"optimize": True}, {"subsampling": 0}, {"quality": 100}])
def test_no_kind_of_jpeg_is_mistaken(write: Write, options: dict[str, object]) -> None:
    assert metadata_in(write("JPEG", **options)) == ()


@pytest.mark.parametrize(
    ("format", "options", "word"),
    [
        ("JPEG", {"exif": exif()}, "EXIF or XMP"),
        ("JPEG", {"xmp": b"<x:xmpmeta/>"}, "EXIF or XMP"),
        ("JPEG", {"comment": b"Jane"}, "a comment"),
        ("JPEG", {"icc_profile": b"x" * 200}, "a colour profile or more pictures"),
        ("PNG", {"exif": exif()}, "EXIF"),
        ("PNG", {"icc_profile": b"x" * 200}, "a colour profile"),
        ("WEBP", {"exif": exif()}, "EXIF"),
        ("WEBP", {"xmp": b"<x:xmpmeta/>"}, "XMP"),
        ("TIFF", {"exif": exif()}, "EXIF, text or other tags"),
        ("TIFF", {"description": "Jane"}, "EXIF, text or other tags"),
        ("GIF", {"comment": b"Jane"}, "a comment or another extension"),
    ],
)
def test_what_is_beside_the_pixels_is_named(write: Write, format: str, options: dict[str, object], word: str) -> None:
    assert word in metadata_in(write(format, **options))


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_more_pictures_are_no_metadata(write: Write, format: str) -> None:
    assert metadata_in(write(format, save_all=True, append_images=[Image.new("RGB", (80, 96))])) == ()


def test_tags_of_a_second_page_are_found(write: Write) -> None:
    more = {"save_all": True, "append_images": [Image.new("RGB", (80, 96))], "compression": "raw"}
    noted, bare = write("TIFF", description="Jane", **more), write("TIFF", **more)
    page = tiff_directory(noted).start
    assert metadata_in(noted) != ()
    count, first = int.from_bytes(noted[page : page + 2], "little"), page + 2
    tags = [int.from_bytes(noted[at : at + 2], "little") for at in range(first, first + 12 * count, 12)]
    at = first + 12 * tags.index(270)
    assert metadata_in(noted[:at] + (274).to_bytes(2, "little") + noted[at + 2 :]) != ()  # of the other page
    assert metadata_in(bare) == ()


def test_text_in_a_png_is_found(write: Write) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "Jane")
    assert metadata_in(write("PNG", pnginfo=info)) == ("text or other chunks",)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP"])
def test_bytes_after_the_picture_are_found(write: Write, format: str) -> None:
    assert "bytes after the picture" in metadata_in(write(format) + b"Jane lives here")


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II\x2a\0", b"BM", b"RIFF    WEBP"])
def test_what_breaks_off_counts_as_something(data: bytes) -> None:
    assert metadata_in(data)


def test_a_comment_between_the_scans_of_a_jpeg_is_found(write: Write) -> None:
    data = write("JPEG", progressive=True)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    hidden = data[:second] + b"\xff\xfe\x00\x06Jane" + data[second:]
    Image.open(io.BytesIO(hidden)).load()
    assert metadata_in(hidden) == ("segments among the pixels",)
