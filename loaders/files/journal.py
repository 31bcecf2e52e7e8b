"""The journal of an output folder: what is done, so that a second run does only the rest.

One JSON object a line, the first a header. Sources appear as keyed hashes only; a line is appended after its output
lies in its place, so a kill between the two costs one sample's work and nothing else. A later line about the same
source replaces the earlier one. Each line has a seal by the run key: what somebody else wrote there, who may write
into the folder and has no key, is not taken for done.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from anondata._files import open_plain
from anondata.errors import ArgumentError, OutputError
from anondata.loaders.files.output import stopped

if TYPE_CHECKING:
    from anondata.randomness import RunKey
    from anondata.report import Report

FORMAT = "anondata.journal/1"
FILE = "journal.jsonl"

# A withheld sample is not tried again, except for reasons that may have gone away since.
TRANSIENT = frozenset({"unreadable", "unwritable", "error"})


@dataclass(frozen=True)
class Header:
    """What all runs on one folder must share. check: tells run keys apart without telling them."""

    policy: str
    check: str
    rename: bool
    insights: bool = False

    def line(self) -> dict[str, Any]:
        told = {"policy": self.policy, "key": self.check, "rename": self.rename, "insights": self.insights}
        return {"format": FORMAT, **told}


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What is known of one source. output: its path below the folder, empty where the sample was withheld.

    version: of the source and its given boxes, keyed. sha256: of the output. given: stands for such boxes, if any.
    at: where in the journal the line begins, set by it.
    """

    version: bytes
    reason: str = ""
    output: str = ""
    sha256: bytes = b""
    regions: int = 0
    given: bytes = b""
    at: int = -1

    @property
    def released(self) -> bool:
        return not self.reason


