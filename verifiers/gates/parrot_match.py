"""The gate of a gallery whose attacker anonymizes their own photos, too: the parrot."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from anondata.content import codec
from anondata.content.images import BLANK
from anondata.errors import GalleryError, PolicyError
from anondata.policy import Policy
from anondata.protocols import Embedder, Probe, Verdicts
from anondata.randomness import RunKey
from anondata.regions import Regions, cat_regions
from anondata.transforms.base import RegionTransform, describe
from anondata.verifiers._pairs import apart, count_apart
from anondata.verifiers.calibration import PAIRS_PER_ACCEPT, Threshold
from anondata.verifiers.gallery.gallery import Floats, Gallery, Portrait
from anondata.verifiers.gates.base import ByDistance, WithGallery, distances, eased

BATCH = 32  # portraits decoded at once


@dataclass(frozen=True)
class ParrotMatch(WithGallery, ByDistance):
    """Passes a face that is no nearer to the person's own anonymized portraits than to those of others.

    The gallery's portraits are put through the technique that the face went through, with noise of their own. What a
    match is then worth depends on the technique (it makes all faces alike), so its threshold is calibrated on the
    gallery itself: the distance below which a share ``far`` of the pairs of *different* people fall, all anonymized.

    Whose portraits count is told by the original, which the gate has and the attacker wants: everybody within the
    embedder's most lenient threshold of it, and all of the gallery where it has no template. A face of nobody in the
    gallery passes. Scores are distances to the nearest portrait of those people: clear against clear before,
    anonymized against anonymized after. For a region that the last
    rung erased see :func:`anondata.verifiers.gates.base.eased`.

    Not guaranteed: that an attacker who takes the noise out first fails, too.

    gallery: the name of a gallery that keeps portraits. far: a higher one is stricter: of a ladder of blurs, mosaic
    and fill, 0.05 left 14 and 24 % of 51 people at rank 1 for the parrot (this network, another one), 0.2 left 2 and
    4 % (tools/bench/gates.py). calibration: of clear faces, for finding out whose portraits count.
    """

    gallery: str = "protected"
    far: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.far < 1:
            raise PolicyError(f"parrot_match: far must lie between 0 and 1, got {self.far:g}")

    @property
    def name(self) -> str:
        return f"parrot_match({self._told(self.gallery)})"

    @property
    def threshold(self) -> Threshold:
        """Of clear faces, the most lenient."""
        return max(self.thresholds.thresholds, key=lambda t: t.distance)

    def check(self, gallery: Gallery) -> None:
        gallery.check_embedder(self.made.name, self.made.fingerprint)
        kept = np.array([p is not None for p in gallery.portraits], dtype=bool)
        if len(kept) != len(gallery) or len(set(gallery.owners[kept].tolist())) < len(gallery.identities):
            raise GalleryError(
                f"gallery {self.gallery!r} lacks portraits of some people, which parrot_match needs; build it with "
                "--keep-portraits"
            )
        pairs = count_apart(np.bincount(gallery.owners[kept]))
        if pairs * self.far < PAIRS_PER_ACCEPT:
            raise GalleryError(
                f"gallery {self.gallery!r} has {pairs} pairs of portraits of different people; parrot_match at FAR "
                f"{self.far:g} needs {round(PAIRS_PER_ACCEPT / self.far)}. Enroll more people, or raise far"
            )

    def bound(self, galleries: Mapping[str, Any]) -> Self:
        copy = super().bound(galleries)
        copy.__dict__.update(_lock=threading.Lock(), _parrots={})
        return copy

    def judge(self, probe: Probe) -> Verdicts:
        before, after = probe.before[self.made.name], probe.after[self.made.name]
        clear = distances(before, torch.from_numpy(self.opened.templates).to(before))
        theirs = self._own(clear)
        distance, threshold = torch.full_like(clear[:, 0], torch.nan), torch.zeros_like(clear[:, 0])
        told = [describe(t) for t in probe.techniques]
        for technique in dict.fromkeys(told):
            rows = torch.tensor([i for i, name in enumerate(told) if name == technique], device=before.device)
            templates, bound = self._parrot(probe.techniques[int(rows[0])], before.device)
            distance[rows] = _nearest(after[rows], templates, theirs[rows])
            threshold[rows] = bound
        somebody = theirs.any(dim=1)
        threshold = torch.where(somebody, threshold, torch.zeros_like(threshold))

        def blank(near: Tensor) -> Tensor:
            # What an attacker would get from a face that was blanked out, by the same comparison.
            out = torch.empty_like(threshold[near])
            found = probe.blank(self.made.name, near)
            for place, row in enumerate(near.tolist()):
                templates, _ = self._parrot(probe.techniques[row], before.device)
                out[place] = _nearest(found[place][None], templates, theirs[row][None])[0]
            return out

        threshold = eased(probe.erased & probe.last, distance, threshold, blank)
        nearest = torch.where(theirs, clear, clear.new_tensor(torch.inf)).amin(dim=1)
        before_score = torch.where(somebody, nearest, clear.amin(dim=1))
        return Verdicts(self.name, before_score, distance, threshold, distance > threshold)

    def _own(self, clear: Tensor) -> Tensor:
        """``(R, N)`` bool: the templates of everybody that each original may be; all where that cannot be told."""
        owners = torch.from_numpy(self.opened.owners).to(clear.device)
        near = (clear <= self.threshold.high).to(clear.dtype)
        people = torch.zeros(len(clear), len(self.opened.identities), device=clear.device, dtype=clear.dtype)
        own = people.index_add(1, owners, near)[:, owners] > 0
        return own | ~clear.isfinite().all(dim=1)[:, None]

    def _parrot(self, technique: RegionTransform, device: torch.device) -> tuple[Tensor, float]:
        """Templates ``(N, D)`` of the portraits put through a technique, and the threshold among them."""
        lock, made = self.__dict__["_lock"], self.__dict__["_parrots"]
        name = describe(technique), str(device)
        with lock:
            if name not in made:
                made[name] = self._make(technique, device)
            found: tuple[Tensor, float] = made[name]
            return found

    def _make(self, technique: RegionTransform, device: torch.device) -> tuple[Tensor, float]:
        gallery = self.opened
        kept = gallery.parrots.get(describe(technique))
        rows = parrot_templates(gallery, technique, self.made, device=device) if kept is None else kept
        whole = np.isfinite(rows).all(axis=1)
        pairs = apart(torch.from_numpy(rows[whole]), gallery.owners[whole])
        if len(pairs) * self.far < PAIRS_PER_ACCEPT:
            raise GalleryError(f"too few portraits of gallery {self.gallery!r} give templates for parrot_match")
        return torch.from_numpy(rows).to(device), float(pairs.distance[int(self.far * len(pairs))])


def parrot_templates(
    gallery: Gallery, technique: RegionTransform, embedder: Embedder, *, device: torch.device | str = "cpu"
) -> Floats:
    """Templates ``(N, D)`` float32 of a gallery's portraits put through a technique; NaN rows where none is kept.

    The noise is the gallery's own, drawn from its salt: the same at every call, and not that of any run.
    """
    own = technique.with_key(RunKey(gallery.salt))
    out = np.full_like(gallery.templates, np.nan)
    rows = [i for i, portrait in enumerate(gallery.portraits) if portrait is not None]
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        out[batch] = _changed([p for i in batch if (p := gallery.portraits[i])], own, embedder, torch.device(device))
    return out


def with_parrots(
    gallery: Gallery,
    techniques: Sequence[RegionTransform],
    embedder: Embedder,
    *,
    device: torch.device | str = "cpu",
) -> Gallery:
    """The gallery with its portraits' templates for these techniques, so that gates need not make them."""
    gallery.check_embedder(embedder.name, embedder.fingerprint)
    made = {describe(t): parrot_templates(gallery, t, embedder, device=device) for t in techniques}
    return replace(gallery, parrots={**gallery.parrots, **made})


