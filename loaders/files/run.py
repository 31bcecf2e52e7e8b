"""The run itself: worker threads that take sources, anonymize them, and write what was released.

Every thread reads, anonymizes, writes and journals samples of its own, a micro-batch at a time, so no more than
``workers * batch`` samples are in memory however long the list is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anondata.errors import LedgerError
from anondata.ledger.costs import cost_of
from anondata.loaders.files.journal import TRANSIENT, Journal, JournalEntry
from anondata.loaders.files.naming import expected_name, with_suffix, written_suffix
from anondata.loaders.files.output import INSIGHTS as INSIGHTS_FILE
from anondata.loaders.files.output import NameRefused, OutputFolder
from anondata.loaders.files.regions import FIELD, Boxes
from anondata.records import Released, SampleRecord, Withheld
from anondata.samples import INSIGHTS, REGIONS, Sample, Schema
from anondata.sources import Source

if TYPE_CHECKING:
    from anondata.anonymizer import Anonymizer
    from anondata.ledger import Account
    from anondata.manifest import FileDigest
    from anondata.randomness import RunKey
    from anondata.records import Outcome

SCHEMA = Schema({"image": "image"})
TOLD = "insights"
WITH_INSIGHTS = Schema({"image": "image", TOLD: INSIGHTS})
GIVEN = {FIELD: REGIONS}  # only where somebody gave some; never part of an output
POLL_S = 0.1


@dataclass(frozen=True)
class Names:
    """Keyed stand-ins for a source's name and version, and the names of outputs.

    taken: output names that belong to a source of the list, so that no other may end up with one.
    regions: boxes by the names of sources. They are part of a source's version, so that others are done again.
    """

    key: RunKey
    rename: bool
    taken: frozenset[str] = frozenset()
    regions: Mapping[str, Boxes] | None = None

    def sample(self, source: Source) -> bytes:
        """What stands for a source in the journal and in the engine. Names need not be Unicode."""
        return self.of(source.name)

    def of(self, name: str) -> bytes:
        """What stands for a source of that name."""
        return self.key.digest("sample", name.encode("utf-8", "surrogateescape"))[:16]

    def version(self, source: Source) -> bytes | None:
        """What stands for a source's version; None where it cannot be told."""
        boxes = [text] if (text := self.boxes(source).text) else []
        try:
            return self.key.digest("version", source.version(), *boxes)[:16]
        except Exception:  # noqa: BLE001 - storages raise what they like
            return None

    def given(self, source: Source) -> bytes:
        """What stands for the boxes that were given for a source; nothing for none."""
        text = self.boxes(source).text
        return self.key.digest("boxes", text)[:16] if text else b""

    def boxes(self, source: Source) -> Boxes:
        """The boxes that were given for a source."""
        return self.regions[source.name] if self.regions is not None else Boxes()

    def output(self, source: Source, suffix: str) -> str | None:
        """The output's path below DST; None where another source has it."""
        if self.rename:
            return self.key.name("output", source.name.encode("utf-8", "surrogateescape")) + suffix
        name = with_suffix(source.name, suffix)
        return name if self.may_have(source, name) else None

    def may_have(self, source: Source, name: str) -> bool:
        """Whether an output name is the source's own, or nobody's."""
        return name not in self.taken or name in (source.name, expected_name(source.name))


@dataclass
class Tally:
    """Counts of a run while it goes on."""

    released: int = 0
    withheld: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    regions: int = 0

    @property
    def done(self) -> int:
        return self.released + sum(self.withheld.values())

    def add(self, reason: str, regions: int, *, skipped: bool = False) -> None:
        """Counts a sample: released when there is no reason."""
        self.skipped += skipped
        if reason:
            self.withheld[reason] = self.withheld.get(reason, 0) + 1
        else:
            self.released += 1
            self.regions += regions


