"""Image files to tensors and back, with nothing but the pixels coming through.

`decode` reads JPEG (also MPO and CMYK), PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000 and, where pillow-heif is
installed, HEIC into one form: RGB in sRGB, 8 bits, upright, first picture. `encode` writes a file that holds pixels
only: no EXIF, GPS, thumbnail, XMP, comment, text, ICC profile, resolution of the source or trailing bytes, because it
starts from a tensor.

Thread-safe. Changes no global of Pillow or `warnings`, and does not depend on Pillow's, with two exceptions:
its WebP reader refuses more than ``2 * MAX_IMAGE_PIXELS`` by itself, and where ``LOAD_TRUNCATED_IMAGES`` is
set, a broken stream inside a complete file may decode to a partly blank picture.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageChops,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from torch import Tensor

from anondata.content import MAX_PIXELS as MAX_PIXELS
from anondata.content._colour import split_alpha, to_srgb
from anondata.content._complete import check_promise, refills
from anondata.content._container import Container, truncated
from anondata.content._containers import exif_orientation, strip
from anondata.errors import ShapeError, UndecodableError

T = TypeVar("T")

BAND_PX = 256  # rows that are converted at once

SUFFIXES: Mapping[str, str] = MappingProxyType(
    {
        "JPEG": ".jpg",
        "PNG": ".png",
        "WEBP": ".webp",
        "TIFF": ".tif",
        "BMP": ".bmp",
        "AVIF": ".avif",
        "HEIF": ".heic",
        "JPEG2000": ".jp2",
    }
)
"""Format that `encode` writes -> suffix of its files."""


class _WebP(WebPImagePlugin.WebPImageFile):
    """One that gives its decoder's two canvases back before memory for the picture is taken: 4.0 times the result.

    With them it was 5.3 times.
    """

    def _get_next(self) -> tuple[bytes, int, int]:
        frame = super()._get_next()
        del self._decoder  # of the first frame, and no other is asked for
        return frame


# The allow-list. The plugins are called directly and not through Image.open(formats=...), which compares
# with the global MAX_IMAGE_PIXELS, warns above it, and takes whatever plugin is registered under a name.
_PLUGINS: Mapping[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": _WebP,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
}
_T = Image.Transpose
_UPRIGHT: Mapping[int, Image.Transpose] = {  # by EXIF orientation
    2: _T.FLIP_LEFT_RIGHT,
    3: _T.ROTATE_180,
    4: _T.FLIP_TOP_BOTTOM,
    5: _T.TRANSPOSE,
    6: _T.ROTATE_270,
    7: _T.TRANSVERSE,
    8: _T.ROTATE_90,
}
_ALPHA_FORMATS = ("PNG", "WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000")
_MAX_SIDE = {
    "JPEG": 65_500,
    "WEBP": 16_383,
    "AVIF": 65_535,
    "HEIF": 16_384,
}  # a WebP canvas may be read larger than one can be written


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture.

    pixels: ``(3, H, W)`` uint8, RGB in sRGB, CPU; a permuted view of HWC memory.
    alpha: ``(H, W)`` uint8, or None where the source has no transparency.
    format: what `encode` will write, a key of `SUFFIXES`.
    grey: the source has one channel; `encode` writes one channel (the luma of ``pixels``).
    subsampling: of a JPEG's chroma as Pillow counts it: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0; otherwise None.
    notes: what decoding changed or left out, snake_case words for reports.
    lossless: the source is a lossless WebP; `encode` writes one again.
    """

    pixels: Tensor = field(repr=False)
    alpha: Tensor | None = field(repr=False)
    format: str
    grey: bool
    subsampling: int | None
    notes: tuple[str, ...]
    lossless: bool = False


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode the first picture of an image file.

    EXIF orientation is applied, embedded ICC profiles are converted to sRGB (one that cannot be used is
    ignored and noted), 16-bit samples keep their high byte, and RGB under fully transparent pixels is set
    to 0 so that nothing hides there. A GIF, or a BMP with transparency, will be written as PNG: an
    anonymized frame has more than GIF's 256 colours, and quantizing it after verification would release
    what nobody verified.

    max_pixels: limit on width times height, checked before memory for pixels is taken.

    Raises: UndecodableError and nothing else for bad bytes, with ``reason`` one of ``empty``,
    ``not_an_image``, ``unsupported``, ``truncated``, ``corrupt`` and ``too_large``. It carries neither
    bytes of the input nor the error of the decoder, whose message may.
    """
    return fail_closed(lambda: _decode(data, max_pixels))


def in_format(picture: Picture, form: str) -> Picture:
    """The same picture, to be written in another format; empty for its own. JPEG has no alpha: it is left out.

    Raises: UndecodableError for one that is too large for the format.
    """
    if not form or picture.format == form:
        return picture
    left_out = picture.alpha is not None and form not in _ALPHA_FORMATS
    picture = replace(picture, format=form, lossless=False, alpha=None if left_out else picture.alpha)
    if obstacle := _obstacle(form, picture.pixels.shape[1:], picture.alpha is not None):
        raise UndecodableError(f"{form} {obstacle}, in which all pictures are to be written", reason="too_large")
    return replace(picture, notes=(*picture.notes, "alpha_left_out")) if left_out else picture


def from_pil(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture that a PIL image shows, at its current frame, by the rules of `decode`.

    A file opened lazily is loaded; apart from that ``image`` is not changed. A format that `encode` does not
    write becomes PNG. Raises: UndecodableError.
    """

    def read() -> Picture:
        _check_size(image.size, max_pixels)
        lazy = isinstance(image, ImageFile.ImageFile) and bool(image.tile)
        more = lazy and bool(getattr(image, "is_animated", False))
        image.load()
        exif = _exif(image)
        container = Container(
            {"MPO": "JPEG"}.get(image.format or "", image.format or "PNG"),
            b"",
            orientation=exif_orientation(exif),
            icc=image.info.get("icc_profile"),
            bits=16 if image.mode.startswith("I;16") else 8,
            more=more,
        )
        return _picture(image, container)

    return fail_closed(read)


