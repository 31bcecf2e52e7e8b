"""What every technique promises of samples and pictures: which are covered, which refused, and what stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from anondata.crops import FLOATS, cut, outer_rects, paste
from anondata.errors import ShapeError
from anondata.randomness import RunKey
from anondata.transforms import RegionTransform

# test_contract.py shows that techniques differ in how they change crops alone; Mask finds its way to them itself.
EACH_WAY = pytest.mark.parametrize("case", ["noise", "mask"])

# --- torchvision samples -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["noise"])
@pytest.mark.parametrize("box_format", ["XYXY", "XYWH", "CXCYWH"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32], ids=str)
@pytest.mark.parametrize("box_dtype", [torch.float32, torch.int64, torch.float16, torch.float64], ids=str)
def test_it_works_in_a_torchvision_compose(
    technique: RegionTransform,
    astronaut: Tensor,
    face_box: Tensor,
    box_format: str,
    dtype: torch.dtype,
    box_dtype: Any,
    sample_of: Any,
) -> None:
    pixels = v2.functional.to_dtype(astronaut, dtype, scale=True)
    sample = sample_of(pixels, face_box)
    sample["boxes"] = v2.functional.convert_bounding_box_format(sample["boxes"], new_format=box_format)
    sample["boxes"] = tv_tensors.wrap(sample["boxes"].to(box_dtype), like=sample["boxes"])
    out = v2.Compose([technique])(sample)
    assert type(out["image"]) is tv_tensors.Image
    assert out["image"].dtype == dtype
    assert out["boxes"] is sample["boxes"]
    assert torch.equal(out["image"].as_subclass(Tensor), technique.change_regions(pixels, face_box))
    assert not torch.equal(out["image"], sample["image"])


@pytest.mark.parametrize(
    ("box", "box_format", "dtype"),
    [
        ([2048, 2, 5, 5], "XYWH", torch.float16),  # 2053 is no float16
        ([2050, 5, 5, 5], "CXCYWH", torch.int64),  # the corners lie at halves
        ([2050, 5, 5, 5], "CXCYWH", torch.float16),
    ],
    ids=str,
)
def test_converting_boxes_rounds_no_pixel_away(
    box: list[int], box_format: str, dtype: torch.dtype, make: Any
) -> None:
    boxes = tv_tensors.BoundingBoxes(torch.tensor([box]), dtype=dtype, format=box_format, canvas_size=(10, 2100))
    picture = tv_tensors.Image(torch.zeros(3, 10, 2100))
    out = make("fill", coverage=1.0, feather=0.0)({"image": picture, "boxes": boxes})["image"]
    low, high = (2048, 2053) if box_format == "XYWH" else (2047, 2053)
    assert (out[0] > 0).any(0).nonzero().flatten().tolist() == list(range(low, high))


@EACH_WAY
def test_other_entries_of_a_sample_are_kept(
    technique: RegionTransform, astronaut: Tensor, face_box: Tensor, sample_of: Any
) -> None:
    mask = tv_tensors.Mask(torch.zeros(1, 512, 512, dtype=torch.uint8))
    sample = {
        **sample_of(astronaut, face_box),
        "labels": torch.tensor([4]),
        "id": "a",
        "more": [mask, {"n": 3}, None],
    }
    out = v2.Compose([technique])(sample)
    assert list(out) == list(sample)
    assert out["labels"] is sample["labels"]
    assert out["id"] == "a"
    assert out["more"][0] is mask
    assert out["more"][1:] == [{"n": 3}, None]


@EACH_WAY
def test_image_and_target_may_be_two_arguments(
    technique: RegionTransform, astronaut: Tensor, face_box: Tensor, sample_of: Any
) -> None:
    sample = sample_of(astronaut, face_box)
    image, target = v2.Compose([technique])(sample["image"], {"boxes": sample["boxes"]})
    assert torch.equal(image, technique(sample)["image"])
    assert target["boxes"] is sample["boxes"]


@EACH_WAY
def test_the_sample_is_not_modified(
    technique: RegionTransform, astronaut: Tensor, face_box: Tensor, sample_of: Any
) -> None:
    sample, before = sample_of(astronaut, face_box), astronaut.clone()
    out = technique(sample)
    assert torch.equal(sample["image"], before)
    assert out is not sample


@EACH_WAY
def test_a_sample_without_regions_keeps_its_picture(
    technique: RegionTransform, astronaut: Tensor, sample_of: Any
) -> None:
    out = technique(sample_of(astronaut, torch.zeros(0, 4)))
    assert torch.equal(out["image"], astronaut)
    assert out["image"].data_ptr() != astronaut.data_ptr()


IMAGE = tv_tensors.Image(torch.zeros(3, 16, 20, dtype=torch.uint8))
BOXES = tv_tensors.BoundingBoxes(torch.tensor([[2.0, 2, 9, 9]]), format="XYXY", canvas_size=(16, 20))
NOT_ONE = (
    "expected exactly one tv_tensors.Image and one tv_tensors.BoundingBoxes, found {} image(s) and {} set(s) of boxes"
)
REFUSED: dict[str, tuple[Any, str]] = {
    "no boxes": ({"image": IMAGE}, NOT_ONE.format(1, 0)),
    "no image": ({"boxes": BOXES}, NOT_ONE.format(0, 1)),
    "nothing": ({}, NOT_ONE.format(0, 0)),
    "two images": ({"a": IMAGE, "b": IMAGE, "boxes": BOXES}, NOT_ONE.format(2, 1)),
    "two sets of boxes": ({"image": IMAGE, "a": BOXES, "b": BOXES}, NOT_ONE.format(1, 2)),
    "a PIL image": ({"image": Image.new("RGB", (20, 16)), "boxes": BOXES}, NOT_ONE.format(1, 1)),
    "an image and a PIL image": ({"image": IMAGE, "x": Image.new("L", (1, 1)), "boxes": BOXES}, NOT_ONE.format(2, 1)),
    "a video": ({"image": tv_tensors.Video(IMAGE[None]), "boxes": BOXES}, NOT_ONE.format(1, 1)),
    "a bare image": (IMAGE, NOT_ONE.format(1, 0)),
    "a bare PIL image": (Image.new("RGB", (20, 16)), NOT_ONE.format(1, 0)),
    "an array": (np.zeros((16, 20, 3), np.uint8), NOT_ONE.format(0, 0)),
    "None": (None, NOT_ONE.format(0, 0)),
    "a plain tensor in a dict": ({"image": torch.zeros(3, 16, 20), "boxes": BOXES}, NOT_ONE.format(0, 1)),
    "a batch of images": (
        {"image": tv_tensors.Image(IMAGE[None]), "boxes": BOXES},
        "boxes belong to one image (C, H, W)",
    ),
    "16-bit pixels": (
        {"image": tv_tensors.Image(IMAGE.to(torch.uint16)), "boxes": BOXES},
        "expected a picture (C, H, W)",
    ),
    "another canvas": (
        {"image": tv_tensors.Image(torch.zeros(3, 32, 40)), "boxes": BOXES},
        "the boxes are for a picture of height and width (16, 20), the image has (32, 40)",
    ),
    "rotated boxes": (
        {
            "image": IMAGE,
            "boxes": tv_tensors.BoundingBoxes(torch.ones(1, 5), format="CXCYWHR", canvas_size=(16, 20)),
        },
        "expected upright boxes, got CXCYWHR",
    ),
}


@pytest.mark.parametrize("case", ["noise"])
@pytest.mark.parametrize("what", REFUSED)
def test_what_it_cannot_cover_is_refused(technique: RegionTransform, what: str) -> None:
    given, message = REFUSED[what]
    with pytest.raises(ShapeError) as raised:
        technique(given)
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"{technique.name}: ")


@EACH_WAY
def test_no_argument_at_all_is_refused(technique: RegionTransform) -> None:
    with pytest.raises(ShapeError, match="expected exactly one"):
        technique()


BAD_BOXES: dict[str, tuple[list[float], str]] = {
    "NaN": ([float("nan"), 2, 9, 9], "boxes must be finite"),
    "infinite": ([2, 2, float("inf"), 9], "boxes must be finite"),
    "inside out": ([9, 2, 2, 9], "boxes must be x0, y0, x1, y1 with x0 <= x1 and y0 <= y1"),
    "upside down": ([2, 9, 9, 2], "boxes must be x0, y0, x1, y1 with x0 <= x1 and y0 <= y1"),
}


@EACH_WAY
@pytest.mark.parametrize("what", BAD_BOXES)
def test_boxes_that_mean_nothing_are_refused(technique: RegionTransform, astronaut: Tensor, what: str) -> None:
    box, message = BAD_BOXES[what]
    with pytest.raises(ShapeError, match=message):
        technique.change_regions(astronaut, torch.tensor([[2.0, 2, 9, 9], box]))


# --- regions of a picture ------------------------------------------------------------------------------------------


@EACH_WAY
@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_keeps_shape_dtype_and_device(
    technique: RegionTransform, face_box: Tensor, dtype: torch.dtype, channels: int, device: torch.device
) -> None:
    picture = (torch.rand(channels, 220, 300) * (255 if dtype == torch.uint8 else 1)).to(device, dtype)
    out = technique.change_regions(picture, face_box.to(device))
    assert (out.shape, out.dtype, out.device) == (picture.shape, dtype, picture.device)


def test_nothing_of_the_region_is_left(case: str, astronaut: Tensor, face_box: Tensor, make: Any) -> None:
    out = make(case).change_regions(astronaut, face_box)
    x0, y0, x1, y1 = (int(v) for v in face_box[0])
    difference = (out.int() - astronaut.int()).abs()[:, y0:y1, x0:x1].float()
    assert difference.mean() > 15
    assert (difference.amax(0) == 0).float().mean() < 0.05  # by chance only


def test_nothing_beyond_the_soft_edge_changes(
    technique: RegionTransform, astronaut: Tensor, face_box: Tensor
) -> None:
    x0, y0, x1, y1 = outer_rects(face_box, technique.extent, torch.tensor([512, 512]))[0].tolist()
    same = (technique.change_regions(astronaut, face_box) == astronaut).all(0)
    same[max(y0, 0) : y1, max(x0, 0) : x1] = True
    assert same.all()


@pytest.mark.parametrize("case", ["fill", "mask_solid", "mask"])
def test_a_soft_edge_lies_around_what_is_covered_and_not_inside(case: str, make: Any) -> None:
    picture, box = torch.zeros(3, 90, 90), torch.tensor([[30.5, 35.5, 59.5, 54.5]])
    picture[:, 20:70, 20:70] = torch.eye(50)
    white = {} if case == "mask" else {"color": (1.0, 1.0, 1.0)}
    soft, hard = (
        make(case, coverage=1.0, feather=feather, **white).change_regions(picture, box) for feather in (0.5, 0.0)
    )
    changed_soft, changed_hard = ((out != picture).any(0) for out in (soft, hard))
    assert changed_soft.sum() > 1.2 * changed_hard.sum()
    assert not changed_hard[:35].any()
    assert not changed_hard[55:].any()
    if white:
        assert soft[:, 35:55, 30:60].min() > 0.9999
        assert bool(((soft > 0) & (soft < 1)).any())


def test_regions_of_a_picture_draw_from_the_key(make: Any, astronaut: Tensor, face_box: Tensor) -> None:
    one, same, other = (
        make("noise", key=RunKey(secret)).change_regions(astronaut, face_box)
        for secret in (b"a secret of enough bytes", b"a secret of enough bytes", b"another secret of enough bytes")
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@EACH_WAY
def test_the_order_of_far_regions_does_not_matter(technique: RegionTransform, astronaut: Tensor) -> None:
    boxes = torch.tensor([[175.0, 60, 275, 200], [20, 400, 60, 440], [400, 20, 460, 90]])
    one = technique.change_regions(astronaut, boxes)
    assert torch.equal(one, technique.change_regions(astronaut, boxes.flip(0)))


@EACH_WAY
def test_a_picture_with_nan_is_covered_all_the_same(
    technique: RegionTransform, astronaut: Tensor, face_box: Tensor
) -> None:
    picture = astronaut.float() / 255
    picture[:, 100:120, 200:220] = float("nan")
    picture[0, 130, 230], picture[1, 131, 231], picture[2, 0, 0] = float("inf"), -float("inf"), float("nan")
    out = technique.change_regions(picture, face_box)
    x0, y0, x1, y1 = (int(v) for v in face_box[0])
    assert out[:, y0:y1, x0:x1].isfinite().all()
    assert out[2, 0, 0].isnan()
    assert out.isfinite().sum() == out.numel() - 1


@EACH_WAY
def test_a_picture_that_requires_gradients_is_covered(
    technique: RegionTransform, astronaut: Tensor, face_box: Tensor
) -> None:
    picture = astronaut.float() / 255
    out = technique.change_regions(picture.clone().requires_grad_(), face_box)
    assert torch.equal(out.detach(), technique.change_regions(picture, face_box))


@EACH_WAY
@pytest.mark.parametrize("layout", ["channels_last", "expanded", "flipped view"])
def test_the_layout_of_a_picture_does_not_matter(
    technique: RegionTransform, face_box: Tensor, astronaut: Tensor, layout: str
) -> None:
    if layout == "channels_last":
        given = astronaut.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    elif layout == "expanded":
        given = astronaut[:1].expand(3, -1, -1)
    else:
        given = astronaut.transpose(1, 2)
    before = given.clone()
    out = technique.change_regions(given, face_box)
    assert torch.equal(out, technique.change_regions(given.contiguous(), face_box))
    assert torch.equal(given, before)


@EACH_WAY
def test_a_picture_without_pixels_is_given_back(technique: RegionTransform, face_box: Tensor) -> None:
    assert technique.change_regions(torch.zeros(3, 0, 7), face_box).shape == (3, 0, 7)


def test_strength_is_relative_to_the_region(case: str, astronaut: Tensor, face_box: Tensor, make: Any) -> None:
    """The same face at 40 and at 400 pixels becomes the same picture, up to resampling."""
    technique, seen = make(case), []
    for scale in (0.4, 4.0):
        side = round(512 * scale)
        picture = nn.functional.interpolate(
            astronaut[None].float() / 255, (side, side), mode="bilinear", antialias=True
        )[0]
        box = face_box * scale
        rects = outer_rects(box, technique.extent, torch.tensor([side, side]))
        changed = technique.change(cut(picture, rects, technique.crop_px), extent=technique.extent, seeds=[11])
        paste(picture, rects[0].tolist(), changed[0], technique.weight(box[0].tolist(), rects[0].tolist()))
        seen.append(cut(picture, box.round().long(), 32)[0])
    assert (seen[0] - seen[1]).abs().mean() < 0.06  # of noise with another seed: 0.3
