"""``anondata gallery``: galleries of known people, or of places, built from photos, changed, and searched."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anondata.tools import _gallery_places, cli
from anondata.tools._early import check_device_named, check_there
from anondata.tools._gallery_options import (
    THERE,
    calibration_option,
    device_option,
    enrol_options,
    index_options,
    json_option,
    key_option,
)
from anondata.verifiers.gallery.indexing import IndexChoice, indexed
from anondata.verifiers.gallery.sources import Columns

if TYPE_CHECKING:
    from anondata.protocols import Embedder
    from anondata.verifiers.gallery import Gallery
    from anondata.verifiers.gallery.enrolment import Enrolled
    from anondata.verifiers.gallery.examination import Examined


@click.group("gallery")
def command() -> None:
    """Build galleries of known people or of places, change them, and look into them.

    A gallery holds templates of people who are protected, or who consented to being seen; or features of places that
    must not be recognized. It is biometric data, or tells what a place looks like: the file can be read by its owner
    only, and a key encrypts it.
    """


@command.command()
@click.argument("sources", metavar="SRC...", nargs=-1, required=True)
@click.option("--out", metavar="FILE", required=True, help="Local file for the gallery.")
@click.option(
    "--of",
    type=click.Choice(["people", "places"]),
    default="people",
    show_default=True,
    help="What the photos show: people, or places that must not be recognized.",
)
@click.option(
    "--role",
    type=click.Choice(["protected", "consented"]),
    default="protected",
    show_default=True,
    help="Whether its people are protected, or consented to being seen.",
)
@click.option("--overwrite", is_flag=True, help="Replace the gallery that is there.")
@enrol_options
def build(sources: tuple[str, ...], out: str, of: str, role: Any, overwrite: bool, **options: Any) -> None:
    """Build a gallery of people, or (--of places) of places, from photos.

    SRC is a folder with a folder of photos for each person; a folder with metadata.csv or metadata.jsonl (columns
    file_name and identity); a dataset that the datasets library saved; parquet files; WebDataset shards
    ("s-{000..003}.tar"), whose identity is in .cls, .txt or an entry of .json; or a matrix of templates (.npy, .npz,
    .safetensors). Wildcards are understood, and several SRC of one kind.

    A photo is refused when it has no face or several, when the face is too small or cannot be aligned, or when it
    cannot be read: told by count, never by name. The same command goes on where a killed one stopped.

    Of places SRC is the same, with a folder or an identity for each place; a photo is refused when it shows too
    little for another view of it to be found. No picture is kept, and options for people are refused.

    Exit code 0: all taken, 3: some refused, 1: nobody enrolled, or an index that finds too little: nothing is saved.
    """
    check_there(sources)
    check_device_named(options["device"])
    file = _new_file(out, overwrite=overwrite)

    from anondata.verifiers.gallery import empty_gallery
    from anondata.verifiers.gallery.enrolment import collect
    from anondata.verifiers.gallery.file import save_gallery

    if of == "places":
        _gallery_places.build(sources, file, options | {"overwrite": overwrite})
    embedder = _embedder(options["embedder"])
    index = _index(embedder.name, options)
    key = options["key_file"]
    _check_portraits(key, options)

    def store(results: Sequence[Examined]) -> Enrolled:
        start = empty_gallery(embedder, role=role)
        done = collect(results, into=start, calibration=index.calibration, device=options["device"])
        done = replace(done, gallery=_ready(done.gallery, index, embedder, options))
        save_gallery(done.gallery, file, key=key, overwrite=overwrite)
        return done

    _enroll(sources, file, embedder, frozenset(), store, options)


@command.command()
@click.argument("file", metavar="FILE", type=THERE)
@click.argument("sources", metavar="SRC...", nargs=-1, required=True)
@click.option("--extend", is_flag=True, help="Allow people that are in the gallery already: they get more templates.")
@enrol_options
def add(file: Path, sources: tuple[str, ...], extend: bool, **options: Any) -> None:
    """Add people or places, or with --extend more photos of those it has, to the gallery FILE.

    SRC, refusals and exit codes are those of `anondata gallery build`.
    """
    check_there(sources)
    check_device_named(options["device"])

    from anondata.verifiers.gallery.enrolment import collect
    from anondata.verifiers.gallery.file import change_gallery, open_any
    from anondata.verifiers.gallery.places import PlaceGallery

    key = options["key_file"]
    opened = open_any(file, key=key)
    if isinstance(opened, PlaceGallery):
        _gallery_places.add(sources, file, opened, options | {"extend": extend})
    embedder = _embedder(options["embedder"], opened)
    opened.check_embedder(embedder.name, embedder.fingerprint)
    index = _index(embedder.name, options)
    _check_portraits(key, options)

    def store(results: Sequence[Examined]) -> Enrolled:
        found: list[Enrolled] = []

        def change(gallery: Gallery) -> Gallery:
            gallery.check_embedder(embedder.name, embedder.fingerprint)
            done = collect(
                results, into=gallery, extend=extend, calibration=index.calibration, device=options["device"]
            )
            found.append(replace(done, gallery=_ready(done.gallery, index, embedder, options)))
            return found[0].gallery

        change_gallery(file, change, key=key)
        return found[0]

    known = frozenset() if extend else frozenset(opened.identities)
    _enroll(sources, file, embedder, known, store, options)


@command.command()
@click.argument("file", metavar="FILE", type=THERE)
@click.argument("identities", metavar="[IDENTITY]...", nargs=-1)
@click.option("--from-file", type=THERE, help="File with an identity on each line.")
@index_options
@calibration_option
@key_option
@json_option
def remove(file: Path, identities: tuple[str, ...], from_file: Path | None, as_json: bool, **options: Any) -> None:
    """Remove people or places, with all that is kept of them, from the gallery FILE.

    One that is not in it is an error, and nobody is removed. Backups and other copies of the file are not reached.
    """
    from anondata.verifiers.gallery.file import open_any
    from anondata.verifiers.gallery.places import PlaceGallery

    names = list(dict.fromkeys([*identities, *(_lines(from_file) if from_file else ())]))
    if not names:
        raise click.UsageError("say whom to remove: IDENTITY..., or --from-file FILE")
    if isinstance(open_any(file, key=options["key_file"]), PlaceGallery):
        _gallery_places.remove(file, names, options | {"as_json": as_json})
    _change(file, lambda gallery: gallery.remove(names), as_json, options)


@command.command()
@click.argument("file", metavar="FILE", type=THERE)
@click.argument("others", metavar="OTHER...", nargs=-1, required=True)
@click.option("--extend", is_flag=True, help="Allow people that are in several of them: they get all templates.")
@click.option("--other-key-file", type=THERE, help="Key of the encrypted ones among OTHER.  [default: FILE's]")
@index_options
@calibration_option
@key_option
@json_option
def merge(
    file: Path, others: tuple[str, ...], extend: bool, other_key_file: Path | None, as_json: bool, **options: Any
) -> None:
    """Put the people of other galleries into the gallery FILE; the others stay as they are."""
    from anondata.verifiers.gallery.file import open_gallery
    from anondata.verifiers.gallery.sealed import inspect

    def no_key() -> Any:
        return None  # None itself would stand for the environment's

    key = other_key_file or options["key_file"]
    opened = [open_gallery(other, key=key if inspect(other).encrypted else no_key) for other in others]
    if any(any(other.portraits) for other in opened) and not inspect(file).encrypted:
        raise click.UsageError("OTHER keeps portraits and FILE is not encrypted; merge into an encrypted gallery")

    def change(gallery: Gallery) -> Gallery:
        for other in opened:
            gallery = gallery.merge(other, extend=extend)
        return gallery

    _change(file, change, as_json, options)


@command.command()
@click.argument("file", metavar="FILE")
@click.option("--identities", "with_identities", is_flag=True, help="List the people or places, too: prints names.")
@key_option
@json_option
def info(file: str, with_identities: bool, key_file: Path | None, as_json: bool) -> None:
    """Show what is in the gallery FILE, a path or a URL: counts, embedder, index and fingerprint; no names."""
    from anondata.verifiers.gallery.file import open_any
    from anondata.verifiers.gallery.places import PlaceGallery

    gallery = open_any(file, key=key_file)
    if isinstance(gallery, PlaceGallery):
        _gallery_places.info(gallery, file, as_json=as_json, with_names=with_identities)
    _show(gallery, file, as_json=as_json, with_identities=with_identities)


@command.command()
@click.argument("file", metavar="FILE")
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many people for a face.")
@click.option("--far", default=0.01, show_default=True, help="The threshold's false-accept rate.")
@click.option("--embedder", metavar="NAME", help="The gallery's embedder, if it is your own.")
@calibration_option
@key_option
@device_option
@json_option
def search(file: str, photos: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Say who is in a photo, or where it was taken: PRINTS IDENTITIES, for the operator's own eyes.

    For each face of each photo, both by number (faces from the largest): the nearest people of the gallery FILE, how
    far they are, and whether that is within the threshold. In a gallery of places, for each photo the places that
    it agrees with most, and how far: above 1 it is found. Exit code 3 when a photo cannot be read.
    """
    from anondata.verifiers.gallery.file import open_any
    from anondata.verifiers.gallery.places import PlaceGallery
    from anondata.verifiers.gallery.search import search_photos

    gallery = open_any(file, key=options["key_file"])
    if isinstance(gallery, PlaceGallery):
        _gallery_places.search(gallery, photos, top=options["top"], device=_device_of(options), as_json=as_json)
    embedder = _embedder(options["embedder"], gallery)
    gallery.check_embedder(embedder.name, embedder.fingerprint)
    radius = IndexChoice(far=options["far"], calibration=_own(options)).threshold(embedder.name).distance
    found = search_photos(gallery, embedder, photos, top=options["top"], device=_device_of(options))
    code = cli.OK if all(photo.error is None for photo in found) else cli.SOME_WITHHELD
    if as_json:
        body = {"format": "anondata.search/1", "threshold": radius, "photos": [p.to_json(radius) for p in found]}
        click.echo(json.dumps(body))
    else:
        for photo in found:
            for line in photo.lines(radius):
                click.echo(line)
    click.get_current_context().exit(code)


