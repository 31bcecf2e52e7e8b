"""Image files in and out: the right pixels, nothing beside them, and one kind of error for everything else."""

from __future__ import annotations

import gc
import io
import logging
import re
import resource
import struct
import threading
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo

from anondata.content.codec import MAX_PIXELS, SUFFIXES, Picture, decode, encode, from_pil, to_pil
from anondata.errors import ShapeError, UndecodableError

cv2 = pytest.importorskip("cv2", reason="OpenCV is the independent decoder")
tifffile = pytest.importorskip("tifffile", reason="tifffile is the independent TIFF writer")

SECRET = b"SECRETMARKER"  # stands in every field of a stuffed source
REASONS = {"empty", "not_an_image", "truncated", "corrupt", "too_large", "unsupported"}


@cache
def photo(size: int = 96) -> np.ndarray:
    """A face from a real photo, ``(size, size + 8, 3)`` uint8."""
    crop = Image.fromarray(skimage.data.astronaut()[0:220, 110:330])
    return np.asarray(crop.resize((size + 8, size), Image.Resampling.LANCZOS))


def save(image: Image.Image | np.ndarray, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, form, **options)
    return buffer.getvalue()


def hwc(picture: Picture) -> np.ndarray:
    return picture.pixels.permute(1, 2, 0).numpy()


def opencv(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def exif(orientation: int = 1) -> bytes:
    """EXIF with a GPS position, names and an embedded thumbnail of the photo."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010E] = tags[0x013B] = tags[0x9C9D] = SECRET.decode()
    tags.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 24.0), 29: SECRET.decode()})
    tags.get_ifd(0x8769).update({0x9286: SECRET, 0xA420: SECRET.decode()})
    return tags.tobytes() + save(photo(32), "JPEG", comment=SECRET)


@cache
def profile(gamma_swapped: bool = True) -> bytes:
    """An RGB profile that is not sRGB (its red and blue primaries change places), with the marker as description."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if gamma_swapped:
        red, blue = data.index(b"rXYZ", 128), data.index(b"bXYZ", 128)
        data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data) + SECRET  # lcms goes by the length in the header


def stuffed(form: str) -> bytes:
    """A file with the marker everywhere a format has a place for it, and behind its end."""
    xmp = b"<x:xmpmeta><rdf>" + SECRET + b"</rdf></x:xmpmeta>"
    image = Image.fromarray(photo())
    common = {"exif": exif(), "icc_profile": profile()}
    if form == "JPEG":
        data = save(image, form, quality=95, comment=SECRET, xmp=xmp, **common, dpi=(123, 321))
        parts = [(0xED, b"Photoshop 3.0\0" + SECRET), (0xEB, SECRET), (0xE2, b"MPF\0" + SECRET), (0xEF, SECRET)]
        extra = b"".join(b"\xff" + bytes([m]) + struct.pack(">H", len(b) + 2) + b for m, b in parts)
        data = data[:2] + extra + data[2:]
    elif form == "PNG":
        info = PngInfo()
        info.add_text("Comment", SECRET.decode())
        info.add_text("Zipped", SECRET.decode(), zip=True)
        info.add_itxt("XML:com.adobe.xmp", xmp.decode())
        info.add(b"prVt", SECRET)
        info.add(b"tIME", bytes(7), after_idat=True)
        data = save(image, form, pnginfo=info, **common, dpi=(123, 321))
    elif form == "WEBP":
        data = save(image, form, xmp=xmp, **common, quality=95)
    elif form == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags.update({270: SECRET.decode(), 305: SECRET.decode(), 315: SECRET.decode(), 700: xmp, 33723: SECRET})
        second = Image.fromarray(photo(32))
        data = save(image, form, tiffinfo=tags, icc_profile=profile(), save_all=True, append_images=[second])
    elif form == "GIF":
        data = save(image, form, comment=SECRET)
    else:
        data = save(image, form, dpi=(123, 321))
    return data + SECRET


# --- what comes out ---------------------------------------------------------------------------------------


def jpeg_segments(data: bytes) -> list[int]:
    """Markers up to the scan; the file must end with its only end marker."""
    found, at = [], 2
    while data[at + 1] != 0xDA:
        assert data[at] == 0xFF
        found.append(data[at + 1])
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    assert data.index(b"\xff\xd9", at) == len(data) - 2
    return found


def png_chunks(data: bytes) -> Iterator[bytes]:
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind
        at += 12 + length
    assert at == len(data)


