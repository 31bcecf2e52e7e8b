"""What an audit reads: two folders of pictures, which of them belong together, and who is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from anondata.errors import ArgumentError, AuditError
from anondata.sources import Source, list_sources

if TYPE_CHECKING:
    from anondata.verifiers.audit import PhotoPair
    from anondata.verifiers.audit.pairing import Pairing, PhotoLabel

METADATA = ("metadata.csv", "metadata.jsonl")
IDENTITY = "identity"
NOBODY = "-"
CHANGED = "changed while it was audited"


@dataclass(frozen=True)
class AuditTerms:
    """What the command line says of labels. identity: a column, ``-`` for none, None for whatever there is.

    marked: take faces that the metadata marks.
    """

    identity: str | None = None
    groups: tuple[str, ...] = ()
    marked: bool = True


@dataclass(frozen=True)
class Inputs:
    """Everything but the pictures, which are read when their turn comes. counts: of files, for the report."""

    originals: Mapping[str, Source] = field(repr=False)
    anonymized: Mapping[str, Source] = field(repr=False)
    pairing: Pairing
    labels: Mapping[str, PhotoLabel] = field(repr=False)
    asked: AuditTerms
    by_folder: bool
    _read: dict[str, str] = field(default_factory=dict, repr=False)  # sha256 of anonymized pictures that were read

    @property
    def counts(self) -> dict[str, int]:
        return {
            "originals": len(self.originals),
            "anonymized": len(self.anonymized),
            "unpaired_originals": self.pairing.unpaired_originals,
            "unpaired_anonymized": self.pairing.unpaired_anonymized,
        }

    @property
    def total(self) -> int:
        return len(self.pairing.pairs)

    def pairs(self) -> Iterator[PhotoPair]:
        """The pairs, in the order of the originals' paths."""
        for original, anonymized in self.pairing.pairs:
            yield describe(original, self.originals[original].read, partial(self._anonymized, anonymized), self)

    def content(self) -> dict[str, Any]:
        """What was audited: how many anonymized pictures there are, paired or not, and a digest of their content.

        The digest is None where a picture cannot be read, or was changed meanwhile: nothing is published by that.
        """
        from anondata.manifest import content_digest

        try:
            for name in self.anonymized:
                if name not in self._read:
                    self._anonymized(name)
        except Exception:  # noqa: BLE001 - storages raise what they like; the audit itself counts such files
            return {"files": len(self.anonymized), "digest": None}
        changed = CHANGED in self._read.values()
        return {"files": len(self.anonymized), "digest": None if changed else content_digest(self._read.values())}

    def _anonymized(self, name: str) -> bytes:
        data = self.anonymized[name].read()
        sha256 = hashlib.sha256(data).hexdigest()
        if self._read.setdefault(name, sha256) != sha256:
            self._read[name] = CHANGED
        return data


class Labelled(Protocol):
    """What says who is in an original."""

    @property
    def labels(self) -> Mapping[str, PhotoLabel]: ...
    @property
    def asked(self) -> AuditTerms: ...
    @property
    def by_folder(self) -> bool: ...


def describe(
    original: str, read: Callable[[], bytes], anonymized: Callable[[], bytes], inputs: Labelled
) -> PhotoPair:
    """A pair with what is known of the original of that name."""
    from anondata.verifiers.audit import PhotoPair
    from anondata.verifiers.audit.pairing import PhotoLabel, described

    label = inputs.labels.get(original, PhotoLabel({}))
    found = described(label, identity=inputs.asked.identity or IDENTITY, groups=inputs.asked.groups)
    return PhotoPair(
        read,
        anonymized,
        original.partition("/")[0] if inputs.by_folder else found.identity,
        found.groups,
        found.faces if inputs.asked.marked else None,
    )


