"""What an image file holds beside its pixels: of what anondata wrote, nothing.

Looks at the file's own structure, not at what a decoder tells of it: decoders pass over what they do not know.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from anondata.content._containers import tiff_directory

_PNG = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs"}
_WEBP = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}
_TIFF = {*range(254, 260), 262, 266, 273, 274, *range(277, 285), 296, 317, 320, *range(322, 326), 338, 339, 347, 530}
_JPEG_TABLES = {0xC4, 0xDB, 0xDD, 0xDA, *(m for m in range(0xC0, 0xD0) if m not in (0xC4, 0xC8, 0xCC))}
_WORDS = {0xE1: "EXIF or XMP", 0xE2: "a colour profile or more pictures", 0xED: "IPTC", 0xFE: "a comment"}


def metadata_in(data: bytes) -> tuple[str, ...]:
    """What a file holds that is neither pixels nor needed to read them, in words; empty where there is nothing.

    A format that is not known here counts as something, and so does a file that breaks off.

    >>> metadata_in(b"GIF89a")
    ('an unknown format',)
    """
    try:
        return tuple(dict.fromkeys(_found(data)))
    except (struct.error, IndexError, ValueError):
        return ("a broken structure",)


def _found(data: bytes) -> Iterator[str]:
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith((b"II\x2a\0", b"MM\0\x2a")):
        return _tiff(data)
    if data.startswith(b"BM"):
        return _bmp(data)
    return iter(("an unknown format",))


def _jpeg(data: bytes) -> Iterator[str]:
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError
        marker = data[at + 1]
        (length,) = struct.unpack_from(">H", data, at + 2)
        body = data[at + 4 : at + 2 + length]
        plain = (marker == 0xE0 and body[:5] == b"JFIF\0" and len(body) == 14) or (
            marker == 0xEE and body[:5] == b"Adobe" and len(body) == 12
        )
        if marker not in _JPEG_TABLES and not plain:
            yield _WORDS.get(marker, "other segments")
        at += 2 + length
        if marker == 0xDA:
            break
    # In pixels FF is followed by 00 or a restart marker; tables and further scans may stand between them.
    if re.search(rb"\xff[\xe0-\xef\xfe]", data[at:]):
        yield "segments among the pixels"
    if data.find(b"\xff\xd9", at) != len(data) - 2:
        yield "bytes after the picture"


def _png(data: bytes) -> Iterator[str]:
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind not in _PNG:
            yield "EXIF" if kind == b"eXIf" else "a colour profile" if kind == b"iCCP" else "text or other chunks"
        at += 12 + length
    if at != len(data):
        yield "bytes after the picture"


def _webp(data: bytes) -> Iterator[str]:
    (size,) = struct.unpack_from("<I", data, 4)
    at = 12
    while at + 8 <= 8 + size:
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind not in _WEBP:
            yield {b"EXIF": "EXIF", b"XMP ": "XMP", b"ICCP": "a colour profile"}.get(kind, "other chunks")
        at += 8 + length + length % 2
    if at != len(data):
        yield "bytes after the picture"


def _tiff(data: bytes) -> Iterator[str]:
    _, _, _, entries, more = tiff_directory(data)
    if any(tag not in _TIFF for tag, *_ in entries):
        yield "EXIF, text or other tags"
    if more:
        yield "more pictures"


def _bmp(data: bytes) -> Iterator[str]:
    (size,) = struct.unpack_from("<I", data, 2)
    if size != len(data):
        yield "bytes after the picture"
