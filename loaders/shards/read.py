"""Shards read as a stream: nothing of them touches a disk, and whatever is damaged is found before it is used.

Messages are the end of a sentence that begins with which shard it is.

Samples are grouped by webdataset itself. Its reader of tars is not used, because it takes an archive that breaks off,
or whose headers are broken, for one that ends there (webdataset 1.0.2, as tarfile does).
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from anondata.errors import AnondataError, MissingExtraError, ShardsError, UnreadableSourceError
from anondata.loaders._retry import with_retries, words_of

MAX_BYTES = 1 << 30  # of one member; larger ones are no photos and would only fill the memory
CHUNK = 1 << 20
_META = re.compile(r"__[^/]*__($|/)")  # what webdataset leaves out

REPACK = "repack the shard, or take it out"


@dataclass
class Left:
    """How many members of a shard are no part of a sample: links, webdataset's metadata, names without a dot."""

    members: int = 0


class Stream:
    """The bytes of a file in a storage, in order; a broken connection is taken up where it broke.

    Raises, in ``read``: UnreadableSourceError.
    """

    def __init__(self, fs: Any, place: str) -> None:
        self._fs, self._place, self._at = fs, place, 0
        self._file: Any = None

    def read(self, size: int = -1) -> bytes:
        try:
            data = with_retries(lambda: self._read(size))
        except Exception as error:  # storages raise what they like; its text would name the place
            raise UnreadableSourceError(f"cannot be read: {words_of(error)}") from error
        self._at += len(data)
        return data

    def _read(self, size: int) -> bytes:
        try:
            if self._file is None:
                self._file = self._fs.open(self._place, "rb")
                if self._at:
                    self._file.seek(self._at)
            return cast(bytes, self._file.read(size))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def samples(stream: Stream, left: Left) -> Iterator[dict[str, Any]]:
    """The samples of a shard as webdataset groups them: ``__key__``, and bytes by the name of the field.

    left: counts what is no part of a sample. What was given before an error is not to be released.

    Raises:
        ShardsError: the shard is damaged, or two samples have one key. UnreadableSourceError.
    """
    try:
        from webdataset.tariterators import base_plus_ext, group_by_keys
    except ImportError as error:
        raise MissingExtraError("reading shards needs webdataset: pip install 'anondata[webdataset]'") from error
    files = (
        {"fname": name, "data": data, "__url__": ""}
        for name, data in members(stream, left)
        if base_plus_ext(name)[0] is not None or _count(left)
    )
    keys: set[bytes] = set()
    for sample in _grouped(group_by_keys(files)):
        key = hashlib.blake2b(sample["__key__"].encode(errors="surrogatepass"), digest_size=12).digest()
        if key in keys:
            raise ShardsError(
                f"has two samples of the same key, or the files of one apart from each other; {REPACK}: members "
                "sorted by name, as `tar --sort=name` packs them"
            )
        keys.add(key)
        del sample["__url__"]
        yield sample


def _count(left: Left) -> bool:
    left.members += 1
    return False


def _grouped(groups: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from groups
    except AnondataError:
        raise
    except ValueError:  # its text would quote the name
        raise ShardsError(f"has two files of the same name in one sample; {REPACK}") from None


def members(stream: Stream, left: Left) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the files in a tar or tar.gz.

    Raises:
        ShardsError: it is no tar, breaks off, has a broken header, a huge member, or goes on after its end.
    """
    try:
        with tarfile.open(fileobj=_unpacked(stream), mode="r|", tarinfo=_Header) as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else all headers stay in memory
                if not _belongs(info):
                    left.members += not info.isdir()
                    continue
                yield info.name, _content(tar, info)
            _check_end(tar.fileobj)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ShardsError(f"is truncated or damaged ({type(error).__name__}); {REPACK}") from error


def _unpacked(stream: Stream) -> Any:
    """A file object of the tar itself, whether the shard is compressed or not, by its first bytes."""
    start = _Prefixed(stream, stream.read(512))
    return gzip.GzipFile(fileobj=cast(Any, start)) if start.head.startswith(b"\x1f\x8b") else start


class _Prefixed:
    """A stream whose first bytes were looked at."""

    def __init__(self, stream: Stream, head: bytes) -> None:
        self.head, self._stream, self._left = head, stream, head

    def read(self, size: int = -1) -> bytes:
        if not self._left or size < 0:
            data, self._left = self._left, b""
            return data or self._stream.read(size)
        data, self._left = self._left[:size], self._left[size:]
        return data


class _Header(tarfile.TarInfo):
    """A header that must be whole: tarfile takes a broken one, after the first, for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]  # the stubs return Self
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]  # not in the stubs
                raise  # the zeros that end an archive
            raise ShardsError(f"is not a tar, is truncated or has a broken header; {REPACK}") from None


def _belongs(info: tarfile.TarInfo) -> bool:
    """Whether webdataset would read a member."""
    name = info.name
    return (
        info.isreg()
        and not ("/" not in name and name.startswith("__") and name.endswith("__"))
        and not _META.match(name)
    )


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    if info.size > MAX_BYTES:
        raise ShardsError(f"has a file of more than {MAX_BYTES >> 30} GiB, which cannot be a photo; {REPACK}")
    file = tar.extractfile(info)
    data = file.read() if file is not None else b""
    if len(data) != info.size:
        raise ShardsError(f"is truncated; {REPACK}")
    return data


def _check_end(file: Any) -> None:
    """Reads on to the end, which also checks a gzip's sum. Webdataset would leave a second archive there unread."""
    while chunk := file.read(CHUNK):
        if chunk.strip(b"\0"):
            raise ShardsError(f"goes on after its end, maybe with a second archive; {REPACK}")
