"""What the gates share: their embedder, their threshold, and what to make of a region of which nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor

from anondata.errors import GalleryError, PolicyError
from anondata.protocols import Embedder
from anondata.regions import Regions
from anondata.transforms.base import in_range
from anondata.verifiers.calibration import Calibration, Threshold, from_json, shipped
from anondata.verifiers.calibration import load as load_calibration
from anondata.verifiers.embedders import embedder_of
from anondata.verifiers.gallery.gallery import Gallery
from anondata.verifiers.gallery.places import PlaceGallery
from anondata.verifiers.gates._usable import SMALLEST_PX, comparable

G = TypeVar("G", Gallery, PlaceGallery)

BLANK_SLACK = 0.02  # of a distance: encoding alone moves the template of a blanked region by less


@dataclass(frozen=True)
class ByDistance:
    """A gate that holds distances of one embedder's templates against a calibrated threshold.

    embedder: whose templates; see :func:`anondata.verifiers.embedders.embedder_of`.
    far: the false-accept rate of the threshold; a higher one is stricter.
    calibration: thresholds of your own, as ``anondata calibrate`` writes them: the path of the file or its content,
        which is what a policy then holds. By default those that come with the package.
    """

    embedder: str = "dlib-face-resnet"
    far: float = 0.01
    calibration: Any = None

    def __post_init__(self) -> None:
        self._number("far", 0, 1)
        if isinstance(self.calibration, str | Path):
            object.__setattr__(self, "calibration", load_calibration(self.calibration))
        elif isinstance(self.calibration, Mapping):
            object.__setattr__(self, "calibration", from_json(self.calibration))
        elif self.calibration is not None and not isinstance(self.calibration, Calibration):
            raise PolicyError("calibration is the path of a file that `anondata calibrate` wrote, or its content")
        if isinstance(self.calibration, Calibration):
            self._check_calibration(self.calibration)
        _ = self.threshold

    def _number(self, name: str, low: float, high: float) -> None:
        """Makes a field a float in a range, so that 1 and 1.0 are one policy; YAML reads 1e-5 as a text."""
        value = getattr(self, name)
        if isinstance(value, str):
            raise PolicyError(f"{name} is the text {value!r}, expected a number; YAML wants 1.0e-5, not 1e-5")
        object.__setattr__(self, name, in_range(name, value, low, high))

    def _check_calibration(self, calibration: Calibration) -> None:
        if calibration.embedder != self.made.name:
            raise PolicyError(f"the calibration is of embedder {calibration.embedder!r}, not {self.made.name!r}")
        if calibration.embedder_fingerprint not in ("", self.made.fingerprint):
            raise PolicyError(f"the calibration is of other weights of {self.made.name!r}; calibrate again")

    @cached_property
    def made(self) -> Embedder:
        """The embedder itself."""
        return embedder_of(self.embedder)

    @property
    def embedders(self) -> Sequence[Embedder]:
        return (self.made,)

    @property
    def thresholds(self) -> Calibration:
        """Those given, or those that come with the package."""
        return self.calibration if isinstance(self.calibration, Calibration) else shipped(self.made.name)

    @property
    def threshold(self) -> Threshold:
        return self.thresholds.at(self.far)

    def _told(self, *words: str) -> str:
        return ", ".join((*words, self.made.name, f"far={self.far:g}"))


class WithGallery:
    """A component that names one gallery in its field ``gallery``, and has it at hand once it is bound.

    gallery_options: what `anondata gallery build` must be told to make one that fits.
    """

    gallery: str
    gallery_options: ClassVar[str] = ""

    @property
    def galleries(self) -> Sequence[str]:
        if not isinstance(self.gallery, str) or not self.gallery:
            raise PolicyError("gallery must be a name, such as 'protected'")
        return (self.gallery,)

    def bound(self, galleries: Mapping[str, Any]) -> Self:
        """A copy with the gallery at hand. Raises :class:`GalleryError` where the gallery does not fit."""
        found = chosen(Gallery, self.gallery, galleries)
        self.check(found)
        own = fields(self)  # type: ignore[arg-type]  # every subclass is a dataclass
        copy = type(self)(**{field.name: getattr(self, field.name) for field in own})
        copy.__dict__["_gallery"] = found
        return copy

    def check(self, gallery: Gallery) -> None:
        """Raises :class:`GalleryError` for a gallery that the component cannot use."""

    def may_know(self, regions: Regions, templates: Mapping[str, Tensor]) -> Tensor:
        """``(R,)`` bool: whether somebody of the gallery may be there. In doubt it is so: no template that can be
        compared, nearer than the upper end of the threshold's interval, or an index that was not measured so far.

        templates: ``(R, D)`` of the originals, by embedder name.
        """
        own: Any = self  # every subclass is ByDistance, too
        limit, index = own.threshold.high, self.opened.index
        far = self.opened.search(templates[own.made.name]).distance[:, 0] > limit
        if index is not None and index.recall.radius < limit:
            far = torch.zeros_like(far)
        strangers: Tensor = comparable(regions, smallest_px=SMALLEST_PX) & far.to(regions.boxes.device)
        return ~strangers

    def check_reach(self, gallery: Gallery, distance: float) -> None:
        """Raises :class:`GalleryError` where the recall of the gallery's index was not measured as far as this."""
        if gallery.index is not None and gallery.index.recall.radius < distance:
            raise GalleryError(
                f"the index of gallery {self.gallery!r} was measured up to a distance of "
                f"{gallery.index.recall.radius:.3f}, and people must be found up to {distance:.3f}; build it with "
                "the false-accept rate of this policy (--far), or with --index exact"
            )

    @property
    def opened(self) -> Gallery:
        """The gallery that it was bound to; :class:`PolicyError` where it was not."""
        try:
            gallery: Gallery = self.__dict__["_gallery"]
        except KeyError:
            raise PolicyError(
                f"gallery {self.gallery!r} is not at hand; give galleries={{{self.gallery!r}: …}}"
            ) from None
        return gallery


