"""Cut, cover and paste, against naive loops and over all the boxes that a detector could come up with."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from anondata.crops import FLOATS, bounded, cover_weight, cut, mark, outer_rects, paste, resize
from anondata.errors import ShapeError
from anondata.transforms import Fill, Pixelate

COLOR = (0.25, 0.5, 0.75)
SHAPES = ("rectangle", "ellipse", "rounded")
DTYPES = (torch.uint8, *FLOATS)
ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-6, torch.float16: 1e-3, torch.bfloat16: 4e-3}  # of resampling

side = st.integers(1, 40)
where = st.floats(-60, 60, width=32) | st.integers(-60, 60).map(float)
length = st.floats(0, 50, width=32) | st.just(0.0)
box = st.tuples(where, where, length, length).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])
coverages = st.floats(0.5, 4.0)
feathers = st.floats(0.0, 1.0) | st.just(0.0)
few = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def rect_of(box: list[float], extent: float, height: int, width: int) -> list[int]:
    found: list[int] = outer_rects(
        torch.tensor([box], dtype=torch.float64), extent, torch.tensor([height, width])
    ).tolist()[0]
    return found


def covers(box: list[float], coverage: float, shape: str, x: int, y: int, *, margin: float) -> bool:
    """Whether the covered area reaches into pixel (x, y) by more than a margin, from the definition."""
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_w, half_h = (box[2] - box[0]) / 2 * coverage, (box[3] - box[1]) / 2 * coverage
    dx = max(max(abs(x + 0.5 - cx) - 0.5, 0.0) + margin, 0.0)
    dy = max(max(abs(y + 0.5 - cy) - 0.5, 0.0) + margin, 0.0)
    if shape == "rectangle":
        return dx <= half_w and dy <= half_h
    if half_w <= 0 or half_h <= 0:
        return False
    power = 2 if shape == "ellipse" else 4
    return (dx / half_w) ** power + (dy / half_h) ** power <= 1


# --- rectangles ----------------------------------------------------------------------------------------------------


@given(box, st.floats(0.5, 8.0), side, side)
@few
def test_a_rectangle_holds_every_visible_pixel_of_the_scaled_box(
    box: list[float], extent: float, h: int, w: int
) -> None:
    x0, y0, x1, y1 = rect_of(box, extent, h, w)
    for y in range(h):
        for x in range(w):
            if covers(box, extent, "rectangle", x, y, margin=1e-6):
                assert x0 <= x < x1
                assert y0 <= y < y1


@given(box, st.floats(0.5, 8.0), side, side)
@few
def test_a_rectangle_has_pixels_and_reaches_out_by_no_more_than_the_picture(
    box: list[float], extent: float, h: int, w: int
) -> None:
    x0, y0, x1, y1 = rect_of(box, extent, h, w)
    assert x0 < x1
    assert y0 < y1
    assert -w <= x0
    assert x1 <= 2 * w
    assert -h <= y0
    assert y1 <= 2 * h


@given(box, st.floats(0.5, 2.0))
@few
def test_a_rectangle_is_not_larger_than_rounding_outwards(box: list[float], extent: float) -> None:
    x0, y0, x1, y1 = rect_of(box, extent, 1000, 1000)
    assert x1 - x0 <= (box[2] - box[0]) * extent + 2 + 1e-6
    assert y1 - y0 <= (box[3] - box[1]) * extent + 2 + 1e-6


@pytest.mark.parametrize("far", [1e9, 1e30, 3e38])
@pytest.mark.parametrize("corner", ["all around", "left", "right", "above", "below"])
def test_an_absurd_box_makes_no_absurd_rectangle(far: float, corner: str) -> None:
    absurd = {
        "all around": [-far, -far, far, far],
        "left": [-far, 5, -far / 2, 9],
        "right": [far / 2, 5, far, 9],
        "above": [5, -far, 9, -far / 2],
        "below": [5, far / 2, 9, far],
    }
    x0, y0, x1, y1 = rect_of(absurd[corner], 1.43, 30, 40)
    assert 0 < x1 - x0 <= 120
    assert 0 < y1 - y0 <= 90


def test_each_box_may_lie_in_a_picture_of_its_own_size() -> None:
    boxes = torch.tensor([[-1e6, -1e6, 1e6, 1e6]] * 2)
    rects = outer_rects(boxes, 1.0, torch.tensor([[10, 20], [100, 200]]))
    assert rects.tolist() == [[-20, -10, 40, 20], [-200, -100, 400, 200]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float16, torch.float64], ids=str)
def test_boxes_of_any_number_type_are_taken(dtype: torch.dtype) -> None:
    rects = outer_rects(torch.tensor([[2, 3, 12, 23]]).to(dtype), 2.0, torch.tensor([100, 100]))
    assert rects.tolist() == [[-3, -7, 17, 33]]
    assert rects.dtype == torch.int64


def test_no_boxes_make_no_rectangles() -> None:
    assert outer_rects(torch.zeros(0, 4), 1.3, torch.tensor([5, 5])).shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, math.nan, 1]], "boxes must be finite"),
        ([[-math.inf, 0, 1, 1]], "boxes must be finite"),
        ([[0, 0, 1, 1], [5, 0, 4, 1]], "x0 <= x1 and y0 <= y1"),
        ([[0, 5, 1, 4]], "x0 <= x1 and y0 <= y1"),
        ([0, 0, 1, 1], r"expected boxes \(R, 4\) as x0, y0, x1, y1, got \(4,\)"),
        ([[0, 0, 1, 1, 1]], r"expected boxes \(R, 4\) as x0, y0, x1, y1, got \(1, 5\)"),
    ],
)
def test_boxes_that_mean_nothing_are_refused(boxes: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        outer_rects(torch.tensor(boxes, dtype=torch.float32), 1.3, torch.tensor([10, 10]))


# --- cutting -------------------------------------------------------------------------------------------------------


@given(box, side, side, st.sampled_from(DTYPES))
@few
def test_a_crop_of_its_own_size_repeats_the_border_as_a_naive_loop_does(
    box: list[float], h: int, w: int, dtype: torch.dtype
) -> None:
    x0, y0, x1, y1 = rect_of(box, 1.0, h, w)
    size = max(x1 - x0, y1 - y0)
    rect = [x0, y0, x0 + size, y0 + size]
    picture = torch.arange(2 * h * w).remainder(251).view(2, h, w).to(torch.uint8)
    picture = picture if dtype == torch.uint8 else (picture.float() / 255).to(dtype)
    crop = cut(picture, torch.tensor([rect]), size)[0]
    scale = 255 if dtype == torch.uint8 else 1
    for y in range(size):
        for x in range(size):
            expected = picture[:, min(max(rect[1] + y, 0), h - 1), min(max(rect[0] + x, 0), w - 1)]
            torch.testing.assert_close(crop[:, y, x], expected.to(crop.dtype) / scale, rtol=0, atol=1e-7)


@pytest.mark.parametrize("crop_px", [7, 16, 64, 200])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_crop_is_resampled_as_pillow_does(crop_px: int, dtype: torch.dtype) -> None:
    from PIL import Image

    picture = torch.rand(1, 60, 70, generator=torch.Generator().manual_seed(1))
    picture = (picture * 255).round().to(torch.uint8) if dtype == torch.uint8 else picture.to(dtype)
    plain = picture[0, 5:50, 10:60].float() / (255 if dtype == torch.uint8 else 1)
    expected = np.asarray(Image.fromarray(plain.numpy()).resize((crop_px, crop_px), Image.Resampling.BILINEAR))
    crop = cut(picture, torch.tensor([[10, 5, 60, 50]]), crop_px)
    tolerance = {torch.uint8: 1.5 / 255, torch.bfloat16: 4e-3, torch.float16: 1e-3}.get(dtype, 1e-5)
    np.testing.assert_allclose(crop[0, 0].float().numpy(), expected, rtol=0, atol=tolerance)
    assert crop.dtype == (torch.float32 if dtype == torch.uint8 else dtype)


def test_cutting_nothing_gives_an_empty_batch() -> None:
    assert cut(torch.zeros(3, 5, 5, dtype=torch.uint8), torch.zeros(0, 4, dtype=torch.int64), 8).shape == (0, 3, 8, 8)
    assert (
        cut(torch.zeros(3, 5, 5, dtype=torch.uint8), torch.zeros(0, 4, dtype=torch.int64), 8).dtype == torch.float32
    )


def test_a_nan_does_not_spread_over_a_crop() -> None:
    picture = torch.full((1, 20, 20), 0.5)
    picture[0, 4, 4] = float("nan")
    crop = cut(picture, torch.tensor([[0, 0, 20, 20]]), 10)
    assert crop.isfinite().all()
    assert crop.min() > 0.3  # 0 where NaN itself was resampled
    assert (crop == 0.5).sum() >= 90


def test_bounded_keeps_a_picture_in_0_1() -> None:
    given_values = torch.tensor([math.nan, math.inf, -math.inf, -0.1, 0.3, 255.0])
    assert bounded(given_values).tolist() == pytest.approx([0, 1, 0, 0, 0.3, 1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_resizing_keeps_the_dtype(dtype: torch.dtype) -> None:
    assert resize(torch.ones(2, 3, 9, 5).to(dtype), 4, 20).dtype == dtype
    assert resize(torch.zeros(2, 3, 9, 5).to(dtype), 9, 5).shape == (2, 3, 9, 5)


@pytest.mark.parametrize("to", [(1, 1), (7, 1), (1, 7), (2, 2), (7, 3), (128, 31)], ids=str)
@pytest.mark.parametrize("size", [(1, 1), (5, 1), (1, 5), (16, 40), (3, 2)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_bytes_are_resized_as_floats_are(
    channels: int, size: tuple[int, int], to: tuple[int, int], transposed: bool
) -> None:
    """torch 2.15's own kernel for uint8 is wrong by up to 200 levels where a side is one pixel."""
    images = torch.randint(0, 256, (1, channels, *size), generator=torch.Generator().manual_seed(2))
    images = images.to(torch.uint8)
    images = images.transpose(2, 3).contiguous().transpose(2, 3) if transposed else images
    expected = resize(images.float(), *to)
    torch.testing.assert_close(resize(images, *to).float(), expected, rtol=0, atol=1.5)


