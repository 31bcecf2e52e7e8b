"""Every technique at three strengths, on real photos, to look at.

    python -m anondata.tools.bench.contact_sheet --out DIR [--only NAME ...] [--photo PATH ...]

Writes one labelled PNG a photo: a row a technique, weakest first, the original at the left. Regions go the way that
they go in the engine, landmarks included. A technique that cannot run here (weights, packages) gets a tile that says
so. Techniques without a line in ``STRENGTHS`` are shown as they are by default.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from anondata.components import TABLES, build
from anondata.content.images import ImageContent
from anondata.errors import AnondataError
from anondata.randomness import RunKey
from anondata.regions import Regions, cat_regions
from anondata.tools.bench._common import load
from anondata.tools.bench._text_scenes import street

Params = Mapping[str, Any]

STRENGTHS: dict[str, Sequence[Params]] = {
    "chain": (
        {"steps": [{"warp": {"strength": 0.1}}, {"resize": {"pixels": 16}}]},
        {"steps": [{"warp": {"strength": 0.3}}, {"resize": {"pixels": 8}}]},
        {"steps": [{"shuffle": {"blocks": 8}}, {"noise": {"std": 0.5}}]},
    ),
    "fill": ({"color": "mean"}, {}, {"coverage": 1.7}),
    "frequency_filter": (
        {"low": 4, "high": 16, "mode": "reject"},
        {"low": 1, "high": 8},
        {"low": 1, "high": 4},
    ),
    "gaussian_blur": ({"sigma": 0.05}, {"sigma": 0.1}, {"sigma": 0.3}),
    "ksame": ({"k": 4, "keep": ["smile"]}, {"k": 4}, {"k": 8}),
    "mask": ({"by": "mean"}, {"by": "inpaint"}, {"by": "solid"}),
    "noise": ({"std": 0.3}, {"std": 1.0}, {"std": 2.0, "cells": 8}),
    "pixelate": ({"blocks": 12}, {"blocks": 5}, {"blocks": 6, "noise": 0.2, "contrast": 0.3}),
    "random_replace": ({"share": 0.3}, {"share": 0.7}, {"share": 1.0}),
    "resize": ({"pixels": 16}, {"pixels": 8}, {"pixels": 5}),
    "plate_swap": ({}, {"coverage": 1.2}, {"coverage": 1.4}),
    "silhouette": ({"outline": 0.01, "shades": 3}, {}, {"outline": 0.06}),
    "shuffle": ({"blocks": 4, "keep": 0.5}, {"blocks": 4}, {"blocks": 12}),
    "style_transfer": ({"amount": 0.4}, {"amount": 0.7}, {}),
    "synthetic_face": ({"keep": ["tilt", "smile", "skin"]}, {}, {"coverage": 1.7}),
    "text_swap": ({}, {"coverage": 1.3}, {"coverage": 1.5}),
    "warp": ({"strength": 0.05}, {"strength": 0.1}, {"strength": 0.3}),
}
# Rows beside those of the table's techniques: label, technique, kind of region, parameters.
WHOLE: Params = {"coverage": 1.0, "feather": 0.0}
FRAMES: dict[str, tuple[str, Sequence[Params]]] = {
    "warp, frame": ("warp", [{**WHOLE, "crop_px": 1024, "strength": s} for s in (0.02, 0.05, 0.1)]),
    "style, frame": ("style_transfer", [{**WHOLE, "crop_px": 512, "amount": a} for a in (0.4, 0.7, 1.0)]),
}
KINDS = {"silhouette": "person", "text_swap": "text", "plate_swap": "plate"}  # others are shown on faces
KEY = RunKey(b"contact sheet, not a secret")
TILE_PX, LINE_PX, GAP_PX = 420, 17, 6
STREET = "street"


@dataclass(frozen=True)
class Row:
    """One line of a sheet: a technique with some parameters a tile, on one kind of region."""

    label: str
    technique: str
    kind: str
    strengths: Sequence[Params]


def rows(only: Sequence[str] = (), kind: str = "face") -> Iterator[Row]:
    """Every technique of the table, on a kind if it has none of its own, then the frames; or those that are named."""
    for name in TABLES["technique"]:
        if not only or name in only:
            yield Row(name, name, KINDS.get(name, kind), STRENGTHS.get(name, ({},)))
    for label, (name, strengths) in FRAMES.items():
        if not only or name in only:
            yield Row(label, name, "frame", strengths)


def found_by(*names: str) -> Callable[[Tensor], Regions]:
    return lambda view: cat_regions([_detector(name).detect([view]) for name in names])


@cache
def _detector(name: str) -> Any:
    return build("detector", name, {})


def frame(view: Tensor) -> Regions:
    box = torch.tensor([[0.0, 0.0, view.shape[2], view.shape[1]]])
    return Regions(torch.zeros(1, dtype=torch.long), box, torch.full((1, 5, 2), torch.nan), torch.ones(1), ("frame",))


FINDERS: dict[str, Callable[[Tensor], Regions]] = {
    "face": found_by("centerface"),
    "person": found_by("persons"),
    "text": found_by("text"),
    "plate": found_by("plates"),
    STREET: found_by("text", "plates", "centerface"),
    "frame": frame,
}


def changed(view: Tensor, regions: Regions, name: str, params: Params) -> Tensor:
    """The picture ``(3, H, W)`` uint8 with its regions changed as the engine would."""
    content = ImageContent()
    media = content.decode(view, torch.device("cpu"))
    technique = build("technique", name, dict(params))
    seeds = [KEY.seed(name, str(params), i) for i in range(len(regions.kinds))]
    return content.view(content.compose(media, content.change([media], regions, technique, seeds)))


def sheet(view: Tensor, lines: Sequence[Row]) -> Image.Image:
    """A row a technique: the original, then each strength, cut to what is around the faces and all signs."""
    found = {kind: FINDERS[kind](view) for kind in dict.fromkeys(["face", *(line.kind for line in lines)])}
    inner = found[STREET if STREET in found else "face"]
    window = _window(inner.boxes, view.shape[2], view.shape[1])
    columns = 1 + max(len(line.strengths) for line in lines)
    height = round(TILE_PX * (window[3] - window[1]) / (window[2] - window[0])) + LINE_PX + GAP_PX
    out = Image.new("RGB", (columns * (TILE_PX + GAP_PX), len(lines) * height), "white")
    for y, line in enumerate(lines):
        _put(out, (0, y * height), _tile(view, window), f"{line.label}: original")
        for x, params in enumerate(line.strengths, start=1):
            tile, text = _shown(view, found[line.kind], line, params, window)
            _put(out, (x * (TILE_PX + GAP_PX), y * height), tile, text)
    return out


def _shown(
    view: Tensor, regions: Regions, line: Row, params: Params, window: tuple[int, int, int, int]
) -> tuple[Image.Image, str]:
    label = ", ".join(
        f"{key} {value}" for key, value in params.items() if not (line.kind == "frame" and key in WHOLE)
    )
    try:
        return _tile(changed(view, regions, line.technique, params), window), label or "default"
    except (AnondataError, ImportError, OSError) as error:
        print(f"{line.label}: {error}")
        empty = _tile(torch.full_like(view, 230), window)
        return empty, f"not here: {type(error).__name__}"


def _window(boxes: Tensor, width: int, height: int) -> tuple[int, int, int, int]:
    """What is around all faces, by once the largest one's size."""
    if not len(boxes):
        return 0, 0, width, height
    room = float((boxes[:, 2:] - boxes[:, :2]).amax())
    x0, y0 = (max(0, int(v)) for v in (boxes[:, :2].amin(0) - room).tolist())
    x1, y1 = (boxes[:, 2:].amax(0) + room).tolist()
    return x0, y0, min(width, int(x1)), min(height, int(y1))


