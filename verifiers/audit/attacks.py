"""The attackers of an audit: what each compares with what, on plain arrays of templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from anondata.errors import AuditError, PolicyError
from anondata.verifiers.audit.groups import Group, by_group, worst_of
from anondata.verifiers.audit.metrics import (
    Bools,
    Curve,
    Floats,
    Integers,
    Share,
    accept_rates,
    share,
    shares,
    shown_ranks,
    supported,
    tar_at,
)
from anondata.verifiers.audit.trials import Templates, Trials, comparable, compare
from anondata.verifiers.calibration import PAIRS_PER_ACCEPT, Threshold, shipped

CLEAR, ANONYMIZED, SMOOTHED = "clear", "anonymized", "smoothed"
VIEWS = (CLEAR, ANONYMIZED, SMOOTHED)
ALONE = "anonymized, alone"  # nothing of what lies around; only of faces that are looked at closely

CONTROL = "untouched"  # no attacker: how well originals are named, the most that any attack could reach
SIDES: Mapping[str, tuple[str, str]] = {  # attacker -> views of probes and of the gallery
    "naive": (ANONYMIZED, CLEAR),
    "parrot": (ANONYMIZED, ANONYMIZED),
    "smoothing-parrot": (SMOOTHED, SMOOTHED),
    CONTROL: (CLEAR, CLEAR),
}
NETWORK_ATTACKERS = tuple(name for name in SIDES if name != CONTROL)
COMPOSITE, CONTEXT, PLACE = "composite", "context", "place"
ATTACKERS = (*NETWORK_ATTACKERS, "matched-filter", "trained", "averaging", CONTEXT, PLACE, COMPOSITE)
APART = frozenset({"averaging", CONTEXT, PLACE})  # not of one release, or not of what is covered
NEED_IDENTITIES = frozenset({"parrot", "smoothing-parrot", "averaging", CONTEXT, PLACE})

GATE_FAR = 0.01  # of the threshold that the default policies' gate holds results against
BINS = 60
ROC_POINTS = 120


@dataclass(frozen=True, eq=False)
class FaceTable:
    """All ``F`` faces of an audit.

    photos, owners: ``(F,)`` numbers; an owner of -1 is nobody that is known. groups: ``F`` values by column.
    templates: ``(F, D)`` by network, then by view (:data:`VIEWS`).
    labelled: owners are people who may be in several photos; if not, every face is somebody else.

    In the first round of trials the first photo of each person is looked for among everybody's further photos, in the
    second the second one, and so on. Where all are photographed alike, first neutral, then smiling, attackers would
    else find whoever smiles alike.
    """

    photos: Integers
    owners: Integers
    groups: Mapping[str, tuple[str, ...]]
    templates: Mapping[str, Mapping[str, Floats]]
    labelled: bool

    @property
    def several(self) -> bool:
        """Whether anybody is in more than one photo."""
        known = {pair for pair in zip(self.owners.tolist(), self.photos.tolist(), strict=True) if pair[0] >= 0}
        return len(known) > len({owner for owner, _ in known})

    @cached_property
    def rounds(self) -> Integers:
        """``(F,)`` the number of a face's photo among its person's, -1 where there is but one, or nobody known."""
        out = np.full(len(self.owners), -1, dtype=np.int64)
        for owner in set(self.owners[self.owners >= 0].tolist()):
            rows = np.flatnonzero(self.owners == owner)
            photos, place = np.unique(self.photos[rows], return_inverse=True)
            if len(photos) > 1:
                out[rows] = place
        return out

    def of(self, network: str, view: str) -> Templates:
        return Templates(self.templates[network][view], self.owners, self.photos, self.rounds)

    def bare(self) -> Templates:
        """Whose faces there are, in which photos and rounds, without a template."""
        return Templates(np.zeros((len(self.owners), 0)), self.owners, self.photos, self.rounds)

    @cached_property
    def comparable(self) -> Bools:
        """``(F, F)``: which faces in results may be compared with which photos."""
        if not self.labelled:
            return np.ones((len(self.owners), len(self.owners)), dtype=bool)
        return comparable(self.bare(), self.bare())

    def select(self, index: Integers) -> FaceTable:
        """The faces of an index, with all that is known of them."""
        return FaceTable(
            self.photos[index],
            self.owners[index],
            {column: tuple(values[i] for i in index) for column, values in self.groups.items()},
            {name: {view: v[index] for view, v in views.items()} for name, views in self.templates.items()},
            self.labelled,
        )


@dataclass(frozen=True, eq=False)
class Attack:
    """What one attacker with one network achieved.

    attacker: of :data:`SIDES`, or another's name. network: empty for who uses none, or several.
    gallery: ``originals``, ``anonymized`` or ``enrolled``. probes: faces that could be
    named; unusable: faces without a template, which count neither for nor against. rank1, rank5: share of probes
    with an own template among the nearest; chance: the same if all templates were alike. curves: for plots and tables
    (CMC, ROC, histograms). tar: by false accept rate, None where too few pairs support it.
    within_threshold: probes that a gate with this network would have refused, held against the gallery.
    releases: of one photo under different keys, which the attacker had. how: what the attacker did in the end.
    """

    attacker: str
    network: str
    gallery: str
    probes: int
    unusable: int
    people: int
    gallery_templates: int
    impostor_pairs: int
    rank1: Share
    rank5: Share
    chance: tuple[float, float]
    tar: Mapping[float, Share | None]
    eer: Share
    within_threshold: Share | None
    groups: Mapping[str, tuple[Group, ...]]
    curves: Mapping[str, Any]
    releases: int = 1
    how: str = ""

    def to_json(self) -> dict[str, Any]:
        names = ("attacker", "network", "gallery", "releases", "how", "probes", "unusable", "people")
        return {
            **{name: getattr(self, name) for name in (*names, "gallery_templates", "impostor_pairs")},
            "rank1": {**self.rank1.to_json(), "chance_percent": round(100 * self.chance[0], 3)},
            "rank5": {**self.rank5.to_json(), "chance_percent": round(100 * self.chance[1], 3)},
            "tar_at_far": [{"far": far, "tar": tar.to_json() if tar else None} for far, tar in self.tar.items()],
            "eer": self.eer.to_json(),
            "within_threshold": self.within_threshold.to_json() if self.within_threshold else None,
            "groups": {column: [g.to_json() for g in found] for column, found in self.groups.items()},
            "worst_group": {column: worst_of(found) for column, found in self.groups.items()},
            **self.curves,
        }


def attack(table: FaceTable, network: str, attacker: str, *, fars: Sequence[float]) -> Attack:
    """One attack among the faces of a table.

    Raises: AuditError when no face can be compared.
    """
    if not table.labelled and attacker in ("parrot", "smoothing-parrot"):
        raise AuditError("a parrot needs identities: which photos show the same person?")
    probe_view, gallery_view = SIDES[attacker]
    probes, gallery = table.of(network, probe_view), table.of(network, gallery_view)
    if not table.labelled:  # the gallery is the very photos
        gallery = Templates(gallery.vectors, gallery.owners, np.full_like(gallery.photos, -1))
    where = "anonymized" if gallery_view != CLEAR else "originals"
    return _attack(table, network, (attacker, where), probes, gallery, fars, mirrored=probe_view == gallery_view)


def attack_enrolled(table: FaceTable, network: str, enrolled: Templates, *, fars: Sequence[float]) -> Attack:
    """The naive attack with a gallery of enrolled people; ``enrolled.owners`` are numbered as the table's are."""
    return _attack(table, network, ("naive", "enrolled"), table.of(network, ANONYMIZED), enrolled, fars)


