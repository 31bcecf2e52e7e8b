"""A publication to be looked at, wherever it lies: one file at a time is on the local disk, while it is read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anondata.errors import PublishError

SMALL_BYTES = 64 << 20  # cards, reports and manifests; a larger one is none


class Location:
    """A folder, a URL that fsspec reads, or ``hf://datasets/org/name``.

    Raises: PublishError, here and everywhere, for what is not there or cannot be read.
    """

    def __init__(self, place: str) -> None:
        import fsspec

        try:
            self.fs, root = fsspec.core.url_to_fs(place)
        except Exception as error:  # storages raise what they like; its text would name the place
            raise PublishError(f"cannot read from the place: {type(error).__name__}") from error
        self.root = str(root).rstrip("/")
        protocols = {self.fs.protocol} if isinstance(self.fs.protocol, str) else set(self.fs.protocol)
        self.local = bool(protocols & {"file", "local"})

    @property
    def url(self) -> str:
        return self.root if self.local else str(self.fs.unstrip_protocol(self.root))

    def text(self, name: str) -> str | None:
        """A small text file; None where there is none."""
        self._check_plain(name)
        try:
            if int(self._try(lambda: self.fs.info(f"{self.root}/{name}"))["size"]) > SMALL_BYTES:
                raise PublishError(f"{name} is too large")
            data: bytes = self._try(lambda: self.fs.cat_file(f"{self.root}/{name}"))
            return data.decode()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise PublishError(f"{name} is not a text file") from error

    def opened(self, name: str) -> Any:
        """A file to be read in parts. Raises also what the storage raises, while it is read."""
        self._check_plain(name)
        return self._try(lambda: self.fs.open(f"{self.root}/{name}", "rb"))

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """A file's path on the local disk, while the context lasts."""
        self._check_plain(name)
        if self.local:
            yield Path(self.root, name)
            return
        with tempfile.TemporaryDirectory(prefix="anondata-") as folder:
            path = Path(folder, "file")
            try:
                self._try(lambda: self.fs.get_file(f"{self.root}/{name}", str(path)))
            except FileNotFoundError as error:
                raise PublishError("a file is missing") from error
            yield path

    def _check_plain(self, name: str) -> None:
        """Raises PublishError for a link, which leads anywhere, and what never ends: a pipe or a device."""
        path = Path(self.root, name)
        here = (path, *path.parents[: len(Path(name).parts) - 1])
        if self.local and (any(map(Path.is_symlink, here)) or (path.exists() and not path.is_file())):
            raise PublishError("a file is a link or no plain file, and was not read")

    def _try(self, do: Any) -> Any:
        from anondata.loaders._retry import with_retries

        try:
            return with_retries(do)
        except FileNotFoundError:
            raise
        except Exception as error:  # storages raise what they like; its text would name the place
            raise PublishError(f"the place cannot be read: {type(error).__name__}") from error
