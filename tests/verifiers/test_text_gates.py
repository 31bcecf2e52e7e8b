"""Gates for text: what was written must not be read any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from anondata import Anonymizer, Released, RunKey
from anondata.components import build
from anondata.content.images import ImageContent
from anondata.detectors.text import TextDetector
from anondata.errors import PolicyError
from anondata.policy import from_yaml
from anondata.protocols import Probe
from anondata.regions import Regions
from anondata.transforms.base import RegionTransform
from anondata.verifiers.gates.text_gates import PlateUnread, StillText, TextUnread, likeness


@pytest.fixture
def networks(fetched: Callable[..., None]) -> None:
    fetched("ppocr-det", "ppocr-rec")


def written(text: str, *, px: int = 34) -> Tensor:
    picture = Image.new("RGB", (420, 140), (60, 110, 90))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((20, 30, 400, 110), fill=(240, 238, 230))
    draw.text((210, 70), text, font=ImageFont.load_default(px), fill=(20, 20, 60), anchor="mm")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def probe_of(original: Tensor, result: Tensor, regions: Regions, technique: RegionTransform) -> Probe:
    count = len(regions)
    return Probe(
        regions=regions,
        before={},
        after={},
        techniques=(technique,) * count,
        erased=torch.full((count,), technique.erases),
        last=torch.zeros(count, dtype=torch.bool),
        blank=lambda name, rows: torch.zeros(0),
        original=[original],
        result=[result],
    )


def judged(gate: Any, view: Tensor, name: str, **params: Any) -> tuple[float, float, bool]:
    """Scores and verdict for the one line of a picture that a technique changed."""
    content, regions = ImageContent(), TextDetector().detect([view])
    technique = build("technique", name, {"key": RunKey(b"a secret of enough bytes"), **params})
    media = content.decode(view, torch.device("cpu"))
    result = content.view(content.compose(media, content.change([media], regions, technique, [7])))
    verdicts = gate.judge(probe_of(view, result, regions, technique))
    assert len(verdicts.passed) == 1
    return float(verdicts.before), float(verdicts.after), bool(verdicts.passed)


# --- similarity ----------------------------------------------------------------------------------------------------


def edits(a: str, b: str) -> int:
    """Levenshtein's distance by its definition."""
    if not a or not b:
        return len(a) + len(b)
    return min(edits(a[1:], b) + 1, edits(a, b[1:]) + 1, edits(a[1:], b[1:]) + (a[0] != b[0]))


@pytest.mark.parametrize(("wanted", "there"), [("ABCD", "XABD"), ("KX65", "X65Z9"), ("12345", "99"), ("AAAA", "")])
def test_likeness_is_that_of_the_best_part(wanted: str, there: str) -> None:
    parts = [there[i:j] for i in range(len(there) + 1) for j in range(i, len(there) + 1)]
    best = min(edits(wanted, part) for part in parts)
    assert likeness(wanted, there) == pytest.approx(max(0.0, 1 - best / len(wanted)))


def test_one_word_that_is_left_of_many_is_told() -> None:
    assert TextUnread().similarity("Doctor Anna Schmidt", "xx schmidt xx") == 1.0


def test_case_spaces_and_punctuation_do_not_count() -> None:
    assert TextUnread().similarity("Tel. 030-1234", "TEL 0301234") == 1.0


def test_what_is_confused_on_plates_counts_as_the_same() -> None:
    assert PlateUnread().similarity("B0I 588", "8O1-SB8") == 1.0
    assert TextUnread().similarity("B0I 588", "8O1-SB8") < 0.6


# --- verdicts ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize("turn", ["upright", "upside down", "mirrored"])
def test_text_that_stays_is_read_and_text_that_is_filled_is_not(turn: str) -> None:
    view = written("Hello World")
    view = {"upright": view, "upside down": view.flip(1, 2), "mirrored": view.flip(2)}[turn]
    assert judged(TextUnread(), view, "gaussian_blur", sigma=0.01, coverage=1.1) == (
        1.0,
        pytest.approx(1.0, abs=0.2),
        False,
    )
    assert judged(TextUnread(), view, "fill", coverage=1.3) == (1.0, 0.0, True)


