"""Files of several pictures taken apart: each picture as a file of its own, and where and when it is shown.

Pure functions on bytes. They raise `UndecodableError` for what they recognise, and ``struct.error`` or ``IndexError``
where a file ends early; `anondata.content.codec` maps those.

Sources: W3C, Portable Network Graphics (third edition); Google, WebP Container Specification; CompuServe, GIF89a;
Adobe, TIFF 6.0.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from anondata.content._container import corrupt, truncated
from anondata.content._containers import tiff_directory
from anondata.errors import UndecodableError

PNG = b"\x89PNG\r\n\x1a\n"
_GIF = (b"GIF87a", b"GIF89a")
_TIFF = (b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b")
_CHECKED = (b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"IDAT", b"fdAT")
KEEP, CLEAR, BACK = 0, 1, 2  # what becomes of a picture's place when the next one is shown


@dataclass(frozen=True)
class Part:
    """One picture as it lies in its file. over: it is laid over what was there.

    data: a still file of it, or what makes one when its turn comes: each page of a TIFF is as large as all of them.
    """

    data: bytes | Callable[[], bytes] = field(repr=False)
    x: int = 0
    y: int = 0
    over: bool = False
    then: int = KEEP
    duration: int = 0

    def still(self) -> bytes:
        return self.data if isinstance(self.data, bytes) else self.data()


@dataclass(frozen=True)
class Reel:
    """A file taken apart. size: of the canvas, width and height; None for pages, which have sizes of their own."""

    form: str
    size: tuple[int, int] | None
    parts: tuple[Part, ...]
    plays: int = 0
    aside: bool = False


def several(data: bytes) -> bool:
    """Whether bytes are a file of several pictures, in one of the four formats; also one that ends early."""
    try:
        if data.startswith(PNG):
            return any(kind == b"acTL" for kind, _ in png_chunks(data, until=b"IDAT"))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return data[12:16] == b"VP8X" and bool(data[20] & 2)
        if data.startswith(_GIF):
            return _has_second(data)
        return data.startswith(_TIFF) and tiff_directory(data).more
    except (UndecodableError, struct.error, IndexError):  # its only picture, which the still codec tells
        return False


def take_apart(data: bytes, max_frames: int) -> Reel:
    """The pictures of a file. max_frames: limit on their number.

    Raises: UndecodableError; struct.error and IndexError where the file ends early.
    """
    walk = {b"\x89PNG": _png, b"RIFF": _webp, b"GIF8": _gif}.get(data[:4], _tiff)
    return walk(data, max_frames)


def _check_count(count: int, max_frames: int) -> None:
    if count > max_frames:
        message = f"the file has more than {max_frames} pictures; raise max_frames below frames in the policy"
        raise UndecodableError(message, reason="too_large")


def png_chunks(data: bytes, until: bytes = b"IEND") -> Iterator[tuple[bytes, bytes]]:
    at, kind = 8, b""
    while kind != until and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise truncated()
        if kind in _CHECKED and zlib.crc32(data[at + 4 : at + 8 + length]) != _number(data, at + 8 + length):
            raise corrupt()
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


def _png(data: bytes, max_frames: int) -> Reel:
    """Chunks of a still PNG for each picture. Those of `fdAT` begin with a number that is not pixels."""
    head, shared, heads, bodies, promised, plays, order = (
        b"",
        list[bytes](),
        list[bytes](),
        list[list[bytes]](),
        0,
        0,
        0,
    )
    aside = False
    for kind, body in png_chunks(data):
        if kind == b"IHDR":
            head = body
        elif kind in (b"PLTE", b"tRNS", b"iCCP"):
            shared.append(chunk(kind, body))
        elif kind == b"acTL":
            promised, plays = struct.unpack_from(">II", body)
        elif kind == b"fcTL":
            _check_count(len(heads) + 1, max_frames)
            order = _next(body, order)
            heads.append(body)
            bodies.append([])
        elif kind == b"IDAT":
            if not heads:  # no picture of the animation: shown by who reads no more
                aside = True
                heads.append(struct.pack(">IIIIIHHBB", 0, *struct.unpack_from(">II", head), 0, 0, 0, 0, 0, 0))
                bodies.append([])
            bodies[-1].append(body)
        elif kind == b"fdAT":
            order = _next(body, order)
            bodies[-1].append(body[4:])
    if len(heads) - aside != promised or not all(bodies):
        raise truncated()
    parts = [_png_part(data[:8], head, shared, one, body) for one, body in zip(heads, bodies, strict=True)]
    width, height = struct.unpack_from(">II", head)
    return Reel("PNG", (width, height), tuple(parts), plays, aside)


def _number(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">I", data, at)[0])


def _next(body: bytes, order: int) -> int:
    """Chunks of an animation are numbered, in order."""
    if _number(body, 0) != order:
        raise corrupt()
    return order + 1


def _png_part(start: bytes, head: bytes, shared: list[bytes], control: bytes, body: list[bytes]) -> Part:
    _, width, height, x, y, ticks, per_second, then, over = struct.unpack_from(">IIIIIHHBB", control)
    still = [
        start,
        chunk(b"IHDR", struct.pack(">II", width, height) + head[8:]),
        *shared,
        *(chunk(b"IDAT", piece) for piece in body),
        chunk(b"IEND", b""),
    ]
    return Part(b"".join(still), x, y, bool(over), then, round(1000 * ticks / (per_second or 100)))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))


def _webp(data: bytes, max_frames: int) -> Reel:
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise truncated()
    size, plays, profile, parts = (0, 0), 0, b"", list[Part]()
    for kind, body in riff(data, 12, end):
        if kind == b"VP8X":
            size = (1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little"))
        elif kind == b"ANIM":
            plays = struct.unpack_from("<H", body, 4)[0]
        elif kind == b"ICCP":
            profile = body
        elif kind == b"ANMF":
            _check_count(len(parts) + 1, max_frames)
            parts.append(_webp_part(body, profile))
    return Reel("WEBP", size, tuple(parts), plays)


def riff(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while at + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > end:
            raise truncated()
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _webp_part(body: bytes, profile: bytes) -> Part:
    x, y, width, height, duration = (int.from_bytes(body[at : at + 3], "little") for at in range(0, 15, 3))
    inside = [(kind, piece) for kind, piece in riff(body, 16, len(body)) if kind in (b"ALPH", b"VP8 ", b"VP8L")]
    flags = (0x20 if profile else 0) | (0x10 if any(kind != b"VP8 " for kind, _ in inside) else 0)
    head = struct.pack("<I", flags) + width.to_bytes(3, "little") + height.to_bytes(3, "little")
    chunks = [(b"VP8X", head), *([(b"ICCP", profile)] if profile else []), *inside]
    return Part(riff_file(chunks), 2 * x, 2 * y, not body[15] & 2, body[15] & 1, duration)


def riff_file(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(riff_chunk(kind, piece) for kind, piece in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def riff_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(body)) + body + b"\0" * (len(body) % 2)


def palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def gif_blocks(data: bytes) -> Iterator[bytes]:
    """The blocks behind a GIF's palette, the last of them the trailer."""
    at = 13 + palette_bytes(data[10])
    while True:
        start = at
        if at >= len(data):
            raise truncated()
        if data[at] == 0x3B:
            yield data[at : at + 1]
            return
        if data[at] not in b"!,":
            raise corrupt()
        at += 2 if data[at] == 0x21 else 11 + palette_bytes(data[at + 9])
        while data[at]:
            at += 1 + data[at]
        at += 1
        if at > len(data):
            raise truncated()
        yield data[start:at]


