"""Plots of reports: each says its finding, fits its picture, and is the same at every run."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure
from PIL import Image

from anondata.cards.report_plots import FIGURES, identifiers, rungs, scores, sizes, write_plots
from anondata.policy import load_policy
from anondata.report import Report, empty_report

WIDE = {
    "samples": {"seen": 130000, "released": 129000},
    "regions_per_sample": {str(n): 120000 // (n * n + 1) for n in range(60)},
    "regions": {
        "face": {"found": 9, "rung": {str(n): 10**n for n in range(6)}, "size_px": {"0": 1, "1024": 12345}},
        "license_plate": {"found": 9, "rung": {"tiny": 3}, "size_px": {"48": 3}},
    },
    "verdicts": {
        "ensemble(" + "; ".join(["self_match(a-network-of-a-long-name, far=0.01)"] * 3) + ")": {
            "score": {"0.00": 3, "3.95": 1, "none": 4},
            "threshold": {"0.60": 2, "1.20": 2},
        },
        "own": {"score": {"none": 2}},
    },
}


@pytest.fixture(params=["usual", "wide"])
def shown(request: pytest.FixtureRequest, report: Report) -> Report:
    return report if request.param == "usual" else replace(report, counts=WIDE)


def plain(figure: Figure) -> str:
    return figure.get_suptitle().replace("\n", " ").replace("\u00a0", " ")


def test_every_plot_is_written_as_png_and_svg(shown: Report, tmp_path: Path) -> None:
    written = write_plots(shown, tmp_path)
    assert [path.name for path in written] == [f"{stem}.{kind}" for stem in FIGURES for kind in ("png", "svg")]
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert picture.info["Software"] == "anondata"
                assert picture.convert("L").getextrema()[0] < 80  # not blank
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_the_same_report_gives_the_same_bytes(report: Report, tmp_path: Path) -> None:
    first = {path.name: path.read_bytes() for path in write_plots(report, tmp_path)}
    assert {path.name: path.read_bytes() for path in write_plots(report, tmp_path)} == first
    assert not any(b"<dc:date>" in data for data in first.values())


@pytest.mark.parametrize(
    "counts", [{}, {"regions": {"face": {"rung": {}}}}, {"verdicts": {"g": {"score": {"none": 1}}}}]
)
def test_a_report_without_figures_gives_no_plot(counts: dict[str, Any], tmp_path: Path) -> None:
    report = replace(empty_report(load_policy("faces")), counts={"samples": {"seen": 1, "released": 0}, **counts})
    assert write_plots(report, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("draw", list(FIGURES.values()))
def test_no_word_leaves_its_picture_or_covers_another(draw: Any, shown: Report) -> None:
    figure = draw(shown)
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    for panel in figure.axes:
        for text in (*panel.texts, panel._left_title, panel.xaxis.label, panel.yaxis.label, *_ticks(panel)):
            if text.get_text():
                box = text.get_window_extent()
                assert -1 <= box.x0 <= box.x1 <= width + 1, text.get_text()
                assert -1 <= box.y0 <= box.y1 <= height + 1, text.get_text()
    heads = [figure._suptitle, *(panel._left_title for panel in figure.axes if panel._left_title.get_text())]
    boxes = [text.get_window_extent() for text in heads]
    assert boxes[0].x1 <= width
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def _ticks(panel: Any) -> list[Any]:
    """Labels of ticks that are drawn."""
    low, high = panel.get_xlim()
    return [t for t, x in zip(panel.get_xticklabels(), panel.get_xticks(), strict=True) if low <= x <= high]


def test_titles_say_what_was_found(report: Report) -> None:
    titles = [plain(figure) for draw in (identifiers, rungs, sizes, scores) if (figure := draw(report))]
    assert titles == [
        "90 of 113 released samples held identifiers: 151 regions",
        "The first rung was enough for 101 of 151 changed regions",
        "151 regions, from 8 to more than 1024 px",
        "114 verdicts of one gate on what was released",
    ]


def test_bars_are_as_high_as_the_counts(report: Report) -> None:
    figure = identifiers(report)
    assert figure is not None
    [panel] = figure.axes
    assert [bar.get_height() for bar in panel.patches] == [23, 29, 61]  # type: ignore[attr-defined]  # bars are rectangles
    assert [text.get_text() for text in panel.texts] == ["23", "29", "61"]
