"""What the benchmarks share: the photos, the attackers, intervals, tables and files."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from anondata.crops import resize
from anondata.detectors.centerface import CenterFaceDetector
from anondata.protocols import Embedder
from anondata.regions import Regions, cat_regions
from anondata.verifiers._pairs import wilson
from anondata.verifiers.embedders import DlibEmbedder, MobileFaceNetEmbedder

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tools" / "bench" / "results"


def data_folder() -> Path:
    """The folder of photos, ``shared/data`` beside the checkout unless ``ANONDATA_BENCH_DATA`` names another."""
    folder = Path(os.environ.get("ANONDATA_BENCH_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        sys.exit("the benchmark photos are not here; set ANONDATA_BENCH_DATA to their folder")
    os.environ.setdefault("ANONDATA_WEIGHTS", str(folder / "weights"))
    return folder


def embedders() -> list[Embedder]:
    """Every recognizer at hand. The second is the *other network*: no gate uses it."""
    data_folder()
    return [DlibEmbedder(), MobileFaceNetEmbedder()]


@dataclass(frozen=True)
class Portrait:
    """One photo of one person, with the face that the detector found in it."""

    identity: str
    expression: str
    view: Tensor
    face: Regions


@cache
def portraits() -> tuple[Portrait, ...]:
    """``faces_london``: 51 people, neutral and smiling, 400 px."""
    folder = data_folder() / "faces_london"
    out = []
    with (folder / "metadata.csv").open() as stream:
        for row in csv.DictReader(stream):
            view = load(folder / row["file_name"])
            found = CenterFaceDetector().detect([view])
            largest = int(found.sizes.prod(dim=1).argmax())
            out.append(Portrait(row["identity"], row["expression"], view, found.select([largest])))
    return tuple(out)


def load(path: Path) -> Tensor:
    """``(3, H, W)`` uint8."""
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def by_expression(expression: str) -> list[Portrait]:
    return [p for p in portraits() if p.expression == expression]


def embed(embedder: Embedder, views: Sequence[Tensor], faces: Sequence[Regions]) -> Tensor:
    """``(N, D)``: one face in each view."""
    return embedder.embed(views, cat_regions([f.renumbered(i) for i, f in enumerate(faces)]))


def shrunk(view: Tensor, face: Regions, width_px: float) -> tuple[Tensor, Regions]:
    """A photo shrunk until its face is ``width_px`` wide, antialiased, as a camera far away would see it."""
    scale = width_px / float(face.sizes[0, 0])
    height, width = (max(1, round(side * scale)) for side in view.shape[1:])
    small = resize(view[None].float() / 255, height, width)[0].mul(255).round().to(torch.uint8)
    ratio = torch.tensor([width / view.shape[2], height / view.shape[1]])
    return small, Regions(face.image, face.boxes * ratio.repeat(2), face.landmarks * ratio, face.scores, face.kinds)


def hits(probes: Tensor, gallery: Tensor) -> list[bool]:
    """Whether each probe's nearest gallery template is its own; row ``i`` of both is the same person."""
    nearest = torch.cdist(probes, gallery).argmin(dim=1)
    return [bool(ok) for ok in nearest == torch.arange(len(probes))]


def share(outcomes: Sequence[bool]) -> dict[str, Any]:
    """A share in percent with its interval."""
    low, high = wilson(sum(outcomes) / max(1, len(outcomes)), len(outcomes))
    return {
        "percent": round(100 * sum(outcomes) / max(1, len(outcomes)), 1),
        "low": round(100 * low, 1),
        "high": round(100 * high, 1),
        "n": len(outcomes),
    }


def cell(value: dict[str, Any]) -> str:
    return f"{value['percent']:.0f} [{value['low']:.0f}-{value['high']:.0f}]"


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    table = Table(title=title)
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*(str(value) for value in row))
    Console(width=170).print(table)


def save(name: str, body: dict[str, Any]) -> None:
    """Writes ``results/<name>.json`` with what it was measured on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    packages = ("torch", "torchvision", "kornia", "onnxruntime", "pillow", "numpy")
    setting = {
        "commit": commit,
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {p: version(p) for p in packages},
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"setting": setting, **body}, indent=1) + "\n")
    Console().print(f"written: {path.relative_to(ROOT)}")
