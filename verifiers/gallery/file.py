"""A gallery in one file, encrypted when there is a key: opened, saved and changed.

The payload of the sealed file is in the safetensors format, whose parser runs nothing that it reads::

    about                                       uint8, JSON: role, embedder, salt, people, and what the rest means
    templates, owners                           (N, D) float32, (N,) int64
    portrait_rows                               (P,) int64, rising: which templates have a portrait
    portrait_ends, portrait_images              (P,) int64, and (bytes,) uint8: the pictures, one after the other
    portrait_boxes, portrait_landmarks          (P, 4) and (P, 5, 2) float32
    parrot.0, parrot.1, ...                     (N, D) float32
    index_centroids, index_cells                (L, D) float32, (N,) int32

People are told in a tensor, not in the metadata of safetensors: that ends at 100 MB, which a million people need.

What was removed is gone from the file. Copies elsewhere, backups and the free space of the disk are not reached.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from anondata.errors import GalleryError
from anondata.verifiers.gallery import Floats, Gallery, Portrait
from anondata.verifiers.gallery.index import Ivf, Recall
from anondata.verifiers.gallery.sealed import (
    KEY_VARIABLE,
    Piece,
    Place,
    damaged,
    inspect,
    local_path,
    locked,
    read_sealed,
    reason,
    write_sealed,
)

_DTYPES = {"int64": "I64", "float32": "F32", "int32": "I32"}

KeySource = bytes | Place | Callable[[], bytes | None] | None
Tensors = dict[str, NDArray[Any]]

LEAST_KEY_BYTES = 16
_MOST_KEY_FILE_BYTES = 1 << 16


@dataclass(frozen=True)
class _Part:
    """A tensor to be written; its bytes are those of the pieces."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: Sequence[Piece] = field(repr=False)


def open_gallery(path: Place, *, key: KeySource = None) -> Gallery:
    """The gallery in a file.

    path: a local path, or a URL that fsspec knows.
    key: the key itself, the path of a file that holds it, a function that returns it, or None for the environment
        variable ``ANONDATA_GALLERY_KEY``, and no key where that is not set. At least 16 bytes, and made by chance:
        a key is not stretched as a password would be. White space around it does not count. A function that returns
        None says that there is no key, whatever the environment holds.

    Raises:
        GalleryError: nothing there, no gallery, damaged, made by a newer anondata, encrypted with another key, a key
            missing, or a key for a file that is not encrypted.
        MissingExtraError: a URL whose protocol needs a package that is not installed.
    """
    return from_payload(read_sealed(path, secret=find_secret(key)))


def save_gallery(gallery: Gallery, path: Place, *, key: KeySource = None, overwrite: bool = False) -> None:
    """Puts a gallery into a local file that only its owner can read, encrypted when there is a key.

    Raises:
        GalleryError: the file is there and may not be overwritten, another process is writing it, it cannot be
            written (the old one is as it was), or an encrypted one would be replaced by one that is not.
    """
    place, secret = local_path(path), find_secret(key)
    if secret is None and key is not None:  # a look-up that found nothing must not end in a plain file
        raise GalleryError("the function for the gallery's key returned none; give None to save without a key")
    payload = to_payload(gallery)
    with locked(place):
        _check_free(place, overwrite=overwrite, encrypted=secret is not None)
        write_sealed(place, payload, secret=secret)


def change_gallery(path: Place, change: Callable[[Gallery], Gallery], *, key: KeySource = None) -> Gallery:
    """Opens a gallery, changes it and saves it again, while no other process can; encrypted stays encrypted.

    Whatever is raised, by ``change`` too, leaves the file as it was.

    Raises:
        GalleryError: what :func:`open_gallery` and :func:`save_gallery` raise.
    """
    place, secret = local_path(path), find_secret(key)
    inspect(place)  # before a lock file is made beside nothing
    with locked(place):
        changed = change(from_payload(read_sealed(place, secret=secret)))
        if not isinstance(changed, Gallery):
            raise GalleryError(f"a change must return the new gallery, got {type(changed).__name__}")
        write_sealed(place, to_payload(changed), secret=secret)
    return changed


def find_secret(key: KeySource) -> bytes | None:
    """The secret behind a key source, without white space around it; None where there is no key.

    Raises:
        GalleryError: a secret that is too short, too long or cannot be had.
    """
    secret = _secret_of(key)
    if secret is None:
        return None
    if not isinstance(secret, bytes):
        raise GalleryError(f"a gallery's key must be bytes, got {type(secret).__name__}")
    secret = secret.strip()
    if len(secret) < LEAST_KEY_BYTES:
        raise GalleryError(
            f"the gallery's key has {len(secret)} bytes, expected at least {LEAST_KEY_BYTES} random ones; "
            "`openssl rand -hex 32` makes a good one"
        )
    return secret


