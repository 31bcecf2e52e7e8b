"""Mosaic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

import torch.nn.functional as F
from torch import Tensor

from anondata.crops import bounded
from anondata.leakage import NO_BOUND, NOTHING, Leakage
from anondata.randomness import normal
from anondata.transforms.base import Common, RegionTransform, in_range

GREY = 0.5  # what contrast is taken away towards


class Pixelate(RegionTransform):
    """Replaces a region by a mosaic of its own mean colours, each shifted at random.

    **Not safe by itself** where anything of the contrast is left. A plain mosaic (``noise=0``) stops naive attackers
    and no parrot: of two blocks a side, 26-36 % of 51 people were still found by attackers who pixelate their gallery
    alike, by skin, hair and light. Noise on each block's colour takes that from face networks (3-6 %; chance is 2 %),
    and not from an attacker without any: who takes the blocks' colours of a clear photo of each candidate and names
    the nearest found 51 % from one release of 8 blocks with noise 0.13 and contrast 0.2, 81 % of noise 0.3 and
    contrast 1, and 87 % from eight releases, since noise averages out over blocks and releases. :meth:`leakage`
    bounds what anybody can find; with ``contrast=0`` nothing is left to be found.

    Args:
        blocks: blocks along the region's side, 1 to 64: a number, not a size in pixels, so that strength does not
            fall as faces grow. A crop that reaches beyond its region never gets more blocks a region than this.
        noise: standard deviation of the shift of each block and channel on the [0, 1] scale, 0 to 10.
        contrast: what is left of each block's difference from middle grey, 0 to 1. What counts is noise / contrast:
            low contrast with a little noise hides as much as full contrast with much noise, and is easier on the eye
            and on a model. Below 5 it hides little.

    Source: Newton, Sweeney, Malin (2005) for why a mosaic does not hide a face from a machine; Fan (2018),
    doi 10.1007/978-3-319-95729-6_10, for noise on the blocks of a mosaic.

    >>> import torch
    >>> len(Pixelate(blocks=4)(torch.rand(1, 1, 64, 64)).unique())
    16
    """

    name = "pixelate"

    def __init__(self, blocks: int = 5, noise: float = 0.0, contrast: float = 1.0, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        if isinstance(blocks, bool) or not isinstance(blocks, int) or not 1 <= blocks <= 64:
            raise ValueError(f"blocks must be a whole number between 1 and 64, got {blocks!r}")
        self.blocks = blocks
        self.noise = in_range("noise", noise, 0.0, 10.0)
        self.contrast = in_range("contrast", contrast, 0.0, 1.0)
        self.draws = self.noise > 0

    def strength(self) -> dict[str, Any]:
        return {"blocks": self.blocks, "noise": self.noise, "contrast": self.contrast}

    def leakage(self) -> Leakage:
        """Each block and channel is a Gaussian channel: a colour within half the contrast of grey, plus noise.

        With no contrast nothing of the region is left; with contrast and no noise there is no bound. There are as
        many blocks as a crop of the engine gets at most, soft edge included.
        """
        if not self.contrast:
            return NOTHING
        ratio = self.contrast / 2 / self.noise if self.noise else math.inf
        snr = ratio * ratio  # not by **, which raises where it is too large
        return Leakage(3 * self._across(self.extent) ** 2, snr) if snr < math.inf else NO_BOUND

    def _across(self, extent: float) -> int:
        """Blocks along the side of a crop."""
        return max(1, int(self.blocks * extent))

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        colors = block_colors(crops, blocks=self._across(extent))
        colors = GREY + self.contrast * (bounded(colors) - GREY)
        if self.noise:
            colors = bounded(colors + self.noise * normal(seeds, colors.shape[1:]).to(colors))
        return F.interpolate(colors, crops.shape[-2:], mode="nearest-exact")


def block_colors(images: Tensor, *, blocks: int) -> Tensor:
    """Mean colours ``(B, C, blocks, blocks)`` of the blocks of ``(B, C, H, W)`` floats.

    A block is never finer than two pixels, or a small picture would come out as it went in.
    """
    height, width = images.shape[-2:]
    return F.adaptive_avg_pool2d(images, (min(blocks, (height + 1) // 2), min(blocks, (width + 1) // 2)))
