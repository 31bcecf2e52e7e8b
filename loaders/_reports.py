"""The report of a run whose samples pass through several processes."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import weakref
from pathlib import Path

from anondata.report import Report, from_json


class Reports:
    """Adds up the reports of all processes that work on one run, such as the workers of a DataLoader.

    Each process keeps a file of its own in one folder, replaced whole after every batch, so that nothing is counted
    twice or lost when a worker ends or is killed. Copies of one object (by fork or pickle) share the folder.

    Args:
        folder: where the files lie; give one that all machines share when there are several. Left out, a temporary
            one is made on first use and removed with the object that made it.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        name = f"anondata-{secrets.token_hex(8)}"
        self.folder = Path(folder) if folder is not None else Path(tempfile.gettempdir()) / name
        self._begin()
        if folder is None:
            weakref.finalize(self, _remove, self.folder, os.getpid())

    def _begin(self) -> None:
        self._process, self._own, self._lock = os.getpid(), None, threading.Lock()
        self._file = f"{os.getpid()}-{secrets.token_hex(8)}.json"

    def __reduce__(self) -> tuple[object, ...]:
        return (Reports, (self.folder,))

    def add(self, report: Report) -> Report:
        """Adds to this process's part, and returns that."""
        if self._process != os.getpid():  # what the parent counted before the fork is in the parent's file
            self._begin()
        with self._lock:
            self._own = report if self._own is None else self._own + report
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = self.folder / f".{self._file}"
            part.write_text(self._own.to_json())
            os.replace(part, self.folder / self._file)
            return self._own

    def total(self, empty: Report) -> Report:
        """The report over all processes, as far as they are; ``empty`` is that of a run that did nothing yet.

        Raises:
            ReportError: when the folder holds reports of another policy or gallery.
        """
        for path in sorted(self.folder.glob("[!.]*.json")):
            empty = empty + from_json(path.read_text())
        return empty

    _own: Report | None
    _process: int
    _lock: threading.Lock
    _file: str


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
