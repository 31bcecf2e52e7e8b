"""An enrolment: what ``anondata gallery build`` and ``add`` were asked for, and how it is carried out."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

import anondata
from anondata.errors import GalleryError
from anondata.tools._enrol_summary import summarize
from anondata.tools._progress import now_and_then
from anondata.verifiers.gallery.resume import EnrolParts
from anondata.verifiers.gallery.sources import Columns, Placed, Stream, kind_of, open_stream

if TYPE_CHECKING:
    from rich.console import Console

    from anondata.verifiers.gallery.enrolment import Enrolled
    from anondata.verifiers.gallery.examination import Examined, Examiner
    from anondata.verifiers.gallery.photos import Photo


@dataclass(frozen=True)
class Enrolment:
    """What the command line asks for, checked as far as that goes without reading a picture.

    file: the gallery's file. known: people that may not come again. store: writes the gallery and says what came out.
    """

    sources: tuple[str, ...]
    columns: Columns
    identities: Path | None
    examiner: Examiner
    embedder_named: bool
    file: Path
    key: Path | None
    known: frozenset[str]
    store: Callable[[Sequence[Examined]], Enrolled]
    list_refused: Path | None
    as_json: bool


def execute(job: Enrolment) -> int:
    """Enrolls, stores, tells, and returns the exit code."""
    from rich.console import Console

    console, start, places = Console(stderr=True), time.monotonic(), list[str]()
    if kind_of(job.sources) == "matrix":
        results, resumed = _of_matrix(job), 0
        enrolled = _stored(job, results)
    else:
        stream = open_stream(job.sources, job.columns, out=job.file)
        with EnrolParts(job.file, task=_task(job, stream), key=job.key) as parts:
            with progress(console, stream.total) as show:
                results = list(_examined(job, stream, parts, places, show))
            enrolled, resumed = _stored(job, results), parts.resumed
            if enrolled.taken:
                parts.discard()
    _write_list(job, enrolled, places)
    summary = summarize(enrolled, job.file, resumed=resumed, seconds=time.monotonic() - start)
    summary.show(console)
    if enrolled.refusals and not job.list_refused:
        console.print("which ones: the same command with --list-refused FILE")
    if job.as_json:
        click.echo(json.dumps(summary.to_json()))
    if not enrolled.taken:
        raise GalleryError(summary.error)
    return summary.exit_code


def _of_matrix(job: Enrolment) -> list[Examined]:
    from anondata.verifiers.gallery.examination import Examined
    from anondata.verifiers.gallery.matrix import read_matrix

    if len(job.sources) > 1:
        raise click.UsageError("a matrix must be the only SRC; add others afterwards, with `anondata gallery add`")
    if not job.embedder_named:
        raise click.UsageError(
            "say which network made the templates (--embedder NAME): those of different networks do not compare"
        )
    names, templates = read_matrix(Path(job.sources[0]), identities=job.identities, column=job.columns.identity)
    _check_dimensions(job.examiner, templates.shape[1])
    rows = zip(names, templates, strict=True)
    return [Examined(number, name, template=row) for number, (name, row) in enumerate(rows, 1)]


def _check_dimensions(examiner: Examiner, found: int) -> None:
    from anondata.regions import empty_regions

    expected = examiner.embedder.embed([], empty_regions()).shape[1]
    if found != expected:
        raise GalleryError(
            f"the matrix has {found} dimensions, templates of {examiner.embedder.name!r} have {expected}"
        )


def _examined(
    job: Enrolment, stream: Stream, parts: EnrolParts, places: list[str], show: Callable[[int, int], None]
) -> Iterator[Examined]:
    from anondata.verifiers.gallery.enrolment import counted, only_new

    photos = only_new(_photos(stream.open(), places if job.list_refused else None), job.known)
    return counted(parts.examine(photos, job.examiner), show)


def _photos(placed: Iterator[Placed], places: list[str] | None) -> Iterator[Photo]:
    for place, photo in placed:
        if places is not None:
            places.append(place)
        yield photo


def _task(job: Enrolment, stream: Stream) -> str:
    """Stands for all that a template depends on; keyed, so that it tells nothing of the file names."""
    from anondata.verifiers.gallery.file import find_secret

    made, columns = job.examiner, job.columns
    told = [
        anondata.__version__,
        stream.version,
        made.embedder.fingerprint,
        made.smallest_px,
        made.several,
        made.keep_portraits,
    ]
    text = repr([*told, columns.identity, columns.image, columns.person])
    return hmac.new(find_secret(job.key) or b"none", text.encode(), hashlib.sha256).hexdigest()


def _stored(job: Enrolment, results: Sequence[Examined]) -> Enrolled:
    """What came out, stored unless nobody was taken."""
    from anondata.verifiers.gallery import empty_gallery
    from anondata.verifiers.gallery.enrolment import collect

    if any(not result.reason for result in results):
        return job.store(results)
    return collect(results, into=empty_gallery(job.examiner.embedder))


def _write_list(job: Enrolment, done: Enrolled, places: Sequence[str]) -> None:
    """Reasons and places of what was refused or is doubtful, in a file that only its owner can read."""
    if not job.list_refused:
        return
    lines = [(r.number, r.reason, "") for r in done.refusals] + [(number, "astray", "") for number in done.astray]
    for pair in done.look_alikes:
        other = done.gallery.identities[done.gallery.owners[pair.row]]
        lines.append((pair.number, "look_alike", other if pair.other is None else _place(places, pair.other)))
    with open(os.open(job.list_refused, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        for number, reason, other in sorted(lines):
            # JSON strings: a name may hold a tab, a line break, or bytes that are no text.
            told = [reason, json.dumps(_place(places, number)), *([json.dumps(other)] if other else [])]
            file.write("\t".join(told) + "\n")


def _place(places: Sequence[str], number: int) -> str:
    return places[number - 1] if places else f"row {number - 1}"


@contextmanager
def progress(console: Console, total: int | None) -> Iterator[Callable[[int, int], None]]:
    """Shows how far an enrolment is: in place on a terminal, a line every so often elsewhere."""

    def words(done: int, refused: int) -> str:
        return f"{done}{f' of {total}' if total else ''} photos, {refused} refused"

    if not console.is_terminal:
        say = now_and_then(console)
        yield lambda done, refused: say(words(done, refused))
        return
    with console.status("enrolling") as status:
        yield lambda done, refused: status.update(f"enrolling: {words(done, refused)}")
