"""``anondata anonymize``: photos in, verified anonymized photos out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anondata._files import insights_by
from anondata.errors import ArgumentError, PolicyError
from anondata.keys import run_key
from anondata.loaders.files import listed, plan
from anondata.policy_words import in_words
from anondata.sources import others_in_words
from anondata.tools._early import check_device_named, check_policy_named, gallery_paths
from anondata.tools._memory import tell_need
from anondata.tools._policy_options import own_code_option
from anondata.tools._progress import prepared, progress
from anondata.tools._quota_options import quota_of, quota_options
from anondata.tools._summary import Summary

if TYPE_CHECKING:
    from anondata.loaders.files import FilesJob
    from anondata.policy import Policy
    from anondata.verifiers.gallery.file import AnyGallery


max_pixels_option = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    help="Withhold larger pictures.  [default: as the policy says; presets: 178956970]",
)


@click.command("anonymize")
@click.argument("sources", metavar="SRC...", nargs=-1, required=True)
@click.option("--out", metavar="DST", required=True, help="Local folder for the results; made if it does not exist.")
@click.option("--policy", default="faces", show_default=True, help="Name of a preset, or path of a YAML file.")
@own_code_option
@click.option(
    "--gallery",
    "galleries",
    metavar="NAME=FILE",
    multiple=True,
    help="A gallery that the policy names, such as protected=vips.gallery. Encrypted ones need the key below.",
)
@click.option(
    "--gallery-key",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="File that holds the galleries' key.  [default: the variable ANONDATA_GALLERY_KEY, if it is set]",
)
@click.option(
    "--regions",
    "regions_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Boxes that are anonymized, too: COCO (.json) or an imagefolder's metadata.jsonl, which must name every "
    "picture by its path below SRC. The policy's given: says what categories mean.",
)
@click.option("--rename", is_flag=True, help="Name outputs by keyed hashes in one flat folder: names identify, too.")
@click.option(
    "--insights",
    is_flag=True,
    help="Write DST/metadata.jsonl, which tells what was in each picture, in words that identify nobody.",
)
@click.option(
    "--insights-from",
    metavar="CSV",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Texts by an editor, with the columns file_name (below SRC) and insights, added as they are. Nothing checks "
    "whether they identify anybody.",
)
@quota_options
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N, in a fixed order.")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Threads.  [default: cores; 4 on CUDA]")
@max_pixels_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Run key, at least 16 bytes.  [default: one made for DST, kept in your state folder, see ANONDATA_STATE]",
)
@click.option(
    "--list-withheld",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write reason and path of each withheld sample into this file, outside of DST. Names are never printed.",
)
@click.option("--overwrite", is_flag=True, help="Remove what earlier runs wrote into DST and do everything again.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; read no picture, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on stdout.")
def command(
    sources: tuple[str, ...],
    out: str,
    policy: str,
    own_code: tuple[str, ...],
    galleries: tuple[str, ...],
    gallery_key: Path | None,
    regions_file: Path | None,
    rename: bool,
    insights: bool,
    insights_from: Path | None,
    client: str | None,
    ledger: str | None,
    dataset_name: str | None,
    limit: int | None,
    workers: int | None,
    max_pixels: int | None,
    device: str,
    key_file: Path | None,
    list_withheld: Path | None,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Anonymize photos and write those that pass every check into the folder DST.

    SRC is a file, a folder (with all folders in it), a glob, or a URL that fsspec can read. In folders and globs
    images are chosen by suffix (JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000 and, with pillow-heif, HEIC); other
    files and hidden ones are never copied.
    The structure below each SRC is kept. A picture that is written in another format than its name says gets a second
    suffix: x.gif becomes x.gif.png.

    The same command again does only what is missing, and pictures whose boxes in --regions changed. DST/.anondata
    keeps track of that by keyed hashes; it need not be published. Exit code 0: all released, 3: some withheld, 2:
    usage, 1: failure, 130: interrupted.
    """
    folder = _folder(out)
    check_policy_named(policy)
    check_device_named(device)
    paths, quota = gallery_paths(galleries), quota_of(client, ledger, dataset_name)
    check_list_file(list_withheld, folder)
    listing = listed(sources, folder, rename=rename, overwrite=overwrite)
    texts = _texts(insights_from, {s.name for s in listing.sources}) if insights_from else {}
    from anondata.anonymizer import Anonymizer

    chosen, on = known_policy(policy, own_code, max_pixels), usable_device(device)
    opened = open_galleries(chosen, paths, gallery_key)
    key = run_key(folder, key_file, create=not dry_run)
    job = plan(
        listing,
        folder,
        Anonymizer(chosen, device=on, galleries=opened, run_key=key),
        regions=regions_file,
        rename=rename,
        insights=insights or insights_from is not None,
        texts=texts,
        limit=limit,
        workers=workers,
        overwrite=overwrite,
        **quota,
    )
    tell_need(chosen, min(job.workers, len(job.chosen)), processes=False)
    if dry_run:
        _rehearse(job, opened, job.done() if key else 0, as_json=as_json)
        return
    click.get_current_context().exit(_execute(job, list_withheld, as_json=as_json))


