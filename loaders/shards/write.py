"""Tar files of released samples, the same bytes for the same samples: no time, no owner, nothing of the machine."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TypeAlias

from anondata.errors import ShardsError

Slots: TypeAlias = tuple[tuple[str, int, int], ...]
"""Fields of a sample in a :class:`Spool`: name, where the value begins, and how long it is."""

INDEX_VERSION = "v1.2"

_SUFFIXES: Mapping[str, tuple[str, ...]] = {  # of what the codec writes -> suffixes that tell the truth about it
    "jpg": ("jpg", "jpeg", "jpe", "jfif"),
    "png": ("png", "apng"),
    "webp": ("webp",),
    "tif": ("tif", "tiff"),
    "bmp": ("bmp", "dib"),
    "avif": ("avif",),
    "heic": ("heic", "heif"),
    "jp2": ("jp2",),
    "gif": ("gif",),
}
_IMAGES = {"jpf", "j2k", "jpc", "hif", *(suffix for known in _SUFFIXES.values() for suffix in known)}


class Spool:
    """Released values of one shard in a local file, so that a shard need not fit into memory."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "w+b")  # noqa: SIM115 - closed by the context
        self._end = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, fields: Mapping[str, bytes]) -> Slots:
        """Writes the values of one sample, and returns where they are."""
        slots = []
        self._file.seek(self._end)
        for name, value in fields.items():
            self._file.write(value)
            slots.append((name, self._end, len(value)))
            self._end += len(value)
        return tuple(slots)

    def get(self, slots: Slots) -> dict[str, bytes]:
        """The values of one sample."""
        out = {}
        for name, at, size in slots:
            self._file.seek(at)
            out[name] = self._file.read(size)
        return out


def write_tar(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> str:
    """Writes samples (key, values by the name of the field) and returns the index of the tar.

    The index is what NVIDIA DALI's ``wds2idx`` makes of it: a line for each sample with suffix, offset, size and name
    of each file. Space divides there, so what of it is in a name becomes a low line.

    Raises:
        ShardsError: a key that leads out of the folder that the tar is unpacked into.
    """
    lines = []
    with tarfile.open(path, "x", format=tarfile.PAX_FORMAT) as tar:
        for key, fields in samples:
            line = []
            for suffix, value in fields.items():
                info = _header(f"{key}.{suffix}", len(value))
                tar.addfile(info, io.BytesIO(value))
                offset = tar.offset - -(-len(value) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                line.append(f"{suffix} {offset} {len(value)} {'_'.join(info.name.split())}")
            lines.append(" ".join(line))
    return "\n".join([f"{INDEX_VERSION} {len(lines)}", *lines]) + "\n"


def _header(name: str, size: int) -> tarfile.TarInfo:
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise ShardsError("has a key that leads out of its folder; repack the shard, or give new names to all keys")
    info = tarfile.TarInfo(name)  # everything else stays as TarInfo has it: no time, no owner, mode 0644
    info.size = size
    return info


def true_name(field: str, value: bytes) -> str:
    """The name of an image field whose last part tells in which format it was written.

    >>> true_name("left.gif", b"\\x89PNG\\r\\n\\x1a\\n"), true_name("photo", b"BM")
    ('left.png', 'photo')
    """
    before, dot, last = field.rpartition(".")
    written = _written(value)
    if written is None or last not in _IMAGES or last in _SUFFIXES[written]:
        return field
    return f"{before}{dot}{written}"


def _written(value: bytes) -> str | None:
    if value[:4] == b"RIFF" and value[8:12] == b"WEBP":
        return "webp"
    if value[4:8] in (b"ftyp", b"jP  "):
        return "jp2" if value[4:8] == b"jP  " else "avif" if value[8:12] in (b"avif", b"avis") else "heic"
    starts = {
        b"\xff\xd8\xff": "jpg",
        b"\x89PNG\r\n\x1a\n": "png",
        b"GIF8": "gif",
        b"II*\0": "tif",
        b"MM\0*": "tif",
        b"BM": "bmp",
    }
    return next((suffix for start, suffix in starts.items() if value.startswith(start)), None)
