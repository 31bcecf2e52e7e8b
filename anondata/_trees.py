"""Folders and URLs as trees of files, to be compared with what a manifest says of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

if TYPE_CHECKING:
    from anondata.manifest import FileDigest

THREADS = 8  # hashing lets other threads run, and storages are waited for
BLOCK = 1 << 20


def compare(
    files: Mapping[str, FileDigest], folder: str, ignored: tuple[str, ...], show: Callable[[int], None]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Sorted paths of missing, changed and strange files."""
    fs, root = fsspec.core.url_to_fs(folder)
    found = dict(_walk(fs, root.rstrip("/")))
    strange = [name for name, plain in found.items() if not plain or (name not in files and not _is(name, ignored))]
    here = [name for name in sorted(files) if found.get(name)]
    changed = []
    with ThreadPoolExecutor(THREADS) as threads:
        same = threads.map(lambda name: _same(fs, f"{root.rstrip('/')}/{name}", files[name]), here)
        for done, (name, holds) in enumerate(zip(here, same, strict=True), 1):
            if not holds:
                changed.append(name)
            show(done)
    missing = [name for name in sorted(files) if name not in found]
    return tuple(missing), tuple(changed), tuple(sorted(strange))


def _is(name: str, ignored: tuple[str, ...]) -> bool:
    return any(name == one or (one.endswith("/") and name.startswith(one)) for one in ignored)


def _walk(fs: Any, root: str) -> Iterator[tuple[str, bool]]:
    """Paths below the root, and whether each is a plain file rather than a link or something else."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if protocols & {"file", "local"}:
        yield from _walk_local(Path(root))
        return
    fs.invalidate_cache()
    for place in fs.find(root, withdirs=False):
        yield place.removeprefix(root).lstrip("/"), True


def _walk_local(root: Path) -> Iterator[tuple[str, bool]]:
    def stop(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(root, onerror=stop):
        for name in [*names, *(f for f in folders if Path(folder, f).is_symlink())]:
            path = Path(folder, name)
            yield path.relative_to(root).as_posix(), path.is_file() and not path.is_symlink()


def _same(fs: Any, place: str, wanted: FileDigest) -> bool:
    digest, size = hashlib.sha256(), 0
    with fs.open(place, "rb", block_size=BLOCK * 8) as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return size == wanted.size and digest.hexdigest() == wanted.sha256
