"""The gate of a gallery: is the result anybody who is protected? The naive attacker."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anondata.protocols import Probe, Verdicts
from anondata.verifiers.gallery.gallery import Gallery
from anondata.verifiers.gates.base import ByDistance, WithGallery, eased


@dataclass(frozen=True)
class GalleryMatch(WithGallery, ByDistance):
    """Passes a face that no template of a gallery is within the threshold of.

    The scores are Euclidean distances to the nearest template, before and after. The false-accept rate is that of one
    comparison: with ``N`` templates a face of nobody falls within the threshold with a probability of up to
    ``1 - (1 - far) ** N``, and is then changed more than it need be. For a region that was erased see
    :func:`anondata.verifiers.gates.base.eased`.

    gallery: the name that the gallery is handed in by.
    """

    gallery: str = "protected"

    @property
    def name(self) -> str:
        return f"gallery_match({self._told(self.gallery)})"

    def check(self, gallery: Gallery) -> None:
        gallery.check_embedder(self.made.name, self.made.fingerprint)
        self.check_reach(gallery, self.threshold.distance)

    def judge(self, probe: Probe) -> Verdicts:
        before, after = self._nearest(probe.before[self.made.name]), self._nearest(probe.after[self.made.name])

        def blank(rows: Tensor) -> Tensor:
            return self._nearest(probe.blank(self.made.name, rows))

        threshold = eased(probe.erased, after, torch.full_like(after, self.threshold.distance), blank)
        return Verdicts(self.name, before, after, threshold, after > threshold)

    def _nearest(self, templates: Tensor) -> Tensor:
        return self.opened.search(templates).distance[:, 0]
