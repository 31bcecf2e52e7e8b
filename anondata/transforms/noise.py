"""Gaussian noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from torch import Tensor

from anondata.crops import resize
from anondata.randomness import normal
from anondata.transforms.base import Common, RegionTransform, in_range


class Noise(RegionTransform):
    """Adds Gaussian noise whose grain grows with the region.

    The noise of a region depends on the key and the region alone. Whoever knows the key can subtract it: it is a
    secret. Noise finer than the face averages out when a recognizer shrinks it, hence the grain. It averages out over
    several releases, too, and it does not reach what is finer than its grain: there is no bound of what it leaves.

    Args:
        std: standard deviation on the [0, 1] scale, in (0, 10].
        cells: noise cells along the region's side, 1 to 128.

    >>> import torch
    >>> noisy = Noise(std=0.5)(torch.full((1, 3, 32, 32), 0.5))
    >>> bool(noisy.min() >= 0) and bool(noisy.max() <= 1) and bool(noisy.std() > 0.1)
    True
    """

    name = "noise"

    def __init__(self, std: float = 1.0, cells: int = 16, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.std = in_range("std", std, 0.001, 10.0)
        if isinstance(cells, bool) or not isinstance(cells, int) or not 1 <= cells <= 128:
            raise ValueError(f"cells must be a whole number between 1 and 128, got {cells!r}")
        self.cells = cells

    def strength(self) -> dict[str, Any]:
        return {"std": self.std, "cells": self.cells}

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        side = max(1, round(self.cells * extent))
        noise = normal(seeds, (crops.shape[1], side, side)).to(crops)
        return add_noise(crops, noise, std=self.std)


def add_noise(images: Tensor, noise: Tensor, *, std: float) -> Tensor:
    """``(B, C, H, W)`` floats plus ``std`` times coarse noise ``(B, C, h, w)``, kept in [0, 1]."""
    return (images + std * resize(noise, *images.shape[-2:])).clamp(0, 1)