def _enroll(
    sources: tuple[str, ...],
    file: Path,
    embedder: Embedder,
    known: frozenset[str],
    store: Callable[[Sequence[Examined]], Enrolled],
    options: dict[str, Any],
) -> None:
    from anondata.tools._enrol import Enrolment, execute
    from anondata.verifiers.gallery.examination import SMALLEST_PX, Examiner
    from anondata.verifiers.gallery.file import find_secret

    find_secret(options["key_file"])  # a key that cannot be used is told before the work
    _check_list_file(options["list_refused"], file)
    options["device"] = _device_of(options)
    examiner = Examiner(
        embedder,
        smallest_px=SMALLEST_PX if options["smallest_px"] is None else options["smallest_px"],
        several=options["several"],
        keep_portraits=options["keep_portraits"],
        device=options["device"],
    )
    job = Enrolment(
        sources=sources,
        columns=Columns(options["identity"], options["image_column"], options["person"]),
        identities=options["identities"],
        examiner=examiner,
        embedder_named=options["embedder"] is not None,
        file=file,
        key=options["key_file"],
        known=known,
        store=store,
        list_refused=options["list_refused"],
        as_json=options["as_json"],
    )
    click.get_current_context().exit(execute(job))


def _change(file: Path, change: Callable[[Gallery], Gallery], as_json: bool, options: dict[str, Any]) -> None:
    from anondata.verifiers.gallery.file import change_gallery

    def changed(gallery: Gallery) -> Gallery:
        return indexed(change(gallery), _index(gallery.embedder, options))

    _show(change_gallery(file, changed, key=options["key_file"]), str(file), as_json=as_json)


