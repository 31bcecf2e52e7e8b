"""What every technique promises of crops: a new one joins by being in the components' table."""

from __future__ import annotations

import copy
import inspect
import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from kornia.augmentation.container import AugmentationSequential, ImageSequential
from torch import Tensor, nn

from anondata.components import TABLES, build
from anondata.errors import PolicyError, ShapeError
from anondata.randomness import RunKey
from anondata.transforms import RegionTransform, describe

RANDOM = ("noise", "pixelate_noise", "random_colors", "random_noise", "random_replace")  # on flat pictures, too
DRAWING = (
    *RANDOM,
    "chain",
    "style_transfer",
    "shuffle",
    "warp",
    "text_swap",
    "plate_swap",
    "synthetic_face",
    "ksame",
)
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
    ({"shape": "circle"}, "shape must be 'ellipse', 'rectangle' or 'rounded', got 'circle'"),
    ({"key": "a secret of enough bytes"}, "key must be a RunKey, got str"),
    ({"coverge": 1.3}, "has no parameter 'coverge'; did you mean 'coverage'"),
]


def crops(count: int = 3, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(7))


# --- crops in, crops out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 3, 32, 32), torch.float16),
        ((2, 1, 32, 32), torch.bfloat16),
        ((2, 4, 32, 32), torch.float32),
        ((2, 3, 20, 51), torch.float64),
        ((3, 32, 32), torch.float32),
    ],
    ids=str,
)
def test_a_finite_picture_of_the_same_shape_dtype_and_device_comes_out(
    technique: RegionTransform, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    out = technique(torch.rand(shape).to(device, dtype))
    assert (tuple(out.shape), out.dtype, out.device.type) == (shape, dtype, device.type)
    assert out.isfinite().all()
    assert 0 <= out.min() <= out.max() <= 1


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="every test that takes a device needs CUDA for a second one"
)
def test_there_is_a_second_device(device: torch.device) -> None:
    assert device.type in ("cpu", "cuda")


def test_crops_of_any_size_are_taken(technique: RegionTransform) -> None:
    for shape in ((1, 3, 1, 1), (1, 3, 1, 40), (1, 3, 40, 1), (1, 1, 2, 3), (1, 3, 700, 30)):
        out = technique(torch.rand(shape))
        assert out.shape == shape
        assert out.isfinite().all()


def test_no_technique_goes_another_way_to_its_crops_than_all() -> None:
    """What one technique shows of these methods it shows for all; one that overrides them is tested for itself."""
    shared = ("forward", "_change_crops", "_change_sample", "_own_seeds", "_xyxy", "change_regions", "weight")
    own = set()
    for path in TABLES["technique"].values():
        module, _, name = path.partition(":")
        made = getattr(import_module(module), name)
        own |= {(name, one) for one in shared if getattr(made, one) is not getattr(RegionTransform, one)}
    assert own == {("Mask", "change_regions")}


@pytest.mark.parametrize("shape", [(0, 3, 32, 32), (0, 1, 8, 4), (2, 3, 0, 5)], ids=str)
def test_an_empty_batch_stays_empty(make: Any, shape: tuple[int, ...]) -> None:
    assert make("pixelate")(torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.uint16, torch.float8_e5m2], ids=str)
def test_crops_that_are_no_floats_are_refused(make: Any, dtype: torch.dtype) -> None:
    with pytest.raises(
        ShapeError, match=r"expected float crops \(R, C, H, W\) in \[0, 1\], got .*divide by 255 first"
    ):
        make("pixelate")(torch.ones(2, 3, 8, 8).to(dtype))


