"""Run an ONNX graph by ONNX Runtime on torch tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anondata.errors import MissingExtraError, WeightsError


def ort_is_installed() -> bool:
    """Whether ONNX Runtime can be imported."""
    try:
        import onnxruntime  # noqa: F401 - only whether it can be imported is asked
    except ImportError:
        return False
    return True


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            "this network runs on ONNX Runtime, which is not installed: run `pip install 'anondata[cpu]'`"
        ) from error
    return onnxruntime


class OrtRunner:
    """A session of ONNX Runtime that takes and gives torch tensors.

    Inputs of any float dtype and device are converted to float32 on the CPU; outputs are float32 on the
    device of the first input. A graph with a fixed batch of one gets its inputs one by one.

    Args:
        graph: an ONNX file.
        state: weights for the initializers that the graph names but does not hold, by name, any float dtype.
        threads: for one call; the default is what ``torch.get_num_threads()`` says now.
        cuda: run on a GPU where ONNX Runtime can.
    """

    def __init__(
        self,
        graph: Path,
        *,
        state: Mapping[str, Tensor] | None = None,
        threads: int | None = None,
        cuda: bool = False,
    ) -> None:
        library = _onnxruntime()
        options = library.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3  # its warnings are about graphs that the user cannot change
        # Held for as long as the session, which may read them in place.
        self._values = {
            name: library.OrtValue.ortvalue_from_numpy(tensor.float().contiguous().numpy())
            for name, tensor in (state or {}).items()
        }
        if self._values:
            options.add_external_initializers(list(self._values), list(self._values.values()))
        wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"] if cuda else ["CPUExecutionProvider"]
        providers = [name for name in wanted if name in library.get_available_providers()]
        try:
            self._session = library.InferenceSession(str(graph), options, providers)
        except Exception as error:  # what the library raises derives from Exception alone
            raise WeightsError(
                f"ONNX Runtime {library.__version__} cannot load {graph} ({type(error).__name__}: {error}). "
                "Upgrade onnxruntime, or ask for backend='torch' where the network has one"
            ) from error
        self._names = [item.name for item in self._session.get_inputs()]
        self._one_by_one = self._session.get_inputs()[0].shape[0] == 1

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        arrays = [tensor.detach().to("cpu", torch.float32).contiguous() for tensor in inputs]
        if self._one_by_one and len(arrays[0]) != 1:
            runs = [self._run([array[i : i + 1] for array in arrays]) for i in range(len(arrays[0]))]
            outputs = [torch.cat(parts) for parts in zip(*runs, strict=True)]
        else:
            outputs = self._run(arrays)
        outputs = [output.to(inputs[0].device) for output in outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _run(self, arrays: list[Tensor]) -> list[Tensor]:
        feed = {name: array.numpy() for name, array in zip(self._names, arrays, strict=True)}
        return [torch.from_numpy(output) for output in self._session.run(None, feed)]
