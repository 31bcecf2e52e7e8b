"""Who is in a photo: the operator's own look into a gallery. It prints identities, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anondata.errors import UndecodableError

if TYPE_CHECKING:
    from torch import Tensor

    from anondata.protocols import Embedder
    from anondata.regions import Regions
    from anondata.verifiers.gallery.gallery import Gallery


@dataclass(frozen=True)
class Near:
    """A person of the gallery, and how far their nearest template is from a face."""

    identity: str = field(repr=False)
    label: str = field(repr=False)
    distance: float


@dataclass(frozen=True)
class FoundFace:
    """A face of a photo: its width, and the nearest people; no one where there is no template of it."""

    width_px: float
    near: tuple[Near, ...]


@dataclass(frozen=True)
class FoundPhoto:
    """The faces of a photo, from the largest. error: why it could not be looked at."""

    number: int
    faces: tuple[FoundFace, ...] = ()
    error: str | None = None

    def to_json(self, radius: float) -> dict[str, Any]:
        faces = [
            {
                "face": number,
                "width_px": face.width_px,
                "near": [
                    {"identity": n.identity, "label": n.label, "distance": n.distance, "within": n.distance <= radius}
                    for n in face.near
                ],
            }
            for number, face in enumerate(self.faces, 1)
        ]
        return {"photo": self.number, "error": self.error, "faces": faces}

    def lines(self, radius: float) -> Iterator[str]:
        if self.error or not self.faces:
            yield f"photo {self.number}: {self.error or 'no face'}"
        for number, face in enumerate(self.faces, 1):
            yield f"photo {self.number} face {number}, {face.width_px:.0f} px wide (threshold {radius:.3f})"
            for near in face.near:
                word = "match" if near.distance <= radius else "-"
                yield f"  {near.distance:.3f}  {word:5}  {near.identity}  {near.label}".rstrip()
            if not face.near:
                yield "  no template can be made of it"


def search_photos(
    gallery: Gallery, embedder: Embedder, paths: Sequence[str], *, top: int, device: str
) -> list[FoundPhoto]:
    """The nearest people of every face of some photos, however small it is."""
    return [_photo(gallery, embedder, number, path, top, device) for number, path in enumerate(paths, 1)]


def _photo(gallery: Gallery, embedder: Embedder, number: int, path: str, top: int, device: str) -> FoundPhoto:
    import torch

    from anondata.content.images import ImageContent
    from anondata.detectors.centerface import CenterFaceDetector

    content = ImageContent()
    try:
        view = content.view(content.decode(Path(path).read_bytes(), torch.device(device)))
    except UndecodableError as error:
        return FoundPhoto(number, error=error.reason)
    except OSError as error:
        return FoundPhoto(number, error=f"unreadable: {error.strerror}")
    with torch.no_grad():
        faces = CenterFaceDetector().detect([view])
        faces = faces.select(faces.sizes.prod(dim=1).argsort(descending=True))
        rows = embedder.embed([view], faces)
    return FoundPhoto(number, tuple(_faces(gallery, faces, rows, top)))


def _faces(gallery: Gallery, faces: Regions, rows: Tensor, top: int) -> Iterator[FoundFace]:
    most = int(np.bincount(gallery.owners).max(initial=1)) if len(gallery) else 1
    found = gallery.search(rows, k=min(len(gallery), top * most)) if len(faces) else None
    for i, width in enumerate(faces.sizes[:, 0].tolist()):
        near: dict[int, Near] = {}
        if found is not None:
            for distance, row in zip(found.distance[i].tolist(), found.row[i].tolist(), strict=True):
                if row >= 0 and distance == distance:
                    who = int(gallery.owners[row])
                    near.setdefault(who, Near(gallery.identities[who], gallery.labels[who], round(distance, 4)))
        yield FoundFace(round(width, 1), tuple(near.values())[:top])
