"""Whether a file holds as many pixels as its header promises.

Decoders fill up what is missing: a PNG of 90 kB whose header promises 150 million pixels costs gigabytes and comes
out black. Here a stream is measured against its header, before memory for pixels is taken where that can be told:
exactly for PNG and TIFF without compression, by the fewest bits that its coding could need elsewhere. What a JPEG
lacks beyond that is told after it was decoded, by :func:`refills`.

Pure functions on bytes. They raise `UndecodableError` with the reason ``truncated``, and ``struct.error`` or
``IndexError`` where a file ends early.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from anondata.content._container import Container, truncated
from anondata.content._containers import integers, tiff_directory

_CHUNK = 1 << 18  # bytes inflated at once, to be counted and thrown away
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by a PNG's colour type
_TIFF_RATIO = {1: 1, 5: 2800, 8: 1040, 32773: 64, 32946: 1040}  # the most that a TIFF's compressions can shrink
_TIFF_JPEG = 7
_BEHIND_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")


def check_promise(container: Container) -> None:
    """Raises UndecodableError where a file holds fewer pixels than its header promises."""
    check = {"PNG": _png, "JPEG": _jpeg, "TIFF": _tiff}.get(container.format)
    if check is not None and not check(container.data):
        raise truncated()


def _up(amount: int, part: int) -> int:
    """How many parts an amount takes."""
    return -(-amount // part)


def _png(data: bytes) -> bool:
    """Inflates the pixels, piece by piece, and counts. It costs a tenth of decoding them."""
    width, height, bits, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    per_pixel = bits * _CHANNELS.get(colour, 1)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = ((max(0, _up(width - x, dx)), max(0, _up(height - y, dy))) for x, y, dx, dy in passes)
    missing: int = sum((1 + _up(w * per_pixel, 8)) * h for w, h in sizes if w)
    inflater = zlib.decompressobj()
    for piece in _png_pieces(data):
        while missing > 0 and piece and not inflater.eof:
            try:
                missing -= len(inflater.decompress(piece, _CHUNK))
            except zlib.error:
                return True  # broken, which its decoder tells
            piece = inflater.unconsumed_tail
    return missing <= 0


def _png_pieces(data: bytes) -> Iterator[bytes]:
    at, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            yield data[at + 8 : at + 8 + length]
        at += 12 + length


class _Frame(NamedTuple):
    """What a JPEG's header promises. parts: sampling factors by component."""

    marker: int
    width: int
    height: int
    parts: dict[int, tuple[int, int]]


class _Scan(NamedTuple):
    """A JPEG's scan: where its coded bytes begin and end, and the fewest bits that its blocks could take."""

    start: int
    end: int
    bits: int
    frame: _Frame | None

    @property
    def is_short(self) -> bool:
        return (self.end - self.start) * 8 < self.bits

    def is_of(self, width: int, height: int) -> bool:
        """Whether it can hold a picture of that size."""
        return bool(not self.is_short and self.frame and self.frame.width >= width and self.frame.height >= height)


def _jpeg(data: bytes) -> bool:
    return not any(scan.is_short for scan in _scans(data))


def _scans(data: bytes) -> Iterator[_Scan]:
    frame: _Frame | None = None
    at = 2
    while at + 4 <= len(data):
        at = data.find(b"\xff", at)
        if at < 0:
            return
        marker = data[at + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            at += 2 if marker != 0xFF else 1
            continue
        if marker == 0xD9:
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        body, at = data[at + 4 : at + 2 + length], at + 2 + length
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", body, 1)
            parts = {body[i]: (body[i + 1] >> 4, body[i + 1] & 15) for i in range(6, 6 + 3 * body[5], 3)}
            frame = _Frame(marker, width, height, parts)
        elif marker == 0xDA:
            behind = _BEHIND_SCAN.search(data, at)
            end = behind.start() if behind else len(data)
            yield _Scan(at, end, _fewest_bits(frame, body) if frame else 0, frame)
            at = end


def _fewest_bits(frame: _Frame, scan: bytes) -> int:
    """A block takes a bit for its mean and one that says that nothing else follows; a scan of one of them, one."""
    marker, width, height, parts = frame
    count = scan[0]
    first, exact = scan[1 + 2 * count], scan[3 + 2 * count] >> 4
    if marker not in (0xC0, 0xC1, 0xC2) or first or exact:  # arithmetic codes take less than a bit
        return 0
    widest, highest = max(h for h, _ in parts.values()), max(v for _, v in parts.values())
    used = [parts[scan[1 + 2 * i]] for i in range(count)]
    if count == 1:
        ((h, v),) = used
        blocks = _up(_up(width * h, widest), 8) * _up(_up(height * v, highest), 8)
    else:
        blocks = sum(h * v for h, v in used) * _up(width, 8 * widest) * _up(height, 8 * highest)
    return blocks * (1 if marker == 0xC2 else 2)


def refills(data: bytes) -> bytes:
    """A JPEG with something to read behind the end of each scan.

    A whole file decodes to the same pixels, because nothing behind the last block is read; one whose scans are short
    to others.
    """
    random, out, at = Random(0), [], 0  # what is read does not matter, so it need not be a secret
    restarts = b"\xff\xdd" in data
    for scan in _scans(data):
        last = [m[1][0] for m in _RESTART.finditer(data, scan.start, scan.end)][-1:] if restarts else []
        filler = [_noise(random, 512)]
        if restarts:
            phase = (last[0] - 0xD0 + 1) % 8 if last else 0
            filler += [bytes([0xFF, 0xD0 + (phase + i) % 8]) + _noise(random, 64) for i in range(16)]
        out += [data[at : scan.end], *filler]
        at = scan.end
    return b"".join([*out, data[at:]])


def _noise(random: Random, size: int) -> bytes:
    return bytes(random.randrange(255) for _ in range(size))


def _tiff(data: bytes) -> bool:
    """Counts strips or tiles, and their bytes."""
    directory = tiff_directory(data)

    def one(tag: int, default: int) -> int:
        return next(iter(integers(directory, data, tag)), default)

    tiled = bool(integers(directory, data, 324))
    width, height, samples = one(256, 0), one(257, 0), one(277, 1)
    across, down = (one(322, width), one(323, height)) if tiled else (width, min(one(278, height), height))
    if min(width, height, samples, across, down) < 1:
        return True  # broken, which its decoder tells
    planes = samples if one(284, 1) == 2 else 1
    pieces = _up(width, across) * _up(height, down) * planes
    places = integers(directory, data, 324 if tiled else 273)
    if len(places) < pieces:
        return False
    sizes = integers(directory, data, 325 if tiled else 279)[:pieces]
    held, compression = sum(sizes), one(259, 1)
    if not held:
        return True  # old writers leave the sizes out
    if compression == _TIFF_JPEG:
        least = height % down or down  # of a column's last strip
        found = [next(_scans(data[at : at + size]), None) for at, size in zip(places, sizes, strict=False)]
        return all(scan is None or scan.is_of(across, least) for scan in found)
    if compression not in _TIFF_RATIO or one(262, 1) == 6:  # a bit for a line is enough for a fax
        return True
    row = _up(across * one(258, 1) * samples // planes, 8)
    rows = pieces * down if tiled else height * planes
    return held * _TIFF_RATIO[compression] >= rows * row
