"""The gate of utility for frames: whether a picture still shows the same kind of thing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from anondata.components import build
from anondata.detectors.frame import FrameDetector
from anondata.errors import PolicyError
from anondata.protocols import Probe
from anondata.transforms import Fill
from anondata.verifiers.gates.keeps_category import KeepsCategory, categories, place_of_first

CAT = 285  # Egyptian cat; tabby and tiger cat are 281 and 282


@pytest.fixture(autouse=True)
def weights(fetched: Callable[..., None]) -> None:
    fetched("mobilenet-v2")


@pytest.fixture(scope="module")
def cat() -> Tensor:
    import numpy as np
    import skimage.data

    return torch.from_numpy(np.array(skimage.data.chelsea())).permute(2, 0, 1).contiguous()


def judged(original: Tensor, result: Tensor, gate: KeepsCategory | None = None) -> tuple[float, bool]:
    frames = FrameDetector().detect([original])
    none = torch.zeros(1, dtype=torch.bool)
    probe = Probe(frames, {}, {}, (Fill(),), none, none, lambda *_: torch.zeros(0), [original], [result])
    verdicts = (gate or KeepsCategory()).judge(probe)
    assert float(verdicts.before) == 1
    return float(verdicts.after), bool(verdicts.passed)


def test_a_cat_is_seen_as_a_cat(cat: Tensor) -> None:
    assert set(categories(cat).topk(3).indices.tolist()) & {281, 282, CAT}


def test_the_same_picture_keeps_its_first_category(cat: Tensor) -> None:
    assert judged(cat, cat) == (1.0, True)


def test_a_darker_crop_keeps_it_and_a_flat_picture_does_not(cat: Tensor) -> None:
    assert judged(cat, (cat[:, 20:280, 40:420] * 0.8).to(torch.uint8))[1]
    place, passed = judged(cat, torch.full_like(cat, 128))
    assert not passed
    assert place > 10


def test_how_many_count_is_the_callers(cat: Tensor) -> None:
    blurred = torch.nn.functional.avg_pool2d(cat.float(), 16).repeat_interleave(16, 1).repeat_interleave(16, 2)
    place, _ = judged(cat, blurred.to(torch.uint8))
    assert 1 < place < 999
    assert judged(cat, blurred.to(torch.uint8), KeepsCategory(best=int(place)))[1]
    assert not judged(cat, blurred.to(torch.uint8), KeepsCategory(best=int(place) - 1))[1]


def test_the_place_is_counted_from_one_and_is_nan_where_nothing_is_known() -> None:
    before = torch.tensor([0.0, 3.0, 1.0])
    assert place_of_first(before, torch.tensor([5.0, 4.0, 6.0])) == 3
    assert place_of_first(before, torch.tensor([5.0, torch.nan, 6.0])) != place_of_first(before, before)


@pytest.mark.parametrize("best", [0, 1000, 1.5, True, None])
def test_a_number_out_of_range_is_refused(best: object) -> None:
    with pytest.raises(PolicyError, match="best must be a whole number between 1 and 999"):
        build("verifier", "keeps_category", {"best": best})
