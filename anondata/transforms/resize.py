"""Fewer pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch.nn.functional as F
from torch import Tensor

from anondata.transforms._draws import like, one_of, whole, working
from anondata.transforms.base import Common, RegionTransform

KERNELS = ("bicubic", "bilinear", "nearest")


class Resize(RegionTransform):
    """Shrinks a region to few pixels and enlarges it again, with one kernel both ways.

    **Not safe by itself**: like every blur it loses to an attacker who resizes their own photos alike.

    Args:
        pixels: pixels along the region's side in between, 1 to 64: a number, so that strength does not fall as
            regions grow. A crop that reaches beyond its region never gets more pixels a region than this, and never
            more than half of its own, or a small one would come out as it went in.
        kernel: ``"bilinear"`` or ``"bicubic"`` (Keys 1981, a = -0.5; what it overshoots is cut off), both
            antialiased where they shrink and smooth where they enlarge; or ``"nearest"``, which picks single pixels
            and shows them as blocks, aliasing and all.

    Source: EP 22169013 (Deeping Source), [0064] (v).

    >>> import torch
    >>> len(Resize(pixels=4, kernel="nearest")(torch.rand(1, 1, 64, 64)).unique())
    16
    """

    name = "resize"
    draws = False

    def __init__(self, pixels: int = 5, kernel: str = "bilinear", **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.pixels = whole("pixels", pixels, 1, 64)
        self.kernel = one_of("kernel", kernel, KERNELS)

    def strength(self) -> dict[str, Any]:
        return {"pixels": self.pixels, "kernel": self.kernel}

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        height, width = crops.shape[-2:]
        few = max(1, int(self.pixels * extent))
        small = (min(few, (height + 1) // 2), min(few, (width + 1) // 2))
        return down_and_up(crops, small, kernel=self.kernel)


def down_and_up(images: Tensor, small: tuple[int, int], *, kernel: str) -> Tensor:
    """``(B, C, H, W)`` floats resampled to ``small`` height and width, and back."""
    work = working(images)
    for size in (small, tuple(images.shape[-2:])):
        if kernel == "nearest":
            work = F.interpolate(work, size, mode="nearest-exact")
        else:
            work = F.interpolate(work, size, mode=kernel, antialias=True)
    return like(work, images)
