"""What originals are recognised by in the bytes of a file: as they are, reversed, and XORed with one byte."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from anondata.loaders.leaks import windows
from anondata.loaders.leaks.windows import DENSE, WINDOW, Fingerprints, differences, fingerprints, telling

PARTS = 4  # fingerprints that give an original away
_OF_PIXELS, _OF_METADATA = 128, 64  # fingerprints that are held: of a picture, and of a segment of metadata
_VARIETY_OF_TEXT = 9  # different bytes of 32: EXIF tables and names have 10 and more


class Prints:
    """Parts of originals as they are, and freed of one byte with which all of them were XORed."""

    def __init__(self) -> None:
        self._plain, self._freed = windows.Index(), windows.Index()

    def add(self, pixels: bytes, *, without: bytes) -> None:
        """Takes what pixels are recognised by, but for what they share with something that may be there."""
        for index, own, shared, usual in (
            (self._plain, pixels, without, _usual()),
            (self._freed, _freed(pixels), _freed(without), _usual(freed=True)),
        ):
            known = np.concatenate([fingerprints(shared), usual])
            index.add(telling(own, without=known, most=_OF_PIXELS), PARTS)

    def add_text(self, segment: bytes) -> None:
        """Takes what a segment of metadata is recognised by."""
        prints = telling(segment, without=_usual(), most=_OF_METADATA, sampling=DENSE, variety=_VARIETY_OF_TEXT)
        self._plain.add(prints, math.ceil(len(prints) / 4))

    def search(self) -> Search:
        """A search of a file that has just begun."""
        return Search(self._plain.search(), self._freed.search())


@dataclass(frozen=True)
class Search:
    """What was found in a file so far."""

    plain: windows.Search
    freed: windows.Search

    def finds(self, data: bytes, *, any_way: bool = False) -> bool:
        """Whether enough of an original was found by now. any_way: also reversed, and XORed with one byte."""
        if self.plain.finds(data):
            return True
        if not any_way or len(data) <= WINDOW or data.isascii():
            return False
        freed = differences(data)
        return self.plain.finds(data[::-1]) or self.freed.finds(freed) or self.freed.finds(freed[::-1])


def _freed(data: bytes) -> bytes:
    return differences(data) if len(data) > WINDOW else b""


@cache
def _usual(*, freed: bool = False) -> Fingerprints:
    """Of what any two files may share: the Huffman tables of nearly all JPEGs, also of thumbnails in EXIF."""
    files = []
    for mode, quality in (("L", 75), ("RGB", 75), ("RGB", 95)):
        buffer = io.BytesIO()
        Image.new(mode, (16, 16)).save(buffer, "JPEG", quality=quality)
        data = buffer.getvalue()
        files.append(fingerprints(_freed(data) if freed else data, DENSE))
    return np.concatenate(files)
