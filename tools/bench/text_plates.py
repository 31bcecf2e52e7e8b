"""Text and number plates drawn into real photos: found, read before, read after, and still like text?

    python -m anondata.tools.bench.text_plates [STRINGS] [SHEET.png]

Strings in several fonts, sizes, colours and perspectives, with noise and uneven light, on parts of photos that come
with scikit-image and insightface. Read: PP-OCR's reading is at least ``TextUnread.most`` similar to what was
*drawn*, at the true outline or at any line that it finds. All techniques see the regions that the detector found;
strings that it missed count as read after where they can be read. The attacker uses the gate's own recognizer:
another one may read more. Milliseconds are CPU time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

from anondata.components import build
from anondata.content.images import ImageContent
from anondata.detectors.plates import PlateDetector
from anondata.detectors.text import TextDetector
from anondata.models import ocr
from anondata.protocols import Detector
from anondata.regions import Regions
from anondata.tools.bench._common import cell, save, share, show
from anondata.transforms.base import RegionTransform
from anondata.verifiers.gates.text_gates import PlateUnread, StillText, TextUnread, _text_share

FRAME = (512, 384)
LETTERS, DIGITS = "ABCDEFGHJKLMNPRSTUVWXYZ", "0123456789"
FORMATS = ("AA99 AAA", "A AA 9999", "AAA-999", "999 AAA", "AA-999-AA", "9AAA999", "AA 9999", "99 AAA 9")
WORDS = ("Aaaaaaa", "Aaaaa Aaaaaaa", "AAAAAA", "99-99-9999", "aaaaaa", "+99 999 9999", "Aaa. 99", "AAA 99 Aaaa",
         "99:99", "aaaa@aaaa.aa")  # fmt: skip
COLOURS = (
    ((20, 20, 20), (240, 238, 230)),
    ((250, 250, 250), (25, 60, 130)),
    ((255, 235, 60), (30, 30, 30)),
    ((150, 20, 20), (245, 240, 220)),
    ((250, 250, 250), (20, 110, 60)),
)
PLATE_COLOURS = (((15, 15, 15), (242, 242, 238)), ((15, 15, 15), (240, 205, 40)), ((30, 50, 130), (235, 238, 240)))
TECHNIQUES: dict[str, tuple[str, dict[str, Any]]] = {
    "fill": ("fill", {"coverage": 1.3}),
    "fill mean": ("fill", {"color": "mean", "coverage": 1.2}),
    "blur": ("gaussian_blur", {"coverage": 1.1}),
    "pixelate 8": ("pixelate", {"blocks": 8, "coverage": 1.1}),
    "text_swap": ("text_swap", {}),
    "plate_swap": ("plate_swap", {}),
}
BOUNDS = (0.4, 0.5, 0.55, 0.6, 0.67, 0.75, 0.9)


@dataclass(frozen=True)
class Scene:
    """One string in one photo. outline: ``(4, 2)`` of its letters."""

    view: Tensor
    text: str
    outline: Tensor
    height_px: float


def photos() -> list[Image.Image]:
    import insightface
    import skimage.data

    names = ("astronaut", "coffee", "cat", "rocket")
    out = [Image.fromarray(getattr(skimage.data, name)()[..., :3]) for name in names]
    return [*out, Image.open(Path(insightface.__file__).parent / "data" / "images" / "t1.jpg").convert("RGB")]


def fonts() -> list[str]:
    import matplotlib

    own = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    found = [own / f"DejaVu{n}.ttf" for n in ("Sans", "Sans-Bold", "Serif", "Serif-Italic", "SansMono", "Serif-Bold")]
    system = Path("/usr/share/fonts/truetype/liberation")
    names = ("LiberationSansNarrow-Bold", "LiberationSerif-Regular", "LiberationSans-Regular", "LiberationMono-Bold")
    return [str(path) for path in (*found, *(system / f"{n}.ttf" for n in names)) if path.exists()]


def of_pattern(pattern: str, rng: np.random.Generator) -> str:
    kinds = {"A": LETTERS, "a": LETTERS.lower(), "9": DIGITS}
    return "".join(str(rng.choice(list(kinds[c]))) if c in kinds else c for c in pattern)


def scene(number: int, *, plate: bool) -> Scene:
    """A string drawn on a sign, or a plate, turned in space, lit unevenly, with noise."""
    rng = np.random.default_rng((number, int(plate)))
    pictures, letters = photos(), fonts()
    base = pictures[int(rng.integers(len(pictures)))]
    scale = max(FRAME[0] / base.width, FRAME[1] / base.height) * rng.uniform(1.0, 1.3)
    base = base.resize((round(base.width * scale) + 1, round(base.height * scale) + 1))
    x, y = int(rng.integers(base.width - FRAME[0] + 1)), int(rng.integers(base.height - FRAME[1] + 1))
    base = base.crop((x, y, x + FRAME[0], y + FRAME[1]))
    text = of_pattern(str(rng.choice(FORMATS if plate else WORDS)), rng)
    height = float(rng.uniform(12, 40))
    fg, bg = (PLATE_COLOURS if plate else COLOURS)[int(rng.integers(3 if plate else 5))]
    font = ImageFont.truetype(letters[int(rng.integers(len(letters)))], 96)
    sign, inner = _sign(text, font, fg, bg, plate)
    corners = _corners(sign.size, inner, height, rng)
    clear = not plate and rng.random() < 0.25  # straight on the photo
    return _pasted(base, sign, corners, inner, text, height, rng, clear)


def _sign(text: str, font: Any, fg: Any, bg: Any, plate: bool) -> tuple[Image.Image, tuple[int, int, int, int]]:
    x0, y0, x1, y1 = (round(v) for v in font.getbbox(text))
    pad = 24 if plate else 34
    sign = Image.new("RGB", (x1 - x0 + 2 * pad, y1 - y0 + 2 * pad), bg)
    draw = ImageDraw.Draw(sign)
    draw.text((pad - x0, pad - y0), text, font=font, fill=fg)
    if plate:
        draw.rectangle((3, 3, sign.width - 4, sign.height - 4), outline=fg, width=4)
    return sign, (pad, pad, pad + x1 - x0, pad + y1 - y0)


def _corners(
    size: tuple[int, int], inner: tuple[int, int, int, int], height: float, rng: np.random.Generator
) -> Tensor:
    """Where the sign's corners go: shrunk, turned by up to 15 degrees, and seen from aside."""
    factor = height / (inner[3] - inner[1])
    w, h = (side * factor for side in size)
    if w > FRAME[0] * 0.8:
        w, h = FRAME[0] * 0.8, h * FRAME[0] * 0.8 / w
    points = np.array([[0, 0], [w, 0], [w, h], [0, h]]) - [w / 2, h / 2]
    points *= 1 + rng.uniform(-0.12, 0.12, (4, 1))
    angle = np.deg2rad(rng.uniform(-15, 15))
    points = points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    reach = np.abs(points).max(axis=0) + 6
    centre = [rng.uniform(min(r, side / 2), max(side - r, side / 2)) for r, side in zip(reach, FRAME, strict=True)]
    return torch.from_numpy(points + centre)


