"""What a long enrolment has done so far, kept beside the gallery so that the same command goes on after a kill.

::

    .FILE.part/log           a line for each piece: what it is of, and each photo's reason, empty where it was taken
    .FILE.part/N.gallery     the templates of the photos that were taken, encrypted with the same key

A piece counts once its line is in the log. Everything is gone when the gallery is written.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata.errors import ArgumentError, GalleryError, OutputError

if TYPE_CHECKING:
    from anondata.verifiers.gallery.examination import Examined, Examiner
    from anondata.verifiers.gallery.file import KeySource
    from anondata.verifiers.gallery.gallery import Gallery
    from anondata.verifiers.gallery.photos import Photo

EVERY = 1000  # photos a piece: about a minute on two cores

_REMOVE = "remove the hidden folder .part beside the gallery to start anew"


class EnrolParts:
    """The pieces of one enrolment, locked while the context lasts.

    out: the gallery's file. task: stands for sources and options; pieces of another task are thrown away.

    Raises:
        ArgumentError: the same enrolment is running.
        OutputError: the folder of pieces cannot be written.
    """

    def __init__(self, out: Path, *, task: str, key: KeySource) -> None:
        self.folder = out.with_name(f".{out.name}.part")
        self._task, self._key = task, key
        self._lock = -1
        self.resumed = 0

    def __enter__(self) -> EnrolParts:
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ArgumentError("another run is enrolling into this file; wait for it") from None
        except OSError as error:
            raise OutputError(f"nothing can be written beside the gallery: {error.strerror}") from error
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._lock)
        if not (self.folder / "log").exists():  # nothing to go on from
            self.discard()

    def discard(self) -> None:
        """Removes all pieces."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def examine(self, photos: Iterable[Photo], examiner: Examiner) -> Iterator[Examined]:
        """Every photo's outcome, from the pieces where they have it; new ones are put into new pieces.

        Raises:
            GalleryError: a piece cannot be read, because it was changed or the key is another one.
        """
        stream = iter(photos)
        lines = self._lines()
        for number, reasons in enumerate(lines):
            yield from self._again(number, reasons, stream)
        done, number = self.resumed, len(lines)
        while results := (yield from self._piece(examiner.examine(islice(stream, EVERY), first=done + 1))):
            if len(results) == EVERY:  # the last one is about to be written into the gallery itself
                self._keep(number, results, examiner)
            done, number = done + len(results), number + 1

    @staticmethod
    def _piece(results: Iterator[Examined]) -> Generator[Examined, None, list[Examined]]:
        """Yields the same results, and returns them."""
        kept = []
        for result in results:
            kept.append(result)
            yield result
        return kept

    def _lines(self) -> list[list[str]]:
        """The reasons of each piece. A log of another task is thrown away with its pieces, a torn last line alone."""
        log = self.folder / "log"
        lines = log.read_text(errors="replace").splitlines(keepends=True) if log.exists() else []
        mine = list(takewhile(bool, map(self._reasons, lines)))
        if lines and not mine:
            self._clear()
        elif len(mine) < len(lines):
            log.write_text("".join(lines[: len(mine)]))
        return [reasons for reasons in mine if reasons]

    def _reasons(self, line: str) -> list[str] | None:
        try:
            told = json.loads(line) if line.endswith("\n") else None
        except ValueError:
            return None
        return told["reasons"] if isinstance(told, dict) and told.get("task") == self._task else None

    def _clear(self) -> None:
        """Removes what another task left; the lock stays."""
        for file in (self.folder / "log", *self.folder.glob("*.gallery")):
            file.unlink(missing_ok=True)

    def _again(self, number: int, reasons: Sequence[str], stream: Iterator[Photo]) -> Iterator[Examined]:
        from anondata.verifiers.gallery.examination import Examined

        piece, row = None if all(reasons) else self._opened(number), 0
        for reason, photo in zip(reasons, islice(stream, len(reasons)), strict=True):
            self.resumed += 1
            if reason or piece is None:
                yield Examined(self.resumed, photo.identity, photo.label, reason)
                continue
            if piece.identities[piece.owners[row]] != photo.identity:
                raise GalleryError(f"the pieces of an unfinished enrolment are of other photos; {_REMOVE}")
            portrait = piece.portraits[row] if piece.portraits else None
            yield Examined(self.resumed, photo.identity, photo.label, "", piece.templates[row], portrait)
            row += 1

    def _opened(self, number: int) -> Gallery:
        from anondata.verifiers.gallery.file import open_gallery

        try:
            return open_gallery(self._place(number), key=self._key)
        except GalleryError as error:
            raise GalleryError(f"a piece of an unfinished enrolment cannot be used: {error}; {_REMOVE}") from error

    def _keep(self, number: int, results: Sequence[Examined], examiner: Examiner) -> None:
        from anondata.verifiers.gallery.enrolment import gallery_of
        from anondata.verifiers.gallery.file import save_gallery
        from anondata.verifiers.gallery.gallery import empty_gallery

        taken = [result for result in results if not result.reason]
        if taken:
            piece: Gallery = gallery_of(taken, into=empty_gallery(examiner.embedder), extend=True)
            save_gallery(piece, self._place(number), key=self._key, overwrite=True)
        line: dict[str, Any] = {"task": self._task, "reasons": [result.reason for result in results]}
        with open(self.folder / "log", "a") as log:
            log.write(json.dumps(line) + "\n")
            log.flush()
            os.fsync(log.fileno())

    def _place(self, number: int) -> Path:
        return self.folder / f"{number}.gallery"
