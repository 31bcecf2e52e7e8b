"""Networks that torch alone runs, from checkpoints as they were published."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch

from anondata.errors import WeightsError
from anondata.models.registry import locate
from anondata.models.runtime import load_network
from anondata.models.xfeat import CELL, peaks


@pytest.fixture(autouse=True)
def weights(fetched: Callable[..., None]) -> None:
    fetched("xfeat", "mobilenet-v2")


def test_xfeat_describes_every_cell_of_a_picture() -> None:
    descriptors, logits, reliability = load_network("xfeat")(torch.rand(2, 3, 64, 96))
    assert [tuple(t.shape) for t in (descriptors, logits, reliability)] == [
        (2, channels, 64 // CELL, 96 // CELL) for channels in (64, 65, 1)
    ]
    assert bool(((reliability >= 0) & (reliability <= 1)).all())


def test_the_light_of_a_picture_does_not_matter_to_xfeat() -> None:
    run, picture = load_network("xfeat"), torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    likeness = torch.cosine_similarity(run(picture)[0], run(picture * 0.5 + 0.2)[0], dim=1)
    assert float(likeness.min()) > 0.999


def test_mobilenet_is_torchvisions_own() -> None:
    """Its published checkpoint, read by torchvision itself, says the same."""
    from torchvision.models import mobilenet_v2

    other = mobilenet_v2(weights=None).eval()
    other.load_state_dict(torch.load(locate("mobilenet-v2"), weights_only=True))
    picture = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(load_network("mobilenet-v2")(picture), other(picture), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["xfeat", "mobilenet-v2"])
def test_only_torch_runs_them(name: str) -> None:
    assert load_network(name).backend == "torch"
    with pytest.raises(WeightsError, match="cannot be run with backend='onnxruntime'; use backend='torch'"):
        load_network(name, backend="onnxruntime")
    with pytest.raises(WeightsError, match="use fp32"):
        load_network(name, precision="int8")


def test_a_network_is_pickled_as_a_request() -> None:
    picture = torch.rand(1, 3, 32, 32)
    made = load_network("xfeat")
    assert len(pickle.dumps(made)) < 5000
    assert torch.equal(pickle.loads(pickle.dumps(made))(picture)[0], made(picture)[0])


def test_peaks_are_the_highest_pixels_of_their_surroundings() -> None:
    logits = torch.full((65, 4, 4), -9.0)
    logits[64] = 3.0
    logits[9 + 8 * 2, 1, 2] = 9.0  # row 3, column 1 of the cell
    logits[9 + 8 * 2 + 1, 1, 2] = 8.0
    found = peaks(logits).nonzero().tolist()
    assert found == [[8 + 3, 16 + 1]]
