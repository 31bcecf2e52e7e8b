"""What else a value may be, read another way: text that stands for bytes, or something compressed."""

from __future__ import annotations

import base64
import bz2
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

SHORTEST = 64  # bytes; what is shorter holds no picture, and no more than a few words
_MOST = 64 << 20  # bytes inflated of one value
_DEPTH = 2  # base64 of something compressed, and the other way round

_SPACE = b"\r\n\t"
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{64,}")
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){64,}")
_ESCAPE = re.compile(rb"\\(?:x|u00)([0-9a-fA-F]{2})|\\([nrt0'\"\\])")
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_PLAIN = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"0": b"\0"}


def readings(data: bytes, depth: int = _DEPTH) -> Iterator[bytes]:
    """Other readings of a value: base64, hexadecimal or escaped text, bytes taken for Latin-1, compressed bytes.

    Not read: archives within archives beyond two steps, encryption, and numbers written out.
    """
    if len(data) < SHORTEST or not depth:
        return
    for found in (*_inflated(data), *_spelled(data)):
        yield found
        yield from readings(found, depth - 1)


def _spelled(data: bytes) -> Iterator[bytes]:
    text = data.translate(None, _SPACE)  # base64 is often broken into lines
    for run in _BASE64.finditer(text):
        letters = run.group().replace(b"-", b"+").replace(b"_", b"/")
        for start in range(4):  # a letter before it shifts the groups of four
            usable = letters[start:]
            usable = usable[: len(usable) - (len(usable) % 4 == 1)]  # one letter alone is no byte
            yield base64.b64decode(usable + b"=" * (-len(usable) % 4))
    for run in _HEX.finditer(text):
        yield bytes.fromhex(run.group().decode())
    if len(_ESCAPE.findall(data, 0, 1 << 16)) >= SHORTEST // 4:
        yield _ESCAPE.sub(lambda match: _unescaped(match), data)
    if not data.isascii():
        try:
            yield data.decode().encode("latin-1")
        except UnicodeError:
            return


def _unescaped(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[1].decode()) if match[1] else _PLAIN.get(match[2], match[2])


def _inflated(data: bytes) -> Iterator[bytes]:
    makers: tuple[tuple[bytes, Any], ...] = (
        (b"\x1f\x8b\x08", lambda: zlib.decompressobj(31)),
        (b"BZh", bz2.BZ2Decompressor),
        (b"\xfd7zXZ\0", lzma.LZMADecompressor),
    )
    for start, make in makers:
        at = data.find(start)  # also behind a header
        if at >= 0 and (found := _members(data[at:], start, make)):
            yield found
    if data.startswith(_ZLIB) and (found := _members(data, data[:2], zlib.decompressobj)):
        yield found
    if data.startswith(b"PK\x03\x04"):
        yield from _unzipped(data)


def _members(data: bytes, start: bytes, make: Callable[[], Any]) -> bytes:
    """What was compressed in one or more streams, one after another, as far as it can be read."""
    found = bytearray()
    while data.startswith(start) and len(found) < _MOST:
        stream = make()
        try:
            found += stream.decompress(data, _MOST - len(found))
        except (zlib.error, OSError, lzma.LZMAError, EOFError):
            break
        data = stream.unused_data.lstrip(b"\0")  # streams may be filled up with zeros
    return bytes(found)


def _unzipped(data: bytes) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    yield member.read(_MOST)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError, ValueError, KeyError):
        return
