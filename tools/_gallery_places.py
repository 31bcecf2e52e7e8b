"""What the commands of ``anondata gallery`` do where the gallery is one of places."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from anondata.errors import GalleryError
from anondata.tools import cli
from anondata.tools._enrol import progress
from anondata.verifiers.gallery.sources import Columns, Placed, kind_of, open_stream

if TYPE_CHECKING:
    from rich.console import Console

    from anondata.verifiers.gallery.photos import Photo
    from anondata.verifiers.gallery.place_enrolment import ExaminedPlace
    from anondata.verifiers.gallery.place_search import PlaceSearch
    from anondata.verifiers.gallery.places import PlaceGallery
    from anondata.verifiers.local_features import Features

# Options of the commands that mean something for galleries of people alone.
OF_PEOPLE = frozenset(
    {
        *("role", "embedder", "identities", "several", "smallest_px", "keep_portraits", "parrots_of"),
        *("kind", "recall", "far", "calibration"),
    }
)
FAR = 0.01  # of the limits that `search` tells by: the gate's own by default
NOT_ENCRYPTED = (
    "[yellow]not encrypted[/]: the file tells what the places look like. A key (--key-file, or ANONDATA_GALLERY_KEY) "
    "encrypts it"
)


def refuse_options_of_people() -> None:
    """Raises ``click.UsageError`` where an option was given that a gallery of places cannot follow."""
    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and isinstance(option, click.Option) and option.name in OF_PEOPLE:
            raise click.UsageError(f"{option.opts[0]} is for galleries of people; this one is of places")


@dataclass(frozen=True)
class PlaceSummary:
    """The result of ``anondata gallery build --of places`` and of ``add``; it names no place.

    photos: of the sources; equals taken + all refused. refused: by reason. places_left_out: named in the sources and
        not in the gallery, because none of their photos was taken.
    """

    photos: int
    taken: int
    refused: Mapping[str, int]
    places_left_out: int
    gallery: Mapping[str, Any] | None
    encrypted: bool
    seconds: float
    exit_code: int

    def to_json(self) -> dict[str, Any]:
        """The contract of ``--json``: every attribute under its name."""
        return {"format": "anondata.place_enrolment/1", **asdict(self)}

    def show(self, console: Console) -> None:
        from rich.table import Table

        table = Table(title="enrolment", show_header=False, title_justify="left", min_width=44)
        table.add_column()
        table.add_column(justify="right")
        rows = [("photos", str(self.photos)), ("taken", f"[green]{self.taken}[/]")]
        rows += [(f"refused: {why}", f"[yellow]{n}[/]") for why, n in self.refused.items()]
        rows += [("places left out", f"[yellow]{self.places_left_out}[/]")] if self.places_left_out else []
        for words, value in rows + (place_rows(self.gallery) if self.gallery else []):
            table.add_row(words, value)
        console.print(table)
        if self.gallery and not self.encrypted:
            console.print(NOT_ENCRYPTED, highlight=False)


def build(sources: Sequence[str], file: Path, options: Mapping[str, Any]) -> NoReturn:
    """``anondata gallery build --of places``."""
    from anondata.verifiers.gallery.file import save_gallery
    from anondata.verifiers.gallery.places import empty_places

    def store(names: Sequence[str], photos: Sequence[Features]) -> PlaceGallery:
        gallery = empty_places().add(names, photos)
        save_gallery(gallery, file, key=options["key_file"], overwrite=options["overwrite"])
        return gallery

    _end(_enrolled(sources, file, store, frozenset(), options))


def add(sources: Sequence[str], file: Path, opened: PlaceGallery, options: Mapping[str, Any]) -> NoReturn:
    """``anondata gallery add``."""
    from anondata.verifiers.gallery.file import change_places

    def store(names: Sequence[str], photos: Sequence[Features]) -> PlaceGallery:
        def change(gallery: PlaceGallery) -> PlaceGallery:
            gallery.check_maker()
            return gallery.add(names, photos, extend=options["extend"])

        return change_places(file, change, key=options["key_file"])

    opened.check_maker()
    known = frozenset() if options["extend"] else frozenset(opened.names)
    _end(_enrolled(sources, file, store, known, options))


def remove(file: Path, names: Sequence[str], options: Mapping[str, Any]) -> NoReturn:
    """``anondata gallery remove``."""
    from anondata.verifiers.gallery.file import change_places

    refuse_options_of_people()
    changed = change_places(file, lambda gallery: gallery.remove(names), key=options["key_file"])
    info(changed, str(file), as_json=options["as_json"])


def info(gallery: PlaceGallery, file: str, *, as_json: bool, with_names: bool = False) -> NoReturn:
    """``anondata gallery info``: plain lines on stdout, or JSON."""
    import numpy as np

    from anondata.verifiers.gallery.sealed import inspect

    told = gallery.info() | {"encrypted": inspect(file).encrypted}
    photos = np.bincount(gallery.owners, minlength=len(gallery.names)).tolist()
    names = [{"place": name, "photos": n} for name, n in zip(gallery.names, photos, strict=True)]
    if as_json:
        body = {"format": "anondata.gallery_info/1", **told} | ({"names": names} if with_names else {})
        click.echo(json.dumps(body))
        _end(cli.OK)
    for words, value in [*place_rows(told), ("encrypted", "yes" if told["encrypted"] else "no")]:
        click.echo(f"{words:16}{value}")
    for row in names if with_names else ():
        click.echo(f"{row['photos']:6}  {row['place']}")
    _end(cli.OK)


def search(gallery: PlaceGallery, photos: Sequence[str], *, top: int, device: str, as_json: bool) -> NoReturn:
    """``anondata gallery search``: which places photos show, PRINTING NAMES."""
    from anondata.verifiers.gallery.place_search import PlaceSearch
    from anondata.verifiers.gates.place_match import limits_of

    refuse_options_of_people()
    gallery.check_maker()
    if not len(gallery):
        raise GalleryError("the gallery is empty: no place to search for; `anondata gallery add` enrolls some")
    engine = PlaceSearch(gallery, limits_of(FAR, photos=len(gallery)))
    found = [_found(gallery, engine, number, path, top, device) for number, path in enumerate(photos, 1)]
    if as_json:
        click.echo(json.dumps({"format": "anondata.place_search/1", "threshold": 1.0, "photos": found}))
    else:
        for line in _lines(found):
            click.echo(line)
    _end(cli.OK if all(photo["error"] is None for photo in found) else cli.SOME_WITHHELD)


def _end(code: int) -> NoReturn:
    click.get_current_context().exit(code)


def _enrolled(
    sources: Sequence[str],
    file: Path,
    store: Callable[[Sequence[str], Sequence[Features]], PlaceGallery],
    known: frozenset[str],
    options: Mapping[str, Any],
) -> int:
    """Examines photos, stores what they show, tells it, and returns the exit code.

    store: takes names and features and writes the gallery. known: places that may not come again.
    """
    from rich.console import Console

    from anondata.tools.anonymize import usable_device
    from anondata.verifiers.gallery.enrolment import counted, only_new
    from anondata.verifiers.gallery.file import find_secret
    from anondata.verifiers.gallery.place_enrolment import examine_places

    refuse_options_of_people()
    find_secret(options["key_file"])  # a key that cannot be used is told before the work
    if kind_of(sources) == "matrix":
        raise click.UsageError("a matrix holds templates of people; a gallery of places is built from photos")
    if options["list_refused"] and options["list_refused"].resolve() == file.resolve():
        raise click.UsageError("--list-refused is the gallery's file; choose another")
    columns, device = (
        Columns(options["identity"], options["image_column"], options["person"]),
        usable_device(options["device"]),
    )
    console, start, where = Console(stderr=True), time.monotonic(), list[str]()
    stream = open_stream(sources, columns, out=file)
    with progress(console, stream.total) as show:
        photos = only_new(_photos(stream.open(), where), known, of="place")
        results = list(counted(examine_places(photos, device=device), show))
    _write_list(options["list_refused"], results, where)
    taken = [(result.name, result.features) for result in results if result.features is not None]
    gallery = store([name for name, _ in taken], [found for _, found in taken]) if taken else None
    summary = _summary(results, gallery, file, time.monotonic() - start)
    summary.show(console)
    if summary.refused and not options["list_refused"]:
        console.print("which ones: the same command with --list-refused FILE")
    if options["as_json"]:
        click.echo(json.dumps(summary.to_json()))
    if gallery is None:
        why = ", ".join(f"{reason} {count}" for reason, count in summary.refused.items())
        raise GalleryError(f"no place was enrolled, nothing was written: {summary.photos} photos refused ({why})")
    return summary.exit_code


def place_rows(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The table's rows about a gallery of places."""
    fewest, most = info["photos_per_place"]
    return [
        ("of", info["of"]),
        ("places", str(info["places"])),
        ("photos", f"{info['photos']} ({fewest} to {most} each)"),
        ("features", "{} to {} a photo".format(*info["features_per_photo"])),
        ("network", info["network"]),
        ("fingerprint", info["fingerprint"]),
    ]


