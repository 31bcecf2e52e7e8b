"""Smooth geometric change: how far, how smoothly, and never folded or torn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from anondata.components import build
from anondata.content.images import ImageContent
from anondata.errors import PolicyError
from anondata.randomness import RunKey
from anondata.regions import Regions
from anondata.transforms import Warp
from anondata.transforms._draws import uniform
from anondata.transforms.warp import WAVES, displaced, lattice

KEY = RunKey(b"a secret of enough bytes")
SETTINGS = [(0.001, 0.25), (0.05, 2.0), (0.2, 2.0), (0.5, 2.0), (0.1, 8.0), (0.5, 8.0)]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        *[({"strength": bad}, "strength must be between 0.001 and 0.5, got") for bad in (0, -0.1, 0.6, math.nan)],
        *[({"strength": bad}, "strength must be a number, got") for bad in (True, "0.1", None)],
        *[({"cycles": bad}, "cycles must be between 0.25 and 8, got") for bad in (0, -2, 9, math.nan, math.inf)],
        *[({"crop_px": bad}, "crop_px must be a whole number between 16 and 2048") for bad in (8, 4096, 128.0, None)],
    ],
    ids=str,
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        build("technique", "warp", params)
    assert str(raised.value).startswith(f"technique 'warp': {message}")


def moved(strength: float, cycles: float, *, side: int = 96, count: int = 20) -> tuple[Tensor, Tensor]:
    points = (lattice(side, side) * 2).expand(count, -1, -1, -1)  # as far again as the region
    draws = uniform(range(count), (WAVES, 4)).double()
    return points, displaced(points, draws, strength=strength, cycles=cycles)


@pytest.mark.parametrize(("strength", "cycles"), SETTINGS)
def test_the_jacobian_is_positive_everywhere(strength: float, cycles: float) -> None:
    """By automatic differentiation at random points, of which each is moved for itself."""
    places = torch.rand(20, 500, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    places.requires_grad_()
    draws = uniform(range(20), (WAVES, 4)).double()
    out = displaced(places, draws, strength=strength, cycles=cycles)
    rows = [torch.autograd.grad(out[..., axis].sum(), places, retain_graph=True)[0] for axis in (0, 1)]
    assert torch.linalg.det(torch.stack(rows, dim=-2)).min() > 0


@pytest.mark.parametrize(("strength", "cycles"), [case for case in SETTINGS if case[0] * case[1] <= 1])
def test_no_triangle_of_neighbours_turns_over(strength: float, cycles: float) -> None:
    _, out = moved(strength, cycles, side=256, count=4)
    right, down = out[:, :-1, 1:] - out[:, :-1, :-1], out[:, 1:, :-1] - out[:, :-1, :-1]
    assert (right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]).min() > 0


@pytest.mark.parametrize(("strength", "cycles"), SETTINGS)
def test_no_point_moves_farther_than_the_strength(strength: float, cycles: float) -> None:
    points, out = moved(strength, cycles)
    assert (out - points).norm(dim=-1).max() <= strength * (1 + 1e-9)


def test_points_move_a_third_of_the_strength_on_average() -> None:
    points, out = moved(0.1, 2.0, count=200)
    assert float((out - points).norm(dim=-1).mean()) == pytest.approx(0.1 / 3, rel=0.15)


def test_the_displacement_is_the_same_at_any_resolution(face_crop: Tensor) -> None:
    draws = uniform([3], (WAVES, 4)).double()
    fine, coarse = (displaced(lattice(n, n)[None], draws, strength=0.2, cycles=2.0) for n in (90, 30))
    torch.testing.assert_close(fine[:, 1::3, 1::3], coarse)


def test_a_picture_without_black_stays_without_black(astronaut: Tensor) -> None:
    crop = (0.5 + astronaut[None].float() / 510).expand(4, -1, -1, -1)
    out = Warp(0.5, 1.0).change(crop, extent=1.0, seeds=range(4))
    assert out.min() >= 0.5 - 1e-6


def test_a_straight_ramp_shows_the_displacement() -> None:
    """An independent look at the direction and the scale: of a ramp, the result is where each pixel came from."""
    ramp = ((torch.arange(64) + 0.5) / 64).view(1, 1, 1, 64).expand(1, 1, 64, 64)
    out = Warp(0.1, 1.0).change(ramp, extent=1.0, seeds=[7])
    expected = displaced(lattice(64, 64)[None], uniform([7], (WAVES, 4)).double(), strength=0.1, cycles=1.0)
    inside = (expected - 0.0).abs().amax(-1) < 0.48
    torch.testing.assert_close(out[:, 0][inside], (expected[..., 0] + 0.5)[inside].float(), rtol=0, atol=1e-5)


def test_strength_is_relative_to_the_region_and_not_to_the_crop() -> None:
    ramp = ((torch.arange(64) + 0.5) / 64).view(1, 1, 1, 64).expand(1, 1, 64, 64)
    close, wide = (Warp(0.1, 0.5).change(ramp, extent=extent, seeds=[7]) for extent in (1.0, 2.0))
    assert (close - ramp).abs().max() > 1.5 * (wide - ramp).abs().max()


def test_a_whole_frame_keeps_its_detail_at_more_pixels(astronaut: Tensor) -> None:
    box = torch.tensor([[0.0, 0, 512, 512]])
    media = ImageContent().decode(astronaut, torch.device("cpu"))
    frame = Regions(
        torch.zeros(1, dtype=torch.long), box, torch.full((1, 5, 2), torch.nan), torch.ones(1), ("frame",)
    )
    sharp = []
    for crop_px in (128, 512):
        technique = Warp(0.02, crop_px=crop_px, coverage=1.0, feather=0.0)
        patches = ImageContent().change([media], frame, technique, [3])
        out = ImageContent().compose(media, patches).pixels
        assert out.shape == astronaut.shape
        assert not torch.equal(out, astronaut)
        sharp.append(out.float().diff(dim=-1).abs().mean())
    assert sharp[1] > 1.5 * sharp[0]


def test_gradients_flow() -> None:
    crop = torch.rand(1, 3, 64, 64, requires_grad=True)
    Warp()(crop).square().sum().backward()
    assert crop.grad is not None
    assert crop.grad.abs().sum() > 0
