"""Randomness as a pure function of (run key, sample key, step): no global generator is ever touched.

The run key is a secret: whoever knows the seed of published noise can subtract it. It is kept out of reprs,
configurations, fingerprints, reports and logs.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

KEY_BYTES = 32


class RunKey:
    """The secret that every random choice of a run derives from.

    Args:
        secret: at least 16 bytes. Left out, a fresh one is drawn from the operating system: two runs then
            differ, and neither can be repeated.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes | None = None) -> None:
        if secret is not None and not isinstance(secret, bytes):
            raise TypeError(f"a run key needs bytes, got {type(secret).__name__}")
        if secret is not None and len(secret) < 16:
            raise ValueError(f"a run key needs at least 16 bytes, got {len(secret)}")
        self._secret = secrets.token_bytes(KEY_BYTES) if secret is None else secret

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
        """32 hexadecimal digits that stand for a key without telling it."""
        return self.digest("name", *parts)[:16].hex()


def normal(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise ``(len(seeds), *shape)`` float32 on the CPU, one generator a row.

    Drawn on the CPU whatever the device, so that a sample's result does not depend on the machine's GPU, and not by
    torch's CPU generator: it keeps 32 bits of a seed (2.15), few enough to try them all on published noise.
    """
    noise = np.empty((len(seeds), *shape), dtype=np.float32)
    for row, seed in zip(noise, seeds, strict=True):
        np.random.Generator(np.random.Philox(key=seed)).standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(noise)
