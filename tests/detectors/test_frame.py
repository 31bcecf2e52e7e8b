"""The frame: all of every picture, whatever its size."""

from __future__ import annotations

import torch

from anondata.components import build
from anondata.detectors.frame import FrameDetector


def test_every_picture_is_one_region_of_its_own_size() -> None:
    views = [torch.zeros(3, 20, 30, dtype=torch.uint8), torch.zeros(3, 1, 1, dtype=torch.uint8)]
    found = FrameDetector().detect(views)
    assert (found.image.tolist(), found.kinds) == ([0, 1], ("frame", "frame"))
    assert found.boxes.tolist() == [[0, 0, 30, 20], [0, 0, 1, 1]]
    assert found.landmarks.isnan().all()


def test_no_pictures_no_frames() -> None:
    assert len(FrameDetector().detect([])) == 0


def test_it_is_called_frame() -> None:
    assert build("detector", "frame", {}) == FrameDetector()
