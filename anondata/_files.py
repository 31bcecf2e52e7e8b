"""Local files that others can replace, opened without waiting for ever."""

from __future__ import annotations

import csv
import errno
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import cast

from anondata.errors import ArgumentError


class NotPlainError(OSError):
    """A pipe, a socket, a device or a folder where a regular file was expected; reading one could never end."""


def open_plain(path: str | os.PathLike[str], *, write: bool = False) -> BufferedReader:
    """A regular file, opened in binary mode to be read, or to be read and written. The caller closes it.

    Raises:
        NotPlainError: it is no regular file. OSError: whatever else opening raises.
    """
    flags = os.O_RDWR if write else os.O_RDONLY
    try:  # of a pipe that nobody writes into, opening would wait
        handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EISDIR):  # a socket, a folder
            raise NotPlainError(error.errno, "not a regular file") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise NotPlainError(errno.EINVAL, "not a regular file")
        return cast(BufferedReader, os.fdopen(handle, "r+b" if write else "rb"))
    except BaseException:
        os.close(handle)
        raise


def read_plain(path: str | os.PathLike[str], *, limit: int | None = None) -> bytes:
    """The bytes of a regular file, at most ``limit`` of them. Raises: as :func:`open_plain`."""
    with open_plain(path) as file:
        return file.read(-1 if limit is None else limit)


def insights_by(key: str, path: Path) -> dict[str, str]:
    """The column ``insights`` of a CSV by another of its columns.

    Raises:
        ArgumentError: the file cannot be read, lacks something in a row, or has two rows with one key.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArgumentError(f"the file cannot be read as CSV in UTF-8: {type(error).__name__}") from error
    if any(not row.get(key) or row.get("insights") is None for row in rows):
        raise ArgumentError(f"the file needs the columns {key} and insights, filled in every row")
    if len({row[key] for row in rows}) < len(rows):
        raise ArgumentError(f"the file has two rows with one {key}")
    return {row[key]: row["insights"] for row in rows}
