"""A gallery of places that must not be recognized: the local features of photos of them, and no pixel.

It says what a safe house looks like to a matcher, and pictures can be drawn from features: keep it as one keeps the
photos. Like a gallery of people it is a value, and :mod:`anondata.verifiers.gallery.file` keeps it in a file.

Source, of what features give away: Pittaluga, Koppal, Kang, Sinha (2019), Revealing Scenes by Inverting Structure
from Motion Reconstructions, doi 10.1109/CVPR.2019.00023.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from anondata.errors import GalleryError
from anondata.verifiers.gallery.gallery import FINGERPRINT_BYTES, LEAST_SALT_BYTES, Floats, Ints
from anondata.verifiers.gallery.payload import Part, Tensors, about, check_taken, fact, part_of, take
from anondata.verifiers.local_features import Features, fingerprint

KIND = "places"
DIMENSIONS = 64
Codes = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class PlaceGallery:
    """Local features of ``P`` photos of places, ``F`` in all.

    maker: fingerprint of what found the features; those of different makers do not compare.
    names: of the places, each once. owners: ``(P,)`` int64, rows of ``names``.
    ends: ``(P,)`` int64, rising: where the features of each photo end.
    positions: ``(F, 2)`` float32, x and y over the photo's long side. descriptors: ``(F, 64)`` int8, of any length.
    salt: makes the fingerprint tell nothing to who does not hold the gallery.
    """

    maker: str
    names: tuple[str, ...] = field(repr=False)
    owners: Ints = field(repr=False)
    ends: Ints = field(repr=False)
    positions: Floats = field(repr=False)
    descriptors: Codes = field(repr=False)
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        """How many photos there are."""
        return len(self.owners)

    @property
    def counted(self) -> str:
        """What it holds, in words that name nothing."""
        return f"{len(self)} photos of {len(self.names)} protected places"

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over what the gallery holds; without its salt they tell nothing, not even a guess."""
        digest = hmac.new(self.salt, f"{KIND} {self.maker}".encode(), hashlib.sha256)
        for name in self.names:
            digest.update(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest())
        for array in (self.owners, self.ends, self.positions, self.descriptors):
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()[: 2 * FINGERPRINT_BYTES]

    def photos(self) -> tuple[Features, ...]:
        """The features of each photo, with descriptors of length 1 again."""
        return tuple(
            Features(torch.from_numpy(self.positions[rows]), decoded(self.descriptors[rows]))
            for rows in self._rows_of_photos()
        )

    def info(self) -> dict[str, Any]:
        """Counts and fingerprints; no name and no feature."""
        per_place = np.bincount(self.owners, minlength=len(self.names))
        per_photo = np.diff(self.ends, prepend=0)
        return {
            "of": KIND,
            "places": len(self.names),
            "photos": len(self),
            "photos_per_place": [int(per_place.min()), int(per_place.max())] if len(self) else [0, 0],
            "features_per_photo": [int(per_photo.min()), int(per_photo.max())] if len(self) else [0, 0],
            "network": "xfeat",
            "network_fingerprint": self.maker,
            "fingerprint": self.fingerprint,
        }

    def add(self, names: Sequence[str], photos: Sequence[Features], *, extend: bool = False) -> PlaceGallery:
        """A gallery with more photos, ``names[i]`` the place of ``photos[i]``.

        extend: allow places that are in the gallery already; without it they are an error.

        Raises:
            GalleryError: names that are empty or known, or features that are not finite.
        """
        if len(names) != len(photos):
            raise GalleryError(f"{len(names)} names for {len(photos)} photos; one for each is needed")
        rows = {name: i for i, name in enumerate(self.names)}
        known = sum(name in rows for name in dict.fromkeys(names))
        if known and not extend:
            raise GalleryError(f"{known} of the places are in the gallery already; remove them first, or extend them")
        for name in names:
            rows.setdefault(name, len(rows))
        start = len(self.positions)
        return replace(
            self,
            names=tuple(rows),
            owners=np.concatenate([self.owners, np.array([rows[name] for name in names], np.int64)]),
            ends=np.concatenate([self.ends, start + np.cumsum([len(p) for p in photos], dtype=np.int64)]),
            positions=np.concatenate([self.positions, *(p.places.numpy().astype(np.float32) for p in photos)]),
            descriptors=np.concatenate([self.descriptors, *(coded(p.descriptors) for p in photos)]),
        )

    def remove(self, names: Sequence[str]) -> PlaceGallery:
        """A gallery without these places.

        Raises:
            GalleryError: a place that is not in the gallery; it is told by its number among those given.
        """
        strangers = [str(n) for n, name in enumerate(names, 1) if name not in set(self.names)]
        if strangers:
            raise GalleryError(f"not in the gallery: number {', '.join(strangers)} of the places given")
        gone = set(names)
        kept = [i for i, name in enumerate(self.names) if name not in gone]
        photos = [i for i, owner in enumerate(self.owners) if owner in kept]
        rows = [row for i, row in enumerate(self._rows_of_photos()) if i in set(photos)]
        return replace(
            self,
            names=tuple(self.names[i] for i in kept),
            owners=np.array([kept.index(self.owners[i]) for i in photos], np.int64),
            ends=np.cumsum([row.stop - row.start for row in rows], dtype=np.int64),
            positions=np.concatenate([self.positions[:0], *(self.positions[row] for row in rows)]),
            descriptors=np.concatenate([self.descriptors[:0], *(self.descriptors[row] for row in rows)]),
        )

    def check_maker(self) -> None:
        """Raises :class:`GalleryError` unless its features compare with those found here."""
        if self.maker != fingerprint():
            raise GalleryError(
                f"the gallery of places was made by another network or version ({self.maker[:8]}, here "
                f"{fingerprint()[:8]}); build it again from the photos"
            )

    def _rows_of_photos(self) -> Iterator[slice]:
        start = 0
        for end in self.ends.tolist():
            yield slice(start, end)
            start = end


