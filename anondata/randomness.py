"""Randomness as a pure function of (run key, sample key, step): no global generator is ever touched.

The run key is a secret: whoever knows the seed of published noise can subtract it. It is kept out of reprs,
configurations, fingerprints, reports and logs.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anondata.errors import UnreadableSourceError

KEY_BYTES = 32


class RunKey:
    """The secret that every random choice of a run derives from.

    A key that was made of bytes, or drawn, is pickled with its secret: it travels wherever an
    :class:`~anondata.Anonymizer` is sent, to spawned workers through a pipe, on a cluster through its object store
    (Ray's lies in shared memory and spills to disk), and into every file that a pickle is written to.
    :meth:`from_file` and :meth:`from_env` make a key that is pickled as the place it came from, and read again there.

    Args:
        secret: at least 16 bytes. None draws a new one from the operating system: two runs then differ, and neither
            can be repeated.
    """

    __slots__ = ("_place", "_secret")

    def __init__(self, secret: bytes | None = None) -> None:
        if secret is not None and not isinstance(secret, bytes):
            raise TypeError(f"a run key needs bytes, got {type(secret).__name__}")
        if secret is not None and len(secret) < 16:
            raise ValueError(f"a run key needs at least 16 bytes, got {len(secret)}")
        self._secret = secrets.token_bytes(KEY_BYTES) if secret is None else secret
        self._place: tuple[str, str] | None = None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> RunKey:
        """Takes a file's bytes as the key. Workers read the file again, so they need it at the same path.

        Raises:
            UnreadableSourceError: the file cannot be read, or holds fewer than 16 bytes.
        """
        return cls._read("file", os.path.abspath(os.fspath(path)))

    @classmethod
    def from_env(cls, name: str) -> RunKey:
        """Takes an environment variable's text as the key. Workers read their own variable of this name.

        Raises:
            UnreadableSourceError: the variable is not set, or has fewer than 16 bytes.
        """
        return cls._read("environment variable", name)

    @classmethod
    def _read(cls, kind: str, where: str, known: str | None = None) -> RunKey:
        """known: stands for the key that must be there."""
        try:
            made = cls(Path(where).read_bytes() if kind == "file" else os.fsencode(os.environ[where]))
        except OSError as error:
            raise UnreadableSourceError(f"the run key's file cannot be read here: {error.strerror}") from None
        except KeyError:
            raise UnreadableSourceError("the run key's environment variable is not set here") from None
        except ValueError as error:
            raise UnreadableSourceError(f"the run key's {kind}: {error}") from error
        if known is not None and known != made._stand_in:
            raise UnreadableSourceError(
                f"the run key's {kind} holds another key here than where the work was given out"
            )
        made._place = (kind, where)
        return made

    @property
    def _stand_in(self) -> str:
        return self.name("the run key itself")

    def __reduce__(self) -> tuple[Any, ...]:
        return (RunKey, (self._secret,)) if self._place is None else (_read_again, (*self._place, self._stand_in))

    def __repr__(self) -> str:
        return "RunKey(…)"

    def digest(self, *parts: str | bytes | int) -> bytes:
        """32 bytes that depend on the key and on every part, in order (BLAKE2b, RFC 7693, keyed)."""
        keyed = hashlib.blake2b(key=hashlib.sha256(self._secret).digest(), digest_size=32)
        for part in parts:
            # File names may hold lone surrogates.
            raw = part if isinstance(part, bytes) else str(part).encode(errors="surrogatepass")
            keyed.update(len(raw).to_bytes(8, "little") + raw)
        return keyed.digest()

    def seed(self, *parts: str | bytes | int) -> int:
        """A seed in [0, 2^63) for a generator of its own."""
        return int.from_bytes(self.digest("seed", *parts)[:8], "little") >> 1  # apart from names, which get published

    def name(self, *parts: str | bytes | int) -> str:
        """32 hexadecimal digits that stand for the parts; without the key nobody can tell what they stand for."""
        return self.digest("name", *parts)[:16].hex()


def _read_again(kind: str, where: str, known: str) -> RunKey:
    return RunKey._read(kind, where, known)


def normal(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise ``(len(seeds), *shape)`` float32 on the CPU, one generator a row.

    Drawn on the CPU whatever the device, so that a sample's result does not depend on the machine's GPU, and not by
    torch's CPU generator: it keeps 32 bits of a seed (2.15), few enough to try them all on published noise.
    """
    noise = np.empty((len(seeds), *shape), dtype=np.float32)
    for row, seed in zip(noise, seeds, strict=True):
        np.random.Generator(np.random.Philox(key=seed)).standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(noise)
