"""Random colours in place of a region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch.nn.functional as F
from torch import Tensor

from anondata.crops import bounded
from anondata.leakage import NOTHING, Leakage
from anondata.randomness import normal
from anondata.transforms._draws import like, whole
from anondata.transforms.base import Common, RegionTransform, in_range

GREY = 0.5  # what the colours are drawn around
COMMON = 0.85  # of the variance is of brightness, common to all channels: muted colours are easier on the eye


class RandomColors(RegionTransform):
    """Replaces a region by a soft gradient of random colours, which depends on the key alone.

    Nothing of the region is in the result: the colours are drawn, and no pixel of the crop is looked at. What remains
    is where the region was and how large. Averaging many releases gives plain grey.

    A constant colour erases as much, but lets a network attend to what lies around: of 51 people, attackers who
    blur their gallery and the result alike named 19 and 28 % (two networks; chance is 2) around a grey rectangle of
    1.5 times the box, and 0 to 4 % around random colours. A surface that continues the surroundings (``mask``) let
    parrots name 40 %.

    Args:
        cells: colours along each side, 1 to 64. With 1 the region has one flat colour; between several they are
            interpolated smoothly.
        spread: standard deviation of each channel around middle grey on the [0, 1] scale, 0 to 1; most of it is
            brightness, which all channels share.

    >>> import torch
    >>> flat = RandomColors(cells=1)(torch.rand(1, 3, 8, 8))
    >>> [len(channel.unique()) for channel in flat[0]]
    [1, 1, 1]
    """

    name = "random_colors"

    def __init__(self, cells: int = 3, spread: float = 0.15, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.cells = whole("cells", cells, 1, 64)
        self.spread = in_range("spread", spread, 0.0, 1.0)

    def leakage(self) -> Leakage:
        return NOTHING

    def strength(self) -> dict[str, Any]:
        return {"cells": self.cells, "spread": self.spread}

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        height, width = crops.shape[-2:]
        drawn = gradient(seeds, crops.shape[1], cells=self.cells, spread=self.spread, size=(height, width))
        return like(drawn.to(crops.device), crops)


def gradient(seeds: Sequence[int], channels: int, *, cells: int, spread: float, size: tuple[int, int]) -> Tensor:
    """Soft gradients of muted colours ``(len(seeds), channels, height, width)`` float32 in [0, 1], on the CPU."""
    drawn = normal(seeds, (1 + channels, cells, cells))
    colors = bounded(GREY + spread * (COMMON**0.5 * drawn[:, :1] + (1 - COMMON) ** 0.5 * drawn[:, 1:]))
    return bounded(F.interpolate(colors, size, mode="bicubic", align_corners=True))
