"""A job: everything that ``anondata anonymize`` was asked for, and how it is carried out."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anondata.errors import AnondataError, OutputError, PolicyError
from anondata.keys import run_key
from anondata.loaders._cores import usable_cores as usable_cores  # for doctor and audit, too
from anondata.loaders.files.journal import FILE, Header, Journal
from anondata.loaders.files.naming import expected_name
from anondata.loaders.files.output import INSIGHTS, MANIFEST, REPORT, WORK_FOLDER, OutputFolder
from anondata.loaders.files.regions import Boxes
from anondata.sources import Listing, Source, others_in_words
from anondata.tools import cli
from anondata.tools._progress import prepared, progress
from anondata.tools._summary import Summary

if TYPE_CHECKING:
    from rich.console import Console

    from anondata.loaders.files.run import Names, Run
    from anondata.loaders.quota import Quota
    from anondata.policy import Policy
    from anondata.randomness import RunKey
    from anondata.report import Report
    from anondata.verifiers.gallery.file import AnyGallery

# One picture at a time on a CPU: with a worker for each core, batches of 1, 2, 4 and 8 gave 11.6, 11.6, 11.1 and 11.0
# images a second (2 cores, 24 scenes, median of 4), at 0.14 s of CPU time each. One takes the least memory, and no
# result can depend on its neighbours. A GPU wants batches; 8 is not measured.
BATCH_CPU, BATCH_CUDA = 1, 8
WORKERS_CUDA = 4


@dataclass(frozen=True)
class Job:
    """What the command line asks for, checked as far as that goes without reading a picture."""

    policy: Policy
    galleries: Mapping[str, AnyGallery]
    device: str
    listing: Listing
    chosen: tuple[Source, ...]
    out: Path
    key_file: Path | None
    rename: bool
    insights: bool
    editor_insights: Mapping[str, str]
    regions: Mapping[str, Boxes] | None
    quota: Quota
    workers: int
    overwrite: bool
    as_json: bool
    list_withheld: Path | None

    def empty_report(self) -> Report:
        from anondata.report import empty_report

        return empty_report(self.policy, {name: gallery.fingerprint for name, gallery in self.galleries.items()})


def rehearse(job: Job) -> int:
    """``--dry-run``: says what would be done, and does nothing of it."""
    from anondata.loaders.files.run import is_done
    from anondata.policy_words import in_words

    key, done = run_key(job.out, job.key_file, create=False), 0
    if key and not job.overwrite:
        names, journal = _bookkeeping(job, key)
        entries = ((journal.entries.get(names.sample(s)), s) for s in job.chosen)
        folder = OutputFolder(job.out)
        done = sum(is_done(entry, names.version(s), folder) for entry, s in entries if entry)
    listing = job.listing
    if job.as_json:
        left = {"other_files": listing.other_files, "hidden": listing.hidden}
        body = {"format": "anondata.dry_run/1", "policy": job.policy.name, "fingerprint": job.policy.fingerprint}
        click.echo(json.dumps({**body, "samples": len(job.chosen), "skipped_done": done, "left_alone": left}))
        return cli.OK
    for line in in_words(job.policy):
        click.echo(line)
    for name, gallery in sorted(job.galleries.items()):
        click.echo(f"gallery {name}: {gallery.counted} ({gallery.fingerprint})")
    click.echo(f"{len(job.chosen)} samples, of which {done} are done and would be skipped")
    click.echo(f"left alone: {others_in_words(listing.others, listing.hidden)}")
    click.echo(f"{job.workers} worker(s) on {job.device}")
    return cli.OK


def execute(job: Job) -> int:
    """Runs the job and returns the exit code."""
    from rich.console import Console

    key = run_key(job.out, job.key_file)
    if key is None:  # pragma: no cover - it is made when it is not there
        raise OutputError("there is no run key")
    console, withheld = Console(stderr=True), list[tuple[str, str]]()
    with OutputFolder(job.out) as folder:
        names, journal = _bookkeeping(job, key, folder)
        with _torch_threads(job):
            run = _run(job, key, folder, names, journal, withheld)
            prepared(run.anonymizer, console)
            with progress(console, len(job.chosen)) as show:
                run.go(show)
        report, strangers = _finish(job, run, key) if not run.error and not run.interrupted else (None, 0)
        _write_list(job, withheld)
        summary = _summarize(job, run, report, strangers)
    _tell(job, summary, console)
    if run.error:
        raise run.error
    return summary.exit_code


def _run(
    job: Job, key: RunKey, folder: OutputFolder, names: Names, journal: Journal, withheld: list[tuple[str, str]]
) -> Run:
    from anondata.anonymizer import Anonymizer
    from anondata.loaders.files.run import Run
    from anondata.loaders.quota import account_of

    def note(source: Source, reason: str) -> None:
        if job.list_withheld:
            withheld.append((reason, source.place))

    anonymizer = Anonymizer(job.policy, device=job.device, run_key=key, galleries=job.galleries)
    return Run(
        anonymizer=anonymizer,
        folder=folder,
        journal=journal,
        names=names,
        sources=job.chosen,
        workers=min(job.workers, len(job.chosen)),
        batch=BATCH_CPU if job.device == "cpu" else BATCH_CUDA,
        on_withheld=note,
        account=account_of(job.quota, anonymizer),
    )


def _bookkeeping(job: Job, key: RunKey, folder: OutputFolder | None = None) -> tuple[Names, Journal]:
    """Names and the journal; with a folder, which then must be locked, the journal is made ready to be written."""
    from anondata.loaders.files.run import Names

    header = Header(job.empty_report().setting, key.name("journal"), job.rename, job.insights)
    path = job.out / WORK_FOLDER / FILE
    if folder and job.overwrite:
        for entry in Journal.read_any(path).entries.values():
            if entry.output:
                folder.remove(entry.output)
        folder.remove(f"{WORK_FOLDER}/{FILE}")
    journal = Journal.read(path, header, key)
    if job.regions is None and any(entry.given for entry in journal.entries.values()):
        raise click.UsageError(
            "DST was written with --regions, and without them less would be anonymized; give the file again, choose "
            "another folder, or --overwrite to do everything again"
        )
    sources = job.listing.sources
    taken = frozenset() if job.rename else frozenset(n for s in sources for n in (s.name, expected_name(s.name)))
    names = Names(key, job.rename, taken, job.regions)
    if folder:
        for name in (REPORT, INSIGHTS, MANIFEST):  # they would not be about this run while that is going on
            folder.remove(name)
        journal.open()
        _remove_outdated(sources, names, journal, folder)
    return names, journal


def _remove_outdated(sources: Sequence[Source], names: Names, journal: Journal, folder: OutputFolder) -> None:
    """Removes results that were made with other boxes than are given now. This run may not come to make them again:
    of a source that cannot be read, or beyond ``--limit``, what was marked since would stay to be seen."""
    for source in sources:
        entry = journal.entries.get(names.sample(source))
        if entry and entry.output and entry.given != names.given(source) and names.may_have(source, entry.output):
            folder.remove(entry.output)


def _finish(job: Job, run: Run, key: RunKey) -> tuple[Path, int]:
    """Writes what tells of the whole folder; returns where the report is, and how many files no run wrote.

    The manifest comes last, so that nothing unfinished has one.
    """
    from anondata.loaders.files.run import SCHEMA, WITH_INSIGHTS
    from anondata.manifest import Manifest, software

    _forget_changed(job, run)
    listed = {run.names.sample(source) for source in job.listing.sources}
    report = run.journal.report(
        job.empty_report(),
        lambda key, entry: run.folder.has(entry.output) if entry.released else key in listed,
    )
    run.folder.write(REPORT, report.to_json().encode())
    if job.insights:
        _write_insights(job, run)
    strangers = _strangers(run)
    # Whatever else tells of the folder is written above: the manifest lists it.
    schema = WITH_INSIGHTS if job.insights else SCHEMA
    manifest = Manifest(job.policy, report, run.outputs(), schema.fields, "images", software())
    run.folder.write(MANIFEST, manifest.sealed(key).to_json().encode())
    return run.folder.path / REPORT, strangers


def _forget_changed(job: Job, run: Run) -> None:
    """Leaves out results that this run had no reason to look at, and that are not what was written any more."""
    seen = {run.names.sample(source) for source in job.chosen}
    for key, entry in list(run.journal.entries.items()):
        own = key in seen or not entry.released or not run.folder.has(entry.output)
        if not own and run.folder.digest(entry.output) != entry.sha256:
            del run.journal.entries[key]


def _write_insights(job: Job, run: Run) -> None:
    """metadata.jsonl: a line for each output that lies in the folder, by which `datasets` finds its insights."""
    written = {run.names.of(name): text for name, text in job.editor_insights.items()}
    lines = []
    for key, output, text in run.journal.insights():
        if run.folder.has(output):
            body = {"file_name": output, "insights": f"{text} {written.get(key, '')}".strip()}
            lines.append((output, json.dumps(body) + "\n"))
    run.folder.write(INSIGHTS, "".join(line for _, line in sorted(lines)).encode())


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


def _summarize(job: Job, run: Run, report: Path | None, strangers: int) -> Summary:
    tally, own = run.tally, run.tally.done - run.tally.skipped
    listed = {run.names.sample(source) for source in job.listing.sources}
    orphans = sum(e.released and k not in listed and run.folder.has(e.output) for k, e in run.journal.entries.items())
    code = cli.FAILURE if strangers else cli.SOME_WITHHELD if tally.withheld else cli.OK
    return Summary(
        policy=job.policy.name,
        fingerprint=job.policy.fingerprint,
        samples=len(job.chosen),
        released=tally.released,
        withheld=dict(tally.withheld),
        skipped_done=tally.skipped,
        not_reached=len(job.chosen) - tally.done,
        regions=tally.regions,
        others=job.listing.others,
        hidden=job.listing.hidden,
        outputs_without_source=orphans,
        unknown_files=strangers,
        seconds=round(run.seconds, 3),
        images_per_s=round(own / run.seconds, 3) if own and run.seconds else None,
        report=str(report) if report else None,
        exit_code=_error_code(run.error) if run.error else cli.INTERRUPTED if run.interrupted else code,
        first_withheld=run.first_withheld,
        error=_error_words(run.error)
        or ("interrupted; the same command goes on from here" if run.interrupted else None),
    )


def _error_code(error: Exception) -> int:
    return cli.USAGE if isinstance(error, PolicyError) else cli.FAILURE


def _error_words(error: Exception | None) -> str | None:
    if error is None:
        return None
    return str(error) if isinstance(error, AnondataError) else type(error).__name__


def _tell(job: Job, summary: Summary, console: Console) -> None:
    summary.show(console)
    if summary.withheld and not job.list_withheld:
        console.print("which ones: the same command with --list-withheld FILE, outside of DST")
    if job.as_json:
        click.echo(json.dumps(summary.to_json()))
    if summary.exit_code == cli.INTERRUPTED:
        console.print(summary.error)


def _write_list(job: Job, withheld: list[tuple[str, str]]) -> None:
    if job.list_withheld:
        # JSON strings: a name may hold a tab, a line break, or bytes that are no text.
        lines = [f"{reason}\t{json.dumps(place)}\n" for reason, place in sorted(withheld)]
        with open(os.open(job.list_withheld, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.writelines(lines)


@contextlib.contextmanager
def _torch_threads(job: Job) -> Iterator[None]:
    """Divides the cores between the workers; networks take their number of threads when they are loaded."""
    import torch

    before = torch.get_num_threads()
    if job.workers > 1:
        torch.set_num_threads(max(1, usable_cores() // job.workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_workers(device: str) -> int:
    """How many threads keep a device busy."""
    return usable_cores() if device == "cpu" else WORKERS_CUDA
