"""``anondata calibrate``: thresholds of an embedder from labelled faces."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anondata.errors import CalibrationError, MissingExtraError
from anondata.loaders.files.output import write_whole
from anondata.tools import cli
from anondata.tools._early import check_device_named
from anondata.tools._progress import counted
from anondata.verifiers.gallery.labelled import Folder, Templates, embed_photos, list_photos

if TYPE_CHECKING:
    from rich.console import Console

    from anondata.verifiers.calibration import Calibration

FORMAT = "anondata.calibrate/1"


@click.command("calibrate")
@click.argument("faces", metavar="FACES", type=click.Path(path_type=Path))
@click.option("--out", metavar="FILE.json", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--embedder",
    "name",
    default="dlib-face-resnet",
    show_default=True,
    help="A known one, insightface:SOURCE, or package.module:Class.",
)
@click.option(
    "--far",
    "rates",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    multiple=True,
    help="False-accept rate; may be given several times.  [default: all usual ones that FACES supports]",
)
@click.option("--identity", default="identity", show_default=True, help="Column of the metadata that says who it is.")
@click.option("--data", "words", metavar="TEXT", help="What the photos are, in words, kept in FILE.json.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
@click.option(
    "--plot",
    metavar="FILE.png",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the distances within and between people, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on stdout.")
def command(
    faces: Path,
    out: Path,
    name: str,
    rates: tuple[float, ...],
    identity: str,
    words: str | None,
    device: str,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure the distance below which an embedder takes two photos for one person, at stated false-accept rates.

    FACES is a folder with metadata.csv or metadata.jsonl (columns file_name and identity), or with a folder for each
    person. Photos without a face, or with several, are counted and left out. A rate is refused when there are fewer
    than 10 / rate pairs of different people.

    FILE.json holds numbers only: no name, no photo, no template. A gate takes it in place of the thresholds that come
    with anondata.
    """
    if not faces.is_dir():
        raise click.UsageError("FACES is not a folder")
    check_device_named(device)

    from rich.console import Console

    from anondata.tools.anonymize import usable_device
    from anondata.verifiers.calibration import calibrate, check_support
    from anondata.verifiers.embedders import embedder_of

    _check_outputs(out, plot)
    embedder, where, console = embedder_of(name), usable_device(device), Console(stderr=True)
    folder = list_photos(faces, identity=identity)
    check_support([photo.identity for photo in folder.photos], rates or None)  # before any photo is read
    with counted(console, len(folder.photos), "reading faces") as show:
        found = embed_photos(folder.photos, embedder, device=where, show=show)
    people = [photo.identity for photo in found.photos]
    told = words or f"{len(found.photos)} photos of {len(set(people))} people"
    result = calibrate(found.templates, people, embedder=embedder, data=told, rates=rates or None)
    write_whole(out, result.to_json().encode(), what="the calibration")
    if plot:
        write_whole(plot, _histograms(found, result), what="the plot")
    summary = _summary(folder, found, result)
    if as_json:
        click.echo(json.dumps(summary))
    else:
        _tell(Console(), result, summary)
        click.echo(f"written: {out}")
    click.get_current_context().exit(cli.OK)


def _check_outputs(out: Path, plot: Path | None) -> None:
    """Before any work: where results cannot go, and what they must not replace."""
    from anondata.verifiers.calibration import load

    for path in filter(None, (out, plot)):
        if not path.parent.is_dir():
            raise click.UsageError("the folder of --out or --plot does not exist")
    if out.exists():
        try:
            load(out)
        except CalibrationError as error:
            raise click.UsageError(
                "--out is there already and is not a calibration; it is not overwritten"
            ) from error
    if plot and plot.exists() and not plot.read_bytes().startswith(b"\x89PNG"):
        raise click.UsageError("--plot is there already and is not a PNG; it is not overwritten")
    if plot:
        _matplotlib()


def _summary(folder: Folder, found: Templates, result: Calibration) -> dict[str, Any]:
    """The contract of ``--json``."""
    left = {"unlabelled": folder.unlabelled, **found.left_out}
    return {
        "format": FORMAT,
        "photos": len(folder.photos) + folder.unlabelled,
        "used": len(found.photos),
        "left_out": {reason: n for reason, n in sorted(left.items()) if n},
        "calibration": asdict(result),
    }


def _tell(console: Console, result: Calibration, summary: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=f"thresholds of {result.embedder}", title_justify="left")
    for title in ("FAR", "distance", "95 %", "TAR", "95 %"):
        table.add_column(title, justify="right")
    for row in result.thresholds:
        tar = ("-", "-") if row.tar is None else (f"{row.tar:.3f}", f"{row.tar_low:.3f}-{row.tar_high:.3f}")
        table.add_row(f"{row.far:g}", f"{row.distance:.4f}", f"{row.low:.4f}-{row.high:.4f}", *tar)
    console.print(table)
    click.echo(f"{summary['used']} of {summary['photos']} photos, {result.identities} people")
    click.echo(f"{result.impostor_pairs} pairs of different people, {result.genuine_pairs} of one person")
    for reason, n in summary["left_out"].items():
        click.echo(f"left out: {n} {reason.replace('_', ' ')}")


def _matplotlib() -> Any:
    try:
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtraError("--plot needs matplotlib: run `pip install 'anondata[plots]'`") from error
    return matplotlib.figure


def _histograms(found: Templates, result: Calibration) -> bytes:
    """A PNG: how far photos of one person and of different people are apart, and the thresholds."""
    import io

    import numpy as np

    from anondata.verifiers.calibration import distances

    measured = distances(found.templates, [photo.identity for photo in found.photos])
    figure = _matplotlib().Figure(figsize=(8, 4.5), layout="constrained")
    axes, edges = figure.subplots(), np.histogram_bin_edges(np.concatenate(measured), bins=60)
    for values, label in zip(measured, ("one person", "different people"), strict=True):
        axes.hist(values, bins=edges, density=True, alpha=0.6, label=label)
    for row in result.thresholds:
        axes.axvline(row.distance, color="black", linewidth=0.8)
        axes.text(row.distance, axes.get_ylim()[1], f"{row.far:g}", rotation=90, ha="right", va="top", fontsize=7)
    axes.set(xlabel="distance", ylabel="density of pairs", title=f"{result.embedder}: lines are thresholds by FAR")
    axes.legend(loc="upper right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
