"""Reading text: blobs against a naive search, and both networks on strings that were drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from anondata.models import _blobs, ocr


@pytest.fixture
def networks(fetched: Callable[..., None]) -> None:
    fetched("ppocr-det", "ppocr-rec")


def written(text: str, *, angle: float = 0.0, size: tuple[int, int] = (420, 260), px: int = 36) -> Tensor:
    """A line on a light ground, turned about the picture's middle."""
    picture = Image.new("RGB", size, (225, 222, 210))
    ImageDraw.Draw(picture).text(
        (size[0] / 2, size[1] / 2), text, font=ImageFont.load_default(px), fill=(30, 30, 60), anchor="mm"
    )
    turned = picture.rotate(angle, fillcolor=(225, 222, 210), resample=Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(turned)).permute(2, 0, 1)


def flooded(mask: np.ndarray) -> int:
    """How many areas there are, counted by flooding."""
    left, count = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}, 0
    while left:
        count += 1
        queue = deque([left.pop()])
        while queue:
            y, x = queue.popleft()
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            queue.extend(near)
    return count


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
def test_areas_are_those_that_flooding_finds(height: int, width: int, seed: int, share: float) -> None:
    values = np.random.default_rng(seed).random((height, width))
    found = _blobs.find_blobs(values, threshold=share)
    assert len(found.means) == flooded(values > share)
    assert float((found.sides.prod(axis=1) + 1e-6).min(initial=1)) >= 1 - 1e-6  # a pixel has an area


def test_a_turned_bar_gets_a_rectangle_of_its_own_sides() -> None:
    ys, xs = np.mgrid[:200, :200] - 100.0
    angle = np.deg2rad(30)
    u, v = xs * np.cos(angle) + ys * np.sin(angle), ys * np.cos(angle) - xs * np.sin(angle)
    found = _blobs.find_blobs(((abs(u) < 60) & (abs(v) < 10)).astype(float), threshold=0.5)
    assert len(found.means) == 1
    assert found.sides[0] == pytest.approx([120, 20], abs=3)
    assert found.corners[0].mean(axis=0) == pytest.approx([100.5, 100.5], abs=1)


def test_growing_moves_every_side_out() -> None:
    square = np.array([[[0.0, 0], [4, 0], [4, 2], [0, 2]]])
    corners, sides = _blobs.grown(square, np.array([[4.0, 2.0]]), np.array([1.0]))
    assert corners.tolist() == [[[-1, -1], [5, -1], [5, 3], [-1, 3]]]
    assert sides.tolist() == [[6, 4]]


def test_a_homography_takes_its_points_where_they_belong() -> None:
    source = torch.tensor([[0, 0], [10, 0], [10, 5], [0, 5]], dtype=torch.float64)
    target = torch.tensor([[3, 1], [40, 8], [35, 30], [1, 22]], dtype=torch.float64)
    mapped = torch.cat([source, source.new_ones(4, 1)], dim=1) @ ocr.homography(source, target).T
    torch.testing.assert_close(mapped[:, :2] / mapped[:, 2:], target)


def test_a_mirrored_outline_reads_from_its_other_end() -> None:
    outline = torch.tensor([[0.0, 0], [4, 0], [4, 2], [0, 2]])
    assert ocr.turned(outline, 0, mirrored=True).tolist() == [[4, 0], [0, 0], [0, 2], [4, 2]]
    assert ocr.turned(outline, 2).tolist() == [[4, 2], [0, 2], [0, 0], [4, 0]]


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("angle", [0, 20, -35, 90])
def test_a_line_is_found_and_read_at_any_angle(angle: float) -> None:
    view = written("Hello World 42", angle=angle, size=(400, 400))
    lines = ocr.lines_in(view)
    assert len(lines.outlines) == 1
    texts = [r.text.replace(" ", "") for r in ocr.read_in(view, list(lines.outlines), ocr.WAYS)[0]]
    assert "HelloWorld42" in texts


@pytest.mark.usefixtures("networks")
def test_mirrored_text_is_read_in_a_mirror() -> None:
    view = written("Hello World").flip(2)
    (outline,) = ocr.lines_in(view).outlines
    readings = ocr.read_in(view, [outline], [(0, False), (0, True)])[0]
    assert readings[1].text.replace(" ", "") == "HelloWorld"
    assert readings[0].text.replace(" ", "") != "HelloWorld"


@pytest.mark.usefixtures("networks")
def test_lines_of_a_batch_are_read_as_they_are_alone() -> None:
    views = [written(text) for text in ("one", "twenty two", "333 4444 55555 666")]
    strips = [ocr.cut_line(view, ocr.lines_in(view).outlines[0]) for view in views]
    assert [r.text for r in ocr.read(strips)] == [ocr.read([strip])[0].text for strip in strips]


@pytest.mark.usefixtures("networks")
def test_an_empty_picture_has_no_lines_and_nothing_is_read_of_none() -> None:
    assert len(ocr.lines_in(torch.full((3, 40, 60), 99, dtype=torch.uint8)).outlines) == 0
    assert ocr.read([]) == []
