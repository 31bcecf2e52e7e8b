"""The whole picture repainted in another style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.crops import bounded, resize
from anondata.models.shared import network
from anondata.transforms._draws import whole
from anondata.transforms.base import RegionTransform, Shaped, in_range

STYLES = 26
STEP_PX = 4  # the network halves twice
SMALLEST_PX = 32  # under which it has nothing to paint with


class StyleTransfer(RegionTransform):
    """Repaints a region in one of 26 styles: colours and textures are another's, shapes stay where they are.

    **Not safe by itself.** Shapes that stay are what matchers of places look for: XFeat found 16 of 17 places after
    this, and 5 from another viewpoint after :class:`~anondata.transforms.warp.Warp` (0.15 at 4 cycles) and this in a
    :class:`~anondata.transforms.chain.Chain`; SIFT 3 and 0. See the benchmark ``places``.

    Made for whole frames: the result is no sharper than ``crop_px`` along its sides, and covers the box alone.

    Args:
        style: its number, 0 to 25, or None for one drawn for each region.
        amount: how much of the result is painted, in (0, 1]; the rest is the original, and with it its texture.
        crop_px: pixels along the side that the region is painted at, 64 to 2048. Strokes are of a fixed number of
            pixels: fewer pixels, bolder strokes. Cost grows with the square.

    Grey pictures are painted in colour and greyed again. A fourth channel becomes 1, opaque: its outlines would tell
    as much as those in colour.

    Source: Dumoulin, Shlens, Kudlur (2017), A Learned Representation for Artistic Style, arXiv:1610.07629. The
    weights are fetched once: ``anondata weights pull style-26``.
    """

    networks = ("style-26",)

    name = "style_transfer"
    weights = ("style-26",)

    def __init__(
        self,
        style: int | None = None,
        amount: float = 1.0,
        crop_px: int = 512,
        coverage: float = 1.0,
        feather: float = 0.0,
        **common: Unpack[Shaped],
    ) -> None:
        super().__init__(coverage=coverage, feather=feather, **common)
        self.style = None if style is None else whole("style", style, 0, STYLES - 1)
        self.amount = in_range("amount", amount, 0.05, 1.0)
        self.crop_px = whole("crop_px", crop_px, 64, 2048)  # of a frame, or of a part
        self.draws = style is None

    def strength(self) -> dict[str, Any]:
        return {"style": self.style, "amount": self.amount, "crop_px": self.crop_px}

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        # One by one: a row must not depend on the batch that it is in.
        return torch.cat([self._painted(crop[None], seed) for crop, seed in zip(crops, seeds, strict=True)])

    def _painted(self, crop: Tensor, seed: int) -> Tensor:
        channels = crop.shape[1]
        colours = crop[:, :3] if channels >= 3 else crop.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
        painted = paint(colours.float(), style=seed % STYLES if self.style is None else self.style)
        painted = torch.lerp(colours.float(), painted, self.amount)
        if channels < 3:
            painted = painted.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1)
        beyond = painted.new_ones(1, max(0, channels - 3), *crop.shape[2:])
        return bounded(torch.cat([painted, beyond], dim=1)).to(crop.dtype)


def paint(picture: Tensor, *, style: int) -> Tensor:
    """``(1, 3, H, W)`` float32 in [0, 1] in a style by its number, of the same size, on the same device.

    Raises what :func:`anondata.models.shared.network` raises.
    """
    height, width = picture.shape[-2:]
    sides = [max(SMALLEST_PX, -(-side // STEP_PX) * STEP_PX) for side in (height, width)]
    weights = F.one_hot(torch.tensor(style), STYLES).float()
    out = network("style-26", picture.device)(resize(picture, *sides).contiguous(), weights)
    return resize(bounded(out), height, width)  # type: ignore[arg-type]  # the graph has one output
