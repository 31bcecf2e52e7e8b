"""Rebuild the graph of the person detector that anondata bundles, without weights.

Usage::

    python -m anondata.tools.build.convert_pedestrian [FILE]

writes ``anondata/models/weights/pedestrian_ssdlite.graph.onnx``: the torch module exported for ONNX Runtime. The
bytes depend on the versions of torch and onnxscript. The weights themselves are not bundled: they are read out of the
published frozen graph as it is, see `anondata.models.pedestrian.read_state`.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
from torch.export import Dim

from anondata.models.pedestrian import SIDE_PX, PedestrianSsdLite
from anondata.tools.build.convert_weights import BUNDLE, save_graph

FILE = BUNDLE / "pedestrian_ssdlite.graph.onnx"


def build(target: Path) -> str:
    """Writes the graph; its sha256, which `anondata.models.runtime` holds."""
    save_graph(PedestrianSsdLite(), torch.zeros(2, 3, SIDE_PX, SIDE_PX), {0: Dim("B")}, ["codes", "scores"], target)
    return hashlib.sha256(target.read_bytes()).hexdigest()


def main(arguments: list[str]) -> None:
    target = Path(arguments[0]) if arguments else FILE
    print(build(target), target)


if __name__ == "__main__":
    main(sys.argv[1:])
