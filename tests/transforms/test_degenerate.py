"""What every technique promises of boxes that are hardly any, of very many, and of every kind of float."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from anondata.transforms import RegionTransform

DEGENERATE: dict[str, list[float]] = {
    "a point": [150.5, 130.5, 150.5, 130.5],
    "a point on a pixel's corner": [150, 130, 150, 130],
    "a line": [100, 130, 200, 130],
    "a line at the border": [0, 0, 0, 240],
    "the picture's corner": [320, 240, 320, 240],
    "partly out": [-30, -40, 25, 20],
    "larger than the picture": [-500, -600, 900, 800],
    "as large as numbers go": [-1e30, -1e30, 1e30, 1e30],
}
OUTSIDE: dict[str, list[float]] = {
    "to the left": [-200, 20, -120, 90],
    "below": [50, 500, 120, 600],
    "far away": [1e9, 1e9, 2e9, 2e9],
    "a point far away": [-1e9, 50, -1e9, 50],
}


@pytest.fixture(scope="module")
def picture(astronaut: Tensor) -> Tensor:
    """``(3, 240, 320)`` uint8 of fine detail everywhere."""
    noise = torch.randint(0, 256, (3, 240, 320), generator=torch.Generator().manual_seed(2))
    return (astronaut[:, 100:340, 50:370].int() * 2 + noise).div(3, rounding_mode="floor").byte()


def test_what_a_degenerate_box_touches_is_covered(technique: RegionTransform, picture: Tensor) -> None:
    for what, box in DEGENERATE.items():
        x0, y0, x1, y1 = box
        out = technique.change_regions(picture, torch.tensor([box]))
        assert out.shape == picture.shape, what
        if max(x1 - x0, y1 - y0) > 40:  # pixels that stay the same by chance are few among many
            left, right, top, bottom = (int(max(0, min(1000, v))) for v in (x0, max(x1, x0 + 1), y0, max(y1, y0 + 1)))
            assert (out != picture).any(0)[top:bottom, left:right].float().mean() > 0.8, what


@pytest.mark.parametrize("case", ["noise", "mask"])
@pytest.mark.parametrize("what", OUTSIDE)
def test_a_box_out_of_the_frame_changes_nothing(technique: RegionTransform, picture: Tensor, what: str) -> None:
    assert torch.equal(technique.change_regions(picture, torch.tensor([OUTSIDE[what]])), picture)


def test_thousands_of_regions_are_each_what_they_are_alone(technique: RegionTransform, dear: frozenset[str]) -> None:
    """On a grid, apart from each other: a batch of two thousand small crops, and some of them for themselves."""
    technique.crop_px = 16  # the memory of two thousand large ones is another matter
    picture = torch.randint(0, 256, (3, 500, 400), generator=torch.Generator().manual_seed(4)).byte()
    y, x = torch.meshgrid(torch.arange(50.0) * 10, torch.arange(40.0) * 10, indexing="ij")
    corner = torch.stack([x.flatten(), y.flatten()], dim=1) + 4
    corner = corner[:: 100 if technique.name in dear else 1]
    boxes = torch.cat([corner, corner + 2], dim=1)
    out = technique.change_regions(picture, boxes)
    assert (out != picture).any(0).float().mean() > 0.03 * len(corner) / 2000
    for row in (0, len(corner) * 3 // 8, len(corner) - 1):
        alone = technique.change_regions(picture, boxes[row : row + 1])
        left, top = (int(v) for v in corner[row] - 1)
        assert torch.equal(out[:, top : top + 4, left : left + 4], alone[:, top : top + 4, left : left + 4])


def test_overlapping_and_repeated_boxes_are_covered(technique: RegionTransform, picture: Tensor) -> None:
    boxes = torch.tensor([[60.0, 60, 140, 140], [60.0, 60, 140, 140], [100, 100, 180, 180], [80, 80, 90, 90]])
    changed = (technique.change_regions(picture, boxes) != picture).any(0)
    assert changed[60:140, 60:140].float().mean() > 0.9
    assert changed[100:180, 100:180].float().mean() > 0.9


def test_float_pictures_become_what_bytes_become(
    case: str, make: Any, astronaut: Tensor, face_box: Tensor, dear: frozenset[str]
) -> None:
    """To the precision of the dtype; the technique is told the same seeds, as the bytes of its crops differ."""
    technique = make(case)
    technique._own_seeds = lambda crops: list(range(len(crops)))
    pairs = [(torch.float16, 3), (torch.bfloat16, 1), (torch.float32, 4), (torch.float64, 3)]
    for dtype, channels in pairs[:2] if case in dear else pairs:
        planes = astronaut[:1].expand(4, -1, -1)[:channels] if channels != 3 else astronaut
        expected = technique.change_regions(planes.contiguous(), face_box).double() / 255
        out = technique.change_regions((planes.double() / 255).to(dtype), face_box)
        assert out.dtype == dtype
        assert (out.double() - expected).abs().mean() < 0.005 + torch.finfo(dtype).eps
