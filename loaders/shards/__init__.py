"""Shards to shards: for each tar of samples a tar of the verified anonymized ones, and what ties them together.

::

    OUT/NAME.tar      one for each input, of the same name; there only when it is whole and was scanned
    OUT/NAME.idx      its index for NVIDIA DALI, as `wds2idx` makes it
    OUT/index.json    all shards with size, sample count and sha256, in the form of webdataset's wids
    OUT/report.json   numbers of all shards; both are there only when the last run came to its end
    OUT/.anondata/    what is done, so that the same call goes on after a crash; need not be published
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Unpack

from anondata.anonymizer import Anonymizer
from anondata.errors import AnondataError, PolicyError, QuotaExceeded, ShardsError, UnreadableSourceError
from anondata.loaders._cores import usable_cores
from anondata.loaders._flow import Flow, OnWithheld
from anondata.loaders._kept import are_media, say_kept
from anondata.loaders._parts import Part, Parts
from anondata.loaders._spares import Group
from anondata.loaders._wds_fields import IMAGES, declare_fields
from anondata.loaders.quota import Quota, account_of
from anondata.loaders.shards.pool import Result, run_here, run_over
from anondata.loaders.shards.sources import Shard, list_shards
from anondata.loaders.shards.work import NOTE, Lost, Recipe
from anondata.manifest import FILE as MANIFEST
from anondata.report import Report

__all__ = ["Progress", "Shards", "ShardsJob", "anonymize_shards", "plan"]

INDEX, REPORT = "index.json", "report.json"
LOOKERS = 16  # threads that look up what is done; they wait for storages


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Args:
        shards: how many there are to do.
        shards_done: how many are done, by this run or an earlier one.
        failed: how many could not be done.
        samples, withheld: counts of this run, with the shards that are in work.
    """

    shards: int
    shards_done: int
    failed: int
    samples: int
    withheld: int


@dataclass(frozen=True)
class Shards:
    """What a run left behind. After an interruption or an error the same call goes on.

    Args:
        shards: how many shards it was to do.
        done: how many are done.
        skipped: of these, how many an earlier run did.
        failed: the errors of shards that could not be done, by number of the shard.
        report: the report of all shards that are done, whichever run did them.
        samples: how many samples were written.
        left_alone: members of tars that belong to no sample.
        seen, seconds: how many samples this run looked at, and in how many seconds.
        orphans: shards in the place that an earlier run made of other sources.
        unknown: files in the place that no run wrote.
        interrupted: whether Ctrl-C stopped the run.
        error: what stopped the run, and would stop each shard.
        first_withheld: why this run withheld its first sample, for people.
    """

    shards: int
    done: int
    skipped: int
    failed: Mapping[int, AnondataError]
    report: Report
    samples: int
    left_alone: int
    seen: int
    seconds: float
    orphans: int = 0
    unknown: int = 0
    interrupted: bool = False
    error: Exception | None = None
    first_withheld: str = ""


def anonymize_shards(
    urls: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    anonymizer: Anonymizer,
    *,
    fields: Mapping[str, str] = IMAGES,
    keep: Iterable[str] | str = (),
    drop: Iterable[str] | str = (),
    on_withheld: OnWithheld = "drop",
    group: Group = None,
    rename_keys: bool = False,
    batch: int | None = None,
    workers: int | None = None,
    limit: int | None = None,
    keep_going: bool = False,
    progress: Callable[[Progress], None] | None = None,
    **quota: Unpack[Quota],
) -> Shards:
    """Anonymizes shards of one place into shards of another. The same call again does only what is missing.

    Args:
        urls, out, anonymizer, fields, keep, drop, on_withheld, group, rename_keys, batch, limit: as for :func:`plan`.
        workers: how many processes; None is one for each core. On CUDA there is always one. Each needs room for two
            results on the disk of ``out``, or in the temporary folder if ``out`` is remote. A script that asks for
            several must do so below ``if __name__ == "__main__":``.
        keep_going: a shard that cannot be done does not stop the others.
        progress: called every now and then in this process.

    Returns:
        What was done.

    Raises:
        UnreadableSourceError, ShardsError, WithheldError, LeakError: the first shard that cannot be done.
        OutputError: the place cannot be written, or was written with another setting.
        UndeclaredFieldError: a sample has a field that nobody declared.
        KeyboardInterrupt: the run was interrupted; no shard is half written.
    """
    job = plan(
        urls,
        out,
        anonymizer,
        fields=fields,
        keep=keep,
        drop=drop,
        on_withheld=on_withheld,
        group=group,
        rename_keys=rename_keys,
        batch=batch,
        limit=limit,
        **quota,
    )
    result = job.run(workers=workers, keep_going=keep_going, progress=progress)
    if result.error:
        raise result.error
    if result.interrupted:
        raise KeyboardInterrupt
    if result.failed and not keep_going:
        raise result.failed[min(result.failed)]
    return result


