"""HEIC, AVIF and JPEG 2000 files: boxes of pixels and of what else there is.

An item of EXIF or XMP is given a type that no decoder knows, so that none reads it; boxes of a JPEG 2000 file that
hold no pixels are left out. How the picture is turned is not read here: libheif turns it, and Pillow tells it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from anondata.content._container import Container, truncated, unsupported
from anondata.errors import UndecodableError

_AVIF = (b"avif", b"avis")
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_NO_PIXELS = (b"Exif", b"mime", b"uri ")
_JP2_KEEP = (b"jP  ", b"ftyp", b"jp2h", b"jp2c")
_JP2_HEADER = (b"ihdr", b"bpcc", b"colr", b"pclr", b"cmap", b"cdef")
_SOT, _EOC, _SIZ = 0xFF90, 0xFFD9, 0xFF51


class Box(NamedTuple):
    kind: bytes
    at: int  # of its header
    body: int
    end: int


def boxes(data: bytes, at: int, end: int) -> Iterator[Box]:
    """The boxes between two places. Raises: UndecodableError."""
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        body = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        elif size == 0:
            size = end - at
        if size < body - at:
            raise UndecodableError("the image file breaks the rules of its format", reason="corrupt")
        if at + size > end:
            raise truncated()
        yield Box(kind, at, body, at + size)
        at += size


def heif(data: bytes) -> Container:
    """A HEIC or AVIF file. Raises: UndecodableError; struct.error where it ends early."""
    top = {box.kind: box for box in boxes(data, 0, len(data))}
    if b"ftyp" not in top:
        raise UndecodableError("the bytes do not start like a known image format", reason="not_an_image")
    brands = [data[at : at + 4] for at in range(top[b"ftyp"].body, top[b"ftyp"].end, 4)]
    form = "AVIF" if any(b in _AVIF for b in brands) else "HEIF" if any(b in _HEIF for b in brands) else ""
    meta = top.get(b"meta")
    if not form or meta is None:
        raise unsupported("a file of this kind (video, raw or rare)")
    inside = {box.kind: box for box in boxes(data, meta.body + 4, meta.end)}
    clean = _without_words(data, inside.get(b"iinf"))
    _check_extents(data, inside[b"iloc"], inside.get(b"idat"))
    properties = _primary_properties(data, inside)
    size, bits, channels, icc = (0, 0), 8, 3, None
    for box in properties:
        if box.kind == b"ispe":
            size = struct.unpack_from(">II", data, box.body + 4)
        elif box.kind == b"pixi":
            channels = data[box.body + 4]
            bits = max(data[box.body + 5 : box.body + 5 + channels], default=8)
        elif box.kind == b"colr" and data[box.body : box.body + 4] in (b"prof", b"rICC"):
            icc = data[box.body + 4 : box.end]
    if not all(size):
        raise UndecodableError("the image file does not say how large it is", reason="corrupt")
    return Container(form, clean, size, icc=icc, bits=bits, grey=channels == 1, more=b"moov" in top)


def _without_words(data: bytes, iinf: Box | None) -> bytes:
    """The same file, in which items without pixels have a type that nobody knows."""
    if iinf is None:
        return data
    out = bytearray(data)
    for at, kind in item_kinds(data, iinf).items():
        if kind in _NO_PIXELS:
            out[at : at + 4] = b"skip"
    return bytes(out)


def item_kinds(data: bytes, iinf: Box) -> dict[int, bytes]:
    """The types of all items, by where they stand in the file."""
    found = {}
    for box in boxes(data, iinf.body + (6 if data[iinf.body] == 0 else 8), iinf.end):
        at = box.body + 4 + (4 if data[box.body] == 2 else 6)
        if box.kind == b"infe" and data[box.body] >= 2:
            found[at] = data[at : at + 4]
    return found


def _check_extents(data: bytes, iloc: Box, idat: Box | None) -> None:
    """Raises where a part of an item lies behind the end of the file."""
    version = data[iloc.body]
    sizes = struct.unpack_from(">H", data, iloc.body + 4)[0]
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    at = iloc.body + 6

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > iloc.end:
            raise truncated()
        return int.from_bytes(data[at - size : at], "big")

    for _ in range(number(2 if version < 2 else 4)):
        number(2 if version < 2 else 4)
        method = number(2) & 15 if version else 0
        number(2)
        base = number(base_size)
        for _ in range(number(2)):
            if version and index_size:
                number(index_size)
            offset, length = number(offset_size), number(length_size)
            within = len(data) if method == 0 else idat.end - idat.body if idat and method == 1 else 0
            if method < 2 and base + offset + length > within:
                raise truncated()


def _primary_properties(data: bytes, inside: dict[bytes, Box]) -> list[Box]:
    """The properties of the picture that is shown."""
    pitm = inside[b"pitm"]
    primary = int.from_bytes(data[pitm.body + 4 : pitm.body + (6 if data[pitm.body] == 0 else 8)], "big")
    parts = {box.kind: box for box in boxes(data, inside[b"iprp"].body, inside[b"iprp"].end)}
    stored = list(boxes(data, parts[b"ipco"].body, parts[b"ipco"].end))
    ipma = parts[b"ipma"]
    version, wide = data[ipma.body], data[ipma.body + 3] & 1
    (entries,) = struct.unpack_from(">I", data, ipma.body + 4)
    at, width = ipma.body + 8, 2 if version < 1 else 4
    for _ in range(entries):
        item, count = int.from_bytes(data[at : at + width], "big"), data[at + width]
        at += width + 1
        step = 2 if wide else 1
        refs = [int.from_bytes(data[i : i + step], "big") for i in range(at, at + count * step, step)]
        at += count * step
        if item == primary:
            numbers = [ref & (0x7FFF if wide else 0x7F) for ref in refs]
            return [stored[number - 1] for number in numbers if 0 < number <= len(stored)]
        if at > ipma.end:
            break
    raise UndecodableError("the image file does not tell which picture it shows", reason="corrupt")


def jpeg2000(data: bytes) -> Container:
    """A JPEG 2000 file, or a codestream alone. Raises: UndecodableError; struct.error where it ends early."""
    if data.startswith(b"\xff\x4f"):
        return _codestream(data, data, None)
    kept, stream, icc = [], b"", None
    for box in boxes(data, 0, len(data)):
        if box.kind not in _JP2_KEEP or (box.kind == b"jp2c" and stream):
            continue
        body = data[box.body : box.end]
        if box.kind == b"jp2h":
            inner = [b for b in boxes(data, box.body, box.end) if b.kind in _JP2_HEADER]
            body = b"".join(data[b.at : b.end] for b in inner)
            profiles = [b for b in inner if b.kind == b"colr" and data[b.body] == 2]
            icc = data[profiles[0].body + 3 : profiles[0].end] if profiles else None
        elif box.kind == b"jp2c":
            stream = body
        kept.append(struct.pack(">I4s", len(body) + 8, box.kind) + body)
    if not stream:
        raise truncated()
    return _codestream(b"".join(kept), stream, icc)


def _codestream(whole: bytes, stream: bytes, icc: bytes | None) -> Container:
    """Every tile must be there, and each of its parts as long as it says."""
    marker, _, _, right, below, left, above, wide, high, first_x, first_y, parts = struct.unpack_from(
        ">HHHIIIIIIIIH", stream, 2
    )
    if marker != _SIZ or not wide or not high:
        raise UndecodableError("the image file breaks the rules of its format", reason="corrupt")
    bits = max((stream[42 + 3 * part] & 0x7F) + 1 for part in range(parts))
    size = right - left, below - above
    tiles = -(-(right - first_x) // wide) * -(-(below - first_y) // high)
    at, seen = 2, set()
    while True:
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == _EOC:
            break
        if marker != _SOT:
            at += 2 + length
            continue
        tile, part_length = struct.unpack_from(">HI", stream, at + 4)
        seen.add(tile)
        at = at + part_length if part_length else len(stream) - 2
        if at + 2 > len(stream):
            raise truncated()
        if stream[at : at + 2] == b"\xff\xd9":
            break
    if len(seen) < tiles:
        raise truncated()
    return Container("JPEG2000", whole, size, icc=icc, bits=bits, grey=parts == 1)