def to_payload(gallery: Gallery) -> Iterator[Piece]:
    """The bytes that a gallery is kept as, in pieces that are no copies; not encrypted yet."""
    facts = {
        "role": gallery.role,
        "embedder": gallery.embedder,
        "embedder_fingerprint": gallery.embedder_fingerprint,
        "salt": gallery.salt.hex(),
        "identities": gallery.identities,
        "labels": gallery.labels,
        "portraits": bool(gallery.portraits),
        "parrots": list(gallery.parrots),
        "index": None if gallery.index is None else _index_facts(gallery.index),
    }
    parts = [
        _part("owners", gallery.owners),
        *_portrait_parts(gallery.portraits),
        _part("templates", gallery.templates),
        *(_part(f"parrot.{i}", rows) for i, rows in enumerate(gallery.parrots.values())),
        *_index_parts(gallery.index),
        _bytes_part("portrait_images", [p.image for p in gallery.portraits if p is not None]),
        _bytes_part("about", [json.dumps(facts, ensure_ascii=False).encode("utf-8", "surrogatepass")]),
    ]
    return _safetensors(parts)


def from_payload(payload: bytes) -> Gallery:
    """The gallery that :func:`to_payload` made bytes of.

    Raises:
        GalleryError: bytes of anything else.
    """
    try:
        tensors = load(payload)
        del payload  # as large as all that is made of it
        return _gallery(tensors)
    except MemoryError as error:
        raise GalleryError("the gallery is larger than the memory") from error
    except Exception as error:  # parsers raise what they like; only our own words are known to name nobody
        raise damaged(str(error) if isinstance(error, GalleryError) else type(error).__name__) from error


def _secret_of(key: KeySource) -> bytes | None:
    if callable(key):
        return key()
    if isinstance(key, str | os.PathLike):
        return _key_file(key)
    return key if key is not None else _key_of_environment()


def _key_of_environment() -> bytes | None:
    value = os.environ.get(KEY_VARIABLE)
    if value is not None and os.path.exists(value):
        raise GalleryError(f"{KEY_VARIABLE} is the path of a file; it must hold the key itself")
    return None if value is None else os.fsencode(value)


