"""The gallery: templates of known people, that probes are held against.

A gallery is a value. Every change gives a new one, and :mod:`anondata.verifiers.gallery.file` keeps it in a file.
It is biometric data: nothing of it appears in a repr, an error or a log.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anondata.errors import GalleryError
from anondata.protocols import Embedder
from anondata.verifiers.gallery.index import Ivf, Searcher

Role = Literal["protected", "consented"]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

FINGERPRINT_BYTES = 16
LEAST_SALT_BYTES = 16


@dataclass(frozen=True, eq=False)
class Portrait:
    """A face with its surroundings, kept so that attackers who anonymize their own photos can be played.

    image: encoded picture, repr-hidden. box: ``(4,)`` xyxy in its pixels. landmarks: ``(5, 2)``, NaN where unknown.
    """

    image: bytes = field(repr=False)
    box: Floats = field(repr=False)
    landmarks: Floats = field(repr=False)


@dataclass(frozen=True, eq=False)
class Matches:
    """What a search found for ``R`` probes: the ``K`` nearest templates of each, nearest first.

    distance: ``(R, K)`` float32, Euclidean; NaN for a probe that is not finite, inf where there are fewer than ``K``.
    row: ``(R, K)`` int64, of the gallery's templates; -1 where there is none.
    """

    distance: Tensor
    row: Tensor


@dataclass(frozen=True, eq=False)
class Gallery:
    """Templates of people, in one of two roles: *protected*, or *consented* to being seen.

    embedder, embedder_fingerprint: who made the templates. Templates of different makers do not compare.
    identities, labels: one for each person; a label is for people to read, and may be empty.
    templates: ``(N, D)`` float32, all finite. owners: ``(N,)`` int64, rows of ``identities``.
    portraits: one for each template (or None), or no tuple at all when none were kept.
    parrots: templates ``(N, D)`` of the portraits put through a technique, by its description; NaN where none.
    index: how to search faster than by brute force; dropped by every change.
    salt: makes the fingerprint tell nothing to who does not hold the gallery.
    """

    role: Role
    embedder: str
    embedder_fingerprint: str
    identities: tuple[str, ...] = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    templates: Floats = field(repr=False)
    owners: Ints = field(repr=False)
    portraits: tuple[Portrait | None, ...] = field(default=(), repr=False)
    parrots: Mapping[str, Floats] = field(default_factory=dict, repr=False)
    index: Ivf | None = field(default=None, repr=False)
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "_searchers", {})
        object.__setattr__(self, "_lock", threading.Lock())

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (tuple(getattr(self, name) for name in self.__dataclass_fields__),)

    def __len__(self) -> int:
        """How many templates there are."""
        return len(self.owners)

    @property
    def counted(self) -> str:
        """Whom it holds, in words that name nobody."""
        return f"{len(self.identities)} {self.role} people"

    @property
    def dimensions(self) -> int:
        return int(self.templates.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over what the gallery holds; without its salt they tell nothing, not even a guess."""
        digest = hmac.new(self.salt, _bytes_of(f"{self.role} {self.embedder_fingerprint}"), hashlib.sha256)
        for identity in self.identities:
            digest.update(hashlib.sha256(_bytes_of(identity)).digest())
        for array in (self.owners, self.templates):
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        for portrait in self.portraits:
            digest.update(_digest_of(portrait))
        for name, rows in sorted(self.parrots.items()):
            digest.update(hashlib.sha256(_bytes_of(name)).digest() + rows.tobytes())
        if self.index is not None:
            digest.update(f"{self.index.probes}".encode())
            digest.update(self.index.centroids.tobytes() + self.index.cells.tobytes())
        return digest.hexdigest()[: 2 * FINGERPRINT_BYTES]

    def info(self) -> dict[str, Any]:
        """Counts and fingerprints; no name and no template."""
        per_person = np.bincount(self.owners, minlength=len(self.identities))
        return {
            "role": self.role,
            "identities": len(self.identities),
            "templates": len(self),
            "templates_per_identity": [int(per_person.min()), int(per_person.max())] if len(per_person) else [0, 0],
            "dimensions": self.dimensions,
            "embedder": self.embedder,
            "embedder_fingerprint": self.embedder_fingerprint,
            "portraits": sum(p is not None for p in self.portraits),
            "parrot_techniques": len(self.parrots),
            "index": None if self.index is None else _index_info(self.index),
            "fingerprint": self.fingerprint,
        }

    def add(
        self,
        identities: Sequence[str],
        templates: Floats,
        *,
        labels: Mapping[str, str] | None = None,
        portraits: Sequence[Portrait | None] | None = None,
        extend: bool = False,
    ) -> Gallery:
        """A gallery with more templates, ``identities[i]`` the owner of ``templates[i]``.

        extend: allow identities that are in the gallery already; without it they are an error.

        Raises:
            GalleryError: dimensions that differ, templates that are not finite, empty or known identities.
        """
        rows = _as_templates(templates, self.dimensions if len(self) else None)
        if len(identities) != len(rows):
            raise GalleryError(f"{len(identities)} identities for {len(rows)} templates; one for each is needed")
        if portraits is not None and len(portraits) != len(rows):
            raise GalleryError(f"{len(portraits)} portraits for {len(rows)} templates; one for each is needed")
        place = {identity: i for i, identity in enumerate(self.identities)}
        known = sum(identity in place for identity in dict.fromkeys(identities))
        if known and not extend:
            raise GalleryError(
                f"{known} of the identities are in the gallery already; remove them first, or extend them"
            )
        for identity in identities:
            place.setdefault(identity, len(place))
        told = dict(zip(self.identities, self.labels, strict=True)) | dict(labels or {})
        return replace(
            self,
            identities=tuple(place),
            labels=tuple(told.get(identity, "") for identity in place),
            templates=np.concatenate([self.templates, rows]) if len(self) else rows.copy(),
            owners=np.concatenate([self.owners, np.array([place[i] for i in identities], np.int64)]),
            portraits=_joined(self, len(rows), portraits),
            parrots={},
            index=None,
        )

    def remove(self, identities: Sequence[str]) -> Gallery:
        """A gallery without these people.

        Raises:
            GalleryError: an identity that is not in the gallery; it is told by its number among those given.
        """
        known = set(self.identities)
        strangers = [str(n) for n, identity in enumerate(identities, 1) if identity not in known]
        if strangers:
            raise GalleryError(f"not in the gallery: number {', '.join(strangers)} of the identities given")
        gone = set(identities)
        people = [i for i, identity in enumerate(self.identities) if identity not in gone]
        return self._kept(people, np.isin(self.owners, people))

    def _kept(self, people: list[int], mask: NDArray[np.bool_]) -> Gallery:
        place = {old: new for new, old in enumerate(people)}
        return replace(
            self,
            identities=tuple(self.identities[i] for i in people),
            labels=tuple(self.labels[i] for i in people),
            templates=np.ascontiguousarray(self.templates[mask]),
            owners=np.array([place[int(i)] for i in self.owners[mask]], np.int64),
            portraits=tuple(p for p, keep in zip(self.portraits, mask, strict=True) if keep)
            if self.portraits
            else (),
            parrots={name: np.ascontiguousarray(rows[mask]) for name, rows in self.parrots.items()},
            index=None,
        )

    def merge(self, other: Gallery, *, extend: bool = False) -> Gallery:
        """The people of both, in this gallery's role and with its salt; where both have a label, this one's stays.

        Raises:
            GalleryError: roles or embedders that differ, and what :meth:`add` raises.
        """
        if other.role != self.role:
            raise GalleryError(f"a {other.role} gallery cannot be merged into a {self.role} one")
        self.check_embedder(other.embedder, other.embedder_fingerprint)
        if not len(other):
            return self
        named = {i for i, label in zip(self.identities, self.labels, strict=True) if label}
        return self.add(
            [other.identities[i] for i in other.owners],
            other.templates,
            labels={
                i: text for i, text in zip(other.identities, other.labels, strict=True) if text and i not in named
            },
            portraits=other.portraits or None,
            extend=extend,
        )

    def check_embedder(self, name: str, fingerprint: str) -> None:
        """Raises :class:`GalleryError` unless templates of this embedder compare with the gallery's."""
        if name != self.embedder:
            raise GalleryError(f"the gallery was made with embedder {self.embedder!r}, not {name!r}; build it again")
        if fingerprint != self.embedder_fingerprint:
            raise GalleryError(
                f"the gallery was made with other weights of {name!r} ({self.embedder_fingerprint[:8]}, here "
                f"{fingerprint[:8]}); build it again from the photos"
            )

    def search(self, probes: Tensor, k: int = 1) -> Matches:
        """The ``k`` nearest templates of each probe ``(R, D)``.

        Raises:
            GalleryError: an empty gallery, or probes of other dimensions.
        """
        if not len(self):
            raise GalleryError("the gallery is empty: nobody to search for; `anondata gallery add` enrolls people")
        if probes.ndim != 2 or probes.shape[1] != self.dimensions:
            raise GalleryError(f"probes of shape {tuple(probes.shape)} for a gallery of {self.dimensions} dimensions")
        return Matches(*self._searcher(probes.device).nearest(probes, k))

    def _searcher(self, device: torch.device) -> Searcher:
        lock: threading.Lock = self.__dict__["_lock"]
        made: dict[str, Searcher] = self.__dict__["_searchers"]
        with lock:
            if str(device) not in made:
                made[str(device)] = Searcher(self.templates, self.index, device=device)
            return made[str(device)]


