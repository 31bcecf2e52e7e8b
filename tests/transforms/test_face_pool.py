"""The people that new faces are of: what comes with anondata, and who is in it."""

from __future__ import annotations

import pytest
import torch

from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import WeightsError
from anondata.models.registry import Bundled, entry
from anondata.policy import load_policy
from anondata.preparing import missing_weights
from anondata.transforms.face_pool import MIXED_NAME, mixed_pool, template_of


def test_mixed_people_are_64_each_neutral_and_smiling_and_whole() -> None:
    pool = mixed_pool(64)
    assert len(pool) == 64
    assert pool.people.tolist() == [person for person in range(64) for _ in range(2)]
    assert pool.smiles.tolist() == [-1.5, 0.0] * 64
    assert pool.pictures.shape == (128, 3, 256, 256)
    found = CenterFaceDetector(threshold=0.5).detect(list(pool.pictures))
    assert found.image.tolist() == list(range(128))
    assert float((found.landmarks / 256 - pool.landmarks).abs().max()) < 0.03
    assert bool((pool.mattes.flatten(1).float().mean(dim=1) / 255 > 0.2).all())
    assert bool((pool.mattes[:, :, 100:150, 118:138] == 255).all())  # the face itself
    assert bool((pool.mattes[:, :, :100, :40] == 0).all())


def test_a_smaller_pool_is_the_beginning_of_a_larger_one() -> None:
    assert torch.equal(mixed_pool(3).pictures, mixed_pool(64).pictures[:6])


def test_somebody_who_smiles_is_still_taken_for_the_same_person() -> None:
    templates = template_of(mixed_pool(8))
    assert bool(((templates[::2] - templates[1::2]).norm(dim=1) < 0.6).all())


@pytest.mark.parametrize("members", [0, 65])
def test_more_people_than_there_are_is_an_error(members: int) -> None:
    with pytest.raises(WeightsError, match=rf"a pool of {members} mixed faces was asked for; expected 1 to 64"):
        mixed_pool(members)


def test_the_preset_of_new_faces_needs_nothing_that_is_fetched_or_forbids_commercial_use() -> None:
    assert missing_weights(load_policy("faces-synthetic")) == ()
    assert isinstance(entry(MIXED_NAME).source, Bundled)
    assert (entry(MIXED_NAME).licence.spdx, entry(MIXED_NAME).licence.forbids) == ("CC-BY-4.0", "")