@pytest.mark.parametrize("shape", [(), (8,), (8, 8), (1, 2, 3, 8, 8)], ids=str)
def test_crops_of_another_rank_are_refused(make: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected float crops \(R, C, H, W\)"):
        make("pixelate")(torch.rand(shape))


def test_the_input_is_neither_modified_nor_handed_out(technique: RegionTransform, device: torch.device) -> None:
    given = crops().to(device)
    before = given.clone()
    out = technique(given)
    assert torch.equal(given, before)
    out.fill_(0.123)
    assert torch.equal(given, before)
    technique.change(
        given, extent=1.0, seeds=[1, 2, 3]
    )  # as the engine calls it, which cuts crops once for all rungs
    assert torch.equal(given, before)


def test_crops_of_every_size_come_out_changed(technique: RegionTransform) -> None:
    for side, least in ((2, 0.02), (3, 0.02), (4, 0.02), (5, 0.02), (8, 0.02), (16, 0.02), (32, 0.05)):
        given = crops(4, height=side, width=side)
        assert (technique(given) - given).abs().mean() > least, side


def test_memory_layout_does_not_matter(technique: RegionTransform) -> None:
    plain = crops(2)
    grey = plain[:, :1].expand(-1, 3, -1, -1)
    layouts = {
        "channels last": (plain.contiguous(memory_format=torch.channels_last), plain),
        "strided": (plain.repeat_interleave(2, dim=-1)[..., ::2], plain),
        "transposed": (plain.transpose(-1, -2).contiguous().transpose(-1, -2), plain),
        "expanded": (grey, grey.contiguous()),
    }
    for given, same in layouts.values():
        torch.testing.assert_close(technique(given), technique(same), rtol=0, atol=1e-6)


def test_crops_with_nan_come_out_finite(technique: RegionTransform) -> None:
    given = crops()
    given[0, 0, 5, 5], given[1, 1, 6, 6], given[2, 2, 7, 7] = float("nan"), float("inf"), -float("inf")
    out = technique(given)
    assert out.isfinite().all()
    assert 0 <= out.min() <= out.max() <= 1


# --- batches -------------------------------------------------------------------------------------------------------


def test_permuting_the_batch_permutes_the_result(technique: RegionTransform, device: torch.device) -> None:
    given, order = crops(5).to(device), torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(technique(given[order]), technique(given)[order])


def test_a_batch_of_one_equals_its_row_in_a_batch_of_many(technique: RegionTransform, device: torch.device) -> None:
    given = crops(5).to(device)
    assert torch.equal(torch.cat([technique(given[i : i + 1]) for i in range(5)]), technique(given))


def test_a_crop_without_a_batch_axis_equals_a_batch_of_one(make: Any) -> None:
    technique = make("noise")
    assert torch.equal(technique(crops(1)[0]), technique(crops(1))[0])


# --- state ---------------------------------------------------------------------------------------------------------


def fingerprint(module: nn.Module) -> bytes:
    """What datasets hashes: the pickle of the module."""
    return pickle.dumps(module)


def test_forward_writes_no_state(
    technique: RegionTransform, astronaut: Tensor, face_box: Tensor, sample_of: Any
) -> None:
    keys, before = set(vars(technique)), fingerprint(technique)
    technique(crops())
    technique(sample_of(astronaut, face_box))
    assert set(vars(technique)) == keys
    assert fingerprint(technique) == before


def test_there_are_no_parameters_and_no_buffers(technique: RegionTransform) -> None:
    assert not technique.state_dict()
    assert not list(technique.buffers())


def test_a_copy_in_any_mode_gives_the_same_result(technique: RegionTransform) -> None:
    expected = technique(crops())
    for copied in (copy.deepcopy(technique).eval(), copy.copy(technique), pickle.loads(pickle.dumps(technique))):
        assert torch.equal(copied(crops()), expected)


def test_another_process_gives_the_same_results(cases: Sequence[str], make: Any) -> None:
    techniques = [make(case) for case in cases]
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
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},  # as many threads: networks round differently with more
    )
    for technique, there in zip(techniques, pickle.loads(done.stdout), strict=True):
        assert np.array_equal(technique(crops()).numpy(), there)


def test_two_threads_get_what_one_gets(technique: RegionTransform) -> None:
    batches = [crops(2) * (i + 1) / 8 for i in range(8)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(technique, batches))
    assert all(torch.equal(a, technique(b)) for a, b in zip(together, batches, strict=True))


def test_gradients_or_none_do_not_matter(technique: RegionTransform) -> None:
    expected = technique(crops())
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(technique(crops()), expected)
    assert torch.equal(technique(crops().requires_grad_()).detach(), expected)


@pytest.mark.parametrize("case", ["pixelate", "gaussian_blur", "fill_mean"])
def test_gradients_flow_where_the_technique_has_any(case: str, make: Any) -> None:
    given = crops().requires_grad_()
    make(case)(given).square().sum().backward()
    assert given.grad is not None
    assert given.grad.abs().sum() > 0


