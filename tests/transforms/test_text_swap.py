"""What replaces writing: characters of the same kind, in the same place and colours, and nothing else of it."""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from anondata.crops import cut, outer_rects
from anondata.detectors.text import TextDetector
from anondata.models import ocr
from anondata.transforms import _glyphs
from anondata.transforms.plate_swap import PlateSwap
from anondata.transforms.text_swap import TextSwap


@pytest.fixture
def networks(fetched: Callable[..., None]) -> None:
    fetched("ppocr-det", "ppocr-rec")


def kinds(text: str) -> str:
    return "".join("9" if c.isdecimal() else "A" if c.isupper() else "a" if c.isalpha() else c for c in text)


def written(text: str, ink: tuple[int, int, int] = (150, 20, 20), *, angle: float = 0.0) -> Tensor:
    picture = Image.new("RGB", (500, 240), (235, 230, 215))
    ImageDraw.Draw(picture).text((250, 120), text, font=ImageFont.load_default(40), fill=ink, anchor="mm")
    turned = picture.rotate(angle, fillcolor=(235, 230, 215), resample=Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(turned)).permute(2, 0, 1)


def swapped(view: Tensor, technique: TextSwap, seed: int = 5) -> tuple[Tensor, str]:
    """The changed crop of the one line of a picture, and what the line reads then."""
    found = TextDetector().detect([view])
    rects = outer_rects(found.boxes, technique.extent, torch.tensor(view.shape[-2:]))
    near, far = rects[:, None, :2].float(), rects[:, None, 2:].float()
    landmarks = (found.landmarks - near) / (far - near)
    crops = cut(view, rects, technique.crop_px)
    out = technique.change_aligned(crops, extent=technique.extent, seeds=[seed], landmarks=landmarks)
    (line,) = [_glyphs.line_of(out[0], landmarks[0], technique.extent)]
    return out[0], line.text


@given(st.text(string.ascii_letters + string.digits + " .-@", max_size=20), st.integers(0, 2**32))
def test_kinds_stay_and_no_letter_or_digit_does(text: str, seed: int) -> None:
    out = _glyphs.same_kind(text, np.random.default_rng(seed))
    assert kinds(out) == kinds(text)
    assert not any(a == b for a, b in zip(text, out, strict=True) if a.isalnum())


def test_letters_of_other_scripts_become_latin() -> None:
    assert _glyphs.same_kind("京B", np.random.default_rng(1)).isascii()


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("angle", [0, 12, -25])
def test_a_line_reads_otherwise_in_the_same_pattern_at_its_slope(angle: float) -> None:
    _, text = swapped(written("Berlin 2024", angle=angle), TextSwap())
    assert "berlin" not in text.lower()
    assert len(text.replace(" ", "")) == len("Berlin2024")
    assert sum(c.isdigit() for c in text) == 4


@pytest.mark.usefixtures("networks")
def test_colours_of_ink_and_ground_stay() -> None:
    out, _ = swapped(written("Berlin", (150, 20, 20)), TextSwap())
    flat = out.flatten(1) * 255
    reddest = flat[:, (flat[0] - flat[1]).argmax()]
    assert float((reddest - torch.tensor([150.0, 20, 20])).abs().max()) < 25
    assert float((flat.median(dim=1).values - torch.tensor([235.0, 230, 215])).abs().max()) < 8


@pytest.mark.usefixtures("networks")
def test_what_is_written_does_not_show_in_the_result_beyond_its_pattern() -> None:
    """Two texts of one pattern that fill the same frame come out nearly alike with the same seed: but for the letters
    that must differ from the original's, the result depends on the pattern."""
    technique = PlateSwap(grain=0.0)
    one, two = (swapped(written(text, (20, 20, 20)), technique)[1] for text in ("HXN 482", "KXH 735"))
    assert kinds(one.replace(" ", "")) == kinds(two.replace(" ", "")) == "AAA999"


@pytest.mark.usefixtures("networks")
def test_seeds_draw_other_characters() -> None:
    view = written("Berlin 2024")
    assert swapped(view, TextSwap(), 1)[1] != swapped(view, TextSwap(), 2)[1]


@pytest.mark.usefixtures("networks")
def test_a_plate_keeps_its_layout() -> None:
    _, text = swapped(written("KX65 TZA", (15, 15, 15)), PlateSwap())
    assert kinds(text.replace(" ", "")) in ("AA99AAA",)
    assert not any(a == b for a, b in zip("KX65TZA", text.replace(" ", ""), strict=True))


@pytest.mark.usefixtures("networks")
def test_without_landmarks_the_line_is_taken_to_fill_its_box() -> None:
    view, technique = written("Berlin 2024"), TextSwap()
    found = TextDetector().detect([view])
    out = technique.change_regions(view, found.boxes)
    text = ocr.read_in(out, [found.landmarks[0, :4]], [(0, False)])[0][0].text
    assert "berlin" not in text.lower()
    assert len(text) > 4


def test_a_smooth_fit_holds_no_more_than_its_order() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 60), indexing="ij")
    plane = (0.5 + 0.2 * x - 0.1 * y + 0.05 * x * y)[None]
    noisy = plane.clone()
    noisy[:, 10:14, 20:24] = 0.0  # ink that was missed
    fitted = _glyphs.smooth_fit(noisy, torch.ones(40, 60))
    assert float((fitted - plane).abs().mean()) < 0.005
    stripes = (torch.arange(60) % 2).float().expand(1, 40, 60)
    assert float(_glyphs.smooth_fit(stripes, torch.ones(40, 60)).std()) < 0.05


def test_the_ink_is_what_the_middle_has_less_of() -> None:
    strip = torch.full((3, 64, 300), 0.2)
    strip[:, 20:44, 30:270:6] = 0.9
    strip[:, :6] = 0.9  # beyond the sign
    ink = _glyphs.ink_of(strip)
    assert ink.colour.tolist() == pytest.approx([0.9] * 3, abs=0.01)
    assert ink.box == pytest.approx((20 / 64, 44 / 64, 30 / 300, 265 / 300), abs=0.02)
    assert float(ink.share[:6].sum()) == 0
