"""Gates must not pass what they could not have recognised unchanged; nor what their networks could not read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.models import ocr
from anondata.protocols import Probe
from anondata.regions import Regions
from anondata.verifiers import local_features
from anondata.verifiers.gates import place_match
from anondata.verifiers.gates.person_match import PersonMatch
from anondata.verifiers.gates.place_match import PlaceMatch


def dim(levels: float) -> Tensor:
    """A grey picture in so many of 256 levels."""
    noise = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(noise, (128, 128), mode="bilinear")[0]
    return (60 + levels * smooth).round().to(torch.uint8).expand(3, -1, -1)


def probe_of(original: Tensor, result: Tensor, *, erased: bool) -> Probe:
    box, unknown = torch.tensor([[0.0, 0.0, 128.0, 128.0]]), torch.full((1, 5, 2), torch.nan)
    return Probe(
        regions=Regions(torch.tensor([0]), box, unknown, torch.ones(1), ("person",)),
        before={},
        after={},
        techniques=(),
        erased=torch.tensor([erased]),
        last=torch.tensor([False]),
        blank=lambda name, rows: torch.zeros(0),
        original=[original],
        result=[result],
    )


@pytest.mark.parametrize("levels", [0, 3, 12, 20])
def test_a_dim_person_does_not_pass_unchanged(levels):
    assert not PersonMatch().judge(probe_of(dim(levels), dim(levels), erased=False)).passed.any()


def test_a_dim_person_of_whom_nothing_is_left_passes():
    assert PersonMatch().judge(probe_of(dim(12), dim(0), erased=False)).passed.all()


@pytest.mark.parametrize("erased", [False, True])
def test_a_place_without_keypoints_passes_only_when_erased(erased, monkeypatch):
    nothing = local_features.Features(torch.zeros(0, 2), torch.zeros(0, 64))
    monkeypatch.setattr(place_match, "features", lambda picture, *, side_px: nothing)
    assert PlaceMatch().judge(probe_of(dim(0), dim(0), erased=erased)).passed.tolist() == [erased]


class _Broken:
    """A network whose outputs are not numbers."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        self.shapes = shapes

    def __call__(self, *inputs: Any) -> Any:
        outputs = tuple(torch.full(shape, torch.nan) for shape in self.shapes)
        return outputs if len(outputs) > 1 else outputs[0]


def test_a_place_whose_features_are_not_finite_is_an_error(monkeypatch):
    network = _Broken((1, 64, 16, 16), (1, 65, 16, 16), (1, 1, 16, 16))
    monkeypatch.setattr(local_features, "network", lambda name, device: network)
    with pytest.raises(ValueError, match="finite"):
        local_features.features(dim(80), side_px=128)


def test_a_reading_that_is_not_finite_is_an_error(monkeypatch):
    monkeypatch.setattr(ocr, "network", lambda name: _Broken((1, 40, 97)))
    with pytest.raises(ValueError, match="finite"):
        ocr.read([torch.full((3, 48, 100), 3.25)])
