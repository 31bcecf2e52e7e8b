"""Plots of an audit, from its JSON form (``anondata.audit/2``): one finding a picture, in its title.

matplotlib is loaded when something is drawn. Figures are made without pyplot, so that no global state is touched and
no display is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata.cards._panels import (
    BEHIND,
    COLOURS,
    INK,
    LINE,
    SOFT,
    WORDS,
    Json,
    frame,
    grid,
    gutter,
    log_axis,
    looks,
    panels_of,
    save,
    title,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def write_plots(audit: Json, folder: Path, *, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Writes every plot that the audit has figures for, and returns their paths. formats: ``png``, ``svg``.

    Raises: MissingExtraError without matplotlib; OSError for a folder that cannot be written.
    """
    drawn = ((Path(name).stem, draw(audit)) for name, draw in FILES.items())
    return [path for stem, figure in drawn if figure is not None for path in save(figure, folder, stem, formats)]


def cmc(audit: Json) -> Figure:
    """How many people are named when the first, the first two, … nearest photos are looked at."""
    figure, panels = panels_of(audit, 1)
    for panel, network in zip(panels[0], looks(audit), strict=True):
        found = _of(audit, network)
        frame(panel, _network(network), "nearest photos looked at", "named, %")
        ranks = found[0]["cmc"]["rank"]
        panel.plot(ranks, found[0]["cmc"]["chance_percent"], color=SOFT, lw=1.2, ls=(0, (1, 1.6)))
        for one in found:
            curve, colour = one["cmc"], COLOURS[_who(one)]
            panel.fill_between(curve["rank"], curve["low"], curve["high"], color=colour, alpha=0.13, lw=0)
            panel.plot(curve["rank"], curve["percent"], color=colour, **_stroke(one))
            panel.plot([1], curve["percent"][:1], "o", color=colour, ms=5, zorder=5)
        log_axis(panel, 1, max(ranks[-1], 2))
        chance = found[0]["rank1"]["chance_percent"]
        labels = [
            (_label(one, one["rank1"]["percent"]), one["rank1"]["percent"], COLOURS[_who(one)]) for one in found
        ]
        gutter(panel, [*labels, (f"chance {_number(chance)} %", chance, SOFT)])
    title(figure, _capital(audit["verdict"]), audit)
    return figure


def roc(audit: Json) -> Figure:
    """How many pairs of one person are accepted when so many pairs of different people are."""
    figure, panels = panels_of(audit, 1)
    for panel, network in zip(panels[0], looks(audit), strict=True):
        found = _of(audit, network)
        frame(panel, _network(network), "pairs of different people accepted, %", "pairs of one person accepted, %")
        low = 100 * min(one["roc"]["far"][0] for one in found)
        line = [low * (100 / low) ** (i / 60) for i in range(61)]
        panel.plot(line, line, color=SOFT, lw=1.2, ls=(0, (1, 1.6)))
        for one in found:
            colour = COLOURS[_who(one)]
            panel.plot([100 * f for f in one["roc"]["far"]], one["roc"]["tar_percent"], color=colour, **_stroke(one))
            for at in one["tar_at_far"] if one["attacker"] != "untouched" else ():
                if at["tar"]:
                    panel.plot(
                        [100 * at["far"]] * 2, [at["tar"]["low"], at["tar"]["high"]], color=colour, lw=1, alpha=0.6
                    )
                    panel.plot([100 * at["far"]], [at["tar"]["percent"]], "o", color=colour, ms=4.5, zorder=5)
        log_axis(panel, low, 100)
        labels = [(_label(one, None), one["roc"]["tar_percent"][0], COLOURS[_who(one)]) for one in found]
        gutter(panel, [*labels, ("guessing", low, SOFT)])
    title(figure, _roc_finding(audit), audit)
    return figure


def distances(audit: Json) -> Figure | None:
    """Distances of pairs of one person and of different people, by attacker and network.

    None where no attacker compares templates of one network: distances of others have no unit.
    """
    by_network = [one for one in audit["attacks"] if one["network"]]
    if not by_network:
        return None
    rows = list(dict.fromkeys(_who(one) for one in by_network))
    audit = {**audit, "attacks": by_network}
    figure, panels = panels_of(audit, len(rows), height=2.35)
    for i, who in enumerate(rows):
        for panel, network in zip(panels[i], looks(audit), strict=True):
            found = [one for one in _of(audit, network) if _who(one) == who]
            if found:
                _histogram(panel, found[0], network, heading="" if i else f"{_network(network)}\n")
            else:
                panel.set_axis_off()
        panels[i][0].set_ylabel("share of pairs, %", color=SOFT)
    for panel in panels[-1]:
        panel.set_xlabel("distance between templates", color=SOFT)
    title(figure, _distance_finding(audit), audit)
    return figure


