"""Plots of audits: each says its finding, shows every attacker, and fits its picture."""

from __future__ import annotations

import builtins
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from anondata.cards._panels import LABEL_GAP, apart
from anondata.cards.audit_plots import FILES, cmc, distances, groups, roc, write_plots
from anondata.errors import MissingExtraError
from anondata.verifiers.audit import Audit
from anondata.verifiers.audit.attacks import CONTROL, NETWORK_ATTACKERS, FaceTable, attack, attack_measured

KNOWING = (("composite", 1), ("matched-filter", 1), ("trained", 1), *(("averaging", n) for n in (2, 5, 10, 50)),
           ("context", 1), ("place", 1))  # fmt: skip
LONG = "a-network-of-somebody-with-a-rather-long-name"


def audit_of(
    people: int = 14,
    *,
    networks: Sequence[str] = ("dlib-face-resnet", LONG),
    labelled: bool = True,
    gallery: bool = False,
) -> dict[str, Any]:
    """An audit of made-up templates: naive attackers see little, parrots nearly all."""
    random = np.random.default_rng(0)
    owners = np.repeat(np.arange(people), 2)
    clear = random.normal(size=(people, 8))[owners] + 0.2 * random.normal(size=(2 * people, 8))
    views = {
        "clear": clear,
        "anonymized": clear[:, ::-1] + 1,
        "smoothed": clear + 0.3 * random.normal(size=clear.shape),
    }
    columns = {"gender": ("f", "m") * people, "age": tuple(str(20 + o % 3) for o in owners)}
    kinds = owners if labelled else np.arange(2 * people)
    table = FaceTable(np.arange(2 * people), kinds, columns, dict.fromkeys(networks, views), labelled)
    names = NETWORK_ATTACKERS if labelled else ("naive",)
    attacks = [attack(table, network, name, fars=[0.1, 0.01]) for name in names for network in networks]
    for name, releases in KNOWING if labelled else KNOWING[:1]:
        distances = random.random((2 * people, 2 * people)) + 0.5 * (kinds[:, None] != kinds)
        attacks.append(attack_measured(table, name, distances, fars=[0.1, 0.01], how="", releases=releases))
    if gallery:
        attacks.append(replace(attacks[0], gallery="enrolled"))
    controls = [attack(table, network, CONTROL, fars=[0.1, 0.01]) for network in networks] if labelled else []
    gate = {"far": 0.01, "distance": 0.61, "faces": 28, "refused": {"percent": 3.0, "low": 0.0, "high": 9.0}}
    told = [
        {"name": n, "fingerprint": "0", "role": "other network", "self_match": None if i else gate}
        for i, n in enumerate(networks)
    ]
    parameters = {"labelled": labelled, "groups": list(columns), "fars": [0.1, 0.01]}
    made = Audit({"pairs": 28}, {"in_originals": 28}, tuple(told), tuple(attacks), tuple(controls), (), parameters)
    return made.to_json()


SHAPES = {
    "usual": audit_of(),
    "one network": audit_of(networks=["dlib-face-resnet"]),
    "no identities": audit_of(labelled=False),
    "a gallery": audit_of(gallery=True),
    "three people": audit_of(3),
    "four networks": audit_of(networks=["a", "b", LONG, "d"]),
}


def plain(text: str) -> str:
    """A title on one line."""
    return text.replace("\n", " ").replace("\u00a0", " ")


def words(figure: Figure) -> str:
    figure.draw_without_rendering()
    panels = [text.get_text() for panel in figure.axes for text in (*panel.texts, panel.title, *_titles(panel))]
    return plain(" | ".join([figure.get_suptitle(), *panels]))


def _titles(panel: Any) -> list[Any]:
    return [panel._left_title, panel._right_title]


@pytest.mark.parametrize("shape", ["usual", "a gallery"])
def test_every_plot_is_written_and_holds_no_software_but_ours(shape: str, tmp_path: Path) -> None:
    written = write_plots(SHAPES[shape], tmp_path)
    assert [path.name for path in written] == list(FILES)
    for path in written:
        with Image.open(path) as picture:
            assert picture.info["Software"] == "anondata"
            assert min(picture.size) > 300
            assert picture.convert("L").getextrema()[0] < 80  # not blank


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("draw", [cmc, roc, distances, groups])
def test_no_word_leaves_its_picture(shape: str, draw: Any) -> None:
    figure = draw(SHAPES[shape])
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    for panel in figure.axes:
        for text in (*panel.texts, *_titles(panel), panel.xaxis.label, panel.yaxis.label):
            if text.get_text() and panel.axison:
                box = text.get_window_extent()
                assert -1 <= box.x0 <= box.x1 <= width + 1, text.get_text()
                assert -1 <= box.y0 <= box.y1 <= height + 1, text.get_text()
    title = figure._suptitle.get_window_extent()
    assert 0 <= title.x0 <= title.x1 <= width
    headings = [t.get_window_extent() for p in figure.axes for t in _titles(p) if t.get_text() and p.axison]
    assert not any(a.overlaps(b) for a, b in combinations([title, *headings], 2))


def test_titles_say_what_was_found() -> None:
    audit = SHAPES["usual"]
    assert plain(cmc(audit).get_suptitle()).lower() == audit["verdict"].lower()
    assert "parrot with" in roc(audit).get_suptitle()
    assert "when 10 % of others are" in plain(roc(audit).get_suptitle())
    assert "(equal error rate)" in plain(distances(audit).get_suptitle())
    figure = groups(audit)
    assert figure is not None
    assert "the worst attacker names" in plain(figure.get_suptitle())


def test_attackers_are_labelled_where_their_curves_begin() -> None:
    said = words(cmc(SHAPES["usual"]))
    for label in ("untouched 100 %", "parrot 100 %", "smoothing parrot", "naive", "chance 7 %"):
        assert label in said
    assert "naive, enrolled" in words(cmc(SHAPES["a gallery"]))


def test_the_threshold_stands_in_the_histograms_that_it_was_calibrated_for() -> None:
    said = words(distances(SHAPES["usual"]))
    assert said.count("threshold, FAR 1 %") == 1
    assert said.count("different people") == 6


def test_groups_say_how_many_people_they_have() -> None:
    figure = groups(SHAPES["usual"])
    assert figure is not None
    assert words(figure).count("5 people, too few") == 8  # two ages of five people, four attackers
    pale = {bar.get_alpha() for panel in figure.axes for bar in panel.patches if len(panel.patches) == 3}
    strong = {bar.get_alpha() for panel in figure.axes for bar in panel.patches if len(panel.patches) == 2}
    assert max(pale) < min(strong)  # no age has enough people, both genders have
    assert groups({**SHAPES["usual"], "parameters": {**SHAPES["usual"]["parameters"], "groups": []}}) is None


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=8).map(sorted))
def test_labels_keep_their_distance_and_their_order(values: list[float]) -> None:
    places = apart(values)
    assert all(b - a >= LABEL_GAP - 1e-9 for a, b in pairwise(places))
    assert places[-1] <= 100
    if all(b - a >= LABEL_GAP for a, b in pairwise(values)):
        assert places == values


def test_drawing_leaves_pyplot_and_its_state_alone() -> None:
    code = (
        "import sys; from anondata.cards import audit_plots\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from anondata.cards._panels import panels_of\n"
        "panels_of({'networks': [{'name': 'a'}], 'attacks': [{'network': 'a'}]}, 1)\n"
        "assert 'matplotlib' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install 'anondata\[plots\]'"):
        cmc(SHAPES["usual"])
