"""How a network is chosen, loaded and shared."""

from __future__ import annotations

import hashlib
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from anondata.errors import MissingExtraError, WeightsError
from anondata.models import registry, runtime
from anondata.models.runtime import load_module, load_network

SUPPLIED = Path(__file__).parents[2] / "../shared/data/weights"


@pytest.fixture
def no_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


@pytest.mark.parametrize(("vnni", "precision"), [(True, "int8"), (False, "fp32")])
def test_auto_takes_eight_bits_only_where_the_cpu_has_them(
    monkeypatch: pytest.MonkeyPatch, vnni: bool, precision: str
) -> None:
    monkeypatch.setattr(runtime, "has_vnni", lambda: vnni)
    network = load_network("centerface")
    assert (network.backend, network.precision, network.device) == ("onnxruntime", precision, "cpu")


def test_the_embedder_is_never_quantized() -> None:
    assert load_network("dlib-face-resnet").precision == "fp32"
    with pytest.raises(WeightsError, match="cannot be run with precision='int8'; use fp32"):
        load_network("dlib-face-resnet", precision="int8")


@pytest.mark.usefixtures("no_onnxruntime")
def test_auto_is_torch_without_onnxruntime() -> None:
    network = load_network("centerface")
    assert (network.backend, network.precision) == ("torch", "fp32")


@pytest.mark.usefixtures("no_onnxruntime")
def test_missing_onnxruntime_names_the_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'anondata\[cpu\]'"):
        load_network("centerface", backend="onnxruntime")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8", "backend": "torch"}, "use backend='onnxruntime'"),
        ({"precision": "bf16", "backend": "onnxruntime"}, "use backend='torch'"),
        ({"precision": "fp8"}, "unknown precision 'fp8'; expected one of 'auto', 'fp32', 'bf16', 'int8'"),
        ({"backend": "tensorrt"}, "unknown backend 'tensorrt'; expected one of 'auto', 'torch', 'onnxruntime'"),
    ],
)
def test_what_cannot_be_had_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_network("centerface", **options)  # type: ignore[arg-type]  # wrong on purpose


def test_fingerprint_stands_for_weights_and_precision_and_not_for_the_backend() -> None:
    by_torch = load_network("centerface", backend="torch")
    by_ort = load_network("centerface", backend="onnxruntime", precision="fp32")
    assert by_torch.fingerprint == by_ort.fingerprint
    others = [
        load_network("centerface", precision="int8"),
        load_network("centerface", precision="bf16"),
        load_network("dlib-face-resnet"),
    ]
    assert len({by_torch.fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_a_pickle_holds_no_weights_and_loads_the_same_network(backend: str) -> None:
    network = load_network("dlib-face-resnet", backend=backend)  # type: ignore[arg-type]  # parametrized
    stored = pickle.dumps(network)
    assert len(stored) < 2000
    chips = torch.rand(2, 3, 150, 150, generator=torch.Generator().manual_seed(0))
    again = pickle.loads(stored)
    assert again == network
    torch.testing.assert_close(again(chips), network(chips), atol=0, rtol=0)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_threads_share_a_network(backend: str) -> None:
    network = load_network("dlib-face-resnet", backend=backend)  # type: ignore[arg-type]  # parametrized
    chips = torch.rand(6, 1, 3, 150, 150, generator=torch.Generator().manual_seed(0))
    expected = [network(chip) for chip in chips]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(network, chips))
    for a, b in zip(expected, found, strict=True):
        assert isinstance(a, Tensor)
        assert isinstance(b, Tensor)
        assert torch.equal(a, b)


@pytest.mark.parametrize("options", [{}, {"backend": "torch"}, {"precision": "bf16"}])
def test_outputs_are_float32_whatever_goes_in(options: dict[str, str]) -> None:
    network = load_network("dlib-face-resnet", **options)  # type: ignore[arg-type]  # parametrized
    output = network(torch.rand(1, 3, 150, 150, dtype=torch.float16))
    assert isinstance(output, Tensor)
    assert output.dtype == torch.float32
    assert not output.requires_grad


def test_gradients_reach_the_input_of_a_module() -> None:
    chips = torch.rand(1, 3, 150, 150, requires_grad=True)
    module = load_module("dlib-face-resnet")
    module(chips).sum().backward()
    assert chips.grad is not None
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_an_onnx_file_has_no_module() -> None:
    with pytest.raises(WeightsError, match="'yunet' is an ONNX file, not a torch module; use load_network"):
        load_module("yunet")


@pytest.mark.parametrize("name", ["mobile-stylegan-mapping", "mobile-stylegan-synthesis", "mixed-people"])
@pytest.mark.parametrize("load", [load_network, load_module])
def test_what_is_a_part_of_a_generator_or_made_of_pictures_is_no_network(load, name):
    with pytest.raises(WeightsError, match="is no network by itself"):
        load(name)


def test_a_changed_graph_is_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph = tmp_path / "changed.onnx"
    graph.write_bytes(b"something else")
    monkeypatch.setattr(runtime, "bundled_file", lambda _: graph)
    with pytest.raises(WeightsError, match=hashlib.sha256(b"something else").hexdigest()):
        load_network("centerface", precision="fp32", backend="onnxruntime")


def test_a_file_that_onnxruntime_cannot_read_is_a_weights_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = b"no graph"
    (tmp_path / "mine.onnx").write_bytes(content)
    monkeypatch.setenv("ANONDATA_WEIGHTS", str(tmp_path))
    mine = registry.Weights(
        name="mine",
        file="mine.onnx",
        source=registry.Supplied("a network of mine"),
        sha256=hashlib.sha256(content).hexdigest(),
        licence=registry.Licence("MIT"),
        size_bytes=len(content),
        description="no network at all",
    )
    with pytest.raises(WeightsError, match="cannot load"):
        load_network(mine)


@pytest.mark.parametrize(("name", "shape"), [("yunet", (3, 3, 64, 96)), ("mobilefacenet-ms1m", (3, 3, 112, 112))])
def test_a_file_with_a_batch_of_one_is_fed_one_by_one(
    monkeypatch: pytest.MonkeyPatch, name: str, shape: tuple[int, ...]
) -> None:
    if not SUPPLIED.is_dir():
        pytest.skip("no folder of optional weights: ../shared/data/weights")
    monkeypatch.setenv("ANONDATA_WEIGHTS", str(SUPPLIED))
    network = load_network(name)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 255
    together, last = network(images), network(images[2:])
    for a, b in zip(*((x,) if isinstance(x, Tensor) else x for x in (together, last)), strict=True):
        assert len(a) == 3
        torch.testing.assert_close(a[2:], b)
    with pytest.raises(WeightsError, match=f"weights {name!r} cannot be run with backend='torch'"):
        load_network(name, backend="torch")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    images = torch.rand(2, 3, 150, 150, generator=torch.Generator().manual_seed(0))
    network = load_network("dlib-face-resnet", device="cuda")
    assert network.backend == "torch"
    found, expected = network(images.cuda()), load_network("dlib-face-resnet")(images)
    assert isinstance(found, Tensor)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, atol=5e-3, rtol=0)  # TF32 convolutions