def techniques_of(policy: Policy) -> list[RegionTransform]:
    """Every technique that a policy may end with, its last resort included."""
    regions = [region for content in policy.own.values() for region in content.regions.values()]
    return [*(step.make() for region in regions for step in region.ladder), BLANK]


def _changed(
    portraits: Sequence[Portrait], technique: RegionTransform, embedder: Embedder, device: torch.device
) -> Floats:
    views, faces = [], []
    for i, portrait in enumerate(portraits):
        pixels = codec.decode(portrait.image).pixels.to(device)
        face = Regions(
            image=torch.tensor([i], device=device),
            boxes=torch.from_numpy(portrait.box)[None].to(device),
            landmarks=torch.from_numpy(portrait.landmarks)[None].to(device),
            scores=torch.ones(1, device=device),
            kinds=("face",),
        )
        views.append(technique.change_regions(pixels, face.boxes))
        faces.append(face)
    templates: Floats = embedder.embed(views, cat_regions(faces, device)).float().cpu().numpy()
    return templates


def _nearest(probes: Tensor, templates: Tensor, theirs: Tensor) -> Tensor:
    """``(R,)`` distances to the nearest of one's own templates, or of all where nobody's are one's own.

    NaN where the probe is not finite. ``theirs``: ``(R, N)`` bool.
    """
    distance = distances(probes, templates).nan_to_num(nan=torch.inf, posinf=torch.inf)
    counts = theirs | ~theirs.any(dim=1)[:, None]
    nearest = torch.where(counts, distance, distance.new_tensor(torch.inf)).amin(dim=1)
    whole = probes.square().sum(dim=1).isfinite() & nearest.isfinite()
    return torch.where(whole, nearest, nearest.new_tensor(torch.nan))