def riff_chunks(data: bytes) -> Iterator[bytes]:
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    at = 12
    while at < len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind
        at += 8 + length + length % 2


def assert_bare(data: bytes) -> None:
    """Only what carries pixels, walked without the codec's own parsers."""
    if data[:2] == b"\xff\xd8":
        assert set(jpeg_segments(data)) <= {0xE0, 0xDB, 0xC0, 0xC4}  # JFIF, tables, frame
        assert data[2:20] == b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"  # no density, no thumbnail
    elif data[:4] == b"\x89PNG":
        assert set(png_chunks(data)) == {b"IHDR", b"IDAT", b"IEND"}
    elif data[:4] == b"RIFF":
        assert set(riff_chunks(data)) <= {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}
    elif data[:2] == b"II":
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            assert len(file.pages) == 1
            layout = {256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 338}
            assert {tag.code for tag in file.pages[0].tags} <= layout
    else:
        assert data[:2] == b"BM"
        size, offset, header = struct.unpack_from("<I4xII", data, 2)
        assert (size, header) == (len(data), 40)
        assert size == offset + struct.unpack_from("<I", data, 34)[0]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_nothing_but_pixels_comes_through(form: str) -> None:
    source = stuffed(form)
    assert SECRET in source
    out = encode(decode(source))
    assert_bare(out)
    for marker in (SECRET, b"Exif", b"xmpmeta", b"ICC", b"Photoshop", b"MPF", b"desc"):
        assert marker not in out
    assert encode(decode(source)) == out


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_metadata_reaches_no_log(form: str, caplog: pytest.LogCaptureFixture) -> None:
    source = stuffed(form)
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        decode(source)
        from_pil(Image.fromarray(photo()))
    assert SECRET.decode() not in caplog.text


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_nothing_hides_under_transparent_pixels(form: str) -> None:
    rgba = np.dstack([photo(), np.full(photo().shape[:2], 255, np.uint8)])
    rgba[20:60, 20:60, 3] = 0
    picture = decode(save(rgba, form, lossless=True, exact=True) if form == "WEBP" else save(rgba, form))
    assert hwc(picture)[20:60, 20:60].max() == 0
    assert "hidden_pixels_cleared" in picture.notes
    again = decode(encode(picture))
    assert torch.equal(again.pixels, picture.pixels)
    assert again.alpha is not None
    assert torch.equal(again.alpha, picture.alpha)
    assert np.array_equal(hwc(again)[60:], photo()[60:])


# --- pixels against another decoder -----------------------------------------------------------------------


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_decodes_like_opencv_and_keeps_its_subsampling(subsampling: int, progressive: bool) -> None:
    data = save(photo(), "JPEG", quality=90, subsampling=subsampling, progressive=progressive)
    picture = decode(data)
    assert (picture.format, picture.grey, picture.subsampling, picture.notes) == ("JPEG", False, subsampling, ())
    assert np.abs(hwc(picture).astype(int) - opencv(data)).max() <= 2
    again = decode(encode(picture))
    assert again.subsampling == subsampling
    assert np.abs(hwc(again).astype(int) - hwc(picture)).mean() < 2


def bits(depth: int) -> np.ndarray:
    return (photo()[..., 1] >> (8 - depth)).astype(np.uint8)


