"""Text and number plates drawn into real photos: found, read before, read after, and still like text?

    python -m anondata.tools.bench.text_plates [--strings N] [--draw K] [--sheet FILE.png]

Strings in several fonts, sizes, colours and perspectives, with noise and uneven light, on parts of photos that come
with scikit-image and insightface. Read: PP-OCR's reading is at least ``TextUnread.most`` similar to what was
*drawn*, at the true outline or at any line that it finds. All techniques see the regions that the detector found;
strings that it missed count as read after where they can be read. PP-OCR is the gate's own recognizer, so Tesseract
(Smith 2007), a stranger to it, reads the true outlines, too, where its program ``tesseract`` is installed: "by
another", of the strings that it could read before. The presets' settings were chosen on draw 0: the others are fresh.
Milliseconds are CPU time.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from anondata.components import build
from anondata.content.images import ImageContent
from anondata.detectors.plates import PlateDetector
from anondata.detectors.text import TextDetector
from anondata.models import ocr
from anondata.protocols import Detector
from anondata.regions import Regions
from anondata.tools.bench._common import cell, save, share, show
from anondata.tools.bench._text_scenes import Scene, of_pattern, photos, scene
from anondata.transforms.base import RegionTransform
from anondata.verifiers.gates.text_gates import PlateUnread, StillText, TextUnread, _text_share

TECHNIQUES: dict[str, tuple[str, dict[str, Any]]] = {
    "fill": ("fill", {"coverage": 1.3}),
    "fill mean": ("fill", {"color": "mean", "coverage": 1.2}),
    "blur": ("gaussian_blur", {"coverage": 1.1}),
    "pixelate 8": ("pixelate", {"blocks": 8, "coverage": 1.1}),
    "text_swap": ("text_swap", {}),
    "plate_swap": ("plate_swap", {}),
}
TESSERACT = shutil.which("tesseract")
READ_PX = 64  # height of a line as Tesseract gets it: letters of 30 px and more are what it reads best
BOUNDS = (0.4, 0.5, 0.55, 0.6, 0.67, 0.75, 0.9)


def readings(view: Tensor, outline: Tensor, height: float) -> list[ocr.Reading]:
    """At the true outline, a little enlarged, and at every line that is found near it."""
    middle = outline.mean(dim=0)
    true = middle + (outline - middle) * torch.tensor([1.03, 1.15])
    low, high = outline.amin(dim=0) - height, outline.amax(dim=0) + height
    x0, y0 = low.clamp(min=0).long().tolist()
    x1, y1 = high.ceil().long().tolist()
    lines = ocr.lines_in(view[:, y0:y1, x0:x1], line_px=height).outlines + torch.tensor([x0, y0])
    return [r for each in ocr.read_in(view, [true, *lines], [(0, False)]) for r in each]


def by_another(gate: TextUnread, each: Scene, view: Tensor) -> bool:
    """Whether Tesseract reads the string at its true outline."""
    if TESSERACT is None:
        return False
    middle = each.outline.mean(dim=0)
    line = ocr.cut_line(view, middle + (each.outline - middle) * torch.tensor([1.05, 1.3]), height=READ_PX)
    pixels = Image.fromarray(line.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy())
    border = tuple(line.mean(dim=(1, 2)).int().tolist())
    file = io.BytesIO()
    ImageOps.expand(pixels, 16, border).save(file, "PNG")
    command = [TESSERACT, "-", "-", "--psm", "7", "--dpi", "150"]
    said = subprocess.run(command, input=file.getvalue(), capture_output=True, check=True).stdout
    return gate.similarity(each.text, said.decode(errors="replace")) >= gate.most


def tesseract_version() -> str | None:
    if TESSERACT is None:
        return None
    said = subprocess.run([TESSERACT, "--version"], capture_output=True, check=True, text=True)
    return (said.stdout or said.stderr).splitlines()[0]


def nearest(gate: TextUnread, text: str, found: Sequence[ocr.Reading]) -> float:
    return max((gate.similarity(text, r.text) for r in found), default=0.0)


def covered(outline: Tensor, found: Regions) -> bool:
    """Whether 95 % of the letters' points lie in the found boxes, 1.1 times as large."""
    steps = torch.linspace(0, 1, 21)
    u, v = torch.meshgrid(steps, steps, indexing="ij")
    top = outline[0] + (outline[1] - outline[0]) * u[..., None]
    bottom = outline[3] + (outline[2] - outline[3]) * u[..., None]
    points = (top + (bottom - top) * v[..., None]).reshape(-1, 1, 2)
    boxes = found.scaled(1.1).boxes
    inside = (points >= boxes[None, :, :2]) & (points <= boxes[None, :, 2:])
    return bool(len(found)) and float(inside.all(dim=2).any(dim=1).float().mean()) >= 0.95