def plan(
    urls: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    anonymizer: Anonymizer,
    *,
    fields: Mapping[str, str] = IMAGES,
    keep: Iterable[str] | str = (),
    drop: Iterable[str] | str = (),
    on_withheld: OnWithheld = "drop",
    group: Group = None,
    rename_keys: bool = False,
    batch: int | None = None,
    limit: int | None = None,
    **quota: Unpack[Quota],
) -> ShardsJob:
    """Checks what is asked for, and lists the shards. Reads none of them.

    Args:
        urls: paths, globs, folders of ``.tar``, ``.tar.gz`` and ``.tgz``, and URLs that fsspec reads, with braces.
        out: a local folder, or a URL that fsspec writes.
        anonymizer: holds the policy and the run key. Every machine that works on one place needs the same key.
        fields, keep, drop: as for :func:`anondata.loaders.webdataset.anonymize`. If a picture's suffix is not that of
            its format, it is replaced by the true one.
        on_withheld: ``"drop"``, ``"raise"``, or ``"replace"``, which takes another sample of the same shard and
            group. All samples then get a field ``anondata.txt`` that says which were replaced.
        group: a kept field, or a function of the kept fields, which are bytes.
        rename_keys: keys become keyed hashes, and samples are sorted by them.
        batch: how many samples go through the engine together; None chooses by the device.
        limit: only the first shards.
        client, ledger, dataset_name: whom to charge; see :class:`anondata.loaders.quota.Quota`. Each shard is charged
            once, before it is put in place, however often a run is repeated. A limit stops the run.

    Raises:
        PolicyError, ShardsError: what is asked for cannot be done.
        UnreadableSourceError: a source cannot be listed.
    """
    fields = {_lower(name): kind for name, kind in fields.items()}  # as webdataset reads the names of files
    keep, drop = ([names.lower()] if isinstance(names, str) else [*map(_lower, names)] for names in (keep, drop))
    group = group.lower() if isinstance(group, str) else group
    declared = declare_fields(fields, keep, drop)
    say_kept(are_media(declared.schema.kept()))
    if on_withheld == "replace" and NOTE in declared.schema.fields:
        raise PolicyError(f"field {NOTE!r} is written where samples are replaced; drop it, or rename it before")
    account = account_of(quota, anonymizer, may_stop=False)
    flow = Flow(anonymizer, declared.schema, on_withheld, group, batch, account=account)
    flow.check_account()
    shards = list_shards(urls, os.fspath(out))[:limit]
    recipe = Recipe(flow, declared, rename_keys, len(shards))
    parts = Parts(out, setting=recipe.setting, key=anonymizer)
    if parts.is_taken():
        raise ShardsError("the output place holds files that no run of anondata wrote; choose an empty one")
    return ShardsJob(shards, recipe, parts)


@dataclass(frozen=True)
class ShardsJob:
    """A run that was checked and has not begun."""

    shards: tuple[Shard, ...]
    recipe: Recipe
    parts: Parts

    def processes(self, workers: int | None) -> int:
        """How many processes work at once, at most."""
        alone = self.recipe.flow.anonymizer.device.type == "cuda" or _in_memory(self)
        return 1 if alone else min(workers or usable_cores(), len(self.shards))

    def done(self) -> dict[int, Result]:
        """What earlier runs did and is still there, by number of the shard; an error if it cannot be looked up."""
        known = self.parts.recorded()
        before = [shard for shard in self.shards if shard.name in known]
        with ThreadPoolExecutor(LOOKERS) as threads:
            found = threads.map(self._look_up, before)
            return {shard.number: part for shard, part in zip(before, found, strict=True) if part is not None}

    def _look_up(self, shard: Shard) -> Result | None:
        try:
            return self.parts.find(shard.name, self.recipe.version(shard))
        except UnreadableSourceError as error:
            return error

    def run(
        self,
        *,
        workers: int | None = None,
        keep_going: bool = False,
        progress: Callable[[Progress], None] | None = None,
        on_withheld: Callable[[int, str, str], None] | None = None,
    ) -> Shards:
        """Does what is not done yet.

        Args:
            workers, keep_going, progress: as for :func:`anonymize_shards`.
            on_withheld: called with the number of the shard, the key and the reason for each sample that this run
                withholds; twice for a shard that is tried twice. Keys may name somebody.

        Returns:
            What was done, and what stopped the run, if anything did.

        Raises:
            OutputError: the place cannot be used at all.
        """
        start = time.monotonic()
        with self.parts:
            self.parts.remove(INDEX, REPORT, MANIFEST)  # they would not be about this run while that is going on
            state = _State(self, keep_going, progress, on_withheld)
            state.go(workers)
            at_limit = isinstance(state.error, QuotaExceeded)  # what was delivered until then is a result
            orphans, unknown = (0, 0) if state.stopping() and not at_limit else self._finish(state.done)
        return state.result(time.monotonic() - start, orphans, unknown)

    def _finish(self, done: Mapping[int, Part]) -> tuple[int, int]:
        """Writes index and report; returns how many other shards and other files are in the place."""
        in_order = [done[number] for number in sorted(done)]
        listed = [
            {"url": p.name, "nsamples": p.facts.get("samples", 0), "filesize": p.size, "sha256": p.sha256}
            for p in in_order
        ]
        index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": listed}
        self.parts.write(INDEX, json.dumps(index, indent=2).encode() + b"\n")
        report, flow = self.total(in_order), self.recipe.flow
        self.parts.write(REPORT, report.to_json().encode())
        if len(done) == len(self.shards):
            fields = flow.schema.fields
            self.parts.finish(flow.anonymizer, report, in_order, fields=fields, kind="shards")
        names = [shard.name for shard in self.shards]
        strangers = set(self.parts.strangers([INDEX, REPORT, *names, *map(_index_name, names)]))
        orphans = {name for name in strangers if name.endswith(".tar") and self.parts.find(name) is not None}
        return len(orphans), len(strangers - orphans - set(map(_index_name, orphans)))

    def total(self, parts: Iterable[Part]) -> Report:
        """The report over some shards."""
        return sum((part.report for part in parts), self.recipe.flow.anonymizer.report([]))


