"""What was written for a request, row by row: renamed for delivery, audited against its originals, and counted."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata.errors import AuditError, OutputError, RequestError
from anondata.publishing.layout import DATA

if TYPE_CHECKING:
    from datasets import Dataset

    from anondata.loaders.hf.layout import Layout
    from anondata.manifest import Manifest
    from anondata.randomness import RunKey
    from anondata.samples import Schema
    from anondata.verifiers.audit import PhotoPair

BATCH = 16  # rows in memory at once
NOTHING = "nothing was delivered, and nothing charged"
Pictures = dict[str, bytes]
"""The encoded pictures of a row, by their places in it."""


@dataclass(frozen=True)
class Written:
    """A parquet file of the delivery. rows: for each of its rows the number of the original."""

    path: Path
    rows: Sequence[int] = field(repr=False)


# --- from what was materialized to what is published --------------------------------------------------------------


def collect(made: Path, to: Path, key: RunKey, *, column: str | None, texts: Mapping[int, str]) -> list[Written]:
    """Makes an output of the files that hold rows, numbered anew: how many candidates there were is not told.

    column, texts: of insights, to which an editor's texts are added by the number of the original.

    Raises: RequestError where a row cannot be told to its original. OutputError.
    """
    from dataclasses import replace

    from anondata.manifest import FILE, digest_of, read_manifest

    manifest = read_manifest(made, run_key=key)
    try:
        found = _with_rows(made, manifest, key)
        shutil.rmtree(to, ignore_errors=True)
        (to / DATA).mkdir(parents=True)
        (to / FILE).parent.mkdir()
        written = []
        for i, one in enumerate(found):
            split = one.path.name.rpartition("-of-")[0].rpartition("-")[0]
            path = to / DATA / f"{split}-{i:05d}-of-{len(found):05d}.parquet"
            _put(one, path, column, texts)
            written.append(Written(path, one.rows))
        files = {one.path.relative_to(to).as_posix(): digest_of(one.path) for one in written}
        (to / "report.json").write_text(manifest.report.to_json())
        (to / FILE).write_text(replace(manifest, files=files).sealed(key).to_json())
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"OUT cannot be written: {error.strerror}; {NOTHING}") from error
    return written


def _with_rows(made: Path, manifest: Manifest, key: RunKey) -> list[Written]:
    from anondata.loaders._parts import read_record, record_of
    from anondata.manifest import digest_of

    out = list[Written]()
    for name, known in sorted(manifest.files.items()):
        part = read_record((made / record_of(name)).read_bytes(), name, key)
        if (
            part is None
            or {part.sha256, digest_of(made / name).sha256} != {known.sha256}
            or len(part.rows) != part.facts["samples"]
            or any(row < 0 for row in part.rows)
        ):
            raise RequestError(f"the work folder was changed meanwhile; run the same command again; {NOTHING}")
        if part.rows:
            out.append(Written(made / name, part.rows))
    return out


def _put(one: Written, path: Path, column: str | None, texts: Mapping[int, str]) -> None:
    if column is None or not any(row in texts for row in one.rows):
        shutil.copyfile(one.path, path)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = iter(one.rows)
    with pq.ParquetFile(one.path) as file, pq.ParquetWriter(path, file.schema_arrow) as writer:
        at = file.schema_arrow.get_field_index(column)
        for batch in file.iter_batches(batch_size=BATCH):
            told = (batch.column(at)[i].as_py() for i in range(len(batch)))
            joined = [" ".join(t for t in (text, texts.get(next(rows))) if t) for text in told]
            writer.write_batch(
                batch.set_column(at, file.schema_arrow.field(at), pa.array(joined, file.schema_arrow.field(at).type))
            )


# --- evaluation ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """Pairs of originals and what was made of them.

    output: the folder of what was made, whose manifest tells attackers the technique. identity: a column of the
    originals, None where nobody knows.
    """

    originals: Dataset = field(repr=False)
    output: Path
    written: Sequence[Written]
    schema: Schema
    identity: str | None
    device: str
    show: Callable[[int], None]

    def body(self) -> dict[str, Any]:
        """The audit of exactly what was written, as ``audit.json`` has it.

        Raises:
            RequestError: nothing that was written can be attacked, so nobody knows how strong it is.
        """
        people = self._people()
        try:
            try:
                return self._audited(people)
            except AuditError:
                if not people:
                    raise
                return self._audited({})  # people of whom no two faces are found: each face against its own original
        except AuditError as error:
            raise RequestError(f"the delivery cannot be audited: {error}; {NOTHING}") from error

    def _audited(self, people: Mapping[int, str]) -> dict[str, Any]:
        from anondata.auditing.rows import technique_of
        from anondata.loaders._cores import shared_threads
        from anondata.loaders.files.job import default_workers
        from anondata.manifest import content_digest
        from anondata.verifiers.audit import audit

        seen: list[str] = []
        workers = default_workers(self.device)
        with shared_threads(workers):
            result = audit(
                self._pairs(people, seen),
                device=self.device,
                workers=workers,
                technique=technique_of(self.output),
                show=lambda done, unusable: self.show(done),
            ).to_json()
        alone = {"unpaired_originals": 0, "unpaired_anonymized": 0}
        counts = {"originals": len(seen), "anonymized": len(seen), **alone, **result["counts"]}
        return {**result, "counts": counts, "anonymized": {"files": len(seen), "digest": content_digest(seen)}}

    def _people(self) -> dict[int, str]:
        """Who is in which original; nobody where no two pictures show one person, who then could not be searched."""
        if self.identity is None:
            return {}
        numbers = [row for one in self.written for row in one.rows]
        names = self.originals.select_columns([self.identity]).with_format("arrow")[numbers].column(0).to_pylist()
        told = {row: str(name) for row, name in zip(numbers, names, strict=True) if name not in (None, "")}
        return told if max(Counter(told.values()).values(), default=0) > 1 else {}

    def _pairs(self, people: Mapping[int, str], seen: list[str]) -> Iterator[PhotoPair]:
        """The pairs in the order of the rows; ``seen`` gets the digest of each anonymized picture."""
        from anondata.loaders.hf.layout import layout_of
        from anondata.verifiers.audit import PhotoPair

        layout = layout_of(self.originals.features, self.schema)
        stored = self.originals.select_columns(list(layout.read)).with_format("arrow")
        for one in self.written:
            for number, row in zip(one.rows, _rows(one.path), strict=True):
                [original] = stored[[number]].to_pylist()
                before, after = _pictures(layout, self.schema, original), _pictures(layout, self.schema, row)
                if set(after) - set(before):
                    raise RequestError(f"a result has pictures that its original does not have; {NOTHING}")
                for place, picture in after.items():
                    seen.append(hashlib.sha256(picture).hexdigest())
                    yield PhotoPair(before[place], picture, people.get(number, ""))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH):
            yield from batch.to_pylist()


def _pictures(layout: Layout, schema: Schema, row: Mapping[str, Any]) -> Pictures:
    from anondata.samples import leaves

    values = layout.take_apart(row)
    found = (leaf for name in schema.content() for leaf in leaves(values.get(name), name))
    return {place: data for place, value in found if (data := _bytes(value)) is not None}


def _bytes(value: Any) -> bytes | None:
    """The encoded picture that a table holds, or that the file has to which it leads.

    Raises: RequestError where it cannot be read any more.
    """
    from anondata.loaders.hf.rows import read_file

    data: bytes | None = value.get("bytes") if isinstance(value, Mapping) else value
    if data is not None or not isinstance(value, Mapping) or value.get("path") is None:
        return data
    try:
        return read_file(value["path"], {})
    except Exception as error:  # storages raise what they like; its text would name the file
        raise RequestError(f"an original cannot be read again ({type(error).__name__}); {NOTHING}") from error


# --- costs --------------------------------------------------------------------------------------------------------


def cost_of_all(folder: Path, manifest: Manifest) -> dict[str, int]:
    """What a publication costs, as :func:`anondata.ledger.cost_of` counts sample by sample.

    Its report counts faces of released samples alone, and of these all were written.
    """
    import pyarrow.parquet as pq

    from anondata.publishing.pictures import pictures_in

    files = [folder / name for name in sorted(manifest.files) if name.startswith(DATA)]
    return {
        "samples": sum(pq.read_metadata(file).num_rows for file in files),
        "bytes": sum(len(picture) for file in files for picture in pictures_in(file, manifest.fields)),
        "seconds": 0,
        "faces": int(manifest.report.counts.get("regions", {}).get("face", {}).get("found", 0)),
    }