def handmade_png(planes: np.ndarray, depth: int, colour: int, extra: bytes = b"") -> bytes:
    """A PNG of ``(H, W[, C])`` samples below 2**depth, unfiltered; the samples are written by this function."""
    rows = planes.reshape(planes.shape[0], -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8)
    elif depth == 8:
        packed = rows.astype(np.uint8)
    else:
        flags = np.unpackbits(rows.astype(np.uint8)[..., None], axis=2)[..., 8 - depth :]
        packed = np.packbits(flags.reshape(len(rows), -1), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in packed)
    head = struct.pack(">IIBBBBB", planes.shape[1], planes.shape[0], depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


RGB16 = (photo().astype(np.uint16) << 8) + 77
PALETTE = np.random.default_rng(7).integers(0, 256, (256, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("data", "expected", "grey", "word"),
    [
        (handmade_png(photo(), 8, 2), photo(), False, None),
        (handmade_png(RGB16, 16, 2), photo(), False, "reduced_to_8_bit"),
        (handmade_png(RGB16[..., 0], 16, 0), photo()[..., :1], True, "reduced_to_8_bit"),
        (handmade_png(bits(1), 1, 0), bits(1)[..., None] * 255, True, None),
        (handmade_png(bits(2), 2, 0), bits(2)[..., None] * 85, True, None),
        (handmade_png(bits(4), 4, 0), bits(4)[..., None] * 17, True, None),
        (handmade_png(bits(8), 8, 3, chunk(b"PLTE", PALETTE.tobytes())), PALETTE[bits(8)], False, None),
        (handmade_png(bits(4), 4, 3, chunk(b"PLTE", PALETTE[:16].tobytes())), PALETTE[bits(4)], False, None),
    ],
    ids=["rgb", "rgb16", "grey16", "grey1", "grey2", "grey4", "palette8", "palette4"],
)
def test_every_kind_of_png_is_exact(data: bytes, expected: np.ndarray, grey: bool, word: str | None) -> None:
    picture = decode(data)
    assert np.array_equal(hwc(picture), np.broadcast_to(expected, (*expected.shape[:2], 3)))
    assert np.array_equal(hwc(picture), opencv(data))
    assert (picture.grey, picture.alpha, picture.notes) == (grey, None, (word,) if word else ())
    out = encode(picture)
    assert out[25] == (0 if grey else 2)  # colour type
    assert torch.equal(decode(out).pixels, picture.pixels)


@pytest.mark.parametrize(
    ("data", "clear", "grey"),
    [
        (handmade_png(np.dstack([photo(), bits(1) * 255]), 8, 6), bits(1) == 0, False),
        (handmade_png(np.dstack([RGB16, bits(1).astype(np.uint16) * 65535]), 16, 6), bits(1) == 0, False),
        (handmade_png(np.dstack([photo()[..., 0], bits(1) * 255]), 8, 4), bits(1) == 0, True),
        (handmade_png(np.dstack([RGB16[..., 0], bits(1).astype(np.uint16) * 65535]), 16, 4), bits(1) == 0, True),
        (handmade_png(bits(4), 4, 0, chunk(b"tRNS", b"\0\x03")), bits(4) == 3, True),
        (handmade_png(bits(1), 1, 0, chunk(b"tRNS", b"\0\x01")), bits(1) == 1, True),
        (handmade_png(RGB16[..., 0], 16, 0, chunk(b"tRNS", b"\x50\x4d")), photo()[..., 0] == 0x50, True),
        (handmade_png(photo(), 8, 2, chunk(b"tRNS", b"\0\x50\0\x50\0\x50")), (photo() == 0x50).all(-1), False),
        (
            handmade_png(bits(8), 8, 3, chunk(b"PLTE", PALETTE.tobytes()) + chunk(b"tRNS", b"\xff\0\x80\0")),
            (bits(8) == 1) | (bits(8) == 3),
            False,
        ),
    ],
    ids=["rgba", "rgba16", "la", "la16", "grey4-key", "grey1-key", "grey16-key", "rgb-key", "palette"],
)
def test_every_kind_of_png_transparency_is_kept(data: bytes, clear: np.ndarray, grey: bool) -> None:
    picture = decode(data)
    assert picture.grey == grey
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha.numpy() == 0, clear)
    assert hwc(picture)[clear].sum() == 0
    again = decode(encode(picture))
    assert (again.grey, again.format) == (grey, "PNG")
    assert torch.equal(again.pixels, picture.pixels)
    assert torch.equal(again.alpha, picture.alpha)


def test_sixteen_bit_key_colour_clears_every_pixel_that_looks_like_it() -> None:
    key = int(RGB16[5, 5, 0]), int(RGB16[5, 5, 1]), int(RGB16[5, 5, 2])
    picture = decode(handmade_png(RGB16, 16, 2, chunk(b"tRNS", struct.pack(">3H", *key))))
    assert picture.alpha is not None
    assert picture.alpha[5, 5] == 0
    assert hwc(picture)[5, 5].sum() == 0


def test_interlaced_png_is_exact() -> None:
    ok, data = cv2.imencode(".png", np.ascontiguousarray(photo()[..., ::-1]))
    assert ok
    assert np.array_equal(hwc(decode(data.tobytes())), photo())
    interlaced = adam7(photo())
    assert np.array_equal(hwc(decode(interlaced)), photo())


def adam7(pixels: np.ndarray) -> bytes:
    raw = b""
    for x, y, dx, dy in [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ]:
        raw += b"".join(b"\0" + row.tobytes() for row in pixels[y::dy, x::dx])
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("layout", [{}, {"tile": (32, 48)}, {"rowsperstrip": 7}, {"planarconfig": "separate"}])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_layouts_are_exact(compression: str | None, layout: dict[str, object], order: str) -> None:
    buffer = io.BytesIO()
    pixels = np.moveaxis(photo(), 2, 0) if layout.get("planarconfig") else photo()
    tifffile.imwrite(buffer, pixels, photometric="rgb", compression=compression, byteorder=order, **layout)
    picture = decode(buffer.getvalue())
    assert np.array_equal(hwc(picture), photo())
    assert torch.equal(decode(encode(picture)).pixels, picture.pixels)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "group4"])
