"""A mask, or a map of labels, in whatever form it comes, as an array of one plane."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from anondata.content import codec
from anondata.content._containers import exif_orientation, strip
from anondata.errors import FieldTypeError, UndecodableError

T = TypeVar("T")

_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")
_WHOLE = (None, "PNG", "TIFF", "BMP", "GIF", "PPM")  # formats of PIL images that keep values as they are
_TIFF_LOSSY = ("jpeg", "tiff_jpeg", "webp")
_UNPACKED = {2: 85, 4: 17}  # Pillow stretches grey levels of few bits to 0 to 255
_SMEARED = "a mask is stored as {}, which smears its values; store masks as PNG"


def plane_of(value: Any, frame: tuple[int, int]) -> NDArray[Any]:
    """``(H, W)`` whole numbers or booleans of an array, a tensor, nested lists, a PIL image or the bytes of a PNG.

    Floats are 0 or 1. ``(1, H, W)`` is taken, too. frame: height and width that it must have.

    Raises: FieldTypeError; TypeError, ValueError and their like for what cannot be made an array.
    """
    plane = values_of(value, frame)
    plane = plane[0] if plane.ndim == 3 and len(plane) == 1 else plane
    if plane.shape != frame:
        raise _other_size(plane.shape, frame)
    return plane


def _other_size(shape: tuple[int, ...], frame: tuple[int, int]) -> FieldTypeError:
    return FieldTypeError(
        f"a mask has the shape {shape}, but the upright picture is {frame}; a mask must be as large as it"
    )


def values_of(value: Any, frame: tuple[int, int]) -> NDArray[Any]:
    """The same of any shape, such as ``(R, H, W)``."""
    if isinstance(value, bytes | bytearray | memoryview):
        return _decoded(bytes(value), frame)
    if isinstance(value, Image.Image):
        return _of_pil(value, frame)
    if isinstance(value, Tensor):
        return _of_tensor(value)
    return _whole(np.asarray(value))


def _whole(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind in "bui":
        return array
    if array.dtype.kind != "f":
        raise FieldTypeError(f"a mask holds {array.dtype}; expected whole numbers, or floats of 0 and 1")
    if not bool(((array == 0) | (array == 1)).all()):
        raise FieldTypeError("a mask holds floats other than 0 and 1; decide first which pixels belong to it")
    ones: NDArray[Any] = array != 0
    return ones


def _of_tensor(tensor: Tensor) -> NDArray[Any]:
    plain = tensor.detach().cpu().as_subclass(Tensor)
    array: NDArray[Any] = (plain.double() if plain.is_floating_point() else plain).numpy()  # which knows no bfloat16
    return _whole(array)


def _of_pil(image: Image.Image, frame: tuple[int, int]) -> NDArray[Any]:
    if image.format not in _WHOLE or image.info.get("compression") in _TIFF_LOSSY:
        raise FieldTypeError(_SMEARED.format(image.format))
    _check_mode(image)
    if image.size != frame[::-1]:  # before a file that was opened lazily is decoded
        raise _other_size(image.size[::-1], frame)

    raw = [tile.args for tile in getattr(image, "tile", ())]  # how the file has them; gone once it is decoded
    stretched = next((by for mode, by in (("L;2", 85), ("L;4", 17)) if image.format == "PNG" and mode in raw), 1)

    def read() -> NDArray[Any]:
        return np.array(image)

    values = _told(read)
    values = values // stretched if stretched > 1 else values
    _check_upright(exif_orientation(image.info.get("exif", b"").removeprefix(b"Exif\0\0")))
    return values


def _decoded(data: bytes, frame: tuple[int, int]) -> NDArray[Any]:
    container = _told(lambda: strip(data))
    if container.format not in ("PNG", "TIFF"):
        raise FieldTypeError(_SMEARED.format(container.format) if container.format == "JPEG" else _NO_PNG)
    _check_upright(container.orientation)
    if container.more:
        raise FieldTypeError("a mask's file holds several pictures; store one")
    image = _told(lambda: codec.load(container, frame[0] * frame[1]))
    if image.info.get("compression") in _TIFF_LOSSY:
        raise FieldTypeError(_SMEARED.format("TIFF with lossy compression"))
    _check_mode(image)
    values: NDArray[Any] = np.array(image)
    packed = container.format == "PNG" and container.grey and image.mode == "L"
    return values // _UNPACKED[container.bits] if packed and container.bits in _UNPACKED else values


_NO_PNG = "a mask is stored in a format that is not read; store masks as PNG"


def _told(read: Callable[[], T]) -> T:
    """What a decoder reads, or why not, without its words."""
    try:
        return codec.fail_closed(read)
    except UndecodableError as error:
        reason = error.reason
    larger = "; it is larger than its picture" if reason == "too_large" else ""
    raise FieldTypeError(f"a mask cannot be decoded ({reason}){larger}; store masks as PNG, of the picture's size")


def _check_mode(image: Image.Image) -> None:
    if image.mode not in _MODES:
        raise FieldTypeError(
            f"a mask is a picture of mode {image.mode}; expected one channel (1, L, P or I;16), as its file has it: "
            "decoders for photos make three of it"
        )


def _check_upright(orientation: int) -> None:
    if orientation != 1:
        raise FieldTypeError("a mask's EXIF says that it is turned; store it upright, as the picture is seen")
