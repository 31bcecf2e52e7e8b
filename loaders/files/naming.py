"""What an output file is called, and whether two sources would want the same name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import click

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_JPEG2000 = (".jp2", ".j2k", ".jpc", ".jpf")
_OTHERS = (".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".avif", ".heic", ".heif", ".hif")
SUFFIXES = (*_JPEG, *_OTHERS, *_JPEG2000)
"""What counts as an image in a folder, by the end of its name and in any case."""

_KEPT: Mapping[str, tuple[str, ...]] = {  # suffix of what was written -> suffixes that may stay
    ".jpg": _JPEG,
    ".png": (".png",),
    ".webp": (".webp",),
    ".tif": (".tif", ".tiff"),
    ".bmp": (".bmp", ".dib"),
    ".avif": (".avif",),
    ".heic": (".heic", ".heif", ".hif"),
    ".jp2": (".jp2",),
}
# The codec never writes GIF, nor JPEG 2000 without boxes.
_ALWAYS_CHANGED = {".gif": ".png", **dict.fromkeys(_JPEG2000[1:], ".jp2")}


def is_image(name: str) -> bool:
    """Whether a file in a folder is taken for an image."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def in_words() -> str:
    """The suffixes of images, for messages.

    >>> in_words()[:20]
    'jpg jpeg jpe jfif pn'
    """
    return " ".join(suffix[1:] for suffix in SUFFIXES)


def kind_of_other(name: str) -> str:
    """The suffix of a file that is no image, for counts; one that could be a name is none.

    >>> [kind_of_other(name) for name in ("a.MOV", "b.jane doe", "c")]
    ['mov', '(other)', '(none)']
    """
    suffix = PurePosixPath(name).suffix[1:].lower()
    return suffix if re.fullmatch(r"[a-z0-9]{1,4}", suffix) else "(other)" if suffix else "(none)"


def written_suffix(data: bytes) -> str:
    """The suffix that belongs to encoded bytes.

    Raises: ValueError for bytes that the codec does not write.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    if data.startswith((b"II*\0", b"MM\0*")):
        return ".tif"
    if data.startswith(b"BM"):
        return ".bmp"
    if data[4:8] == b"jP  ":
        return ".jp2"
    if data[4:8] == b"ftyp":
        return ".avif" if data[8:12] in (b"avif", b"avis") else ".heic"
    raise ValueError("the encoder returned bytes of no known format")


def with_suffix(name: str, suffix: str) -> str:
    """The output's name: the source's where its suffix tells the truth, else with the true one added.

    >>> with_suffix("a/x.JPEG", ".jpg"), with_suffix("a/x.gif", ".png")
    ('a/x.JPEG', 'a/x.gif.png')
    """
    return name if PurePosixPath(name).suffix.lower() in _KEPT[suffix] else name + suffix


def expected_name(name: str) -> str:
    """The output's name as far as it can be told before the file is read."""
    return name + _ALWAYS_CHANGED.get(PurePosixPath(name).suffix.lower(), "")


def check_collisions(names: Iterable[tuple[str, int]], *, flat: bool = False) -> None:
    """Raises ``click.UsageError`` where two sources want one output, or a file where another wants a folder.

    names: of the outputs, each with the number of its SRC. flat: they stand for names in one folder.
    """
    owner: dict[str, int] = {}
    clashes = []
    for name, src in names:
        if name in owner:
            clashes.append((owner[name], src))
        owner.setdefault(name, src)
    for name, src in () if flat else owner.items():
        clashes += [(owner[str(p)], src) for p in PurePosixPath(name).parents if str(p) in owner]
    if clashes:
        one, other = clashes[0]
        where = f"SRC {one} and SRC {other}" if one != other else f"SRC {one}"
        raise click.UsageError(
            f"{len(clashes)} output path(s) would be written by two sources, the first of them in {where}; "
            "anonymize them into different folders"
        )
