"""The gate for places: whether a result can be matched with its original."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from anondata.components import build
from anondata.crops import resize
from anondata.detectors.frame import FrameDetector
from anondata.errors import PolicyError
from anondata.protocols import Probe
from anondata.transforms import Fill, Pixelate
from anondata.verifiers.gallery.place_search import agreement
from anondata.verifiers.gates._crops import crop_of
from anondata.verifiers.gates.place_match import LIMITS, PlaceMatch
from anondata.verifiers.local_features import features, like_neighbours, matches, under_one_homography


@pytest.fixture(autouse=True)
def weights(fetched: Callable[..., None]) -> None:
    fetched("xfeat")


def picture(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array)).permute(2, 0, 1).contiguous()


@pytest.fixture(scope="module")
def coffee() -> Tensor:
    return picture(skimage.data.coffee())


@pytest.fixture(scope="module")
def rocket() -> Tensor:
    return picture(skimage.data.rocket())


def probe(originals: Sequence[Tensor], results: Sequence[Tensor]) -> Probe:
    frames = FrameDetector().detect(originals)
    count = len(frames)
    none = torch.zeros(count, dtype=torch.bool)
    return Probe(frames, {}, {}, (Fill(),) * count, none, none, lambda *_: torch.zeros(0), originals, results)


def judged(original: Tensor, result: Tensor) -> tuple[float, bool]:
    verdicts = PlaceMatch().judge(probe([original], [result]))
    return float(verdicts.after), bool(verdicts.passed)


def test_a_picture_is_the_same_place_as_itself(coffee: Tensor) -> None:
    verdicts = PlaceMatch().judge(probe([coffee], [coffee]))
    assert not verdicts.passed
    assert float(verdicts.after) > 0.9 * float(verdicts.before) > 10


def test_another_place_is_not(coffee: Tensor, rocket: Tensor) -> None:
    assert judged(coffee, resize(rocket[None], 400, 600)[0])[1]


def test_the_same_place_is_found_darker_smaller_and_from_nearer(coffee: Tensor) -> None:
    changed = (resize(coffee[None, :, 40:360, 60:540], 300, 450)[0] * 0.7).to(torch.uint8)
    score, passed = judged(coffee, changed)
    assert not passed
    assert score > 3


def test_style_alone_is_found_out(coffee: Tensor, fetched: Callable[..., None]) -> None:
    fetched("style-26")
    styled = build("technique", "style_transfer", {"style": 5}).change_regions(
        coffee, torch.tensor([[0, 0, 600, 400]])
    )
    assert not judged(coffee, styled)[1]


def test_a_smooth_warp_is_found_out_where_no_homography_explains_it(coffee: Tensor) -> None:
    height, width = coffee.shape[-2:]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    bent = torch.stack([x + 0.2 * (3.1 * y).sin(), y + 0.2 * (2.7 * x).sin()], dim=-1)[None]
    warped = torch.nn.functional.grid_sample(coffee[None].float(), bent, align_corners=True)[0].to(torch.uint8)
    a, b = matches(features(coffee, side_px=640), features(warped, side_px=640))
    assert like_neighbours(a, b) > 2 * under_one_homography(a, b)
    assert not judged(coffee, warped)[1]


@pytest.mark.parametrize("technique", [Fill(coverage=1.5), Pixelate(6, 0.2)])
def test_what_leaves_nothing_passes(coffee: Tensor, technique: Fill | Pixelate) -> None:
    frame = FrameDetector().detect([coffee])
    assert judged(coffee, technique.change_regions(coffee, frame.boxes))[1]


def test_pictures_are_told_apart_in_one_batch(coffee: Tensor, rocket: Tensor) -> None:
    blank = torch.full_like(rocket, 90)
    assert PlaceMatch().judge(probe([coffee, rocket], [coffee, blank])).passed.tolist() == [False, True]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (5, 7)])
def test_pictures_of_any_size_are_judged(size: tuple[int, int]) -> None:
    tiny = torch.randint(0, 255, (3, *size), dtype=torch.uint8)
    assert PlaceMatch().judge(probe([tiny], [tiny])).after.isfinite().all()


def test_nothing_to_judge_gives_nothing() -> None:
    assert len(PlaceMatch().judge(probe([], [])).passed) == 0


def test_scores_are_the_same_every_time(coffee: Tensor, rocket: Tensor) -> None:
    assert judged(coffee, rocket) == judged(coffee, rocket)


def test_a_stricter_gate_finds_more(coffee: Tensor, rocket: Tensor) -> None:
    one, other = (features(view, side_px=320) for view in (coffee, rocket))
    scores = [agreement(one, other, LIMITS[far]) for far in sorted(LIMITS)]
    assert scores == sorted(scores)


@pytest.mark.parametrize("far", [0, 1, 0.3, True, "0.01", float("nan")])
def test_a_rate_that_was_not_calibrated_is_refused(far: object) -> None:
    with pytest.raises(PolicyError, match="far must be one of the rates that were calibrated"):
        PlaceMatch(far=far)  # type: ignore[arg-type]


# --- the arithmetic ----------------------------------------------------------------------------------------------


def scattered(count: int) -> Tensor:
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(2))


def test_ransac_counts_the_matches_of_a_homography_among_others() -> None:
    a = scattered(100)
    model = torch.tensor([[0.9, 0.1, 0.05], [-0.1, 1.1, 0.02], [0.1, 0.05, 1.0]])
    moved = torch.nn.functional.pad(a, (0, 1), value=1.0) @ model.T
    b = moved[:, :2] / moved[:, 2:]
    b[:70] = scattered(170)[100:]
    assert 30 <= under_one_homography(a, b) <= 33


def test_a_mirror_image_is_no_change_of_viewpoint() -> None:
    a = scattered(60)
    assert under_one_homography(a, a * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])) < 30


def test_neighbours_that_moved_alike_count_and_others_do_not() -> None:
    a = scattered(200)
    bent = a + 0.1 * torch.stack([(4 * a[:, 1]).sin(), (4 * a[:, 0]).cos()], dim=1) * 0.3
    assert like_neighbours(a, bent) > 190
    assert like_neighbours(a, scattered(400)[200:]) < 5


@pytest.mark.parametrize("count", [0, 1, 3, 4, 12])
def test_few_matches_agree_on_nothing_by_their_neighbours(count: int) -> None:
    a = scattered(count)
    assert like_neighbours(a, a) == 0
    assert under_one_homography(a, a) in (0, count)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((0, 0, 30, 20), (20, 30)),
        ((-5, -5, 4.2, 3.1), (4, 5)),
        ((28, 18, 99, 99), (2, 2)),
        ((7, 7, 7, 7), (1, 1)),
        ((50, 50, 60, 60), (1, 1)),
        ((-9, -9, -3, -3), (1, 1)),
    ],
)
def test_a_crop_is_the_visible_part_of_its_box(box: tuple[float, ...], expected: tuple[int, int]) -> None:
    assert tuple(crop_of(torch.zeros(3, 20, 30), box).shape[1:]) == expected
