"""Mosaic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from anondata.transforms.base import RegionTransform


class Pixelate(RegionTransform):
    """Replaces a region by a mosaic of its own mean colours.

    Args:
        blocks: blocks along the region's side, 1 to 64: a number, not a size in pixels, so that strength does not
            fall as faces grow. A crop that reaches beyond its region never gets more blocks a region than this.

    Source: Newton, Sweeney, Malin (2005) for why a mosaic of many blocks does not hide a face from a machine.

    >>> import torch
    >>> len(Pixelate(blocks=4)(torch.rand(1, 1, 64, 64)).unique())
    16
    """

    name = "pixelate"

    def __init__(self, blocks: int = 5, **common: Any) -> None:
        super().__init__(**common)
        if isinstance(blocks, bool) or not isinstance(blocks, int) or not 1 <= blocks <= 64:
            raise ValueError(f"blocks must be a whole number between 1 and 64, got {blocks!r}")
        self.blocks = blocks

    def strength(self) -> dict[str, Any]:
        return {"blocks": self.blocks}

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        return pixelate(crops, blocks=max(1, int(self.blocks * extent)))


def pixelate(images: Tensor, *, blocks: int) -> Tensor:
    """A mosaic of ``(B, C, H, W)`` floats with ``blocks`` mean colours along each side.

    A block is never finer than two pixels, or a small picture would come out as it went in.
    """
    height, width = images.shape[-2:]
    means = F.adaptive_avg_pool2d(images, (min(blocks, (height + 1) // 2), min(blocks, (width + 1) // 2)))
    return F.interpolate(means, (height, width), mode="nearest-exact")
