"""What the plots share: colours, frames, labels, titles. Loads matplotlib when something is drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Json = Mapping[str, Any]

INK, SOFT, LINE, GROUND = "#1c2127", "#66707b", "#dfe4e9", "#ffffff"
BEHIND: dict[str, Any] = {"facecolor": GROUND, "lw": 0, "pad": 1.0}  # words, so that no line runs through them
COLOURS = {
    "naive": "#0072b2",
    "parrot": "#d55e00",
    "smoothing-parrot": "#8a3fa8",
    "matched-filter": "#c2185b",
    "trained": "#b8860b",
    "averaging": "#56a3d8",
    "context": "#6b8e23",
    "place": "#a0522d",
    "composite": "#111827",
    "enrolled": "#00876c",
    "untouched": "#8c96a1",
}
WORDS = {
    "naive": "naive",
    "parrot": "parrot",
    "smoothing-parrot": "smoothing parrot",
    "matched-filter": "matched filter",
    "trained": "trained",
    "averaging": "averaging",
    "context": "context",
    "place": "place",
    "composite": "composite",
    "enrolled": "naive, enrolled",
    "untouched": "untouched",
}
PANEL = (5.4, 4.2)  # inches
DPI = 144
LABEL_GAP = 5.2  # least vertical distance between two labels, in percent
GUTTER = 0.36  # of a panel's width, for labels left of the curves


def panels_of(audit: Json, rows: int, height: float = PANEL[1]) -> tuple[Figure, list[list[Axes]]]:
    columns = len(looks(audit))
    return grid(rows, columns, (max(PANEL[0] * columns, 7.2), height * rows + 1.1), [1] * rows)


def looks(audit: Json) -> list[Json]:
    """What attacks are shown apart: by each network, and by no or by every network."""
    others: Json = {"name": "", "role": "", "self_match": None}
    shown = (*audit["networks"], others)
    return [one for one in shown if any(attack["network"] == one["name"] for attack in audit["attacks"])]


def grid(
    rows: int, columns: int, size: tuple[float, float], heights: Sequence[float]
) -> tuple[Figure, list[list[Axes]]]:
    figure = _new(size)
    made = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"height_ratios": list(heights)})
    return figure, [list(row) for row in made]


def _new(size: tuple[float, float]) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'anondata[plots]'") from error
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08), facecolor=GROUND)
    FigureCanvasAgg(figure)
    return figure


def frame(panel: Axes, title: str, x: str, y: str) -> None:
    panel.set_title(wrapped(title), loc="left", color=INK, fontsize=10, fontweight="bold")
    panel.set_xlabel(x, color=SOFT)
    panel.set_ylabel(y, color=SOFT)
    panel.tick_params(colors=SOFT, length=0, labelsize=8.5)
    panel.grid(axis="y", color=LINE, lw=0.8)
    panel.set_axisbelow(True)
    for side, spine in panel.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(SOFT)
    if y:
        panel.set_ylim(-4, 103)
        panel.set_yticks([0, 25, 50, 75, 100])


def wrapped(text: str, width: int = 52) -> str:
    """Lines that fit above a panel; those that there are stay. No line begins with a percent sign."""
    return "\n".join(textwrap.fill(line, width) for line in text.replace(" %", "\u00a0%").split("\n"))


def log_axis(panel: Axes, low: float, high: float) -> None:
    """A logarithmic axis from ``low`` to ``high`` with room for labels on its left."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    panel.set_xscale("log")
    panel.set_xlim(low / (high / low) ** (GUTTER / (1 - GUTTER)), high * 1.12)
    ticks = [digit * 10.0**power for power in range(-6, 7) for digit in ((1,) if high / low > 300 else (1, 2, 5))]
    shown = [tick for tick in ticks if low * 0.98 <= tick <= high * 1.02]
    panel.xaxis.set_major_locator(FixedLocator(shown))
    panel.xaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in shown]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.spines["bottom"].set_bounds(low, high)


def gutter(panel: Axes, labels: Sequence[tuple[str, float, str]]) -> None:
    """Words, value and colour of curves, left of where they begin, apart where they would cover each other."""
    ordered = sorted(labels, key=lambda label: label[1])
    places = apart([value for _, value, _ in ordered])
    where: dict[str, Any] = {"ha": "right", "va": "center", "transform": panel.get_yaxis_transform(), "bbox": BEHIND}
    for (words, _, colour), place in zip(ordered, places, strict=True):
        panel.text(GUTTER - 0.025, place, words, color=colour, fontsize=8.5, **where)


def apart(values: Sequence[float]) -> list[float]:
    """Ascending places near ascending values, no two closer than a label is high, all within the panel."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + LABEL_GAP) if places else max(value, 0.0))
    limit = 100.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - LABEL_GAP
    return places


def title(figure: Figure, finding: str, audit: Json) -> None:
    whom = "people" if audit["parameters"]["labelled"] else "faces"
    people = max(one["people"] for one in audit["attacks"])
    faces, photos = audit["faces"]["in_originals"], audit["counts"]["pairs"]
    told = f"{people} {whom}, {faces} faces in {photos} photos; 95 % intervals over people. anondata audit"
    headed(figure, finding, told)


def headed(figure: Figure, finding: str, told: str) -> None:
    """A finding above a figure, and what it rests on below."""
    width = int(figure.get_figwidth() * 9.6)
    figure.suptitle(wrapped(finding, width), x=0.012, ha="left", color=INK, fontsize=12.5, fontweight="bold")
    figure.supxlabel(told, x=0.012, ha="left", color=SOFT, fontsize=8)


def save(figure: Figure, folder: Path, stem: str, formats: Sequence[str]) -> list[Path]:
    """Writes a figure in each format; the same figure gives the same bytes. formats: ``png``, ``svg``."""
    from matplotlib import rc_context

    written = []
    for kind in formats:
        path = folder / f"{stem}.{kind}"
        # An SVG would else hold the time, and names of its parts that are drawn at random.
        metadata = {"Software": "anondata"} if kind == "png" else {"Creator": "anondata", "Date": None}
        with rc_context({"svg.hashsalt": stem}):
            figure.savefig(path, format=kind, dpi=DPI, facecolor=GROUND, metadata=metadata)
        written.append(path)
    return written