def _tile(view: Tensor, window: tuple[int, int, int, int]) -> Image.Image:
    x0, y0, x1, y1 = window
    cut = Image.fromarray(view[:, y0:y1, x0:x1].permute(1, 2, 0).contiguous().numpy())
    return cut.resize((TILE_PX, round(TILE_PX * (y1 - y0) / (x1 - x0))), Image.Resampling.LANCZOS)


def _put(out: Image.Image, place: tuple[int, int], tile: Image.Image, text: str) -> None:
    ImageDraw.Draw(out).text((place[0] + 2, place[1] + 1), text, fill="black", font=ImageFont.load_default(12))
    out.paste(tile, (place[0], place[1] + LINE_PX))


def photos() -> dict[str, Tensor]:
    """The astronaut (NASA, public domain) and insightface's group of six, from installed packages; the latter again
    with signs and number plates drawn into it."""
    import skimage.data

    spec = find_spec("insightface")
    astronaut = torch.from_numpy(np.array(skimage.data.astronaut()))  # type: ignore[no-untyped-call]
    out = {"astronaut": astronaut.permute(2, 0, 1).contiguous()}
    if spec is not None and spec.submodule_search_locations:
        out["t1"] = load(Path(spec.submodule_search_locations[0]) / "data" / "images" / "t1.jpg")
        out[STREET] = torch.from_numpy(np.array(street())).permute(2, 0, 1).contiguous()
    return out


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="folder for the sheets")
    options.add_argument("--only", nargs="*", default=(), choices=sorted(TABLES["technique"]), metavar="NAME")
    options.add_argument("--photo", nargs="*", type=Path, default=(), help="other photos than the two")
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name, view in ({path.stem: load(path) for path in given.photo} or photos()).items():
        path = given.out / f"{name}.png"
        lines = rows(given.only, STREET if name == STREET else "face")
        sheet(view, list(lines)).save(path)
        print(f"written: {path}")


if __name__ == "__main__":
    main()
