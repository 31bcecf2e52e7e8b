"""Text and number plates in pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from anondata.detectors.plates import PlateDetector, is_plate, to_rim
from anondata.detectors.text import TextDetector, _distinct
from anondata.errors import PolicyError


@pytest.fixture(autouse=True)
def networks(fetched: Callable[..., None]) -> None:
    fetched("ppocr-det", "ppocr-rec")


def signs(*lines: tuple[str, tuple[int, int], int], on: Tensor | None = None) -> Tensor:
    """Dark letters on light signs; each line is text, place and size."""
    base = np.full((300, 500, 3), 120, np.uint8) if on is None else on.permute(1, 2, 0).numpy()
    picture = Image.fromarray(base.copy())
    draw = ImageDraw.Draw(picture)
    for text, place, px in lines:
        font = ImageFont.load_default(px)
        x0, y0, x1, y1 = draw.textbbox(place, text, font=font)
        draw.rectangle((x0 - px / 3, y0 - px / 3, x1 + px / 3, y1 + px / 3), fill=(240, 240, 235))
        draw.text(place, text, font=font, fill=(15, 15, 15))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.mark.parametrize("px", [11, 16, 32, 80, 160])
def test_text_of_many_sizes_is_found_whole(px: int) -> None:
    view = signs(("Word", (60, 60), px))
    found = TextDetector().detect([view])
    assert found.kinds == ("text",)
    dark = (view[0] < 60).nonzero()
    x0, y0, x1, y1 = found.scaled(1.1).boxes[0].tolist()
    assert x0 <= int(dark[:, 1].min()) and int(dark[:, 1].max()) < x1  # noqa: PT018 - one statement on one axis
    assert y0 <= int(dark[:, 0].min()) and int(dark[:, 0].max()) < y1  # noqa: PT018


def test_landmarks_are_the_corners_and_one_line_height_along_the_top() -> None:
    found = TextDetector().detect([signs(("Main Street", (60, 60), 40))])
    corners, em = found.landmarks[0, :4], found.landmarks[0, 4]
    assert found.boxes[0].tolist() == [*corners.amin(dim=0).tolist(), *corners.amax(dim=0).tolist()]
    assert float((em - corners[0]).norm()) == pytest.approx(float((corners[3] - corners[0]).norm()), rel=1e-3)


def test_pictures_do_not_influence_each_other(astronaut: Tensor) -> None:
    view = signs(("Main Street", (60, 60), 30))
    together = TextDetector().detect([torch.zeros(3, 1, 1, dtype=torch.uint8), view, view])
    assert together.image.tolist() == [1, 2]
    assert torch.equal(together.boxes[0], TextDetector().detect([view]).boxes[0])


def test_no_pictures_no_regions() -> None:
    assert len(TextDetector().detect([])) == len(PlateDetector().detect([])) == 0


def test_what_cannot_be_read_is_left_out_when_asked() -> None:
    """The eyes of a cat look like letters."""
    cat = torch.from_numpy(skimage.data.cat().copy()).permute(2, 0, 1)
    assert len(TextDetector(smallest_px=6).detect([cat])) > 0
    assert len(TextDetector(smallest_px=6, readable=0.7).detect([cat])) == 0


def test_upside_down_text_counts_as_readable() -> None:
    view = signs(("Main Street", (60, 60), 30))
    assert len(TextDetector(readable=0.6).detect([view.flip(1, 2)])) == 1


def test_a_block_gives_way_to_its_lines_and_pieces_to_their_word() -> None:
    block = torch.tensor([[0.0, 0, 100, 40], [0, 0, 100, 21], [0, 19, 100, 40]])
    assert _distinct(block) == [1, 2]
    word = torch.tensor([[0.0, 0, 100, 40], [5, 5, 30, 35]])
    assert _distinct(word) == [0]
    assert _distinct(torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])) == [0, 1]


@pytest.mark.parametrize(
    "params", [{"threshold": 0}, {"threshold": 1.0}, {"smallest_px": 1}, {"readable": 1.0}, {"readable": -0.1}]
)
def test_parameters_out_of_range_are_refused(params: dict[str, float]) -> None:
    with pytest.raises(PolicyError, match=f"{next(iter(params))} must be"):
        TextDetector(**params)


@pytest.mark.parametrize("text", ["AB12 CDE", "B-MW 1234", "ABC-123", "123 ABC", "7ABC123", "W0 99"])
def test_plates_read_like_plates(text: str) -> None:
    assert is_plate(text)


@pytest.mark.parametrize("text", ["", "EXIT", "1234", "Main Street", "Room 12", "A1", "ABCDE 123456", "10.30 am"])
def test_other_text_does_not(text: str) -> None:
    assert not is_plate(text)


def test_a_plate_in_a_photo_is_found_up_to_its_rim_and_words_are_not(astronaut: Tensor) -> None:
    view = signs(("KX65 TZA", (300, 420), 30), ("Exit", (20, 440), 30), on=astronaut)
    found = PlateDetector().detect([view])
    assert found.kinds == ("plate",)
    x0, y0, x1, y1 = found.boxes[0].tolist()
    assert 280 < x0 < 302 and 415 < y0 < 432 and x1 > 430 and y1 > 445  # noqa: PT018 - one box


def test_a_photo_without_plates_has_none(astronaut: Tensor) -> None:
    assert len(PlateDetector().detect([astronaut])) == 0


def test_the_rim_lies_around_the_characters_in_their_own_directions() -> None:
    outline = torch.tensor([[[0.0, 0], [10, 0], [10, 2], [0, 2]]])
    torch.testing.assert_close(to_rim(outline)[0, 0], torch.tensor([-0.8, -0.5]))
    torch.testing.assert_close(to_rim(outline)[0, 2], torch.tensor([10.8, 2.5]))
