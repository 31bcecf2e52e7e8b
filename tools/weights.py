"""``anondata weights``: which networks there are, and whether their files are here and whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anondata.errors import WeightsError
from anondata.tools import cli
from anondata.tools._early import check_policy_named
from anondata.tools._policy_options import own_code_option

if TYPE_CHECKING:
    from anondata.models.registry import Weights


@dataclass(frozen=True)
class State:
    """How a set of weights stands on this machine. problem: why a file that is here may not be used."""

    name: str
    source: str
    here: bool
    verified: bool
    licence: str
    forbids: str
    size_bytes: int
    description: str
    problem: str = ""

    @property
    def broken(self) -> bool:
        """Whether something must be mended: a bad file, or a bundled one that is gone."""
        return bool(self.problem) or (self.source == "bundled" and not self.here)

    @property
    def word(self) -> str:
        return "verified" if self.verified else "BROKEN" if self.broken else "not here"


@click.group("weights")
def command() -> None:
    """List, download and verify the networks' weights."""


@command.command("list")
def list_() -> None:
    """List every registered set of weights: name, state, source, licence, size and what it does."""
    _table(states())


@command.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--policy",
    metavar="NAME|FILE",
    help="All that this policy needs. If it draws synthetic faces they are made, too, which takes minutes.",
)
@own_code_option
def pull(names: tuple[str, ...], policy: str | None, own_code: tuple[str, ...]) -> None:
    """Download weights into the cache folder and check their sha256: those named, or all that a policy needs."""
    from anondata.models import registry

    if not names and policy is None:
        raise click.UsageError("say which: NAME..., or --policy NAME|FILE")
    items = [registry.entry(name) for name in names]
    if policy is not None:
        check_policy_named(policy)
    for item in items:
        click.echo(f"{item.name}: {registry.pull(item)}")
    if policy is not None:
        _pull_for(policy, own_code)


def _pull_for(name: str, own_code: Sequence[str]) -> None:
    """All that a policy needs, with what their licences forbid on stderr."""
    from rich.console import Console

    from anondata.preparing import fetch_weights, make_faces, weights_of
    from anondata.tools._progress import phases
    from anondata.tools.anonymize import known_policy

    policy = known_policy(name, own_code)
    for terms in dict.fromkeys(item.licence.forbids for item in weights_of(policy) if item.licence.forbids):
        click.echo(click.wrap_text(f"note: {terms}", 110, subsequent_indent="  "), err=True)
    with phases(Console(stderr=True)) as show:
        found = fetch_weights(policy, show)
    for item, path in found:
        click.echo(f"{item}: {path}")
    with phases(Console(stderr=True)) as show:
        people = make_faces(policy, show)
    if people:
        click.echo(f"synthetic people: {people}", err=True)


@command.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check the sha256 of the named weights, or of all that are here. Exit code 1 when one is wrong.

    A named one must be here. Without names, one that is not bundled and was never downloaded is no fault.
    """
    found = states(names)
    _table(found)
    for state in found:
        if state.problem:
            click.echo(f"error: {state.problem}", err=True)
    bad = [s for s in found if s.broken or (names and not s.verified)]
    if bad:
        word = "is" if len(bad) == 1 else "are"
        raise WeightsError(
            f"{', '.join(s.name for s in bad)} {word} not usable; `anondata weights pull NAME` or reinstall"
        )
    click.get_current_context().exit(cli.OK)


def states(names: Sequence[str] = ()) -> list[State]:
    """How the named weights, or all, stand on this machine.

    Raises: WeightsError for an unknown name.
    """
    from anondata.models import registry

    chosen = [registry.entry(name) for name in names] or list(registry.weights())
    return [_state(item) for item in chosen]


def _state(item: Weights) -> State:
    from anondata.models import registry

    here, problem, verified = any(path.is_file() for path in _places(item)), "", False
    if here:
        try:
            registry.verify(item)
            verified = True
        except WeightsError as error:
            problem = str(error)
    source = type(item.source).__name__.lower()
    return State(
        item.name,
        source,
        here,
        verified,
        item.licence.spdx,
        item.licence.forbids,
        item.size_bytes,
        item.description,
        problem,
    )


def _places(item: Weights) -> list[Path]:
    """Where `anondata.models.registry.locate` looks, in its order."""
    from anondata.models import registry

    override = os.environ.get(registry.OVERRIDE_VARIABLE)
    own = isinstance(item.source, registry.Bundled)
    rest = registry.bundled_file(item.file) if own else registry.cache_folder() / item.file
    return [*([Path(override) / item.file] if override else []), rest]


def _table(found: Sequence[State]) -> None:
    """Plain columns on stdout, which other programs can cut."""
    rows = [("NAME", "STATE", "SOURCE", "LICENCE", "MB", "WHAT")]
    rows += [
        (s.name, s.word, s.source, s.licence + ("*" if s.forbids else ""), f"{s.size_bytes / 1e6:.1f}", s.description)
        for s in found
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]))
    for terms in dict.fromkeys(s.forbids for s in found if s.forbids):
        names = ", ".join(s.name for s in found if s.forbids == terms)
        click.echo(click.wrap_text(f"* {names}: {terms}", 110, subsequent_indent="  "), err=True)