def groups(audit: Json) -> Figure | None:
    """Who is named more often than others, by group; None where no groups were asked for."""
    columns = audit["parameters"]["groups"]
    if not columns:
        return None
    found = _worst_by_attacker(audit)
    heights = [len(found[0]["groups"][column]) for column in columns]
    figure, panels = grid(
        len(columns), len(found), (3.9 * len(found) + 1.2, 0.36 * sum(heights) + 0.8 * len(columns) + 1.3), heights
    )
    for i, column in enumerate(columns):
        for panel, one in zip(panels[i], found, strict=True):
            _bars(panel, one, column)
        panels[i][0].set_yticks(range(heights[i]), [g["value"] for g in found[0]["groups"][column]], color=INK)
        panels[i][0].set_ylabel(column, color=INK, fontweight="bold", fontsize=10)
    for panel, one in zip(panels[0], found, strict=True):
        heading = wrapped(f"{WORDS[_who(one)]}\n{one['network'] or 'all that can be known'}", 36)
        panel.set_title(heading, loc="left", color=COLOURS[_who(one)], fontsize=10, fontweight="bold")
    for panel in panels[-1]:
        panel.set_xlabel("named at rank 1, %", color=SOFT)
    title(figure, _group_finding(audit), audit)
    return figure


IN_GROUPS = ("naive", "parrot", "smoothing-parrot", "enrolled", "composite")  # a picture has room for no more

FILES: Mapping[str, Callable[[Json], Figure | None]] = {
    "cmc.png": cmc,
    "roc.png": roc,
    "distances.png": distances,
    "groups.png": groups,
}


# --- findings ----------------------------------------------------------------------------------------------------


def _roc_finding(audit: Json) -> str:
    """The highest true-accept rate at the false-accept rate nearest to 1 % that all attacks have."""
    rows = [[at for at in one["tar_at_far"] if at["tar"]] for one in audit["attacks"]]
    shared = set.intersection(*({at["far"] for at in row} for row in rows))
    if not shared:
        return "Too few pairs of different people for any of the false-accept rates"
    far = min(shared, key=lambda rate: abs(math.log(rate / 0.01)))
    named = [
        (next(at["tar"] for at in row if at["far"] == far), one)
        for row, one in zip(rows, audit["attacks"], strict=True)
    ]
    tar, best = max(named, key=lambda item: item[0]["percent"])
    return (
        f"{_capital(_a(best))} accepts {_share(tar)} of the pairs of one person when "
        f"{100 * far:g} % of others are; guessing accepts {100 * far:g} %"
    )


def _distance_finding(audit: Json) -> str:
    best = min(audit["attacks"], key=lambda one: one["eer"]["percent"])
    return f"{_capital(_a(best))} misjudges {_share(best['eer'])} of pairs (equal error rate); guessing 50 %"


def _group_finding(audit: Json) -> str:
    worst = _find(audit, audit["worst"])
    named = {column: group for column, group in worst["worst_group"].items() if group}
    if not named:
        return "No two groups have enough people to be compared"
    column, group = max(named.items(), key=lambda item: item[1]["rank1"]["percent"])
    return f"{_capital(column)}: the worst attacker names {group['value']} most, {_share(group['rank1'])} at rank 1"


# --- panels ------------------------------------------------------------------------------------------------------


