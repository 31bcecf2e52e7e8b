"""Shuffled patches: what moves, what stays, and that nothing is lost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anondata.components import build
from anondata.errors import PolicyError
from anondata.randomness import RunKey
from anondata.transforms import Shuffle
from anondata.transforms.shuffle import deal, shuffle

KEY = RunKey(b"a secret of enough bytes")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        *[({"blocks": bad}, "blocks must be a whole number between 2 and 64, got") for bad in (1, 0, -3, 65, 2.0)],
        *[({"blocks": bad}, "blocks must be a whole number") for bad in (True, "8", None, math.nan)],
        *[({"keep": bad}, "keep must be between 0 and 0.9, got") for bad in (-0.1, 1.0, math.nan, math.inf)],
        *[({"keep": bad}, "keep must be a number, got") for bad in (True, "0.5", None)],
    ],
    ids=str,
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        build("technique", "shuffle", params)
    assert str(raised.value).startswith(f"technique 'shuffle': {message}")


@pytest.mark.parametrize("blocks", [2, 4, 8, 16])
def test_blocks_that_fit_are_the_same_blocks_in_another_order(face_crop: Tensor, blocks: int) -> None:
    crop = face_crop[..., :96, :96]
    side = 96 // blocks

    def cut(picture: Tensor) -> list[bytes]:
        tiles = picture[0].unfold(1, side, side).unfold(2, side, side).permute(1, 2, 0, 3, 4)
        return [tile.contiguous().numpy().tobytes() for tile in tiles.flatten(0, 1)]

    before, after = cut(crop), cut(Shuffle(blocks=blocks, key=KEY)(crop))
    assert sorted(before) == sorted(after)
    assert not any(a == b for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(9, 7, 2, 3), (10, 10, 3, 4), (5, 8, 5, 1)])
def test_uneven_blocks_are_what_a_naive_loop_makes(height: int, width: int, rows: int, columns: int) -> None:
    picture = torch.rand(1, 2, height, width)
    order = deal([5], rows * columns, keep=0.0).view(1, rows, columns)
    out = shuffle(picture, order)[0]

    def span(block: int, side: int, blocks: int) -> list[int]:
        return [pixel for pixel in range(side) if pixel * blocks // side == block]

    for i in range(rows):
        for j in range(columns):
            a, b = divmod(int(order[0, i, j]), columns)
            to_y, from_y = span(i, height, rows), span(a, height, rows)
            to_x, from_x = span(j, width, columns), span(b, width, columns)
            for k, y in enumerate(to_y):
                for m, x in enumerate(to_x):
                    source_y = from_y[int((k + 0.5) / len(to_y) * len(from_y))]
                    source_x = from_x[int((m + 0.5) / len(to_x) * len(from_x))]
                    assert torch.equal(out[:, y, x], picture[0, :, source_y, source_x])


@pytest.mark.parametrize("keep", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("count", [4, 9, 64, 400])
def test_the_share_to_keep_stays_and_no_other_does(count: int, keep: float) -> None:
    for row in deal(range(20), count, keep=keep).numpy():
        assert sorted(row) == list(range(count))
        assert (row == np.arange(count)).sum() == min(round(keep * count), count - 2)


def test_every_order_of_three_in_a_cycle_is_drawn() -> None:
    drawn = {tuple(row) for row in deal(range(60), 3, keep=0.0).tolist()}
    assert drawn == {(1, 2, 0), (2, 0, 1)}


@pytest.mark.parametrize("extent", [1.0, 1.43, 2.0])
def test_a_wider_crop_gets_no_more_blocks_a_region(extent: float) -> None:
    ramp = torch.arange(128.0).div(128).view(1, 1, 1, 128).expand(1, 1, 128, 128)
    out = Shuffle(blocks=4, key=KEY).change(ramp, extent=extent, seeds=[3])
    jumps = ((out[0, 0, :, 1:] - out[0, 0, :, :-1]).abs() > 0.02).any(0).sum()
    assert jumps <= 4 * extent


def test_gradients_reach_every_pixel_once() -> None:
    crop = torch.rand(1, 3, 64, 64, requires_grad=True)
    Shuffle(blocks=8)(crop).sum().backward()
    assert crop.grad is not None
    assert (crop.grad == 1).all()
