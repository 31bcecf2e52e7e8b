"""An audit for people: one table of attacks, what became of the faces, and the verdict. From its JSON form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Json = Mapping[str, Any]

ROOMY = 100  # columns of a terminal in which no cell needs two lines

WITHOUT: Json = {"name": "", "role": ""}  # who uses no network, or all

_FILES = {
    "unpaired_originals": "originals without a result",
    "unpaired_anonymized": "results without an original",
    "unreadable_original": "pairs whose original cannot be read",
    "unreadable_anonymized": "pairs whose result cannot be read",
    "different_shape": "pairs of another shape",
    "no_face": "pairs without a face",
}


def show(audit: Json, console: Console) -> None:
    """Prints all that the JSON says in figures."""
    for network in (*audit["networks"], WITHOUT):
        if any(one["network"] == network["name"] for one in audit["attacks"]):
            console.print(_attacks(audit, network, narrow=console.width < ROOMY))
    console.print("[in brackets: 95 % intervals over people; chance: at rank 1 and 5]", markup=False, highlight=False)
    for line in (*_groups(audit), *_faces(audit), *_files(audit["counts"])):
        console.print(line, highlight=False, soft_wrap=True)
    for note in audit["notes"]:
        console.print(f"[yellow]note:[/] {note}", highlight=False, soft_wrap=True)
    console.print(f"[bold]{audit['verdict']}[/]", highlight=False, soft_wrap=True)


def share(value: Json | None) -> str:
    """A share in whole percent with its interval.

    >>> share({"percent": 83.3, "low": 74.6, "high": 89.4}), share(None)
    ('83 [75-89]', '-')
    """
    return f"{value['percent']:.0f} [{value['low']:.0f}-{value['high']:.0f}]" if value else "-"


def _attacks(audit: Json, network: Json, *, narrow: bool) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    found = [one for one in (*audit["attacks"], *audit["controls"]) if one["network"] == network["name"]]
    whom = "people" if audit["parameters"]["labelled"] else "faces"
    by = f"{network['name']} ({network['role']})" if network["name"] else "all that can be known but the run key"
    title = f"{by}: named, % of {found[0]['people']} {whom}; chance {_chance(found[0])}"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("attacker", min_width=16)
    told = [
        at["far"] for i, at in enumerate(found[0]["tar_at_far"]) if any(one["tar_at_far"][i]["tar"] for one in found)
    ]
    for name in ("rank 1", "rank 5", *(f"TAR at\nFAR {100 * far:g} %" for far in told), "EER"):
        table.add_column(name, justify="right", width=8 if narrow else None)
    for one in found:
        is_worst = all(one[key] == value for key, value in audit["worst"].items())
        table.add_row(*_row(one, told), style="bold" if is_worst else "dim" if one["attacker"] == "untouched" else "")
    return table


def _chance(one: Json) -> str:
    return f"{one['rank1']['chance_percent']:.2g} and {one['rank5']['chance_percent']:.2g}"


def _row(one: Json, told: Sequence[float]) -> list[str]:
    attacker = "(untouched)" if one["attacker"] == "untouched" else str(one["attacker"])
    attacker += f" of {one['releases']} releases" if one["releases"] > 1 else ""
    return [
        attacker + (f", enrolled gallery, chance {_chance(one)}" if one["gallery"] == "enrolled" else ""),
        share(one["rank1"]),
        share(one["rank5"]),
        *(share(at["tar"]) for at in one["tar_at_far"] if at["far"] in told),
        share(one["eer"]),
    ]


def _groups(audit: Json) -> Iterator[str]:
    worst = next(a for a in audit["attacks"] if all(a[key] == audit["worst"][key] for key in audit["worst"]))
    for column, groups in worst["groups"].items():
        few = sum(g["too_few_people"] for g in groups)
        apart = f"; {few} of {len(groups)} groups have too few people to be compared" if few else ""
        found = worst["worst_group"][column]
        if found is None:
            yield f"{column}: no two groups with enough people to be compared"
        else:
            said = f"{found['value']}, {share(found['rank1'])} % of {found['people']} people"
            yield f"{column}: named most by the worst attacker is {said}{apart}"


def _faces(audit: Json) -> Iterator[str]:
    faces = audit["faces"]
    yield (
        f"faces: {faces['in_originals']} in the originals, {faces['still_detected']} still detected in the results, "
        f"{faces['missed']} missed by the tool"
    )
    for finder, n in faces["unchanged_found_by"].items():
        yield f"  unchanged, found by {finder}: {n}"
    for network in audit["networks"]:
        gate = network["self_match"]
        if gate:
            yield (
                f"a gate with {network['name']} at FAR {100 * gate['far']:g} % would refuse "
                f"{share(gate['refused'])} % of the faces, held against their originals{_of_others(audit, network)}"
            )


def _of_others(audit: Json, network: Json) -> str:
    """What a gallery gate would refuse, where there are other photos to be held against."""
    for one in audit["attacks"]:
        if one["network"] == network["name"] and one["attacker"] == "naive" and audit["parameters"]["labelled"]:
            return f", and {share(one['within_threshold'])} %, held against other photos"
    return ""


def _files(counts: Json) -> Iterator[str]:
    yield f"files: {counts['originals']} originals, {counts['anonymized']} anonymized, {counts['pairs']} pairs"
    for key, what in _FILES.items():
        if counts.get(key):
            yield f"  [yellow]{counts[key]}[/] {what}"
