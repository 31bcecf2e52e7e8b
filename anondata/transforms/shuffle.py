"""Shuffled patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from anondata.transforms._draws import block_of, whole
from anondata.transforms.base import Common, RegionTransform, in_range


class Shuffle(RegionTransform):
    """Cuts a region into a grid of blocks and deals them out anew, at random.

    **Not safe by itself.** Every pixel is still there: who solves the puzzle has the face, and colours and texture
    identify without it. One of five information reductions that are meant to be combined.

    Args:
        blocks: blocks along the region's side, 2 to 64. A crop that reaches beyond its region never gets more blocks
            a region than this.
        keep: share of the blocks that stay where they are, 0 to 0.9. None of the others does: each of them takes the
            place of another, in one cycle through all.

    Source: EP 22169013 (Deeping Source), [0064] (iv), there of a network's features. Sattolo (1986), "An algorithm to
    generate a random cyclic permutation", for a deal in which no block keeps its place.

    >>> import torch
    >>> crop = torch.rand(1, 1, 64, 64)
    >>> out = Shuffle(blocks=4)(crop)
    >>> bool((out != crop).any()), torch.equal(out.sum(), crop.sum()) or bool((out.sum() - crop.sum()).abs() < 0.1)
    (True, True)
    """

    name = "shuffle"
    moves = True

    def __init__(self, blocks: int = 8, keep: float = 0.0, **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.blocks = whole("blocks", blocks, 2, 64)
        self.keep = in_range("keep", keep, 0.0, 0.9)

    def strength(self) -> dict[str, Any]:
        return {"blocks": self.blocks, "keep": self.keep}

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        height, width = crops.shape[-2:]
        across = max(2, int(self.blocks * extent))
        rows, columns = min(across, height), min(across, width)
        return shuffle(crops, deal(seeds, rows * columns, keep=self.keep).view(-1, rows, columns))


def deal(seeds: Sequence[int], count: int, *, keep: float) -> Tensor:
    """``(len(seeds), count)`` int64: the place that each place takes its block from.

    ``keep * count`` places, rounded, keep their own as long as two others are left, and no others do.
    """
    stay = min(round(keep * count), max(0, count - 2))
    dealt = np.tile(np.arange(count), (len(seeds), 1))
    for row, seed in zip(dealt, seeds, strict=True):
        moving = np.random.Generator(np.random.Philox(key=seed)).permutation(count)[stay:]
        row[moving] = np.roll(moving, 1)  # one cycle through places in random order
    return torch.from_numpy(dealt)


def shuffle(images: Tensor, order: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` whose blocks come from the places in ``order (B, rows, columns)``, counted by rows.

    Where the sides are no multiples of the blocks these differ by a pixel, and the nearest one is taken.
    """
    (height, width), (rows, columns) = images.shape[-2:], order.shape[1:]
    y, from_top, high = _places(height, rows)
    x, from_left, wide = _places(width, columns)
    source = order[:, y][:, :, x]  # (B, H, W): the block that each pixel comes from
    up, left = source.div(columns, rounding_mode="floor"), source % columns
    at_y = _start(up, height, rows) + _scaled(from_top[None, :, None], high[up], high[y][None, :, None])
    at_x = _start(left, width, columns) + _scaled(from_left, wide[left], wide[x])
    index = (at_y * width + at_x).flatten(1)[:, None].to(images.device)
    return images.flatten(2).gather(2, index.expand(-1, images.shape[1], -1)).view(images.shape)


def _places(side: int, blocks: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each pixel's block and its place in it, ``(side,)``, and each block's pixels, ``(blocks,)``."""
    block = block_of(side, blocks)
    return block, torch.arange(side) - _start(block, side, blocks), torch.bincount(block, minlength=blocks)


def _start(block: Tensor, side: int, blocks: int) -> Tensor:
    return -((-block * side).div(blocks, rounding_mode="floor"))


def _scaled(place: Tensor, to_px: Tensor, from_px: Tensor) -> Tensor:
    """The pixel of a block of ``to_px`` that lies where ``place`` does in one of ``from_px``."""
    return ((2 * place + 1) * to_px).div(2 * from_px, rounding_mode="floor")