def _execute(job: FilesJob, list_withheld: Path | None, *, as_json: bool) -> int:
    """Runs the job, tells what came out, and returns the exit code."""
    from rich.console import Console

    console, lost = Console(stderr=True), list[tuple[str, str]]()
    prepared(job.anonymizer, console)
    with progress(console, len(job.chosen)) as show:
        result = job.run(
            progress=show,
            on_withheld=lambda source, reason: lost.append((reason, source.place)) if list_withheld else None,
        )
    _write_list(list_withheld, lost)
    summary = Summary(job.anonymizer.policy, result)
    summary.show(console)
    if result.withheld and not list_withheld:
        console.print("which ones: the same command with --list-withheld FILE, outside of DST")
    if as_json:
        click.echo(json.dumps(summary.to_json()))
    if result.error:
        raise result.error
    if result.interrupted:
        console.print(summary.error)
    return summary.exit_code


def _write_list(path: Path | None, withheld: list[tuple[str, str]]) -> None:
    if path:
        # JSON strings: a name may hold a tab, a line break, or bytes that are no text.
        lines = [f"{reason}\t{json.dumps(place)}\n" for reason, place in sorted(withheld)]
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(lines)


def _rehearse(job: FilesJob, galleries: Mapping[str, AnyGallery], done: int, *, as_json: bool) -> None:
    """``--dry-run``: says what would be done, and does nothing of it."""
    policy, listing = job.anonymizer.policy, job.listing
    if as_json:
        left = {"other_files": listing.other_files, "hidden": listing.hidden}
        body = {"format": "anondata.dry_run/1", "policy": policy.name, "fingerprint": policy.fingerprint}
        click.echo(json.dumps({**body, "samples": len(job.chosen), "skipped_done": done, "left_alone": left}))
        return
    for line in in_words(policy):
        click.echo(line)
    for name, gallery in sorted(galleries.items()):
        click.echo(f"gallery {name}: {gallery.counted} ({gallery.fingerprint})")
    click.echo(f"{len(job.chosen)} samples, of which {done} are done and would be skipped")
    click.echo(f"left alone: {others_in_words(listing.others, listing.hidden)}")
    click.echo(f"{job.workers} worker(s) on {job.anonymizer.device}")


def _texts(path: Path, known: Set[str]) -> dict[str, str]:
    """An editor's texts by the names of their pictures."""
    try:
        texts = insights_by("file_name", path)
    except ArgumentError as error:
        raise click.UsageError(f"--insights-from: {error}") from error
    if strange := sum(name not in known for name in texts):
        raise click.UsageError(f"--insights-from names {strange} of {len(texts)} pictures that no SRC holds")
    return texts


def _folder(out: str) -> Path:
    if "://" in out or "::" in out:
        raise click.UsageError("DST is a URL; results are written into a local folder only, upload them afterwards")
    return Path(out)


def known_policy(policy: str, own_code: Iterable[str], max_pixels: int | None = None) -> Policy:
    """The policy of an option, which may name classes of these modules.

    max_pixels: of ``--max-pixels``, instead of the policy's own. It is part of what the policy is from then on.

    Raises: click.UsageError, which lists the presets.
    """
    from anondata.policy import load_policy, presets

    try:
        chosen = load_policy(policy, own_code=own_code)
    except PolicyError as error:
        raise click.UsageError(f"{error}\nPresets: {', '.join(presets())}") from error
    return chosen if max_pixels is None else chosen.with_max_pixels(max_pixels)


def open_galleries(policy: Policy, paths: Mapping[str, str], key: Path | None) -> dict[str, AnyGallery]:
    """The galleries of some paths; one that the policy does not name, or misses, is an error. See gallery_paths."""
    from anondata.engine.rules import check_galleries

    check_galleries(policy, paths)
    if not paths:
        return {}
    from anondata.verifiers.gallery.file import open_any

    return {name: open_any(path, key=key) for name, path in paths.items()}


def usable_device(device: str) -> str:
    """The device of an option; ``click.UsageError`` when nothing can be computed there."""
    import torch

    from anondata.anonymizer import choose_device

    try:
        chosen = choose_device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise click.UsageError(f"device {device!r} cannot be used here; take auto or cpu") from error
    return str(chosen)


def check_list_file(path: Path | None, out: Path) -> None:
    if path and path.resolve().is_relative_to(out.resolve()):
        raise click.UsageError("--list-withheld holds names of originals; it must not lie in DST")
    if path and not path.parent.is_dir():
        raise click.UsageError("the folder of --list-withheld does not exist")
