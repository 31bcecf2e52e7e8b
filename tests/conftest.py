"""What all tests share: real photos, and the folder of data where it is there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

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
