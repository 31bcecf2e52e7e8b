"""``anondata request``: a client asks for samples of a dataset, and gets a publication of its own, charged once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anondata.requests.request import offers, plan, request
from anondata.tools import cli
from anondata.tools._policy_options import own_code_option

if TYPE_CHECKING:
    from anondata.requests.result import RequestResult

PLAN_FORMAT, LIST_FORMAT = "anondata.request_plan/1", "anondata.request_list/1"


@click.command("request")
@click.option(
    "--catalog",
    metavar="FILE",
    envvar="ANONDATA_CATALOG",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Datasets, and who may ask for them.  [env var: ANONDATA_CATALOG]",
)
@click.option("--client", metavar="NAME", required=True, help="Who asks, and is charged.")
@click.option("--dataset", metavar="NAME", help="What the catalog calls it.")
@click.option("--content-type", metavar="TYPE", help="Such as image.  [default: the dataset's only one]")
@click.option(
    "--where",
    metavar="COLUMN=VALUE",
    multiple=True,
    help="Only samples that have it; may be given several times, and all must hold.",
)
@click.option("--n", type=click.IntRange(min=1), metavar="N", help="How many samples.")
@click.option("--out", metavar="OUT", type=click.Path(path_type=Path), help="Folder that is not there yet, or empty.")
@click.option(
    "--ledger",
    metavar="URL",
    envvar="ANONDATA_LEDGER",
    help="Where quotas are kept.  [env var: ANONDATA_LEDGER; default: the catalog's]",
)
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Secret that decides which samples are drawn.  [default: one that is kept for OUT]",
)
@own_code_option
@click.option("--no-insights", is_flag=True, help="Add no column of texts on what anonymization took away.")
@click.option("--as-many-as-there-are", is_flag=True, help="Take what the quota leaves, if that is less than N.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
@click.option("--list", "only_list", is_flag=True, help="List the datasets that the client may ask for.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and whether the client may have it.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout.")
def command(catalog: Path, client: str, only_list: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Deliver N anonymized samples of a dataset to a client, with a card, charged to its quota.

    Samples are drawn at random from those that fit, anonymized by the dataset's policy for the content type and
    verified; one that cannot be made safe is replaced by another. Then all of them are attacked against their
    originals. If that names more people than the policy's `audit:` allows, nothing is delivered, or charged.

    OUT is complete or not there at all, and `anondata verify OUT` checks it. The same command goes on after a crash,
    and is never charged twice.

    Exit code 0: delivered, 3: fewer than N, because no more pass, 1: refused or failed, 2: usage.
    """
    if only_list:
        _list(catalog, client, options["ledger"], as_json=as_json)
        return
    needed = ("dataset", "n") if dry_run else ("dataset", "n", "out")
    if missing := [f"--{name}" for name in needed if options[name] is None]:
        raise click.UsageError(f"Missing option {', '.join(missing)}")
    given = {
        "client": client,
        "where": _where(options["where"]),
        "ledger": options["ledger"],
        **{name: options[name] for name in ("dataset", "n", "content_type", "as_many_as_there_are", "own_code")},
    }
    if dry_run:
        _rehearse(catalog, given, as_json=as_json)
        return
    result = _run(catalog, given, options)
    _tell(result, as_json=as_json)
    click.get_current_context().exit(cli.OK if result.complete else cli.SOME_WITHHELD)


def _run(catalog: Path, given: Mapping[str, Any], options: Mapping[str, Any]) -> RequestResult:
    from rich.console import Console

    from anondata.keys import run_key
    from anondata.requests.catalog import load_catalog
    from anondata.tools._early import check_device_named
    from anondata.tools._progress import phases
    from anondata.tools.anonymize import usable_device

    check_device_named(options["device"])
    known = load_catalog(catalog)  # what the operator must mend is told first
    device = usable_device(options["device"])
    key = run_key(options["out"], options["key_file"]) if options["key_file"] else None
    insights = not options["no_insights"]
    with phases(Console(stderr=True)) as show:
        return request(known, **given, out=options["out"], run_key=key, insights=insights, device=device, show=show)


def _where(given: tuple[str, ...]) -> dict[str, str]:
    out: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise click.UsageError("--where is written COLUMN=VALUE")
        if out.setdefault(name, value) != value:
            raise click.UsageError(f"--where asks for two values of {name!r} at once; no sample has both")
    return out


def _tell(result: RequestResult, *, as_json: bool) -> None:
    seen, asked = result.seen, result.granted
    why = ", ".join(f"{count} {reason}" for reason, count in sorted(result.withheld.items()))
    charged = "charged" if result.charged_now else "charged before, and not again"
    click.echo(f"delivered: {result.delivered} of {asked} samples, {charged}", err=True)
    if result.granted < result.asked:
        click.echo(f"{result.asked} were asked for, and the quota left {result.granted}", err=True)
    if why:
        click.echo(f"withheld: {why}, of {seen} that were anonymized", err=True)
    if not result.complete:
        click.echo(f"there are no more: {seen} candidates were tried", err=True)
    click.echo(f"evaluated: {result.verdict}", err=True)
    click.echo(json.dumps(result.to_json()) if as_json else str(result.place))


def _rehearse(catalog: Path, given: Mapping[str, Any], *, as_json: bool) -> None:
    found = plan(catalog, **given)
    if as_json:
        click.echo(json.dumps({"format": PLAN_FORMAT, **asdict(found)}))
        return
    for line in found.policy:
        click.echo(line)
    left = "any number of" if found.left is None else str(found.left)
    click.echo(f"{found.granted} samples would be delivered; the client may still receive {left} of them")
    few = "; fewer than that" if found.candidates < found.granted else ""
    click.echo(f"{found.candidates} candidates{few}")


def _list(catalog: Path, client: str, ledger: str | None, *, as_json: bool) -> None:
    found = offers(catalog, client=client, ledger=ledger)
    if as_json:
        rows = [{**asdict(one), "left": {kind: _words(left) for kind, left in one.left.items()}} for one in found]
        click.echo(json.dumps({"format": LIST_FORMAT, "datasets": rows}))
        return
    for one in found:
        told = ", ".join(f"{kind}: {_words(left)}" for kind, left in one.left.items())
        click.echo(f"{one.dataset}\t{one.title}\t{told}")
    if not found:
        click.echo("the client may ask for no dataset of this catalog", err=True)


def _words(left: int | None) -> int | str:
    return "any" if left is None else left