def attack_measured(
    table: FaceTable, attacker: str, distances: Floats, *, fars: Sequence[float], how: str, releases: int = 1
) -> Attack:
    """An attack by ``(F, F)`` distances from each face in a result to each photo; NaN is not compared.

    Raises: AuditError when no face can be compared.
    """
    probes, gallery = table.bare(), table.bare()
    if not table.labelled:
        gallery = Templates(gallery.vectors, gallery.owners, np.full_like(gallery.photos, -1))
    made = _attack(table, "", (attacker, "originals"), probes, gallery, fars, distances=distances)
    return replace(made, how=how, releases=releases)


def _attack(
    table: FaceTable,
    network: str,
    names: tuple[str, str],
    probes: Templates,
    gallery: Templates,
    fars: Sequence[float],
    *,
    mirrored: bool = False,
    distances: Floats | None = None,
) -> Attack:
    known, usable = probes.owners >= 0, probes.usable
    if distances is not None:
        usable = np.asarray(np.isfinite(distances).any(axis=1))
    rows = np.flatnonzero(known & usable)
    of_gallery = np.flatnonzero((gallery.owners >= 0) & gallery.usable)
    measured = None if distances is None else distances[np.ix_(rows, of_gallery)]
    trials = compare(probes.select(rows), gallery.select(of_gallery), mirrored=mirrored, distances=measured)
    ranks = shown_ranks(len(of_gallery))
    named, chance = (s.named_at(ranks) for s in (trials.standing, trials.chance))
    curve = Curve(trials.pairs)
    fitting = [far for far in fars if supported(far, int((~trials.pairs.genuine).sum()))]
    tars, error = accept_rates(curve, fitting)
    cmc, fifth = shares(named, trials.owners), min(4, len(ranks) - 1)
    return Attack(
        *(names[0], network, names[1]),
        probes=len(trials.rows),
        unusable=int((known & ~usable).sum()),
        people=len(np.unique(trials.owners)),
        gallery_templates=len(of_gallery),
        impostor_pairs=trials.impostor_pairs,
        rank1=cmc[0],
        rank5=cmc[fifth],
        chance=(float(chance[:, 0].mean()), float(chance[:, fifth].mean())),
        tar={far: dict(zip(fitting, tars, strict=True)).get(far) for far in fars},
        eer=error,
        within_threshold=_within(trials.nearest_own, trials, network) if names[0] == "naive" else None,
        groups=by_group(table.groups, rows[trials.rows], named[:, 0], trials.owners),
        curves={
            "cmc": _cmc(ranks, cmc, chance.mean(axis=0)),
            "roc": _roc(curve, trials.impostor_pairs),
            "distances": _histogram(trials),
        },
    )


