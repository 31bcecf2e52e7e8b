"""Folders of labelled faces: who is in which photo, and the one face of each photo as a template.

::

    FACES/metadata.csv          an imagefolder as Hugging Face datasets reads it: a column `file_name`, a column that
    FACES/metadata.jsonl        says who it is, and any others
    FACES/somebody/photo.jpg    or a folder for each person

Messages name no file and nobody: a row of metadata is named by its number, the first after the header being 1.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from anondata.errors import ArgumentError, UndecodableError, UnreadableSourceError
from anondata.sources import Source, is_image

if TYPE_CHECKING:
    from torch import Tensor

    from anondata.protocols import Detector, Embedder
    from anondata.regions import Regions

METADATA = ("metadata.csv", "metadata.jsonl")
BATCH = 8  # photos that are held decoded at a time: 300 MiB at 12 megapixels
BYSTANDER = 0.5  # of the largest face's width: who is smaller stands in the background, and the label means another

Row = Mapping[str, Any]
Show = Callable[[int], None]
"""Takes how many photos are done."""


@dataclass(frozen=True, slots=True)
class LabelledPhoto:
    """A photo of one person. row: all that the metadata says of it; empty where there is none."""

    path: Path = field(repr=False)
    identity: str = field(repr=False)
    row: Row = field(repr=False)


@dataclass(frozen=True)
class Folder:
    """Labelled photos in the order of their paths, and how many photos have no label."""

    photos: tuple[LabelledPhoto, ...]
    unlabelled: int


@dataclass(frozen=True, eq=False)
class Templates:
    """What was made of photos.

    templates: ``(N, D)`` float32, CPU. photos: the ``N`` that they are of. left_out: how many others, by reason.
    """

    templates: Tensor
    photos: tuple[LabelledPhoto, ...]
    left_out: Mapping[str, int]


def list_photos(folder: Path, *, identity: str = "identity", called: str = "FACES") -> Folder:
    """The labelled photos of an imagefolder with metadata, or of a folder of folders. Reads no photo.

    identity: the column that says who it is; without metadata the name of the folder in FACES does.
    called: what messages call the folder.

    Raises:
        ArgumentError: not a folder, or one that is laid out in no way that is known.
        UnreadableSourceError: metadata that cannot be read, or a row that cannot be right.
    """
    if not folder.is_dir():
        raise ArgumentError(f"{called} is not a folder")
    found = [name for name in METADATA if (folder / name).is_file()]
    if len(found) == 2:
        raise ArgumentError(f"{called} holds both metadata.csv and metadata.jsonl; only one can be right")
    if found:
        return _described(folder, found[0], identity, called)
    people = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if any((person / name).is_file() for person in people for name in METADATA):
        raise ArgumentError(f"the folders in {called} have metadata of their own; name one of them")
    photos = tuple(LabelledPhoto(path, person.name, {}) for person in people for path in _images(person))
    if not photos:
        raise ArgumentError(
            f"{called} holds neither metadata.csv or metadata.jsonl, nor a folder with photos for each person"
        )
    return Folder(photos, sum(is_image(p.name) and not p.name.startswith(".") for p in folder.iterdir()))


def embed_photos(
    photos: Sequence[LabelledPhoto],
    embedder: Embedder,
    *,
    device: str = "cpu",
    detector: Detector | None = None,
    show: Show = lambda done: None,
) -> Templates:
    """The templates of photos that show one face: the largest, with at most bystanders less than half as wide.

    detector: CenterFace as policies use it, unless another is given. Photos are left out and counted as
    ``unreadable``, ``no_face``, ``several_faces`` or ``no_template`` (the embedder gives NaN).

    Raises what detectors and embedders raise.
    """
    import torch

    from anondata.detectors.centerface import CenterFaceDetector
    from anondata.regions import cat_regions

    used: list[LabelledPhoto] = []
    rows: list[Tensor] = []
    left: Counter[str] = Counter()
    for start in range(0, len(photos), BATCH):
        shown: list[LabelledPhoto] = []
        views: list[Tensor] = []
        faces: list[Regions] = []
        for photo in photos[start : start + BATCH]:
            found = _face(photo, detector or CenterFaceDetector(), device)
            if isinstance(found, str):
                left[found] += 1
            else:
                shown.append(photo)
                views.append(found[0])
                faces.append(found[1].renumbered(len(faces)))
        made = embedder.embed(views, cat_regions(faces, device)).cpu()
        usable = made.isfinite().all(dim=1)
        rows.append(made[usable])
        used += [photo for photo, good in zip(shown, usable.tolist(), strict=True) if good]
        left["no_template"] += len(shown) - int(usable.sum())
        show(min(start + BATCH, len(photos)))
    return Templates(torch.cat(rows) if rows else torch.zeros(0, 0), tuple(used), +left)


def _face(photo: LabelledPhoto, detector: Detector, device: str) -> tuple[Tensor, Regions] | str:
    """The picture and its one face, or why there is none."""
    from anondata.content import codec

    try:
        data = Source(photo.path.name, str(photo.path), 1).read()
        view = codec.decode(data).pixels.to(device)
    except (OSError, UndecodableError):
        return "unreadable"
    found = detector.detect([view])
    if not len(found):
        return "no_face"
    width = found.sizes[:, 0]
    if int((width >= BYSTANDER * width.max()).sum()) > 1:
        return "several_faces"
    return view, found.select([int(width.argmax())])


def _images(folder: Path) -> Iterator[Path]:
    """Every image below a folder, without hidden ones."""
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(where, name) for name in sorted(files) if is_image(name) and not name.startswith("."))


def _described(folder: Path, name: str, identity: str, called: str) -> Folder:
    photos: list[LabelledPhoto] = []
    seen: set[Path] = set()
    unlabelled = 0
    for number, row in enumerate(_rows(folder / name), 1):
        path = _path(folder, row, f"{name}, row {number}")
        if path in seen:
            raise UnreadableSourceError(f"{name}, row {number} names a photo that an earlier row names")
        seen.add(path)
        if identity not in row:
            raise ArgumentError(f"{name}, row {number} has no column {identity!r}; --identity names the right one")
        label = row[identity]
        if isinstance(label, bool) or not isinstance(label, str | int | None):
            raise UnreadableSourceError(f"{name}, row {number}: {identity!r} is neither a text nor a whole number")
        if label is None or not str(label).strip():
            unlabelled += 1
        else:
            photos.append(LabelledPhoto(path, str(label).strip(), dict(row)))
    unlabelled += sum(path not in seen for path in _images(folder))
    return Folder(tuple(sorted(photos, key=lambda photo: photo.path)), unlabelled)


def _path(folder: Path, row: Row, where: str) -> Path:
    """The photo of a row, which lies in the folder and is there."""
    given = row.get("file_name")
    if not isinstance(given, str) or not given:
        raise UnreadableSourceError(f"{where} has no file_name")
    inner = PurePosixPath(given)
    if inner.is_absolute() or ".." in inner.parts:
        raise UnreadableSourceError(f"{where}: file_name leads out of its folder")
    if not (folder / inner).is_file():
        raise UnreadableSourceError(f"{where} names a file that is not there")
    return folder / inner


def _rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from _csv(stream) if path.suffix == ".csv" else _jsonl(stream)
    except OSError as error:
        if isinstance(error, UnreadableSourceError):
            raise
        raise UnreadableSourceError(f"{path.name} cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UnreadableSourceError(f"{path.name} is not {path.suffix[1:]} in UTF-8") from error


def _csv(stream: Iterator[str]) -> Iterator[Row]:
    for number, row in enumerate(csv.DictReader(stream), 1):
        if None in row:
            raise UnreadableSourceError(f"metadata.csv, row {number} has more cells than the header")
        yield row


def _jsonl(stream: Iterator[str]) -> Iterator[Row]:
    for number, line in enumerate(filter(str.strip, stream), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UnreadableSourceError(f"metadata.jsonl, row {number} is not a JSON object")
        yield row
