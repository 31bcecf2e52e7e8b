"""Anonymized parquet files, each scanned for originals before it is put in place.

::

    OUT/data/train-00000-of-00003.parquet   as `datasets.load_dataset(OUT)` finds them
    OUT/report.json                         numbers of all files, when the run has come to its end
    OUT/.anondata/                          what is done, so that the same call goes on after a crash

`datasets` only ever maps over row numbers here: neither its tables, nor its caches, nor what it writes about them
hold anything of the source but the types of the declared columns.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from datasets import Dataset, DatasetDict, Features
from datasets.utils import tqdm

from anondata.errors import OutputError, PolicyError
from anondata.loaders._flow import Flow, OnWithheld
from anondata.loaders._parts import Part, Parts
from anondata.loaders._reports import Reports
from anondata.loaders.hf._pool import run_over
from anondata.loaders.hf._traced import Traced, TracedTally, traced
from anondata.loaders.hf.layout import NOTE
from anondata.loaders.hf.source import ROW, HfSource, Stored, row_table
from anondata.manifest import FILE as MANIFEST
from anondata.manifest import digest_of
from anondata.report import Report
from anondata.samples import KEEP

if TYPE_CHECKING:
    from anondata.loaders.hf.view import AnonymizedDataset

REPORT = "report.json"
FILE_BYTES = 256 << 20
"""About how large the files are, where nobody says how many rows go into one."""
HELD = 32  # rows in memory, before they are written
LOOKS = 16  # rows that tell how large rows are


def materialize(
    views: Mapping[str, AnonymizedDataset],
    folder: str | os.PathLike[str],
    *,
    on_withheld: OnWithheld = "drop",
    num_proc: int = 1,
    rows_per_file: int | None = None,
    at_most: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> DatasetDict:
    """Writes the rows of views as parquet files, and loads them. A view's transform and format are ignored.

    The same call goes on after a stop or a kill. If a local file changed since, by size or time, its rows are done
    again; of remote files (``hf://``, ``s3://``) only the paths are compared.

    Columns keep their types, with the names of classes: drop a label if these are names of people. Files hold the
    images themselves, never a path. A kept image passes as it is, with its EXIF.

    If the views have a ledger, each file is charged once, before it is put in place, however often a run is repeated.
    At a limit the files that were charged are there, and the same call goes on when the limit is raised or renewed.

    Args:
        views: the views by the name of their split.
        folder: where the files go.
        on_withheld: ``"drop"`` leaves withheld rows out. ``"replace"`` writes other rows of the same view instead,
            and a column ``"anondata"`` that says so. ``"raise"`` stops.
        num_proc: how many processes, each with its own networks. For several, a script must call this below
            ``if __name__ == "__main__":``.
        rows_per_file: None makes files of about 256 MiB of originals.
        at_most: the most rows of each view. With ``"drop"``, later rows take the place of withheld ones. Files are
            then written one after the other.
        cache_dir: where `datasets` puts its Arrow copy of the anonymized rows; by default its own cache.

    Returns:
        The written rows.

    Raises:
        LeakError: something of an original was found in a file, which is not put in place.
        WithheldError: a row was withheld and ``on_withheld`` is ``"raise"``, or all rows of a file were withheld.
        OutputError: the folder cannot be written, holds files that no run wrote, or was written from other rows or
            with another setting.
        QuotaExceeded: a file would pass a limit.
    """
    splits = _splits_of(views, on_withheld, num_proc, rows_per_file, at_most)
    done = _write(splits, folder, on_withheld, num_proc)
    return DatasetDict({split.name: _load(split, done, folder, cache_dir) for split in splits})


def _splits_of(
    views: Mapping[str, AnonymizedDataset],
    on_withheld: OnWithheld,
    num_proc: int,
    rows_per_file: int | None,
    at_most: int | None,
) -> list[_Split]:
    if on_withheld not in get_args(OnWithheld):
        raise PolicyError(f"on_withheld is {on_withheld!r}; expected {', '.join(get_args(OnWithheld))}")
    if num_proc < 1 or (rows_per_file is not None and rows_per_file < 1):
        raise PolicyError(f"num_proc is {num_proc} and rows_per_file {rows_per_file}; expected at least 1")
    if at_most is not None and (at_most < 1 or num_proc > 1):
        raise PolicyError(f"at_most is {at_most} and num_proc {num_proc}; expected at least 1, and one process")
    splits = [_split_of(name, view, on_withheld, rows_per_file, at_most) for name, view in views.items()]
    if not splits:
        raise PolicyError("there is no split to write; give a dataset with at least one")
    return splits


def _write(
    splits: Sequence[_Split], folder: str | os.PathLike[str], on_withheld: OnWithheld, num_proc: int
) -> dict[str, Part]:
    """Writes what is not there; returns what is, by name."""
    files = {file.name: file for split in splits for file in split.files()}
    flow = splits[0].source.flow
    parts = Parts(folder, setting=_setting(flow, on_withheld, splits), key=flow.anonymizer)
    flow.check_account()
    _check_folder(parts)
    with parts:
        if any(name.startswith("data/") and name not in files for name in parts.strangers(files)):
            raise OutputError("the folder's data/ holds files that this would not write; choose another folder")
        parts.remove(REPORT, MANIFEST)  # they would not be about this run while that is going on
        job = _Job(parts, on_withheld, {split.name: split for split in splits})
        if any(split.at_most is not None for split in splits):
            done = {part.name: part for split in splits for part in _until_enough(job, split)}
        else:
            done = {name: part for name, file in files.items() if (part := job.find(file))}
            todo = [file for name, file in files.items() if name not in done]
            for part in _run(job, todo, num_proc):
                done[part.name] = part
        report = _report(splits, done)
        parts.write(REPORT, report.to_json().encode())
        in_order = [done[name] for name in files if name in done]
        parts.finish(flow.anonymizer, report, in_order, fields=_fields(splits), kind="parquet")
    return done


def _fields(splits: Sequence[_Split]) -> dict[str, str]:
    """What each column that comes out was declared to be, or each member of a struct in it."""
    known = {**splits[0].source.flow.schema.fields, NOTE: KEEP}
    return {
        name + field.removeprefix(column): kind
        for split in splits
        for name, column in split.columns.items()
        for field, kind in known.items()
        if field == column or field.startswith(f"{column}.")
    }


def _check_folder(parts: Parts) -> None:
    """What lies there is given away with the files that are written, so it must not be the originals."""
    if parts.is_taken():
        raise OutputError("the output folder holds files that no run of anondata wrote; choose an empty one")
    if parts.local and Path(parts.root, "data").is_symlink():
        raise OutputError("the output folder's data/ is a link to another place; choose an empty folder")


def _report(splits: Sequence[_Split], done: Mapping[str, Part]) -> Report:
    empty = splits[0].source.flow.anonymizer.report([])
    return sum((part.report for part in done.values()), empty)


def _load(
    split: _Split, done: Mapping[str, Part], folder: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None
) -> Dataset:
    names = [file.name for file in split.files() if file.name in done and done[file.name].facts["samples"]]
    if not names:  # which `datasets` would not load
        return _no_rows(split)
    cache = os.fspath(cache_dir) if cache_dir is not None else None
    return Dataset.from_parquet([f"{os.fspath(folder)}/{name}" for name in names], split=split.name, cache_dir=cache)


def _no_rows(split: _Split) -> Dataset:
    return Dataset.from_dict({name: [] for name in split.columns}, features=split.features)


def _run(job: _Job, todo: Sequence[_File], num_proc: int) -> Iterator[Part]:
    if num_proc == 1 or len(todo) < 2:
        yield from map(job, todo)  # with the progress of each, as `datasets` shows it
        return
    with tqdm(total=len(todo), unit="files", desc="Anonymizing") as bar:
        for part in run_over(job, todo, processes=min(num_proc, len(todo))):
            bar.update()
            yield part


def _until_enough(job: _Job, split: _Split) -> Iterator[Part]:
    """One file after the other, until there are as many rows as there may be."""
    left = split.at_most or 0
    for file in split.files():
        if left:
            file = replace(file, at_most=left)
            part = job.find(file) or job(file)
            left -= part.facts["samples"]
            yield part


@dataclass(frozen=True)
class _File:
    """A file that is to be written: which rows of which split, of which no more than ``at_most`` come out."""

    name: str
    split: str
    start: int
    stop: int
    at_most: int | None = None


@dataclass(frozen=True)
class _Split:
    """The rows and columns of a view. columns: names that come out, with those of the source's layout."""

    name: str
    source: HfSource
    numbers: Any
    columns: Mapping[str, str]
    features: Features
    rows_per_file: int
    at_most: int | None

    def files(self) -> list[_File]:
        starts = range(0, max(len(self.numbers), 1), self.rows_per_file)
        names = (f"data/{self.name}-{i:05d}-of-{len(starts):05d}.parquet" for i in range(len(starts)))
        return [
            _File(name, self.name, start, min(start + self.rows_per_file, len(self.numbers)))
            for name, start in zip(names, starts, strict=True)
        ]


@dataclass(frozen=True)
class _Job:
    """Writes one file after the other; it can be pickled."""

    parts: Parts
    on_withheld: OnWithheld
    splits: Mapping[str, _Split]

    def find(self, file: _File) -> Part | None:
        """The file, if an earlier run wrote it from the same rows."""
        return self.parts.find(file.name, self._version(file))

    def _version(self, file: _File) -> str:
        """Stands for a file's rows and columns, by the run key."""
        split = self.splits[file.split]
        rows = split.source.version(split.numbers[file.start : file.stop])
        others = split.source.stand_ins if self.on_withheld == "replace" else ""
        columns = json.dumps([sorted(split.columns.items()), str(split.features)])
        most = "" if file.at_most is None else str(file.at_most)
        return split.source.flow.anonymizer.name("rows", split.source.fingerprint, rows, others, columns, most)

    def __call__(self, file: _File) -> Part:
        """Anonymizes a file's rows, scans it and puts it in place. Whatever happens, nothing half is there."""
        split, folder = self.splits[file.split], self.parts.temporary()
        version = self._version(file)  # before files are read, which may change meanwhile
        try:
            tally, made = TracedTally(file.at_most), folder / "part.parquet"
            flow = traced(split.source.flow, self.on_withheld, Reports(folder / "report"), tally)
            facts = {"samples": _written(split, file, flow, made)}
            flow.traces.check_file(made)
            self._charge(flow, file, version, made)
            return self.parts.commit(
                made,
                file.name,
                version=version,
                report=flow.report,
                facts=facts,
                rows=tally.rows,
                originals=tally.originals,
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _charge(self, flow: Traced, file: _File, version: str, made: Path) -> None:
        """The last thing before a file is put in place; a run that is stopped in between is not charged again.

        By what is delivered: a version can stay the same where originals change, as that of remote ones does.
        """
        if flow.account is not None and flow.tally.cost:
            content = digest_of(made).sha256
            delivery = flow.anonymizer.name("delivery", self.parts.out, file.name, version, content)
            flow.account.charge_once(delivery, flow.tally.cost)


def _written(split: _Split, file: _File, flow: Flow, made: Path) -> int:
    """Writes the parquet file; returns its number of rows."""
    numbers = split.numbers[file.start : file.stop]
    table = _no_rows(split)
    if len(numbers):
        table = row_table(numbers).map(
            Stored(split.source.with_flow(flow, pictures=False), split.columns),
            batched=True,
            batch_size=flow.size,
            remove_columns=[ROW],
            features=split.features,
            cache_file_name=str(made.with_name("rows.arrow")),
            load_from_cache_file=False,
            writer_batch_size=max(HELD, flow.size),
            new_fingerprint="anonymized",  # or the originals would be pickled, to hash them
            desc="Anonymizing",
        )
    table.to_parquet(made)
    return len(table)


def _split_of(
    name: str, view: AnonymizedDataset, on_withheld: OnWithheld, rows_per_file: int | None, at_most: int | None
) -> _Split:
    if not re.fullmatch(r"\w+(\.\w+)*", name):
        raise PolicyError(
            "a split's name is not a single word, and `datasets` could not find its files; rename the split"
        )
    source, columns = view._source, {n: c for n, c in view._columns.items() if c != NOTE}
    known = source.features(note=False)
    features = Features({n: known[column] for n, column in columns.items()})
    if on_withheld == "replace":
        columns, features = {**columns, NOTE: NOTE}, source.with_note(features)
    rows = rows_per_file or _rows_per_file(source, view._numbers)
    return _Split(name, source, view._numbers, columns, features, rows, at_most)


def _rows_per_file(source: HfSource, numbers: Sequence[int]) -> int:
    """By the size of some rows: always the same ones, and rounded, so that a run that goes on plans as before."""
    chosen = [numbers[i * len(numbers) // LOOKS] for i in range(LOOKS)] if len(numbers) else []
    sizes = [size for number in dict.fromkeys(chosen) if (size := source.size_of(number))]
    rows = FILE_BYTES * len(sizes) // sum(sizes) if sizes else 1
    return int(2 ** max(0, rows.bit_length() - 1))


def _setting(flow: Flow, on_withheld: OnWithheld, splits: Sequence[_Split]) -> dict[str, str]:
    """What all runs into one folder must share. It tells nothing of the run key."""
    numbers = ", ".join(
        f"{split.name}: {len(split.numbers)} by {split.rows_per_file}{f', {split.at_most}' if split.at_most else ''}"
        for split in splits
    )
    return {
        **flow.setting("materialize"),
        "on_withheld": on_withheld,
        "fields": json.dumps(sorted(flow.schema.fields.items())),
        "number of rows or files": numbers,
    }