@dataclass
class _State:
    """A run while it goes on."""

    job: ShardsJob
    keep_going: bool
    progress: Callable[[Progress], None] | None
    on_withheld: Callable[[int, str, str], None] | None = None
    first_withheld: str = ""
    done: dict[int, Part] = field(default_factory=dict)
    failed: dict[int, AnondataError] = field(default_factory=dict)
    skipped: int = 0
    interrupted: bool = False
    error: Exception | None = None
    _seen: dict[int, tuple[int, int]] = field(default_factory=dict)

    def go(self, workers: int | None) -> None:
        """Does what is not done; Ctrl-C ends that."""
        try:
            for number, result in self.job.done().items():
                self._settle(number, result)
            self.skipped = len(self.done)
            with closing(self._results(workers)) as results:
                for shard, result in results:
                    self._settle(shard.number, result)
        except KeyboardInterrupt:
            self.interrupted = True
        except Exception as error:  # noqa: BLE001 - told with what was done until then, and raised by who asked
            self.error = error

    def stopping(self) -> bool:
        """Whether no other shard is to be begun."""
        return self.interrupted or self.error is not None or (bool(self.failed) and not self.keep_going)

    def _results(self, workers: int | None) -> Generator[tuple[Shard, Result], None, None]:
        job = self.job
        todo = [s for s in job.shards if s.number not in self.done and s.number not in self.failed]
        processes = min(job.processes(workers), len(todo))
        if processes > 1:
            return run_over(job.recipe, job.parts, todo, self._tell, workers=processes, stopping=self.stopping)
        return run_here(job.recipe, job.parts, todo, self._tell, stopping=self.stopping)

    def _settle(self, number: int, result: Result) -> None:
        if isinstance(result, Part):
            self.done[number] = result
        else:
            self.failed[number] = result
        self._show()

    def _tell(self, shard: Shard, seen: int, withheld: int, lost: Sequence[Lost]) -> None:
        self._seen[shard.number] = (seen, withheld)
        for key, reason, detail in lost:
            self.first_withheld = self.first_withheld or f"{reason}: {detail}"
            if self.on_withheld is not None:
                self.on_withheld(shard.number, key, reason)
        self._show()

    def _show(self) -> None:
        if self.progress:
            withheld = sum(withheld for _, withheld in self._seen.values())
            self.progress(Progress(len(self.job.shards), len(self.done), len(self.failed), self.seen, withheld))

    @property
    def seen(self) -> int:
        return sum(seen for seen, _ in self._seen.values())

    def result(self, seconds: float, orphans: int, unknown: int) -> Shards:
        parts = list(self.done.values())
        return Shards(
            shards=len(self.job.shards),
            done=len(self.done),
            skipped=self.skipped,
            failed=dict(sorted(self.failed.items())),
            report=self.job.total(parts),
            samples=sum(part.facts.get("samples", 0) for part in parts),
            left_alone=sum(part.facts.get("left_alone", 0) for part in parts),
            seen=self.seen,
            seconds=seconds,
            orphans=orphans,
            unknown=unknown,
            interrupted=self.interrupted,
            error=self.error,
            first_withheld=self.first_withheld,
        )


def _lower(name: str) -> str:
    return name.lower()


def _in_memory(job: ShardsJob) -> bool:
    """Whether a place is one of this process alone."""
    return any("memory" in fs.protocol for fs in (job.parts.fs, *(shard.fs for shard in job.shards)))


def _index_name(name: str) -> str:
    return f"{name.removesuffix('.tar')}.idx"


def __dir__() -> list[str]:
    return sorted(__all__)
