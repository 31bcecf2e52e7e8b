"""Any colour model that Pillow decodes to 8-bit grey or RGB in sRGB, alpha apart."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from anondata.errors import UndecodableError

_PROFILE_TOLERANCE = 2  # of 255 levels: sRGB profiles of different makers differ by one


def split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colour in mode L, RGB or CMYK, and alpha in mode L, both 8 bits."""
    key = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        wide = np.asarray(image)
        alpha = Image.fromarray(np.where(wide == key, 0, 255).astype(np.uint8)) if key is not None else None
        return Image.fromarray((wide >> 8).astype(np.uint8)), alpha
    if image.mode in ("RGBa", "La"):
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
    elif image.mode in ("P", "PA", "1"):
        image = image.convert(_plain_mode(image))
    elif key is not None and image.mode in ("L", "RGB"):
        image = image.convert(image.mode + "A")
    elif image.mode == "YCbCr":
        image = image.convert("RGB")
    if image.mode in ("RGBA", "LA"):
        return image.convert(image.mode[:-1]), image.getchannel("A")
    if image.mode not in ("L", "RGB", "CMYK"):
        raise UndecodableError("a colour model that has no agreed way to sRGB; convert first", reason="unsupported")
    return image, None


def _plain_mode(image: Image.Image) -> str:
    base = "L" if image.mode == "1" else "RGB"
    return base + "A" if image.has_transparency_data else base


def to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, list[str]]:
    """The same picture in sRGB, mode L or RGB, and the notes that say what happened."""
    words = []
    if icc is not None:
        try:
            transform = _transform(icc, image.mode)
        # A profile is a program of its own format, and ImageCms has no one error for a bad one.
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
            words.append("icc_profile_ignored")
        else:
            if transform is None:
                return image, words
            converted = _apply(image, transform)
            return converted.getchannel("G") if image.mode == "L" else converted, ["converted_to_srgb"]
    if image.mode == "CMYK":
        return image.convert("RGB"), [*words, "converted_to_srgb"]
    return image, words


@lru_cache(maxsize=8)  # building one costs 2 ms, an eighth of decoding a 1.3 MP JPEG
def _transform(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From this profile to sRGB; None where it is sRGB already, judged by what it does and not by its name.

    Shared between threads, hence without lcms' cache of the last pixel.
    """
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, target, mode, "RGB", flags=ImageCms.Flags.NOCACHE)
    if mode == "CMYK":
        return transform
    levels = np.linspace(0, 255, 17).astype(np.uint8)
    grid = np.stack(np.meshgrid(*[levels] * len(mode)), -1).reshape(17, -1, len(mode))
    probe = Image.fromarray(grid.squeeze(-1) if mode == "L" else grid)
    moved = np.asarray(_apply(probe, transform)).astype(np.int16) - grid
    return None if int(np.abs(moved).max()) <= _PROFILE_TOLERANCE else transform


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:  # only with inPlace=True, which types cannot say
        raise TypeError("ImageCms returned no picture")
    converted.info.clear()
    return converted