def test_tiff_written_by_libtiff_is_exact(compression: str) -> None:
    pixels = Image.fromarray(photo()).convert("1") if compression == "group4" else Image.fromarray(photo())
    picture = decode(save(pixels, "TIFF", compression=compression))
    assert np.array_equal(hwc(picture), np.asarray(pixels.convert("RGB")))
    assert picture.grey == (compression == "group4")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_sixteen_bit_tiff_keeps_the_high_byte(order: str, bigtiff: bool) -> None:
    if bigtiff and order == ">":
        assert refused(b"MM\0\x2b" + bytes(40)) == "unsupported"  # Pillow 13 misreads it
        return
    for source, grey in ((RGB16, False), (RGB16[..., 0], True)):
        buffer = io.BytesIO()
        photometric = "minisblack" if grey else "rgb"
        tifffile.imwrite(buffer, source, photometric=photometric, byteorder=order, bigtiff=bigtiff)
        picture = decode(buffer.getvalue())
        expected = photo() if not grey else photo()[..., :1].repeat(3, 2)
        assert np.array_equal(hwc(picture), expected)
        assert (picture.grey, picture.notes) == (grey, ("reduced_to_8_bit",))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32, np.uint32])
def test_tiff_without_a_known_range_is_unsupported(dtype: type) -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, photo()[..., 0].astype(dtype), photometric="minisblack")
    with pytest.raises(UndecodableError, match="float, signed") as caught:
        decode(buffer.getvalue())
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize("form", ["WEBP", "BMP", "TIFF", "PNG"])
def test_lossless_formats_round_trip_exactly(form: str) -> None:
    data = save(photo(), form, **({"lossless": True} if form == "WEBP" else {}))
    picture = decode(data)
    assert np.array_equal(hwc(picture), photo())
    assert np.array_equal(opencv(encode(picture)), photo())
    assert (picture.format, picture.lossless) == (form, form == "WEBP")


def test_lossy_webp_decodes_like_opencv() -> None:
    data = save(photo(), "WEBP", quality=80)
    picture = decode(data)
    assert np.abs(hwc(picture).astype(int) - opencv(data)).max() <= 2
    assert not picture.lossless
    assert b"VP8 " in encode(picture)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "BMP"])
def test_grey_stays_grey(form: str) -> None:
    grey = photo()[..., 1]
    picture = decode(save(grey, form, **({"quality": 95} if form == "JPEG" else {})))
    assert picture.grey
    assert picture.subsampling is None
    assert torch.equal(picture.pixels[0], picture.pixels[2])
    assert np.abs(hwc(picture)[..., 0].astype(int) - grey).mean() < (2 if form == "JPEG" else 1e-9)
    with Image.open(io.BytesIO(encode(picture))) as out:
        assert out.mode == "L"


@pytest.mark.parametrize("transform", ["CMYK", "YCCK"])
def test_cmyk_jpeg_is_read_with_adobes_inversion(transform: str) -> None:
    """YCCK is the inverted inks' complement as YCbCr: built here from the four planes of a CMYK picture."""
    cmyk = Image.fromarray(photo()).convert("CMYK")
    data = save(cmyk, "JPEG", quality=98)
    assert data[data.index(b"Adobe") + 11] == 0
    if transform == "YCCK":
        planes = np.asarray(cmyk)
        ycc = np.asarray(Image.fromarray(planes[..., :3]).convert("YCbCr"))
        stored = Image.merge("CMYK", [Image.fromarray(p) for p in (*(255 - np.moveaxis(ycc, 2, 0)), planes[..., 3])])
        data = bytearray(save(stored, "JPEG", quality=98))
        data[data.index(b"Adobe") + 11] = 2
    picture = decode(bytes(data))
    assert np.abs(hwc(picture).astype(int) - photo()).mean() < 4
    assert picture.notes == ("converted_to_srgb",)
    assert (picture.format, picture.subsampling) == ("JPEG", 0)
    assert_bare(encode(picture))


