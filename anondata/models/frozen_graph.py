"""The constants of a frozen TensorFlow graph, read without TensorFlow.

A frozen graph is a protocol buffer message ``GraphDef`` whose weights are nodes of type ``Const``. Nothing of it is
executed.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from anondata.errors import WeightsError
from anondata.models.protobuf import fields

_FLOAT = 1  # TensorFlow's DT_FLOAT


def float_constants(graph: bytes) -> dict[str, Tensor]:
    """Every float32 constant of a ``GraphDef`` by its node's name, in TensorFlow's own layout.

    Raises:
        WeightsError: for bytes that are no such message.
    """
    try:
        nodes = [_node(node) for number, node in fields(memoryview(graph)) if number == 1]
    except (IndexError, ValueError, TypeError) as error:
        raise WeightsError("the file is not a frozen TensorFlow graph, or it is damaged") from error
    found = {name: tensor for name, tensor in nodes if tensor is not None}
    if not found:
        raise WeightsError("the frozen graph holds no float32 constant")
    return found


def _node(node: memoryview) -> tuple[str, Tensor | None]:
    """NodeDef: 1 name, 2 op, 5 attributes."""
    name, op, tensor = "", "", None
    for number, value in fields(node):
        if number == 1:
            name = bytes(value).decode()
        elif number == 2:
            op = bytes(value).decode()
        elif number == 5:
            entry = dict(fields(value))  # of the map: 1 key, 2 value
            if bytes(entry[1]) == b"value":
                tensor = next((_tensor(v) for n, v in fields(entry[2]) if n == 8), None)  # AttrValue: 8 tensor
    return name, tensor if op == "Const" else None


def _tensor(message: memoryview) -> Tensor | None:
    """TensorProto: 1 type, 2 shape, 4 raw content, 5 floats, of which the last stands for all that follow."""
    kind, shape, content, listed = 0, [], b"", np.zeros(0, np.float32)
    for number, value in fields(message):
        if number == 1:
            kind = _whole(value)
        elif number == 2:
            shape = [_size(dimension) for n, dimension in fields(value) if n == 2]
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
    return next((_whole(value) for number, value in fields(dimension) if number == 1), 0)


def _whole(value: memoryview) -> int:
    return int.from_bytes(value, "little")
