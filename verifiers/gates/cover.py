"""Whom a policy covers, and who keeps one new look: a gallery decides, and in doubt it is everybody and nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from anondata.errors import GalleryError, PolicyError
from anondata.protocols import Area
from anondata.regions import Regions
from anondata.verifiers.gallery.gallery import Gallery, Role
from anondata.verifiers.gates._usable import SMALLEST_PX, comparable
from anondata.verifiers.gates.base import ByDistance, WithGallery


@dataclass(frozen=True)
class _ByGallery(WithGallery, ByDistance):
    smallest_px: float = SMALLEST_PX
    area: Area = "face"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.area not in ("face", "head"):
            raise PolicyError(f"area must be 'face' or 'head', got {self.area!r}")
        self._number("smallest_px", 0, 10_000)

    def _check(self, gallery: Gallery, role: Role) -> None:
        gallery.check_embedder(self.made.name, self.made.fingerprint)
        if gallery.role != role:
            raise GalleryError(
                f"gallery {self.gallery!r} is of {gallery.role} people, this cover needs {role} ones: "
                f"build it with `anondata gallery build … --role {role}`"
            )

    def _comparable(self, regions: Regions) -> Tensor:
        return comparable(regions, smallest_px=self.smallest_px)

    def _nearest(self, templates: Mapping[str, Tensor]) -> Tensor:
        return self.opened.search(templates[self.made.name]).distance[:, 0]


@dataclass(frozen=True)
class OnlyGallery(_ByGallery):
    """Covers the people of a gallery of protected ones; strangers stay as they are.

    A face is left alone when it is farther from every template than the upper end of the threshold's interval, large
    enough, has landmarks and looks ahead. In doubt it is covered: the threshold should be one of a *high* FAR.

    **Not safe against misses**: somebody protected whom the recognizer does not know (another age, light, a scarf)
    stays as they are. Cover everyone where that must not be.

    smallest_px: geometric mean of a face's sides below which it is covered, whoever it is. area: what of a face is
    covered: ``"face"``, or ``"head"`` with hair, neck and shoulders.
    """

    gallery: str = "protected"
    far: float = 0.05

    def check(self, gallery: Gallery) -> None:
        self._check(gallery, "protected")
        self.check_reach(gallery, self.threshold.high)

    def spares(self, regions: Regions, templates: Mapping[str, Tensor]) -> Tensor:
        return self._comparable(regions) & (self._nearest(templates) > self.threshold.high)


@dataclass(frozen=True)
class EveryoneExcept(_ByGallery):
    """Covers everyone but the people of a gallery of consented ones.

    A face is left alone when it is nearer to a template than the lower end of the threshold's interval, large enough,
    has landmarks and looks ahead. In doubt it is covered: the threshold should be one of a *low* FAR.

    A stranger is compared with everyone in the gallery, so the chance to be taken for somebody grows with it
    (ISO/IEC 19795-1 calls it the false positive identification rate). ``fpir`` bounds it: the FAR of a comparison is
    at most ``fpir / templates``, and a gallery that would need a smaller one than was calibrated is refused.
    """

    gallery_options: ClassVar[str] = " --role consented"

    gallery: str = "consented"
    far: float = 0.002
    fpir: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self._number("fpir", 0, 1)

    def check(self, gallery: Gallery) -> None:
        self._check(gallery, "consented")
        if self.far * len(gallery) > self.fpir:
            raise GalleryError(
                f"of strangers up to {min(1.0, self.far * len(gallery)):.0%} would be taken for one of the "
                f"{len(gallery)} consented templates, and stay as they are; the bound is {self.fpir:.0%}. Give far: "
                f"{self.fpir / len(gallery):.1e} or less with a calibration that supports it (`anondata calibrate`), "
                "or enroll fewer people"
            )

    def spares(self, regions: Regions, templates: Mapping[str, Tensor]) -> Tensor:
        return self._comparable(regions) & (self._nearest(templates) < self.threshold.low)


@dataclass(frozen=True)
class GalleryPeople(_ByGallery):
    """The people of a gallery, whatever its role, each of whom keeps one new look throughout a run.

    A face is somebody's when it is nearer to their template than the lower end of the threshold's interval, large
    enough, has landmarks and looks ahead; others look new each time. Of strangers up to
    ``1 - (1 - far) ** templates`` are taken for one of the people and get their look.
    """

    gallery: str = "protected"
    far: float = 0.002

    def check(self, gallery: Gallery) -> None:
        gallery.check_embedder(self.made.name, self.made.fingerprint)
        self.check_reach(gallery, self.threshold.low)

    def people(self, regions: Regions, templates: Mapping[str, Tensor]) -> Sequence[str]:
        found = self.opened.search(templates[self.made.name])
        known = self._comparable(regions) & (found.distance[:, 0] < self.threshold.low)
        owners = self.opened.owners
        rows = found.row[:, 0].tolist()
        names = self.opened.identities
        return [names[owners[row]] if sure else "" for row, sure in zip(rows, known.tolist(), strict=True)]
