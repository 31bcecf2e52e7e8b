"""A run over files that was checked and not begun, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from anondata.errors import ArgumentError
from anondata.loaders._cores import shared_threads, usable_cores
from anondata.loaders.files.journal import FILE, Header, Journal
from anondata.loaders.files.naming import expected_name
from anondata.loaders.files.output import INSIGHTS, MANIFEST, REPORT, OutputFolder
from anondata.sources import WORK_FOLDER, Listing, Source

if TYPE_CHECKING:
    from anondata.anonymizer import Anonymizer
    from anondata.ledger import Account
    from anondata.loaders.files.regions import Boxes
    from anondata.loaders.files.run import Names, Run
    from anondata.report import Report

# One picture at a time on a CPU: with a worker for each core, batches of 1, 2, 4 and 8 gave 11.6, 11.6, 11.1 and 11.0
# images a second (2 cores, 24 scenes, median of 4), at 0.14 s of CPU time each. One takes the least memory, and no
# result can depend on its neighbours. A GPU wants batches; 8 is not measured.
BATCH_CPU, BATCH_CUDA = 1, 8
WORKERS_CUDA = 4


@dataclass(frozen=True)
class Files:
    """What a run left behind. After an interruption or an error the same call goes on.

    Args:
        samples: how many sources this run was to do: released, withheld and not reached.
        released: how many are released now, whichever run did the work.
        withheld: how many are withheld now, by reason.
        skipped: how many of both an earlier run did.
        not_reached: how many an interruption or a failure left over.
        regions: how many regions were changed in the released samples.
        others: files in the sources that are not images and were left alone, by suffix.
        hidden: how many hidden files were left alone.
        orphans: outputs that an earlier run released from sources that this one does not name; left in the folder.
        unknown: files in the folder that no run wrote and nobody verified.
        seconds: how long this run worked.
        report: the report over the whole folder; None if the run did not come to its end.
        report_path: where the report lies.
        first_withheld: why this run withheld its first sample, for people.
        interrupted: whether Ctrl-C stopped the run.
        error: what stopped the run.
    """

    samples: int
    released: int
    withheld: Mapping[str, int]
    skipped: int
    not_reached: int
    regions: int
    others: Mapping[str, int]
    hidden: int
    orphans: int
    unknown: int
    seconds: float
    report: Report | None
    report_path: Path | None
    first_withheld: str = ""
    interrupted: bool = False
    error: Exception | None = None


@dataclass(frozen=True)
class FilesJob:
    """A run that was checked as far as that is possible without reading a picture.

    Args:
        chosen: the sources that this run is to do, of all that are listed.
        texts: an editor's insights, by the names of sources.
        regions: boxes, by the names of sources; None if none were given.
    """

    anonymizer: Anonymizer
    listing: Listing
    chosen: tuple[Source, ...]
    out: Path
    rename: bool = False
    insights: bool = False
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)
    regions: Mapping[str, Boxes] | None = field(default=None, repr=False)
    account: Account | None = None
    workers: int = 1
    overwrite: bool = False

    def done(self) -> int:
        """How many sources an earlier run did, which this one would skip. Writes nothing.

        Raises:
            ArgumentError: the earlier run had another policy, key or naming.
        """
        from anondata.loaders.files.run import is_done

        if self.overwrite:
            return 0
        names, journal = self._bookkeeping()
        entries = ((journal.entries.get(names.sample(s)), s) for s in self.chosen)
        folder = OutputFolder(self.out)
        return sum(is_done(entry, names.version(s), folder) for entry, s in entries if entry)

    def run(
        self,
        *,
        progress: Callable[[int, int], None] = lambda done, withheld: None,
        on_withheld: Callable[[Source, str], None] = lambda source, reason: None,
    ) -> Files:
        """Does what is not done yet.

        Args:
            progress: called every now and then with how many samples are done, and how many of them are withheld.
            on_withheld: called with every source that is withheld, and why; also for those of earlier runs.

        Returns:
            What was done, and what stopped the run, if anything did.

        Raises:
            ArgumentError: another run is writing into the folder, or earlier ones had another setting.
            OutputError: the folder cannot be written.
        """
        with OutputFolder(self.out) as folder:
            names, journal = self._bookkeeping(folder)
            with shared_threads(self.workers):
                run = self._run(folder, names, journal, on_withheld)
                run.go(progress)
            stopped = run.error is not None or run.interrupted
            report, strangers = (None, 0) if stopped else self._finish(run)
            return self._result(run, report, strangers)

    def _run(
        self, folder: OutputFolder, names: Names, journal: Journal, on_withheld: Callable[[Source, str], None]
    ) -> Run:
        from anondata.loaders.files.run import Run

        return Run(
            anonymizer=self.anonymizer,
            folder=folder,
            journal=journal,
            names=names,
            sources=self.chosen,
            workers=min(self.workers, len(self.chosen)),
            batch=BATCH_CPU if self.anonymizer.device.type == "cpu" else BATCH_CUDA,
            on_withheld=on_withheld,
            account=self.account,
        )

    def _bookkeeping(self, folder: OutputFolder | None = None) -> tuple[Names, Journal]:
        """Names and the journal. With a folder, which must be locked, the journal is made ready to be written."""
        from anondata.loaders.files.run import Names

        key, sources = self.anonymizer.run_key, self.listing.sources
        header = Header(self.anonymizer.report([]).setting, key.name("journal"), self.rename, self.insights)
        path = self.out / WORK_FOLDER / FILE
        if folder and self.overwrite:
            for entry in Journal.read_any(path).entries.values():
                if entry.output:
                    folder.remove(entry.output)
            folder.remove(f"{WORK_FOLDER}/{FILE}")
        journal = Journal.read(path, header, key)
        if self.regions is None and any(entry.given for entry in journal.entries.values()):
            raise ArgumentError(
                "DST was written with --regions, and without them less would be anonymized; give the file again, "
                "choose another folder, or --overwrite to do everything again"
            )
        taken = frozenset() if self.rename else frozenset(n for s in sources for n in (s.name, expected_name(s.name)))
        names = Names(key, self.rename, taken, self.regions)
        if folder:
            for name in (REPORT, INSIGHTS, MANIFEST):  # they would not be about this run while that is going on
                folder.remove(name)
            journal.open()
            _remove_outdated(sources, names, journal, folder)
        return names, journal

    def _finish(self, run: Run) -> tuple[Report, int]:
        """Writes what tells of the whole folder; returns the report, and how many files no run wrote.

        The manifest comes last, so that nothing unfinished has one.
        """
        from anondata.loaders.files.run import SCHEMA, WITH_INSIGHTS
        from anondata.manifest import Manifest, software

        self._forget_changed(run)
        listed = {run.names.sample(source) for source in self.listing.sources}
        report = run.journal.report(
            self.anonymizer.report([]),
            lambda key, entry: run.folder.has(entry.output) if entry.released else key in listed,
        )
        run.folder.write(REPORT, report.to_json().encode())
        if self.insights:
            self._write_insights(run)
        strangers = _strangers(run)
        # Whatever else tells of the folder is written above: the manifest lists it.
        schema = WITH_INSIGHTS if self.insights else SCHEMA
        manifest = Manifest(self.anonymizer.policy, report, run.outputs(), schema.fields, "images", software())
        run.folder.write(MANIFEST, manifest.sealed(self.anonymizer.run_key).to_json().encode())
        return report, strangers

    def _forget_changed(self, run: Run) -> None:
        """Leaves out results that this run had no reason to look at, and that are not what was written any more."""
        seen = {run.names.sample(source) for source in self.chosen}
        for key, entry in list(run.journal.entries.items()):
            own = key in seen or not entry.released or not run.folder.has(entry.output)
            if not own and run.folder.digest(entry.output) != entry.sha256:
                del run.journal.entries[key]

    def _write_insights(self, run: Run) -> None:
        """metadata.jsonl: a line for each output that lies in the folder, by which `datasets` finds its insights."""
        written = {run.names.of(name): text for name, text in self.texts.items()}
        lines = []
        for key, output, text in run.journal.insights():
            if run.folder.has(output):
                body = {"file_name": output, "insights": f"{text} {written.get(key, '')}".strip()}
                lines.append((output, json.dumps(body) + "\n"))
        run.folder.write(INSIGHTS, "".join(line for _, line in sorted(lines)).encode())

    def _result(self, run: Run, report: Report | None, strangers: int) -> Files:
        tally = run.tally
        listed = {run.names.sample(source) for source in self.listing.sources}
        entries = run.journal.entries.items()
        return Files(
            samples=len(self.chosen),
            released=tally.released,
            withheld=dict(tally.withheld),
            skipped=tally.skipped,
            not_reached=len(self.chosen) - tally.done,
            regions=tally.regions,
            others=self.listing.others,
            hidden=self.listing.hidden,
            orphans=sum(e.released and k not in listed and run.folder.has(e.output) for k, e in entries),
            unknown=strangers,
            seconds=run.seconds,
            report=report,
            report_path=run.folder.path / REPORT if report else None,
            first_withheld=run.first_withheld,
            interrupted=run.interrupted,
            error=run.error,
        )


def _remove_outdated(sources: Sequence[Source], names: Names, journal: Journal, folder: OutputFolder) -> None:
    """Removes results that were made with other boxes than are given now. This run may not come to make them again:
    of a source that cannot be read, or beyond ``limit``, what was marked since would stay to be seen."""
    for source in sources:
        entry = journal.entries.get(names.sample(source))
        if entry and entry.output and entry.given != names.given(source) and names.may_have(source, entry.output):
            folder.remove(entry.output)


def _strangers(run: Run) -> int:
    """How many files in DST no run wrote. One named as a source's output is removed: it could be raw."""
    outputs = frozenset(entry.output for entry in run.journal.entries.values() if entry.released)
    left = 0
    for name in list(run.folder.strangers(outputs)):
        if name in run.names.taken:
            run.folder.remove(name)
        else:
            left += 1
    return left


def default_workers(device: str) -> int:
    """How many threads keep a device busy."""
    return usable_cores() if device == "cpu" else WORKERS_CUDA
