"""What an audit reads where results are rows: of parquet files that ``materialize`` wrote, or of shards.

Nothing there is named as its original. Which is which is told by digests that the run left beside its results, keyed
with its run key, so that only who has that key and the originals can tell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata.auditing.folders import AuditTerms, check_columns, describe, labels_of, lies_in_folders, listed
from anondata.errors import AnondataError, AuditError

if TYPE_CHECKING:
    from anondata.manifest import Manifest
    from anondata.randomness import RunKey
    from anondata.sources import Source
    from anondata.transforms.base import RegionTransform
    from anondata.verifiers.audit import PhotoPair
    from anondata.verifiers.audit.pairing import PhotoLabel


@dataclass(frozen=True)
class RowInputs:
    """Everything but the pictures. digests: names of originals by what a run calls their content."""

    folder: Path
    manifest: Manifest
    key: RunKey = field(repr=False)
    originals: Mapping[str, Source] = field(repr=False)
    digests: Mapping[str, str] = field(repr=False)
    labels: Mapping[str, PhotoLabel] = field(repr=False)
    asked: AuditTerms
    by_folder: bool
    _read: list[str] = field(default_factory=list, repr=False)  # sha256 of the results, as they were audited

    @property
    def total(self) -> int:
        return len([name for own in self._parts().values() for name in own if name in self.digests])

    @property
    def counts(self) -> dict[str, int]:
        made_of = [digest for own in self._parts().values() for digest in own]
        paired = {self.digests[digest] for digest in made_of if digest in self.digests}
        return {
            "originals": len(self.originals),
            "anonymized": len(made_of),
            "unpaired_originals": len(self.originals) - len(paired),
            "unpaired_anonymized": sum(digest not in self.digests for digest in made_of),
        }

    def pairs(self) -> Iterator[PhotoPair]:
        """The pairs, in the order of the results. A result is held in memory until it was looked at."""
        for name, made_of in self._parts().items():
            pictures = 0
            for picture, digest in zip(_pictures(self.folder / name, self.manifest), made_of, strict=False):
                pictures += 1
                self._read.append(hashlib.sha256(picture).hexdigest())
                original = self.digests.get(digest)
                if original is not None:
                    source = self.originals[original]
                    yield describe(original, source.read, partial(bytes, picture), self)
            if pictures != len(made_of):
                raise AuditError("a file of B holds other pictures than the run wrote; write B again")

    def content(self) -> dict[str, Any]:
        """What was audited, as :meth:`anondata.auditing.folders.Inputs.content` tells it."""
        from anondata.manifest import content_digest

        whole = len(self._read) == self.counts["anonymized"]
        return {"files": self.counts["anonymized"], "digest": content_digest(self._read) if whole else None}

    def _parts(self) -> dict[str, list[str]]:
        """By file, what each picture in it was made of. Raises: AuditError."""
        from anondata.loaders._parts import read_record, record_of

        found = {}
        for name in sorted(self.manifest.files):
            try:
                told = (self.folder / record_of(name)).read_bytes()
            except OSError:
                told = None
            part = read_record(told, name, self.key)
            if part is None or part.sha256 != self.manifest.files[name].sha256:
                raise AuditError("B does not tell which result is made of which original; write B again")
            found[name] = [str(digest) for digest in part.originals]
        return found


def row_inputs(a: Path, b: Path, asked: AuditTerms, key: RunKey | None) -> RowInputs | None:
    """What is to be audited, where B holds rows of a finished run; None where it does not. Reads all originals once.

    Raises:
        AuditError: B is not finished, has several pictures a row, or belongs to no original with this run key.
    """
    from anondata.manifest import FILE, read_manifest

    if not (b / FILE).is_file():
        return None
    manifest = read_manifest(b, run_key=key)
    if manifest.kind == "images":
        return None
    if manifest.kind == "parquet" and sum(kind == "image" for kind in manifest.fields.values()) != 1:
        raise AuditError("B has several columns of pictures; which belongs to which original cannot be told")
    if key is None or not manifest.seal_holds(key):
        raise AuditError("B was written with another run key; give it with --run-key")
    originals = listed(a, b, "originals")
    labels = labels_of(a)
    check_columns(labels, asked)
    digests = {name: _digest(source, key) for name, source in originals.items()}
    known = {digest: name for name, digest in digests.items() if digest}
    found = RowInputs(b, manifest, key, originals, known, labels, asked, lies_in_folders(originals, labels, asked))
    if not found.total:
        raise AuditError("no picture of B was made of a file in A: these are not its originals")
    return found


def technique_of(folder: Path) -> RegionTransform | None:
    """What a finished run of anondata did to most faces of its output; None where that is not known.

    Attackers know it, too: it stands in the manifest that is published. No code of the policy's own is run.
    """
    from anondata.components import build, own_code_of
    from anondata.manifest import FILE, read_manifest

    if not (folder / FILE).is_file():
        return None
    try:
        manifest = read_manifest(folder)
        kinds = {kind: rules for part in manifest.policy.own.values() for kind, rules in part.regions.items()}
        rules = kinds["face"].cover
        if "head" in (rules.name, rules.params.get("area")):
            return None  # it did it to more than the face
        regions = manifest.report.counts.get("regions", {}).get("face", {})
        done = max(regions.get("technique", {}).items(), key=lambda item: int(item[1]), default=("", 0))[0]
        name, _, params = str(done).partition(" ")
        with own_code_of((), files=False):
            made: RegionTransform = build("technique", name, json.loads(params))
    except (AnondataError, ValueError, TypeError, KeyError):
        return None  # attackers then go by the pictures alone
    return made


def _digest(source: Source, key: RunKey) -> str:
    """What the run calls a picture's content; empty where it cannot be read."""
    from anondata.anonymizer import content_key

    try:
        return key.name("original", content_key(source.read()))
    except Exception:  # noqa: BLE001 - storages raise what they like; the file then is in no pair
        return ""


def _pictures(path: Path, manifest: Manifest) -> Iterator[bytes]:
    from anondata.publishing.pictures import pictures_in
    from anondata.publishing.rows import shard_pictures

    try:
        yield from (
            shard_pictures(path, manifest.fields) if manifest.kind == "shards" else pictures_in(path, manifest.fields)
        )
    except AuditError:
        raise
    except AnondataError as error:
        raise AuditError(f"B cannot be read: {error}") from error
