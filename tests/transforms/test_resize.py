"""Fewer pixels: against PIL, and never more than asked."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from anondata.components import build
from anondata.crops import resize
from anondata.errors import PolicyError
from anondata.transforms import Resize
from anondata.transforms.resize import KERNELS


@pytest.mark.parametrize(
    ("params", "message"),
    [
        *[({"pixels": bad}, "pixels must be a whole number between 1 and 64, got") for bad in (0, -3, 65, 2.5)],
        *[({"pixels": bad}, "pixels must be a whole number") for bad in (True, "5", None, math.nan)],
        *[
            ({"kernel": bad}, "kernel must be 'bicubic', 'bilinear' or 'nearest', got")
            for bad in ("lanczos", "", None, 1, ["nearest"])
        ],
    ],
    ids=str,
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        build("technique", "resize", params)
    assert str(raised.value).startswith(f"technique 'resize': {message}")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pixels", [1, 5, 16, 32])
def test_it_is_what_pil_makes(face_crop: Tensor, kernel: str, pixels: int) -> None:
    picture = resize(face_crop, 128, 128)
    how = Image.Resampling[kernel.upper()]
    planes = [Image.fromarray(plane) for plane in picture[0].numpy()]
    expected = np.stack([p.resize((pixels, pixels), how).resize((128, 128), how) for p in planes])
    out = Resize(pixels=pixels, kernel=kernel)(picture)[0].numpy()
    np.testing.assert_allclose(out, expected.clip(0, 1), rtol=0, atol=2e-3)


@pytest.mark.parametrize("extent", [1.0, 1.43, 2.0])
@pytest.mark.parametrize("pixels", [1, 3, 8])
def test_a_wider_crop_gets_no_more_pixels_a_region(pixels: int, extent: float) -> None:
    out = Resize(pixels=pixels, kernel="nearest").change(torch.rand(1, 1, 128, 128), extent=extent, seeds=[0])
    assert len(out.unique()) <= max(1, (pixels * extent) ** 2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_fewer_pixels_are_farther_from_the_original(face_crop: Tensor, kernel: str) -> None:
    distances = [
        float((Resize(pixels=n, kernel=kernel)(face_crop) - face_crop).square().mean()) for n in (48, 24, 12, 6, 3)
    ]
    assert distances == sorted(distances)
    assert len(set(distances)) == len(distances)
