"""Upper bounds of what techniques leak: their formulas, and that nothing measured is above them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anondata.leakage import NO_BOUND, NOTHING, Leakage, least
from anondata.transforms import Fill, GaussianBlur, Noise, Pixelate, RegionTransform
from anondata.transforms.chain import Chain
from anondata.transforms.mask import Mask
from anondata.transforms.random_replace import RandomReplace


def phi(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


def test_of_two_candidates_at_the_ends_of_the_range_the_bound_is_what_the_best_attacker_reaches() -> None:
    one = Leakage(numbers=1, snr=0.3**2)
    for releases in (1, 4):
        assert one.rank1(candidates=2, releases=releases) == pytest.approx(phi(0.3 * math.sqrt(releases)))


@pytest.mark.parametrize("releases", [1, 10])
@pytest.mark.parametrize("level", [0.02, 0.1, 0.4])
def test_the_likeliest_candidate_is_right_no_more_often_than_the_bound(level: float, releases: int) -> None:
    """The likeliest of 30 is the nearest, for normal noise: no attacker does better."""
    random = np.random.default_rng(0)
    signals = random.choice([-level, level], size=(30, 12))
    truth = random.integers(0, 30, 4000)
    seen = signals[truth] + random.normal(size=(4000, 12)) / math.sqrt(releases)
    named = ((seen[:, None] - signals) ** 2).sum(2).argmin(1)
    bound = Leakage(numbers=12, snr=level**2).rank1(candidates=30, releases=releases)
    assert (named == truth).mean() <= bound + 2 * math.sqrt(bound * (1 - bound) / 4000)


def test_bits_are_the_capacity_and_the_noise_of_several_releases_averages_out() -> None:
    one = Leakage(numbers=192, snr=0.25)
    assert one.bits() == pytest.approx(192 / 2 * math.log2(1.25))
    assert one.bits(releases=12) == pytest.approx(192 / 2 * math.log2(1 + 12 * 0.25))
    assert one.mu() == pytest.approx(math.sqrt(192) / 2)
    assert one.mu(releases=4) == pytest.approx(math.sqrt(192))


def test_few_strong_numbers_are_bounded_by_their_bits() -> None:
    """Three numbers of 3 bits cannot tell a million candidates apart, however far these are from each other."""
    one = Leakage(numbers=3, snr=63.0)
    assert one.rank1(candidates=10**6) == pytest.approx((9 + 1) / math.log2(10**6))


def test_nothing_leaves_chance_and_no_bound_bounds_nothing() -> None:
    for none in (NOTHING, Leakage(numbers=192, snr=0.0)):
        assert (none.nothing, none.bounded, none.safe) == (True, True, True)
        assert (none.mu(releases=50), none.bits(releases=50)) == (0, 0)
        assert none.rank1(candidates=100, releases=50) == pytest.approx(0.01)
    assert (NO_BOUND.nothing, NO_BOUND.bounded, NO_BOUND.safe) == (False, False, False)
    assert (NO_BOUND.mu(), NO_BOUND.bits(), NO_BOUND.rank1(candidates=100)) == (math.inf, math.inf, 1)


@pytest.mark.parametrize("groups", [1, 2, 6, 40])
def test_who_knows_the_group_of_each_candidate_is_right_as_often_as_the_bound_says(groups: int) -> None:
    """20 candidates in groups that are equally large: one of each is named, and 100 % right where all are alone."""
    group = np.arange(20) % groups
    named = np.array([np.flatnonzero(group == mine)[0] for mine in group])
    one = Leakage(numbers=0, snr=0.0, groups=groups)
    assert one.rank1(candidates=20) == pytest.approx((named == np.arange(20)).mean())
    assert one.bits(releases=50) == pytest.approx(math.log2(groups))
    assert one.nothing == one.safe == (groups == 1)


@pytest.mark.parametrize(("groups", "releases"), [(2, 1), (5, 1), (2, 3)])
def test_the_likeliest_candidate_of_a_group_is_right_no_more_often_than_the_bound(groups: int, releases: int) -> None:
    """Each release is of another photo, in which somebody may be in another group."""
    random = np.random.default_rng(1)
    of = random.integers(0, groups, (30, releases))
    signals = random.choice([-0.3, 0.3], size=(30, 12 * releases))
    truth = random.integers(0, 30, 4000)
    seen = signals[truth] + random.normal(size=(4000, 12 * releases))
    far = ((seen[:, None] - signals) ** 2).sum(2) + 1e9 * (of[truth][:, None] != of).any(2)
    right = (far.argmin(1) == truth).mean()
    bound = Leakage(numbers=12, snr=0.3**2, groups=groups).rank1(candidates=30, releases=releases)
    assert right <= bound + 2 * math.sqrt(bound * (1 - bound) / 4000)


def test_safe_is_three_points_above_chance_of_100_from_50_releases() -> None:
    """Phi(Phi^-1(.01) + mu) is .04 at mu 0.5757."""
    power = 0.5757**2 / 50
    assert Leakage(numbers=1, snr=power * 0.999).safe
    assert not Leakage(numbers=1, snr=power * 1.001).safe


@pytest.mark.parametrize(
    "make",
    [
        lambda: Leakage(numbers=-1, snr=0.0),
        lambda: Leakage(numbers=True, snr=0.0),
        lambda: Leakage(numbers=1, snr=math.nan),
        lambda: Leakage(numbers=1, snr=-1.0),
        lambda: Leakage(numbers=0, snr=0.0, groups=0),
        lambda: NOTHING.rank1(candidates=0),
        lambda: NOTHING.mu(releases=0),
        lambda: NOTHING.bits(releases=True),
    ],
)
def test_what_cannot_be_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="must be a"):
        make()


# --- techniques ----------------------------------------------------------------------------------------------------


def test_a_mosaic_has_a_channel_for_each_block_and_color_that_a_crop_gets() -> None:
    mosaic = Pixelate(8, 0.13, 0.2, coverage=1.5)
    out = mosaic.change(torch.rand(1, 3, 128, 128), extent=mosaic.extent, seeds=[1])
    assert len(set(out.flatten().tolist())) == 3 * 13**2
    assert mosaic.leakage() == Leakage(3 * 13**2, (0.1 / 0.13) ** 2)


def test_the_signal_of_a_mosaic_is_within_half_the_contrast_of_grey_whatever_comes_in() -> None:
    black, white = (torch.full((1, 3, 64, 64), value) for value in (-5.0, 7.0))
    low, high = (Pixelate(4, 0.01, 0.2).change(crop, extent=1.0, seeds=[3]) for crop in (black, white))
    torch.testing.assert_close(high - low, torch.full_like(low, 0.2))


def test_the_bound_of_a_mosaic_falls_with_noise_and_grows_with_contrast_blocks_coverage_and_releases() -> None:
    def rank1(noise: float = 2.0, contrast: float = 0.02, releases: int = 1, **more: Any) -> float:
        return Pixelate(**{"blocks": 4, **more}, noise=noise, contrast=contrast).leakage().rank1(releases=releases)

    assert rank1(noise=3.0) < rank1() < rank1(contrast=0.03)
    assert rank1() < min(rank1(blocks=5), rank1(coverage=1.8), rank1(releases=2))


def test_a_mosaic_without_contrast_leaves_nothing_and_one_without_noise_has_no_bound() -> None:
    for noise in (0.0, 0.13):
        mosaic = Pixelate(8, noise, 0.0)
        one, two = (mosaic.change(torch.rand(1, 3, 64, 64), extent=1.43, seeds=[4]) for _ in range(2))
        assert torch.equal(one, two)
        assert (mosaic.leakage(), mosaic.erases) == (NOTHING, True)
        assert not Pixelate(8, noise, 0.0, coverage=1.2).erases
    assert Pixelate(8, 0.0, 0.2).leakage() == Pixelate(8, 1e-300, 0.2).leakage() == NO_BOUND
    assert not Pixelate(8, 5.0, 0.001).erases


def test_the_earlier_default_was_not_bounded_to_anything_safe() -> None:
    earlier = Pixelate(8, 0.13, 0.2, coverage=1.5, shape="ellipse").leakage()
    assert earlier.rank1(candidates=51) > 0.99
    assert not earlier.safe


def test_only_what_takes_nothing_of_the_region_leaves_nothing() -> None:
    assert [t.leakage() for t in (Fill(), Mask("solid"), RandomReplace())] == [NOTHING] * 3
    others = (Fill("mean"), Mask("mean"), Mask("inpaint"), RandomReplace(0.5), GaussianBlur(), Noise())
    assert [t.leakage() for t in others] == [NO_BOUND] * len(others)


def test_a_chain_leaves_no_more_than_its_best_step_wherever_that_is() -> None:
    weak, strong = {"pixelate": {"blocks": 8, "noise": 0.3}}, {"pixelate": {"blocks": 4, "noise": 1.0}}
    best = Pixelate(4, 1.0).leakage()
    assert Chain([weak, strong, "gaussian_blur"]).leakage() == Chain([strong, weak]).leakage() == best
    assert Chain(["noise", "gaussian_blur"]).leakage() == least(NO_BOUND, NO_BOUND) == NO_BOUND
    assert Chain(["gaussian_blur", "fill"], coverage=1.5).erases


def test_a_chain_that_is_told_landmarks_has_no_bound() -> None:
    """They are of the original, and go around the step that leaves nothing."""
    assert Chain(["fill", "text_swap"]).leakage() == NO_BOUND


class Own(RegionTransform):
    name = "own"

    def strength(self) -> dict[str, Any]:
        return {}

    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        return crops


class Shades(Fill):
    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        return crops * 0.5


class Named(Fill):
    name = "named"


def test_a_technique_of_ones_own_has_no_bound_until_it_says_so() -> None:
    assert (Own().leakage(), Own().erases) == (NO_BOUND, False)
    assert (Shades().leakage(), Shades().erases) == (NO_BOUND, False)
    assert (Named().leakage(), Named().erases) == (NOTHING, True)


def test_that_it_erases_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match=r"declares erases; it follows from leakage\(\)"):
        type("Claims", (Own,), {"erases": True})
    with pytest.raises(AttributeError):
        Own().erases = True  # type: ignore[misc]  # what is tested