def empty_places() -> PlaceGallery:
    """A gallery of no place, for features as they are found here."""
    none = np.zeros(0, np.int64)
    return PlaceGallery(
        fingerprint(), (), none, none, np.zeros((0, 2), np.float32), np.zeros((0, DIMENSIONS), np.int8)
    )


def coded(descriptors: Tensor) -> Codes:
    """Descriptors ``(N, 64)`` in a quarter of the bytes: their direction counts, so each has a scale of its own.

    Raises:
        GalleryError: a descriptor that is not finite, or of no direction.
    """
    largest = descriptors.abs().amax(dim=1, keepdim=True)
    if not bool((largest.isfinite() & (largest > 0)).all()):
        raise GalleryError("the features of a place are not finite")
    codes: Codes = (descriptors / largest * 127).round().to(torch.int8).numpy()
    return codes


def decoded(codes: Codes) -> Tensor:
    return F.normalize(torch.from_numpy(codes.astype(np.float32)), dim=1)


def to_parts(gallery: PlaceGallery) -> list[Part]:
    """The parts of its file: large types first keep it aligned."""
    facts = {"kind": KIND, "maker": gallery.maker, "salt": gallery.salt.hex(), "names": gallery.names}
    return [
        part_of("owners", gallery.owners),
        part_of("ends", gallery.ends),
        part_of("positions", gallery.positions),
        part_of("descriptors", gallery.descriptors),
        about(facts),
    ]


def from_tensors(tensors: Tensors, facts: Mapping[str, Any]) -> PlaceGallery:
    """The gallery of a file's parts, ``about`` taken out. Raises :class:`GalleryError`, KeyError, ValueError."""
    owners = take(tensors, "owners", np.int64, (None,))
    positions = take(tensors, "positions", np.float32, (None, 2))
    gallery = PlaceGallery(
        maker=fact(facts, "maker", str),
        names=tuple(fact(facts, "names", list)),
        owners=owners,
        ends=take(tensors, "ends", np.int64, (len(owners),)),
        positions=positions,
        descriptors=take(tensors, "descriptors", np.int8, (len(positions), DIMENSIONS)),
        salt=bytes.fromhex(fact(facts, "salt", str)),
    )
    check_taken(tensors)
    return gallery


def _check(gallery: PlaceGallery) -> None:
    ends, places = gallery.ends, len(gallery.names)
    if len(gallery.salt) < LEAST_SALT_BYTES:
        raise GalleryError(f"a gallery's salt has at least {LEAST_SALT_BYTES} bytes")
    if len(set(gallery.names)) != places or not all(isinstance(n, str) and n.strip() for n in gallery.names):
        raise GalleryError("the names of places must be texts that are not empty, each once")
    if ends.shape != gallery.owners.shape or not (np.diff(ends, prepend=0) > 0).all():
        raise GalleryError("every photo of a gallery of places needs features")
    if len(gallery.positions) != len(gallery.descriptors) or ends[-1:].sum() != len(gallery.positions):
        raise GalleryError("the features of a gallery of places do not fill its photos")
    if set(np.unique(gallery.owners).tolist()) != set(range(places)):
        raise GalleryError("every place of a gallery needs a photo, and every photo a place")
    if not np.isfinite(gallery.positions).all() or not gallery.descriptors.any(axis=1).all():
        raise GalleryError("the features of a gallery of places must be finite, and none of them empty")
