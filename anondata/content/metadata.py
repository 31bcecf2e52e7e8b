"""What an image file holds beside its pixels: of what anondata wrote, nothing.

Looks at the file's own structure, not at what a decoder tells of it: decoders pass over what they do not know.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from anondata.content._bmff import boxes, item_kinds
from anondata.content._containers import tiff_directory
from anondata.content._reel import gif_blocks, is_gif_note, pages_of, palette_bytes, riff
from anondata.errors import UndecodableError

_PNG = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs"}
_PNG |= {b"acTL", b"fcTL", b"fdAT"}
_WEBP = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM"}
_TIFF = {*range(254, 260), 262, 266, 273, 274, *range(277, 285), 296, 317, 320, *range(322, 326), 338, 339, 347, 530}
_HEIF = {b"ftyp", b"meta", b"mdat", b"hdlr", b"pitm", b"iinf", b"iloc", b"iref", b"iprp", b"idat"}
_ITEMS = {b"av01", b"hvc1", b"grid"}
_JP2 = {b"jP  ", b"ftyp", b"jp2h", b"jp2c", b"ihdr", b"bpcc", b"colr", b"cdef"}
_ENCODER = b"Created by OpenJPEG version "
_JPEG_TABLES = {0xC4, 0xDB, 0xDD, 0xDA, *(m for m in range(0xC0, 0xD0) if m not in (0xC4, 0xC8, 0xCC))}
_WORDS = {0xE1: "EXIF or XMP", 0xE2: "a colour profile or more pictures", 0xED: "IPTC", 0xFE: "a comment"}


def metadata_in(data: bytes) -> tuple[str, ...]:
    """What a file holds that is neither pixels nor needed to read them, in words; empty where there is nothing.

    A format that is not known here counts as something, and so does a file that breaks off.

    >>> metadata_in(b"8BPS")
    ('an unknown format',)
    """
    try:
        return tuple(dict.fromkeys(_found(data)))
    except (struct.error, IndexError, ValueError, UndecodableError):
        return ("a broken structure",)


def _found(data: bytes) -> Iterator[str]:
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(b"GIF8"):
        return _gif(data)
    if data.startswith((b"II\x2a\0", b"MM\0\x2a")):
        return _tiff(data)
    if data.startswith(b"BM"):
        return _bmp(data)
    if data[4:8] == b"ftyp":
        return _heif(data)
    if data[4:8] == b"jP  ":
        return _jpeg2000(data)
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
        if kind == b"ANMF":
            yield from ("other chunks" for name, _ in riff(data, at + 24, at + 8 + length) if name not in _WEBP)
        elif kind not in _WEBP:
            yield {b"EXIF": "EXIF", b"XMP ": "XMP", b"ICCP": "a colour profile"}.get(kind, "other chunks")
        at += 8 + length + length % 2
    if at != len(data):
        yield "bytes after the picture"


def _gif(data: bytes) -> Iterator[str]:
    at = 13 + palette_bytes(data[10])
    for block in gif_blocks(data):
        if is_gif_note(block):
            yield "a comment or another extension"
        at += len(block)
    if at != len(data):
        yield "bytes after the picture"


def _tiff(data: bytes) -> Iterator[str]:
    for page in pages_of(data):
        if any(tag not in _TIFF for tag, *_ in tiff_directory(page()).entries):
            yield "EXIF, text or other tags"


def _bmp(data: bytes) -> Iterator[str]:
    (size,) = struct.unpack_from("<I", data, 2)
    if size != len(data):
        yield "bytes after the picture"


def _heif(data: bytes) -> Iterator[str]:
    top = list(boxes(data, 0, len(data)))
    inner = [box for meta in top if meta.kind == b"meta" for box in boxes(data, meta.body + 4, meta.end)]
    if {box.kind for box in (*top, *inner)} - _HEIF:
        yield "other boxes"
    for box in inner:
        if box.kind == b"iinf":
            found = set(item_kinds(data, box).values())
            if found & {b"Exif", b"mime"}:
                yield "EXIF or XMP"
            if found - _ITEMS - {b"Exif", b"mime"}:
                yield "other items"
        elif box.kind == b"iprp" and re.search(rb"colr(prof|rICC)", data[box.body : box.end]):
            yield "a colour profile"


def _jpeg2000(data: bytes) -> Iterator[str]:
    top = list(boxes(data, 0, len(data)))
    inner = [box for head in top if head.kind == b"jp2h" for box in boxes(data, head.body, head.end)]
    if {box.kind for box in (*top, *inner)} - _JP2:
        yield "other boxes"
    if any(box.kind == b"colr" and data[box.body] == 2 for box in inner):
        yield "a colour profile"
    for box in top:
        if box.kind == b"jp2c":
            yield from _codestream(data[box.body : box.end])


def _codestream(stream: bytes) -> Iterator[str]:
    """Up to its first tile; what follows must be parts of tiles, whose lengths decoding checks."""
    at = 2
    while True:
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == 0xFF90:
            return
        if marker == 0xFF64 and not stream.startswith(_ENCODER, at + 6):
            yield "a comment"
        at += 2 + length