def test_gif_is_written_as_png_from_its_first_frame() -> None:
    frames = [Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in (10, 200, 90)]
    picture = decode(save(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2))
    assert picture.format == "PNG"
    assert set(picture.notes) == {"first_frame_only", "written_as_png"}
    assert (hwc(picture) == 10).all()
    single = save(Image.fromarray(photo()).quantize(64), "GIF")
    assert decode(single).notes == ("written_as_png",)
    with Image.open(io.BytesIO(single)) as oracle:
        assert np.array_equal(hwc(decode(single)), np.asarray(oracle.convert("RGB")))


def test_transparent_gif_keeps_alpha_and_hides_nothing() -> None:
    indexed = Image.fromarray(photo()).quantize(16)
    picture = decode(save(indexed, "GIF", transparency=3))
    clear = np.asarray(indexed) == 3
    assert picture.alpha is not None
    assert clear.any()
    assert hwc(picture)[picture.alpha.numpy() == 0].sum() == 0
    assert ((picture.alpha.numpy() == 0).sum()) == clear.sum()


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "MPO"])
def test_first_of_several_pictures_is_taken_and_noted(form: str) -> None:
    frames = [Image.fromarray(photo()), Image.fromarray(255 - photo())]
    options = {"lossless": True} if form == "WEBP" else {"quality": 95} if form == "MPO" else {}
    picture = decode(save(frames[0], form, save_all=True, append_images=frames[1:], **options))
    assert picture.notes == ("first_frame_only",)
    assert picture.format == ("JPEG" if form == "MPO" else form)
    assert np.abs(hwc(picture).astype(int) - photo()).mean() < (2 if form == "MPO" else 1e-9)


def test_bmp_with_transparency_is_written_as_png() -> None:
    rgba = np.dstack([photo(), np.full(photo().shape[:2], 255, np.uint8)])
    rgba[:9, :, 3] = 0
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    height, width = rgba.shape[:2]
    head = struct.pack("<IiiHHIIiiII", 56, width, -height, 1, 32, 3, rgba.size, 0, 0, 0, 0) + masks
    raw = rgba[..., [2, 1, 0, 3]].tobytes()
    picture = decode(b"BM" + struct.pack("<IHHI", 70 + len(raw), 0, 0, 70) + head + raw)
    assert picture.format == "PNG"
    assert "written_as_png" in picture.notes
    assert picture.alpha is not None
    assert hwc(picture)[:9].max() == 0
    assert np.array_equal(hwc(picture)[9:], photo()[9:])


# --- orientation and colour -------------------------------------------------------------------------------

UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    data = save(photo(), form, exif=tags, **({"lossless": True} if form == "WEBP" else {}))
    picture = decode(data)
    expected = UPRIGHT[orientation](opencv(save(photo(), "JPEG")) if form == "JPEG" else photo())
    assert np.abs(hwc(picture).astype(int) - expected).max() <= 2 * (form == "JPEG")
    assert picture.notes == (("orientation_applied",) if orientation > 1 else ())
    assert decode(encode(picture)).notes == ()
    if form == "JPEG":
        assert np.abs(opencv(data).astype(int) - hwc(picture)).max() <= 2  # OpenCV applies it too


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"II",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"junk" * 9,
        exif()[6:40],
        b"II\x2b\0" + b"\xff" * 20,
    ],
)
def test_broken_exif_is_no_orientation(broken: bytes) -> None:
    data = save(photo(), "JPEG", exif=b"Exif\0\0" + broken)
    assert decode(data).notes == ()
    assert decode(save(photo(), "PNG", exif=b"Exif\0\0" + broken)).notes == ()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_foreign_profile_is_converted_into_the_pixels(form: str) -> None:
    data = save(photo(), form, icc_profile=profile(), **({"lossless": True} if form == "WEBP" else {}))
    plain = decode(save(photo(), form, **({"lossless": True} if form == "WEBP" else {})))
    picture = decode(data)
    assert picture.notes == ("converted_to_srgb",)
    swapped = hwc(plain)[..., ::-1]  # what a profile with red and blue primaries exchanged means
    assert np.abs(hwc(picture).astype(int) - swapped).max() <= 2
    assert decode(encode(picture)).notes == ()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_srgb_profile_changes_no_pixel(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    tagged = decode(save(photo(), form, icc_profile=profile(gamma_swapped=False), **options))
    plain = decode(save(photo(), form, **options))
    assert tagged.notes == ()
    assert torch.equal(tagged.pixels, plain.pixels)


@pytest.mark.parametrize("broken", [b"x", b"no profile" * 20, profile()[:150], profile()[:128] + bytes(400)])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_broken_profile_is_ignored_and_noted(form: str, broken: bytes) -> None:
    picture = decode(save(photo(), form, icc_profile=broken, **({"lossless": True} if form == "WEBP" else {})))
    assert picture.notes == ("icc_profile_ignored",)
    assert np.abs(hwc(picture).astype(int) - photo()).mean() < 5


def test_a_profile_of_another_colour_space_is_ignored_and_noted() -> None:
    assert decode(save(photo()[..., 0], "PNG", icc_profile=profile())).notes == ("icc_profile_ignored",)


# --- what is refused --------------------------------------------------------------------------------------


def refused(data: bytes, **options: int) -> str:
    with pytest.raises(UndecodableError) as caught:
        decode(data, **options)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert SECRET.decode() not in str(caught.value)
    return caught.value.reason


def test_what_is_no_image_is_refused() -> None:
    assert refused(b"") == "empty"
    for data in (b"\0", b"hello", b"{}" * 50, b"RIFF\x24\0\0\0WAVEfmt " + bytes(30), b"\xff\xd8"):
        assert refused(data) == "not_an_image"


def test_other_formats_of_pillow_are_refused() -> None:
    image = Image.fromarray(photo())
    for form in ("ICO", "PDF", "EPS"):
        assert refused(save(image, form)) == "unsupported"
    for form in ("PPM", "TGA", "SGI", "PCX", "DDS", "ICNS"):
        assert refused(save(image, form)) in ("not_an_image", "unsupported")
    for data in (b"8BPS\0\1" + bytes(40), b"\0\0\0\x18ftypheic" + bytes(40)):
        assert refused(data) == "unsupported"


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_a_cut_file_is_truncated_whatever_pillow_is_set_to(
    form: str, lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    for options in ({}, {"progressive": True}) if form == "JPEG" else ({},):
        data = save(photo(), form, **options)
        for share in (0.5, 0.8, 0.97):
            assert refused(data[: int(len(data) * share)]) == "truncated"


def test_a_jpeg_of_endless_scans_is_unsupported() -> None:
    data = save(photo(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert refused(data[:last] + data[last:-2] * 120 + b"\xff\xd9") == "unsupported"


def test_a_damaged_png_is_corrupt() -> None:
    data = bytearray(save(photo(), "PNG"))
    data[len(data) // 2] ^= 0x10
    assert refused(bytes(data)) == "corrupt"


def bomb(side: int = 30000) -> bytes:
    """A real one: every pixel is there, 900 MP in about 130 KB."""
    squeeze = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    packed = b"".join(squeeze.compress(row) for _ in range(side)) + squeeze.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def headers_only(width: int, height: int) -> dict[str, bytes]:
    """A header per format that promises more than is there."""
    png = handmade_png(np.zeros((1, 1), np.uint8), 8, 0)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    jpeg = bytearray(save(photo(), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", min(height, 65500), min(width, 65500))
    gif = bytearray(save(photo(), "GIF"))
    gif[6:10] = struct.pack("<HH", min(width, 65535), min(height, 65535))
    webp = bytearray(save(photo(), "WEBP", exif=exif()))
    webp[24:30] = (min(width, 16384) - 1).to_bytes(3, "little") + (min(height, 16384) - 1).to_bytes(3, "little")
    bmp = bytearray(save(photo(), "BMP"))
    bmp[18:26] = struct.pack("<ii", width, height)
    tiff = bytearray(save(photo(), "TIFF"))
    for tag, value in ((256, width), (257, height)):
        entry = tiff.index(struct.pack("<H", tag), 8)
        tiff[entry : entry + 12] = struct.pack("<HHII", tag, 4, 1, value)
    return {
        "PNG": png[:8] + chunk(b"IHDR", head) + png[33:],
        "JPEG": bytes(jpeg),
        "GIF": bytes(gif),
        "WEBP": bytes(webp),
        "BMP": bytes(bmp),
        "TIFF": bytes(tiff),
    }


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_decoding_takes_about_four_times_what_comes_out_at_most(form: str) -> None:
    """Pillow's WebP reader alone takes 5.3 times: two canvases, the bytes of one of them, and a picture of those."""
    buffer, status = io.BytesIO(), Path("/proc/self/status")
    Image.new("RGB", (4000, 3000), (10, 200, 90)).save(buffer, form)
    decode(buffer.getvalue())
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far starts anew
    before = int(re.findall(r"VmRSS:\s+(\d+)", status.read_text())[0])
    picture = decode(buffer.getvalue())
    peak = int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0])
    assert peak - before < 4.2 * picture.pixels.numel() / 1024


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "real"])
def test_a_bomb_is_refused_quickly_and_in_little_memory(form: str) -> None:
    data = bomb() if form == "real" else headers_only(30000, 30000)[form]
    gc.collect()
    tracemalloc.start()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    reason = refused(data)
    seconds, peak = time.perf_counter() - begin, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reason == "too_large"
    assert seconds < 0.2
    assert peak < 8 * len(data) + (1 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident < 32 << 10  # KiB: what C code took


def test_the_limit_is_the_callers_and_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(photo(), "JPEG")
    count = photo().shape[0] * photo().shape[1]
    assert refused(data, max_pixels=count - 1) == "too_large"
    for limit in (1, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for form in ("JPEG", "PNG", "TIFF", "GIF", "BMP"):
            assert decode(save(photo(), form), max_pixels=count).pixels.shape == (3, *photo().shape[:2])
        assert refused(bomb()) == "too_large"
    assert MAX_PIXELS == 178_956_970


def test_a_text_bomb_is_not_inflated() -> None:
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80 << 20)))
    data = handmade_png(photo(), 8, 2, text * 3)
    tracemalloc.start()
    assert np.array_equal(hwc(decode(data)), photo())
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("form", sorted({*SUFFIXES} - {"HEIF"}))
@pytest.mark.parametrize("shape", [(1, 1), (20, 10000), (10000, 3)])
def test_extreme_shapes_work(form: str, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    picture = decode(save(pixels, form))
    assert picture.pixels.shape == (3, *shape)
    assert decode(encode(picture)).pixels.shape == (3, *shape)


# --- the form of things -----------------------------------------------------------------------------------


def test_pixels_are_the_callers_own_writable_memory() -> None:
    data = save(photo(), "PNG")
    first, second = decode(data), decode(data)
    first.pixels.zero_()
    assert "tensor" not in repr(first)
    assert np.array_equal(hwc(second), photo())
    assert (first.pixels.dtype, first.pixels.device.type) == (torch.uint8, "cpu")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"pixels": torch.zeros(3, 4, 5)}, ShapeError, "float32"),
        ({"pixels": torch.zeros(4, 4, 5, dtype=torch.uint8)}, ShapeError, r"\(3, H, W\)"),
        ({"alpha": torch.zeros(4, 4, dtype=torch.uint8)}, ShapeError, "alpha is"),
        ({"alpha": torch.zeros(96, 104, dtype=torch.uint8), "format": "JPEG"}, ShapeError, "has no alpha"),
        ({"format": "GIF"}, ValueError, "is not written"),
        ({"format": "WEBP", "pixels": torch.zeros(3, 1, 16384, dtype=torch.uint8)}, ShapeError, "longer than 16383"),
    ],
)
def test_encode_refuses_what_it_cannot_write(change: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        encode(replace(decode(save(photo(), "PNG")), **change))


def test_a_webp_canvas_too_large_to_write_becomes_png() -> None:
    frames = [Image.fromarray(photo()), Image.fromarray(255 - photo())]
    data = bytearray(save(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    data[24:27] = (16400 - 1).to_bytes(3, "little")  # only an animation may have a canvas larger than its frames
    picture = decode(bytes(data))
    assert picture.pixels.shape[2] == 16400
    assert picture.format == "PNG"
    assert_bare(encode(picture))


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_has_a_range(quality: int) -> None:
    with pytest.raises(ValueError, match="1 to 100"):
        encode(decode(save(photo(), "JPEG")), quality=quality)


def test_a_grey_picture_that_was_coloured_is_written_as_its_luma() -> None:
    picture = decode(save(photo()[..., 0], "PNG"))
    coloured = replace(picture, pixels=torch.from_numpy(photo().copy()).permute(2, 0, 1))
    assert np.array_equal(hwc(decode(encode(coloured)))[..., 0], np.asarray(Image.fromarray(photo()).convert("L")))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "I;16"])
def test_pil_images_of_every_mode_come_and_go(mode: str) -> None:
    source = Image.fromarray(photo())
    image = (
        Image.fromarray(RGB16[..., 0])
        if mode == "I;16"
        else source.convert("RGBA" if "A" in mode else "RGB").convert(mode)
    )
    image.info.update(comment=SECRET, icc_profile=None)
    picture = from_pil(image)
    out = to_pil(picture)
    assert out.info == {}
    assert out.mode == {"P": "RGB", "CMYK": "RGB", "1": "L", "I;16": "L"}.get(mode, mode)
    assert picture.format == "PNG"
    expected = photo()[..., 0] if mode == "I;16" else np.asarray(image.convert(out.mode))
    assert np.array_equal(np.asarray(out), expected)


def test_lazily_opened_pil_images_are_read_like_their_files() -> None:
    for form in ("JPEG", "WEBP", "PNG", "TIFF"):
        data = save(photo(), form, exif=exif(6), icc_profile=profile())
        with Image.open(io.BytesIO(data)) as image:
            picture = from_pil(image)
        expected = decode(data)
        assert torch.equal(picture.pixels, expected.pixels)
        assert repr(picture) == repr(expected) if form != "TIFF" else picture.notes == ("converted_to_srgb",)


def test_bad_pil_images_are_undecodable() -> None:
    data = save(photo(), "JPEG")
    with Image.open(io.BytesIO(data[: len(data) // 2])) as image, pytest.raises(UndecodableError, match="truncated"):
        from_pil(image)
    with pytest.raises(UndecodableError, match="colour model"):
        from_pil(Image.new("F", (4, 4)))
    with pytest.raises(UndecodableError, match="limit of 15"):
        from_pil(Image.new("L", (4, 4)), max_pixels=15)


def test_threads_do_not_disturb_each_other() -> None:
    sources = [stuffed(form) for form in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")]
    expected = [encode(decode(source)) for source in sources]
    filters, wrong = list(warnings.filters), []

    def work(offset: int) -> None:
        for turn in range(12):
            index = (turn + offset) % len(sources)
            if encode(decode(sources[index])) != expected[index]:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert list(warnings.filters) == filters


# --- any bytes at all -------------------------------------------------------------------------------------


@cache
def seeds() -> tuple[bytes, ...]:
    small = Image.fromarray(photo(24))
    indexed = save(small.quantize(16), "PNG", transparency=2)
    animated = [
        save(small, form, save_all=True, append_images=[small.rotate(90)]) for form in ("GIF", "WEBP", "PNG", "MPO")
    ]
    jpegs = [
        save(small, "JPEG", exif=exif(6)),
        save(small, "JPEG", progressive=True),
        save(small.convert("CMYK"), "JPEG"),
    ]
    tiffs = [save(small, "TIFF", compression=name) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg")]
    plain = [save(small.convert("RGBA"), form) for form in ("WEBP", "TIFF", "PNG")] + [
        save(small.convert("P"), "BMP")
    ]
    return (*map(stuffed, ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")), indexed, *animated, *jpegs, *tiffs, *plain)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(seeds())))
    # Headers and directories stand near an end; a uniform draw would mostly hit entropy-coded data.
    place = st.one_of(
        st.integers(0, 64), st.integers(0, len(data) - 1), st.integers(max(len(data) - 400, 0), len(data) - 1)
    )
    for kind in draw(st.lists(st.sampled_from(["flip", "set", "cut", "drop", "splice"]), min_size=1, max_size=5)):
        at = min(draw(place), max(len(data) - 1, 0))
        if not data:
            break
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[at : at + 4] = draw(
                st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x01", b"\x7f\xff\xff\xff"])
            )
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 40))]
        else:
            other = draw(st.sampled_from(seeds()))
            start = draw(st.integers(0, len(other) - 1))
            data[at:at] = other[start : start + draw(st.integers(1, 200))]
    return bytes(data)


def outcome(data: bytes) -> Picture | str:
    try:
        return decode(data, max_pixels=4_000_000)
    except UndecodableError as error:
        return error.reason


@settings(max_examples=400, deadline=1000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(mutated())
def test_any_mutation_is_a_picture_or_undecodable(data: bytes) -> None:
    picture = outcome(data)
    if isinstance(picture, str):
        assert picture in REASONS
        return
    assert picture.pixels.dtype == torch.uint8
    assert picture.format in SUFFIXES
    assert_bare(encode(picture))