def _photos(placed: Iterator[Placed], where: list[str]) -> Iterator[Photo]:
    for place, photo in placed:
        where.append(place)
        yield photo


def _write_list(path: Path | None, results: Sequence[ExaminedPlace], where: Sequence[str]) -> None:
    """Reasons and places of what was refused, in a file that only its owner can read."""
    if path is None:
        return
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        for result in results:
            if result.reason:
                file.write(f"{result.reason}\t{json.dumps(where[result.number - 1])}\n")


def _summary(
    results: Sequence[ExaminedPlace], gallery: PlaceGallery | None, file: Path, seconds: float
) -> PlaceSummary:
    from anondata.verifiers.gallery.sealed import inspect

    refused = Counter(result.reason for result in results if result.reason)
    held = set(gallery.names) if gallery else set()
    return PlaceSummary(
        photos=len(results),
        taken=len(results) - refused.total(),
        refused=dict(sorted(refused.items())),
        places_left_out=len({result.name for result in results if result.name.strip()} - held),
        gallery=gallery.info() if gallery else None,
        encrypted=gallery is not None and inspect(file).encrypted,
        seconds=round(seconds, 3),
        exit_code=cli.FAILURE if gallery is None else cli.SOME_WITHHELD if refused else cli.OK,
    )


def _found(
    gallery: PlaceGallery, search: PlaceSearch, number: int, path: str, top: int, device: str
) -> dict[str, Any]:
    """The best places of one photo, by its number; each by the photo of it that agrees most."""
    from torch import Tensor, no_grad

    from anondata.verifiers.gallery.examination import REASONS, view_of
    from anondata.verifiers.gallery.photos import Photo

    view = view_of(Photo("probe", Path(path).read_bytes), device)
    if not isinstance(view, Tensor):
        return {"photo": number, "error": REASONS[view], "near": []}
    best: dict[str, float] = {}
    with no_grad():
        for photo, score in search.scores(view):
            name = gallery.names[gallery.owners[photo]]
            best[name] = max(score, best.get(name, 0.0))
    near = sorted(best.items(), key=lambda found: -found[1])[:top]
    rows = [{"place": name, "score": round(score, 3), "found": score > 1} for name, score in near]
    return {"photo": number, "error": None, "near": rows}


def _lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for photo in found:
        yield f"photo {photo['photo']}: {photo['error'] or 'scores; above 1 is a match'}"
        for near in photo["near"]:
            yield f"  {near['score']:7.2f}  {'match' if near['found'] else '-':5}  {near['place']}"
