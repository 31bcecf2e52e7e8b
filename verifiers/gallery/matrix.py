"""Templates that somebody else's program made: a matrix in a file, and whose each row is."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anondata.errors import GalleryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEMPLATES = ("templates", "embeddings")
IDENTITIES = ("identities", "identity", "labels")


def read_matrix(path: Path, *, identities: Path | None, column: str | None) -> tuple[list[str], NDArray[np.float32]]:
    """Identities, and templates ``(N, D)``, of a ``.npy``, ``.npz`` or ``.safetensors`` file.

    identities: a text file with a line for each row, or a CSV file with a column of them; by default an array of the
        same file. column: of the CSV file, or the name of that array.

    Raises:
        GalleryError: a file that cannot be read, no matrix or no identities in it, or not as many as rows.
    """
    arrays = _arrays(path)
    templates = _matrix(arrays)
    names = _from_file(identities, column) if identities else _from_arrays(arrays, column)
    if len(names) != len(templates):
        raise GalleryError(f"{len(names)} identities for {len(templates)} templates; one for each row is needed")
    empty = sum(not name for name in names)
    if empty:
        raise GalleryError(f"{empty} of the {len(names)} identities are empty")
    return names, templates


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.numpy import load_file

            return dict(load_file(path))
        loaded = np.load(path, allow_pickle=False)  # pickles run what they hold
        if isinstance(loaded, np.ndarray):
            return {"templates": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise GalleryError(f"the matrix cannot be read: {error.strerror or type(error).__name__}") from error
    except Exception as error:  # a dozen types come out for bad bytes
        raise GalleryError(
            f"the matrix cannot be read: {type(error).__name__}. It must be .npy, .npz or .safetensors and hold no "
            "Python objects; save texts as arrays of dtype U"
        ) from error


def _matrix(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    found = [name for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind == "f"]
    named = [name for name in TEMPLATES if name in found] or found
    if not named:
        raise GalleryError("no matrix (N, D) of floats in the file")
    if len(named) > 1:
        raise GalleryError(f"{len(named)} matrices in the file; name the right one 'templates'")
    return np.ascontiguousarray(arrays[named[0]], dtype=np.float32)


def _from_arrays(arrays: Mapping[str, NDArray[Any]], column: str | None) -> list[str]:
    name = next((n for n in ([column] if column else IDENTITIES) if n in arrays), None)
    if name is None or arrays[name].ndim != 1 or arrays[name].dtype.kind not in "iuUS":
        raise GalleryError(
            "nothing says whose the templates are: give --identities FILE, or a text or integer array (N,) named "
            f"{repr(column) if column else 'identities'} in the file"
        )
    values = arrays[name].tolist()
    return [(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)).strip() for v in values]


def _from_file(path: Path, column: str | None) -> list[str]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as lines:
            if path.suffix.lower() != ".csv":
                return [line.strip() for line in lines.read().splitlines()]
            rows = list(csv.DictReader(lines))
    except (OSError, ValueError, csv.Error) as error:
        raise GalleryError(f"the file of identities cannot be read: {type(error).__name__}") from error
    wanted = column or "identity"
    if rows and wanted not in rows[0]:
        raise GalleryError(f"the file of identities has no column {wanted!r}; --identity COLUMN says which one it is")
    return [(row[wanted] or "").strip() for row in rows]