@pytest.mark.usefixtures("networks")
def test_other_text_of_the_same_kind_passes_and_still_looks_like_text() -> None:
    view = written("Hello World")
    before, after, passed = judged(TextUnread(), view, "text_swap")
    assert (before, passed) == (1.0, True)
    assert after < 0.6
    assert judged(StillText(), view, "text_swap")[2]
    assert not judged(StillText(), view, "fill", coverage=1.3)[2]


@pytest.mark.usefixtures("networks")
def test_a_plate_gets_another_number() -> None:
    view = written("KX65 TZA")
    assert judged(PlateUnread(), view, "plate_swap")[2]
    assert not judged(PlateUnread(), view, "gaussian_blur", sigma=0.01, coverage=1.1)[2]


@pytest.mark.usefixtures("networks")
def test_what_could_not_be_read_passes_only_when_it_was_changed(astronaut: Tensor) -> None:
    box = torch.tensor([[180.0, 80.0, 270.0, 110.0]])
    regions = Regions(torch.zeros(1).long(), box, torch.full((1, 5, 2), torch.nan), torch.ones(1), ("text",))
    same = probe_of(astronaut, astronaut, regions, build("technique", "noise", {}))
    other = probe_of(astronaut, 255 - astronaut, regions, build("technique", "noise", {}))
    assert TextUnread().judge(same).passed.tolist() == [False]
    verdicts = TextUnread().judge(other)
    assert (verdicts.before.tolist(), verdicts.after.tolist(), verdicts.passed.tolist()) == ([0.0], [0.0], [True])


@pytest.mark.usefixtures("networks")
def test_a_region_wholly_outside_of_its_picture_is_no_error(astronaut: Tensor) -> None:
    box = torch.tensor([[900.0, 900.0, 950.0, 920.0]])
    regions = Regions(torch.zeros(1).long(), box, torch.full((1, 5, 2), torch.nan), torch.ones(1), ("text",))
    probe = probe_of(astronaut, astronaut, regions, build("technique", "fill", {}))
    assert TextUnread().judge(probe).passed.shape == StillText().judge(probe).passed.shape == (1,)


@pytest.mark.parametrize("made", [TextUnread, PlateUnread])
@pytest.mark.parametrize("most", [0.0, 1.1, float("nan"), "0.6", True])
def test_bounds_out_of_range_are_refused(made: Any, most: Any) -> None:
    with pytest.raises(PolicyError, match=f"{made.word}: most must be"):
        made(most=most)


# --- policies ------------------------------------------------------------------------------------------------------

MIRROR = """
name: text-only
content:
  image:
    detect: [text]
    regions:
      text:
        ladder: [LADDER]
        verify: [text_unread]
    scan: {passes: 2, detect: [text: {readable: 0.5}]}
"""


@pytest.mark.usefixtures("networks")
def test_a_weak_rung_is_left_for_a_stronger_one() -> None:
    policy = from_yaml(MIRROR.replace("LADDER", "gaussian_blur: {sigma: 0.01, coverage: 1.1}, text_swap: {}"))
    outcome = Anonymizer(policy).anonymize([written("Hello World")])[0]
    assert isinstance(outcome, Released)
    assert [(r.kind, r.rung) for r in outcome.record.regions] == [("text", 1)]


@pytest.mark.usefixtures("networks")
@pytest.mark.parametrize(("preset", "kinds"), [("street", {"text", "plate"}), ("documents", {"text"})])
def test_presets_leave_no_string_that_was_there(preset: str, kinds: set[str]) -> None:
    view = torch.cat([written("KX65 TZA"), written("Baker Street")], dim=1)
    outcome = Anonymizer(preset).anonymize([view])[0]
    assert isinstance(outcome, Released)
    assert {r.kind for r in outcome.record.regions} == kinds
    found = TextDetector().detect([outcome.image])
    from anondata.models import ocr

    texts = [r.text for each in ocr.read_in(outcome.image, list(found.landmarks[:, :4]), [(0, False)]) for r in each]
    assert all(TextUnread().similarity(word, text) < 0.6 for word in ("KX65 TZA", "Baker Street") for text in texts)
