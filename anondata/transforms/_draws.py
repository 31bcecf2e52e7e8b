"""What random techniques draw from seeds, and the checks of parameters that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anondata.crops import bounded


def uniform(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Uniform numbers ``(len(seeds), *shape)`` float32 in [0, 1) on the CPU, one generator a row.

    Drawn as in :func:`anondata.randomness.normal`: by numpy, which keeps all 64 bits of a seed, and on the CPU
    whatever the device.
    """
    drawn = np.empty((len(seeds), *shape), dtype=np.float32)
    for row, seed in zip(drawn, seeds, strict=True):
        np.random.Generator(np.random.Philox(key=seed)).random(dtype=np.float32, out=row)
    return torch.from_numpy(drawn)


def whole(name: str, value: Any, low: int, high: int) -> int:
    """``value`` as it is, or a ``ValueError`` that names the range."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number between {low} and {high}, got {value!r}")
    return value


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """``value`` as it is, or a ``ValueError`` that names the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}, got {value!r}")
    return value


def working(crops: Tensor) -> Tensor:
    """Crops in a dtype that every kernel takes: float64 as it is, else float32 (the CPU has few for halves)."""
    return crops if crops.dtype == torch.float64 else crops.float()


def like(images: Tensor, crops: Tensor) -> Tensor:
    """A result in [0, 1] and in the dtype of the crops that it was made of."""
    return bounded(images).to(crops.dtype)


def block_of(side: int, blocks: int) -> Tensor:
    """``(side,)`` int64: which of ``blocks`` nearly equal blocks each pixel of a side lies in."""
    return torch.div(torch.arange(side) * blocks, side, rounding_mode="floor")
