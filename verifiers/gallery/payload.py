"""The payload of a gallery's file: tensors in the safetensors format, whose parser runs nothing that it reads.

Facts go into a tensor ``about`` of JSON, not into the metadata of safetensors: that ends at 100 MB, which a million
people need.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anondata.errors import GalleryError
from anondata.verifiers.gallery.sealed import Piece

Tensors = dict[str, NDArray[Any]]

_DTYPES = {"int64": "I64", "float32": "F32", "int32": "I32", "int8": "I8"}


@dataclass(frozen=True)
class Part:
    """A tensor to be written; its bytes are those of the pieces."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Sequence[Piece] = field(repr=False)


def part_of(name: str, array: NDArray[Any]) -> Part:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return Part(name, _DTYPES[array.dtype.name], array.shape, (flat.data,))


def bytes_part(name: str, pieces: Sequence[bytes]) -> Part:
    return Part(name, "U8", (sum(len(piece) for piece in pieces),), pieces)


def about(facts: Mapping[str, Any]) -> Part:
    return bytes_part("about", [json.dumps(facts, ensure_ascii=False).encode("utf-8", "surrogatepass")])


def in_safetensors(parts: Sequence[Part]) -> Iterator[Piece]:
    """The format of safetensors; its own writer holds all of it twice (0.8). Large types first keep it aligned."""
    header, end = {}, 0
    for part in parts:
        start, end = end, end + sum(len(piece) for piece in part.pieces)
        header[part.name] = {"dtype": part.dtype, "shape": part.shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for part in parts:
        yield from part.pieces


def take_about(tensors: Tensors) -> Any:
    """Takes the facts out."""
    return json.loads(take(tensors, "about", np.uint8, (None,)).tobytes().decode("utf-8", "surrogatepass"))


def take(tensors: Tensors, name: str, dtype: type[np.generic], shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Takes a tensor out; None in a shape is any size."""
    tensor = tensors.pop(name)
    fits = tensor.ndim == len(shape) and all(w in (None, n) for n, w in zip(tensor.shape, shape, strict=True))
    if tensor.dtype != dtype or not fits:
        raise GalleryError(f"a part of {tensor.ndim} dimensions and type {tensor.dtype} where another belongs")
    return tensor


def check_taken(tensors: Tensors) -> None:
    """Raises :class:`GalleryError` where something was not taken."""
    if tensors:
        raise GalleryError(f"{len(tensors)} parts that do not belong in it")


def fact(facts: Mapping[str, Any], name: str, kind: type) -> Any:
    if type(facts[name]) is not kind:
        raise GalleryError(f"a fact of type {type(facts[name]).__name__}, expected {kind.__name__}")
    return facts[name]