def to_pil(picture: Picture) -> Image.Image:
    """A new PIL image of the pixels, in mode L, LA, RGB or RGBA, with no metadata. Raises as `encode` does."""
    _check_tensors(picture)
    image = Image.fromarray(picture.pixels.permute(1, 2, 0).contiguous().numpy())
    if picture.grey:
        image = image.convert("L")  # equal channels come out exactly
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha.contiguous().numpy()))
    return image


def _exif(image: Image.Image) -> bytes:
    found: bytes = image.info.get("exif", b"")
    return found.removeprefix(b"Exif\0\0")


def fail_closed(read: Callable[[], T]) -> T:
    """What a function reads. Raises: UndecodableError and nothing else, whatever a decoder raises."""
    try:
        return read()
    except UndecodableError:
        raise
    # Every exception: Pillow's plugins let a dozen types out for bad bytes (OSError, SyntaxError, ValueError,
    # struct.error, zlib.error, KeyError, OverflowError, DecompressionBombError, ...) and add new ones.
    except Exception as error:  # noqa: BLE001 - a dozen types come out for bad bytes, see above
        reason = _reason(error)
    # Raised outside of the handler, so that not even __context__ leads to the decoder's message and frames.
    raise UndecodableError(f"the image cannot be decoded ({reason}); replace or drop the file", reason=reason)


