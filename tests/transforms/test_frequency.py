"""Frequencies: against scipy's cosine transform, and what a small region may not pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from torch import Tensor

from anondata.components import build
from anondata.crops import FLOATS, resize
from anondata.errors import PolicyError
from anondata.transforms import FrequencyFilter


@pytest.mark.parametrize(
    ("params", "message"),
    [
        *[({"low": bad}, "low must be between 0 and 64, got") for bad in (-1, -0.1, 65, math.nan, -math.inf)],
        *[({"high": bad}, "high must be between 0 and 64, got") for bad in (-1, 100, math.nan, math.inf)],
        *[({"high": bad}, "high must be a number, got") for bad in (True, "4", None)],
        ({"low": 4.0, "high": 4.0}, "low must be below high, got 4 and 4"),
        ({"low": 8, "high": 4}, "low must be below high, got 8 and 4"),
        *[({"mode": bad}, "mode must be 'pass' or 'reject', got") for bad in ("low", None, 1)],
    ],
    ids=str,
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        build("technique", "frequency_filter", params)
    assert str(raised.value).startswith(f"technique 'frequency_filter': {message}")


def by_cosines(picture: np.ndarray, low: float, high: float, mode: str, extent: float) -> np.ndarray:
    """By scipy: coefficient ``k`` of ``n`` is ``k / 2`` cycles along the side."""
    height, width = picture.shape[-2:]
    cycles = np.hypot(np.arange(height)[:, None] / 2, np.arange(width)[None, :] / 2) / extent
    within = (cycles >= low) & (cycles < high)
    kept = within if mode == "pass" else ~within
    out = idctn(dctn(picture, axes=(-2, -1)) * kept, axes=(-2, -1))
    return (out if kept[0, 0] else out + 0.5).clip(0, 1)


@pytest.mark.parametrize("extent", [1.0, 1.43])
@pytest.mark.parametrize("mode", ["pass", "reject"])
@pytest.mark.parametrize(("low", "high"), [(0, 3), (1, 4), (0.25, 10), (4, 12), (0, 0.3)])
def test_it_is_what_scipys_cosine_transform_makes(
    face_crop: Tensor, low: float, high: float, mode: str, extent: float
) -> None:
    crop = resize(face_crop, 128, 90)
    out = FrequencyFilter(low=low, high=high, mode=mode).change(crop, extent=extent, seeds=[0])
    expected = by_cosines(crop[0].double().numpy(), low, high, mode, extent)
    np.testing.assert_allclose(out[0].numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cycles", [1, 2, 4, 8, 12])
def test_a_wave_passes_or_not_by_its_cycles_a_region(cycles: int) -> None:
    x = (torch.arange(128) + 0.5) / 128
    wave = (0.5 + 0.4 * torch.cos(2 * math.pi * cycles * x)).expand(1, 1, 128, 128)
    passed = FrequencyFilter(low=2, high=8)(wave)
    left = FrequencyFilter(low=2, high=8, mode="reject")(wave)
    flat, same = (left, passed) if 2 <= cycles < 8 else (passed, left)
    torch.testing.assert_close(flat, torch.full_like(wave, 0.5), rtol=0, atol=1e-5)
    torch.testing.assert_close(same, wave.contiguous(), rtol=0, atol=1e-5)


def test_the_two_modes_add_up_to_the_picture(face_crop: Tensor) -> None:
    crop = 0.5 + 0.1 * (face_crop - 0.5)  # far from what would be cut off
    passed, left = (FrequencyFilter(low=2, high=9, mode=mode)(crop) for mode in ("pass", "reject"))
    torch.testing.assert_close(passed - 0.5 + left, crop, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 6, 8])
def test_a_small_region_shows_its_finest_detail_in_neither_mode(side: int) -> None:
    chessboard = ((torch.arange(side)[:, None] + torch.arange(side)) % 2).float().expand(1, 1, side, side)
    for technique in (FrequencyFilter(low=0, high=64), FrequencyFilter(low=8, high=64, mode="reject")):
        assert technique(chessboard).std(correction=0) < 0.2


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_float_is_filtered_to_its_own_precision(face_crop: Tensor, dtype: torch.dtype) -> None:
    exact = FrequencyFilter()(face_crop.to(dtype).double())
    out = FrequencyFilter()(face_crop.to(dtype))
    assert (out.double() - exact).abs().max() < max(2e-6, torch.finfo(dtype).eps)


def test_gradients_flow() -> None:
    crop = torch.rand(1, 3, 64, 64, requires_grad=True)
    FrequencyFilter()(crop).square().sum().backward()
    assert crop.grad is not None
    assert crop.grad.abs().sum() > 0