def test_growing_is_what_opencv_does() -> None:
    image = torch.rand(1, 1, 8, 8)
    expected = cv2.resize(image[0, 0].numpy(), (50, 31), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resize(image, 31, 50)[0, 0].numpy(), expected, rtol=0, atol=1e-5)


# --- covering ------------------------------------------------------------------------------------------------------


@given(box, coverages, feathers, st.sampled_from(SHAPES), side, side)
@example([0.0, 0, 0, 0], 0.5, 0.0, "ellipse", 1, 1)
@example([3.5, 3.5, 3.5, 3.5], 1.3, 0.1, "rectangle", 8, 8)
@example([-50.0, 3, 50, 3], 1.3, 0.0, "ellipse", 20, 20)
@few
def test_every_pixel_that_the_covered_area_touches_has_weight_1(
    box: list[float], coverage: float, feather: float, shape: Any, h: int, w: int
) -> None:
    x0, y0, x1, y1 = rect = rect_of(box, coverage * (1 + feather), h, w)
    weight = cover_weight(box, rect, coverage=coverage, shape=shape, feather=feather)
    assert weight.shape == (y1 - y0, x1 - x0)
    for y in range(h):
        for x in range(w):
            if covers(box, coverage, shape, x, y, margin=1e-6):
                assert weight[y - y0, x - x0] == 1


