"""Spatial frequencies, passed or rejected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from anondata.transforms._draws import like, one_of, working
from anondata.transforms.base import Common, RegionTransform, in_range

GREY = 0.5  # stands in for the mean colour where that is filtered out
MODES = ("pass", "reject")


class FrequencyFilter(RegionTransform):
    """Keeps a band of a region's spatial frequencies, or removes it.

    People and machines read a face mostly at 8 to 16 cycles a face. **Not safe by itself**: what is left on either
    side of a rejected band, or in a passed one, is exact, and an attacker can filter their own photos alike.

    Args:
        low, high: the band, in cycles along the region's side, 0 to 64, ``low`` below ``high``. Zero cycles are the
            mean colour; where that is filtered out middle grey takes its place.
        mode: ``"pass"`` keeps what lies in ``[low, high)`` and ``"reject"`` what does not. The edges are sharp, so
            that edges in the picture echo.

    A region of few pixels has no fine detail, and a filter must not let it pass for that. So the passed band ends at
    the latest at a quarter of a cycle a pixel, half of what pixels can carry, and the rejected one begins at the
    latest at an eighth.

    Source: EP 22169013 (Deeping Source), [0064] (i); Näsänen (1999), doi 10.1016/S0042-6989(99)00099-9, for the
    band of faces. The picture is mirrored at its borders before the FFT (which makes it a cosine transform, Ahmed,
    Natarajan, Rao 1974), so that opposite borders do not flow into each other.

    >>> import torch
    >>> bool(FrequencyFilter(low=1, high=4)(torch.full((1, 3, 32, 32), 0.9)).sub(0.5).abs().max() < 1e-5)
    True
    """

    name = "frequency_filter"
    draws = False

    def __init__(self, low: float = 1.0, high: float = 4.0, mode: str = "pass", **common: Unpack[Common]) -> None:
        super().__init__(**common)
        self.low = in_range("low", low, 0.0, 64.0)
        self.high = in_range("high", high, 0.0, 64.0)
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")
        self.mode = one_of("mode", mode, MODES)

    def strength(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "mode": self.mode}

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        height, width = crops.shape[-2:]
        cycles = frequencies(height, width, extent=extent)
        region_px = min(height, width) / extent
        if self.mode == "pass":
            kept = (cycles >= self.low) & (cycles < min(self.high, region_px / 4))
        else:
            kept = (cycles < min(self.low, region_px / 8)) | (cycles >= self.high)
        return filtered(crops, kept)


def frequencies(height: int, width: int, *, extent: float) -> Tensor:
    """``(2 H, W + 1)`` float64: cycles a region of each coefficient of the real FFT of a mirrored picture."""
    down = torch.fft.fftfreq(2 * height, dtype=torch.float64) * (height / extent)
    across = torch.fft.rfftfreq(2 * width, dtype=torch.float64) * (width / extent)
    return torch.hypot(down[:, None], across[None, :])


def filtered(images: Tensor, kept: Tensor) -> Tensor:
    """``(B, C, H, W)`` floats with only the ``kept (2 H, W + 1)`` coefficients of their mirrored pictures.

    Halves go through float32: FFTs of halves need CUDA and powers of two.
    """
    height, width = images.shape[-2:]
    work = working(images)
    work = torch.cat([work, work.flip(-1)], dim=-1)
    work = torch.cat([work, work.flip(-2)], dim=-2)
    spectrum = torch.fft.rfft2(work) * kept.to(work.device)
    out = torch.fft.irfft2(spectrum, s=(2 * height, 2 * width))[..., :height, :width]
    return like(out if kept[0, 0] else out + GREY, images)
