"""What an image file holds besides its pixels, taken off before any decoder sees the file.

Pillow is handed the pixel-carrying segments, chunks or tags of the first picture and nothing else, for four
reasons: it logs tag values at DEBUG level, it warns on corrupt EXIF (and warnings cannot be caught in a
thread-safe way), it inflates text chunks, and it takes files that end early when a training script has set
``ImageFile.LOAD_TRUNCATED_IMAGES``. The three facts beside the pixels that change how they look (orientation,
ICC profile, bit depth) are returned as values.

Pure functions on bytes. They raise `UndecodableError` for what they recognise, and ``struct.error`` or
``IndexError`` where a file ends early; `anondata.content.codec` maps those.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from anondata.content import _bmff
from anondata.content._container import Container, corrupt, truncated, unsupported
from anondata.errors import UndecodableError

_ICC_LIMIT = 16 << 20  # bytes inflated from a PNG's iCCP; press profiles are 0.5-3 MB
_JPEG_SCANS = 100  # each costs a pass over the whole picture; encoders write about 10
_PNG_KEEP = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TIFF_BYTES = dict(zip(range(1, 19), (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8), strict=True))
_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
# Size, layout, compression and colour coding of the pixels: everything else in a TIFF is about them.
_TIFF_KEEP = {262, 266, 273, 284, 292, 293, 317, 320, 338, 339, 347, *range(256, 260), *range(277, 280)}
_TIFF_KEEP |= {*range(322, 326), *range(529, 533)}
# Recognised so that a report can say "unsupported": PSD, ICO, PDF, PostScript, JPEG XL, and big-endian BigTIFF, which
# Pillow 13 misreads.
_JPEG2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_UNSUPPORTED = (
    b"8BPS",
    b"\0\0\1\0",
    b"%PDF",
    b"%!PS",
    b"\xff\x0a",
    b"\0\0\0\x0cJXL ",
    b"MM\0\x2b",
)


def strip(data: bytes) -> Container:
    """Find the format by its signature and take everything but the pixels off.

    Raises: UndecodableError, its reason ``empty``, ``not_an_image``, ``unsupported``, ``truncated`` or
    ``corrupt``; struct.error and IndexError where the file ends early.
    """
    if not data:
        raise UndecodableError("the image has no bytes; check how it was read", reason="empty")
    for signature, walk in _WALKERS:
        if data.startswith(signature):
            return walk(data)
    if data[4:8] == b"ftyp" or data.startswith(_JPEG2000):
        return _bmff.jpeg2000(data) if data.startswith(_JPEG2000) else _bmff.heif(data)
    if data.startswith(_UNSUPPORTED):
        raise UndecodableError(
            "only JPEG, PNG, WebP, AVIF, HEIC, JPEG 2000, TIFF, BMP and GIF are read; convert first",
            reason="unsupported",
        )
    raise UndecodableError("the bytes do not start like a known image format", reason="not_an_image")


def _jpeg(data: bytes) -> Container:
    kept, profile, orientation, more, at, size = [b"\xff\xd8"], {}, 1, False, 2, (0, 0)
    while True:
        at = data.index(b"\xff", at) if data.find(b"\xff", at) >= 0 else len(data)
        while data[at] == 0xFF:  # fill bytes
            at += 1
        marker, at = data[at], at + 1
        if marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # stands alone
            continue
        (length,) = struct.unpack_from(">H", data, at)
        body, end = data[at + 2 : at + length], at + length
        if length < 2 or marker == 0xD9:
            raise corrupt()
        if end > len(data):
            raise truncated()
        if marker == 0xE1 and body.startswith(b"Exif\0\0") and orientation == 1:
            orientation = exif_orientation(body[6:])
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
            profile[body[12]] = body[14:]
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            more = True
        elif marker == 0xEE or marker < 0xE0:  # Adobe's colour transform, tables and frame
            kept.append(b"\xff" + bytes([marker]) + data[at:end])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if body[0] != 8 or body[5] not in (1, 3, 4):
                raise unsupported("a JPEG of more than 8 bits or of 2 channels")
            height, width = struct.unpack_from(">HH", body, 1)
            size = width, height
        at = end
        if marker == 0xDA:
            break
    if data.find(b"\xff\xd9", end) < 0:
        raise truncated()
    if data.count(b"\xff\xda", end) > _JPEG_SCANS:
        raise unsupported(f"a JPEG of more than {_JPEG_SCANS} scans")
    icc = b"".join(part for _, part in sorted(profile.items())) or None
    return Container("JPEG", b"".join(kept) + data[end:], size, orientation, icc, more=more)


def _png(data: bytes) -> Container:
    kept, icc, orientation, more, at, kind = [data[:8]], None, 1, False, 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        body, end = data[at + 8 : at + 8 + length], at + 12 + length
        if end > len(data):
            raise truncated()
        if kind in _PNG_KEEP:
            if zlib.crc32(kind + body) != struct.unpack_from(">I", data, end - 4)[0]:
                raise corrupt()
            kept.append(_png_key(body, data[24], data[25]) if kind == b"tRNS" else data[at:end])
        elif not kind.isalpha():
            raise corrupt()
        elif kind[0] & 0x20 == 0:  # a critical chunk that no standard names
            raise unsupported("a PNG with a private critical chunk")
        elif kind == b"iCCP":
            icc = _inflate(body.partition(b"\0")[2][1:])
        elif kind == b"eXIf":
            orientation = exif_orientation(body)
        more = more or kind == b"fdAT"
        at = end
    bits, colour = data[24], data[25]
    size = struct.unpack_from(">II", data, 16)
    return Container("PNG", b"".join(kept), size, orientation, icc, bits, grey=colour in (0, 4), more=more)


def _png_key(body: bytes, bits: int, colour: int) -> bytes:
    """The tRNS chunk as Pillow has to see it: it compares a key colour with samples it has brought to 8 bits.

    A 16-bit RGB key becomes its high bytes, which clears every pixel that looks the same afterwards.
    """
    if colour == 0 and bits in (2, 4):
        body = struct.pack(">H", struct.unpack_from(">H", body)[0] * {2: 85, 4: 17}[bits] & 0xFFFF)
    elif colour == 2 and bits == 16:
        body = struct.pack(">3H", *(sample >> 8 for sample in struct.unpack_from(">3H", body)))
    return struct.pack(">I4s", len(body), b"tRNS") + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))


def _inflate(packed: bytes) -> bytes:
    """An ICC profile, or ``b""`` (no valid profile, which the reader notes) for a broken or oversized one."""
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(packed, _ICC_LIMIT)
    except zlib.error:
        return b""
    return profile if inflater.eof else b""


def _webp(data: bytes) -> Container:
    if data[8:12] != b"WEBP":
        raise UndecodableError("a RIFF file that is not WebP", reason="not_an_image")
    end, at = 8 + struct.unpack_from("<I", data, 4)[0], 12
    if end > len(data):
        raise truncated()
    chunks: dict[bytes, bytes] = {}
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        chunks.setdefault(kind, data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    frame = chunks.get(b"ANMF", b"")
    lossless = b"VP8L" in chunks or frame[16:20] == b"VP8L"
    exif = chunks.get(b"EXIF", b"").removeprefix(b"Exif\0\0")
    icc, size, more = chunks.get(b"ICCP"), _webp_size(chunks), b"ANMF" in chunks
    return Container("WEBP", data[:end], size, exif_orientation(exif), icc, lossless=lossless, more=more)


def _webp_size(chunks: dict[bytes, bytes]) -> tuple[int, int]:
    if head := chunks.get(b"VP8X"):
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if head := chunks.get(b"VP8L"):
        packed = struct.unpack_from("<I", head, 1)[0]
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", chunks.get(b"VP8 ", b""), 6)
    return width & 0x3FFF, height & 0x3FFF


def _gif(data: bytes) -> Container:
    """Keep the screen, the palettes and the first image; the disposal method concerns later ones."""
    at = 13 + _palette_bytes(data[10])
    kept, image = [data[:at]], b""
    while at < len(data) and data[at] in b"!,":
        start, introducer = at, data[at]
        if introducer == 0x2C and image:
            break  # a second image
        at += 2 if introducer == 0x21 else 11 + _palette_bytes(data[at + 9])
        while data[at]:
            at += 1 + data[at]
        at += 1
        if introducer == 0x2C:
            image = data[start:at]
            kept.append(image)
        elif data[start + 1] == 0xF9 and not image:
            kept.append(data[start : start + 3] + bytes([data[start + 3] & 1]) + data[start + 4 : at])
    if not image:
        raise truncated() if at >= len(data) else corrupt()
    (left, top, width, height), screen = (
        struct.unpack_from("<4H", image, 1),
        struct.unpack_from("<2H", data, 6),
    )
    if left + width > screen[0] or top + height > screen[1]:
        raise corrupt()
    return Container("GIF", b"".join(kept) + b";", more=data[at : at + 1] == b",")


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _bmp(data: bytes) -> Container:
    return Container("BMP", data)


class _Directory(NamedTuple):
    order: str  # of bytes, as struct writes it
    big: bool  # BigTIFF
    start: int  # where its count stands
    entries: list[tuple[int, int, int, bytes]]  # tag, type, count, value or offset
    more: bool


def tiff_directory(tiff: bytes) -> _Directory:
    order = "<" if tiff[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", tiff, 2)[0] == 43
    word, short, entry = ("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")
    start = struct.unpack_from(order + word, tiff, 8 if big else 4)[0]
    first = start + struct.calcsize(order + short)
    if first > len(tiff):
        raise truncated()
    count = struct.unpack_from(order + short, tiff, start)[0]
    end = first + count * struct.calcsize(order + entry)
    if end > len(tiff):
        raise truncated()
    more = any(tiff[end : end + struct.calcsize(order + word)])
    return _Directory(order, big, start, list(struct.iter_unpack(order + entry, tiff[first:end])), more)


def _value(tiff: bytes, order: str, kind: int, count: int, value: bytes) -> bytes:
    """The bytes of an entry, wherever they lie."""
    length = count * _TIFF_BYTES.get(kind, 0)
    if length <= len(value):
        return value[:length]
    at = struct.unpack(order + ("Q" if len(value) == 8 else "I"), value)[0]
    if at + length > len(tiff):
        raise truncated()
    return tiff[at : at + length]


def _integer(directory: _Directory, tiff: bytes, tag: int, default: int) -> int:
    """The first value of an integer tag."""
    return next(iter(integers(directory, tiff, tag)), default)


def integers(directory: _Directory, tiff: bytes, tag: int) -> tuple[int, ...]:
    """All values of an integer tag; none where there is no such tag."""
    for found, kind, count, value in directory.entries:
        if found == tag and kind in _TIFF_INTEGERS and count:
            packed = _value(tiff, directory.order, kind, count, value)
            return struct.unpack(f"{directory.order}{count}{_TIFF_INTEGERS[kind]}", packed)
    return ()


def exif_orientation(exif: bytes) -> int:
    """1-8; 1 where EXIF is absent, broken or says something else."""
    try:
        found = _integer(tiff_directory(exif), exif, 0x0112, 1)
    except (struct.error, UndecodableError):
        return 1
    return found if 1 <= found <= 8 else 1


def _tiff(data: bytes) -> Container:
    """Rewrite the first directory in place with the pixel tags only; offsets keep their meaning."""
    directory = tiff_directory(data)
    order, big, start, entries, more = directory
    bits, form = (_integer(directory, data, tag, 1) for tag in (258, 339))
    if bits not in (1, 2, 4, 8, 16) or form != 1 or (bits == 16 and _integer(directory, data, 262, 1) == 0):
        raise unsupported("a TIFF of float, signed, 12-bit, 32-bit or inverted 16-bit samples")
    kept: dict[int, bytes] = {}
    icc, outside = None, 0
    for tag, kind, count, value in entries:
        if tag == 34675:
            icc = _value(data, order, kind, count, value)
        elif tag in _TIFF_KEEP and tag not in kept:
            length = len(_value(data, order, kind, count, value))
            outside += length if length > len(value) else 0
            kept[tag] = struct.pack(order + ("HHQ8s" if big else "HHI4s"), tag, kind, count, value)
    if outside > len(data):  # overlapping tables: Pillow would warn and skip one
        raise corrupt()
    table = struct.pack(order + ("Q" if big else "H"), len(kept)) + b"".join(kept.values()) + bytes(8 if big else 4)
    clean = data[:start] + table + data[start + len(table) :]
    width, height = (max(_integer(directory, data, tag, 0) for tag in tags) for tags in ((256, 322), (257, 323)))
    orientation = exif_orientation(data)
    return Container("TIFF", clean, (width, height), orientation, icc, bits, more=more)


_WALKERS = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"RIFF", _webp),
    ((b"GIF87a", b"GIF89a"), _gif),
    ((b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0"), _tiff),
    (b"BM", _bmp),
)
