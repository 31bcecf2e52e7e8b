"""Detectors: faces of every size, in pictures of every size."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from anondata.detectors.centerface import CenterFaceDetector
from anondata.detectors.pyramid import TILE_PX, box_iou, detect, levels, merge
from anondata.detectors.yunet import YuNetDetector
from anondata.errors import PolicyError
from anondata.regions import Regions, cat_regions, empty_regions


def resized(picture: Tensor, scale: float) -> Tensor:
    return torch.nn.functional.interpolate(picture[None], scale_factor=scale, mode="bilinear", antialias=True)[0]


def test_the_astronaut_is_found_with_landmarks_inside_the_box(astronaut: Tensor) -> None:
    found = CenterFaceDetector().detect([astronaut])
    assert len(found) == 1
    box = found.boxes[0]
    assert bool(((found.landmarks[0] > box[:2]) & (found.landmarks[0] < box[2:])).all())
    left_eye, right_eye, nose, left_mouth, right_mouth = found.landmarks[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    assert left_mouth[0] < right_mouth[0]


@pytest.mark.parametrize("scale", [0.13, 0.25, 1.0, 3.0, 6.0])
def test_boxes_scale_with_the_picture(astronaut: Tensor, scale: float) -> None:
    whole = CenterFaceDetector().detect([astronaut]).boxes
    found = CenterFaceDetector().detect([resized(astronaut, scale)]).boxes / scale
    assert float(box_iou(found, whole).amax()) > 0.6


def test_pictures_of_a_batch_do_not_influence_each_other(astronaut: Tensor) -> None:
    strip, dot = torch.zeros(3, 20, 3000, dtype=torch.uint8), torch.zeros(3, 1, 1, dtype=torch.uint8)
    together = CenterFaceDetector().detect([dot, astronaut, strip, astronaut])
    alone = CenterFaceDetector().detect([astronaut])
    assert together.image.tolist() == [1, 3]
    assert torch.equal(together.boxes[0], alone.boxes[0])


def test_no_pictures_no_regions() -> None:
    assert len(CenterFaceDetector().detect([])) == 0


def test_a_face_across_the_edge_of_a_tile_is_found(astronaut: Tensor) -> None:
    canvas = torch.full((3, 600, TILE_PX + 700), 100, dtype=torch.uint8)
    for x in (TILE_PX - 350, TILE_PX - 250, TILE_PX - 150):
        picture = canvas.clone()
        picture[:, 20:532, x : x + 512] = astronaut
        found = CenterFaceDetector().detect([picture])
        assert len(found) == 1, x


@pytest.mark.parametrize(("height", "width"), [(960, 1280), (4000, 6000), (20, 10_000), (1, 1)])
def test_levels_end_where_a_face_that_fills_the_picture_is_found(height: int, width: int) -> None:
    scales = levels(height, width, finest=1.0)
    assert scales[0] == 1.0
    assert max(height, width) * scales[-1] < 4 * 320 or len(scales) == 1


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(*[st.integers(0, 40)] * 4, st.floats(0, 1, width=32)), max_size=12))
def test_merging_is_what_a_naive_loop_does(rows: list[tuple[int, int, int, int, float]]) -> None:
    boxes = torch.tensor([[x, y, x + w + 1, y + h + 1] for x, y, w, h, _ in rows]).reshape(-1, 4).float()
    scores = torch.tensor([row[4] for row in rows])
    n = len(rows)
    regions = Regions(
        torch.zeros(n, dtype=torch.int64), boxes, torch.full((n, 5, 2), torch.nan), scores, ("face",) * n
    )
    kept: list[int] = []
    for i in sorted(range(n), key=lambda i: -float(scores[i])):
        if all(float(box_iou(boxes[i : i + 1], boxes[j : j + 1])) <= 0.4037 for j in kept):
            kept.append(i)
    assert torch.equal(merge(regions, iou=0.4037).boxes, boxes[kept].reshape(-1, 4))


def test_regions_in_the_padding_are_dropped() -> None:
    def network(batch: Tensor) -> Regions:
        return Regions(
            torch.zeros(2, dtype=torch.int64),
            torch.tensor([[0.0, 0, 10, 10], [40.0, 40, 60, 60]]),
            torch.full((2, 5, 2), torch.nan),
            torch.ones(2),
            ("face", "face"),
        )

    assert detect([torch.zeros(3, 33, 33, dtype=torch.uint8)], network, finest=1.0, iou=0.5).boxes.tolist() == [
        [0, 0, 10, 10]
    ]


@pytest.mark.parametrize("blue_first", [False, True])
@pytest.mark.parametrize("planar", [False, True])
def test_networks_get_pictures_padded_with_zeros_and_channels_in_their_order(blue_first: bool, planar: bool) -> None:
    picture = torch.arange(3 * 5 * 40, dtype=torch.uint8).reshape(5, 40, 3).permute(2, 0, 1)
    batches: list[Tensor] = []

    def network(batch: Tensor) -> Regions:
        batches.append(batch)
        return empty_regions()

    detect([picture.contiguous() if planar else picture], network, finest=1.0, iou=0.5, blue_first=blue_first)
    [batch] = batches
    expected = torch.zeros(1, 3, 32, 64)
    for channel in range(3):
        expected[0, 2 - channel if blue_first else channel, :5, :40] = picture[channel].float()
    assert torch.equal(batch, expected)


@pytest.mark.parametrize("made", [CenterFaceDetector, YuNetDetector])
def test_detecting_is_proposing_and_confirming(party_jpeg: bytes, made: type[CenterFaceDetector]) -> None:
    party = torch.from_numpy(np.array(Image.open(io.BytesIO(party_jpeg)))).permute(2, 0, 1)
    detector = made(threshold=0.1)
    found, proposed = detector.detect([party]), detector.propose([party])
    confirmed = detector.confirm([party], proposed)
    assert len(proposed) > len(found) >= 6
    assert torch.equal(confirmed.boxes, found.boxes)
    one_by_one = [detector.confirm([party], proposed.select([row])) for row in range(len(proposed))]
    assert torch.equal(cat_regions(one_by_one).boxes, found.boxes)


@pytest.mark.parametrize("made", [CenterFaceDetector, YuNetDetector])
def test_parameters_out_of_range_are_refused(made: type) -> None:
    with pytest.raises(PolicyError, match="threshold must be between 0 and 1"):
        made(threshold=0.0)
    with pytest.raises(PolicyError, match="smallest_px must be between 4 and 1000"):
        made(smallest_px=1)


def test_yunet_finds_what_centerface_finds(
    astronaut: Tensor, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONDATA_WEIGHTS", str(shared_data / "weights"))
    one = CenterFaceDetector().detect([astronaut])
    other = YuNetDetector().detect([astronaut])
    assert len(other) == 1
    assert float(box_iou(one.boxes, other.boxes)) > 0.5
    assert float((one.landmarks - other.landmarks).norm(dim=2).max()) < 12