def chosen(kind: type[G], name: str, galleries: Mapping[str, Any]) -> G:
    """The gallery of this name. Raises :class:`GalleryError` where it is of another kind, or empty."""
    found = galleries[name]
    if not isinstance(found, kind):
        hint = (
            "; a Gallery is of people, a PlaceGallery of places" if isinstance(found, Gallery | PlaceGallery) else ""
        )
        raise GalleryError(
            f"gallery {name!r} is {type(found).__name__}, expected a {kind.__name__} or its file{hint}"
        )
    if not len(found):
        raise GalleryError(f"gallery {name!r} is empty: it would protect nobody")
    return found


def distances(a: Tensor, b: Tensor) -> Tensor:
    """``(N, M)`` Euclidean distances of ``(N, D)`` and ``(M, D)``.

    Not by the matrix product that torch takes for large batches, with which a row's result depends on the others.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def eased(asked: Tensor, distance: Tensor, threshold: Tensor, blank: Callable[[Tensor], Tensor]) -> Tensor:
    """Thresholds ``(R,)`` that do not ask for more than erasing can give.

    A region that no threshold parts from what it is held against, though nothing of it is left, would fail for ever:
    a bush that was taken for a face, or a background that looks like another. When it was erased and is no nearer
    than a blanked-out one, the region itself tells nothing, and that is what is asked for. A technique that leaves
    anything of a region is always held against the calibrated threshold.

    asked: ``(R,)`` bool, regions that were erased. blank: distances of some of them, by their rows, when nothing of
    them is left.
    """
    near = (~(distance > threshold) & asked).nonzero().flatten()
    if not len(near):
        return threshold
    out = threshold.clone()
    out[near] = torch.minimum(out[near], blank(near) - BLANK_SLACK)
    return out
