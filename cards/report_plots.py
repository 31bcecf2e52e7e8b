"""Plots of a run report: what was found, what it took, and how far the results are from being recognised.

One finding a picture, in its title. matplotlib is loaded when something is drawn, and pyplot never.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata.cards._panels import BEHIND, INK, SOFT, frame, grid, headed, save, wrapped
from anondata.report import SCORE_STEP, SIZE_EDGES_PX, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR, REST = "#0072b2", "#c3cad2"
PANEL = (7.2, 4.1)  # inches
MOST_BARS = 25  # more kinds become one that is called "and more"
NAMES = 90  # characters of a gate in a heading


def write_plots(report: Report, folder: Path, *, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Writes every plot that the report has figures for, and returns their paths; none for an empty report.

    Raises: MissingExtraError without matplotlib; OSError for a folder that cannot be written.
    """
    drawn = ((stem, draw(report)) for stem, draw in FIGURES.items())
    return [path for stem, figure in drawn if figure is not None for path in save(figure, folder, stem, formats)]


def identifiers(report: Report) -> Figure | None:
    """How many released samples held how many regions; None where none was released."""
    counts = {int(key): int(n) for key, n in report.counts.get("regions_per_sample", {}).items() if n}
    if not counts:
        return None
    figure, [[panel]] = grid(1, 1, PANEL, [1])
    frame(panel, "", "identifiers in a sample", "")
    _bars(panel, _cut([(str(key), counts[key]) for key in sorted(counts)]), "samples")
    some = sum(n for key, n in counts.items() if key)
    whole = sum(counts.values())
    found = sum(key * n for key, n in counts.items())
    _headed(figure, f"{some} of {whole} released samples held identifiers: {found} regions", report)
    return figure


