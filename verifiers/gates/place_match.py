"""A gate for places: can the result still be matched with its original, or with photos of protected places?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from anondata.errors import PolicyError
from anondata.protocols import Embedder, Probe, Verdicts
from anondata.verifiers.gallery.place_search import WAYS, Limits, PlaceSearch, agreement
from anondata.verifiers.gallery.places import PlaceGallery
from anondata.verifiers.gates._crops import crop_of
from anondata.verifiers.gates.base import chosen
from anondata.verifiers.local_features import SIDE_PX, features

# False-accept rate -> how many matches of two different places agree at most: under one homography, and with their
# neighbours. From the benchmark `places`; its 561 pairs say nothing of lower rates.
LIMITS: Mapping[float, Limits] = {0.05: (9, 5), 0.01: (11, 8)}

# How much greater the limits are for each tenth of that rate. From 5512 comparisons of 53 other photos, half of them
# mirrored, each count at half of the rate: 0.01 -> 11 and 8, 0.001 -> 15 and 11, 0.0002 -> 17 and 15. Below that it
# is an extrapolation. What it comes to is measured by the benchmark `place_gallery`.
A_TENTH: Limits = (3, 4)


@dataclass(frozen=True)
class PlaceMatch:
    """Passes a region of which no matcher of local features sees that it is the same place as before.

    Keypoints of the original and of the result are described by XFeat and matched; what counts is how many matches
    agree on where things went: under one homography (RANSAC), or each with its neighbours, which a smooth warp does
    not hide from. The score is the greater of the two counts, each relative to what different places exceed at
    the rate ``far`` alone: it passes at 1 and below. The score before is that of all keypoints of the original.

    With a gallery of places the result is held against every photo of it, too, as it is and mirrored, and the
    greatest score counts; before is that of the original against the same photos. A gallery of many photos has many
    chances to be wrong, so the counts that it takes grow with it, and ``far`` is the share of pictures of other
    places that the whole gallery stops: see :func:`limits_of`. Another view is found when the one shows half of the
    other's width or more, and is turned by 30 degrees at most; a picture that lies on its side is not found.

    An original with too few keypoints to be matched with itself would pass as it is, so it passes only when erased.

    Without a gallery it compares with the original itself, from the same viewpoint: somebody who has their own photo
    of the place has less. Text is another gate's, and so is what people know a place by who look at it: **it is one
    matcher's word**.

    far: the share of pairs of different places that score above 1: 0.05 or 0.01. A higher one is stricter.
    gallery: the name that a gallery of places is handed in by; None for none.
    """

    networks: ClassVar[tuple[str, ...]] = ("xfeat",)
    kinds: ClassVar[tuple[str, ...]] = ("frame",)
    gallery_options: ClassVar[str] = " --of places"

    far: float = 0.01
    gallery: str | None = None
    embedders: ClassVar[Sequence[Embedder]] = ()

    def __post_init__(self) -> None:
        far: Any = self.far
        if isinstance(far, bool) or far not in LIMITS:
            known = ", ".join(f"{rate:g}" for rate in LIMITS)
            raise PolicyError(f"far must be one of the rates that were calibrated, {known}, got {far!r}")
        if self.gallery is not None and not (isinstance(self.gallery, str) and self.gallery):
            raise PolicyError("gallery must be a name, such as 'places'")

    @property
    def name(self) -> str:
        return f"place_match({', '.join(filter(None, ('xfeat', self.gallery, f'far={self.far:g}')))})"

    @property
    def galleries(self) -> Sequence[str]:
        return (self.gallery,) if self.gallery else ()

    def bound(self, galleries: Mapping[str, Any]) -> Self:
        """A copy with its gallery at hand. Raises :class:`GalleryError` where the gallery does not fit."""
        if self.gallery is None:
            return self
        found = chosen(PlaceGallery, self.gallery, galleries)
        found.check_maker()
        copy = replace(self)
        copy.__dict__["_search"] = PlaceSearch(found, limits_of(self.far, photos=len(found)))
        return copy

    def judge(self, probe: Probe) -> Verdicts:
        crops = [
            (crop_of(probe.original[image], box), crop_of(probe.result[image], box))
            for image, box in zip(probe.regions.image.tolist(), probe.regions.boxes.tolist(), strict=True)
        ]
        own = self._verdicts(probe, "original", [self._with_itself(*pair) for pair in crops])
        seen = own.before * min(LIMITS[self.far]) > max(self._limits)
        own = replace(own, passed=own.passed & (seen | probe.erased))
        if self.gallery is None:
            return replace(own, verifier=self.name)
        search = self._opened
        known = self._verdicts(probe, self.gallery, [(search.before(a), search.best(b)) for a, b in crops])
        return Verdicts(
            self.name,
            before=torch.maximum(own.before, known.before),
            after=torch.maximum(own.after, known.after),
            threshold=own.threshold,
            passed=own.passed & known.passed,
            parts=(own, known),
        )

    def _with_itself(self, original: Tensor, result: Tensor) -> tuple[float, float]:
        one, other = (features(picture, side_px=SIDE_PX) for picture in (original, result))
        return len(one) / min(LIMITS[self.far]), agreement(one, other, LIMITS[self.far])

    def _verdicts(self, probe: Probe, against: str, rows: Sequence[tuple[float, float]]) -> Verdicts:
        scores = torch.tensor(rows, dtype=torch.float32, device=probe.regions.scores.device)
        before, after = scores.reshape(-1, 2).unbind(dim=1)
        return Verdicts(f"{self.name}: {against}", before, after, torch.ones_like(after), after <= 1)

    @property
    def _limits(self) -> Limits:
        """The greatest in force."""
        return LIMITS[self.far] if self.gallery is None else self._opened.limits

    @property
    def _opened(self) -> PlaceSearch:
        search = self.__dict__.get("_search")
        if not isinstance(search, PlaceSearch):
            raise PolicyError(f"gallery {self.gallery!r} is not at hand; give galleries={{{self.gallery!r}: …}}")
        return search


def limits_of(far: float, *, photos: int) -> Limits:
    """The limits at which a whole gallery stops a picture of another place at the rate ``far`` at most.

    By the union bound over its photos, each looked at in :data:`WAYS` ways; the counts' tails are exponential.

    >>> limits_of(0.01, photos=1), limits_of(0.01, photos=50), limits_of(0.01, photos=500)
    ((12, 10), (17, 16), (20, 20))
    """
    tenths = math.log10(WAYS * photos)
    homography, neighbours = (
        math.ceil(limit + step * tenths) for limit, step in zip(LIMITS[far], A_TENTH, strict=True)
    )
    return homography, neighbours
