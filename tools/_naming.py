"""What an output file is called, and whether two sources would want the same name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import click

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")
"""What counts as an image in a folder, by the end of its name and in any case."""

_KEPT: Mapping[str, tuple[str, ...]] = {  # suffix of what was written -> suffixes that may stay
    ".jpg": (".jpg", ".jpeg"),
    ".png": (".png",),
    ".webp": (".webp",),
    ".tif": (".tif", ".tiff"),
    ".bmp": (".bmp",),
}
_ALWAYS_CHANGED = {".gif": ".png"}  # the codec never writes GIF


def is_image(name: str) -> bool:
    """Whether a file in a folder is taken for an image."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


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