def rungs(report: Report) -> Figure | None:
    """Which rung of the ladder passed; None where nothing was changed."""
    kinds = {kind: one.get("rung", {}) for kind, one in _regions(report).items()}
    kinds = {kind: rung for kind, rung in kinds.items() if sum(rung.values())}
    if not kinds:
        return None
    figure, panels = grid(len(kinds), 1, (PANEL[0], PANEL[1] * len(kinds)), [1] * len(kinds))
    for (kind, rung), [panel] in zip(sorted(kinds.items()), panels, strict=True):
        frame(panel, kind if len(kinds) > 1 else "", "rung of the ladder that passed", "")
        ordered = sorted(rung, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
        _bars(panel, [(str(int(name) + 1) if name.isdigit() else name, rung[name]) for name in ordered], "regions")
    whole = sum(sum(rung.values()) for rung in kinds.values())
    first = sum(rung.get("0", 0) for rung in kinds.values())
    _headed(figure, f"The first rung was enough for {first} of {whole} changed regions", report)
    return figure


def sizes(report: Report) -> Figure | None:
    """How large the regions were; None where there are none."""
    kinds = {kind: one.get("size_px", {}) for kind, one in _regions(report).items()}
    kinds = {kind: size for kind, size in kinds.items() if sum(size.values())}
    if not kinds:
        return None
    figure, panels = grid(len(kinds), 1, (PANEL[0], PANEL[1] * len(kinds)), [1] * len(kinds))
    for (kind, size), [panel] in zip(sorted(kinds.items()), panels, strict=True):
        frame(panel, kind if len(kinds) > 1 else "", "geometric mean of the sides, px, from", "")
        _bars(panel, [(str(edge), int(size.get(str(edge), 0))) for edge in _between(size)], "regions")
    every = [int(edge) for size in kinds.values() for edge, n in size.items() if n]
    low, high = min(every), max(every)
    above = next((edge for edge in SIZE_EDGES_PX if edge > high), None)
    upper = f"{above}" if above else f"more than {high}"
    _headed(figure, f"{sum(sum(s.values()) for s in kinds.values())} regions, from {low} to {upper} px", report)
    return figure


def scores(report: Report) -> Figure | None:
    """What each gate measured after anonymization, beside its thresholds; None where no gate measured anything."""
    told = {name: one for name, one in report.counts.get("verdicts", {}).items() if _finite(one.get("score", {}))}
    if not told:
        return None
    figure, panels = grid(len(told), 1, (PANEL[0], 3.3 * len(told) + 0.9), [1] * len(told))
    for (name, one), [panel] in zip(sorted(told.items()), panels, strict=True):
        frame(panel, wrapped(name if len(name) <= NAMES else name[: NAMES - 1] + "…", 72), "", "")
        _histogram(panel, _finite(one["score"]), _finite(one.get("threshold", {})))
    panels[-1][0].set_xlabel("score after anonymization (of a distance: the farther, the safer)", color=SOFT)
    checked = sum(sum(_finite(one["score"]).values()) for one in told.values())
    gates = "one gate" if len(told) == 1 else f"{len(told)} gates"
    _headed(figure, f"{checked} verdicts of {gates} on what was released", report)
    return figure


FIGURES: Mapping[str, Callable[[Report], Figure | None]] = {
    "identifiers-per-sample": identifiers,
    "rungs": rungs,
    "region-sizes": sizes,
    "scores": scores,
}


# --- panels -------------------------------------------------------------------------------------------------------


def _bars(panel: Axes, counts: Sequence[tuple[str, int]], unit: str) -> None:
    """A bar for each word, its count above it."""
    from matplotlib.ticker import MaxNLocator

    places, heights = range(len(counts)), [n for _, n in counts]
    panel.bar(places, heights, width=0.72 if len(counts) > 2 else 0.3, color=BAR)
    panel.set_xticks(places, [word for word, _ in counts])
    middle, room = (len(counts) - 1) / 2, max(len(counts), 3) / 2
    panel.set_xlim(middle - room - 0.2, middle + room + 0.2)
    panel.set_ylim(0, max(heights) * 1.16)
    panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.set_ylabel(unit, color=SOFT)
    for place, height in zip(places, heights, strict=True):
        panel.text(
            place, height + max(heights) * 0.02, str(height), ha="center", va="bottom", color=INK, fontsize=8.5
        )


def _histogram(panel: Axes, after: Mapping[float, int], thresholds: Mapping[float, int]) -> None:
    """Bins of scores as bars; bins that hold thresholds as bands, because no more is known of them."""
    from matplotlib.ticker import MaxNLocator

    most = max(after.values())
    for low in sorted(thresholds):
        panel.axvspan(low, low + SCORE_STEP, color=REST, alpha=0.55, lw=0)
    panel.bar([low + SCORE_STEP / 2 for low in after], list(after.values()), width=SCORE_STEP * 0.88, color=BAR)
    panel.set_ylim(0, most * 1.25)
    panel.set_ylabel("regions", color=SOFT)
    panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    every = [*after, *thresholds]
    panel.set_xlim(min(every) - 3 * SCORE_STEP, max(every) + 5 * SCORE_STEP)
    if thresholds:
        at: dict[str, Any] = {"va": "center", "transform": panel.get_xaxis_transform(), "bbox": BEHIND}
        panel.text(max(thresholds) + 1.2 * SCORE_STEP, 0.93, "threshold", color=INK, fontsize=8.5, **at)


# --- figures of a report ------------------------------------------------------------------------------------------


def _regions(report: Report) -> Mapping[str, Any]:
    found: Mapping[str, Any] = report.counts.get("regions", {})
    return found


def _cut(counts: list[tuple[str, int]]) -> list[tuple[str, int]]:
    if len(counts) <= MOST_BARS:
        return counts
    rest = counts[MOST_BARS - 1 :]
    return [*counts[: MOST_BARS - 1], (f"{rest[0][0]}+", sum(n for _, n in rest))]


def _between(size: Mapping[str, int]) -> list[int]:
    """Every edge from the smallest to the largest that was seen, so that gaps are seen, too."""
    seen = sorted(int(edge) for edge, n in size.items() if n)
    edges = sorted({0, *SIZE_EDGES_PX, *seen})
    return [edge for edge in edges if seen[0] <= edge <= seen[-1]]


def _finite(bins: Mapping[str, int]) -> dict[float, int]:
    return {float(low): int(n) for low, n in bins.items() if low != "none" and n}


def _headed(figure: Figure, finding: str, report: Report) -> None:
    told = (
        f"{report.released} of {report.seen} samples released; policy {report.policy} {report.fingerprint}. anondata"
    )
    headed(figure, finding, told)
