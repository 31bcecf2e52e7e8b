"""Load a registered network and run it: by ONNX Runtime on CPUs, by torch on GPUs."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from anondata.errors import WeightsError
from anondata.models.category import mobilenet_v2
from anondata.models.centerface import CenterFace
from anondata.models.dlib_resnet import DlibFaceResNet
from anondata.models.ort import OrtRunner, ort_is_installed
from anondata.models.pedestrian import PedestrianSsdLite, read_state
from anondata.models.registry import Weights, bundled_file, check_sha256, entry, locate
from anondata.models.xfeat import XFeat

Backend = Literal["auto", "torch", "onnxruntime"]
Precision = Literal["auto", "fp32", "bf16", "int8"]
Outputs = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class _Architecture:
    """A torch module, the graph exported from it (without weights), and what it was quantized to.

    graph: empty where torch alone runs the network. read: the module's state from the file of weights, which may be a
        published file as it is.
    """

    module: Callable[[], nn.Module]
    graph: str = ""
    graph_sha256: str = ""
    int8: str | None = None  # registered name
    read: Callable[[Path], dict[str, Tensor]] = load_file


def _read_pth(path: Path) -> dict[str, Tensor]:
    """A published checkpoint's tensors, without the parts of XFeat that are not used; nothing in it is run."""
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return {name: tensor for name, tensor in state.items() if not name.startswith("fine_matcher.")}


_ARCHITECTURES = {
    "centerface": _Architecture(
        module=CenterFace,
        graph="centerface.graph.onnx",
        graph_sha256="7285122650fcf5fef316d12b359e112552e2dc06feb63dd0925a27b882558ebd",
        int8="centerface-int8",
    ),
    "dlib-face-resnet": _Architecture(
        module=DlibFaceResNet,
        graph="dlib_face_resnet.graph.onnx",
        graph_sha256="ed8a7ca0321bfeefbb0d778dd9157623a1f2696b6b40621079a7c0d4bd483faa",
    ),
    "pedestrian-ssdlite": _Architecture(
        module=PedestrianSsdLite,
        graph="pedestrian_ssdlite.graph.onnx",
        graph_sha256="7833470b5e1f0966e74c9a2ad6c13fe8e3174552838dba96a4598a3f449536f9",
        read=lambda path: read_state(path.read_bytes()),
    ),
    "mobilenet-v2": _Architecture(module=mobilenet_v2, read=_read_pth),
    "xfeat": _Architecture(module=XFeat, read=_read_pth),
}


@dataclass(frozen=True)
class Network:
    """A network ready to run: call it with tensors.

    Inputs are float tensors of any dtype and device, shaped as the module's ``forward`` says (a network that
    is an ONNX file: as the file says). Outputs are float32 on the device of the first input, a tensor or a
    tuple of tensors. Calls from several threads at once are safe. A network can be pickled; what is pickled is
    the request, and the weights are loaded and checked again where it is unpickled.

    Attributes:
        name: name of the weights.
        backend: ``"torch"`` or ``"onnxruntime"``.
        precision: ``"fp32"``, ``"bf16"`` or ``"int8"``.
        device: where it computes.
        fingerprint: 64 hex digits that stand for the weights and the precision. The backend is not in it:
            backends agree to rounding, precisions do not.
    """

    name: str
    backend: Literal["torch", "onnxruntime"]
    precision: Literal["fp32", "bf16", "int8"]
    device: str
    fingerprint: str
    _weights: Weights = field(repr=False)
    _run: Callable[..., Outputs] = field(repr=False, compare=False)

    def __call__(self, *inputs: Tensor) -> Outputs:
        return self._run(*inputs)

    def __reduce__(self) -> tuple[object, ...]:
        return _reload, (self._weights, self.device, self.backend, self.precision)


def load_network(
    name: str | Weights,
    *,
    device: str | torch.device = "cpu",
    backend: Backend = "auto",
    precision: Precision = "auto",
) -> Network:
    """Load a network from its registered weights. Downloads nothing.

    Args:
        name: a registered name, or an entry of the caller's own.
        device: where to compute. A network that is an ONNX file computes on the CPU, wherever its input lies,
            unless ONNX Runtime has its CUDA provider.
        backend: ``"auto"`` takes ONNX Runtime on CPUs where it is installed, and torch elsewhere.
        precision: ``"auto"`` takes ``"int8"`` where the network has it, ONNX Runtime runs it, and the CPU has
            instructions for it (`has_vnni`); ``"fp32"`` elsewhere. ``"bf16"`` is torch's.

    ONNX Runtime is given the number of threads that ``torch.get_num_threads()`` says at this moment.

    Raises:
        WeightsError: unknown name, missing or wrong file, or a combination that does not exist.
        MissingExtraError: the combination needs ONNX Runtime, which is not installed.
    """
    _check_choice("backend", backend, Backend)
    _check_choice("precision", precision, Precision)
    weights = entry(name) if isinstance(name, str) else name
    where = torch.device(device)
    if weights.loader == "onnx":
        if backend == "torch":
            raise _no_such(weights, "backend='torch'", "backend='onnxruntime'")
        if precision not in ("auto", "fp32"):
            raise _no_such(weights, f"precision={precision!r}", "fp32")
        runner = OrtRunner(locate(weights), cuda=where.type == "cuda")
        return _network(weights, runner, where, "onnxruntime", "fp32")
    torch_alone = not _architecture(weights).graph
    if torch_alone and backend == "onnxruntime":
        raise _no_such(weights, "backend='onnxruntime'", "backend='torch'")
    if torch_alone or _wants_torch(where, backend, precision):
        return _load_torch(weights, where, precision)
    return _load_ort(weights, where, precision)