def measured(
    scenes: list[Scene], detector: Detector, gate: TextUnread, names: Sequence[str]
) -> tuple[Any, list[Any]]:
    """A row of what was found and read before, a row for each technique after; and pictures of the first scenes."""
    content, found, boxes, before, ms = ImageContent(), [], [], [], []
    other = [by_another(gate, each, each.view) for each in scenes]
    for each in scenes:
        start = time.process_time()
        boxes.append(detector.detect([each.view]))
        ms.append(1000 * (time.process_time() - start))
        found.append(covered(each.outline, boxes[-1]))
        before.append(nearest(gate, each.text, readings(each.view, each.outline, each.height_px)) >= gate.most)
    rows: dict[str, Any] = {
        "before": {
            "found": share(found),
            "read": share(before),
            "read_by_another": share(other) if TESSERACT else None,
            "ms_per_picture": round(float(np.median(ms)), 1),
        }
    }
    sheet: list[Any] = [[each.view for each in scenes[:12]]]
    for name in names:
        technique: RegionTransform = build("technique", TECHNIQUES[name][0], TECHNIQUES[name][1])
        read, by_other, still, cost, passed, views = [], [], [], [], [], []
        for i, (each, regions) in enumerate(zip(scenes, boxes, strict=True)):
            media = content.decode(each.view, torch.device("cpu"))
            start = time.process_time()
            patches = content.change([media], regions, technique, [1000 + i] * len(regions))
            cost.append(1000 * (time.process_time() - start) / max(1, len(regions)))
            view = content.view(content.compose(media, patches))
            views.append(view)
            after = nearest(gate, each.text, readings(view, each.outline, each.height_px)) >= gate.most
            if before[i]:
                read.append(after)
            if other[i] and found[i]:
                by_other.append(by_another(gate, each, view))
            if found[i]:
                box = torch.cat([each.outline.amin(dim=0), each.outline.amax(dim=0)])
                still.append(_text_share(view, box, torch.full((5, 2), torch.nan)) >= StillText().least)
                if before[i]:
                    passed.append(after)
        rows[name] = {
            "read_after": share(read),
            "read_after_if_found": share(passed),
            "by_another_if_found": share(by_other) if TESSERACT else None,
            "still_text": share(still),
            "ms_per_region": round(float(np.median(cost)), 1),
        }
        sheet.append(views[:12])
        print(name, rows[name], flush=True)
    return rows, sheet


def calibrated(scenes: list[Scene], gate: TextUnread) -> list[dict[str, Any]]:
    """By bound: how often other strings of the same pattern are taken for a string, and a re-read one is missed."""
    rng = np.random.default_rng(1)
    same, other = [], []
    for each in scenes:
        worse = each.view.float() + torch.from_numpy(rng.normal(0, 6, each.view.shape)).float()
        first = [r for r in readings(each.view, each.outline, each.height_px) if r.confidence >= 0.5]
        if nearest(gate, each.text, first) < 0.6:
            continue  # could not be read in the first place
        again = readings(worse.clamp(0, 255).to(torch.uint8), each.outline, each.height_px)
        same.append(max(nearest(gate, r.text, again) for r in first))
        pattern = "".join(
            "9" if c.isdigit() else "A" if c.isupper() else "a" if c.islower() else c for c in each.text
        )
        other += [gate.similarity(each.text, of_pattern(pattern, rng)) for _ in range(200)]
    return [
        {
            "bound": bound,
            "false_accept": round(float(np.mean(np.array(other) >= bound)), 4),
            "missed": round(float(np.mean(np.array(same) < bound)), 4),
            "pairs": len(other),
            "reread": len(same),
        }
        for bound in BOUNDS
    ]


def sheet_of(rows: list[list[Tensor]], path: str) -> None:
    tiles = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    Image.fromarray(tiles.permute(1, 2, 0).numpy()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strings", type=int, default=200, help="and half as many plates")
    parser.add_argument(
        "--draw", type=int, default=1, help="which strings; those of draw 0 were used to choose settings"
    )
    parser.add_argument("--sheet", help="PNG of the first scenes, before and after")
    options = parser.parse_args()
    count = options.strings
    texts = [scene(i, plate=False, draw=options.draw) for i in range(count)]
    plates = [scene(i, plate=True, draw=options.draw) for i in range(count // 2)]
    body: dict[str, Any] = {
        "strings": count,
        "plates": len(plates),
        "draw": options.draw,
        "bound": TextUnread().most,
        "another": tesseract_version(),
    }
    body["text"], first = measured(texts, TextDetector(), TextUnread(), [n for n in TECHNIQUES if n != "plate_swap"])
    body["plate"], second = measured(
        plates, PlateDetector(), PlateUnread(), [n for n in TECHNIQUES if n != "text_swap"]
    )
    body["calibration_text"] = calibrated(texts, TextUnread())
    body["calibration_plate"] = calibrated(plates, PlateUnread())
    empty = [torch.from_numpy(np.array(p)).permute(2, 0, 1).contiguous() for p in photos()]
    body["false_plates"] = {
        "photos": len(empty),
        "on_photos": sum(len(PlateDetector().detect([p])) for p in empty),
        "strings": count,
        "on_strings": sum(len(PlateDetector().detect([each.view])) > 0 for each in texts),
    }
    body["text_on_photos"] = {
        f"readable={r:g}": sum(len(TextDetector(readable=r).detect([p])) for p in empty) for r in (0.0, 0.5)
    }
    for kind in ("text", "plate"):
        before, *after = body[kind].items()
        show(
            f"{kind}: before", list(before[1]), [[cell(v) if isinstance(v, dict) else v for v in before[1].values()]]
        )
        table = [[name, *(cell(v) if isinstance(v, dict) else v for v in row.values())] for name, row in after]
        show(f"{kind}: after, %", ["technique", *after[0][1]], table)
        rows = body[f"calibration_{kind}"]
        show(f"{kind}: bounds of the gate", list(rows[0]), [list(r.values()) for r in rows])
    print(body["false_plates"], body["text_on_photos"])
    save("text_plates", body)
    if options.sheet:
        sheet_of([row[:6] for row in first] + [row[:6] for row in second], options.sheet)


if __name__ == "__main__":
    main()
