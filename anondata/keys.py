"""The run key of an output folder: made once, kept outside of it, never shown.

Whoever holds the key can tell whether a known file name is behind a name that ``--rename`` made, and can subtract
noise. It therefore never lies beside what is published.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from anondata.errors import ArgumentError, OutputError, UnreadableSourceError

if TYPE_CHECKING:
    from anondata.randomness import RunKey

STATE_VARIABLE = "ANONDATA_STATE"
LEAST_BYTES = 16
MADE_BYTES = 32


def state_folder() -> Path:
    """Where keys are kept: ``ANONDATA_STATE``, or the user's state folder. Not created here."""
    named = os.environ.get(STATE_VARIABLE)
    return Path(named) if named else Path(platformdirs.user_state_dir("anondata"))


def key_path(out: Path | str) -> Path:
    """Where the key of an output folder is kept, named by a hash of the folder's absolute path, or of its URL."""
    place = os.fsencode(out.resolve()) if isinstance(out, Path) else out.rstrip("/").encode()
    return state_folder() / "keys" / hashlib.sha256(place).hexdigest()


def run_key(out: Path | str, key_file: Path | None, *, create: bool = True) -> RunKey | None:
    """The run key of an output folder; made and stored on first use. None where there is none and none may be made.

    out: a local folder, or a URL as text.

    Raises:
        ArgumentError: the key is too short, or lies inside the output folder.
        UnreadableSourceError, OutputError: the key file cannot be read, or the key cannot be stored.
    """
    from anondata.randomness import RunKey

    path = key_file or key_path(out)
    if isinstance(out, Path) and path.resolve().is_relative_to(out.resolve()):
        raise ArgumentError("the run key would lie inside of DST, beside what is published; keep it elsewhere")
    secret = _read(path) if key_file or path.exists() else _make(path) if create else None
    if secret is None:
        return None
    if len(secret) < LEAST_BYTES:
        raise ArgumentError(f"the run key has {len(secret)} bytes, expected at least {LEAST_BYTES}")
    return RunKey.from_file(path)  # of which workers get the path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableSourceError(f"the run key cannot be read: {error.strerror}") from error


def _make(path: Path) -> bytes:
    """A fresh key, written whole or not at all, so that a kill cannot leave a short one behind."""
    secret = secrets.token_bytes(MADE_BYTES)
    part = path.with_name(f".{path.name[:16]}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)  # unlike a rename it fails when another run was first, and then its key counts
        except FileExistsError:
            return _read(path)
        finally:
            part.unlink()
    except OSError as error:
        raise OutputError(
            f"the run key cannot be stored: {error.strerror}. Set {STATE_VARIABLE} to a folder of your own, "
            "or give --key-file"
        ) from error
    return secret