def empty_gallery(embedder: Embedder, *, role: Role = "protected") -> Gallery:
    """A gallery of nobody, for templates of one embedder."""
    none = np.zeros((0, 0), np.float32)
    return Gallery(role, embedder.name, embedder.fingerprint, (), (), none, np.zeros(0, np.int64))


def _bytes_of(text: str) -> bytes:
    """Also of a file name that is no UTF-8: Python holds its bytes as surrogates."""
    return text.encode("utf-8", "surrogatepass")


def _digest_of(portrait: Portrait | None) -> bytes:
    parts = (portrait.image, portrait.box.tobytes(), portrait.landmarks.tobytes()) if portrait else ()
    return hashlib.sha256(b"".join(parts)).digest()


def _restore(values: tuple[Any, ...]) -> Gallery:
    return Gallery(*values)


def _index_info(index: Ivf) -> dict[str, Any]:
    recall = index.recall
    return {
        "cells": len(index.centroids),
        "probes": index.probes,
        "recall": recall.share,
        "recall_low": recall.low,
        "measured_on": recall.of,
        "radius": recall.radius,
    }


def _as_templates(templates: Any, dimensions: int | None) -> Floats:
    rows = np.ascontiguousarray(templates, dtype=np.float32)
    if rows.ndim != 2 or not rows.shape[1]:
        raise GalleryError(f"templates must be a matrix (N, D), got shape {rows.shape}")
    if dimensions is not None and rows.shape[1] != dimensions:
        raise GalleryError(f"templates have {rows.shape[1]} dimensions, the gallery has {dimensions}")
    bad = int((~np.isfinite(rows).all(axis=1)).sum())
    if bad:
        raise GalleryError(f"{bad} of {len(rows)} templates are not finite; leave those faces out")
    return rows


