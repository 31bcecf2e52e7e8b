"""Which bytes are an image file, and what such a file holds besides its pixels.

Wider than what the codec reads: a HEIC or a file that ends early is a picture, too, to whoever finds it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from anondata.content import codec
from anondata.content._reel import gif_blocks, is_gif_note, palette_bytes, riff
from anondata.content.base import rewritten
from anondata.content.metadata import metadata_in
from anondata.errors import AnondataError, UndecodableError

_NAMES = "jpg jpeg jpe jfif png apng webp gif tif tiff bmp dib heic heif avif jp2 jxl"
SUFFIXES = frozenset(_NAMES.split())

_STARTS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\0\0\0\x0cjP  ",
    b"\0\0\0\x0cJXL ",
    b"\xff\x4f\xff\x51",  # JPEG 2000 without boxes
    b"8BPS",
)
_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")
_WITHIN = re.compile(rb"\xff\xd8\xff[\xc0-\xfe]|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a", re.DOTALL)
_MOST = 64 << 20  # bytes of a picture within something else
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # lengths; "BM" alone may begin a text

# Neither pixels nor anybody's: density, colour profiles, and Adobe's colour transform.
_PLAIN_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"bKGD", b"iCCP", b"hIST", b"cICP", b"ICCP")
_OF_ANIMATIONS = (b"acTL", b"fcTL", b"fdAT", b"ANIM")
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"VP8 ", b"VP8L", b"VP8X", b"ALPH", *_OF_ANIMATIONS)


class PictureParts(NamedTuple):
    """An image file taken apart. pixels: with the tables that decode them. metadata: each segment, chunk or tail.

    whole: it could be walked to its end. plain: holds nothing beside the pixels, not even a colour profile.
    """

    pixels: bytes
    metadata: tuple[bytes, ...]
    whole: bool
    plain: bool


def is_picture(data: bytes) -> bool:
    """Whether bytes begin as an image file does, also one that no codec here reads.

    >>> is_picture(b"BMW"), is_picture(b"GIF89a")
    (False, True)
    """
    if data.startswith(_STARTS):
        return True
    if data[:4] == b"RIFF":
        return data[8:12] == b"WEBP"
    if data[4:8] == b"ftyp":
        return data[8:12] in _BRANDS
    return data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS


def shows_picture(data: bytes) -> bool:
    """Whether bytes are an image file, or hold a JPEG, PNG, WebP or GIF somewhere that can be decoded from there."""
    return is_picture(data) or any(
        _is_decodable(data[at.start() : at.start() + _MOST]) for at in _WITHIN.finditer(data)
    )


def _is_decodable(data: bytes) -> bool:
    try:
        codec.decode(data)
    except UndecodableError:
        return False
    return True


def take_apart(data: bytes) -> PictureParts:
    """The parts of a JPEG, PNG, WebP or GIF. All of another format, or of a damaged file, counts as pixels."""
    walkers = ((b"\xff\xd8\xff", _jpeg), (b"\x89PNG\r\n\x1a\n", _png), (b"RIFF", _webp), (b"GIF8", _gif))
    pieces: list[tuple[str, bytes]] = []
    whole = False
    for start, walk in walkers:
        if data.startswith(start):
            try:
                pieces = list(walk(data))
                whole = True
            except (struct.error, IndexError, ValueError, UndecodableError):
                pieces = []
    if not whole:
        return PictureParts(data, (), whole=False, plain=False)
    pixels = b"".join(piece for kind, piece in pieces if kind == "pixels")
    metadata = tuple(piece for kind, piece in pieces if kind == "metadata" and piece)
    return PictureParts(pixels, metadata, True, all(kind == "pixels" for kind, piece in pieces if piece))


def is_bare(data: bytes) -> bool:
    """Whether an image file holds its pixels and nothing else, as those that the codec writes."""
    parts = take_apart(data)
    if parts.whole:
        return parts.plain
    if data[4:8] in (b"ftyp", b"jP  "):
        return not metadata_in(data)
    try:  # TIFF and BMP: what would be written of it is the same
        return rewritten(data) == data
    except (AnondataError, ValueError):
        return False


def _jpeg(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 2
    while True:
        marker, (length,) = data[at + 1], struct.unpack_from(">H", data, at + 2)
        body, end = data[at + 4 : at + 2 + length], at + 2 + length
        if data[at] != 0xFF or marker == 0xFF or length < 2 or end > len(data):
            raise ValueError
        if marker == 0xDA:
            break
        yield _jpeg_kind(marker, body), data[at:end]
        at = end
    end = data.index(b"\xff\xd9", at) + 2
    yield "pixels", data[at:end]
    yield "metadata", data[end:]  # a second picture, a film, or what somebody hid


def _jpeg_kind(marker: int, body: bytes) -> str:
    if marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) == 14:
        return "pixels"
    if marker == 0xEE and body.startswith(b"Adobe") and len(body) == 12:
        return "pixels"
    if marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
        return "plain"
    return "metadata" if marker >= 0xE0 else "pixels"


def _png(data: bytes) -> Iterator[tuple[str, bytes]]:
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ValueError
        yield _chunk_kind(kind), data[at:end]
        at = end
    yield "metadata", data[at:]


def _webp(data: bytes) -> Iterator[tuple[str, bytes]]:
    at, end = 12, 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data) or data[8:12] != b"WEBP":
        raise ValueError
    while at < end:
        kind, length = struct.unpack_from("<4sI", data, at)
        stop = at + 8 + length + length % 2
        if kind == b"ANMF":
            yield "pixels", data[at : at + 24]
            yield from ((_chunk_kind(name), piece) for name, piece in riff(data, at + 24, at + 8 + length))
        else:
            yield _chunk_kind(kind), data[at:stop]
        at = stop
    yield "metadata", data[end:]


def _gif(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 13 + palette_bytes(data[10])
    yield "pixels", data[:at]
    for block in gif_blocks(data):
        yield "metadata" if is_gif_note(block) else "pixels", block
        at += len(block)
    yield "metadata", data[at:]


def _chunk_kind(kind: bytes) -> str:
    return "pixels" if kind in _PIXEL_CHUNKS else "plain" if kind in _PLAIN_CHUNKS else "metadata"
