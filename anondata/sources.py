"""Where samples come from: files, folders, globs and URLs become one list in a stable order.

Local paths are walked here, because fsspec's own walk does not see loops of symbolic links; everything else is listed
and read by fsspec.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from anondata.errors import AnondataError, ArgumentError, MissingExtraError, UnreadableSourceError

WORK_FOLDER = ".anondata"  # in an output folder; what lies beside it is no original

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
JPEG2000 = (".jp2", ".j2k", ".jpc", ".jpf")
_OTHER = (".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".avif", ".heic", ".heif", ".hif")
SUFFIXES = (*JPEG, *_OTHER, *JPEG2000)
"""What counts as an image in a folder, by the end of its name and in any case."""

MAX_BYTES = 1 << 30  # larger files are no photos; reading them would only fill the memory
_MAGIC = frozenset("*?[")
_VERSION_WORDS = ("etag", "mtime", "modified", "created", "md5", "digest", "crc32", "sha", "generation", "version")


@dataclass(frozen=True, slots=True)
class Source:
    """One file to be anonymized.

    name: its path below its SRC, with slashes; what the output's path is made of. It may identify somebody.
    place: the path on this machine, or within ``fs``. src: number of the SRC that it came by, from 1.
    """

    name: str = field(repr=False)
    place: str = field(repr=False)
    src: int
    fs: Any = field(default=None, repr=False)

    def version(self) -> str:
        """What changes when the file does: size and time, or what the storage says of it.

        Raises: OSError, or whatever the storage raises.
        """
        if self.fs is None:
            return _stamp(os.stat(self.place))
        info = self.fs.info(self.place)
        told = {k.lower(): str(v) for k, v in info.items() if any(word in k.lower() for word in _VERSION_WORDS)}
        return f"{info.get('size')} {sorted(told.items())}"

    def read(self) -> bytes:
        """The file's bytes.

        Raises: UnreadableSourceError if it is not a regular file or is huge; OSError, or whatever the storage raises.
        """
        if self.fs is not None:
            with self.fs.open(self.place, "rb") as file:
                return _bounded(file)
        if not stat.S_ISREG(os.stat(self.place).st_mode):  # opening a pipe would wait for ever
            raise UnreadableSourceError("not a regular file")
        with open(self.place, "rb") as file:
            return _bounded(file)


@dataclass(frozen=True)
class Listing:
    """All sources in a stable order, and how much in the folders was left alone.

    others: files that are no images, by their suffixes.
    """

    sources: tuple[Source, ...]
    others: Mapping[str, int] = field(default_factory=dict)
    hidden: int = 0

    @property
    def other_files(self) -> int:
        return sum(self.others.values())


def others_in_words(others: Mapping[str, int], hidden: int) -> str:
    """What was left alone, with the suffixes that there are most of.

    >>> others_in_words({"mov": 3, "dng": 1}, 2)
    '4 other files, 2 hidden. By suffix: 3 mov, 1 dng.'
    """
    return f"{sum(others.values())} other files, {hidden} hidden.{_suffixes(others)}"


def _suffixes(others: Mapping[str, int]) -> str:
    most = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count} {suffix}" for suffix, count in most[:8]] + (["…"] if len(most) > 8 else [])
    return f" By suffix: {', '.join(told)}." if told else ""


@dataclass
class _Tally:
    others: Counter[str] = field(default_factory=Counter)
    hidden: int = 0


def list_sources(given: Sequence[str], *, out: Path) -> Listing:
    """Lists every SRC, leaving out the output folder.

    Raises:
        ArgumentError: a SRC that is not there, that is the output folder, or that lies in it; or no image at all.
        MissingExtraError: a URL whose protocol needs a package that is not installed.
        UnreadableSourceError: a storage that cannot be listed.
    """
    tally = _Tally()
    found: dict[tuple[str, str], Source] = {}
    for number, src in enumerate(given, 1):
        sources = _remote(src, number, tally) if _is_url(src) else _local(_plain(src), number, out.resolve(), tally)
        for source in sorted(sources, key=lambda s: s.name):
            if ".." in source.name.split("/"):
                raise ArgumentError(f"SRC {number} has '..' after a wildcard; its outputs would lie outside of DST")
            found.setdefault((source.name, source.place), source)
    if not found:
        raise ArgumentError(
            f"no images in the sources ({sum(tally.others.values())} other files, {tally.hidden} hidden)."
            f"{_suffixes(tally.others)} In folders and globs images are chosen by suffix: {in_words()}"
        )
    return Listing(tuple(found.values()), dict(tally.others), tally.hidden)


def _is_url(src: str) -> bool:
    return ("://" in src or "::" in src) and not src.startswith(("file://", "local://"))


def _plain(src: str) -> str:
    """A local path, from itself or from a file URL."""
    return src.split("://", 1)[1] if src.startswith(("file://", "local://")) else src


def _local(src: str, number: int, out: Path, tally: _Tally) -> Iterator[Source]:
    if Path(src).resolve() == out:
        raise ArgumentError(f"SRC {number} is DST; originals are never replaced, choose another folder")
    if Path(src).resolve().is_relative_to(out):
        raise ArgumentError(f"SRC {number} lies in DST, where only anonymized files belong; choose another folder")
    if os.path.isdir(src):
        yield from _walk(src, "", number, out, tally, ())
    elif os.path.lexists(src):
        yield Source(Path(src).name, src, number)
    elif _MAGIC & set(src):
        yield from _local_glob(src, number, out, tally)
    else:
        raise ArgumentError(f"SRC {number} does not exist")


def _walk(
    folder: str, below: str, number: int, out: Path, tally: _Tally, above: tuple[Path, ...]
) -> Iterator[Source]:
    """Images of a folder and its folders. Links are followed, except to a folder that is being walked already."""
    real = Path(folder).resolve()
    if real == out or real in above:
        return
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield Source(below.rstrip("/") or "folder", folder, number)  # reading it fails: counted as unreadable
        return
    if above and any(entry.name == WORK_FOLDER for entry in found):
        tally.hidden += 1  # results of another run: not to be taken for originals
        return
    for entry in found:
        if entry.name.startswith("."):
            tally.hidden += 1
        elif entry.is_dir():
            yield from _walk(entry.path, f"{below}{entry.name}/", number, out, tally, (*above, real))
        elif is_image(entry.name) and (entry.is_file() or entry.is_symlink()):  # a dead link counts as unreadable
            yield Source(below + entry.name, entry.path, number)
        else:
            tally.others[kind_of_other(entry.name)] += 1


def _local_glob(pattern: str, number: int, out: Path, tally: _Tally) -> Iterator[Source]:
    fixed = _fixed(pattern)
    for place in sorted(glob.glob(pattern, recursive=True)):
        name = Path(place).relative_to(fixed).as_posix()
        if Path(place).resolve().is_relative_to(out):
            continue
        if os.path.isdir(place):
            if "**" not in pattern:  # which lists the folder's files itself
                yield from _walk(place, f"{name}/", number, out, tally, ())
        elif is_image(name):
            yield Source(name, place, number)
        else:
            tally.others[kind_of_other(name)] += 1


def _fixed(pattern: str) -> str:
    """The folder that a glob starts in: its path up to the first part with a wildcard."""
    parts = pattern.split("/")
    first = next(i for i, part in enumerate(parts) if _MAGIC & set(part))
    return "/".join(parts[:first]) + ("/" if first == 1 and not parts[0] else "")


def _remote(src: str, number: int, tally: _Tally) -> Iterator[Source]:
    import fsspec

    try:
        fs, place = fsspec.core.url_to_fs(src)
    except ImportError as error:
        raise MissingExtraError(f"SRC {number}: {error}. `pip install` what it names, and try again") from error
    except ValueError as error:
        known = "https://filesystem-spec.readthedocs.io"
        raise ArgumentError(
            f"SRC {number} is a URL with a protocol that fsspec does not know; see {known}"
        ) from error
    try:
        yield from _remote_files(fs, place, number, tally)
    except AnondataError:
        raise
    except Exception as error:  # storages raise what they like; its text would name the URL
        raise UnreadableSourceError(f"SRC {number} cannot be listed: {type(error).__name__}") from error


def _remote_files(fs: Any, place: str, number: int, tally: _Tally) -> Iterator[Source]:
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    web = bool(protocols & {"http", "https"})
    if _MAGIC & set(place) and not (web and "*" not in place):  # a question mark starts a query there
        fixed, places = _fixed(place), fs.glob(place)
    # A web server has no folders: to find out, fsspec would download the page (or the photo) and look for links.
    elif place.endswith("/") if web else fs.isdir(place):
        fixed, places = place, fs.find(place)
    else:
        yield Source(PurePosixPath(place.split("?")[0]).name or "sample", place, number, fs)
        return
    for found in places:
        name = found.removeprefix(fixed).lstrip("/").split("?")[0]
        if any(part.startswith(".") for part in name.split("/")):  # ".." too: no name leads out of DST
            tally.hidden += 1
        elif is_image(name):
            yield Source(name, found, number, fs)
        else:
            tally.others[kind_of_other(name)] += 1


def _stamp(info: os.stat_result) -> str:
    return f"{info.st_size} {info.st_mtime_ns}"


def _bounded(file: Any) -> bytes:
    data: bytes = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UnreadableSourceError(f"larger than {MAX_BYTES >> 30} GiB")
    return data


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
    """The suffix of a file that is not an image, for counts. A suffix that could be a name is not told.

    >>> [kind_of_other(name) for name in ("a.MOV", "b.jane doe", "c")]
    ['mov', '(other)', '(none)']
    """
    suffix = PurePosixPath(name).suffix[1:].lower()
    return suffix if re.fullmatch(r"[a-z0-9]{1,4}", suffix) else "(other)" if suffix else "(none)"
