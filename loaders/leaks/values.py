"""A value of a content field, whatever it is: its bytes in a file, its bytes in memory, and its pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from anondata.content.base import parts_of
from anondata.content.images import ImageContent
from anondata.errors import FieldTypeError, UndecodableError
from anondata.loaders.leaks.pictures import is_picture
from anondata.records import RegionRecord
from anondata.samples import leaves

_START = 64  # bytes: what kind of file it is, and no pixels
_FILE = {"bytes", "path"}  # as `datasets` stores images and other files
_BESIDES = ("AVIF", "JPEG2000", "PPM", "TGA", "PCX", "SGI", "ICO", "DDS", "QOI", "PSD")
"""Formats that the codec does not read, and Pillow does without another program."""


class Value:
    """One value. What it is decoded to is held as long as it is, which should not be long."""

    def __init__(self, value: Any) -> None:
        self._value = value["bytes"] if isinstance(value, Mapping) and set(value) == _FILE else value

    @cached_property
    def encoded(self) -> bytes | None:
        """What a file holds of it; None for what a writer has yet to encode."""
        if isinstance(self._value, str):
            return self._value.encode()
        return bytes(self._value) if isinstance(self._value, bytes | bytearray | memoryview) else None

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture, also one that cannot be decoded. An array that is none may be any other thing."""
        claims = isinstance(self._value, Image.Image) or is_picture(self.encoded or b"")
        return claims or self.pixels is not None

    @cached_property
    def raw(self) -> bytes:
        """Its bytes in memory."""
        value = self._value
        if isinstance(value, Tensor):
            value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        if isinstance(value, np.ndarray | Image.Image):
            return bytes(value.tobytes())
        return self.encoded or b""

    @cached_property
    def pixels(self) -> Tensor | None:
        """``(3, H, W)`` uint8 as the engine sees it; None for what is no picture."""
        return None if self._media is None else ImageContent().view(self._media).cpu()

    @cached_property
    def pixels_digest(self) -> bytes:
        """Of all that shows, transparency included; empty for what is no picture."""
        if self.pixels is None or self._media is None:
            return b""
        alpha = b"" if self._media.alpha is None else self._media.alpha.cpu().contiguous().numpy().tobytes()
        shape = repr((tuple(self.pixels.shape), bool(alpha))).encode()
        return digest(shape + self.pixels.contiguous().numpy().tobytes() + alpha)

    @cached_property
    def _media(self) -> Any:
        try:
            return ImageContent().decode(self._value, torch.device("cpu"))
        except (UndecodableError, FieldTypeError):
            return None if self.encoded is None else _otherwise(self.encoded)

    def raw_regions(self, regions: Sequence[RegionRecord]) -> bytes:
        """Raw pixels of some regions as arrays hold them: channels last, and channels first."""
        if self.pixels is None:
            return b""
        rows = []
        for region in regions:
            x0, y0, x1, y1 = (max(0, round(side)) for side in region.box)
            part = self.pixels[:, y0:y1, x0:x1]
            rows += [part.permute(1, 2, 0).contiguous().numpy().tobytes(), part.contiguous().numpy().tobytes()]
        return b"".join(rows)


def _otherwise(data: bytes) -> Any:
    """A picture of a format that the codec does not read; None for what is none, or cannot be read to its end."""
    try:
        with Image.open(io.BytesIO(data), formats=_BESIDES) as image:
            return ImageContent().decode(image.convert("RGB"), torch.device("cpu"))
    except Exception:  # noqa: BLE001 - Pillow's plugins raise a dozen types for bad bytes
        return None


def values_of(fields: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """The values of fields with their places (:func:`anondata.samples.leaves`), those of kept structs, too.

    And the parts of those that have some, by the places that records tell.
    """
    for name, field in fields.items():
        for place, value in leaves(field, name):
            if isinstance(value, Mapping) and set(value) != _FILE:
                yield from values_of({f"{place}.{key}": item for key, item in value.items()})
            elif value is not None:
                whole = Value(value)
                yield place, whole
                yield from _parts(place, whole.encoded)


def _parts(place: str, data: bytes | None) -> Iterator[tuple[str, Value]]:
    try:
        yield from ((place + within, Value(part)) for within, part in parts_of(data))
    except UndecodableError:
        yield f"{place}[0]", Value(data[:_START] if data else b"")  # a picture that nobody can look at


def digest(data: bytes) -> bytes:
    """By which bytes are recognised as the same."""
    return hashlib.sha256(data).digest()
