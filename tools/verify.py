"""``anondata verify``: checks a publication, wherever it lies, against what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anondata.publishing.verify import Check, verify
from anondata.tools import cli
from anondata.tools._early import gallery_paths
from anondata.tools._policy_options import own_code_option

if TYPE_CHECKING:
    from anondata.randomness import RunKey
    from anondata.verifiers.gallery import Gallery


@click.command("verify")
@click.argument("place", metavar="PATH")
@click.option(
    "--gallery", "galleries", metavar="NAME=FILE", multiple=True, help="Fail if a face is near somebody in it."
)
@click.option("--gallery-key", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Key of galleries.")
@click.option(
    "--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Run key, to check the seal."
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    default=100,
    show_default=True,
    help="In how many pictures detectors look for faces; all of them with --gallery.",
)
@own_code_option
@click.option("--json", "as_json", is_flag=True, help="Print the checks as one JSON object on stdout.")
def command(
    place: str,
    galleries: tuple[str, ...],
    gallery_key: Path | None,
    key_file: Path | None,
    limit: int,
    own_code: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check what `anondata publish` published: a folder, a URL, or hf://datasets/ORG/NAME.

    Every file is compared with the manifest, the card's figures with report and audit, the audit with the pictures;
    pictures must decode and hold no metadata.

    Exit code 0: all is well, 1: something is not, 2: usage.
    """
    from rich.console import Console

    from anondata.tools._progress import counted

    known = _galleries(gallery_paths(galleries), gallery_key)
    console = Console(stderr=True)
    with counted(console, 0, "verifying") as show:
        found = verify(
            place,
            limit=None if known else limit,
            galleries=known,
            run_key=_key(key_file),
            own_code=own_code,
            show=show,
        )
    good = all(check.ok is not False for check in found)
    if as_json:
        body = {"format": "anondata.verify/1", "ok": good, "checks": [asdict(check) for check in found]}
        click.echo(json.dumps(body))
    else:
        _table(found)
    click.get_current_context().exit(cli.OK if good else cli.FAILURE)


def _galleries(paths: Mapping[str, str], key: Path | None) -> dict[str, Gallery]:
    from anondata.verifiers.gallery.file import open_gallery

    return {name: open_gallery(path, key=key) for name, path in paths.items()}


def _key(path: Path | None) -> RunKey | None:
    from anondata.randomness import RunKey

    try:
        return RunKey(path.read_bytes()) if path else None
    except (OSError, ValueError) as error:
        raise click.UsageError("the run key cannot be read, or is too short") from error


def _table(found: list[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("", "check", "found"):
        table.add_column(column, overflow="fold")
    for check in found:
        mark = {True: "[green]ok[/]", False: "[red]WRONG[/]", None: "-"}[check.ok]
        table.add_row(mark, check.name, escape(check.words))
    Console().print(table)
