"""What every test of a technique needs: the techniques, devices and a real photo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import skimage.data
import torch
from torch import Tensor
from torchvision import tv_tensors

from anondata.components import TABLES, build
from anondata.randomness import RunKey
from anondata.transforms import RegionTransform

FACE = (175, 60, 275, 200)  # the astronaut's face, x0, y0, x1, y1

# Without a GPU there is one skip that says so, in test_contract.py, instead of hundreds.
_DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else [])]


@pytest.fixture(params=_DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(scope="session")
def astronaut() -> Tensor:
    """``(3, 512, 512)`` uint8, a portrait in the public domain (NASA)."""
    return torch.from_numpy(skimage.data.astronaut().copy()).permute(2, 0, 1).contiguous()


@pytest.fixture
def face_box() -> Tensor:
    return torch.tensor([FACE], dtype=torch.float32)


@pytest.fixture
def face_crop(astronaut: Tensor) -> Tensor:
    """``(1, 3, 140, 100)`` float in [0, 1]."""
    x0, y0, x1, y1 = FACE
    return astronaut[None, :, y0:y1, x0:x1].float() / 255


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in TABLES["technique"]},
    "synthetic_face": ("synthetic_face", {"members": 4, "choices": 8}),  # each face costs a second, once
    "ksame": ("ksame", {"k": 3, "members": 4}),
    "fill_mean": ("fill", {"color": "mean"}),
    "pixelate_noise": ("pixelate", {"noise": 0.3}),
    "frequency_reject": ("frequency_filter", {"low": 0.5, "high": 64.0, "mode": "reject"}),
    "mask_mean": ("mask", {"by": "mean"}),
    "mask_solid": ("mask", {"by": "solid"}),
    "random_noise": ("random_replace", {"by": "noise"}),
    "resize_bicubic": ("resize", {"kernel": "bicubic"}),
    "resize_nearest": ("resize", {"kernel": "nearest"}),
    "ellipse": ("pixelate", {"shape": "ellipse", "feather": 0.0}),
}


# Each call of these costs a pass of a network, or as much: of every test they get the first, middle and last variant.
DEAR = frozenset({"ksame", "plate_swap", "silhouette", "style_transfer", "synthetic_face", "text_swap"})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    variants: dict[tuple[Any, ...], list[pytest.Item]] = {}
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if params.get("case") in DEAR:
            key = (item.nodeid.partition("[")[0], params["case"], params.get("device"))
            variants.setdefault(key, []).append(item)
    dropped = {
        item
        for group in variants.values()
        for place, item in enumerate(group)
        if place not in (0, len(group) // 2, len(group) - 1)
    }
    config.hook.pytest_deselected(items=list(dropped))
    items[:] = [item for item in items if item not in dropped]


@pytest.fixture(scope="session")
def dear() -> frozenset[str]:
    return DEAR


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    """The name of a technique with some parameters, for ``make``."""
    return str(request.param)


@pytest.fixture(scope="session")
def cases() -> list[str]:
    return list(CASES)


@pytest.fixture(scope="session")
def make(fetched: Callable[..., None]) -> Callable[..., RegionTransform]:
    """The technique of a case, always with the same key unless told another."""

    def made(case: str, **more: Any) -> RegionTransform:
        name, params = CASES[case]
        technique: RegionTransform = build(
            "technique", name, {"key": RunKey(b"a secret of enough bytes"), **params, **more}
        )
        fetched(*getattr(technique, "weights", ()))
        return technique

    return made


@pytest.fixture
def technique(case: str, make: Callable[..., RegionTransform]) -> RegionTransform:
    return make(case)


@pytest.fixture(scope="session")
def sample_of() -> Callable[[Tensor, Tensor], dict[str, Any]]:
    """A torchvision sample of a picture and xyxy boxes."""

    def wrapped(picture: Tensor, boxes: Tensor) -> dict[str, Any]:
        size = (picture.shape[-2], picture.shape[-1])
        return {
            "image": tv_tensors.Image(picture),
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
        }

    return wrapped