def _show(gallery: Gallery, file: str, *, as_json: bool, with_identities: bool = False) -> None:
    """Plain lines on stdout, which other programs can cut; or JSON."""
    import numpy as np

    from anondata.tools._enrol_summary import gallery_rows
    from anondata.verifiers.gallery.sealed import inspect

    told = gallery.info() | {"encrypted": inspect(file).encrypted}
    counts = np.bincount(gallery.owners, minlength=len(gallery.identities)).tolist()
    people = [
        {"identity": identity, "label": label, "templates": count}
        for identity, label, count in zip(gallery.identities, gallery.labels, counts, strict=True)
    ]
    if as_json:
        click.echo(
            json.dumps(
                {"format": "anondata.gallery_info/1", **told} | ({"people": people} if with_identities else {})
            )
        )
        return
    for words, value in [*gallery_rows(told), ("encrypted", "yes" if told["encrypted"] else "no")]:
        click.echo(f"{words:16}{value}")
    for person in people if with_identities else ():
        click.echo(f"{person['templates']:6}  {person['identity']}  {person['label']}".rstrip())


def _new_file(out: str, *, overwrite: bool) -> Path:
    from anondata.verifiers.gallery.sealed import local_path

    file = local_path(out)
    if file.exists() and not overwrite:
        raise click.UsageError("FILE is there already; --overwrite replaces it, `anondata gallery add` adds to it")
    if not file.parent.is_dir():
        raise click.UsageError("the folder of FILE does not exist")
    return file