def load_module(
    name: str | Weights, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The torch module of a network with its weights, in evaluation mode, its parameters frozen.

    For what `load_network` does not do: gradients with respect to the input, compilation, export.

    Raises:
        WeightsError: unknown name, missing or wrong file, or a network that is an ONNX file.
    """
    weights = entry(name) if isinstance(name, str) else name
    if weights.loader == "onnx":
        raise WeightsError(f"{weights.name!r} is an ONNX file, not a torch module; use load_network")
    architecture = _architecture(weights)
    module = architecture.module()
    module.load_state_dict(architecture.read(locate(weights)))
    module = module.eval().requires_grad_(False)
    # Channels last is a third faster on CPUs too: 36 ms for 54 (CenterFace, 640x480).
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module.to(device, dtype)


def _architecture(weights: Weights) -> _Architecture:
    try:
        return _ARCHITECTURES[weights.loader]
    except KeyError as error:
        raise WeightsError(f"{weights.name!r} is no network by itself; see anondata.transforms.face_pool") from error


def has_vnni() -> bool:
    """Whether this CPU multiplies 8-bit integers without saturating (x86 with VNNI).

    Older x86 CPUs add two products in 16 bits: outputs of a quantized network could then differ from those it
    was tested with, and it would be slower than float32.
    """
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return False
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(able.get("avx512_vnni") or able.get("avx_vnni"))


def _wants_torch(where: torch.device, backend: Backend, precision: Precision) -> bool:
    if backend == "auto":
        return precision != "int8" and (where.type != "cpu" or precision == "bf16" or not ort_is_installed())
    return backend == "torch"


def _load_torch(weights: Weights, where: torch.device, precision: Precision) -> Network:
    if precision == "int8":
        instead = "backend='onnxruntime'" if _architecture(weights).graph else "fp32"
        raise _no_such(weights, "precision='int8' with backend='torch'", instead)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    module = load_module(weights, device=where, dtype=dtype)

    def run(*inputs: Tensor) -> Outputs:
        with torch.no_grad():
            outputs = module(*(tensor.to(where, dtype) for tensor in inputs))
            home = inputs[0].device
            if isinstance(outputs, Tensor):
                return outputs.to(home, torch.float32)
            return tuple(output.to(home, torch.float32) for output in outputs)

    return _network(weights, run, where, "torch", "bf16" if precision == "bf16" else "fp32")


def _load_ort(weights: Weights, where: torch.device, precision: Precision) -> Network:
    architecture = _architecture(weights)
    if precision == "bf16":
        raise _no_such(weights, "precision='bf16' with backend='onnxruntime'", "backend='torch'")
    if architecture.int8 and (precision == "int8" or (precision == "auto" and has_vnni())):
        quantized = entry(architecture.int8)
        runner = OrtRunner(locate(quantized))
        return _network(weights, runner, where, "onnxruntime", "int8", sha256=quantized.sha256)
    if precision == "int8":
        raise _no_such(weights, "precision='int8'", "fp32")
    graph = bundled_file(architecture.graph)
    check_sha256(graph, architecture.graph_sha256, name=weights.name)
    runner = OrtRunner(graph, state=architecture.read(locate(weights)))
    return _network(weights, runner, where, "onnxruntime", "fp32")


def _network(
    weights: Weights,
    run: Callable[..., Outputs],
    where: torch.device,
    backend: Literal["torch", "onnxruntime"],
    precision: Literal["fp32", "bf16", "int8"],
    *,
    sha256: str | None = None,
) -> Network:
    digest = hashlib.sha256(f"{sha256 or weights.sha256}:{precision}".encode()).hexdigest()
    return Network(weights.name, backend, precision, str(where), digest, weights, run)


def _reload(weights: Weights, device: str, backend: Backend, precision: Precision) -> Network:
    return load_network(weights, device=device, backend=backend, precision=precision)


def _check_choice(what: str, found: str, choices: object) -> None:
    if found not in get_args(choices):
        expected = ", ".join(repr(choice) for choice in get_args(choices))
        raise WeightsError(f"unknown {what} {found!r}; expected one of {expected}")


def _no_such(weights: Weights, found: str, instead: str) -> WeightsError:
    return WeightsError(f"weights {weights.name!r} cannot be run with {found}; use {instead}")