def _histogram(panel: Axes, one: Json, network: Json, *, heading: str) -> None:
    from matplotlib.ticker import MaxNLocator

    colour, edges = COLOURS[_who(one)], one["distances"]["edges"]
    same, other = one["distances"]["genuine_percent"], one["distances"]["impostor_percent"]
    frame(panel, heading + f"{WORDS[_who(one)]}: equal error rate {_share(one['eer'])}", "", "")
    panel.stairs(other, edges, fill=True, color="#c3cad2", alpha=0.75)
    panel.stairs(same, edges, fill=True, color=colour, alpha=0.45)
    panel.stairs(same, edges, color=colour, lw=1.4)
    panel.set_ylim(0, max(*same, *other) * 1.2)
    panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for words, tint, y in (("one person", colour, 0.9), ("different people", SOFT, 0.78)):
        at: dict[str, Any] = {"ha": "right", "va": "center", "transform": panel.transAxes, "bbox": BEHIND}
        panel.text(0.985, y, words, color=tint, fontsize=9, **at)
    gate = network["self_match"]
    if gate and one["attacker"] == "naive":
        room = 0.06 * (edges[-1] - edges[0])
        panel.set_xlim(min(edges[0], gate["distance"]) - room, max(edges[-1], gate["distance"]) + 3 * room)
        panel.axvline(gate["distance"], color=INK, lw=1.1, ls=(0, (4, 2)))
        words = f" threshold, FAR {100 * gate['far']:g} %"
        panel.text(
            gate["distance"], 0.9, words, color=INK, fontsize=8, va="center", transform=panel.get_xaxis_transform()
        )


def _bars(panel: Axes, one: Json, column: str) -> None:
    colour, rows = COLOURS[_who(one)], one["groups"][column]
    frame(panel, "", "", "")
    panel.grid(axis="y", visible=False)
    panel.grid(axis="x", color=LINE, lw=0.8)
    panel.set_xlim(0, 118)
    panel.set_xticks([0, 25, 50, 75, 100])
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_yticks([])
    panel.axvline(one["rank1"]["percent"], color=colour, lw=1.1, ls=(0, (4, 2)), alpha=0.8)
    for y, group in enumerate(rows):
        rank1, few = group["rank1"], group["too_few_people"]
        panel.barh(y, rank1["percent"], height=0.62, color=colour, alpha=0.22 if few else 0.75, lw=0)
        panel.plot([rank1["low"], rank1["high"]], [y, y], color=SOFT if few else INK, lw=1.1)
        words = ("1 person" if group["people"] == 1 else f"{group['people']} people") + (", too few" if few else "")
        panel.text(max(rank1["high"], 2) + 2, y, words, color=SOFT, fontsize=8, va="center", clip_on=False)


# --- words -------------------------------------------------------------------------------------------------------


def _of(audit: Json, network: Json) -> list[Json]:
    """The attacks with a network, the control first, so that it lies at the bottom."""
    return [one for one in (*audit["controls"], *audit["attacks"]) if one["network"] == network["name"]]


def _find(audit: Json, key: Json) -> Json:
    found: Json = next(one for one in audit["attacks"] if all(one[name] == key[name] for name in key))
    return found


def _worst_by_attacker(audit: Json) -> list[Json]:
    by: dict[str, Json] = {}
    shown = [one for one in audit["attacks"] if _who(one) in IN_GROUPS]
    for one in shown or audit["attacks"]:
        if _who(one) not in by or one["rank1"]["percent"] > by[_who(one)]["rank1"]["percent"]:
            by[_who(one)] = one
    return list(by.values())


def _who(one: Json) -> str:
    return "enrolled" if one["gallery"] == "enrolled" else str(one["attacker"])


def _stroke(one: Json) -> dict[str, Any]:
    return {"lw": 1.3, "ls": (0, (4, 2))} if one["attacker"] == "untouched" else {"lw": 2.2}


def _network(network: Json) -> str:
    return f"{network['name']}, {network['role']}" if network["name"] else "all that can be known but the run key"


def _a(one: Json) -> str:
    special = {
        "naive": "a naive attacker",
        "enrolled": "a naive attacker with the gallery",
        "trained": "a trained attacker",
        "averaging": f"an attacker who averages {one['releases']} releases",
        "context": "an attacker who looks around the cover",
        "place": "an attacker who knows where covers lie",
        "composite": "the best of all attackers",
    }
    who = special.get(_who(one), f"a {WORDS[_who(one)]}")
    return who + (f" with {one['network']}" if one["network"] else "")


def _label(one: Json, percent: float | None) -> str:
    releases = f" {one['releases']}" if one["releases"] > 1 else ""
    return WORDS[_who(one)] + releases + ("" if percent is None else f" {_number(percent)} %")


def _number(percent: float) -> str:
    return f"{percent:.0f}" if percent >= 0.95 or percent == 0 else f"{percent:.1f}"


def _share(value: Json) -> str:
    return f"{value['percent']:.0f} [{value['low']:.0f}-{value['high']:.0f}] %"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
