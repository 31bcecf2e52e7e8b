"""Trying again what a network or a storage refused for the moment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from anondata._files import NotPlainError

T = TypeVar("T")

TRIES_VARIABLE = "ANONDATA_TRIES"
TRIES = 5
LONGEST_WAIT_S = 15.0

# Trying again cannot help: the thing is not there, may not be read, or has no room.
_VERSION_WORDS = ("etag", "mtime", "modified", "md5", "digest", "crc32", "sha", "generation", "version")

_FINAL = (NotPlainError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


def with_retries(do: Callable[[], T]) -> T:
    """What ``do`` returns; it is called up to ``ANONDATA_TRIES`` times (5), with growing waits of 1 to 15 s.

    It must be a thing that can be done twice. Raises what the last try raised. Only what storages raise for a moment
    is tried again: ``OSError`` (timeouts and broken connections are), and what their client libraries raise instead.
    """
    tries = max(1, int(os.environ.get(TRIES_VARIABLE, TRIES)))
    retrying = Retrying(
        stop=stop_after_attempt(tries),
        wait=wait_exponential_jitter(initial=1.0, max=LONGEST_WAIT_S),
        retry=retry_if_exception(_passing),
        reraise=True,
    )
    return retrying(do)


def stamp_of(info: Mapping[str, Any]) -> str:
    """What a storage says of a file that changes when the file does, besides its size; nothing where it says none."""
    told = {k.lower(): str(v) for k, v in info.items() if any(word in k.lower() for word in _VERSION_WORDS)}
    return str(sorted(told.items())) if told else ""


def _passing(error: BaseException) -> bool:
    """Whether an error may be gone at the next try."""
    if isinstance(error, OSError):
        return not isinstance(error, _FINAL)
    return type(error).__module__.split(".")[0] in ("botocore", "aiobotocore", "aiohttp", "gcsfs", "azure", "fsspec")


def words_of(error: BaseException) -> str:
    """What can be said of a storage's error. Its text could hold names, so only the system's own words are taken."""
    system = isinstance(error, OSError) and error.errno and error.strerror == os.strerror(error.errno)
    return str(error.strerror) if system and isinstance(error, OSError) else type(error).__name__