def _joined(gallery: Gallery, count: int, portraits: Sequence[Portrait | None] | None) -> tuple[Portrait | None, ...]:
    if portraits is None and not gallery.portraits:
        return ()
    before = gallery.portraits or (None,) * len(gallery)
    return (*before, *(portraits or (None,) * count))


def _check(gallery: Gallery) -> None:
    people, count = len(gallery.identities), len(gallery.templates)
    if gallery.role not in get_args(Role):
        raise GalleryError(f"a gallery's role is 'protected' or 'consented', got {gallery.role!r}")
    if len(gallery.salt) < LEAST_SALT_BYTES:
        raise GalleryError(f"a gallery's salt has at least {LEAST_SALT_BYTES} bytes")
    if gallery.templates.dtype != np.float32 or gallery.templates.ndim != 2:
        raise GalleryError("a gallery's templates must be a float32 matrix (N, D)")
    if not np.isfinite(gallery.templates).all():
        raise GalleryError("a gallery's templates must be finite")
    if len(set(gallery.identities)) != people or len(gallery.labels) != people:
        raise GalleryError("a gallery's identities must be unique, with a label for each")
    if not all(isinstance(i, str) and i.strip() for i in gallery.identities):
        raise GalleryError("an identity must be a text that is not empty")
    if not all(isinstance(label, str) for label in gallery.labels):
        raise GalleryError("a label must be a text; it may be empty")
    if gallery.owners.shape != (count,) or gallery.owners.dtype != np.int64:
        raise GalleryError("a gallery needs one owner for each template")
    if set(np.unique(gallery.owners).tolist()) != set(range(people)):
        raise GalleryError("every identity of a gallery needs a template, and every template an identity")
    if gallery.portraits and len(gallery.portraits) != count:
        raise GalleryError("a gallery keeps a portrait for each template, or none at all")
    if any(p is not None and not _is_portrait(p) for p in gallery.portraits):
        raise GalleryError("a portrait is bytes with a float32 box (4,) and float32 landmarks (5, 2)")
    if any(rows.shape != gallery.templates.shape or rows.dtype != np.float32 for rows in gallery.parrots.values()):
        raise GalleryError("a gallery's parrot templates do not fit its templates")


def _is_portrait(portrait: Portrait) -> bool:
    arrays = (portrait.box, (4,)), (portrait.landmarks, (5, 2))
    fits = all(isinstance(a, np.ndarray) and a.shape == shape and a.dtype == np.float32 for a, shape in arrays)
    return isinstance(portrait.image, bytes) and fits
