"""What every test of a technique needs: devices and a real photo."""

from __future__ import annotations

import pytest
import skimage.data
import torch
from torch import Tensor

FACE = (175, 60, 275, 200)  # the astronaut's face, x0, y0, x1, y1

_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=_CUDA)])
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
