"""What an output file is called, and whether two sources would want the same name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from anondata.errors import ArgumentError
from anondata.sources import JPEG, JPEG2000

_KEPT: Mapping[str, tuple[str, ...]] = {  # suffix of what was written -> suffixes that may stay
    ".jpg": JPEG,
    ".png": (".png",),
    ".webp": (".webp",),
    ".tif": (".tif", ".tiff"),
    ".bmp": (".bmp", ".dib"),
    ".avif": (".avif",),
    ".heic": (".heic", ".heif", ".hif"),
    ".jp2": (".jp2",),
    ".gif": (".gif",),
}
# Of a still picture the codec never writes GIF, nor JPEG 2000 without boxes.
_ALWAYS_CHANGED = {".gif": ".png", **dict.fromkeys(JPEG2000[1:], ".jp2")}


def written_suffix(data: bytes) -> str:
    """The suffix that belongs to encoded bytes.

    Raises: ValueError for bytes that the codec does not write.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if data.startswith(b"GIF8"):
        return ".gif"
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
    """Raises ``ArgumentError`` where two sources want one output, or a file where another wants a folder.

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
        raise ArgumentError(
            f"{len(clashes)} output path(s) would be written by two sources, the first of them in {where}; "
            "anonymize them into different folders"
        )
