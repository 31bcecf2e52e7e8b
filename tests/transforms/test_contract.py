"""What every technique promises, whichever it is. A new technique joins by being in the components' table."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from kornia.augmentation.container import AugmentationSequential, ImageSequential
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from anondata.components import TABLES, build
from anondata.errors import PolicyError, ShapeError
from anondata.kernels import FLOATS, cut, outer_rects, paste
from anondata.randomness import RunKey
from anondata.transforms import RegionTransform, describe

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in TABLES["technique"]},
    "fill_mean": ("fill", {"color": "mean"}),
    "pixelate_noise": ("pixelate", {"noise": 0.3}),
    "ellipse": ("pixelate", {"shape": "ellipse", "feather": 0.0}),
}
RANDOM = ("noise", "pixelate_noise")
SECRET = b"a secret of enough bytes"
COMMON_LIMITS = [
    ({"coverage": -1.3}, "coverage must be between 0.5 and 4, got -1.3"),
    ({"coverage": 0}, "coverage must be between 0.5 and 4, got 0"),
    ({"coverage": 100.0}, "coverage must be between 0.5 and 4, got 100.0"),
    ({"coverage": float("nan")}, "coverage must be between 0.5 and 4, got nan"),
    ({"coverage": float("inf")}, "coverage must be between 0.5 and 4, got inf"),
    ({"coverage": True}, "coverage must be a number, got bool"),
    ({"coverage": "1.3"}, "coverage must be a number, got str"),
    ({"coverage": None}, "coverage must be a number, got NoneType"),
    ({"feather": -0.1}, "feather must be between 0 and 1, got -0.1"),
    ({"shape": "circle"}, "shape must be 'ellipse' or 'rectangle', got 'circle'"),
    ({"key": "a secret of enough bytes"}, "key must be a RunKey, got str"),
    ({"coverge": 1.3}, "unexpected keyword argument 'coverge'"),
]


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(case: str, **more: Any) -> RegionTransform:
    name, params = CASES[case]
    technique: RegionTransform = build("technique", name, {"key": RunKey(SECRET), **params, **more})
    return technique


@pytest.fixture
def technique(case: str) -> RegionTransform:
    return make(case)


def crops(count: int = 3, channels: int = 3, height: int = 32, width: int = 32, **options: Any) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return (
        torch.rand(count, channels, height, width, generator=generator).to(**options)
        if options
        else torch.rand(count, channels, height, width, generator=generator)
    )


def sample_of(astronaut: Tensor, boxes: Tensor) -> dict[str, Any]:
    return {
        "image": tv_tensors.Image(astronaut),
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=tuple(astronaut.shape[-2:])),
    }


# --- crops in, crops out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    "shape", [(2, 3, 32, 32), (2, 1, 32, 32), (2, 4, 32, 32), (2, 3, 20, 51), (3, 32, 32)], ids=str
)
def test_shape_dtype_and_device_stay(
    technique: RegionTransform, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    out = technique(torch.rand(shape).to(device, dtype))
    assert (tuple(out.shape), out.dtype, out.device.type) == (shape, dtype, device.type)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_output_is_a_finite_picture_in_0_1(
    technique: RegionTransform, dtype: torch.dtype, device: torch.device
) -> None:
    out = technique(crops(device=device, dtype=dtype))
    assert out.isfinite().all()
    assert 0 <= out.min() <= out.max() <= 1


@pytest.mark.parametrize(
    "shape", [(1, 3, 1, 1), (1, 3, 1, 40), (1, 3, 40, 1), (1, 1, 2, 3), (1, 3, 700, 30)], ids=str
)
def test_crops_of_any_size_are_taken(technique: RegionTransform, shape: tuple[int, ...]) -> None:
    out = technique(torch.rand(shape))
    assert out.shape == shape
    assert out.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (0, 1, 8, 4), (2, 3, 0, 5)], ids=str)
def test_an_empty_batch_stays_empty(technique: RegionTransform, shape: tuple[int, ...]) -> None:
    assert technique(torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.uint16, torch.float8_e5m2], ids=str)
def test_crops_that_are_no_floats_are_refused(technique: RegionTransform, dtype: torch.dtype) -> None:
    with pytest.raises(
        ShapeError, match=r"expected float crops \(R, C, H, W\) in \[0, 1\], got .*divide by 255 first"
    ):
        technique(torch.ones(2, 3, 8, 8).to(dtype))


@pytest.mark.parametrize("shape", [(), (8,), (8, 8), (1, 2, 3, 8, 8)], ids=str)
def test_crops_of_another_rank_are_refused(technique: RegionTransform, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected float crops \(R, C, H, W\)"):
        technique(torch.rand(shape))


def test_the_input_is_not_modified(technique: RegionTransform, device: torch.device) -> None:
    given = crops(device=device)
    before = given.clone()
    technique(given)
    assert torch.equal(given, before)


def test_the_result_shares_no_memory_with_the_input(technique: RegionTransform) -> None:
    given = crops()
    technique(given).fill_(0.123)
    assert not (given == 0.123).any()


def test_crops_come_out_changed(technique: RegionTransform) -> None:
    given = crops()
    assert (technique(given) - given).abs().mean() > 0.05


@pytest.mark.parametrize("side", [2, 3, 4, 5, 8, 16])
def test_small_crops_do_not_pass_as_they_are(technique: RegionTransform, side: int) -> None:
    given = crops(4, height=side, width=side)
    assert (technique(given) - given).abs().mean() > 0.02


@pytest.mark.parametrize("layout", ["channels_last", "strided", "expanded", "transposed"])
def test_memory_layout_does_not_matter(technique: RegionTransform, layout: str) -> None:
    plain = crops(2)
    if layout == "channels_last":
        given = plain.contiguous(memory_format=torch.channels_last)
    elif layout == "strided":
        given = plain.repeat_interleave(2, dim=-1)[..., ::2]
    elif layout == "transposed":
        given = plain.transpose(-1, -2).contiguous().transpose(-1, -2)
    else:
        given = plain[:, :1].expand(-1, 3, -1, -1)
        plain = given.contiguous()
    torch.testing.assert_close(technique(given), technique(plain), rtol=0, atol=1e-6)


# --- batches -------------------------------------------------------------------------------------------------------


def test_permuting_the_batch_permutes_the_result(technique: RegionTransform, device: torch.device) -> None:
    given, order = crops(5, device=device), torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(technique(given[order]), technique(given)[order])


def test_a_batch_of_one_equals_its_row_in_a_batch_of_many(technique: RegionTransform, device: torch.device) -> None:
    given = crops(5, device=device)
    assert torch.equal(torch.cat([technique(given[i : i + 1]) for i in range(5)]), technique(given))


def test_a_crop_without_a_batch_axis_equals_a_batch_of_one(technique: RegionTransform) -> None:
    assert torch.equal(technique(crops(1)[0]), technique(crops(1))[0])


# --- state ---------------------------------------------------------------------------------------------------------


def fingerprint(module: nn.Module) -> bytes:
    """What datasets hashes: the pickle of the module."""
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol=5).dump(module)
    return buffer.getvalue()


def test_forward_writes_no_state(technique: RegionTransform, astronaut: Tensor, face_box: Tensor) -> None:
    keys, before = set(vars(technique)), fingerprint(technique)
    technique(crops())
    technique(sample_of(astronaut, face_box))
    assert set(vars(technique)) == keys
    assert fingerprint(technique) == before


def test_there_are_no_parameters_and_no_buffers(technique: RegionTransform) -> None:
    assert not technique.state_dict()
    assert not list(technique.buffers())


def test_training_mode_does_not_matter(technique: RegionTransform) -> None:
    assert torch.equal(copy.deepcopy(technique).eval()(crops()), technique.train()(crops()))


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda t: pickle.loads(pickle.dumps(t))])
def test_a_copy_gives_the_same_result(technique: RegionTransform, copied: Callable[[Any], Any]) -> None:
    assert torch.equal(copied(technique)(crops()), technique(crops()))


def test_another_process_gives_the_same_results() -> None:
    techniques = [make(case) for case in CASES]
    program = (
        "import pickle, sys; techniques, crops = pickle.load(sys.stdin.buffer); "
        "sys.stdout.buffer.write(pickle.dumps([t(crops).numpy() for t in techniques]))"
    )
    payload = pickle.dumps((techniques, crops()))
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=payload,
        capture_output=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    for technique, there in zip(techniques, pickle.loads(done.stdout), strict=True):
        assert np.array_equal(technique(crops()).numpy(), there)


def test_two_threads_get_what_one_gets(technique: RegionTransform) -> None:
    batches = [crops(2) * (i + 1) / 8 for i in range(8)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(technique, batches))
    assert all(torch.equal(a, technique(b)) for a, b in zip(together, batches, strict=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_without_gradients(technique: RegionTransform, mode: Callable[[], Any]) -> None:
    with mode():
        out = technique(crops())
    assert torch.equal(out, technique(crops()))


def test_it_takes_crops_that_require_gradients(technique: RegionTransform) -> None:
    given = crops().requires_grad_()
    assert torch.equal(technique(given).detach(), technique(crops()))


@pytest.mark.parametrize("case", ["pixelate", "gaussian_blur", "fill_mean"])
def test_gradients_flow_where_the_technique_has_any(case: str) -> None:
    given = crops().requires_grad_()
    make(case)(given).square().sum().backward()
    assert given.grad is not None
    assert given.grad.abs().sum() > 0


# --- randomness ----------------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_result(case: str) -> None:
    assert torch.equal(make(case)(crops()), make(case)(crops()))


def test_another_key_changes_random_techniques_and_only_those(case: str) -> None:
    other = make(case, key=RunKey(b"another secret of enough bytes"))
    assert torch.equal(make(case)(crops()), other(crops())) == (case not in RANDOM)


@pytest.mark.parametrize("case", RANDOM)
def test_without_a_key_two_modules_draw_differently(case: str) -> None:
    assert not torch.equal(make(case, key=None)(crops()), make(case, key=None)(crops()))


@pytest.mark.parametrize("case", RANDOM)
def test_two_regions_get_different_noise(case: str) -> None:
    given = torch.stack([torch.full((3, 32, 32), 0.5), torch.full((3, 32, 32), 0.5 + 1 / 255)])
    out = make(case)(given)
    assert (out[0] - out[1]).abs().mean() > 0.05


def test_a_technique_uses_seeds_if_it_says_that_it_draws(case: str) -> None:
    technique = make(case)
    one, two = (technique.change(crops(), extent=1.4, seeds=[seed] * 3) for seed in (1, 2))
    assert torch.equal(one, two) == (not technique.draws)


def test_global_random_states_stay(technique: RegionTransform, astronaut: Tensor, face_box: Tensor) -> None:
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), np.random.get_state()[2], random.getstate())
    technique(crops())
    technique(sample_of(astronaut, face_box))
    after = (torch.get_rng_state(), np.random.get_state()[1], np.random.get_state()[2], random.getstate())
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


# --- configuration -------------------------------------------------------------------------------------------------


def test_config_round_trips_through_json(case: str) -> None:
    technique = make(case)
    again = build("technique", technique.name, json.loads(json.dumps(technique.config())))
    assert again.config() == technique.config()
    assert describe(again) == describe(technique)


def test_config_holds_every_parameter_of_the_constructor(case: str) -> None:
    name, params = CASES[case]
    config = build("technique", name, params).config()
    assert {"coverage", "shape", "feather"} < set(config)
    assert {key: config[key] for key in params} == params


def test_the_key_is_in_no_description(technique: RegionTransform) -> None:
    shown = [
        repr(technique),
        str(technique.config()),
        describe(technique),
        repr(technique.state_dict()),
        str(technique),
    ]
    assert not any(form in text for text in shown for form in (SECRET.decode(), SECRET.hex(), "key"))


def test_repr_tells_the_parameters(technique: RegionTransform) -> None:
    assert all(f"{name}={value!r}" in repr(technique) for name, value in technique.config().items())


@pytest.mark.parametrize(("params", "message"), COMMON_LIMITS, ids=str)
@pytest.mark.parametrize("name", TABLES["technique"])
def test_bad_common_parameters_are_refused(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        build("technique", name, params)
    assert f"technique '{name}': " in str(raised.value)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("near", "known"), [("pixelat", "pixelate"), ("gausian_blur", "gaussian_blur"), ("Fill", "fill")]
)
def test_an_unknown_technique_suggests_the_nearest(near: str, known: str) -> None:
    with pytest.raises(PolicyError, match=f"unknown technique '{near}'; did you mean '{known}'\\?"):
        build("technique", near, {})


def test_an_unknown_technique_like_no_other_lists_all() -> None:
    with pytest.raises(PolicyError, match="unknown technique 'zzz'; known: fill, gaussian_blur, noise, pixelate"):
        build("technique", "zzz", {})


# --- containers ----------------------------------------------------------------------------------------------------


def test_it_works_in_a_torch_sequential(technique: RegionTransform) -> None:
    assert torch.equal(nn.Sequential(technique, make("fill"))(crops()), make("fill")(crops()))


def test_it_works_in_a_kornia_image_sequential(technique: RegionTransform) -> None:
    assert torch.equal(ImageSequential(technique)(crops()), technique(crops()))


def test_it_works_in_a_kornia_augmentation_sequential(technique: RegionTransform) -> None:
    mask = crops(channels=1).round()
    images, masks = AugmentationSequential(technique, data_keys=["input", "mask"])(crops(), mask)
    assert torch.equal(images, technique(crops()))
    assert torch.equal(masks, mask)


def test_a_kornia_container_does_not_change_its_fingerprint(technique: RegionTransform) -> None:
    before = fingerprint(technique)
    ImageSequential(technique)(crops())
    assert fingerprint(technique) == before


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


def test_other_entries_of_a_sample_are_kept(technique: RegionTransform, astronaut: Tensor, face_box: Tensor) -> None:
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


def test_image_and_target_may_be_two_arguments(
    technique: RegionTransform, astronaut: Tensor, face_box: Tensor
) -> None:
    sample = sample_of(astronaut, face_box)
    image, target = v2.Compose([technique])(sample["image"], {"boxes": sample["boxes"]})
    assert torch.equal(image, technique(sample)["image"])
    assert target["boxes"] is sample["boxes"]


def test_the_sample_is_not_modified(technique: RegionTransform, astronaut: Tensor, face_box: Tensor) -> None:
    sample, before = sample_of(astronaut, face_box), astronaut.clone()
    out = technique(sample)
    assert torch.equal(sample["image"], before)
    assert out is not sample


def test_a_sample_without_regions_keeps_its_picture(technique: RegionTransform, astronaut: Tensor) -> None:
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


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_cannot_cover_is_refused(technique: RegionTransform, what: str) -> None:
    given, message = REFUSED[what]
    with pytest.raises(ShapeError) as raised:
        technique(given)
    assert message in str(raised.value)
    assert str(raised.value).startswith(f"{technique.name}: ")


def test_no_argument_at_all_is_refused(technique: RegionTransform) -> None:
    with pytest.raises(ShapeError, match="expected exactly one"):
        technique()


BAD_BOXES: dict[str, tuple[list[float], str]] = {
    "NaN": ([float("nan"), 2, 9, 9], "boxes must be finite"),
    "infinite": ([2, 2, float("inf"), 9], "boxes must be finite"),
    "inside out": ([9, 2, 2, 9], "boxes must be x0, y0, x1, y1 with x0 <= x1 and y0 <= y1"),
    "upside down": ([2, 9, 9, 2], "boxes must be x0, y0, x1, y1 with x0 <= x1 and y0 <= y1"),
}


@pytest.mark.parametrize("what", BAD_BOXES)
def test_boxes_that_mean_nothing_are_refused(technique: RegionTransform, astronaut: Tensor, what: str) -> None:
    box, message = BAD_BOXES[what]
    with pytest.raises(ShapeError, match=message):
        technique.change_regions(astronaut, torch.tensor([[2.0, 2, 9, 9], box]))


# --- regions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_keeps_shape_dtype_and_device(
    technique: RegionTransform, face_box: Tensor, dtype: torch.dtype, channels: int, device: torch.device
) -> None:
    picture = (torch.rand(channels, 220, 300) * (255 if dtype == torch.uint8 else 1)).to(device, dtype)
    out = technique.change_regions(picture, face_box.to(device))
    assert (out.shape, out.dtype, out.device) == (picture.shape, dtype, picture.device)


def test_nothing_of_the_region_is_left(case: str, astronaut: Tensor, face_box: Tensor) -> None:
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


def test_the_order_of_far_regions_does_not_matter(technique: RegionTransform, astronaut: Tensor) -> None:
    boxes = torch.tensor([[175.0, 60, 275, 200], [20, 400, 60, 440], [400, 20, 460, 90]])
    one = technique.change_regions(astronaut, boxes)
    assert torch.equal(one, technique.change_regions(astronaut, boxes.flip(0)))


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


def test_crops_with_nan_come_out_finite(technique: RegionTransform) -> None:
    given = crops()
    given[0, 0, 5, 5], given[1, 1, 6, 6], given[2, 2, 7, 7] = float("nan"), float("inf"), -float("inf")
    out = technique(given)
    assert out.isfinite().all()
    assert 0 <= out.min() <= out.max() <= 1


def test_a_picture_that_requires_gradients_is_covered(
    technique: RegionTransform, astronaut: Tensor, face_box: Tensor
) -> None:
    picture = astronaut.float() / 255
    out = technique.change_regions(picture.clone().requires_grad_(), face_box)
    assert torch.equal(out.detach(), technique.change_regions(picture, face_box))


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


def test_a_picture_without_pixels_is_given_back(technique: RegionTransform, face_box: Tensor) -> None:
    assert technique.change_regions(torch.zeros(3, 0, 7), face_box).shape == (3, 0, 7)


def test_strength_is_relative_to_the_region(case: str, astronaut: Tensor, face_box: Tensor) -> None:
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
    assert (seen[0] - seen[1]).abs().mean() < 0.03
