"""``anondata audit``: attacks what a tool wrote, and says who can still be named in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anondata.auditing.audit import FARS, FILE, GATE, audit, check_apart
from anondata.errors import MissingExtraError
from anondata.tools import cli
from anondata.tools._early import check_device_named

if TYPE_CHECKING:
    from anondata.verifiers.gallery import Gallery

ABOVE_BOUND = 3  # exit code
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("audit")
@click.option("--original", "a", metavar="A", required=True, type=_FOLDER, help="Folder of the originals.")
@click.option(
    "--anonymized", "b", metavar="B", required=True, type=_FOLDER, help="Folder of what a tool made of them."
)
@click.option("--out", metavar="DIR", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--pairs",
    type=_FILE,
    help="CSV with the columns original and anonymized, for results with other names; paths are relative to A and B.",
)
@click.option(
    "--run-key",
    "run_key_file",
    type=_FILE,
    help="Run key of B, which seals the audit, so that B can be published.  [default: the one kept for B]",
)
@click.option("--gallery", metavar="G", help="Gallery of enrolled people; one more naive attacker has it.")
@click.option("--key-file", type=_FILE, help="File that holds the key of G.  [default: ANONDATA_GALLERY_KEY]")
@click.option(
    "--attacker",
    "attackers",
    multiple=True,
    type=click.Choice(
        [
            "naive",
            "parrot",
            "smoothing-parrot",
            "matched-filter",
            "trained",
            "averaging",
            "context",
            "place",
            "composite",
        ]
    ),
    help="Only this one; may be given several times.  [default: all]",
)
@click.option(
    "--embedder",
    "embedders",
    metavar="NAME",
    multiple=True,
    help="Network of the attackers: a known one, insightface:SOURCE, or package.module:Class; may be given several "
    "times.  [default: all whose weights are here]",
)
@click.option(
    "--gate-embedder",
    metavar="NAME",
    default=GATE,
    show_default=True,
    help="The network that the tool checks its own results with, if it does.",
)
@click.option(
    "--identity",
    metavar="COLUMN",
    help="Column of A's metadata that says who it is; '-' if nobody knows.  [default: identity, else A's folders]",
)
@click.option("--group", "groups", metavar="COLUMN", multiple=True, help="Compare the groups of people of a column.")
@click.option(
    "--boxes",
    type=click.Choice(["auto", "detect"]),
    default="auto",
    show_default=True,
    help="auto: the faces that A's metadata marks, if it marks any; detect: those that a detector finds.",
)
@click.option(
    "--far",
    "fars",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    multiple=True,
    default=FARS,
    show_default=True,
    help="False-accept rate at which the true-accept rate is reported; may be given several times.",
)
@click.option(
    "--bound",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="Exit with 3 if an attacker names more than this at rank 1.",
)
@click.option("--no-plots", is_flag=True, help=f"Write {FILE} only.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
@click.option("--json", "as_json", is_flag=True, help="Print the audit as one JSON object on stdout.")
def command(
    a: Path,
    b: Path,
    out: Path,
    pairs: Path | None,
    bound: float | None,
    no_plots: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Attack the output of any anonymization tool, and say who can still be named in it.

    A and B are walked with all folders in them. A file of B belongs to the original of the same path; its suffix may
    be another or an additional one, and its name may end in _anonymized. If B was written by `materialize` or
    `anondata shards` and its run key is here, originals are found by their content instead.

    Attackers know where the faces are. naive compares clear photos with results, by a network. parrot puts its own
    photos through the same tool first. smoothing-parrot then blurs both sides. matched-filter uses no network, but
    means of a few cells of each face, weighed by those of other people. trained has learnt from results of its own.
    averaging has 2, 5, 10 or 50 releases of each photo under other run keys (only if anondata wrote B by a random
    technique). context sees only what lies around the covers. composite is the best of all but these two.

    Identities come from metadata.csv or metadata.jsonl in A, else from A's folders. Without identities each face is
    looked for in the originals themselves, and parrot, smoothing-parrot, averaging and context are left out.

    DIR gets audit.json and plots, without file names and identities. Exit code 0: done, 3: --bound is exceeded,
    1: there is nothing to attack, 2: usage.
    """
    check_device_named(options["device"])
    check_apart(a, b, out)
    if not no_plots and find_spec("matplotlib") is None:
        raise MissingExtraError("the plots need matplotlib: pip install 'anondata[plots]', or use --no-plots")

    from rich.console import Console

    from anondata.keys import run_key
    from anondata.tools._progress import phases
    from anondata.tools.anonymize import usable_device

    device = usable_device(options["device"])
    with phases(Console(stderr=True)) as show:
        found = audit(
            a,
            b,
            pairs=pairs,
            identity=options["identity"],
            groups=options["groups"],
            marked=options["boxes"] == "auto",
            attackers=options["attackers"],
            embedders=options["embedders"],
            gallery=_gallery(options["gallery"], options["key_file"]),
            fars=options["fars"],
            gate=options["gate_embedder"],
            run_key=run_key(b, options["run_key_file"], create=False),
            device=device,
            show=show,
        )
    found.write(out, plots=not no_plots)
    _tell(found.body, out, as_json=as_json)
    exceeded = bound is not None and 100 * found.worst_rank1 > bound
    click.get_current_context().exit(ABOVE_BOUND if exceeded else cli.OK)


def _gallery(place: str | None, key: Path | None) -> Gallery | None:
    from anondata.verifiers.gallery.file import open_gallery

    return open_gallery(place, key=key) if place else None


def _tell(body: Mapping[str, Any], out: Path, *, as_json: bool) -> None:
    from rich.console import Console

    from anondata.tools._audit_table import show

    show(body, Console(stderr=as_json))
    click.echo(f"written: {out}", err=as_json)
    if as_json:
        click.echo(json.dumps(body))