def _reason(error: Exception) -> str:
    if isinstance(error, (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "too_large"
    if isinstance(error, (EOFError, IndexError, struct.error)) or "truncated" in str(error):
        return "truncated"
    return "corrupt"


class _Reader(io.BytesIO):
    """Bytes that, once ``strict``, refuse to be read past their end.

    LOAD_TRUNCATED_IMAGES makes Pillow fill up what is missing; a missing end is seen here all the same.
    """

    strict = False

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        if self.strict and not chunk and size:
            raise EOFError
        return chunk


def _decode(data: bytes, max_pixels: int) -> Picture:
    container = strip(data)
    _check_size(container.size, max_pixels)
    image = load(container, max_pixels)
    if container.format == "AVIF":  # Pillow tells how the file says it is turned, and turns nothing
        container = replace(container, orientation=exif_orientation(_exif(image)))
    return _picture(image, container)


def _picture(image: Image.Image, container: Container) -> Picture:
    """A loaded image and what its file says about it, as a Picture."""
    subsampling = _subsampling(image)
    notes = ["first_frame_only"] if container.more else []
    if container.bits > 8:
        notes.append("reduced_to_8_bit")
    colour, alpha = split_alpha(image)
    del image  # of large pictures each copy counts: decoding takes less than four times what it returns
    grey = container.grey or colour.mode == "L"
    colour, word = to_srgb(colour, container.icc)
    notes += word
    turn = _UPRIGHT.get(container.orientation)
    if turn is not None:  # a flip is 0
        notes.append("orientation_applied")
        colour = colour.transpose(turn)
        alpha = alpha.transpose(turn) if alpha is not None else None
    pixels = _array(colour)
    del colour
    mask = np.array(alpha) if alpha is not None else None
    if mask is not None and _clear_hidden(pixels, mask):
        notes.append("hidden_pixels_cleared")
    written = container.format
    if written not in SUFFIXES or _obstacle(written, pixels.shape[:2], mask is not None):
        written = "PNG"
        notes.append("written_as_png")
    return Picture(
        pixels=torch.from_numpy(pixels).permute(2, 0, 1),
        alpha=torch.from_numpy(mask) if mask is not None else None,
        format=written,
        grey=grey,
        subsampling=None if grey else subsampling,
        notes=tuple(notes),
        lossless=container.lossless,
    )


def _array(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """``(H, W, 3)``; converted and copied in bands, because Pillow does either by way of further copies."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for band in _bands(image):
        pixels[band[1] : band[3]] = np.asarray(image.crop(band).convert("RGB"))
    return pixels


def _clear_hidden(pixels: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> bool:
    """Sets what is fully transparent to 0; returns whether anything was there."""
    found = False
    for top in range(0, len(mask), BAND_PX):
        rows, clear = pixels[top : top + BAND_PX], mask[top : top + BAND_PX] == 0
        found = found or bool(rows[clear].any())
        rows[clear] = 0
    return found


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        message = f"the image has {size[0]}x{size[1]} pixels, more than the limit of {max_pixels}"
        message += "; raise max_pixels: in a policy below decode, on the command line --max-pixels"
        raise UndecodableError(message, reason="too_large")


def load(container: Container, max_pixels: int) -> Image.Image:
    """The picture of a container as its file has it. Raises what decoders raise; see `fail_closed`."""
    check_promise(container)
    if container.format == "HEIF":
        return _load_heif(container)
    reader = _Reader(container.data)
    image = _PLUGINS[container.format](reader)
    _check_size(image.size, max_pixels)
    if container.format == "TIFF":
        # Memory given beforehand keeps the plugin from its own check against the global limit, which warns.
        image.im = Image.new(image.mode, image.size).im
    reader.strict = container.format != "JPEG2000"  # whose decoder reads ahead; its parts were counted
    image.load()
    if container.format in ("JPEG", "TIFF") and _ends_blank(image) and not _is_whole(image, container):
        raise truncated()
    return image


def _load_heif(container: Container) -> Image.Image:
    """The picture upright: libheif turns it. Not by way of Pillow's plugin, which fills up what is missing."""
    try:
        import pillow_heif
    except ImportError:
        why = "HEIC is read where pillow-heif is installed: pip install 'anondata[heif]'"
        raise UndecodableError(why, reason="unsupported") from None
    image: Image.Image = pillow_heif.open_heif(io.BytesIO(container.data), convert_hdr_to_8bit=True).to_pillow()
    return image


def _ends_blank(image: Image.Image) -> bool:
    """Whether the last pixel has the middle grey of a JPEG's blocks that were not there."""
    last = image.getpixel((image.width - 1, image.height - 1))
    return all(level in (127, 128) for level in (last if isinstance(last, tuple) else (last,)))


def _is_whole(image: Image.Image, container: Container) -> bool:
    """Whether such a picture was in its file: with more to read, a decoder that lacked some gives another one."""
    if container.format == "TIFF":
        last = image.crop((max(0, image.width - 8), max(0, image.height - 8), image.width, image.height))
        flat = all(np.ptp(np.asarray(band)) == 0 for band in last.split())
        return image.info.get("compression") != "jpeg" or not flat
    other = _PLUGINS[container.format](_Reader(refills(container.data)))
    other.load()
    pairs = ((image.crop(band), other.crop(band)) for band in _bands(image))
    return all(ImageChops.difference(*pair).getbbox() is None for pair in pairs)


def _bands(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of some rows each: what is done to one of them at a time takes no memory to speak of."""
    width, height = image.size
    return ((0, top, width, min(top + BAND_PX, height)) for top in range(0, height, BAND_PX))


def _subsampling(image: Image.Image) -> int | None:
    """0, 1 or 2: what Pillow cannot write (4:1:1, 4:4:0) becomes 4:2:0; CMYK, which has no chroma, 4:4:4."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    found = 0 if image.mode == "CMYK" else JpegImagePlugin.get_sampling(image)
    return found if found >= 0 else 2


def encode(picture: Picture, *, quality: int = 95) -> bytes:
    """Write a file of ``picture.format`` that holds the pixels and nothing else.

    quality: 1-100, of JPEG and of lossy WebP.

    Raises: ShapeError for tensors that are not ``(3, H, W)`` and ``(H, W)`` uint8 on the CPU, and for
    alpha or a size that the format cannot hold; ValueError for a format or quality out of range.
    """
    if picture.format not in SUFFIXES:
        raise ValueError(f"format {picture.format!r} is not written; expected one of {', '.join(SUFFIXES)}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality {quality} is out of range; expected 1 to 100")
    if obstacle := _obstacle(picture.format, picture.pixels.shape[1:], picture.alpha is not None):
        raise ShapeError(f"{picture.format} {obstacle}; write PNG")
    buffer, image = io.BytesIO(), to_pil(picture)
    if picture.format == "HEIF":  # not by way of Pillow, whose list of plugins is a global
        import pillow_heif

        pillow_heif.from_pillow(image).save(buffer, format="HEIF", **_options(picture, quality))
    else:
        image.save(buffer, picture.format, **_options(picture, quality))
    return buffer.getvalue()


def _obstacle(form: str, shape: Sequence[int], alpha: bool) -> str:
    """Why a format cannot hold such a picture, or nothing."""
    if alpha and form not in _ALPHA_FORMATS:
        return "has no alpha"
    if form == "HEIF" and max(shape) > 128 * min(shape):  # x265 refuses some of those
        return "has no sides that differ so much"
    side = _MAX_SIDE.get(form, max(shape))
    return f"has no side longer than {side} px" if max(shape) > side else ""


def _options(picture: Picture, quality: int) -> dict[str, Any]:
    """Pillow's options; at these efforts the next one up takes 1.3-2.5 times as long and saves under 4 % of bytes."""
    if picture.format == "JPEG":
        return {"quality": quality, "subsampling": -1 if picture.subsampling is None else picture.subsampling}
    if picture.format == "WEBP":
        # exact: zeros under transparent pixels stay zeros. Lossless: quality is effort.
        effort = {"quality": 25} if picture.lossless else {"quality": quality}
        return {"lossless": picture.lossless, "method": 1, "exact": True, **effort}
    if picture.format in ("AVIF", "HEIF"):
        return {"quality": quality, **({"speed": 8} if picture.format == "AVIF" else {})}
    others: dict[str, dict[str, Any]] = {
        "PNG": {"compress_level": 2},
        "TIFF": {"compression": "tiff_adobe_deflate"},
    }
    return others.get(picture.format, {})


def _check_tensors(picture: Picture) -> None:
    pixels, alpha = picture.pixels, picture.alpha
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.device.type != "cpu":
        found = f"{tuple(pixels.shape)} {pixels.dtype} on {pixels.device.type}"
        raise ShapeError(f"pixels are {found}; expected (3, H, W) uint8 on the CPU")
    if alpha is not None and (alpha.dtype != torch.uint8 or alpha.shape != pixels.shape[1:]):
        raise ShapeError(f"alpha is {tuple(alpha.shape)} {alpha.dtype}; expected {tuple(pixels.shape[1:])} uint8")
