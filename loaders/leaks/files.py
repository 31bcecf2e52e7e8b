"""All that lies in a written file, piece by piece: what its format shows, and what it does not."""

from __future__ import annotations

import gzip
import struct
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO, cast

from anondata.errors import LeakError, MissingExtraError
from anondata.loaders.leaks.pictures import SUFFIXES
from anondata.loaders.leaks.piece import Piece, leak

BLOCK = 1 << 20  # of raw bytes looked at together
_WHOLE = 64 << 20  # a file of no known format that is looked at in one piece
_BESIDE = 64  # bytes of the block before, so that nothing hides on a seam
_GZIP = b"\x1f\x8b"
_UNREADABLE = (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"BZh", b"\xfd7zXZ\0")  # zstd, lz4, bzip2, xz


def pieces(path: Path) -> Iterator[Piece]:
    """The pieces of a parquet, Arrow or tar file (also gzipped); of any other file its bytes.

    Raises:
        LeakError: bytes where the format has none, or a file that cannot be read to its end.
        MissingExtraError: a parquet or Arrow file, where pyarrow is not installed.
    """
    try:
        yield from _by_format(path)
    except (LeakError, MissingExtraError):
        raise
    except Exception as error:  # noqa: BLE001 - each format has errors of its own, and their words may hold names
        kind = type(error).__name__
    else:
        return
    raise leak("the file", f"cannot be read back ({kind}), so nothing is known of it")


def _by_format(path: Path) -> Iterator[Piece]:
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(_UNREADABLE):
        raise leak("the file", "is compressed in a way that is not looked into")
    if start[:4] == b"PAR1" or path.suffix == ".parquet":
        yield from _tables().parquet(path)
    elif path.suffix == ".arrow" or start[:6] == b"ARROW1":
        yield from _tables().arrow(path)
        yield from _raw(path, "the file's bytes")
    elif _is_tar(path, zipped=start.startswith(_GZIP)):
        yield from _tar(path, zipped=start.startswith(_GZIP))
    elif path.stat().st_size <= _WHOLE:  # a picture, or text that may stand for one
        yield Piece("the file", "value", path.read_bytes())
    elif start.startswith(_GZIP):
        raise leak("the file", "is compressed and too large to be looked into")
    else:
        yield from _raw(path, "the file's bytes")


def _tables() -> ModuleType:
    try:
        from anondata.loaders.leaks import tables
    except ImportError as error:
        raise MissingExtraError("parquet needs pyarrow: pip install 'anondata[hf]'") from error
    return tables


def _raw(path: Path, where: str) -> Iterator[Piece]:
    with open(path, "rb") as file:
        yield from _blocks(file, where)


def _blocks(file: IO[bytes], where: str, length: int | None = None) -> Iterator[Piece]:
    """The next bytes of a file, in blocks that overlap."""
    before, left = b"", length
    while block := file.read(BLOCK if left is None else min(BLOCK, left)):
        left = None if left is None else left - len(block)
        yield Piece(where, "raw", before + block)
        before = block[-_BESIDE:]


def _is_tar(path: Path, *, zipped: bool) -> bool:
    with _opened(path, zipped=zipped) as file:
        return path.suffix == ".tar" or file.read(tarfile.BLOCKSIZE)[257:262] == b"ustar"


def _opened(path: Path, *, zipped: bool) -> IO[bytes]:
    if zipped:
        return cast("IO[bytes]", gzip.open(path))
    return open(path, "rb")


def _tar(path: Path, *, zipped: bool) -> Iterator[Piece]:
    """Members as they are, then all that lies beside them: headers, the rest of blocks, and what follows the end."""
    inside: list[tuple[int, int]] = []
    if zipped:
        yield from _raw(path, "the compressed file")
    with _opened(path, zipped=zipped) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        yield Piece("the archive's header", "value", _words(tar.pax_headers))
        for number, member in enumerate(tar):
            where = f"member {number}"
            words = (member.name, member.linkname, member.uname, member.gname)
            yield Piece(f"{where}'s header", "value", _words(member.pax_headers) + "\n".join(words).encode(*_ODD))
            if member.sparse is not None or not (member.isreg() or member.size == 0):
                raise leak(where, "is of a kind that is not looked into")
            reader = tar.extractfile(member) if member.isreg() else None
            if reader is not None:
                claims = PurePosixPath(member.name).suffix[1:].lower() in SUFFIXES
                yield Piece(where, "picture" if claims else "value", reader.read())
                inside.append((member.offset_data, member.offset_data + member.size))
        end = tar.offset
    with _opened(path, zipped=zipped) as file:
        yield from _beside(file, inside, end)


_ODD = ("utf-8", "surrogateescape")


def _words(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}={value}\n" for name, value in headers.items()).encode(*_ODD)


def _beside(file: IO[bytes], inside: list[tuple[int, int]], end: int) -> Iterator[Piece]:
    """What a tar holds beside its members' contents; blocks are filled up with zeros, and zeros follow the end."""
    at = 0
    for start, stop in inside:
        yield from _blocks(file, "the headers", start - at)
        _skip(file, stop - start)
        at = stop + -stop % tarfile.BLOCKSIZE
        if file.read(at - stop).strip(b"\0"):
            raise leak("the archive", "holds bytes in the rest of a block, where zeros belong")
    yield from _blocks(file, "the headers", max(end - at, 0))
    while block := file.read(BLOCK):
        if block.strip(b"\0"):
            raise leak("the archive", "holds bytes after its end")


def _skip(file: IO[bytes], length: int) -> None:
    while length > 0 and (block := file.read(min(length, BLOCK))):
        length -= len(block)
    if length:
        raise struct.error
