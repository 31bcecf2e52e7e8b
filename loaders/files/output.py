"""The output folder: one run at a time, and files that are there whole or not at all.

::

    DST/photo.jpg ...             what was released
    DST/report.json               numbers of the whole folder; there only when the last run came to its end
    DST/metadata.jsonl            insights, where they were asked for; likewise
    DST/.anondata/journal.jsonl   what is done, see `anondata.loaders.files.journal`
    DST/.anondata/manifest.json   every output with its sha256, sealed; there only when the last run came to its end
    DST/.anondata/lock, tmp/      of the run at hand
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from anondata._files import open_plain
from anondata.errors import ArgumentError, OutputError
from anondata.sources import WORK_FOLDER

REPORT = "report.json"
MANIFEST = f"{WORK_FOLDER}/manifest.json"  # as `anondata.manifest.FILE`, which needs pydantic to be imported
INSIGHTS = "metadata.jsonl"  # the name by which `datasets` adds columns to a folder of images
CARD = ("README.md", "croissant.json")  # which `anondata card` writes into an output

# Errors that concern one output and its name. All others (disk full, read-only, I/O) would hit the next sample, too.
_OF_ONE_SAMPLE = {
    errno.ENAMETOOLONG,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EINVAL,
    errno.EILSEQ,
    errno.ELOOP,
}


class NameRefused(OutputError):
    """One output cannot have the name it should have; others can be written."""


def enclosing_output(path: Path) -> Path | None:
    """The output folder that a path lies in, or None."""
    return next((p for p in (path.resolve(), *path.resolve().parents) if (p / WORK_FOLDER).is_dir()), None)


def check_usable(out: Path, *, overwrite: bool) -> None:
    """Raises ``ArgumentError`` for an output folder that is a file, or that holds files of somebody else."""
    if out.exists() and not out.is_dir():
        raise ArgumentError("DST is a file; it must be a folder")
    if out.is_dir() and not overwrite and not (out / WORK_FOLDER).is_dir() and any(out.iterdir()):
        raise ArgumentError(
            "DST holds files that no run of anondata wrote; choose an empty folder, or --overwrite to write into it"
        )


def write_whole(path: Path, data: bytes, *, what: str, mode: int = 0o666) -> None:
    """Writes one file whole or not at all. what: what messages call it. mode: permissions, before the umask.

    Raises: OutputError.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"{what} cannot be written: {error.strerror}") from error


class OutputFolder:
    """An output folder, locked while the context lasts.

    Raises:
        ArgumentError: another run is writing into the folder.
        OutputError: the folder cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.work = self.path / WORK_FOLDER
        self._temps = self.work / "tmp"
        self._lock = -1

    def __enter__(self) -> OutputFolder:
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.work / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                raise ArgumentError(
                    "another run is writing into DST; wait for it, or choose another folder"
                ) from None
            shutil.rmtree(self._temps, ignore_errors=True)  # of a run that was killed
            self._temps.mkdir()
        except OSError as error:
            raise OutputError(f"DST cannot be written: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._temps, ignore_errors=True)
        os.close(self._lock)

    def write(self, name: str, data: bytes) -> bytes:
        """Writes a file under a name below the folder, and returns its sha256.

        Raises:
            NameRefused: this file cannot be written.
            OutputError: no file can be written now, for example because the disk is full.
        """
        target = self.path / name
        temp = self._temps / secrets.token_hex(8)
        try:
            self._make_parent(target.parent)
            with open(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temp, target)
        except OSError as error:
            temp.unlink(missing_ok=True)
            if isinstance(error, OutputError):
                raise
            if error.errno in _OF_ONE_SAMPLE:
                raise NameRefused(f"the output cannot be written: {error.strerror}") from error
            raise stopped(error) from error
        return hashlib.sha256(data).digest()

    def _make_parent(self, folder: Path) -> None:
        """Makes the folders above an output; a link that leads out of DST could lead to the originals."""
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.resolve().is_relative_to(self.path):
            raise NameRefused("a link in DST leads out of it")

    def _is_inside(self, name: str) -> bool:
        return (self.path / name).parent.resolve().is_relative_to(self.path)

    def digest(self, name: str) -> bytes | None:
        """The sha256 of a file below the folder, or None where there is none."""
        if not self._is_inside(name):
            return None
        try:
            with open_plain(self.path / name) as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError:
            return None

    def has(self, name: str) -> bool:
        return self._is_inside(name) and (self.path / name).is_file()

    def size(self, name: str) -> int:
        return (self.path / name).stat().st_size

    def strangers(self, known: frozenset[str]) -> Iterator[str]:
        """Names of files below the folder that are none of the known outputs, nor anondata's own."""
        known |= {REPORT, INSIGHTS, *CARD}
        for folder, folders, files in os.walk(self.path):
            folders[:] = [f for f in folders if Path(folder, f) != self.work]
            below = Path(folder).relative_to(self.path)
            links = [f for f in folders if Path(folder, f).is_symlink()]
            yield from (name for f in (*files, *links) if (name := str(below / f)) not in known)

    def remove(self, name: str) -> None:
        """Removes a file below the folder; one that is not there is fine, one outside of it is left alone."""
        if not self._is_inside(name):
            return
        try:
            (self.path / name).unlink(missing_ok=True)
        except (NotADirectoryError, IsADirectoryError):
            return
        except OSError as error:
            raise stopped(error) from error


def stopped(error: OSError) -> OutputError:
    """What to tell when nothing more can be written."""
    what = "its disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error.strerror)
    return OutputError(f"DST cannot be written: {what}. The same command goes on from here when that is mended")
