"""Which shards a run takes, what their results are called, and where results must not go."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import fsspec

from anondata.errors import AnondataError, MissingExtraError, ShardsError, UnreadableSourceError
from anondata.loaders._retry import stamp_of, with_retries, words_of

SUFFIXES = (".tar.gz", ".tgz", ".tar")
_MAGIC = frozenset("*?[")


@dataclass(frozen=True)
class Shard:
    """One input file. number: its place in the run, from 1. name: of its result, which ends in ``.tar``.

    place: the path within ``fs``. It can be pickled, also into another process.
    """

    number: int
    name: str = field(repr=False)
    place: str = field(repr=False)
    fs: Any = field(repr=False)

    def version(self) -> str:
        """What changes when the file does: its size, and its time or what the storage says of it.

        Raises: UnreadableSourceError, after several tries; its message is the end of a sentence about the shard.
        """

        def ask() -> Any:
            self.fs.invalidate_cache()  # a listing from before could hide a change
            return self.fs.info(self.place)

        try:
            info = with_retries(ask)
        except Exception as error:  # storages raise what they like; its text would name the place
            raise UnreadableSourceError(f"cannot be read: {words_of(error)}") from error
        return f"{info.get('size')} {stamp_of(info) or []}"


def list_shards(urls: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], out: str) -> tuple[Shard, ...]:
    """All shards of paths, globs, folders and URLs, each of which may hold braces: ``in-{0000..0099}.tar``.

    Remote files are looked up only where they must be listed. A file that two sources name counts once.

    Raises:
        ShardsError: nothing there, what is no tar, two results of one name, or an output place among the sources.
        UnreadableSourceError: a storage that cannot be listed. MissingExtraError: its package is not installed.
    """
    given = [urls] if isinstance(urls, str | os.PathLike) else list(urls)
    place = _Place.of(out, "the output place")
    found: dict[tuple[str, str], Shard] = {}
    owners: dict[str, int] = {}
    for number, src in enumerate(given, 1):
        for fs, path in _expand(os.fspath(src), number, place):
            known = (str(fs.protocol), path)
            if known in found:
                continue
            place.check(fs, path, number)
            name = _result(path, number)
            if name in owners:
                raise ShardsError(
                    f"two shards would have results of the same name, of SRC {owners[name]} and SRC {number}; "
                    "anonymize them into different places"
                )
            owners[name] = number
            found[known] = Shard(len(found) + 1, name, path, fs)
    if not found:
        raise ShardsError(
            "there are no shards in the sources; expected files that end in .tar, .tar.gz or .tgz (not deeper)"
        )
    return tuple(found.values())


def _expand(src: str, number: int, out: _Place) -> Iterator[tuple[Any, str]]:
    """Files of one SRC, in a stable order."""
    if src.startswith("pipe:"):
        raise ShardsError(f"SRC {number} begins with pipe:, which would run a shell command; give a path or a URL")
    for one in _braces(src, number):
        place = _Place.of(one, f"SRC {number}")
        try:
            yield from ((place.fs, path) for path in _files(place, number, out))
        except AnondataError:
            raise
        except Exception as error:  # storages raise what they like; its text would name the place
            raise UnreadableSourceError(f"SRC {number} cannot be listed: {words_of(error)}") from error


def _braces(src: str, number: int) -> Iterable[str]:
    try:
        import braceexpand
    except ImportError as error:
        raise MissingExtraError("reading shards needs webdataset: pip install 'anondata[webdataset]'") from error
    try:
        return list(braceexpand.braceexpand(src))
    except ValueError as error:
        raise ShardsError(f"the braces of SRC {number} do not match; write in-{{0000..0099}}.tar") from error


def _files(place: _Place, number: int, out: _Place) -> Iterable[str]:
    fs, path, query = place.fs, place.path, place.web
    if _MAGIC & set(path) and not (query and "*" not in path):  # a question mark starts a query there
        return sorted(found for found in with_retries(lambda: fs.glob(path)) if _is_shard(found))
    if _is_shard(path):
        if place.local and not os.path.exists(path):
            raise ShardsError(f"SRC {number} names a file that does not exist")
        return [path]
    if not query and with_retries(lambda: fs.isdir(path)):
        if out.is_within(fs, path):
            raise ShardsError(f"the output place lies in SRC {number}; results never go among originals")
        return sorted(found for found in with_retries(lambda: fs.ls(path, detail=False)) if _is_shard(found))
    if place.local and not os.path.exists(path):
        raise ShardsError(f"SRC {number} does not exist")
    raise ShardsError(
        f"SRC {number} is neither a shard nor a folder of shards; expected .tar, .tar.gz, .tgz or a folder"
    )


def _is_shard(path: str) -> bool:
    name = _base(path)
    return name.endswith(SUFFIXES) and not name.startswith(".")


def _base(path: str) -> str:
    return path.split("?")[0].rpartition("/")[2]


def _result(path: str, number: int) -> str:
    stem = _base(path)
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    if not stem:
        raise ShardsError(f"a file of SRC {number} has no name before its suffix")
    return f"{stem}.tar"


@dataclass(frozen=True)
class _Place:
    """A path within a file system, comparable with others. A local one has its links resolved for that."""

    fs: Any
    path: str

    @classmethod
    def of(cls, url: str, what: str) -> _Place:
        if any(part.split("://")[0].endswith("cache") for part in url.split("::")):
            raise ShardsError(f"{what} goes through a cache, which would keep originals on this disk; leave it out")
        try:
            fs, path = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise MissingExtraError(f"{what}: {error}. `pip install` what it names, and try again") from error
        except ValueError as error:
            raise ShardsError(f"{what} is a URL with a protocol that fsspec does not know") from error
        return cls(fs, path)

    @property
    def protocols(self) -> set[str]:
        return {self.fs.protocol} if isinstance(self.fs.protocol, str) else set(self.fs.protocol)

    @property
    def local(self) -> bool:
        return bool(self.protocols & {"file", "local"})

    @property
    def web(self) -> bool:
        return bool(self.protocols & {"http", "https"})

    def is_within(self, fs: Any, folder: str) -> bool:
        """Whether this place is a folder of a file system, or lies in it."""
        if type(fs) is not type(self.fs):
            return False
        own, above = _real(self), _real(_Place(fs, folder))
        return own == above or own.startswith(above.rstrip("/") + "/")

    def check(self, fs: Any, shard: str, number: int) -> None:
        """Raises ShardsError where this, the output place, and a shard would get in each other's way."""
        source = _Place(fs, shard)
        if source.is_within(self.fs, self.path):
            raise ShardsError(
                f"a shard of SRC {number} lies in the output place, where only anonymized files belong; "
                "choose another place"
            )


def _real(place: _Place) -> str:
    return os.path.realpath(place.path) if place.local else place.path.strip("/")
