"""``anondata request``: a client asks for samples of a dataset, and gets a publication of its own, charged once.

::

    result = request("catalog.yaml", client="acme", dataset="portraits", where={"label": "dancing"}, n=500, out="out")

The client may ask for it, and enough is left → rows are chosen and drawn → each is anonymized and verified, by
stronger techniques until it passes; what does not is replaced by another → all of it is attacked, against its
originals → a card, a manifest, insights → charged → put in place. Whatever fails before the charge costs nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anondata.errors import AnondataError, LedgerError, OutputError, RequestError, UnknownClientError
from anondata.requests.result import RequestResult
from anondata.tools import cli
from anondata.tools._policy_options import own_code_option

if TYPE_CHECKING:
    from anondata.ledger import Ledger
    from anondata.randomness import RunKey
    from anondata.requests.catalog import Catalog
    from anondata.requests.terms import Terms

Show = Callable[[str, int, int], None]
"""Takes what is being done, how far it is, and of how much."""

PLAN_FORMAT, LIST_FORMAT = "anondata.request_plan/1", "anondata.request_list/1"


@dataclass(frozen=True)
class Plan:
    """What a request would do. left: samples that the client may still receive, None for any number."""

    policy: tuple[str, ...]
    content_type: str
    granted: int
    left: int | None
    candidates: int


def request(
    catalog: str | os.PathLike[str] | Catalog,
    *,
    client: str,
    dataset: str,
    n: int,
    out: str | os.PathLike[str],
    content_type: str | None = None,
    where: Mapping[str, str] | None = None,
    ledger: str | Path | Ledger | None = None,
    run_key: RunKey | bytes | None = None,
    own_code: Iterable[str] = (),
    insights: bool = True,
    as_many_as_there_are: bool = False,
    device: str = "auto",
    show: Show = lambda what, done, total: None,
) -> RequestResult:
    """Delivers ``n`` anonymized samples of a dataset to a client, as ``anondata publish`` lays them out.

    It is made beside ``out``, attacked as a whole, charged once, and put in place in one rename. The same call goes
    on where one was stopped; one that was stopped after the charge charges nothing. Called again when all is
    done, it changes nothing.

    catalog: see :mod:`anondata.requests.catalog`. content_type: may be left out where the dataset has one. where:
    values of kept columns, all of which a sample must have. ledger: by default the catalog's. run_key:
    decides which samples are drawn; by default one that is kept for ``out``. insights: adds a column of texts.
    own_code: modules whose classes the catalog's policies may name.
    as_many_as_there_are: takes what the quota leaves, where that is less.

    Fewer than ``n`` come where no more pass; the result says so.

    Raises, and then nothing is delivered:
        CatalogError, PolicyError: what the operator wrote cannot be used.
        RequestError: the client may not ask for this, nothing matches, or it is too weak against its attackers.
        QuotaExceeded, UnknownClientError, LedgerError: the client may not receive so much, or nobody can tell.
        UnreadableSourceError, UndeclaredFieldError, WithheldError, OutputError: samples cannot be read, or written.
    """
    from anondata.anonymizer import choose_device
    from anondata.requests.catalog import load_catalog
    from anondata.requests.delivery import Delivery
    from anondata.requests.terms import Asked, terms_of
    from anondata.requests.workfolder import Work

    _check_packages()
    asked = Asked(client, dataset, n, content_type, _texts_of(where), insights, as_many_as_there_are)
    terms = terms_of(load_catalog(_path(catalog)), asked, own_code)
    place = Path(out)
    _check_place(place, terms)
    key = terms.key(_key(place, run_key))
    with _opened(terms.catalog, ledger) as book, _disk(), Work(place, key) as work:
        return Delivery(terms, key, book, work, str(choose_device(device)), show).make()


def plan(
    catalog: str | os.PathLike[str] | Catalog,
    *,
    client: str,
    dataset: str,
    n: int,
    content_type: str | None = None,
    where: Mapping[str, str] | None = None,
    ledger: str | Path | Ledger | None = None,
    as_many_as_there_are: bool = False,
    own_code: Iterable[str] = (),
) -> Plan:
    """What :func:`request` would do, and whether it may. Anonymizes, writes and charges nothing. Raises as it."""
    from anondata.policy_words import in_words
    from anondata.requests.catalog import load_catalog
    from anondata.requests.source import candidates, check_place, loaded, quiet
    from anondata.requests.terms import Asked, grant, left_for, terms_of

    _check_packages()
    asked = Asked(client, dataset, n, content_type, _texts_of(where), as_many_as_there_are=as_many_as_there_are)
    terms = terms_of(load_catalog(_path(catalog)), asked, own_code)
    with quiet():  # before the ledger is asked: what is wrong with the catalog is told first
        check_place(terms)
        found = candidates(terms, loaded(terms))
    with _opened(terms.catalog, ledger) as book:
        granted, left = grant(book, terms.scope, asked), left_for(book, terms.scope)
    return Plan(tuple(in_words(terms.policy)), terms.content_type, granted, left, len(found))


def _texts_of(where: Mapping[str, str] | None) -> dict[str, str]:
    return {str(name): str(value) for name, value in (where or {}).items()}


def _path(catalog: str | os.PathLike[str] | Catalog) -> Any:
    return os.fspath(catalog) if isinstance(catalog, str | os.PathLike) else catalog


def _check_packages() -> None:
    from anondata.tools.publish import _check_packages

    _check_packages()


def _check_place(out: Path, terms: Terms) -> None:
    """Raises :class:`RequestError` for a place among the originals, which the next request would take for some."""
    from anondata.requests.source import local_place

    source = local_place(terms.catalog, terms.entry)
    if not out.name:
        raise RequestError("OUT has no name of its own; choose a folder below one")
    if source is not None and out.resolve().is_relative_to(source.resolve()):
        raise RequestError("OUT lies in the dataset itself; choose a place apart")


def _key(out: Path, given: RunKey | bytes | None) -> RunKey:
    from anondata.keys import run_key
    from anondata.randomness import RunKey

    key = RunKey(given) if isinstance(given, bytes) else given or run_key(out, None)
    if key is None:  # pragma: no cover - it is made when it is not there
        raise OutputError("there is no run key")
    return key


@contextmanager
def _opened(catalog: Catalog, ledger: str | Path | Ledger | None) -> Iterator[Ledger]:
    from anondata.ledger import Ledger

    if isinstance(ledger, Ledger):
        yield ledger
        return
    place = ledger or catalog.ledger
    if place is None:
        raise LedgerError("no ledger says what the client may receive; name one with --ledger, or in the catalog")
    book = Ledger(place)
    try:
        yield book
    finally:
        book.close()


@contextmanager
def _disk() -> Iterator[None]:
    """Errors of the disk, in words that name no file."""
    try:
        yield
    except OSError as error:
        if isinstance(error, AnondataError):
            raise
        said = error.strerror or type(error).__name__
        raise OutputError(
            f"the request cannot be met: {said}; nothing was delivered. The same command goes on when that is mended"
        ) from error


# --- the command --------------------------------------------------------------------------------------------------


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
@click.option("--as-many-as-there-are", is_flag=True, help="Take what the quota leaves, where that is less than N.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
@click.option("--list", "only_list", is_flag=True, help="List the datasets that the client may ask for.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and whether the client may have it.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout.")
def command(catalog: Path, client: str, only_list: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Meet a client's request: N anonymized samples of a dataset, with a card, charged to its quota.

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
            raise click.UsageError(f"--where asks for two values of {name!r} at once, which no sample has")
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
    from anondata.ledger import Scope
    from anondata.requests.catalog import load_catalog

    Scope(client, "any", "any")
    known = load_catalog(catalog)
    rows = []
    for name, entry in known.open_to(client).items():
        left = {kind: _left(known, ledger, Scope(client, name, kind)) for kind in entry.content_types}
        rows.append({"dataset": name, "title": entry.title or name, "left": left})
    if as_json:
        click.echo(json.dumps({"format": LIST_FORMAT, "datasets": rows}))
        return
    for row in rows:
        told = ", ".join(f"{kind}: {left}" for kind, left in row["left"].items())  # type: ignore[attr-defined]
        click.echo(f"{row['dataset']}\t{row['title']}\t{told}")
    if not rows:
        click.echo("the client may ask for no dataset of this catalog", err=True)


def _left(catalog: Catalog, ledger: str | None, scope: Any) -> int | str:
    """How many samples are left, in a number or a word."""
    from anondata.requests.terms import left_for

    try:
        with _opened(catalog, ledger) as book:
            left = left_for(book, scope)
    except UnknownClientError:
        return 0
    return "any" if left is None else left


__all__ = ["Plan", "RequestResult", "Show", "command", "plan", "request"]