def _key_file(path: Place) -> bytes:
    try:
        with open(path, "rb") as file:
            secret = file.read(_MOST_KEY_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise GalleryError(
            f"the gallery's key file cannot be read: {reason(error)}. A text is taken for the path of a file; "
            "give a key itself as bytes"
        ) from error
    if len(secret) > _MOST_KEY_FILE_BYTES:
        raise GalleryError(f"the gallery's key file has more than {_MOST_KEY_FILE_BYTES} bytes; it is no key")
    return secret


def _check_free(place: Path, *, overwrite: bool, encrypted: bool) -> None:
    if not place.exists():
        return
    if not overwrite:
        raise GalleryError("there is a file at the gallery's path; overwrite it, or choose another path")
    if not encrypted and _is_encrypted(place):
        raise GalleryError(
            "the gallery file is encrypted, and without a key it would be replaced by one that is not; give a key, "
            "or remove the file first"
        )


def _is_encrypted(place: Path) -> bool:
    try:
        return inspect(place).encrypted
    except GalleryError:  # whatever it is, it was to be overwritten
        return False


def _part(name: str, array: NDArray[Any]) -> _Part:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return _Part(name, _DTYPES[array.dtype.name], array.shape, (flat.data,))


def _bytes_part(name: str, pieces: Sequence[bytes]) -> _Part:
    return _Part(name, "U8", (sum(len(piece) for piece in pieces),), pieces)


def _safetensors(parts: Sequence[_Part]) -> Iterator[Piece]:
    """The format of safetensors; its own writer holds all of it twice (0.8). Large types first keep it aligned."""
    header, end = {}, 0
    for part in parts:
        start, end = end, end + sum(len(piece) for piece in part.pieces)
        header[part.name] = {"dtype": part.dtype, "shape": part.shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for part in parts:
        yield from part.pieces


def _gallery(tensors: Tensors) -> Gallery:
    text = _take(tensors, "about", np.uint8, (None,)).tobytes()
    facts = json.loads(text.decode("utf-8", "surrogatepass"))
    templates = _take(tensors, "templates", np.float32, (None, None))
    count = len(templates)
    gallery = Gallery(
        role=_told(facts, "role", str),
        embedder=_told(facts, "embedder", str),
        embedder_fingerprint=_told(facts, "embedder_fingerprint", str),
        identities=tuple(_told(facts, "identities", list)),
        labels=tuple(_told(facts, "labels", list)),
        templates=templates,
        owners=_take(tensors, "owners", np.int64, (count,)),
        portraits=_portraits(tensors, count, kept=_told(facts, "portraits", bool)),
        parrots=_parrots(tensors, _told(facts, "parrots", list), templates.shape),
        index=None if facts["index"] is None else _index(tensors, facts["index"], templates.shape),
        salt=bytes.fromhex(_told(facts, "salt", str)),
    )
    if tensors:
        raise GalleryError(f"{len(tensors)} parts that do not belong in it")
    return gallery


def _take(tensors: Tensors, name: str, dtype: type[np.generic], shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Takes a tensor out; None in a shape is any size."""
    tensor = tensors.pop(name)
    fits = tensor.ndim == len(shape) and all(w in (None, n) for n, w in zip(tensor.shape, shape, strict=True))
    if tensor.dtype != dtype or not fits:
        raise GalleryError(f"a part of {tensor.ndim} dimensions and type {tensor.dtype} where another belongs")
    return tensor


def _told(facts: Mapping[str, Any], name: str, kind: type) -> Any:
    if type(facts[name]) is not kind:
        raise GalleryError(f"a fact of type {type(facts[name]).__name__}, expected {kind.__name__}")
    return facts[name]


def _portrait_parts(portraits: Sequence[Portrait | None]) -> list[_Part]:
    kept = [(row, portrait) for row, portrait in enumerate(portraits) if portrait is not None]
    return [
        _part("portrait_rows", np.array([row for row, _ in kept], np.int64)),
        _part("portrait_ends", np.cumsum([len(portrait.image) for _, portrait in kept], dtype=np.int64)),
        _part("portrait_boxes", _stacked([portrait.box for _, portrait in kept], (4,))),
        _part("portrait_landmarks", _stacked([portrait.landmarks for _, portrait in kept], (5, 2))),
    ]


def _stacked(rows: list[Floats], shape: tuple[int, ...]) -> Floats:
    return np.stack(rows) if rows else np.zeros((0, *shape), np.float32)


def _portraits(tensors: Tensors, count: int, *, kept: bool) -> tuple[Portrait | None, ...]:
    rows = _take(tensors, "portrait_rows", np.int64, (None,)).tolist()
    ends = _take(tensors, "portrait_ends", np.int64, (len(rows),)).tolist()
    images = _take(tensors, "portrait_images", np.uint8, (None,)).data
    boxes = _take(tensors, "portrait_boxes", np.float32, (len(rows), 4))
    landmarks = _take(tensors, "portrait_landmarks", np.float32, (len(rows), 5, 2))
    starts = [0, *ends]
    if starts != sorted(starts) or starts[-1] != len(images):
        raise GalleryError("portraits that do not fill their part")
    if rows != sorted({row for row in rows if 0 <= row < count * kept}):
        raise GalleryError("portraits of no template")
    portraits: list[Portrait | None] = [None] * (count if kept else 0)
    for row, start, end, box, points in zip(rows, starts, ends, boxes, landmarks, strict=False):
        portraits[row] = Portrait(images[start:end].tobytes(), box, points)
    return tuple(portraits)


def _parrots(tensors: Tensors, names: list[str], shape: tuple[int, ...]) -> dict[str, Floats]:
    parrots = {name: _take(tensors, f"parrot.{i}", np.float32, shape) for i, name in enumerate(names)}
    if len(parrots) != len(names) or not all(isinstance(name, str) for name in names):
        raise GalleryError("techniques without a name of their own")
    return parrots


def _index_parts(index: Ivf | None) -> list[_Part]:
    if index is None:
        return []
    return [_part("index_centroids", index.centroids), _part("index_cells", index.cells)]


def _index_facts(index: Ivf) -> dict[str, Any]:
    recall = index.recall
    told = {"found": int(recall.found), "of": int(recall.of), "radius": float(recall.radius)}  # may be numpy's
    return {"probes": int(index.probes), "recall": told}


def _index(tensors: Tensors, facts: Mapping[str, Any], shape: tuple[int, ...]) -> Ivf:
    centroids = _take(tensors, "index_centroids", np.float32, (None, shape[1]))
    cells = _take(tensors, "index_cells", np.int32, (shape[0],))
    probes, recall = _told(facts, "probes", int), _told(facts, "recall", dict)
    if not 1 <= probes <= len(centroids) or cells.min(initial=0) < 0 or cells.max(initial=0) >= len(centroids):
        raise GalleryError("an index that does not fit its templates")
    if not np.isfinite(centroids).all():
        raise GalleryError("an index that is not finite")
    found, of, radius = _told(recall, "found", int), _told(recall, "of", int), _told(recall, "radius", float)
    if not 0 <= found <= of or not radius >= 0:
        raise GalleryError("an index whose recall cannot be")
    return Ivf(centroids, cells, probes, Recall(found, of, radius))
