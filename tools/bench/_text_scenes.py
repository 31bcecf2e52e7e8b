"""Strings and number plates drawn into real photos, in several fonts, sizes, colours and perspectives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

from anondata.models import ocr

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


STREET = ((768, 0, False), (0, 502, True), (400, 502, True), (768, 502, True), (400, 0, False))


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


def scene(number: int, *, plate: bool, draw: int = 0) -> Scene:
    """A string drawn on a sign, or a plate, turned in space, lit unevenly, with noise; each draw has its own."""
    rng = np.random.default_rng((number, int(plate), draw) if draw else (number, int(plate)))
    pictures = photos()
    base = pictures[int(rng.integers(len(pictures)))]
    scale = max(FRAME[0] / base.width, FRAME[1] / base.height) * rng.uniform(1.0, 1.3)
    base = base.resize((round(base.width * scale) + 1, round(base.height * scale) + 1))
    x, y = int(rng.integers(base.width - FRAME[0] + 1)), int(rng.integers(base.height - FRAME[1] + 1))
    return drawn(base.crop((x, y, x + FRAME[0], y + FRAME[1])), rng, plate=plate)


def street() -> Image.Image:
    """A photo of people in the street, with signs and number plates drawn where no face is."""
    picture = photos()[-1]
    for number, (x, y, plate) in enumerate(STREET, start=1):
        window = (x, y, x + FRAME[0], y + FRAME[1])
        one = drawn(picture.crop(window), np.random.default_rng((number, 7)), plate=plate)
        pixels = one.view.permute(1, 2, 0).numpy()
        picture.paste(Image.fromarray(pixels), window[:2])
    return picture


def drawn(base: Image.Image, rng: np.random.Generator, *, plate: bool) -> Scene:
    """A string drawn into a picture of :data:`FRAME`."""
    letters = fonts()
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
