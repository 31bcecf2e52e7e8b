"""``anondata shards``: shards of samples in, shards of verified anonymized samples out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anondata.errors import ShardsError, UndeclaredFieldError
from anondata.keys import run_key
from anondata.tools import cli
from anondata.tools._early import check_device_named, check_policy_named, check_there, gallery_paths
from anondata.tools._memory import tell_need
from anondata.tools._policy_options import own_code_option
from anondata.tools._progress import prepared
from anondata.tools._progress import shards as showing
from anondata.tools._quota_options import quota_of, quota_options
from anondata.tools._shards_summary import ShardsSummary
from anondata.tools.anonymize import check_list_file, known_policy, max_pixels_option, open_galleries, usable_device

if TYPE_CHECKING:
    from anondata.loaders.shards import ShardsJob
    from anondata.randomness import RunKey

EXISTING = click.Path(dir_okay=False, exists=True, path_type=Path)


@click.command("shards")
@click.argument("sources", metavar="SRC...", nargs=-1, required=True)
@click.option("--out", metavar="DST", required=True, help="Folder or URL for the results.")
@click.option(
    "--image",
    "images",
    metavar="NAMES",
    multiple=True,
    help="Field of pictures; jpg,png: one or the other. Say it again for more.  [default: jpg,jpeg,png,webp]",
)
@click.option(
    "--regions",
    metavar="NAMES",
    multiple=True,
    help="Fields of boxes to be anonymized, too: json, json.objects (a path into it; the rest is left out), "
    "json.face_bboxes as img2dataset writes them, txt of YOLO, xml of Pascal VOC. NAME:PICTURE where there are "
    "several pictures. Boxes are written as they are.",
)
@click.option(
    "--masks",
    metavar="NAMES",
    multiple=True,
    help="Fields of masks of the same, such as seg.png. They are left out.",
)
@click.option("--keep", metavar="NAMES", multiple=True, help="Fields that are written as they are, such as cls.")
@click.option("--drop", metavar="NAMES", multiple=True, help="Fields that are left out, such as json,txt.")
@click.option(
    "--insights",
    is_flag=True,
    help="Add the field insights.txt, which tells what was in a sample, in words that identify nobody.",
)
@quota_options
@click.option("--policy", default="faces", show_default=True, help="Name of a preset, or path of a YAML file.")
@own_code_option
@click.option("--gallery", "galleries", metavar="NAME=FILE", multiple=True, help="A gallery that the policy names.")
@click.option("--gallery-key", type=EXISTING, help="File that holds the galleries' key.")
@click.option(
    "--key-file",
    type=EXISTING,
    help="Run key, at least 16 bytes; another machine needs it to go on.  [default: one made for DST, kept in your "
    "state folder, see ANONDATA_STATE]",
)
@click.option(
    "--on-withheld",
    type=click.Choice(["drop", "replace", "raise"]),
    default="drop",
    show_default=True,
    help="Instead of a sample that cannot be made safe: nothing, another one of its shard, or stop.",
)
@click.option("--group", metavar="FIELD", help="Kept field that must agree between a sample and what replaces it.")
@click.option(
    "--rename-keys", is_flag=True, help="Name samples by keyed hashes, and sort them so: names identify, too."
)
@click.option(
    "--write-as",
    type=click.Choice(["jpeg", "png", "webp"]),
    help="Write all pictures in one format, and so under one suffix: `load_dataset` refuses shards of several. "
    "[default: as they came]",
)
@click.option("--keep-going", is_flag=True, help="A shard that cannot be done does not stop the others.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N shards.")
@click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Processes.  [default: cores; 1 on CUDA]")
@max_pixels_option
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
@click.option(
    "--list-withheld",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write reason, number of the shard and key of each sample that this run withholds into this file, outside "
    "of DST. Keys are never printed.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done; read no shard, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on stdout.")
def command(sources: tuple[str, ...], out: str, **options: Any) -> None:
    """Anonymize shards of samples (WebDataset) from storage to storage.

    SRC is a tar or tar.gz, a folder or glob of them, or a URL that fsspec can read; braces give many:
    "s3://bucket/in-{0000..0099}.tar". Every field of a sample must be declared: --image, --regions, --masks, --keep
    or --drop.

    DST gets one tar of the same name for each, its index for NVIDIA DALI, index.json and report.json. A tar is there
    only when it is whole and was scanned. The same command again does only what is missing, after a crash, too.
    DST/.anondata keeps track of that; it need not be published. Originals are never written to a disk.

    Exit code 0: all released, 3: some withheld, 2: usage, 1: failure, 130: interrupted.
    """
    local = "://" not in out or out.startswith(("file://", "local://"))
    place: Path | str = Path(out.split("://", 1)[-1]) if local else out
    if isinstance(place, Path) and place.exists() and not place.is_dir():
        raise click.UsageError("DST is a file; it must be a folder")
    if isinstance(place, Path):
        check_list_file(options["list_withheld"], place)
    check_there(sources)
    check_policy_named(options["policy"])
    check_device_named(options["device"])
    paths, _ = gallery_paths(options["galleries"]), _fields(options)
    quota = quota_of(options["client"], options["ledger"], options["dataset_name"])
    policy = known_policy(options["policy"], options["own_code"], options["max_pixels"])
    policy = policy.written_as(options["write_as"]) if options["write_as"] else policy
    device = usable_device(options["device"])
    galleries = open_galleries(policy, paths, options["gallery_key"])
    key = run_key(place, options["key_file"], create=not options["dry_run"])
    job = _job(sources, place, key, options, policy=policy, device=device, galleries=galleries, quota=quota)
    tell_need(policy, job.processes(options["workers"]), processes=True)
    code = _rehearse(job, key, options) if options["dry_run"] else _execute(job, options)
    click.get_current_context().exit(code)


def _job(
    sources: tuple[str, ...], place: Path | str, key: RunKey | None, options: dict[str, Any], **how: Any
) -> ShardsJob:
    from anondata.anonymizer import Anonymizer
    from anondata.loaders.shards import plan

    try:
        return plan(
            sources,
            place,
            Anonymizer(how["policy"], device=how["device"], galleries=how["galleries"], run_key=key),
            fields=_fields(options),
            keep=_names(options["keep"]),
            drop=_names(options["drop"]),
            on_withheld=options["on_withheld"],
            group=options["group"],
            rename_keys=options["rename_keys"],
            limit=options["limit"],
            **how["quota"],
        )
    except ShardsError as error:
        raise click.UsageError(str(error)) from error


def _fields(options: dict[str, Any]) -> dict[str, str]:
    """What fields hold: ``--regions json:left.jpg`` declares ``json`` as ``regions:left.jpg``."""
    from anondata.samples import INSIGHTS, MASKS, REGIONS

    named = [(";".join(_names([names])), "image") for names in options["images"] or ("jpg,jpeg,png,webp",)]
    for kind, given in ((REGIONS, options["regions"]), (MASKS, options["masks"])):
        parts = (name.partition(":") for name in _names(given))
        placed = ((*_path(name.strip()), colon + whose.strip()) for name, colon, whose in parts)
        named += [(name, kind + path + whose) for name, path, whose in placed]
    named += [("insights.txt", INSIGHTS)] if options["insights"] else []
    if len(dict(named)) < len(named):
        raise click.UsageError("a field is named twice by --image, --regions and --masks; it holds one of them")
    return dict(named)


def _path(name: str) -> tuple[str, str]:
    """A field, and where in its JSON the boxes are: ``json.objects`` is ``json`` and ``.objects``."""
    parts = name.split(".")
    end = parts.index("json") + 1 if "json" in parts else len(parts)
    return ".".join(parts[:end]), "".join(f".{part}" for part in parts[end:])


def _names(given: Iterable[str]) -> list[str]:
    return [name.strip() for names in given for name in names.replace(";", ",").split(",") if name.strip()]


def _rehearse(job: ShardsJob, key: RunKey | None, options: dict[str, Any]) -> int:
    """``--dry-run``: says what would be done, and does nothing of it."""
    from anondata.loaders._parts import Part
    from anondata.policy_words import in_words

    found = job.done() if key else {}
    done = sum(isinstance(result, Part) for result in found.values())
    policy = job.recipe.flow.anonymizer.policy
    if options["as_json"]:
        body = {"format": "anondata.dry_run/1", "policy": policy.name, "fingerprint": policy.fingerprint}
        click.echo(json.dumps({**body, "shards": len(job.shards), "skipped_done": done}))
        return cli.OK
    for line in in_words(policy):
        click.echo(line)
    click.echo(f"fields: {job.recipe.fields.words}")
    click.echo(f"{len(job.shards)} shards, of which {done} are done and would be skipped")
    return cli.OK


def _execute(job: ShardsJob, options: dict[str, Any]) -> int:
    """Runs the job and returns the exit code."""
    from rich.console import Console

    console, lost = Console(stderr=True), set[tuple[str, int, str]]()
    listed: Path | None = options["list_withheld"]
    prepared(job.recipe.flow.anonymizer, console)
    with showing(console, len(job.shards)) as show:
        result = job.run(
            workers=options["workers"],
            keep_going=options["keep_going"],
            progress=lambda p: show(p.shards_done, p.samples, p.withheld, p.failed),
            on_withheld=(lambda shard, key, reason: lost.add((reason, shard, key))) if listed else None,
        )
    if listed:  # JSON strings: a key may hold a tab, a line break, or bytes that are no text
        lines = [f"{reason}\t{shard}\t{json.dumps(key)}\n" for reason, shard, key in sorted(lost)]
        with open(os.open(listed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(lines)
    summary = ShardsSummary(result)
    summary.show(console)
    if options["as_json"]:
        click.echo(json.dumps(summary.to_json()))
    if isinstance(result.error, UndeclaredFieldError):
        raise click.UsageError(f"{result.error}. Here: --image, --keep or --drop") from result.error
    if result.error:
        raise result.error
    if summary.words:
        console.print(summary.words)
    return summary.exit_code
