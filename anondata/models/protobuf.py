"""Fields of protocol buffer messages, read without their schema and without TensorFlow's or ONNX's code.

The wire format: https://protobuf.dev/programming-guides/encoding. Groups are not read.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTH = {_FIXED64: 8, _FIXED32: 4}


def fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Field numbers and their bytes, in order; a varint's value as ten bytes, little-endian.

    Raises:
        IndexError, ValueError: for bytes that are no message.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, memoryview(value.to_bytes(10, "little"))
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in _WIDTH:
            size = _WIDTH[kind]
        else:
            raise ValueError("unknown wire type")
        if at + size > len(message):
            raise ValueError("a field reaches beyond the end")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")
