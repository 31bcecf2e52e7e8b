"""The constants of a frozen TensorFlow graph, read without TensorFlow.

A frozen graph is a protocol buffer message ``GraphDef`` whose weights are nodes of type ``Const``. Of the wire format
(https://protobuf.dev/programming-guides/encoding) only what such a file holds is read; nothing of it is executed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from anondata.errors import WeightsError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT = 1  # TensorFlow's DT_FLOAT
_WIDTH = {_FIXED64: 8, _FIXED32: 4}


def float_constants(graph: bytes) -> dict[str, Tensor]:
    """Every float32 constant of a ``GraphDef`` by its node's name, in TensorFlow's own layout.

    Raises:
        WeightsError: for bytes that are no such message.
    """
    try:
        nodes = [_node(node) for number, node in _fields(memoryview(graph)) if number == 1]
    except (IndexError, ValueError, TypeError) as error:
        raise WeightsError("the file is not a frozen TensorFlow graph, or it is damaged") from error
    found = {name: tensor for name, tensor in nodes if tensor is not None}
    if not found:
        raise WeightsError("the frozen graph holds no float32 constant")
    return found


def _node(node: memoryview) -> tuple[str, Tensor | None]:
    """NodeDef: 1 name, 2 op, 5 attributes."""
    name, op, tensor = "", "", None
    for number, value in _fields(node):
        if number == 1:
            name = bytes(value).decode()
        elif number == 2:
            op = bytes(value).decode()
        elif number == 5:
            entry = dict(_fields(value))  # of the map: 1 key, 2 value
            if bytes(entry[1]) == b"value":
                tensor = next((_tensor(v) for n, v in _fields(entry[2]) if n == 8), None)  # AttrValue: 8 tensor
    return name, tensor if op == "Const" else None


def _tensor(message: memoryview) -> Tensor | None:
    """TensorProto: 1 type, 2 shape, 4 raw content, 5 floats, of which the last stands for all that follow."""
    kind, shape, content, listed = 0, [], b"", np.zeros(0, np.float32)
    for number, value in _fields(message):
        if number == 1:
            kind = _whole(value)
        elif number == 2:
            shape = [_size(dimension) for n, dimension in _fields(value) if n == 2]
        elif number == 4:
            content = bytes(value)
        elif number == 5:
            listed = np.append(listed, np.frombuffer(value, "<f4"))
    if kind != _FLOAT:
        return None
    count = math.prod(shape)
    values = np.frombuffer(content, "<f4") if content else listed
    if not 0 < len(values) <= count and count:
        raise ValueError("a constant has other values than its shape says")
    whole = np.concatenate([values, np.repeat(values[-1:], count - len(values))])
    return torch.from_numpy(whole.astype(np.float32).reshape(shape))


def _size(dimension: memoryview) -> int:
    return next((_whole(value) for number, value in _fields(dimension) if number == 1), 0)


def _whole(value: memoryview) -> int:
    return int.from_bytes(value, "little")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Field numbers and their bytes; a varint's value as eight bytes, little-endian."""
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