@dataclass
class Run:
    """One run over some sources.

    on_withheld: told the place and reason of every sample that is withheld. account: what is written is charged to
    it before, if there is one; a limit stops the run.
    """

    anonymizer: Anonymizer
    folder: OutputFolder
    journal: Journal
    names: Names
    sources: Sequence[Source]
    workers: int
    batch: int
    on_withheld: Callable[[Source, str], None]
    account: Account | None = None
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    error: Exception | None = None
    interrupted: bool = False
    first_withheld: str = ""

    def __post_init__(self) -> None:
        self._left: Iterator[Source] = iter(self.sources)
        self._taking = threading.Lock()
        self._telling = threading.Lock()
        self._stop = threading.Event()

    def go(self, show: Callable[[int, int], None]) -> None:
        """Works until all is done, something stops the run (``error``), or Ctrl-C (``interrupted``).

        Samples in work are finished in both cases; a second Ctrl-C does not wait for them.
        """
        start = time.monotonic()
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self.workers)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            try:
                for thread in threads:
                    thread.join(POLL_S)
                show(self.tally.done, sum(list(self.tally.withheld.values())))
            except KeyboardInterrupt:
                if self.interrupted:
                    raise
                self.interrupted = True
                self._stop.set()
        if self.account is not None:
            self._settle_account(self.account)
        self.seconds = time.monotonic() - start

    def _settle_account(self, account: Account) -> None:
        try:
            account.close()
        except LedgerError as error:  # what was reserved then counts as delivered; DST is as good as before
            self.error = self.error or error

    def outputs(self) -> dict[str, FileDigest]:
        """What lies in the folder, as it was when it was written, whichever run wrote it."""
        from anondata.manifest import FileDigest, digest_of

        files = {
            entry.output: FileDigest(entry.sha256.hex(), self.folder.size(entry.output))
            for entry in self.journal.entries.values()
            if entry.released and self.folder.has(entry.output)
        }
        told = self.folder.path / INSIGHTS_FILE  # just written, while the folder is locked
        return {**files, INSIGHTS_FILE: digest_of(told)} if told.is_file() else files

    def _work(self) -> None:
        try:
            schema = WITH_INSIGHTS if self.journal.header.insights else SCHEMA
            if self.names.regions is not None:
                schema = Schema({**schema.fields, **GIVEN})
            while batch := self._gather():
                outcomes = self.anonymizer.run([sample for _, _, sample in batch], schema)
                for (source, version, _), outcome in zip(batch, outcomes, strict=True):
                    self._settle(source, version, outcome)
        except Exception as error:  # noqa: BLE001 - handed to the main thread, which raises it
            with self._telling:
                self.error = self.error or error
            self._stop.set()

    def _gather(self) -> list[tuple[Source, bytes, Sample]]:
        """The next samples that need work, read; fewer than a batch only at the end."""
        batch: list[tuple[Source, bytes, Sample]] = []
        while len(batch) < self.batch and not self._stop.is_set():
            with self._taking:
                source = next(self._left, None)
            if source is None:
                break
            version = self.names.version(source)
            if not self._skip(source, version):
                taken = self._read(source, version)
                batch += [taken] if taken else []
        return batch

    def _skip(self, source: Source, version: bytes | None) -> bool:
        entry = self.journal.entries.get(self.names.sample(source))
        if not entry or not is_done(entry, version, self.folder):
            return False
        self._count(source, entry.reason, entry.regions, skipped=True)
        return True

    def _read(self, source: Source, version: bytes | None) -> tuple[Source, bytes, Sample] | None:
        """The source as a sample; None when it cannot be read, which is counted here."""
        key = self.names.sample(source)
        try:
            if version is not None:
                boxes = {FIELD: self.names.boxes(source).value()} if self.names.regions is not None else {}
                return source, version, Sample(key.hex(), {"image": source.read(), **boxes})
            raise OSError("there is nothing to be read")
        except Exception as error:  # noqa: BLE001 - storages raise what they like; none of it may stop the others
            why = Withheld(key.hex(), "unreadable", f"the source cannot be read: {type(error).__name__}")
        old = self.journal.entries.get(key)
        if old and old.released and self.folder.digest(old.output) == old.sha256:
            # What an earlier run released stays, and stays in the report: the source may be back tomorrow.
            self._count(source, why.reason, 0)
        else:
            self._settle(source, version or b"", why)
        return None

    def _settle(self, source: Source, version: bytes, outcome: Outcome) -> None:
        """Writes what was released, then the journal's line."""
        key, output, digest = self.names.sample(source), "", b""
        if isinstance(outcome, Released):
            outcome, output, digest = self._write(source, outcome)
        old = self.journal.entries.get(key)
        if old and old.output and old.output != output and self.names.may_have(source, old.output):
            self.folder.remove(old.output)
        reason = outcome.reason if isinstance(outcome, Withheld) else ""
        regions = sum(not r.spared for r in outcome.record.regions) if outcome.released else 0
        counts = self.anonymizer.report([outcome]).counts
        told = outcome.sample.fields.get(TOLD, "") if isinstance(outcome, Released) else ""
        entry = JournalEntry(version, reason, output, digest, regions, self.names.given(source))
        with self._telling:
            self.journal.append(key, entry, counts, told)
            if isinstance(outcome, Withheld) and not self.first_withheld:
                self.first_withheld = f"{reason}: {outcome.detail}"
        self._count(source, reason, regions)

    def _write(self, source: Source, outcome: Released) -> tuple[Outcome, str, bytes]:
        data = outcome.image
        if not isinstance(data, bytes):
            raise TypeError(f"the engine released {type(data).__name__} for encoded bytes")
        name = self.names.output(source, written_suffix(data))
        if name is None:
            return _instead(outcome, "name_taken", "its output would have the name of another's"), "", b""
        if self.account is not None:
            self.account.charge([cost_of({"image": data}, SCHEMA, outcome.record)])
        try:
            return outcome, name, self.folder.write(name, data)
        except NameRefused as error:
            return _instead(outcome, "unwritable", str(error)), "", b""

    def _count(self, source: Source, reason: str, regions: int, *, skipped: bool = False) -> None:
        with self._telling:
            self.tally.add(reason, regions, skipped=skipped)
            if reason:
                self.on_withheld(source, reason)


def is_done(entry: JournalEntry, version: bytes | None, folder: OutputFolder) -> bool:
    """Whether nothing is left to do for a source: same version, and its output still what was verified."""
    if version is None or entry.version != version:
        return False
    if not entry.released:
        return entry.reason not in TRANSIENT
    return folder.digest(entry.output) == entry.sha256


def _instead(outcome: Released, reason: str, detail: str) -> Withheld:
    return Withheld(outcome.sample.key, reason, detail, SampleRecord(notes=outcome.record.notes))
