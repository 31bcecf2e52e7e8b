"""``anondata preview``: a page of before and after, for the eyes of whoever holds the originals."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anondata.errors import UndecodableError
from anondata.loaders.files.output import enclosing_output, write_whole
from anondata.loaders.files.regions import FIELD, Boxes, read_regions
from anondata.sources import Source, list_sources
from anondata.tools import cli
from anondata.tools._early import check_device_named, check_policy_named, gallery_paths
from anondata.tools._page import MARK, Face, Pair, page
from anondata.tools._policy_options import own_code_option
from anondata.tools._progress import prepared

if TYPE_CHECKING:
    from anondata.anonymizer import Anonymizer
    from anondata.records import Outcome, RegionRecord

THUMBNAIL_PX = 640


@click.command("preview")
@click.argument("sources", metavar="SRC...", nargs=-1, required=True)
@click.option("--out", metavar="PAGE.html", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--limit", type=click.IntRange(1, 500), default=24, show_default=True, help="At most N pictures.")
@click.option("--policy", default="faces", show_default=True, help="Name of a preset, or path of a YAML file.")
@own_code_option
@click.option("--gallery", "galleries", metavar="NAME=FILE", multiple=True, help="A gallery that the policy names.")
@click.option(
    "--gallery-key", type=click.Path(dir_okay=False, exists=True, path_type=Path), help="File of the galleries' key."
)
@click.option(
    "--regions",
    "regions_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Boxes by names of pictures, as for `anondata anonymize`.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 …")
def command(
    sources: tuple[str, ...],
    out: Path,
    limit: int,
    policy: str,
    own_code: tuple[str, ...],
    galleries: tuple[str, ...],
    gallery_key: Path | None,
    regions_file: Path | None,
    device: str,
) -> None:
    """Write one HTML page of before/after pairs with each face's technique and scores.

    The page HOLDS ORIGINALS: it is for you alone, readable by you only, and is never written into a folder that
    `anondata anonymize` wrote. SRC is what `anondata anonymize` takes. Exit code 3 when a picture was withheld.
    """
    _check(out)
    check_policy_named(policy)
    check_device_named(device)
    paths = gallery_paths(galleries)
    listed = list_sources(sources, out=out.parent / f".{out.name}.no-folder").sources

    from rich.console import Console

    from anondata.anonymizer import Anonymizer
    from anondata.tools.anonymize import known_policy, open_galleries, usable_device

    chosen, where = known_policy(policy, own_code), usable_device(device)
    regions = read_regions(regions_file, [s.name for s in listed], chosen) if regions_file else None
    anonymizer = Anonymizer(chosen, device=where, galleries=open_galleries(chosen, paths, gallery_key))
    prepared(anonymizer, Console(stderr=True))
    pairs = [_pair(anonymizer, s, regions[s.name] if regions is not None else None) for s in listed[:limit]]
    write_whole(out, page(chosen, pairs).encode(), what="the page", mode=0o600)  # it holds originals
    withheld = sum(pair.after is None for pair in pairs)
    click.echo(f"{len(pairs)} pictures, {withheld} withheld: {out}")
    click.echo("The page holds originals; do not publish it.", err=True)
    click.get_current_context().exit(cli.SOME_WITHHELD if withheld else cli.OK)


def _check(out: Path) -> None:
    if enclosing_output(out.parent):
        raise click.UsageError(
            "the page would hold originals, and lie in a folder of anonymized files; write it elsewhere"
        )
    if not out.parent.is_dir():
        raise click.UsageError("the folder of --out does not exist")
    if out.exists() and MARK.encode() not in out.read_bytes()[:400]:
        raise click.UsageError("--out is there already and is not a preview; it is not overwritten")


def _pair(anonymizer: Anonymizer, source: Source, boxes: Boxes | None) -> Pair:
    try:
        data = source.read()
    except Exception:  # noqa: BLE001 - storages raise what they like
        return Pair(None, None, "unreadable", ())
    [outcome] = anonymizer.anonymize([data]) if boxes is None else _with_boxes(anonymizer, data, boxes)
    image = getattr(outcome, "image", None)
    after = thumbnail(image) if isinstance(image, bytes) else None
    return Pair(thumbnail(data), after, getattr(outcome, "reason", ""), _faces(outcome))


def _with_boxes(anonymizer: Anonymizer, data: bytes, boxes: Boxes) -> list[Outcome]:
    from anondata.anonymizer import content_key
    from anondata.samples import REGIONS, Sample, Schema

    sample = Sample(content_key(data), {"image": data, FIELD: boxes.value()})
    return anonymizer.run([sample], Schema({"image": "image", FIELD: REGIONS}))


def _faces(outcome: Outcome) -> tuple[Face, ...]:
    return tuple(face for region in outcome.record.regions for face in _rows(region))


def _rows(region: RegionRecord) -> list[Face]:
    """A row for each verifier, and one for a region that none had to look at."""
    words = (
        region.kind,
        region.size_px,
        region.found_by,
        "unchanged, marked as no face" if region.denied else "unchanged" if region.spared else region.technique,
        "tiny" if region.tiny else "" if region.spared else str(region.rung),
    )
    if not region.verdicts:
        return [Face(*words, verifier="", distance=None, threshold=None, passed=None)]
    told = [v for verdict in region.verdicts for v in dict.fromkeys((verdict, *verdict.leaves()))]
    return [Face(*words, v.verifier, v.score_after, v.threshold, v.passed) for v in told]


def thumbnail(data: bytes) -> str | None:
    """A picture of at most 640 px as a data URL, without metadata; None for what cannot be decoded."""
    from anondata.content import codec

    try:
        image = codec.to_pil(codec.decode(data)).convert("RGB")
    except UndecodableError:
        return None
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
