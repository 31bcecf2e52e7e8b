"""A gallery in one file, encrypted when there is a key: opened, saved and changed.

The payload of the sealed file (:mod:`anondata.verifiers.gallery.payload`) of a gallery of people holds::

    about                                       uint8, JSON: role, embedder, salt, people, and what the rest means
    templates, owners                           (N, D) float32, (N,) int64
    portrait_rows                               (P,) int64, rising: which templates have a portrait
    portrait_ends, portrait_images              (P,) int64, and (bytes,) uint8: the pictures, one after the other
    portrait_boxes, portrait_landmarks          (P, 4) and (P, 5, 2) float32
    parrot.0, parrot.1, ...                     (N, D) float32
    index_centroids, index_cells                (L, D) float32, (N,) int32

and that of a gallery of places::

    about                                       uint8, JSON: kind, network, salt, names
    owners, ends                                (P,) int64
    positions, descriptors                      (F, 2) float32, (F, 64) int8

What was removed is gone from the file. Copies elsewhere, backups and the free space of the disk are not reached.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import load

from anondata.errors import GalleryError
from anondata.verifiers.gallery import Floats, Gallery, Portrait, places
from anondata.verifiers.gallery.index import Ivf, Recall
from anondata.verifiers.gallery.payload import (
    Part,
    Tensors,
    about,
    bytes_part,
    check_taken,
    fact,
    in_safetensors,
    part_of,
    take,
    take_about,
)
from anondata.verifiers.gallery.places import PlaceGallery
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

AnyGallery = Gallery | PlaceGallery
G = TypeVar("G", Gallery, PlaceGallery)
KeySource = bytes | Place | Callable[[], bytes | None] | None

LEAST_KEY_BYTES = 16
_MOST_KEY_FILE_BYTES = 1 << 16


def open_any(path: Place, *, key: KeySource = None) -> AnyGallery:
    """Opens a gallery of people or of places.

    Args:
        path: a local path, or a URL that fsspec knows.
        key: the key, the path of a file that holds it, a function that returns it, or None for the environment
            variable ``ANONDATA_GALLERY_KEY`` (no key if it is not set). A key has at least 16 random bytes, because
            it is not stretched as a password would be. White space around it is ignored. A function that returns None
            says that there is no key, whatever the environment holds.

    Raises:
        GalleryError: the file does not exist, is not a gallery, is damaged, was made by a newer anondata, is
            encrypted with another key or needs one, or a key was given for a file that is not encrypted.
        MissingExtraError: the URL's protocol needs a package that is not installed.
    """
    return from_payload(read_sealed(path, secret=find_secret(key)))


def open_gallery(path: Place, *, key: KeySource = None) -> Gallery:
    """Opens a gallery of people; see :func:`open_any`.

    Raises:
        GalleryError: this is a gallery of places, or :func:`open_any` refuses it.
        MissingExtraError: see :func:`open_any`.
    """
    return _of_kind(Gallery, open_any(path, key=key))


def open_places(path: Place, *, key: KeySource = None) -> PlaceGallery:
    """Opens a gallery of places; see :func:`open_any`.

    Raises:
        GalleryError: this is a gallery of people, or :func:`open_any` refuses it.
        MissingExtraError: see :func:`open_any`.
    """
    return _of_kind(PlaceGallery, open_any(path, key=key))


def save_gallery(gallery: AnyGallery, path: Place, *, key: KeySource = None, overwrite: bool = False) -> None:
    """Writes a gallery to a local file that only its owner can read. It is encrypted if there is a key.

    Args:
        gallery: of people or of places.
        path: a local path.
        key: as for :func:`open_any`.
        overwrite: replace a file that is there.

    Raises:
        GalleryError: the file is there and may not be overwritten, another process is writing it, it cannot be
            written (the old file stays as it was), or a plain file would replace an encrypted one.
    """
    place, secret = local_path(path), find_secret(key)
    if secret is None and key is not None:  # a look-up that found nothing must not end in a plain file
        raise GalleryError("the function for the gallery's key returned no key; pass None to save without a key")
    payload = to_payload(gallery)
    with locked(place):
        _check_free(place, overwrite=overwrite, encrypted=secret is not None)
        write_sealed(place, payload, secret=secret)


def change_gallery(path: Place, change: Callable[[Gallery], Gallery], *, key: KeySource = None) -> Gallery:
    """Opens a gallery of people, changes it and saves it again, under a lock.

    An encrypted file stays encrypted. If anything is raised, also by ``change``, the file stays as it was.

    Raises:
        GalleryError: as in :func:`open_gallery` and :func:`save_gallery`.
    """
    return _changed(Gallery, path, change, key)


def change_places(
    path: Place, change: Callable[[PlaceGallery], PlaceGallery], *, key: KeySource = None
) -> PlaceGallery:
    """The same for a gallery of places."""
    return _changed(PlaceGallery, path, change, key)


def _changed(kind: type[G], path: Place, change: Callable[[G], G], key: KeySource) -> G:
    place, secret = local_path(path), find_secret(key)
    inspect(place)  # before a lock file is made beside nothing
    with locked(place):
        changed = change(_of_kind(kind, from_payload(read_sealed(place, secret=secret))))
        if not isinstance(changed, kind):
            raise GalleryError(f"a change must return the new gallery, got {type(changed).__name__}")
        write_sealed(place, to_payload(changed), secret=secret)
    return changed


def _of_kind(kind: type[G], found: AnyGallery) -> G:
    if not isinstance(found, kind):
        held, wanted = ("people", "places") if isinstance(found, Gallery) else ("places", "people")
        raise GalleryError(
            f"the file is a gallery of {held}, and one of {wanted} is needed here; "
            f"`anondata gallery build --of {wanted}` makes one"
        )
    return found


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


def to_payload(gallery: AnyGallery) -> Iterator[Piece]:
    """The bytes that a gallery is kept as, in pieces that are no copies; not encrypted yet."""
    return in_safetensors(_parts(gallery) if isinstance(gallery, Gallery) else places.to_parts(gallery))


def _parts(gallery: Gallery) -> list[Part]:
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
    return [
        part_of("owners", gallery.owners),
        *_portrait_parts(gallery.portraits),
        part_of("templates", gallery.templates),
        *(part_of(f"parrot.{i}", rows) for i, rows in enumerate(gallery.parrots.values())),
        *_index_parts(gallery.index),
        bytes_part("portrait_images", [p.image for p in gallery.portraits if p is not None]),
        about(facts),
    ]


def from_payload(payload: bytes) -> AnyGallery:
    """The gallery that :func:`to_payload` made bytes of.

    Raises:
        GalleryError: bytes of anything else.
    """
    try:
        tensors = load(payload)
        del payload  # as large as all that is made of it
        facts = take_about(tensors)
        return places.from_tensors(tensors, facts) if facts.get("kind") == places.KIND else _gallery(tensors, facts)
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
        raise GalleryError(f"the gallery's key file has more than {_MOST_KEY_FILE_BYTES} bytes; it is not a key")
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


def _gallery(tensors: Tensors, facts: Mapping[str, Any]) -> Gallery:
    templates = take(tensors, "templates", np.float32, (None, None))
    count = len(templates)
    gallery = Gallery(
        role=fact(facts, "role", str),
        embedder=fact(facts, "embedder", str),
        embedder_fingerprint=fact(facts, "embedder_fingerprint", str),
        identities=tuple(fact(facts, "identities", list)),
        labels=tuple(fact(facts, "labels", list)),
        templates=templates,
        owners=take(tensors, "owners", np.int64, (count,)),
        portraits=_portraits(tensors, count, kept=fact(facts, "portraits", bool)),
        parrots=_parrots(tensors, fact(facts, "parrots", list), templates.shape),
        index=None if facts["index"] is None else _index(tensors, facts["index"], templates.shape),
        salt=bytes.fromhex(fact(facts, "salt", str)),
    )
    check_taken(tensors)
    return gallery


def _portrait_parts(portraits: Sequence[Portrait | None]) -> list[Part]:
    kept = [(row, portrait) for row, portrait in enumerate(portraits) if portrait is not None]
    return [
        part_of("portrait_rows", np.array([row for row, _ in kept], np.int64)),
        part_of("portrait_ends", np.cumsum([len(portrait.image) for _, portrait in kept], dtype=np.int64)),
        part_of("portrait_boxes", _stacked([portrait.box for _, portrait in kept], (4,))),
        part_of("portrait_landmarks", _stacked([portrait.landmarks for _, portrait in kept], (5, 2))),
    ]


def _stacked(rows: list[Floats], shape: tuple[int, ...]) -> Floats:
    return np.stack(rows) if rows else np.zeros((0, *shape), np.float32)


def _portraits(tensors: Tensors, count: int, *, kept: bool) -> tuple[Portrait | None, ...]:
    rows = take(tensors, "portrait_rows", np.int64, (None,)).tolist()
    ends = take(tensors, "portrait_ends", np.int64, (len(rows),)).tolist()
    images = take(tensors, "portrait_images", np.uint8, (None,)).data
    boxes = take(tensors, "portrait_boxes", np.float32, (len(rows), 4))
    landmarks = take(tensors, "portrait_landmarks", np.float32, (len(rows), 5, 2))
    starts = [0, *ends]
    if starts != sorted(starts) or starts[-1] != len(images):
        raise GalleryError("portraits that do not fill their part")
    if rows != sorted({row for row in rows if 0 <= row < count * kept}):
        raise GalleryError("there are portraits without a template")
    portraits: list[Portrait | None] = [None] * (count if kept else 0)
    for row, start, end, box, points in zip(rows, starts, ends, boxes, landmarks, strict=False):
        portraits[row] = Portrait(images[start:end].tobytes(), box, points)
    return tuple(portraits)


def _parrots(tensors: Tensors, names: list[str], shape: tuple[int, ...]) -> dict[str, Floats]:
    parrots = {name: take(tensors, f"parrot.{i}", np.float32, shape) for i, name in enumerate(names)}
    if len(parrots) != len(names) or not all(isinstance(name, str) for name in names):
        raise GalleryError("techniques without a name of their own")
    return parrots


def _index_parts(index: Ivf | None) -> list[Part]:
    if index is None:
        return []
    return [part_of("index_centroids", index.centroids), part_of("index_cells", index.cells)]


def _index_facts(index: Ivf) -> dict[str, Any]:
    recall = index.recall
    told = {"found": int(recall.found), "of": int(recall.of), "radius": float(recall.radius)}  # may be numpy's
    return {"probes": int(index.probes), "recall": told}


def _index(tensors: Tensors, facts: Mapping[str, Any], shape: tuple[int, ...]) -> Ivf:
    centroids = take(tensors, "index_centroids", np.float32, (None, shape[1]))
    cells = take(tensors, "index_cells", np.int32, (shape[0],))
    probes, recall = fact(facts, "probes", int), fact(facts, "recall", dict)
    if not 1 <= probes <= len(centroids) or cells.min(initial=0) < 0 or cells.max(initial=0) >= len(centroids):
        raise GalleryError("an index that does not fit its templates")
    if not np.isfinite(centroids).all():
        raise GalleryError("an index that is not finite")
    found, of, radius = fact(recall, "found", int), fact(recall, "of", int), fact(recall, "radius", float)
    if not 0 <= found <= of or not radius >= 0:
        raise GalleryError("an index whose recall cannot be")
    return Ivf(centroids, cells, probes, Recall(found, of, radius))
