"""Where a request is made: beside its destination, until it is put in place in one rename.

::

    .OUT.request/rows/          what `materialize` writes, and goes on with after a kill
    .OUT.request/output/        the same rows under the names that they get, with a manifest of their own
    .OUT.request/audit.json
    .OUT.request/publication/   all of what will be OUT, complete and checked, or not there
    .OUT.request/request.json   which request this is of, for how many samples, and whether it is being charged
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from anondata.errors import AnondataError, ManifestError, OutputError, RequestError
from anondata.loaders.files.output import write_whole
from anondata.publishing.layout import MANIFEST

if TYPE_CHECKING:
    from anondata.manifest import Manifest
    from anondata.randomness import RunKey

STATE, LOCK = "request.json", "lock"


@dataclass(frozen=True)
class WorkState:
    """request: stands for it by its key. n: how many samples were granted. charging: it may have been charged."""

    request: str
    n: int
    charging: bool = False


class WorkFolder:
    """The work folder of a request, locked while the context lasts. Nothing of it is delivered.

    Raises:
        OutputError: on entering: another request is being met into this place, or it cannot be written.
        RequestError: on entering: OUT is neither empty nor what this request delivered, or another request for
            it waits to be ended.
    """

    def __init__(self, out: Path, key: RunKey) -> None:
        self.out = Path(os.path.abspath(out))
        self.folder = self.out.parent / f".{self.out.name}.request"
        self.rows, self.output, self.publication = (self.folder / n for n in ("rows", "output", "publication"))
        self.audit, self.cache = self.folder / "audit.json", self.folder / "cache"
        self.state: WorkState | None = None
        self._key, self._id = key, key.name("request")
        self._lock = FileLock(self.folder / LOCK, blocking=False)

    def __enter__(self) -> WorkFolder:
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self.folder.chmod(0o700)  # what lies here is not charged, and perhaps not evaluated
            self._lock.acquire()
        except Timeout:
            raise OutputError("another request is being met into OUT; wait for it, or choose another place") from None
        except OSError as error:
            raise OutputError(f"OUT cannot be written: {error.strerror}") from error
        try:
            self._look()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _look(self) -> None:
        """Takes up what an earlier call left, if it was of this request."""
        if not self.is_delivered() and (self.out.is_symlink() or _is_taken(self.out)):
            raise RequestError("OUT is not empty, and not what this request delivered; choose an empty place")
        self.state = self._read()
        if self.state is not None and self.state.request != self._id:
            if (self.publication / MANIFEST).is_file():
                raise RequestError(
                    "another request into OUT was stopped before its end; run that one again, or choose another place"
                )
            self.state = None
        if self.state is None:
            self.wipe()

    def _leave(self) -> None:
        if self.state is None:  # nothing is there that could be gone on with
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def _read(self) -> WorkState | None:
        try:
            return WorkState(**json.loads((self.folder / STATE).read_text()))
        except (OSError, ValueError, TypeError):
            return None  # none, or a damaged one: all is done again, and what was charged is not charged again

    def begin(self, n: int) -> None:
        """Notes how many samples were granted; what was made for another number is removed. Raises: OutputError."""
        if self.state is None or self.state.n != n:
            self.wipe()
            self._note(WorkState(self._id, n))
        for left in self.folder.glob(".anondata-*"):  # publications in the making when an earlier call was killed
            shutil.rmtree(left, ignore_errors=True)

    def charging(self, yes: bool) -> None:
        """Notes that the charge may have been made, or was not. Raises: OutputError."""
        if self.state is not None:
            self._note(replace(self.state, charging=yes))

    def _note(self, state: WorkState) -> None:
        write_whole(self.folder / STATE, json.dumps(asdict(state)).encode(), what="OUT's work folder")
        self.state = state

    def wipe(self) -> None:
        """Removes all that was made so far. Raises: OutputError."""
        try:
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink()
        except OSError as error:
            raise OutputError(f"OUT's work folder cannot be emptied: {error.strerror}") from error

    def is_ready(self) -> bool:
        """Whether all of what will be OUT is there, as this request made it."""
        return self._is_ours(self.publication)

    def is_delivered(self) -> bool:
        """Whether OUT is what this request delivered, unchanged since."""
        return not self.out.is_symlink() and self._is_ours(self.out)

    def _is_ours(self, folder: Path) -> bool:
        from anondata.manifest import differences

        manifest = _manifest_of(folder, self._key)
        return manifest is not None and not differences(manifest, folder, ignored=[MANIFEST])

    def deliver(self) -> None:
        """Puts the publication in place, whole. Raises: OutputError."""
        try:
            os.rename(self.publication, self.out)  # onto an empty folder, too
        except OSError as error:
            raise OutputError(
                f"OUT cannot be put in place: {error.strerror}. It is charged: the same command again puts it there, "
                "and charges nothing"
            ) from error

    def done(self) -> None:
        """OUT is in place: nothing of the work is needed any more."""
        self.state = None


def manifest_of(folder: Path, key: RunKey) -> Manifest:
    """The manifest of a publication that was made with this key. Raises: ManifestError."""
    from anondata.manifest import from_json

    try:
        manifest = from_json((folder / MANIFEST).read_text(), run_key=key)
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError("the publication has no manifest that can be read") from error
    if not manifest.seal_holds(key):
        raise ManifestError("the publication was edited, or is of another request")
    return manifest


def _manifest_of(folder: Path, key: RunKey) -> Manifest | None:
    try:
        return manifest_of(folder, key)
    except AnondataError:
        return None


def _is_taken(out: Path) -> bool:
    try:
        return out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        raise OutputError(f"cannot list OUT: {error.strerror}") from error
