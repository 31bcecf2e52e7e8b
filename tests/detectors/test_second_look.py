"""A second look drops what is no face, and no face."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from anondata.crops import mirrored, resize
from anondata.detectors.centerface import CenterFaceDetector
from anondata.detectors.pyramid import box_iou
from anondata.detectors.yunet import YuNetDetector


def test_what_is_taken_for_a_face_in_a_turned_picture_is_none_at_other_sizes(party_jpeg: bytes) -> None:
    party = torch.from_numpy(np.array(Image.open(io.BytesIO(party_jpeg)))).permute(2, 0, 1)
    turned = torch.rot90(party, 3, (1, 2)).contiguous()
    true = CenterFaceDetector(0.5).detect([party]).mapped(torch.tensor([[0.0, -1, party.shape[1]], [1, 0, 0]]))
    once, twice = (YuNetDetector(0.3, second_look=again).detect([turned]) for again in (False, True))
    false = [int((box_iou(found.boxes, true.boxes).amax(dim=1) < 0.2).sum()) for found in (once, twice)]
    assert len(true) == 6
    assert false[0] >= 2
    assert false[1] == 0


def hidden(view: Tensor) -> Tensor:
    out = view.clone()
    out[:, 125:200] = 90
    return out


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda v: v // 10, id="dark"),
        pytest.param(lambda v: v // 8 + 190, id="veiled"),
        pytest.param(hidden, id="lower half hidden"),
        pytest.param(lambda v: v[:, :, 226:], id="cut off"),
        pytest.param(lambda v: resize(v[None], 66, 66)[0], id="12 px"),
    ],
)
def test_a_face_that_is_hard_to_see_stays(astronaut: Tensor, change: Callable[[Tensor], Tensor]) -> None:
    view = change(astronaut).contiguous()
    once, twice = (CenterFaceDetector(second_look=again).detect([view]) for again in (False, True))
    assert len(once) >= 1
    assert float(box_iou(once.boxes[:1], twice.boxes).amax()) == 1


@pytest.mark.parametrize("reach", [1, 3, 11])
def test_a_picture_is_mirrored_at_its_edges(reach: int) -> None:
    picture = torch.arange(24).reshape(2, 3, 4)
    out = mirrored(picture, range(-reach, 3 + reach), range(-reach, 4 + reach))
    expected = np.pad(picture.numpy(), ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    assert np.array_equal(out.numpy(), expected)
