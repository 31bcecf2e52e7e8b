"""Says aloud, once for each place, that pictures are handed on as they are because somebody declared them kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable

log = logging.getLogger("anondata")

_PICTURES = "jpg jpeg jfif png webp gif tif tiff bmp ppm pgm pbm pnm heic heif avif jxl jp2"
_OTHERS = "mp4 mov avi mkv webm wav mp3 flac ogg opus m4a"
MEDIA = frozenset([*_PICTURES.split(), *_OTHERS.split()])
"""Last parts of names of fields in WebDataset shards that hold pictures, videos or sound."""


def say_kept(names: Iterable[str]) -> None:
    """Logs a warning that names the kept fields of pictures, videos or sound; nothing where there are none."""
    found = sorted(set(names))
    if found:
        log.warning(
            "kept as they are, and not looked at: %s. Faces, places and metadata in them come out; declare them "
            "'image', or drop them, where that must not be",
            ", ".join(map(repr, found)),
        )


def are_media(names: Iterable[str]) -> list[str]:
    """Those of some names of fields in shards that hold pictures, videos or sound, by their last part.

    >>> are_media(["cls", "seg.png", "JPG"])
    ['seg.png', 'JPG']
    """
    return [name for name in names if name.rpartition(".")[2].lower() in MEDIA]