def read_inputs(a: Path, b: Path, asked: AuditTerms, *, table: Path | None = None) -> Inputs:
    """Lists and pairs both folders, and reads the metadata. Reads no picture.

    Raises:
        ArgumentError: a column that is in no row of the metadata.
        AuditError: folders without pictures, no pairs or unclear ones, or metadata that cannot be read.
    """
    from anondata.verifiers.audit.pairing import pair_names, pair_table

    originals, anonymized = _both(a, b)
    try:
        text = table.read_text(encoding="utf-8-sig") if table else None
    except (OSError, UnicodeDecodeError) as error:
        raise AuditError("the table of pairs cannot be read") from error
    pairing = (
        pair_names(list(originals), list(anonymized)) if text is None else pair_table(text, originals, anonymized)
    )
    if not pairing.pairs:
        raise AuditError(
            f"none of {len(anonymized)} anonymized files belongs to one of {len(originals)} originals by its path; "
            "--pairs says which belong together"
        )
    labels = labels_of(a)
    check_columns(labels, asked)
    return Inputs(originals, anonymized, pairing, labels, asked, lies_in_folders(originals, labels, asked))


def _both(a: Path, b: Path) -> tuple[dict[str, Source], dict[str, Source]]:
    """Sources by name. In one and the same folder, and among originals, outputs are told by their names."""
    from anondata.verifiers.audit.pairing import outputs_among

    originals = listed(a, b, "originals")
    outputs = outputs_among(originals)
    kept = {name: source for name, source in originals.items() if name not in outputs}
    if a.resolve() == b.resolve():
        if not outputs:
            raise AuditError(
                "A and B are the same folder, and no picture in it is named x_anonymized after another one"
            )
        return kept, {name: originals[name] for name in outputs}
    return kept, listed(b, a, "anonymized pictures")


def listed(folder: Path, other: Path, what: str) -> dict[str, Source]:
    """Pictures of a folder, without those of the other folder where that lies in it."""
    inside = other.resolve() != folder.resolve() and other.resolve().is_relative_to(folder.resolve())
    try:
        found = list_sources([str(folder)], out=other if inside else folder / ".nowhere").sources
    except ArgumentError as error:
        raise AuditError(f"the folder of {what} holds no file with the suffix of an image") from error
    return {source.name: source for source in found}


def labels_of(a: Path) -> dict[str, PhotoLabel]:
    """Labels by the path of a photo below A, from all metadata files there."""
    from anondata.verifiers.audit.pairing import read_labels

    out: dict[str, PhotoLabel] = {}
    for file in sorted(path for name in METADATA for path in a.rglob(name)):
        below = file.parent.relative_to(a)
        if len([name for name in METADATA if (file.parent / name).is_file()]) > 1:
            raise AuditError("a folder holds both metadata.csv and metadata.jsonl; only one can be right")
        try:
            found = read_labels(file.name, file.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise AuditError("the metadata cannot be read as UTF-8") from error
        out |= {(below / name).as_posix(): label for name, label in found.items()}
    return out


def check_columns(labels: Mapping[str, PhotoLabel], asked: AuditTerms) -> None:
    """Before the work: every column is there, and none of them tells people apart who should be in groups."""
    from anondata.verifiers.audit.groups import binned
    from anondata.verifiers.audit.pairing import values_of

    given = asked.identity if asked.identity not in (None, NOBODY) else None
    for option, column in [*((("--identity", given),) if given else ()), *(("--group", g) for g in asked.groups)]:
        values = [value for label in labels.values() for value in values_of(label, str(column))]
        if not any(values):
            raise ArgumentError(f"{option} {column}: no row of metadata.csv or metadata.jsonl in A has that column")
        if option == "--group":
            binned(values)


def lies_in_folders(names: Mapping[str, Source], labels: Mapping[str, PhotoLabel], asked: AuditTerms) -> bool:
    """Whether folders stand for people: nothing else says who it is, and every photo lies in one of several."""
    from anondata.verifiers.audit.pairing import values_of

    if asked.identity is not None or any(v for label in labels.values() for v in values_of(label, IDENTITY)):
        return False
    folders = {name.partition("/")[0] if "/" in name else "" for name in names}
    return len(folders) > 1 and "" not in folders
