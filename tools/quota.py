"""``anondata quota``: how much each client may receive, how much it received, and whether the history is whole."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from anondata.errors import LedgerError, LimitError
from anondata.tools import cli

if TYPE_CHECKING:
    from rich.table import Table

    from anondata.ledger import Entry, Ledger, Limit, Usage

F = TypeVar("F", bound=Callable[..., Any])

ledger_option = click.option(
    "--ledger",
    "url",
    metavar="URL",
    envvar="ANONDATA_LEDGER",
    required=True,
    help="A file, or postgresql://user@host/database.  [env var: ANONDATA_LEDGER]",
)
client_option = click.option("--client", metavar="NAME", help="Only what concerns this client.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout.")


def _terms(function: F) -> F:
    """The options that say which limit is meant."""
    for option in reversed(
        (
            click.option(
                "--client", metavar="NAME", help="The client; * stands for each client without a limit of its own."
            ),
            click.option("--all-clients", is_flag=True, help="A limit over all clients together."),
            click.option("--dataset", default="*", show_default=True, help="One dataset, or * for all together."),
            click.option("--content-type", default="*", show_default=True, help="One, or * for all together."),
            click.option(
                "--unit",
                type=click.Choice(["samples", "bytes", "seconds", "faces"]),
                default="samples",
                show_default=True,
                help="What is counted.",
            ),
            click.option(
                "--window",
                type=click.Choice(["total", "day", "month"]),
                default="total",
                show_default=True,
                help="When the count begins anew: never, or with each day or month in UTC.",
            ),
            ledger_option,
        )
    ):
        function = option(function)
    return function


@click.group("quota")
def command() -> None:
    """Set how much each client may receive, and show what it has received.

    Quotas are kept in a ledger, a file for one machine or a PostgreSQL database for several. A client for whom no
    limit is set gets nothing. All limits that apply must hold together: of the client, of its dataset and content
    type, and over all clients.
    """


@command.command("set")
@_terms
@click.argument("amount", metavar="AMOUNT|unlimited")
def set_(amount: str, url: str, **terms: Any) -> None:
    """Set or change a limit. The first one creates the ledger.

    AMOUNT is a whole number. `unlimited` sets no limit, and counts what the client receives. Processes that are at
    work keep what they reserved before.
    """
    if not (amount == "unlimited" or amount.isdecimal()):
        raise click.UsageError("AMOUNT is a whole number or `unlimited`")
    with _opened(url) as ledger:
        limit = _limit(terms, None if amount == "unlimited" else int(amount))
        ledger.set_limit(limit)
    click.echo(f"set: {_words(limit)}")


@command.command()
@_terms
def remove(url: str, **terms: Any) -> None:
    """Remove a limit. A client without any limit gets nothing."""
    with _opened(url) as ledger:
        limit = _limit(terms, None)
        if not ledger.remove_limit(limit):
            raise LedgerError("there is no such limit; `anondata quota show` lists them with their terms")
    click.echo(f"removed: {_words(limit, amount=False)}")


@command.command()
@client_option
@json_option
@ledger_option
def show(client: str | None, as_json: bool, url: str) -> None:
    """Show limits, and how much of each is used.

    With --client those that bind it, also defaults and those over all clients. What open leases hold is reserved.
    """
    with _opened(url) as ledger:
        found = ledger.usage(client)
    if as_json:
        click.echo(json.dumps({"limits": [_usage(usage) for usage in found]}, indent=2))
    elif not found:
        click.echo("no limit is set" if client is None else "no limit binds this client: it gets nothing")
    else:
        _print(_table(found))


@command.command()
@client_option
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the last N entries.")
@click.option("--json", "as_json", is_flag=True, help="Print each entry as a JSON object on a line of its own.")
@ledger_option
def history(client: str | None, last: int | None, as_json: bool, url: str) -> None:
    """Print the history, which is only ever appended to: who was granted and given what, when, and by whom."""
    with _opened(url) as ledger:
        entries: Iterator[Entry] = ledger.history(client)
        for entry in entries if last is None else deque(entries, maxlen=last):
            click.echo(_json(entry) if as_json else _line(entry))


@command.command()
@click.option("--head", metavar="HASH", help="A head that was printed before; it must be in the history still.")
@ledger_option
def verify(head: str | None, url: str) -> None:
    """Check that nobody changed the history, and that limits and counters agree with it. Exit code 1 if not.

    Prints the head of the history. Keep it where nobody who can write the ledger can change it: with --head it shows
    later whether the history was rewritten since.
    """
    with _opened(url) as ledger:
        found = ledger.verify(head)
    if not found.ok:
        raise LedgerError(
            f"{found.problem}. Do not go on with this ledger: restore a copy, and find out who can write it"
        )
    click.echo(f"whole: {found.entries} entries\nhead: {found.head}")
    click.get_current_context().exit(cli.OK)


@command.command()
@click.option("--accept", is_flag=True, help="The clock is right: go on from now, whatever the ledger has seen.")
@ledger_option
def clock(accept: bool, url: str) -> None:
    """Compare the clock with the ledger's latest entry, and go on where a wrong clock has stopped it.

    A clock that was ahead for a while leaves entries of a time that is not yet: until then the ledger refuses
    everybody. And a clock that leaps ahead is refused, because it would give away another day's quota. When the clock
    is right, --accept says so; the history keeps who said it. What was delivered stays counted for its day.
    """
    with _opened(url) as ledger:
        before, now = ledger.accept_clock() if accept else ledger.clock()
    apart = abs(now - before)
    which = "ahead of" if now >= before else "BEHIND"
    told = f"latest entry: {before:%Y-%m-%d %H:%M:%S} UTC\nclock: {now:%Y-%m-%d %H:%M:%S} UTC, {apart} {which} it"
    click.echo(f"{told}\naccepted: the ledger goes on from this clock" if accept else told)


@contextmanager
def _opened(url: str) -> Iterator[Ledger]:
    """The ledger; what it cannot hold was asked for wrongly."""
    from anondata.ledger import Ledger

    ledger = Ledger(url)
    try:
        yield ledger
    except LimitError as error:
        raise click.UsageError(str(error)) from error
    finally:
        ledger.close()


def _limit(terms: dict[str, Any], amount: int | None) -> Limit:
    from anondata.ledger import ALL, Limit

    client, everybody = terms.pop("client"), terms.pop("all_clients")
    if (client is None) != everybody:
        raise click.UsageError("say whose limit it is, by either --client or --all-clients")
    if client == ALL:
        raise click.UsageError(f"no client is called {ALL}; --all-clients is a limit over all of them")
    return Limit(ALL if everybody else client, amount=amount, **terms)


def _words(limit: Limit, *, amount: bool = True) -> str:
    how_much = [_amount(limit.amount)] if amount else []
    window = "in total" if limit.window == "total" else f"a {limit.window}"
    what = f"dataset {limit.dataset}, content type {limit.content_type}"
    return " ".join([f"{_who(limit.client)}:", *how_much, limit.unit, f"{window} ({what})"])


def _who(client: str) -> str:
    return {"+": "all clients together", "*": "each client (*)"}.get(client, client)


def _amount(amount: int | None) -> str:
    return "unlimited" if amount is None else str(amount)


def _usage(usage: Usage) -> dict[str, Any]:
    figures = {
        "used": usage.used,
        "reserved": usage.reserved,
        "left": usage.left,
        "renews_at": _time(usage.renews_at),
    }
    return {"client": usage.client, "limit": asdict(usage.limit), **figures}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _json(entry: Entry) -> str:
    return json.dumps({**asdict(entry), "at": entry.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")})


def _line(entry: Entry) -> str:
    """One entry in columns that other programs can cut."""
    amounts = " ".join(f"{name}={_amount(amount)}" for name, amount in entry.amounts.items()) or "-"
    names = (entry.client, entry.dataset, entry.content_type)
    return "\t".join([str(entry.seq), _time(entry.at) or "", entry.actor, entry.event, *names, amounts])


def _table(found: list[Usage]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("client", "dataset", "content type", "unit"):
        table.add_column(name, overflow="fold")
    for name in ("limit", "used", "reserved", "left"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("renews (UTC)", overflow="fold")
    for usage in found:
        limit, renews = usage.limit, usage.renews_at
        names = (_who(usage.client), limit.dataset, limit.content_type, f"{limit.unit}/{limit.window}")
        figures = (_amount(limit.amount), str(usage.used), str(usage.reserved), _amount(usage.left))
        cells = (*names, *figures, "never" if renews is None else f"{renews:%Y-%m-%d %H:%M}")
        table.add_row(*(Text(cell) for cell in cells))  # as text: a name may hold what markup looks like
    return table


def _print(table: Table) -> None:
    """As wide as it needs where no person reads it: a cut number would be another number."""
    from rich.console import Console

    console = Console()
    console.print(table) if console.is_terminal else Console(width=400).print(table)
