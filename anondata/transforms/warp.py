"""Smooth geometric change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.transforms._draws import like, uniform, whole, working
from anondata.transforms.base import Common, RegionTransform, in_range

WAVES = 4
STEEPEST = 0.8  # of the displacement in one step; from 1 on a step may fold


class Warp(RegionTransform):
    """Bends a region smoothly and at random, as if it were printed on rubber.

    **Not safe by itself**: all texture stays, and a face that is bent a little is still that face. It takes from
    matchers of places the geometry that they check, which style transfer leaves.

    The displacement is a sum of a few plane waves of random direction, wavelength and phase. It is laid on in as many
    small steps as keep each step's slope below 0.8. So each step, and with it the whole, maps the plane one to one:
    the Jacobian determinant is above 0 everywhere, nothing folds and nothing is torn. What is moved in from beyond
    the crop is its mirror image, never black.

    Args:
        strength: the furthest that any point may move, relative to the region's side, in [0.001, 0.5]. On average
            points move a third of that.
        cycles: the finest wave along the region's side, 0.25 to 8; waves are up to three times as long.
        crop_px: pixels along the side that the region is changed at, 16 to 2048. Enough for the detail of a face is
            128; whole frames need more, as they come out no sharper than this.

    Source: Christensen, Rabbitt, Miller (1996), doi 10.1109/83.536892, for large displacements composed of small
    ones that keep the Jacobian positive.

    >>> import torch
    >>> bool(Warp(strength=0.5)(torch.full((1, 3, 32, 32), 0.5)).sub(0.5).abs().max() < 1e-6)
    True
    """

    name = "warp"
    moves = True

    def __init__(
        self, strength: float = 0.2, cycles: float = 2.0, crop_px: int = 128, **common: Unpack[Common]
    ) -> None:
        super().__init__(**common)
        self._strength = in_range("strength", strength, 0.001, 0.5)
        self.cycles = in_range("cycles", cycles, 0.25, 8.0)
        self.crop_px = whole("crop_px", crop_px, 16, 2048)  # of a whole frame, of a face

    def strength(self) -> dict[str, Any]:
        return {"strength": self._strength, "cycles": self.cycles, "crop_px": self.crop_px}

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        height, width = crops.shape[-2:]
        work = working(crops)
        points = lattice(height, width).to(work) * extent
        moved = displaced(
            points.expand(len(crops), -1, -1, -1),
            uniform(seeds, (WAVES, 4)).to(work),
            strength=self._strength,
            cycles=self.cycles,
        )
        grid = moved * (2 / extent)  # from regions about their centre to the -1 to 1 of grid_sample
        out = F.grid_sample(work, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        return like(out, crops)


def lattice(height: int, width: int) -> Tensor:
    """``(H, W, 2)`` float64: x, y of the middles of pixels, from -0.5 to 0.5 across the picture."""
    y = (torch.arange(height, dtype=torch.float64) + 0.5) / height - 0.5
    x = (torch.arange(width, dtype=torch.float64) + 0.5) / width - 0.5
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def displaced(points: Tensor, draws: Tensor, *, strength: float, cycles: float) -> Tensor:
    """Where points ``(B, H, W, 2)`` are moved to by the waves of ``draws (B, WAVES, 4)`` in [0, 1).

    One to one on the whole plane, and by no more than ``strength``: the amplitudes of all waves add up to it.
    """
    bearing, heading, phase = (2 * math.pi * draws[..., i] for i in range(3))
    number = 2 * math.pi * cycles * (1 + 2 * draws[..., 3]) / 3
    steps = math.ceil(strength * 2 * math.pi * cycles / STEEPEST)
    reach = strength / (WAVES * steps)
    for _ in range(steps):
        shift = torch.zeros_like(points)
        for wave in range(WAVES):
            k, angle, towards, start = (v[:, wave, None, None] for v in (number, bearing, heading, phase))
            height = (k * (points[..., 0] * angle.cos() + points[..., 1] * angle.sin()) + start).sin()
            shift = shift + torch.stack([height * towards.cos(), height * towards.sin()], dim=-1)
        points = points + reach * shift
    return points
