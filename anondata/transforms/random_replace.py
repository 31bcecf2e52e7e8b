"""Random values in place of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch.nn.functional as F
from torch import Tensor

from anondata.leakage import NO_BOUND, NOTHING, Leakage
from anondata.transforms._draws import one_of, uniform, whole
from anondata.transforms.base import Common, RegionTransform, in_range

BY = ("color", "noise")


class RandomReplace(RegionTransform):
    """Replaces blocks of a region, chosen at random, by random colours or by noise.

    **Safe by itself only when all are replaced**: what is left between the blocks is the original, and neighbouring
    pixels tell what a block of few hid. With ``share=1`` nothing is left at all.

    Args:
        share: share of the blocks that are replaced, in [0.01, 1]; exactly so, up to rounding to whole blocks.
        blocks: blocks along the region's side, 1 to 128. A crop that reaches beyond its region never gets more blocks
            a region than this.
        by: ``"color"`` for one uniformly random colour a block, ``"noise"`` for one a pixel of the crop.

    Source: EP 22169013 (Deeping Source), [0064] (iii).

    >>> import torch
    >>> out = RandomReplace(share=0.5, blocks=4)(torch.zeros(1, 1, 64, 64))
    >>> float((out > 0).float().mean())
    0.5
    """

    name = "random_replace"

    def __init__(self, share: float = 1.0, blocks: int = 16, by: str = "color", **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.share = in_range("share", share, 0.01, 1.0)
        self.blocks = whole("blocks", blocks, 1, 128)
        self.by = one_of("by", by, BY)

    def strength(self) -> dict[str, Any]:
        return {"share": self.share, "blocks": self.blocks, "by": self.by}

    def leakage(self) -> Leakage:
        return NOTHING if self.share == 1 else NO_BOUND  # seeds depend on the content through a keyed hash alone

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        channels, height, width = crops.shape[1:]
        across = max(1, int(self.blocks * extent))
        rows, columns = min(across, height), min(across, width)
        grain = (rows, columns) if self.by == "color" else (height, width)
        drawn = uniform(seeds, (rows * columns + channels * grain[0] * grain[1],)).to(crops.device)
        ranks, values = drawn[:, : rows * columns], drawn[:, rows * columns :]
        chosen = lowest(ranks, max(1, round(self.share * rows * columns))).view(-1, 1, rows, columns)
        return replaced(crops, chosen, values.reshape(-1, channels, *grain).to(crops.dtype))


def lowest(ranks: Tensor, count: int) -> Tensor:
    """``(B, N)`` bool: the ``count`` lowest of each row, the first of those that are equal."""
    order = ranks.argsort(dim=1, stable=True)
    return order.argsort(dim=1, stable=True) < count


def replaced(images: Tensor, chosen: Tensor, values: Tensor) -> Tensor:
    """``(B, C, H, W)`` floats with blocks replaced: ``chosen (B, 1, h, w)`` bool, ``values (B, C, h', w')``."""
    size = images.shape[-2:]
    mask = F.interpolate(chosen.float(), size, mode="nearest-exact") > 0
    return F.interpolate(values, size, mode="nearest-exact").where(mask, images)
