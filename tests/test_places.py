"""The preset ``places``: frames that cannot be matched with the photo that they were made of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
import torch
import yaml
from torch import Tensor

from anondata import Anonymizer, Outcome, Released
from anondata.policy import from_yaml, load_policy
from anondata.verifiers.gallery.place_search import agreement
from anondata.verifiers.gates.place_match import LIMITS
from anondata.verifiers.local_features import SIDE_PX, features

KEY = b"a secret of enough bytes"


@pytest.fixture(autouse=True)
def weights(fetched: Callable[..., None]) -> None:
    fetched("style-26", "xfeat")


@pytest.fixture(scope="module")
def rocket() -> Tensor:
    return torch.from_numpy(np.array(skimage.data.rocket())).permute(2, 0, 1).contiguous()


def released(outcome: Outcome) -> Released:
    assert isinstance(outcome, Released)
    return outcome


def test_a_frame_is_released_when_its_place_cannot_be_matched(rocket: Tensor) -> None:
    out = released(Anonymizer("places", run_key=KEY).anonymize([rocket])[0])
    [frame] = out.record.regions
    assert (frame.kind, [v.passed for v in frame.verdicts]) == ("frame", [True])
    before, after = (features(torch.as_tensor(view), side_px=SIDE_PX) for view in (rocket, out.image))
    assert agreement(before, after, LIMITS[0.01]) <= 1


def test_faces_are_changed_on_top_of_the_frame(astronaut: Tensor) -> None:
    out = released(Anonymizer("places", run_key=KEY).anonymize([astronaut])[0])
    assert {r.kind for r in out.record.regions} == {"face", "frame"}
    assert list(load_policy("places").content["image"].regions) == ["frame", "face"]


def test_a_frame_of_no_known_category_is_filled_where_that_is_asked(
    rocket: Tensor, fetched: Callable[..., None]
) -> None:
    fetched("mobilenet-v2")
    mine = yaml.safe_load(load_policy("places").to_yaml())
    frame = mine["content"]["image"]["regions"]["frame"]
    frame.update(ladder=[{"pixelate": {"blocks": 1, "coverage": 1.0}}], utility=[{"keeps_category": {"best": 1}}])
    out = released(Anonymizer(from_yaml(yaml.safe_dump(mine, sort_keys=False)), run_key=KEY).anonymize([rocket])[0])
    [region] = out.record.regions
    assert (region.rung, len(region.verdicts)) == (1, 1)
    assert torch.as_tensor(out.image).flatten(1).unique(dim=1).shape == (3, 1)
