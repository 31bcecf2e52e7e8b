"""Random values: how many, how they are spread, and when nothing of the region is left."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from anondata.components import build
from anondata.errors import PolicyError
from anondata.randomness import RunKey
from anondata.transforms import RandomReplace
from anondata.transforms.random_replace import lowest

KEY = RunKey(b"a secret of enough bytes")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        *[({"share": bad}, "share must be between 0.01 and 1, got") for bad in (0, -0.5, 1.01, math.nan, -math.inf)],
        *[({"share": bad}, "share must be a number, got") for bad in (True, "0.5", None)],
        *[({"blocks": bad}, "blocks must be a whole number between 1 and 128") for bad in (0, -1, 129, 2.0, True)],
        *[({"by": bad}, "by must be 'color' or 'noise', got") for bad in ("Color", None, 3)],
    ],
    ids=str,
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        build("technique", "random_replace", params)
    assert str(raised.value).startswith(f"technique 'random_replace': {message}")


@pytest.mark.parametrize("by", ["color", "noise"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.75, 1.0])
def test_exactly_the_share_of_blocks_is_replaced_and_the_rest_stays(share: float, by: str) -> None:
    crop = torch.full((1, 3, 64, 64), 2 / 3)
    out = RandomReplace(share=share, blocks=16, by=by, key=KEY)(crop)
    blocks = (out != crop).any(1)[0].unfold(0, 4, 4).unfold(1, 4, 4).flatten(2)
    assert torch.equal(blocks.any(-1), blocks.all(-1))
    assert int(blocks.any(-1).sum()) == max(1, round(share * 256))


def test_a_block_has_one_colour_and_noise_has_one_a_pixel() -> None:
    crop = torch.zeros(1, 1, 64, 64)
    assert len(RandomReplace(blocks=8, key=KEY)(crop).unique()) == 64
    assert len(RandomReplace(blocks=8, by="noise", key=KEY)(crop).unique()) > 4000


def test_values_are_uniform_and_channels_independent() -> None:
    out = RandomReplace(blocks=128, key=KEY)(torch.full((1, 3, 128, 128), 0.5))[0].flatten(1)
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert float(out.flatten().quantile(quantile)) == pytest.approx(quantile, abs=0.01)
    assert (torch.corrcoef(out) - torch.eye(3)).abs().max() < 0.03


def test_every_block_is_chosen_alike() -> None:
    technique = RandomReplace(share=0.5, blocks=4)
    out = technique.change(torch.full((2000, 1, 4, 4), 2 / 3), extent=1.0, seeds=range(2000))
    often = (out != 2 / 3).float().mean(0)
    assert (often - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("by", ["color", "noise"])
def test_a_result_that_claims_to_erase_does_not_depend_on_the_content(by: str) -> None:
    technique = RandomReplace(by=by)
    one, two = (technique.change(torch.rand(2, 3, 128, 128), extent=1.43, seeds=[4, 5]) for _ in range(2))
    assert technique.erases
    assert torch.equal(one, two)


@pytest.mark.parametrize("params", [{"share": 0.99}, {"coverage": 1.2}])
def test_what_leaves_something_does_not_claim_to_erase(params: dict[str, float]) -> None:
    assert not RandomReplace(**params).erases


def test_the_lowest_are_as_many_as_asked_even_where_all_are_equal() -> None:
    assert lowest(torch.zeros(3, 10), 4).sum(1).tolist() == [4, 4, 4]


@pytest.mark.parametrize("extent", [1.0, 1.43, 2.0])
def test_a_wider_crop_gets_no_more_blocks_a_region(extent: float) -> None:
    out = RandomReplace(blocks=4).change(torch.zeros(1, 1, 128, 128), extent=extent, seeds=[1])
    assert len(out.unique()) <= (4 * extent) ** 2
