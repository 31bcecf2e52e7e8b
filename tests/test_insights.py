"""Insights tell what was there in words that identify nobody, and only where somebody asked."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from anondata import Anonymizer, Sample, Schema
from anondata.content.images import ImageContent
from anondata.content.insights import describe
from anondata.regions import Regions

SCHEMA = Schema({"image": "image", "note": "insights"})
WORDS = set(
    re.findall(
        "[a-z]+",
        """no one two three four face faces: top middle bottom left centre right, large medium small, turned to the
        seen from the front. nothing was found to anonymize. the picture was dark bright and is darker brighter
        now. its dominant colour was black white grey red orange brown yellow green blue purple pink and is now""",
    )
)


def regions(boxes: Sequence[Sequence[float]], *, kind: str = "face", landmarks: Tensor | None = None) -> Regions:
    count = len(boxes)
    return Regions(
        torch.zeros(count, dtype=torch.int64),
        torch.tensor(boxes, dtype=torch.float32).reshape(count, 4),
        torch.full((count, 5, 2), torch.nan) if landmarks is None else landmarks,
        torch.ones(count),
        (kind,) * count,
    )


def flat(colour: Sequence[int], height: int = 90, width: int = 120) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, height, width)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.tuples(*[st.floats(-60, 60)] * 4), max_size=7),
    st.integers(0, 2**16),
)
def test_every_word_is_of_the_vocabulary(height: int, width: int, boxes: list[tuple[float, ...]], seed: int) -> None:
    """Whatever a picture and its regions are: boxes out of the frame, of no area, landmarks anywhere or nowhere."""
    draw = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (2, 3, height, width), generator=draw, dtype=torch.uint8)
    landmarks = torch.randn((len(boxes), 5, 2), generator=draw) * 20
    landmarks[torch.rand(landmarks.shape, generator=draw) < 0.1] = torch.nan
    found = regions([(x, y, x + abs(w), y + abs(h)) for x, y, w, h in boxes], landmarks=landmarks)
    told = re.findall(r"[a-z]+|\d+", describe(pictures[0], pictures[1], found).lower())
    assert {word for word in told if not word.isdigit()} <= WORDS
    assert {word for word in told if word.isdigit()} <= {str(len(boxes))}


def test_places_and_sizes_are_thirds_of_the_picture() -> None:
    found = regions([(100, 70, 104, 74), (5, 5, 25, 25), (40, 10, 90, 80)])
    text = describe(flat((127, 127, 127)), flat((127, 127, 127)), found)
    assert text.startswith("Three faces: top left, medium; middle centre, large; bottom right, small.")


@pytest.mark.parametrize(
    ("nose", "told"), [(5.0, "turned to the left"), (20.0, "seen from the front"), (35.0, "right")]
)
def test_the_nose_tells_where_a_head_is_turned(nose: float, told: str) -> None:
    points = torch.tensor([[[10.0, 10.0], [30.0, 10.0], [nose, 20.0], [12.0, 30.0], [28.0, 30.0]]])
    assert told in describe(flat((0, 0, 0)), flat((0, 0, 0)), regions([(0, 0, 40, 40)], landmarks=points))


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ((20, 20, 20), (20, 20, 20), "The picture was dark."),
        ((20, 20, 20), (200, 200, 200), "The picture was dark and is brighter now."),
        ((240, 240, 240), (100, 100, 100), "The picture was bright and is darker now."),
        ((127, 127, 127), (60, 60, 60), "The picture is darker now."),
    ],
)
def test_light_is_told_of_the_original_and_how_it_changed(was: Sequence[int], now: Sequence[int], told: str) -> None:
    assert told in describe(flat(was), flat(now), regions([]))


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((0, 0, 0), "black"),
        ((255, 255, 255), "white"),
        ((128, 128, 128), "grey"),
        ((220, 20, 20), "red"),
        ((255, 140, 0), "orange"),
        ((110, 60, 10), "brown"),
        ((250, 230, 20), "yellow"),
        ((30, 160, 40), "green"),
        ((30, 60, 220), "blue"),
        ((130, 30, 180), "purple"),
        ((255, 170, 190), "pink"),
    ],
)
def test_basic_colour_terms(colour: Sequence[int], name: str) -> None:
    assert f"Its dominant colour was {name}." in describe(flat(colour), flat(colour), regions([]))


def test_the_colour_of_a_face_is_not_told() -> None:
    picture = flat((30, 60, 220)).clone()
    picture[:, 20:70, 20:100] = torch.tensor((160, 100, 60), dtype=torch.uint8)[:, None, None]
    assert "blue" in describe(picture, picture, regions([(40, 30, 80, 60)]))
    assert "colour" not in describe(picture, picture, regions([(0, 0, 120, 90)]))


def test_a_field_that_is_declared_comes_out_with_insights(party_jpeg: bytes) -> None:
    [outcome] = Anonymizer("faces").run([Sample("a", {"image": party_jpeg})], SCHEMA)
    assert outcome.released
    assert outcome.sample["note"].startswith("6 faces.")  # type: ignore[union-attr]


def test_what_was_under_the_name_does_not_come_out() -> None:
    sample = Sample("a", {"image": torch.zeros(3, 32, 32), "note": "Jane Doe"})
    [outcome] = Anonymizer("faces").run([sample], SCHEMA)
    assert outcome.sample["note"].startswith("Nothing was found to anonymize.")  # type: ignore[union-attr]


def test_each_picture_of_a_list_is_told_by_its_place() -> None:
    sample = Sample("a", {"image": [torch.zeros(3, 32, 32), torch.ones(3, 32, 32)]})
    [outcome] = Anonymizer("faces").run([sample], SCHEMA)
    assert re.search(r"image\[0\]: .*black.* image\[1\]: .*white", outcome.sample["note"])  # type: ignore[union-attr]


def test_insights_do_not_change_the_result(astronaut: Tensor) -> None:
    anonymizer = Anonymizer("faces", run_key=bytes(32))
    [plain] = anonymizer.run([Sample("a", {"image": astronaut})], Schema({"image": "image"}))
    [told] = anonymizer.run([Sample("a", {"image": astronaut})], SCHEMA)
    assert torch.equal(plain.image, told.image)  # type: ignore[union-attr, arg-type]


def test_an_error_while_they_are_made_withholds(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise ValueError("Jane")

    monkeypatch.setattr(ImageContent, "insights", broken)
    [outcome] = Anonymizer("faces").run([Sample("a", {"image": torch.zeros(3, 32, 32)})], SCHEMA)
    assert not outcome.released
    assert outcome.reason == "error"  # type: ignore[union-attr]
    assert "Jane" not in outcome.detail  # type: ignore[union-attr]