def _pasted(
    base: Image.Image, sign: Image.Image, corners: Tensor, inner: tuple[int, int, int, int], text: str, height: float,
    rng: np.random.Generator, clear: bool,
) -> Scene:  # fmt: skip
    w, h = sign.size
    flat = torch.tensor([[0, 0], [w, 0], [w, h], [0, h]], dtype=torch.float64)
    to_picture, to_sign = ocr.homography(flat, corners), ocr.homography(corners, flat)
    x0, y0, x1, y1 = inner
    outline = torch.tensor([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=torch.float64)
    mapped = torch.cat([outline, outline.new_ones(4, 1)], dim=1) @ to_picture.T
    outline = mapped[:, :2] / mapped[:, 2:]
    big = 3  # drawn larger and shrunk: antialiased
    up = np.diag([1 / big, 1 / big, 1.0])
    matrix = (to_sign.numpy() @ up) / (to_sign.numpy() @ up)[2, 2]
    size = (FRAME[0] * big, FRAME[1] * big)
    coefficients = tuple(matrix.flatten()[:8])

    def seen(flat: Image.Image) -> Image.Image:
        wide = flat.transform(size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)
        return wide.resize(FRAME, Image.Resampling.BOX)

    mask = Image.new("L", sign.size, 255)
    if clear:
        grey = np.array(sign.convert("L")).astype(int)
        mask = Image.fromarray((np.abs(grey - int(grey[0, 0])) > 60).astype(np.uint8) * 255)
    light = np.linspace(rng.uniform(0.6, 1.0), rng.uniform(0.8, 1.15), FRAME[0])[None, :, None]
    lit = Image.fromarray((np.array(seen(sign)) * light).clip(0, 255).astype(np.uint8))
    out = base.copy()
    out.paste(lit, (0, 0), seen(mask))
    out = out.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.7))))
    noisy = np.array(out).astype(float) + rng.normal(0, rng.uniform(0, 7), (FRAME[1], FRAME[0], 3))
    pixels = torch.from_numpy(noisy.clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()
    return Scene(pixels, text, outline.float(), height)


def readings(view: Tensor, outline: Tensor, height: float) -> list[ocr.Reading]:
    """At the true outline, a little enlarged, and at every line that is found near it."""
    middle = outline.mean(dim=0)
    true = middle + (outline - middle) * torch.tensor([1.03, 1.15])
    low, high = outline.amin(dim=0) - height, outline.amax(dim=0) + height
    x0, y0 = low.clamp(min=0).long().tolist()
    x1, y1 = high.ceil().long().tolist()
    lines = ocr.lines_in(view[:, y0:y1, x0:x1], line_px=height).outlines + torch.tensor([x0, y0])
    return [r for each in ocr.read_in(view, [true, *lines], [(0, False)]) for r in each]


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
    for each in scenes:
        start = time.process_time()
        boxes.append(detector.detect([each.view]))
        ms.append(1000 * (time.process_time() - start))
        found.append(covered(each.outline, boxes[-1]))
        before.append(nearest(gate, each.text, readings(each.view, each.outline, each.height_px)) >= gate.most)
    rows: dict[str, Any] = {
        "before": {"found": share(found), "read": share(before), "ms_per_picture": round(float(np.median(ms)), 1)}
    }
    sheet: list[Any] = [[each.view for each in scenes[:12]]]
    for name in names:
        technique: RegionTransform = build("technique", TECHNIQUES[name][0], TECHNIQUES[name][1])
        read, still, cost, passed, views = [], [], [], [], []
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
            if found[i]:
                box = torch.cat([each.outline.amin(dim=0), each.outline.amax(dim=0)])
                still.append(_text_share(view, box, torch.full((5, 2), torch.nan)) >= StillText().least)
                if before[i]:
                    passed.append(after)
        rows[name] = {"read_after": share(read), "read_after_if_found": share(passed), "still_text": share(still),
                      "ms_per_region": round(float(np.median(cost)), 1)}  # fmt: skip
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
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    texts = [scene(i, plate=False) for i in range(count)]
    plates = [scene(i, plate=True) for i in range(count // 2)]
    body: dict[str, Any] = {"strings": count, "plates": len(plates), "bound": TextUnread().most}
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
    if len(sys.argv) > 2:
        sheet_of([row[:6] for row in first] + [row[:6] for row in second], sys.argv[2])


if __name__ == "__main__":
    main()