def gate_threshold(network: str) -> Threshold | None:
    """The shipped threshold of a network, or None where it has none."""
    try:
        return shipped(network).at(GATE_FAR)
    except PolicyError:
        return None


def refused(before: Floats, after: Floats, network: str) -> Bools | None:
    """``(F,)`` whether a self-match gate would refuse each face; None for a network without a threshold."""
    threshold = gate_threshold(network)
    if threshold is None:
        return None
    distance = np.linalg.norm(after - before, axis=1)
    near: Bools = ~(distance > threshold.distance)  # NaN is never safe
    return near


def _within(nearest: Floats, trials: Trials, network: str) -> Share | None:
    threshold = gate_threshold(network)
    return share(nearest <= threshold.distance, trials.owners) if threshold else None


def _cmc(ranks: Integers, found: Sequence[Share], chance: Floats) -> dict[str, list[float]]:
    rows = [s.to_json() for s in found]
    columns = {key: [row[key] for row in rows] for key in ("percent", "low", "high")}
    return {"rank": ranks.tolist(), **columns, "chance_percent": [round(100 * c, 3) for c in chance.tolist()]}


def _roc(curve: Curve, impostor_pairs: int) -> dict[str, list[float]]:
    """The curve from the lowest false-accept rate that the pairs support."""
    far, tar = curve.points()
    wanted = np.geomspace(min(0.5, PAIRS_PER_ACCEPT / impostor_pairs), 1.0, ROC_POINTS)
    return {
        "far": [float(f"{f:.4g}") for f in wanted],
        "tar_percent": [round(100 * tar_at(far, tar, float(f)), 2) for f in wanted],
    }


def _histogram(trials: Trials) -> dict[str, list[float]]:
    """Shares of all genuine and of all impostor pairs in bins of one width, in percent."""
    distances, genuine = trials.pairs.distances, trials.pairs.genuine
    high = float(distances.max()) or 1.0
    edges = np.linspace(min(float(distances.min()), high * 0.99), high, BINS + 1)
    out = {"edges": [round(e, 4) for e in edges.tolist()]}
    for name, kind in (("genuine_percent", genuine), ("impostor_percent", ~genuine)):
        counts, _ = np.histogram(distances[kind], edges)
        out[name] = [round(c, 3) for c in (100 * counts / max(1, kind.sum())).tolist()]
    return out
