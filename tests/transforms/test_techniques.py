"""What each technique does, against an independent oracle."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from anondata.components import build
from anondata.crops import resize
from anondata.errors import PolicyError
from anondata.randomness import RunKey
from anondata.transforms import Fill, GaussianBlur, Noise, Pixelate

KEY = RunKey(b"a secret of enough bytes")
LIMITS: list[tuple[str, dict[str, Any], str]] = [
    *[
        ("pixelate", {"blocks": bad}, "blocks must be a whole number between 1 and 64, got")
        for bad in (0, -3, 65, 2.5)
    ],
    *[("pixelate", {"blocks": bad}, "blocks must be a whole number") for bad in (True, "5", None, math.nan)],
    ("pixelate", {"noise": -0.1}, "noise must be between 0 and 10, got -0.1"),
    ("pixelate", {"noise": math.nan}, "noise must be between 0 and 10, got nan"),
    *[("pixelate", {"contrast": bad}, "contrast must be between 0 and 1, got") for bad in (-0.1, 1.5, math.nan)],
    ("pixelate", {"contrast": True}, "contrast must be a number, got bool"),
    *[("gaussian_blur", {"sigma": bad}, "sigma must be between 0.001 and 2, got") for bad in (0, -1, 2.1, math.nan)],
    *[("gaussian_blur", {"sigma": bad}, "sigma must be a number, got") for bad in (True, "0.3", None)],
    *[("noise", {"std": bad}, "std must be between 0.001 and 10, got") for bad in (0, -1, 11, math.nan, 10**400)],
    ("noise", {"std": False}, "std must be a number, got bool"),
    *[
        ("noise", {"cells": bad}, "cells must be a whole number between 1 and 128")
        for bad in (0, -1, 129, 2.0, True, "8")
    ],
    *[
        ("fill", {"color": bad}, "color must be 'mean' or three numbers in [0, 1], got")
        for bad in ("red", (0, 0), (0, 0, 2), (0, 0, math.nan), (0, 0, "1"), (True, 0, 0), None, 0.5, np.zeros(3))
    ],
]


@pytest.mark.parametrize(("name", "params", "message"), LIMITS, ids=str)
def test_bad_parameters_are_refused(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        build("technique", name, params)
    assert str(raised.value).startswith(f"technique '{name}': {message}")


# --- mosaic --------------------------------------------------------------------------------------------------------


def naive_mosaic(picture: np.ndarray, blocks: int) -> np.ndarray:
    """Every pixel by a loop: the mean of its block, blocks reaching to whole pixels outwards."""
    channels, height, width = picture.shape
    rows, columns = min(blocks, (height + 1) // 2), min(blocks, (width + 1) // 2)
    out = np.empty_like(picture)
    for y in range(height):
        for x in range(width):
            i, j = int((y + 0.5) * rows / height), int((x + 0.5) * columns / width)
            top, bottom = i * height // rows, math.ceil((i + 1) * height / rows)
            left, right = j * width // columns, math.ceil((j + 1) * width / columns)
            out[:, y, x] = picture[:, top:bottom, left:right].reshape(channels, -1).mean(axis=1)
    return out


@pytest.mark.parametrize("blocks", [1, 2, 5, 7, 16, 64])
def test_a_mosaic_is_what_a_naive_loop_makes(face_crop: Tensor, blocks: int) -> None:
    expected = naive_mosaic(face_crop[0].double().numpy(), blocks)
    np.testing.assert_allclose(Pixelate(blocks=blocks)(face_crop)[0].numpy(), expected, rtol=0, atol=1e-4)


def test_a_mosaic_whose_blocks_fit_is_what_opencv_makes(face_crop: Tensor) -> None:
    picture = resize(face_crop, 128, 128)[0].permute(1, 2, 0).numpy()
    small = cv2.resize(picture, (8, 8), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(small, (128, 128), interpolation=cv2.INTER_NEAREST)
    out = Pixelate(blocks=8)(torch.from_numpy(picture).permute(2, 0, 1))
    np.testing.assert_allclose(out.permute(1, 2, 0).numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("extent", [1.0, 1.3, 1.43, 2.0])
@pytest.mark.parametrize("blocks", [1, 3, 5, 8])
def test_a_wider_crop_gets_no_more_blocks_a_region(blocks: int, extent: float) -> None:
    crop = torch.rand(1, 1, 128, 128)
    out = Pixelate(blocks=blocks).change(crop, extent=extent, seeds=[0])
    assert len(out.unique()) <= max(1, (blocks * extent) ** 2)


def test_fewer_blocks_are_farther_from_the_original(face_crop: Tensor) -> None:
    distances = [float((Pixelate(blocks=n)(face_crop) - face_crop).square().mean()) for n in (32, 16, 8, 4, 2, 1)]
    assert distances == sorted(distances)
    assert len(set(distances)) == len(distances)


@pytest.mark.parametrize("contrast", [0.0, 0.3, 1.0])
def test_contrast_is_what_is_left_of_the_difference_from_grey(face_crop: Tensor, contrast: float) -> None:
    expected = 0.5 + contrast * (Pixelate(blocks=4)(face_crop) - 0.5)
    torch.testing.assert_close(Pixelate(blocks=4, contrast=contrast)(face_crop), expected, rtol=0, atol=1e-6)


def test_the_noise_of_a_mosaic_is_one_shift_a_block() -> None:
    grey = torch.full((1, 3, 64, 64), 0.5)
    out = Pixelate(blocks=4, noise=0.05, key=KEY)(grey)
    means = out[0].unfold(1, 16, 16).unfold(2, 16, 16)
    assert (means.amax((-1, -2)) == means.amin((-1, -2))).all()
    assert len(out.unique()) == 3 * 16


def test_the_noise_of_a_mosaic_has_the_asked_deviation() -> None:
    out = Pixelate(blocks=64, noise=0.1, key=KEY)(torch.full((1, 3, 128, 128), 0.5))
    assert float(out.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(out.std()) == pytest.approx(0.1, abs=0.005)


# --- Gaussian blur -------------------------------------------------------------------------------------------------


def full_resolution_blur(picture: np.ndarray, sigma_px: tuple[float, float]) -> np.ndarray:
    """By scipy: what lies beyond the border weighs nothing."""
    weight = gaussian_filter(np.ones(picture.shape[-2:]), sigma_px, mode="constant", truncate=7)
    return np.stack([gaussian_filter(plane, sigma_px, mode="constant", truncate=7) / weight for plane in picture])


@pytest.mark.parametrize("sigma", [0.005, 0.02, 0.1, 0.3, 1.0, 2.0])
def test_a_blur_is_what_scipy_makes(face_crop: Tensor, sigma: float) -> None:
    expected = full_resolution_blur(face_crop[0].double().numpy(), (140 * sigma, 100 * sigma))
    np.testing.assert_allclose(GaussianBlur(sigma=sigma)(face_crop)[0].numpy(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("sigma", [0.01, 0.02, 0.05, 0.3])
def test_a_blur_of_a_large_crop_is_what_scipy_makes_to_two_grey_levels(astronaut: Tensor, sigma: float) -> None:
    picture = astronaut.float() / 255
    expected = full_resolution_blur(picture.double().numpy(), (512 * sigma, 512 * sigma))
    np.testing.assert_allclose(GaussianBlur(sigma=sigma)(picture).numpy(), expected, rtol=0, atol=2 / 255)


def test_the_middle_of_a_blur_is_what_opencv_makes(face_crop: Tensor) -> None:
    picture = resize(face_crop, 128, 128)
    expected = cv2.GaussianBlur(picture[0].permute(1, 2, 0).numpy(), (0, 0), 4.0, borderType=cv2.BORDER_REPLICATE)
    out = GaussianBlur(sigma=4 / 128)(picture)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(out[32:-32, 32:-32], expected[32:-32, 32:-32], rtol=0, atol=1 / 255)


def test_a_wider_sigma_is_farther_from_the_original(face_crop: Tensor) -> None:
    sigmas = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)
    distances = [float((GaussianBlur(sigma=s)(face_crop) - face_crop).square().mean()) for s in sigmas]
    assert distances == sorted(distances)
    assert len(set(distances)) == len(distances)


def test_sigma_is_relative_to_the_region_and_not_to_the_crop(face_crop: Tensor) -> None:
    crop = resize(face_crop, 128, 128)
    wide = GaussianBlur(sigma=0.2).change(crop, extent=2.0, seeds=[0])
    assert torch.equal(wide, GaussianBlur(sigma=0.1).change(crop, extent=1.0, seeds=[0]))


# --- fill ----------------------------------------------------------------------------------------------------------


def test_a_fill_is_its_colour_everywhere(face_crop: Tensor) -> None:
    out = Fill(color=(0.25, 0.5, 0.75))(face_crop)
    assert torch.equal(out, torch.tensor([0.25, 0.5, 0.75]).view(1, 3, 1, 1).expand_as(face_crop))


def test_a_mean_fill_is_the_mean_of_the_crop(face_crop: Tensor) -> None:
    expected = face_crop[0].double().numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(Fill(color="mean")(face_crop)[0, :, 3, 5].numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_fill_of_other_channels_is_the_mean_of_its_colour(channels: int) -> None:
    out = Fill(color=(0.0, 0.25, 0.5))(torch.rand(1, channels, 4, 4))
    assert (out == 0.25).all()


# --- noise ---------------------------------------------------------------------------------------------------------


def test_noise_has_no_mean_and_the_asked_deviation() -> None:
    out = Noise(std=0.1, cells=64, key=KEY)(torch.full((4, 3, 64, 64), 0.5)) - 0.5
    assert float(out.mean()) == pytest.approx(0, abs=0.002)
    assert float(out.std()) == pytest.approx(0.1, abs=0.002)


def test_noise_is_normal() -> None:
    out = (Noise(std=0.1, cells=64, key=KEY)(torch.full((4, 3, 64, 64), 0.5)) - 0.5) / 0.1
    for quantile, z in ((0.0228, -2.0), (0.1587, -1.0), (0.5, 0.0), (0.8413, 1.0), (0.9772, 2.0)):
        assert float(out.flatten().quantile(quantile)) == pytest.approx(z, abs=0.06)


def test_channels_and_cells_are_independent() -> None:
    out = Noise(std=0.1, cells=64, key=KEY)(torch.full((1, 3, 64, 64), 0.5))[0] - 0.5
    between_channels = np.corrcoef(out.flatten(1).numpy())
    between_neighbours = np.corrcoef(out[:, :, 1:].flatten(), out[:, :, :-1].flatten())[0, 1]
    assert np.abs(between_channels - np.eye(3)).max() < 0.06
    assert abs(between_neighbours) < 0.06


@pytest.mark.parametrize("cells", [1, 4, 16])
def test_noise_is_smooth_between_the_middles_of_its_cells(cells: int) -> None:
    out = Noise(std=0.1, cells=cells, key=KEY)(torch.full((1, 3, 9 * cells, 9 * cells), 0.5))
    drawn = out[..., 4::9, 4::9].permute(0, 2, 3, 1)[0].numpy()
    grown = cv2.resize(drawn, (9 * cells, 9 * cells), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(out[0].permute(1, 2, 0).numpy(), grown, rtol=0, atol=1e-5)


def test_more_noise_is_farther_from_the_original(face_crop: Tensor) -> None:
    distances = [float((Noise(std=s, key=KEY)(face_crop) - face_crop).abs().mean()) for s in (0.01, 0.1, 0.5, 1, 5)]
    assert distances == sorted(distances)
    assert len(set(distances)) == len(distances)


def test_noise_depends_on_the_content_and_not_on_the_place(face_crop: Tensor) -> None:
    technique = Noise(key=KEY)
    assert torch.equal(technique(face_crop.expand(3, -1, -1, -1)), technique(face_crop).expand(3, -1, -1, -1))
