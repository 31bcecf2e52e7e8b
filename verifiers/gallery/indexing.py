"""Which index a gallery gets, and how it is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from anondata.errors import PolicyError

if TYPE_CHECKING:
    from anondata.verifiers.calibration import Calibration, Threshold
    from anondata.verifiers.gallery.gallery import Gallery


@dataclass(frozen=True)
class IndexChoice:
    """How the gallery is to be searched. recall: the least share of searches within the threshold at the false-accept
    rate ``far`` that must find what brute force finds."""

    kind: Literal["auto", "exact", "ivf"] = "auto"
    recall: float = 0.9999
    far: float = 0.01
    calibration: Calibration | None = None

    def check(self, embedder: str) -> None:
        """Raises :class:`PolicyError` for a rate that the embedder's calibration does not have."""
        if known := self._calibration(embedder):
            known.at(self.far)
        elif self.kind == "ivf":
            raise PolicyError(_uncalibrated(embedder))

    def threshold(self, embedder: str) -> Threshold:
        """The threshold within which people must be found, with its interval."""
        if known := self._calibration(embedder):
            return known.at(self.far)
        raise PolicyError(_uncalibrated(embedder))

    def _calibration(self, embedder: str) -> Calibration | None:
        from anondata.verifiers.calibration import shipped

        try:
            return self.calibration or shipped(embedder)
        except PolicyError:
            return None


def _uncalibrated(embedder: str) -> str:
    return (
        f"an index is measured at a threshold, and no calibration for embedder {embedder!r} comes with anondata; "
        "give --calibration FILE, or --index exact"
    )


def indexed(gallery: Gallery, choice: IndexChoice) -> Gallery:
    """The gallery with an index, where one is asked for or brute force would be slow.

    Raises: GalleryError where the index finds less than the recall that was asked for.
    """
    from anondata.verifiers.gallery.index import build_index, exact_is_cheap

    if not len(gallery) or choice.kind == "exact":
        return replace(gallery, index=None)
    if choice.kind == "auto" and exact_is_cheap(len(gallery), gallery.dimensions):
        return replace(gallery, index=None)
    radius = choice.threshold(gallery.embedder).high  # covers that are in doubt look as far as this
    return replace(gallery, index=build_index(gallery.templates, gallery.owners, radius=radius, bound=choice.recall))
