"""Persons: found at every size, cut or whole, and never beyond the picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anondata.content.codec import decode
from anondata.detectors.persons import PersonDetector, _is_part, windows
from anondata.detectors.persons_torchvision import TorchvisionPersonDetector
from anondata.detectors.pyramid import box_iou
from anondata.errors import PolicyError, WeightsError


@pytest.fixture(autouse=True)
def weights(fetched: Callable[..., None], request: pytest.FixtureRequest) -> None:
    if "astronaut" in request.fixturenames:
        fetched("persons-ssdlite")


def test_the_astronaut_is_found_as_one_person(astronaut: Tensor) -> None:
    found = PersonDetector().detect([astronaut])
    assert found.kinds == ("person",)
    assert float(box_iou(found.boxes, torch.tensor([[0.0, 5, 385, 512]]))) > 0.8
    assert not bool(found.landmarks.isfinite().any())


def test_all_six_at_the_table_are_found(astronaut: Tensor, party_jpeg: bytes) -> None:
    people = torch.tensor(
        [
            [0, 233, 300, 840],
            [222, 98, 468, 672],
            [355, 218, 680, 645],
            [590, 290, 915, 645],
            [872, 2, 1260, 655],
            [985, 236, 1280, 700],
        ]
    ).float()
    found = PersonDetector().detect([decode(party_jpeg).pixels])
    assert bool((box_iou(people, found.boxes).amax(dim=1) > 0.5).all())


def test_a_person_in_the_corner_of_a_large_picture_needs_tiles(astronaut: Tensor) -> None:
    scene = torch.full((3, 1500, 2000), 120, dtype=torch.uint8)
    scene[:, -256:, -256:] = torch.nn.functional.interpolate(astronaut[None], (256, 256), mode="bilinear")[0]
    truth = torch.tensor([[1744.0, 1247, 1936, 1500]])
    assert float(box_iou(truth, PersonDetector(smallest_px=150).detect([scene]).boxes).amax()) > 0.5


def test_pictures_of_a_batch_do_not_influence_each_other(astronaut: Tensor) -> None:
    strip, dot = torch.zeros(3, 20, 900, dtype=torch.uint8), torch.zeros(3, 1, 1, dtype=torch.uint8)
    together = PersonDetector().detect([dot, astronaut, strip, astronaut])
    alone = PersonDetector().detect([astronaut])
    for i in (1, 3):
        assert torch.equal(together.of_image(i).boxes, alone.boxes)


def test_boxes_end_with_the_picture(astronaut: Tensor) -> None:
    boxes = PersonDetector(threshold=0.05).detect([astronaut]).boxes
    assert float(boxes.min()) >= 0
    assert float(boxes.max()) <= 512


def test_no_pictures_no_persons() -> None:
    assert len(PersonDetector().detect([])) == 0
    assert len(TorchvisionPersonDetector().detect([])) == 0


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(100, 1000))
def test_windows_cover_the_picture_at_every_level(height: int, width: int, smallest: int) -> None:
    found = windows(height, width, smallest_px=smallest)
    assert found[0] == (0, 0, width, height)
    sides: dict[int, list[tuple[int, int, int, int]]] = {}
    for x0, y0, x1, y1 in found[1:]:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        sides.setdefault(max(x1 - x0, y1 - y0), []).append((x0, y0, x1, y1))
    for tiles in sides.values():
        seen = torch.zeros(height // 10 + 1, width // 10 + 1, dtype=torch.bool)
        for x0, y0, x1, y1 in tiles:
            seen[-(-y0 // 10) : y1 // 10 + 1, -(-x0 // 10) : x1 // 10 + 1] = True
        assert bool(seen.all())


def test_a_cut_box_goes_where_whole_ones_hold_it_together() -> None:
    whole = [[0.0, 0, 50, 100], [50.0, 0, 100, 100]]
    boxes = torch.tensor([*whole, [20.0, 20, 80, 90], [80.0, 20, 200, 90]])
    cut = torch.tensor([False, False, True, True])
    assert _is_part(boxes, cut)[2:].tolist() == [True, False]


def test_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(PolicyError, match="threshold must be between 0 and 1"):
        PersonDetector(threshold=1.0)
    with pytest.raises(PolicyError, match="smallest_px must be between 4 and 1000"):
        PersonDetector(smallest_px=1)
    with pytest.raises(PolicyError, match="is not one of"):
        TorchvisionPersonDetector(model="yolo")
    with pytest.raises(PolicyError, match="eight hexadecimal digits"):
        TorchvisionPersonDetector(sha256="907E")


def test_torchvision_without_weights_says_which_file_is_missing() -> None:
    with pytest.raises(WeightsError, match=r"320_fpn…-907ea3f9\.pth"):
        TorchvisionPersonDetector().detect([torch.zeros(3, 64, 64, dtype=torch.uint8)])


def test_torchvision_refuses_another_file(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"another file")
    with pytest.raises(WeightsError, match=r"expected 907ea3f9…"):
        TorchvisionPersonDetector(weights=str(file)).detect([torch.zeros(3, 64, 64, dtype=torch.uint8)])


def test_torchvision_runs_with_the_users_weights(tmp_path: Path) -> None:
    import hashlib

    from torchvision.models import detection

    torch.manual_seed(0)
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    untrained = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=91)
    file = tmp_path / "weights.pth"
    torch.save(untrained.state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    detector = TorchvisionPersonDetector(weights=str(file), sha256=digest[:12], threshold=0.001)
    found = detector.detect([torch.zeros(3, 200, 300, dtype=torch.uint8)] * 2)
    assert set(found.kinds) <= {"person"}
