"""A file that holds fewer pixels than its header promises is truncated, and costs no memory for them."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from anondata.content.codec import decode
from anondata.errors import UndecodableError

WIDTH, HEIGHT = 96, 80


def picture(mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(5).integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((WIDTH, HEIGHT)).convert(mode)


def saved(form: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture(mode).save(buffer, form, **options)
    return buffer.getvalue()


def png_of(data: bytes, width: int, height: int, interlaced: int = 0) -> bytes:
    at = data.index(b"IHDR")
    head = b"IHDR" + struct.pack(">II", width, height) + data[at + 12 : at + 16] + bytes([interlaced])
    return data[:at] + head + struct.pack(">I", zlib.crc32(head)) + data[at + 21 :]


def jpeg_of(data: bytes, width: int, height: int) -> bytes:
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def tiff_of(data: bytes, height: int, rows: int) -> bytes:
    out = bytearray(data)
    start = struct.unpack_from("<I", out, 4)[0]
    for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", out, start)[0], 12):
        tag, kind = struct.unpack_from("<HH", out, at)
        if tag in (257, 278):
            struct.pack_into("<H" if kind == 3 else "<I", out, at + 8, height if tag == 257 else rows)
    return bytes(out)


def reason(data: bytes) -> str:
    with pytest.raises(UndecodableError) as caught:
        decode(data)
    return caught.value.reason


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_of_fewer_rows_is_truncated(mode: str, interlaced: int) -> None:
    whole = saved("PNG", "L" if mode == "I;16" else mode)
    if mode == "I;16":
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(picture("L")).astype(np.uint16) << 8).save(buffer, "PNG")
        whole = buffer.getvalue()
    assert reason(png_of(whole, WIDTH, HEIGHT + 8, interlaced)) == "truncated"
    if not interlaced:
        assert decode(png_of(whole, WIDTH, HEIGHT)).pixels.shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "options",
    [{}, {"subsampling": 2}, {"progressive": True}, {"restart_marker_blocks": 2}, {"restart_marker_rows": 1}],
    ids=["444", "420", "progressive", "restarts", "restart-rows"],
)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_of_fewer_rows_is_truncated(mode: str, options: dict[str, object]) -> None:
    whole = saved("JPEG", mode, quality=90, **options)
    assert decode(whole).pixels.shape == (3, HEIGHT, WIDTH)
    assert reason(jpeg_of(whole, WIDTH, HEIGHT + 16)) == "truncated"
    assert reason(jpeg_of(whole, WIDTH, 16 * HEIGHT)) == "truncated"


def test_a_jpeg_that_ends_in_middle_grey_is_whole() -> None:
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 2}):
        grey = np.asarray(picture()).copy()
        grey[HEIGHT // 2 :] = 128
        buffer = io.BytesIO()
        Image.fromarray(grey).save(buffer, "JPEG", **options)
        assert decode(buffer.getvalue()).pixels[:, -1, -1].tolist() == [128, 128, 128]


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("strips", ["fewer", "shorter"])
def test_a_tiff_of_fewer_rows_is_refused(compression: str, strips: str) -> None:
    whole = saved("TIFF", compression=compression)
    rows = HEIGHT if strips == "fewer" else 4 * HEIGHT
    assert reason(tiff_of(whole, 4 * HEIGHT, rows)) in ("truncated", "corrupt")
    assert decode(tiff_of(whole, HEIGHT, HEIGHT)).pixels.shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "data",
    [png_of(saved("PNG"), 8_000, 20_000), jpeg_of(saved("JPEG"), 8_000, 20_000)]
    + [tiff_of(saved("TIFF", compression=c), 65_000, r) for c in ("raw", "jpeg") for r in (HEIGHT, 65_000)],
    ids=["png", "jpeg", "tiff-strips", "tiff", "tiff-jpeg-strips", "tiff-jpeg"],
)
def test_what_is_not_there_costs_no_memory(data: bytes) -> None:
    tracemalloc.start()
    before = rss_peak()
    assert reason(data) == "truncated"
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held < 4 << 20
    assert rss_peak() - before < 12 << 20  # of 19 MB and more


def rss_peak() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
