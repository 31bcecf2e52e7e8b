"""``anondata publish``: publishes an anonymized output with a card and a manifest, if its audit allows that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anondata.errors import PublishError
from anondata.publishing.publish import About, publish
from anondata.tools._policy_options import own_code_option

if TYPE_CHECKING:
    from anondata.randomness import RunKey


@click.command("publish")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--repo-id", metavar="ORG/NAME", help="Dataset on the Hugging Face Hub; made private, see --public.")
@click.option("--to", metavar="PLACE", help="Folder that is not there yet or empty, or a URL that fsspec writes.")
@click.option(
    "--audit",
    metavar="AUDIT",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="What `anondata audit` wrote about DIR: its folder, or audit.json.",
)
@click.option("--title", required=True, help="Of the dataset, for the card.")
@click.option("--licence", "--license", required=True, help="Of the data: an id of the Hub's list, as cc-by-4.0.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    help="What the data was made from: ids of datasets, or single words such as private.",
)
@click.option(
    "--summary-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Text for the card."
)
@click.option("--homepage", metavar="URL", help="Page about the dataset.")
@click.option("--webdataset", is_flag=True, help="Put the shards of `anondata shards --rename-keys` beside.")
@click.option(
    "--labels",
    is_flag=True,
    help="Keep labels: the folder that each picture lies in becomes the column label. The folders' names come out; "
    "not where they are names of people.",
)
@click.option("--public", is_flag=True, help="Everybody may see the repository.")
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run key of DIR, to check its seal.  [default: the one that is kept for DIR]",
)
@own_code_option
@click.option(
    "--rows-per-file", type=click.IntRange(min=1), metavar="N", help="Rows of a parquet file.  [default: 256 MiB]"
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(folder: Path, repo_id: str | None, to: str | None, audit: Path, **options: Any) -> None:
    """Publish an anonymized output with a dataset card, if its audit allows that.

    DIR was written by `anondata anonymize`, `materialize` or `anondata shards`. It is refused if the run did not come
    to its end, a file was changed, an audit of just these pictures is missing, or an attack in it names more people
    than the policy's `audit:` allows. Rows are parquet with embedded pictures; names of files are not published.

    What is published is complete or not there at all. `anondata verify` checks it, anywhere.

    Exit code 0: published, 1: refused or failed, 2: usage.
    """
    from rich.console import Console

    from anondata.tools._progress import phases

    if (repo_id is None) == (to is None):
        raise click.UsageError("say where to: --repo-id or --to")
    key = _kept_key(folder, options["key_file"])
    if not options["yes"] and repo_id is not None:
        whom = "everybody may see it" if options["public"] else "private"
        click.confirm(f"Publish on the Hub as {repo_id} ({whom})?", abort=True, err=True)
    with phases(Console(stderr=True)) as show:
        done = publish(
            folder,
            audit=audit,
            about=_about(options),
            to=to,
            repo_id=repo_id,
            public=options["public"],
            run_key=key,
            own_code=options["own_code"],
            rows_per_file=options["rows_per_file"],
            webdataset=options["webdataset"],
            labels=options["labels"],
            show=show,
        )
    seal = "its seal holds" if done.sealed else "its seal is not checked: the run key is not here, see --key-file"
    click.echo(f"published: {done.pictures} pictures in {done.files} files, {done.bytes} bytes; {seal}", err=True)
    click.echo(done.place)


def _about(options: Mapping[str, Any]) -> About:
    try:
        summary = options["summary_file"].read_text(encoding="utf-8") if options["summary_file"] else None
    except (OSError, UnicodeDecodeError) as error:
        raise PublishError("the summary cannot be read as UTF-8 text") from error
    return About(options["title"], options["licence"], summary, options["homepage"], options["sources"])


def _kept_key(folder: Path, key_file: Path | None) -> RunKey | None:
    from anondata.keys import run_key

    return run_key(folder, key_file, create=False)
