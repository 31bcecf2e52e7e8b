"""``anondata card``: a dataset card, Croissant and plots of a finished output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anondata.errors import CardError, OutputError
from anondata.loaders.files.output import CARD, write_whole
from anondata.tools._policy_options import own_code_option

if TYPE_CHECKING:
    from anondata.manifest import Manifest

README, CROISSANT = CARD
PLOTS = "plots"
HIDDEN = ".anondata/plots"  # in the output itself, so that who loads it does not take plots for pictures
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("card")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--title", required=True, help="Of the dataset.")
@click.option("--licence", required=True, metavar="ID", help="Id of the Hub's list, such as cc-by-4.0, or other.")
@click.option(
    "--audit",
    type=click.Path(exists=True, path_type=Path),
    help="audit.json, or the folder that `anondata audit` wrote. Without, the card says that nobody attacked it.",
)
@click.option("--summary-file", type=_FILE, help="Plain text about the data, in paragraphs.")
@click.option("--homepage", metavar="URL", help="Page of the dataset.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="ID",
    help="Dataset that it was made from, or a word such as private; may be given several times.",
)
@click.option("--tag", "tags", multiple=True, help="For the Hub; may be given several times.")
@click.option(
    "--out",
    metavar="OUT",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write into.  [default: DIR]",
)
@click.option("--key-file", type=_FILE, help="The run key, to check the seal.  [default: the one kept for DIR]")
@own_code_option
@click.option("--no-plots", is_flag=True, help="Write no plots.")
def command(
    folder: Path, audit: Path | None, out: Path | None, summary_file: Path | None, no_plots: bool, **about: Any
) -> None:
    """Write the dataset card of an output of `anonymize`, `materialize` or `shards`.

    README.md has metadata for the Hub, all figures for programs, and the text; croissant.json describes the data as
    Croissant 1.1; plots lie in plots, or in .anondata/plots where OUT is DIR. The card tells no file names. Exit
    code 0: written, 1: something that the card must tell is not there, or the output is not finished, 2: usage.
    """
    from anondata.cards.croissant import croissant_of
    from anondata.cards.readme import card_of
    from anondata.keys import run_key
    from anondata.publishing.checks import checked
    from anondata.publishing.contents import contents_of
    from anondata.publishing.facts import facts_of

    manifest, sealed = checked(
        folder, run_key(folder, about["key_file"], create=False), own_code=about["own_code"], show=lambda done: None
    )
    body = None if audit is None else read_audit(audit)
    place = out or folder
    contents = contents_of(folder, manifest)
    _check_ours(place)
    drawn = [] if no_plots else _plots(manifest, body, place, here=place.resolve() == folder.resolve())
    facts = facts_of(
        manifest,
        audit=body,
        title=about["title"],
        licence=about["licence"],
        splits=contents.splits,
        features=contents.features,
        files=contents.files,
        summary=_summary(summary_file),
        homepage=about["homepage"],
        sources=about["sources"],
        tags=about["tags"],
        sealed=sealed,
        plots=[path.relative_to(place).as_posix() for path in drawn],
    )
    card, croissant = card_of(facts), json.dumps(croissant_of(facts), indent=1, ensure_ascii=False) + "\n"
    _made(place)
    write_whole(place / README, card.encode(), what="OUT")
    write_whole(place / CROISSANT, croissant.encode(), what="OUT")
    _tell(place, audited=body is not None, plots=len(drawn))


def read_audit(path: Path) -> Mapping[str, Any]:
    """The body of an ``audit.json``, or of the one in a folder. Raises: CardError."""
    try:
        body = json.loads((path / "audit.json" if path.is_dir() else path).read_text())
    except OSError as error:
        raise CardError(f"the audit cannot be read: {error.strerror}; `anondata audit` makes one") from error
    except (ValueError, RecursionError) as error:
        raise CardError("the audit is not JSON; run `anondata audit` again") from error
    if not isinstance(body, dict):
        raise CardError("the audit is not a JSON object; run `anondata audit` again")
    return body


def _check_ours(out: Path) -> None:
    """Raises :class:`CardError` where a README of somebody else would be written over."""
    from anondata.cards.readme import from_card

    try:
        from_card((out / README).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (CardError, UnicodeDecodeError) as error:
        raise CardError(
            f"OUT holds a {README} that anondata did not write; move it, or give another --out"
        ) from error
    except OSError as error:
        raise OutputError(f"the {README} in OUT cannot be read: {error.strerror}") from error


def _plots(manifest: Manifest, audit: Mapping[str, Any] | None, out: Path, *, here: bool) -> list[Path]:
    """Draws what there are figures for. Beside pictures only SVG, which no reader of pictures takes for one."""
    from anondata.cards import audit_plots, report_plots
    from anondata.cards.facts import check_audit

    formats = ("svg",) if here and manifest.kind == "images" else ("png", "svg")
    if audit is not None:
        check_audit(audit)
    try:
        folder = _made(out / (HIDDEN if here else PLOTS))
        for old in (*folder.glob("*.png"), *folder.glob("*.svg")):
            old.unlink()
        drawn = [] if audit is None else audit_plots.write_plots(audit, folder, formats=formats)
        return [*drawn, *report_plots.write_plots(manifest.report, folder, formats=formats)]
    except (KeyError, TypeError, IndexError) as error:
        raise CardError("the audit lacks figures that its plots show; run `anondata audit` again") from error
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"OUT cannot be written: {error.strerror}") from error


def _summary(file: Path | None) -> str | None:
    try:
        return file.read_text(encoding="utf-8") if file else None
    except (OSError, UnicodeDecodeError) as error:
        raise CardError("the summary cannot be read as UTF-8 text") from error


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"OUT cannot be made: {error.strerror}") from error
    return folder


def _tell(place: Path, *, audited: bool, plots: int) -> None:
    if not audited:
        click.echo("note: there is no audit, and the card says so; `anondata publish` refuses it", err=True)
    click.echo(f"written: {place / README}, {CROISSANT}" + (f" and {plots} plots" if plots else ""))