# --- randomness ----------------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_result(case: str, make: Any) -> None:
    assert torch.equal(make(case)(crops()), make(case)(crops()))


def test_another_key_changes_random_techniques_and_only_those(case: str, make: Any) -> None:
    other = make(case, key=RunKey(b"another secret of enough bytes"))
    assert torch.equal(make(case)(crops()), other(crops())) == (case not in DRAWING)


@pytest.mark.parametrize("case", RANDOM)
def test_without_a_key_two_modules_draw_differently(case: str, make: Any) -> None:
    assert not torch.equal(make(case, key=None)(crops()), make(case, key=None)(crops()))


@pytest.mark.parametrize("case", RANDOM)
def test_two_regions_get_different_noise(case: str, make: Any) -> None:
    given = torch.stack([torch.full((3, 32, 32), 0.5), torch.full((3, 32, 32), 0.5 + 1 / 255)])
    out = make(case)(given)
    assert (out[0] - out[1]).abs().mean() > 0.05


def test_a_technique_uses_seeds_if_it_says_that_it_draws(case: str, make: Any) -> None:
    technique = make(case)
    one, two = (technique.change(crops(), extent=1.4, seeds=[seed] * 3) for seed in (1, 2))
    assert torch.equal(one, two) == (not technique.draws)


def test_global_random_states_stay(
    technique: RegionTransform, astronaut: Tensor, face_box: Tensor, sample_of: Any
) -> None:
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), np.random.get_state()[2], random.getstate())
    technique(crops())
    technique(sample_of(astronaut, face_box))
    after = (torch.get_rng_state(), np.random.get_state()[1], np.random.get_state()[2], random.getstate())
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


# --- configuration -------------------------------------------------------------------------------------------------


def test_config_round_trips_through_json(case: str, make: Any) -> None:
    technique = make(case)
    again = build("technique", technique.name, json.loads(json.dumps(technique.config())))
    assert again.config() == technique.config()
    assert describe(again) == describe(technique)


def test_config_holds_every_parameter_of_the_constructor_but_the_key(technique: RegionTransform) -> None:
    own, common = (set(inspect.signature(made).parameters) for made in (type(technique), RegionTransform))
    assert set(technique.config()) == (own | common) - {"common", "key"}


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


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        *(("pixelate", *limit) for limit in COMMON_LIMITS),
        *((name, *COMMON_LIMITS[0]) for name in TABLES["technique"] if name != "pixelate"),
    ],
    ids=str,
)
def test_bad_common_parameters_are_refused(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        build("technique", name, params)
    assert f"technique '{name}'" in str(raised.value)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("near", "known"),
    [
        ("pixelat", "pixelate"),
        ("gausian_blur", "gaussian_blur"),
        ("Fill", "fill"),
        ("shufle", "shuffle"),
        ("frequency", "frequency_filter"),
        ("random_replacement", "random_replace"),
        ("resise", "resize"),
        ("Mask", "mask"),
        ("wrap", "warp"),
    ],
)
def test_an_unknown_technique_suggests_the_nearest(near: str, known: str) -> None:
    with pytest.raises(PolicyError, match=f"unknown technique '{near}'; did you mean '{known}'\\?"):
        build("technique", near, {})


def test_an_unknown_technique_like_no_other_lists_all() -> None:
    known = ", ".join(sorted(TABLES["technique"]))
    with pytest.raises(PolicyError, match=f"unknown technique 'zzz'; known: {known}"):
        build("technique", "zzz", {})


# --- containers of crops -------------------------------------------------------------------------------------------


def test_it_works_in_containers_of_torch_and_kornia(make: Any) -> None:
    technique, mask = make("pixelate_noise"), crops(channels=1).round()
    before = fingerprint(technique)
    assert torch.equal(nn.Sequential(technique, make("fill"))(crops()), make("fill")(crops()))
    assert torch.equal(ImageSequential(technique)(crops()), technique(crops()))
    images, masks = AugmentationSequential(technique, data_keys=["input", "mask"])(crops(), mask)
    assert torch.equal(images, technique(crops()))
    assert torch.equal(masks, mask)
    assert fingerprint(technique) == before