def _embedder(name: str | None, gallery: Gallery | None = None) -> Embedder:
    """The embedder of a name, or else of a gallery."""
    from anondata.verifiers.embedders import embedder_of, embedder_of_file

    return embedder_of_file(gallery.embedder) if gallery and not name else embedder_of(name or "dlib-face-resnet")


def _own(options: dict[str, Any]) -> Any:
    from anondata.verifiers.calibration import load

    return load(options["calibration"]) if options["calibration"] else None


def _index(embedder: str, options: dict[str, Any]) -> IndexChoice:
    choice = IndexChoice(options["kind"], options["recall"], options["far"], _own(options))
    choice.check(embedder)
    return choice


def _ready(gallery: Gallery, index: IndexChoice, embedder: Embedder, options: dict[str, Any]) -> Gallery:
    """The gallery as it is to be saved: with its index, and with parrots of a policy's techniques where asked for."""
    from anondata.tools.anonymize import known_policy
    from anondata.verifiers.gates.parrot_match import techniques_of, with_parrots

    done = indexed(gallery, index)
    if options["parrots_of"] is None:
        return done
    techniques = techniques_of(known_policy(options["parrots_of"], options["own_code"]))
    return with_parrots(done, techniques, embedder, device=options["device"])


def _device_of(options: dict[str, Any]) -> str:
    from anondata.tools.anonymize import usable_device

    return usable_device(options["device"])


def _check_portraits(key: Path | None, options: dict[str, Any]) -> None:
    from anondata.verifiers.gallery.file import find_secret

    if options["parrots_of"] is not None and not options["keep_portraits"]:
        raise click.UsageError("--parrots-of needs --keep-portraits: it is those that are put through the techniques")
    if options["keep_portraits"] and find_secret(key) is None:
        raise click.UsageError("--keep-portraits keeps pictures of people: it needs a key, see --key-file")


def _check_list_file(path: Path | None, file: Path) -> None:
    if path and path.resolve() == file.resolve():
        raise click.UsageError("--list-refused is the gallery's file; choose another")
    if path and not path.parent.is_dir():
        raise click.UsageError("the folder of --list-refused does not exist")


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--from-file cannot be read: {type(error).__name__}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
