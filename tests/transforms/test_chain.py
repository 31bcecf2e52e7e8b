"""Chains: what several techniques do one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from anondata.components import build
from anondata.errors import PolicyError
from anondata.randomness import RunKey
from anondata.transforms import Fill, GaussianBlur, Noise, Pixelate, RegionTransform
from anondata.transforms.chain import Chain


def crops(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 48, 48, generator=torch.Generator().manual_seed(3))


def test_each_step_changes_what_the_one_before_made() -> None:
    chain = Chain([{"gaussian_blur": {"sigma": 0.1}}, {"pixelate": {"blocks": 4}}])
    assert torch.equal(chain(crops()), Pixelate(4)(GaussianBlur(0.1)(crops())))


def test_the_order_of_steps_matters() -> None:
    one, other = Chain([{"fill": {"color": [0, 0, 0]}}, "noise"]), Chain(["noise", {"fill": {"color": [0, 0, 0]}}])
    assert not torch.equal(one(crops()), other(crops()))


def test_strength_is_relative_to_the_region_in_every_step() -> None:
    chain = Chain([{"pixelate": {"blocks": 4}}, {"pixelate": {"blocks": 4}}])
    expected = Pixelate(4).change(crops(), extent=2.0, seeds=[1, 2])
    torch.testing.assert_close(chain.change(crops(), extent=2.0, seeds=[1, 2]), expected)


def test_two_steps_alike_draw_different_numbers() -> None:
    chain = Chain([{"noise": {"std": 0.2}}] * 2)
    grey = torch.full((1, 1, 32, 32), 0.5)
    twice, once = (made.change(grey, extent=1.0, seeds=[5]) - 0.5 for made in (chain, Noise(0.2)))
    assert abs(float(torch.corrcoef(torch.stack([twice.flatten(), once.flatten()]))[0, 1])) < 0.9


def test_it_says_of_itself_what_its_steps_are() -> None:
    chain = Chain(["fill", {"noise": {"std": 0.3}}], coverage=1.0)
    assert chain.strength()["steps"] == [{"fill": {"color": [0.5, 0.5, 0.5]}}, {"noise": Noise(0.3).strength()}]
    again = build("technique", "chain", chain.config())
    key = RunKey(b"a secret of enough bytes")
    assert torch.equal(again.with_key(key)(crops()), chain.with_key(key)(crops()))


@pytest.mark.parametrize(("coverage", "erased"), [(1.5, True), (1.0, False)])
def test_it_erases_where_a_step_of_its_coverage_does(coverage: float, erased: bool) -> None:
    assert Chain(["noise", "fill"], coverage=coverage).erases == erased
    assert Fill(coverage=coverage).erases == erased


def test_the_region_is_changed_at_the_most_pixels_that_a_step_asks_for() -> None:
    assert Chain(["noise", {"warp": {"crop_px": 300}}]).crop_px == 300


def test_it_draws_if_a_step_draws_and_names_the_networks_of_its_steps() -> None:
    assert not Chain(["fill", "pixelate"]).draws
    assert Chain(["fill", "noise"]).draws
    assert Chain(["style_transfer", {"style_transfer": {"style": 3}}]).networks == ("style-26",)


class Marks(RegionTransform):
    """Puts a dot where it was told that the left eye is."""

    name = "marks"
    aligns = True

    def strength(self) -> dict[str, Any]:
        return {}

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        return crops

    def change_aligned(self, crops: Tensor, *, extent: float, seeds: Sequence[int], landmarks: Tensor) -> Tensor:
        out = crops.clone()
        for row, (x, y) in zip(out, landmarks[:, 0].tolist(), strict=True):
            row[:, int(y * row.shape[1]), int(x * row.shape[2])] = 1
        return out


def test_steps_that_align_are_told_landmarks() -> None:
    chain = _with(Chain(["fill"]), Marks())
    landmarks = torch.full((1, 5, 2), 0.5)
    out = chain.change_aligned(crops(1), extent=1.0, seeds=[0], landmarks=landmarks)
    assert (out == 1).nonzero()[:, 1:].tolist() == [[c, 24, 24] for c in range(3)]


def _with(chain: Chain, technique: RegionTransform) -> Chain:
    """The chain with one more step, which has no name in the table."""
    chain._steps = (*chain._steps, (technique.name, technique))
    return chain


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "steps must be a list of at least one technique"),
        ("noise", "steps must be a list of at least one technique, got 'noise'"),
        ([3], "a step is written 'name' or"),
        ([{"noise": {}, "fill": {}}], "a step is written 'name' or"),
        ([{"noise": 0.3}], "the parameters of step 'noise' must be a mapping, got float"),
        ([{"noise": {"coverage": 1.5}}], "coverage of step 'noise' is the chain's own; give it beside steps"),
        (["nois"], "unknown technique 'nois'; did you mean 'noise'?"),
        ([{"noise": {"sdt": 1}}], "did you mean 'std'?"),
        ([{"noise": {"std": -1}}], "technique 'noise': std must be between"),
    ],
)
def test_steps_that_are_none_are_refused(steps: Any, message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        build("technique", "chain", {"steps": steps})
    assert message in str(raised.value)