@given(box, coverages, st.floats(0.01, 1.0), st.sampled_from(SHAPES), side, side)
@few
def test_the_soft_edge_lies_outside_and_ends_within_its_width(
    box: list[float], coverage: float, feather: float, shape: Any, h: int, w: int
) -> None:
    rect = rect_of(box, coverage * (1 + feather), h, w)
    weight = cover_weight(box, rect, coverage=coverage, shape=shape, feather=feather)
    assert 0 <= weight.min() <= weight.max() <= 1
    for y in range(rect[1], rect[3]):
        for x in range(rect[0], rect[2]):
            value = float(weight[y - rect[1], x - rect[0]])
            if value < 1:
                assert not covers(box, coverage, shape, x, y, margin=1e-6)
            if value > 0 and min(box[2] - box[0], box[3] - box[1]) > 1e-3:
                assert covers(box, coverage * (1 + feather) * (1 + 1e-4), shape, x, y, margin=-1e-3)


def test_without_feather_weights_are_0_or_1() -> None:
    weight = cover_weight([3.2, 4.1, 19.7, 25.0], [0, 0, 30, 30], coverage=1.0, shape="ellipse", feather=0.0)
    assert set(weight.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_fall_outwards(shape: Any) -> None:
    weight = cover_weight([40.0, 40, 60, 60], [0, 0, 100, 100], coverage=1.3, shape=shape, feather=1.0)
    for ray in (weight[50, 50:], weight[50:, 50], weight.diagonal()[50:]):
        assert (ray.diff() <= 0).all()
        assert ray[0] == 1
        assert ray[-1] == 0
    assert ((weight > 0) & (weight < 1)).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_strip_keeps_its_soft_edge_on_both_axes(shape: Any) -> None:
    """A slack in units of the shorter side once covered far beyond the longer one's end."""
    weight = cover_weight([495.0, 200, 505, 800], [400, 0, 600, 1000], coverage=1.0, shape=shape, feather=0.1)
    assert weight[500 - 299 : 500 + 299, 100].min() == 1
    assert weight[: 500 - 331, 100].max() == 0
    assert 0 < weight[500 - 315, 100] < 1


# --- pasting -------------------------------------------------------------------------------------------------------


def naive_paste(picture: np.ndarray, rect: list[int], patch: np.ndarray, weight: np.ndarray) -> np.ndarray:
    out, (h, w) = picture.copy(), picture.shape[-2:]
    for y in range(max(rect[1], 0), min(rect[3], h)):
        for x in range(max(rect[0], 0), min(rect[2], w)):
            share = float(weight[y - rect[1], x - rect[0]])
            mixed = (1 - share) * out[:, y, x].astype(np.float64) + share * patch[:, y - rect[1], x - rect[0]]
            out[:, y, x] = np.round(mixed) if out.dtype == np.uint8 else mixed
    return out


@given(box, side, side, st.sampled_from(SHAPES), st.sampled_from([torch.uint8, torch.float32, torch.float64]))
@few
def test_pasting_is_what_a_naive_loop_does(box: list[float], h: int, w: int, shape: Any, dtype: torch.dtype) -> None:
    rect = rect_of(box, 1.3 * 1.4, h, w)
    weight = cover_weight(box, rect, coverage=1.3, shape=shape, feather=0.4)
    draw = torch.Generator().manual_seed(3)
    picture, crop = torch.rand(3, h, w, generator=draw), torch.rand(3, 16, 16, generator=draw)
    scale = 255 if dtype == torch.uint8 else 1
    picture = (picture * scale).to(dtype)
    patch = resize((crop * scale).round()[None] if scale > 1 else crop[None], rect[3] - rect[1], rect[2] - rect[0])[0]
    expected = naive_paste(picture.numpy(), rect, patch.double().numpy(), weight.numpy())
    paste(picture, rect, crop, weight)
    tolerance = 1.01 if dtype == torch.uint8 else 1e-5
    np.testing.assert_allclose(picture.double().numpy(), expected.astype(np.float64), rtol=0, atol=tolerance)


@given(box, side, side, coverages, feathers, st.sampled_from(SHAPES), st.sampled_from(DTYPES))
@example([0.0, 0, 0, 0], 1, 1, 1.3, 0.1, "ellipse", torch.uint8)
@example([0.2, 0.2, 0.3, 0.3], 1, 1, 0.5, 0.0, "ellipse", torch.float32)
@example([-60.0, -60, 60, 60], 40, 3, 4.0, 1.0, "rectangle", torch.float16)
@few
def test_no_original_pixel_is_left_in_the_covered_area_and_none_is_touched_outside(
    box: list[float], h: int, w: int, coverage: float, feather: float, shape: Any, dtype: torch.dtype
) -> None:
    """The whole way of a region, with a fill: its colour exactly where covered, the picture exactly outside."""
    technique = Fill(color=COLOR, coverage=coverage, feather=feather, shape=shape)
    picture = (
        torch.full((3, h, w), 200, dtype=torch.uint8)
        if dtype == torch.uint8
        else torch.full((3, h, w), 0.9, dtype=dtype)
    )
    out = technique.change_regions(picture, torch.tensor([box], dtype=torch.float64))
    color = torch.tensor(COLOR)
    color = (color * 255).round().to(dtype) if dtype == torch.uint8 else color.to(dtype)
    x0, y0, x1, y1 = rect_of(box, technique.extent, h, w)
    for y in range(h):
        for x in range(w):
            if covers(box, coverage, shape, x, y, margin=1e-6):
                torch.testing.assert_close(out[:, y, x], color, rtol=0, atol=ROUNDING.get(dtype, 0))
            if not (x0 <= x < x1 and y0 <= y < y1):
                assert torch.equal(out[:, y, x], picture[:, y, x])


@given(box, st.sampled_from(SHAPES), st.sampled_from(DTYPES))
@few
def test_covered_pixels_depend_on_the_crop_alone(box: list[float], shape: Any, dtype: torch.dtype) -> None:
    rect = rect_of(box, 1.43, 30, 40)
    weight = cover_weight(box, rect, coverage=1.3, shape=shape, feather=0.1)
    crop = torch.rand(3, 16, 16)
    one, two = (
        torch.zeros(3, 30, 40).to(dtype),
        torch.ones(3, 30, 40).mul(255 if dtype == torch.uint8 else 1).to(dtype),
    )
    covered = torch.zeros(30, 40, dtype=torch.bool)
    paste(one, rect, crop, weight)
    paste(two, rect, crop, weight)
    mark(covered, rect, weight)
    assert torch.equal(one[:, covered], two[:, covered])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_what_is_not_finite_is_gone_where_covered_and_kept_where_not(dtype: torch.dtype) -> None:
    picture = torch.full((1, 3, 4), float("nan"), dtype=dtype)
    picture[0, 1] = float("inf")
    weight = torch.tensor([[1.0, 1, 0, 0]] * 3)
    paste(picture, [0, 0, 4, 3], torch.full((1, 4, 4), 0.5, dtype=dtype), weight)
    assert (picture[0, :, :2] == 0.5).all()
    assert picture[0, ::2, 2:].isnan().all()
    assert (picture[0, 1, 2:] == float("inf")).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_crop_that_is_not_finite_leaves_no_original(dtype: torch.dtype) -> None:
    picture = torch.ones(1, 4, 4).to(dtype)
    crop = torch.tensor([math.nan, math.inf, -math.inf, 7.0]).view(1, 2, 2)
    paste(picture, [0, 0, 2, 2], crop, torch.ones(2, 2))
    full = 255 if dtype == torch.uint8 else 1
    assert picture[0, :2, :2].flatten().tolist() == [0, full, 0, full]


def test_pixels_of_weight_0_keep_more_digits_than_the_crop_has() -> None:
    picture = torch.rand(1, 4, 4, dtype=torch.float64)
    before = picture.clone()
    paste(picture, [0, 0, 4, 4], torch.rand(1, 8, 8, dtype=torch.float16), torch.zeros(4, 4))
    assert torch.equal(picture, before)


@pytest.mark.parametrize("rect", [[50, 0, 60, 9], [-20, 0, 0, 9], [0, 30, 9, 40], [0, -9, 9, 0]], ids=str)
def test_pasting_beside_the_picture_changes_nothing(rect: list[int]) -> None:
    picture, mask = torch.rand(3, 30, 40), torch.zeros(30, 40, dtype=torch.bool)
    before, weight = picture.clone(), torch.ones(rect[3] - rect[1], rect[2] - rect[0])
    paste(picture, rect, torch.zeros(3, 8, 8), weight)
    mark(mask, rect, weight)
    assert torch.equal(picture, before)
    assert not mask.any()


@given(box, coverages, feathers, st.sampled_from(SHAPES))
@few
def test_a_mark_is_where_the_weight_is_1(box: list[float], coverage: float, feather: float, shape: Any) -> None:
    rect = rect_of(box, coverage * (1 + feather), 30, 40)
    weight = cover_weight(box, rect, coverage=coverage, shape=shape, feather=feather)
    mask = torch.zeros(30, 40, dtype=torch.bool)
    mark(mask, rect, weight)
    white = torch.zeros(1, 30, 40)
    paste(white, rect, torch.ones(1, 4, 4), (weight == 1).float())
    assert torch.equal(mask, white[0] > 0.5)


# --- pictures and boxes that nobody expects ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (10000, 20), (20, 10000)], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_pictures_of_odd_sizes_are_covered(size: tuple[int, int], shape: Any) -> None:
    h, w = size
    out = Fill(color=COLOR, shape=shape, coverage=2.0).change_regions(
        torch.ones(3, h, w), torch.tensor([[0.0, 0, w, h]])
    )
    corners = out[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    middle = out[:, h // 2, w // 2]
    assert middle.tolist() == pytest.approx(COLOR)
    assert (corners - torch.tensor(COLOR)[:, None]).abs().max() < 1e-6 or shape != "rectangle"


@pytest.mark.parametrize("far", [1e6, 1e12, 3e38])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_box_beyond_all_measure_covers_the_picture(far: float, dtype: torch.dtype) -> None:
    picture = torch.ones(3, 30, 40).to(dtype)
    out = Fill(color=COLOR).change_regions(picture, torch.tensor([[-far, -far, far, far]]))
    assert (out - out[:, :1, :1]).abs().max() <= ROUNDING.get(dtype, 0)
    assert (out != picture).any(0).all()


def test_a_box_far_outside_changes_nothing() -> None:
    picture = torch.rand(3, 30, 40)
    boxes = torch.tensor([[-1e6, -1e6, -1e6 + 50, -1e6 + 50], [1e6, 1e6, 1e6 + 50, 1e6 + 50]])
    assert torch.equal(Pixelate().change_regions(picture, boxes), picture)


@pytest.mark.parametrize("place", [(0.0, 0.0), (10.0, 10.0), (10.5, 10.5), (39.99, 29.99), (40.0, 30.0)], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_point_covers_the_pixel_it_lies_in(place: tuple[float, float], shape: Any) -> None:
    x, y = place
    out = Fill(color=COLOR, shape=shape, feather=0.0).change_regions(
        torch.ones(3, 30, 40), torch.tensor([[x, y, x, y]])
    )
    inside = x < 40 and y < 30
    assert int((out[0] < 0.5).sum()) in ((1, 2, 4) if inside else (0, 1))
    assert not inside or out[0, int(y), int(x)] < 0.5


def test_overlapping_regions_leave_nothing_of_either() -> None:
    boxes = torch.tensor([[5.0, 5, 20, 20], [15, 15, 30, 30]])
    out = Fill(color=COLOR, coverage=1.0, feather=1.0).change_regions(torch.ones(3, 40, 40), boxes)
    for x0, y0, x1, y1 in boxes.int().tolist():
        assert (out[:, y0:y1, x0:x1] - torch.tensor(COLOR).view(3, 1, 1)).abs().max() < 1e-6


def test_gradients_reach_the_picture_around_a_region() -> None:
    picture: Tensor = torch.rand(3, 30, 40, requires_grad=True)
    Pixelate().change_regions(picture, torch.tensor([[5.0, 5, 20, 20]])).sum().backward()
    assert picture.grad is not None
    assert (picture.grad[:, 28, 38] == 1).all()
