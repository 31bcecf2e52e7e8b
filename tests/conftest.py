"""What all tests share: real photos, and the folder of data where it is there."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from skimage import data
from torch import Tensor

from anondata.errors import WeightsError
from anondata.models.registry import pull
from anondata.policy import load_policy

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def astronaut() -> Tensor:
    """``(3, 512, 512)`` uint8 with one face (NASA, public domain)."""
    import skimage.data

    return torch.from_numpy(np.array(skimage.data.astronaut())).permute(2, 0, 1)


@pytest.fixture(scope="session")
def party_jpeg() -> bytes:
    """insightface's t1.jpg, 1280x886 with six faces, read from the installed package."""
    import importlib.util

    spec = importlib.util.find_spec("insightface")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return (Path(spec.submodule_search_locations[0]) / "data" / "images" / "t1.jpg").read_bytes()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of photos; tests that need it are skipped where it is not."""
    folder = Path(os.environ.get("ANONDATA_TEST_DATA", SHARED))
    if not folder.is_dir():
        pytest.skip(f"the photos are not at {folder}")
    return folder


@pytest.fixture
def upright_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are looked at upright alone in this process, where a test is of what comes before or after that.

    All looks take six times as long on pictures as small as these, and have tests of their own in tests/content.
    """
    monkeypatch.setattr("anondata.content.looks.LOOKS", {})


@cache
def _unavailable(name: str) -> str:
    """Why these weights are not to be had, or nothing."""
    try:
        pull(name)
    except WeightsError as error:
        return str(error)
    return ""


@pytest.fixture(scope="session")
def fetched() -> Callable[..., None]:
    """Fetches weights into the cache folder; a test that asks is skipped where that cannot be."""

    def fetch(*names: str) -> None:
        for name in names:
            if why := _unavailable(name):
                pytest.skip(why)

    return fetch


@cache
def _face() -> Image.Image:
    return Image.fromarray(data.astronaut()).crop((140, 20, 310, 190))


@cache
def _group() -> Image.Image:
    path = resources.files("insightface") / "data" / "images" / "t1.jpg"
    return Image.open(io.BytesIO(path.read_bytes())).convert("RGB").resize((320, 222))


@pytest.fixture
def photo() -> Callable[..., bytes]:
    """Encoded photos of a face: each number is another picture, ``group`` one of six people."""

    def make(number: int = 0, format: str = "JPEG", *, group: bool = False, **options: Any) -> bytes:
        picture = _group() if group else _face().crop((number % 9, number // 9, 160 + number % 9, 160 + number // 9))
        buffer = io.BytesIO()
        picture.save(buffer, format, **options)
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def grey_policy() -> Callable[[str], str]:
    """``faces-fill`` in YAML with one grey in place of random colours, and this ``given:``."""

    def made(given: str) -> str:
        data = yaml.safe_load(load_policy("faces-fill").to_yaml())
        content = data["content"]["image"]
        content["given"] = yaml.safe_load(given)
        content["regions"]["face"]["ladder"] = [{"fill": {"coverage": 1.5}}]
        return yaml.safe_dump(data, sort_keys=False)

    return made
