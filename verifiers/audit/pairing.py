"""Which anonymized file belongs to which original, by their paths; and what metadata says of the originals.

Paths are relative, with slashes. Nothing here opens a picture, and no message holds a path.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from anondata.errors import AuditError
from anondata.verifiers.audit.faces import Face

LARGEST_PX = 1e6
MARK = "_anonymized"  # deface's addition to a name, unless it is told another


@dataclass(frozen=True)
class Pairing:
    """pairs: original and anonymized path. The counts are of files that have no partner."""

    pairs: tuple[tuple[str, str], ...] = field(repr=False)
    unpaired_originals: int
    unpaired_anonymized: int


@dataclass(frozen=True)
class PhotoLabel:
    """What metadata says of one original. row: all columns; faces: those it marks, None where it marks none."""

    row: Mapping[str, Any] = field(repr=False)
    faces: tuple[Face, ...] | None = field(default=None, repr=False)


def pair_names(originals: Sequence[str], anonymized: Sequence[str]) -> Pairing:
    """Pairs paths that differ by no more than what tools do to names.

    In this order: the same path; the original's with a suffix added (``x.gif.png``); with another suffix
    (``x.png``); with ``_anonymized`` before the suffix, whichever it is.

    Raises: AuditError when two files could belong to one.
    """
    left, right = dict.fromkeys(originals), dict.fromkeys(anonymized)
    pairs: list[tuple[str, str]] = []
    for keys in _RULES:
        found = _match(left, right, *keys)
        pairs += found
        for original, output in found:
            del left[original], right[output]
    return Pairing(tuple(sorted(pairs)), len(left), len(right))


def pair_table(text: str, originals: Iterable[str], anonymized: Iterable[str]) -> Pairing:
    """Pairs that a CSV with the columns ``original`` and ``anonymized`` names.

    Raises: AuditError for a table that has other columns, names a file twice, or names one that is not there.
    """
    reader = csv.DictReader(io.StringIO(text))
    if not {"original", "anonymized"} <= set(reader.fieldnames or ()):
        raise AuditError("the table of pairs needs the columns 'original' and 'anonymized'")
    rows = [(_tidy(row["original"]), _tidy(row["anonymized"])) for row in reader]
    left, right = set(originals), set(anonymized)
    missing = sum(a not in left or b not in right for a, b in rows)
    if missing:
        raise AuditError(
            f"{missing} rows of the table of pairs name files that are not there; paths are relative to the folders"
        )
    if len({a for a, _ in rows}) < len(rows) or len({b for _, b in rows}) < len(rows):
        raise AuditError("the table of pairs names a file twice")
    return Pairing(tuple(sorted(rows)), len(left) - len(rows), len(right) - len(rows))


def outputs_among(names: Iterable[str]) -> list[str]:
    """Files that lie beside their originals and are named as deface names outputs."""
    stems = {_stem(name) for name in names}
    return [name for name in names if _stem(name).endswith(MARK) and _stem(name).removesuffix(MARK) in stems]


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _unmarked(name: str) -> str:
    stem = _stem(name)
    return stem.removesuffix(MARK) if stem.endswith(MARK) else "\0" + name  # "\0": equal to no other path


_RULES = (
    (str, str),
    (str, _stem),  # x.gif and x.gif.png
    (_stem, _stem),
    (str, _unmarked),  # x.gif and x.gif_anonymized.png
    (_stem, _unmarked),
)


def _match(left: Iterable[str], right: Iterable[str], left_key: Any, right_key: Any) -> list[tuple[str, str]]:
    sides: tuple[dict[str, list[str]], ...] = (defaultdict(list), defaultdict(list))
    for side, names, key in zip(sides, (left, right), (left_key, right_key), strict=True):
        for name in names:
            side[key(name)].append(name)
    shared = [key for key in sides[0] if key in sides[1]]
    unclear = sum(len(sides[0][key]) > 1 or len(sides[1][key]) > 1 for key in shared)
    if unclear:
        raise AuditError(
            f"for {unclear} names several originals or several anonymized files fit; say which belong together in a "
            "table of pairs (--pairs)"
        )
    return [(sides[0][key][0], sides[1][key][0]) for key in shared]


def read_labels(name: str, text: str) -> dict[str, PhotoLabel]:
    """Labels by path, from the text of a ``metadata.csv`` or ``metadata.jsonl`` as imagefolders have them.

    A row of JSON lines may mark faces: ``"faces": [{"box": [x0, y0, x1, y1], "eyes_nose_mouth": [ten numbers],
    "identity": …}]``.

    Raises: AuditError, which names the row by its number.
    """
    out: dict[str, PhotoLabel] = {}
    for number, row in enumerate(_csv(text) if name.endswith(".csv") else _jsonl(text), 1):
        path = row.get("file_name")
        if not isinstance(path, str) or not path:
            raise AuditError(f"row {number} of the metadata has no file_name")
        if _tidy(path) in out:
            raise AuditError(f"row {number} of the metadata names a photo that an earlier row names")
        out[_tidy(path)] = PhotoLabel(row, _faces(row, number))
    return out


def values_of(label: PhotoLabel, column: str) -> list[str]:
    """What a column says: of each marked face where it says something of them, else of the photo."""
    of_faces = [face.groups.get(column, "") for face in label.faces or ()]
    return of_faces if any(of_faces) else [text_of(label.row.get(column))]


def _tidy(path: str | None) -> str:
    return PurePosixPath(path or "").as_posix()


def _csv(text: str) -> Iterator[Mapping[str, Any]]:
    try:
        yield from csv.DictReader(io.StringIO(text), strict=True)
    except csv.Error as error:
        raise AuditError("the metadata cannot be read as CSV") from error


def _jsonl(text: str) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(filter(str.strip, text.split("\n")), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, Mapping):
            raise AuditError(f"row {number} of the metadata is not a JSON object")
        yield row


def _faces(row: Mapping[str, Any], number: int) -> tuple[Face, ...] | None:
    found = row.get("faces")
    if not isinstance(found, list):
        return None
    return tuple(_face(face, number) for face in found)


def _face(face: Any, number: int) -> Face:
    try:
        x0, y0, x1, y1 = (float(v) for v in face["box"])
        points = tuple(float(v) for v in face.get("eyes_nose_mouth") or ())
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise AuditError(f"row {number} of the metadata marks a face without a box of four numbers") from error
    if not (-LARGEST_PX < x0 < x1 < LARGEST_PX and -LARGEST_PX < y0 < y1 < LARGEST_PX) or len(points) not in (0, 10):
        raise AuditError(
            f"row {number} of the metadata marks a face wrongly: a box is x0, y0, x1, y1, landmarks are ten numbers"
        )
    return Face((x0, y0, x1, y1), points, groups={key: text_of(value) for key, value in face.items()})


@dataclass(frozen=True)
class Described:
    """A label in the terms of the columns that were asked for."""

    identity: str = field(repr=False)
    groups: Mapping[str, str] = field(repr=False)
    faces: tuple[Face, ...] | None = field(repr=False)


def described(label: PhotoLabel, *, identity: str, groups: Sequence[str]) -> Described:
    """Who and what a photo and its marked faces show: a face's own words, else what is said of the photo.

    A photo's identity is its marked face's only where there is one.
    """
    who, what = text_of(label.row.get(identity)), {g: text_of(label.row.get(g)) for g in groups}
    alone = label.faces is not None and len(label.faces) == 1
    faces = [
        replace(
            face,
            identity=face.groups.get(identity, "") or (who if alone else ""),
            groups={g: face.groups.get(g, "") or what[g] for g in groups},
        )
        for face in label.faces or ()
    ]
    return Described(who, what, None if label.faces is None else tuple(faces))


def text_of(value: Any) -> str:
    """A column's value as a word; nothing for what is missing or no single value."""
    missing = not isinstance(value, str | int | float) or value != value  # NaN stands for missing, too
    return "" if missing else str(value).strip()
