"""One flat colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from torch import Tensor

from anondata.leakage import NO_BOUND, NOTHING, Leakage
from anondata.transforms.base import Common, RegionTransform


class Fill(RegionTransform):
    """Replaces a region by one flat colour: what remains is where and how large it was.

    Args:
        color: ``"mean"`` for the region's own mean colour, which keeps a hint of skin tone and light, or red, green
            and blue in [0, 1].

    >>> import torch
    >>> Fill(color=(0.5, 0.5, 0.5))(torch.rand(1, 3, 8, 8)).unique()
    tensor([0.5000])
    """

    name = "fill"
    draws = False

    def __init__(self, color: str | Sequence[float] = (0.5, 0.5, 0.5), **common: Unpack[Common]) -> None:
        super().__init__(**common)
        if not (_is_color(color) or (isinstance(color, str) and color == "mean")):
            raise ValueError(f"color must be 'mean' or three numbers in [0, 1], got {color!r}")
        self.color: str | tuple[float, ...] = "mean" if isinstance(color, str) else tuple(map(float, color))

    def strength(self) -> dict[str, Any]:
        return {"color": self.color if isinstance(self.color, str) else list(self.color)}

    def leakage(self) -> Leakage:
        return NO_BOUND if self.color == "mean" else NOTHING

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        if isinstance(self.color, str):
            return crops.mean(dim=(-2, -1), keepdim=True).expand_as(crops).clone()
        return fill(crops, color=self.color)


def fill(images: Tensor, *, color: Sequence[float]) -> Tensor:
    """``(B, C, H, W)`` floats of one colour; pictures of other than three channels get its mean in each."""
    channels = images.shape[1]
    values = list(color) if channels == 3 else [sum(color) / len(color)] * channels
    return images.new_tensor(values).view(1, -1, 1, 1).expand_as(images).clone()


def _is_color(color: Any) -> bool:
    if isinstance(color, str) or not isinstance(color, Sequence) or len(color) != 3:
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in color)