@dataclass
class Journal:
    """The entries of an output folder by source, and the file that they are kept in.

    Counts of the report are not held in memory, but read again at the end. key: whose seal lines must have; None:
    any line is read, and none can be written.
    """

    path: Path
    header: Header
    key: RunKey | None = field(repr=False)
    entries: dict[bytes, JournalEntry] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, header: Header, key: RunKey) -> Journal:
        """The journal of a folder, empty where there is none. Writes nothing.

        Raises: ArgumentError where the earlier runs had another policy, key or naming.
        """
        journal = cls(path, header, key)
        lines = journal._lines()
        first = next(lines, None)
        if first is not None:
            journal._check(first[1])
            journal.entries = {key: entry for key, entry, _ in journal._entries()}
        return journal

    @classmethod
    def read_any(cls, path: Path) -> Journal:
        """The journal of a folder whatever policy and key it is of: for finding what earlier runs wrote."""
        journal = cls(path, Header("", "", rename=False), None)
        journal.entries = {key: entry for key, entry, _ in journal._entries()}
        return journal

    def open(self) -> None:
        """Makes the file ready to be appended to: a line that a kill cut short is taken away."""
        try:
            if not self.path.exists():
                self._write(self.header.line())
                return
            with open_plain(self.path, write=True) as file:
                file.truncate(_whole(file))
        except OSError as error:
            raise stopped(error) from error
        if not self.path.stat().st_size:
            self._write(self.header.line())

    def append(self, key: bytes, entry: JournalEntry, counts: Any, insights: str = "") -> None:
        """Adds what became of a source. Not to be called from two threads at once.

        Raises: OutputError.
        """
        line = {
            "key": key.hex(),
            "version": entry.version.hex(),
            "outcome": "released" if entry.released else "withheld",
            "reason": entry.reason,
            "output": entry.output,
            "sha256": entry.sha256.hex(),
            "regions": entry.regions,
            "counts": counts,
            **({"given": entry.given.hex()} if entry.given else {}),
            **({"insights": insights} if self.header.insights else {}),
        }
        self.entries[key] = replace(entry, at=self._write({**line, "seal": self._seal(line)}))

    def report(self, empty: Report, counted: Callable[[bytes, JournalEntry], bool]) -> Report:
        """The report over all entries that count, whichever run they are of. empty: the report of none."""
        total = empty
        for key, entry, line in self._entries():
            if self.entries.get(key) == entry and counted(key, entry):
                total = total + replace(empty, counts=line["counts"])
        return total

    def insights(self) -> Iterator[tuple[bytes, str, str]]:
        """What was told of each source that is released: what stands for it, its output, and the text."""
        for key, entry, line in self._entries():
            if entry.released and self.entries.get(key) == entry:
                yield key, entry.output, str(line.get("insights", ""))

    def _seal(self, line: dict[str, Any]) -> str:
        """Stands for a line and for what all lines of the journal share."""
        if self.key is None:
            raise ValueError("a journal without its run key cannot be written")
        shared = [self.header.policy, self.header.rename, self.header.insights]
        return self.key.name("journal line", json.dumps([shared, line], sort_keys=True))

    def _entries(self) -> Iterator[tuple[bytes, JournalEntry, dict[str, Any]]]:
        """Every entry with what stands for its source, and its line, in order; only those with the key's seal."""
        for at, line in self._lines():
            read = _entry(line, at)
            if read and self._is_ours(line):
                yield *read, line

    def _is_ours(self, line: dict[str, Any]) -> bool:
        if self.key is None:
            return True
        told = {name: value for name, value in line.items() if name != "seal"}
        return hmac.compare_digest(str(line.get("seal")).encode(errors="replace"), self._seal(told).encode())

    def _write(self, line: Any) -> int:
        """Appends a line in one write and returns where it begins; what was half written is taken back."""
        data = json.dumps(line, sort_keys=True).encode() + b"\n"
        try:
            with self.path.open("ab", buffering=0) as file:
                at = file.tell()
                try:
                    whole = file.write(data) == len(data)
                except OSError:
                    file.truncate(at)
                    raise
                if not whole:
                    file.truncate(at)
                    raise OutputError("DST cannot be written: its disk is full")
                return at
        except OutputError:
            raise
        except OSError as error:
            raise stopped(error) from error

    def _lines(self) -> Iterator[tuple[int, Any]]:
        """Every line that is whole, with where it begins. What is no JSON is left out: its sample is done again."""
        try:
            opened = open_plain(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise OutputError(f"DST's journal cannot be read: {error.strerror}") from error
        at = 0
        with opened as file:
            for raw in file:
                begin, at = at, at + len(raw)
                try:
                    line = json.loads(raw) if raw.endswith(b"\n") else None
                except (ValueError, RecursionError):
                    line = None
                if line is not None or (begin == 0 and at > 1 and raw.endswith(b"\n")):
                    yield begin, line

    def _check(self, line: Any) -> None:
        ways = "choose another folder, or --overwrite to do everything again"
        if not isinstance(line, dict) or line.get("format") != FORMAT:
            raise ArgumentError(f"DST's journal cannot be read; {ways}")
        if line.get("key") != self.header.check:
            raise ArgumentError(
                f"DST was written with another run key, or has been moved since; give its --key-file, {ways}"
            )
        if line.get("policy") != self.header.policy:
            raise ArgumentError(f"DST was written by another policy, or with other galleries; {ways}")
        if line.get("rename") != self.header.rename:
            raise ArgumentError(f"DST was written {'without' if self.header.rename else 'with'} --rename; {ways}")
        if line.get("insights", False) != self.header.insights:
            said = "without" if self.header.insights else "with"
            raise ArgumentError(f"DST was written {said} --insights; {ways}")


def _entry(line: Any, at: int) -> tuple[bytes, JournalEntry] | None:
    try:
        inside = PurePosixPath(line["output"])
        if inside.is_absolute() or ".." in inside.parts or not isinstance(line["counts"], dict):
            return None
        return bytes.fromhex(line["key"]), JournalEntry(
            version=bytes.fromhex(line["version"]),
            reason=str(line["reason"]),
            output=str(line["output"]),
            sha256=bytes.fromhex(line["sha256"]),
            regions=int(line["regions"]),
            given=bytes.fromhex(line.get("given", "")),
            at=at,
        )
    except (KeyError, TypeError, ValueError):
        return None  # the header, or a line of which nothing can be made


def _whole(file: IO[bytes]) -> int:
    """How many bytes of a journal are whole lines; looked for from its end."""
    end = file.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - (1 << 16))
        file.seek(begin)
        last = file.read(end - begin).rfind(b"\n")
        if last >= 0:
            return begin + last + 1
        end = begin
    return 0