def is_gif_note(block: bytes) -> bool:
    """Whether a block holds neither pixels nor when they are shown, and how often."""
    looped = block[:14] == b"!\xff\x0bNETSCAPE2.0" and block[14:16] == b"\x03\x01" and len(block) == 19
    timed = block[:3] == b"!\xf9\x04" and len(block) == 8
    return block[:1] == b"!" and not looped and not timed


def _has_second(data: bytes) -> bool:
    """Whether a second picture at least begins."""
    at, found = 13 + palette_bytes(data[10]), 0
    while at < len(data) and data[at] in b"!,":
        found += data[at] == 0x2C
        if found > 1:
            return True
        at += 2 if data[at] == 0x21 else 11 + palette_bytes(data[at + 9])
        while data[at]:
            at += 1 + data[at]
        at += 1
    return False


def _gif(data: bytes, max_frames: int) -> Reel:
    head, palette = data[:13], data[13 : 13 + palette_bytes(data[10])]
    control, plays, parts = b"", 1, list[Part]()
    for block in gif_blocks(data):
        if block[:2] == b"!\xf9":
            control = block
        elif block[:14] == b"!\xff\x0bNETSCAPE2.0" and block[14:16] == b"\x03\x01":
            repeats = struct.unpack_from("<H", block, 16)[0]
            plays = repeats + 1 if repeats else 0
        elif block[:1] == b",":
            _check_count(len(parts) + 1, max_frames)
            parts.append(_gif_part(head, palette, control, block))
            control = b""
    return Reel("GIF", struct.unpack_from("<HH", head, 6), tuple(parts), plays)


def _gif_part(head: bytes, palette: bytes, control: bytes, block: bytes) -> Part:
    """The picture alone, on a screen of its size."""
    x, y, width, height = struct.unpack_from("<4H", block, 1)
    screen = head[:6] + struct.pack("<HH", width, height) + head[10:13]
    still = screen + palette + control[:3] + bytes([control[3] & 1]) + control[4:] if control else screen + palette
    still += b"," + struct.pack("<4H", 0, 0, width, height) + block[9:] + b";"
    disposal = control[3] >> 2 & 7 if control else 0
    then = {2: CLEAR, 3: BACK}.get(disposal, KEEP)
    ticks = struct.unpack_from("<H", control, 4)[0] if control else 0
    return Part(still, x, y, True, then, 10 * ticks)


def _tiff(data: bytes, max_frames: int) -> Reel:
    parts = list[Part]()
    for page in pages_of(data):
        _check_count(len(parts) + 1, max_frames)
        parts.append(Part(page))  # made in turn: memory stays that of one
    return Reel("TIFF", None, tuple(parts))


def pages_of(data: bytes) -> Iterator[Callable[[], bytes]]:
    """What makes the same TIFF for each of its pages, which begins with that page."""
    big, order = data[2:4] in (b"\x2b\0", b"\0\x2b"), "<" if data[:2] == b"II" else ">"
    word, short, entry, first = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    if not data.startswith(_TIFF) or (big and order == ">"):
        raise corrupt()
    offset = struct.unpack_from(order + word, data, first)[0]
    seen = set[int]()
    while offset:
        if offset in seen:
            raise corrupt()
        seen.add(offset)
        yield partial(_from_page, data, first, struct.pack(order + word, offset))
        count = struct.unpack_from(order + short, data, offset)[0]
        offset = struct.unpack_from(order + word, data, offset + struct.calcsize(short) + count * entry)[0]


def _from_page(data: bytes, first: int, offset: bytes) -> bytes:
    return data[:first] + offset + data[first + len(offset) :]
