"""The part of an image file that holds pixels, and what is said of files that have none."""

from __future__ import annotations

from dataclasses import dataclass

from anondata.errors import UndecodableError


@dataclass(frozen=True, repr=False)  # a repr would carry the input
class Container:
    """The pixel-carrying part of one file.

    data: a valid file of ``format`` without metadata; offsets in it may still point past unused bytes.
    size: (width, height) that opening or decoding will allocate, where that is known to need a check first.
    bits: bits per sample of the source.
    more: the file holds further pictures, which ``data`` or its reader leaves aside.
    """

    format: str
    data: bytes
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    icc: bytes | None = None
    bits: int = 8
    grey: bool = False
    lossless: bool = False
    more: bool = False


def truncated() -> UndecodableError:
    return UndecodableError("the image file ends before its pixels do", reason="truncated")


def corrupt() -> UndecodableError:
    return UndecodableError("the image file breaks the rules of its format", reason="corrupt")


def unsupported(what: str) -> UndecodableError:
    return UndecodableError(f"{what} cannot be read; convert to an 8-bit file first", reason="unsupported")
