"""What a technique does as a member of kornia's AugmentationSequential, and what is refused there."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from typing import Any

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from kornia.geometry.boxes import Boxes
from torch import Tensor

from anondata.crops import FLOATS
from anondata.errors import ShapeError
from anondata.randomness import RunKey
from anondata.transforms import Fill, KorniaRegions, Mask, Noise, RegionTransform

KEY = RunKey(b"a secret of enough bytes")
EXACT = {"coverage": 1.0, "feather": 0.0}
# x0, y0, x1, y1 as kornia means them, the last pixel included: two regions, none, one.
RAGGED = [
    torch.tensor([[4.0, 2, 11, 7], [20, 20, 25, 29]]),
    torch.zeros(0, 4),
    torch.tensor([[0.0, 24, 9, 31]]),
]
ACROSS = torch.tensor([0.0, 0, 1, 1])  # from there to past the last pixel


def pictures(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 32, 40, generator=torch.Generator().manual_seed(7))


def container(*members: Any, keys: tuple[str, ...] = ("input", "bbox_xyxy"), **more: Any) -> K.AugmentationSequential:
    return K.AugmentationSequential(*members, data_keys=list(keys), **more)


def changed(before: Tensor, after: Tensor) -> Tensor:
    """Whether each pixel is another, ``(B, H, W)``."""
    return (before != after).any(dim=1)


def inside(boxes: list[Tensor]) -> Tensor:
    mask = torch.zeros(len(boxes), 32, 40, dtype=torch.bool)
    for row, of_one in zip(mask, boxes, strict=True):
        for x0, y0, x1, y1 in of_one.int().tolist():
            row[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


# --- what is changed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["noise", "mask", "chain"])
def test_each_image_is_changed_as_the_technique_alone_changes_it(technique: RegionTransform) -> None:
    given = pictures()
    out, boxes = container(KorniaRegions(technique))(given, RAGGED)
    for image, before, own in zip(out, given, RAGGED, strict=True):
        assert torch.equal(image, technique.change_regions(before, own + ACROSS))
    assert all(map(torch.equal, boxes, RAGGED))


def test_regions_alone_are_changed_and_all_of_them() -> None:
    given = pictures()
    out, _ = container(KorniaRegions(Fill(**EXACT)))(given, RAGGED)
    assert torch.equal(changed(given, out), inside(RAGGED))


def test_boxes_masks_and_keypoints_stay() -> None:
    masks = (torch.arange(3 * 32 * 40) % 5).reshape(3, 1, 32, 40)
    points = torch.rand(3, 5, 2) * 30
    keys = ("input", "mask", "keypoints", "bbox_xyxy", "bbox_xywh")
    more = [torch.tensor([[1.0, 1, 3, 3]])] * 3
    augment = container(KorniaRegions(Noise(key=KEY)), keys=keys)
    _, seen, where, boxes, others = augment(pictures(), masks, points, RAGGED, more)
    assert torch.equal(seen, masks)
    assert seen.dtype == masks.dtype
    assert torch.equal(where, points)
    assert all(map(torch.equal, boxes, RAGGED))
    assert all(map(torch.equal, others, more))


def test_the_order_of_the_data_does_not_matter() -> None:
    given, points = pictures(), torch.zeros(3, 1, 2)
    augment = K.AugmentationSequential(KorniaRegions(Fill(**EXACT)), data_keys=None)
    out = augment({"keypoints": points, "bbox_xyxy": RAGGED, "labels": [1, 2, 3], "image": given})
    assert torch.equal(changed(given, out["image"]), inside(RAGGED))
    assert out["labels"] == [1, 2, 3]


@pytest.mark.parametrize("form", ["dense", "xywh", "vertices", "Boxes", "two keys"])
def test_boxes_of_every_form_are_covered(form: str) -> None:
    given, one, other = pictures(2), torch.tensor([[4.0, 2, 11, 7]]), torch.tensor([[20.0, 20, 25, 29]])
    keys: tuple[str, ...] = ("input", "bbox_xyxy")
    dense = torch.stack([one, other])
    boxes: tuple[Any, ...] = (dense,)
    if form == "xywh":
        keys, boxes = ("input", "bbox_xywh"), (torch.cat([dense[..., :2], dense[..., 2:] - dense[..., :2] + 1], -1),)
    elif form == "vertices":
        keys, boxes = ("input", "bbox"), (dense[..., [0, 1, 2, 1, 2, 3, 0, 3]].reshape(2, 1, 4, 2),)
    elif form == "Boxes":
        boxes = (Boxes.from_tensor(dense, mode="xyxy_plus"),)
    elif form == "two keys":
        keys, boxes = ("input", "bbox_xyxy", "bbox_xyxy"), ([one, one[:0]], [other[:0], other])
    out = container(KorniaRegions(Fill(**EXACT)), keys=keys)(given, *boxes)[0]
    assert torch.equal(changed(given, out), inside([one, other]))


def test_boxes_are_covered_where_earlier_members_moved_them() -> None:
    given = pictures()
    out, boxes = container(K.RandomHorizontalFlip(p=1.0), KorniaRegions(Fill(**EXACT)))(given, RAGGED)
    assert torch.equal(changed(given.flip(-1), out), inside(boxes))
    assert torch.equal(inside(boxes), inside(RAGGED).flip(-1))


def test_a_turned_box_is_covered_by_the_upright_one_around_it() -> None:
    given, box = torch.zeros(1, 3, 32, 40), torch.tensor([[[12.0, 12, 23, 19]]])
    given[..., 12:20, 12:24] = 1
    turn = K.RandomAffine((45.0, 45.0), p=1.0)
    assert container(turn)(given, box)[0].max() > 0.5
    assert container(turn, KorniaRegions(Fill((0.0, 0.0, 0.0), coverage=1.1)))(given, box)[0].max() < 0.01


def test_later_members_see_what_was_changed() -> None:
    given = pictures()
    one, _ = container(KorniaRegions(Fill()))(given, RAGGED)
    out, _ = container(KorniaRegions(Fill()), K.RandomVerticalFlip(p=1.0))(given, RAGGED)
    assert torch.equal(out, one.flip(-2))


def test_a_batch_without_regions_stays_and_shares_no_memory() -> None:
    given = pictures(2)
    out, boxes = container(KorniaRegions(Noise(key=KEY)))(given, [torch.zeros(0, 4)] * 2)
    assert torch.equal(out, given)
    assert out.data_ptr() != given.data_ptr()
    assert [tuple(box.shape) for box in boxes] == [(0, 4)] * 2


@pytest.mark.parametrize("keepdim", [False, True])
def test_one_image_needs_no_batch_axis(keepdim: bool) -> None:
    given = pictures(1)[0]
    out, _ = container(KorniaRegions(Fill(**EXACT), keepdim=keepdim))(given, RAGGED[0])
    assert out.shape == (given.shape if keepdim else (1, *given.shape))
    assert torch.equal(changed(given[None], out.reshape(1, *given.shape)), inside(RAGGED[:1]))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_dtype_and_device_stay(dtype: torch.dtype, device: torch.device) -> None:
    given = pictures().to(device, dtype)
    out, boxes = container(KorniaRegions(Noise(key=KEY)))(given, [box.to(device) for box in RAGGED])
    assert (out.dtype, out.device, out.shape) == (dtype, given.device, given.shape)
    assert boxes[0].device == given.device
    assert changed(given, out).any()


# --- p -------------------------------------------------------------------------------------------------------------


def test_every_image_is_changed_unless_told_otherwise() -> None:
    given = pictures(1).expand(64, -1, -1, -1)
    out, _ = container(KorniaRegions(Fill()))(given, [RAGGED[0]] * 64)
    assert changed(given, out).flatten(1).any(1).all()


def test_parameters_that_spare_an_image_spare_none_unless_p_says_so() -> None:
    given, spared = pictures(), {"batch_prob": torch.zeros(3)}
    for p, expected in ((1.0, [True, False, True]), (0.5, [False] * 3)):
        augment = container(KorniaRegions(Fill(), p=p))
        augment(given, RAGGED)
        params = [item._replace(data={**item.data, **spared}) for item in augment._params]
        out, _ = augment(given, RAGGED, params=params)
        assert changed(given, out).flatten(1).any(1).tolist() == expected


def test_p_is_the_share_of_images_that_are_changed_whole() -> None:
    given, augment = pictures(1).expand(64, -1, -1, -1), container(KorniaRegions(Fill(**EXACT), p=0.5))
    torch.manual_seed(3)
    out, _ = augment(given, [RAGGED[0]] * 64)
    touched = changed(given, out)
    chosen = touched.flatten(1).any(1)
    assert 16 < chosen.sum() < 48
    assert torch.equal(chosen, augment._params[0].data["batch_prob"] > 0.5)
    assert torch.equal(touched[chosen], inside(RAGGED[:1]).expand(int(chosen.sum()), -1, -1))
    again, _ = augment(given, [RAGGED[0]] * 64, params=augment._params)
    assert torch.equal(again, out)


def test_p_0_changes_nothing_and_same_on_batch_chooses_for_all() -> None:
    given = pictures(1).expand(16, -1, -1, -1)
    assert torch.equal(container(KorniaRegions(Fill(), p=0.0))(given, [RAGGED[0]] * 16)[0], given)
    for _ in range(8):
        out, _ = container(KorniaRegions(Fill(), p=0.5), same_on_batch=True)(given, [RAGGED[0]] * 16)
        assert len(changed(given, out).flatten(1).any(1).unique()) == 1


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), True, "1"])
def test_p_is_a_share(p: Any) -> None:
    with pytest.raises(ValueError, match="p must be"):
        KorniaRegions(Fill(), p=p)


# --- randomness ----------------------------------------------------------------------------------------------------


def drawn(same: bool | None, given: Tensor, *, key: RunKey = KEY) -> list[Tensor]:
    """What noise added in two regions of one size of each image, given flat ones."""
    augment = container(KorniaRegions(Noise(std=0.1, **EXACT, key=key)), same_on_batch=same)
    out, _ = augment(given, [torch.tensor([[4.0, 2, 11, 9], [20, 20, 27, 27]])] * len(given))
    return [(out - given)[:, :, y0 : y0 + 8, x0 : x0 + 8] for x0, y0 in ((4, 2), (20, 20))]


def grey(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 32, 40).clone()


def test_images_draw_for_themselves() -> None:
    for noise in drawn(None, grey(0.5, 0.52)):
        assert (noise[0] - noise[1]).abs().mean() > 0.02


def test_same_on_batch_draws_the_same_for_all_images_but_not_for_two_regions() -> None:
    one, other = drawn(True, grey(0.5, 0.52, 0.48))
    for noise in (one, other):
        assert (noise - noise[:1]).abs().max() < 1e-5
        assert noise.abs().mean() > 0.02
    assert (one - other).abs().mean() > 0.02


def test_same_on_batch_draws_anew_for_another_batch_and_by_another_key() -> None:
    given = grey(0.5, 0.5)
    first = drawn(True, given)[0][0]
    assert torch.equal(first, drawn(True, given)[0][0])
    assert (first - drawn(True, grey(0.51, 0.5))[0][0]).abs().mean() > 0.02
    assert (first - drawn(True, given, key=RunKey(b"another secret of enough bytes"))[0][0]).abs().mean() > 0.02


def test_an_image_comes_out_the_same_at_any_place_of_a_batch() -> None:
    given, augment = pictures(), container(KorniaRegions(Noise(key=KEY)))
    out, _ = augment(given, RAGGED)
    turned, _ = augment(given.flip(0), RAGGED[::-1])
    assert torch.equal(turned.flip(0), out)


@pytest.mark.parametrize("same", [False, True])
def test_no_global_generator_is_touched_and_nothing_is_written_or_kept(same: bool) -> None:
    module, given = KorniaRegions(Noise(key=KEY), same_on_batch=same), pictures()
    before, states = pickle.dumps(module), (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    copy, augment = given.clone(), container(module)
    augment(given, RAGGED)
    assert torch.equal(given, copy)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    assert pickle.dumps(module) == before
    assert set(augment._params[0].data) == {"batch_prob", "forward_input_shape"}
    assert "secret" not in repr(module)


# --- what is refused -----------------------------------------------------------------------------------------------

BOXES = [RAGGED[0], RAGGED[1], RAGGED[2]]
NO_BOXES = "fill: sees no boxes here"


@pytest.mark.parametrize(
    ("wrapped", "keys", "data", "message"),
    [
        (lambda m: m, ["input"], (), NO_BOXES),
        (lambda m: m, ["input", "mask"], (torch.zeros(3, 1, 32, 40),), NO_BOXES),
        (K.ImageSequential, ["input", "bbox_xyxy"], (BOXES,), NO_BOXES),
        (lambda m: container(m), ["input", "bbox_xyxy"], (BOXES,), NO_BOXES),
        (lambda m: m, ["input", "bbox_xyxy"], (BOXES[:2],), "expected boxes of 3 images, got those of 2"),
        (lambda m: m, ["input", "bbox_xyxy"], (BOXES[0],), "expected boxes of 3 images, got those of 1"),
        (lambda m: m, ["input", "bbox_xyxy", "bbox_xyxy"], (BOXES, BOXES[:1]), "got those of 3, 1"),
    ],
)
def test_boxes_that_are_missing_are_an_error(wrapped: Any, keys: list[str], data: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        K.AugmentationSequential(wrapped(KorniaRegions(Fill())), data_keys=keys)(pictures(), *data)


def test_boxes_under_an_unknown_name_are_an_error() -> None:
    with pytest.raises(ShapeError, match=NO_BOXES):
        K.AugmentationSequential(KorniaRegions(Fill()), data_keys=None)({"image": pictures(), "boxes": BOXES})


def test_alone_it_sees_no_boxes() -> None:
    for call in (KorniaRegions(Fill()), K.ImageSequential(KorniaRegions(Fill()))):
        with pytest.raises(ShapeError, match=NO_BOXES):
            call(pictures())


def test_a_replay_on_another_number_of_images_is_an_error() -> None:
    augment = container(KorniaRegions(Fill(), p=0.5))
    augment(pictures(), RAGGED)
    with pytest.raises(ShapeError, match="2 images, boxes of 3"):
        augment(pictures(2), RAGGED, params=augment._params)


def test_boxes_that_are_not_finite_are_an_error() -> None:
    vertices = torch.zeros(1, 1, 4, 2)
    vertices[0, 0, 1, 0] = float("nan")
    with pytest.raises((ShapeError, RuntimeError), match="finite"):
        container(KorniaRegions(Fill()))(pictures(1), Boxes(vertices))


def test_whole_numbers_are_refused_by_kornia() -> None:
    with pytest.raises(TypeError, match="uint8"):
        container(KorniaRegions(Fill()))((pictures() * 255).byte(), RAGGED)


@pytest.mark.parametrize(
    ("key", "data"), [("label", torch.zeros(3)), ("mask", [torch.zeros(1, 32, 40)] * 3)], ids=["label", "masks"]
)
def test_what_kornia_cannot_do_here_raises(key: str, data: Any) -> None:
    with pytest.raises(NotImplementedError):
        container(KorniaRegions(Fill()), keys=("input", "bbox_xyxy", key))(pictures(), RAGGED, data)


def test_only_techniques_are_taken() -> None:
    with pytest.raises(TypeError, match="technique must be a RegionTransform, got Identity"):
        KorniaRegions(torch.nn.Identity())  # type: ignore[arg-type]


def test_inpainting_knows_its_surroundings_here_too() -> None:
    given = pictures()
    out, _ = container(KorniaRegions(Mask(by="inpaint")))(given, RAGGED)
    assert torch.equal(out[0], Mask(by="inpaint").change_regions(given[0], RAGGED[0] + ACROSS))


def test_without_kornia_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['kornia'] = None\nimport anondata.transforms as t\nt.Pixelate\n"
    code += "try: t.KorniaRegions\nexcept ImportError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "kornia is not installed: pip install 'anondata[kornia]'"
