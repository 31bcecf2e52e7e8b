"""Who attacks, beside those who only compare templates: each knows everything but the run key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from anondata.verifiers.audit import crops
from anondata.verifiers.audit.attacks import ALONE, CLEAR, NETWORK_ATTACKERS, SIDES
from anondata.verifiers.audit.crops import Alignment
from anondata.verifiers.audit.evidence import Attacker, Evidence, Way, euclidean
from anondata.verifiers.audit.learning import (
    by_angle,
    identity_targets,
    lessons,
    ridge,
    small_network,
    whitened,
)
from anondata.verifiers.audit.metrics import Floats
from anondata.verifiers.audit.rerun import mean_view

COUNTS = (4, 8, 12)  # cells along the side of an area
AROUND_COUNTS = (6, 10)


@dataclass(frozen=True)
class NetworkAttacker:
    """Compares templates of a network, as :data:`anondata.verifiers.audit.attacks.SIDES` says of which views."""

    name: str
    counts: bool = True

    def ways(self, evidence: Evidence) -> Iterator[Way]:
        yield from _by_networks(evidence, self.name, *SIDES[self.name])


@dataclass(frozen=True)
class MatchedFilter:
    """No network: means of a few cells of each result, against the same of each candidate's clear photos.

    Where the technique is known its noise-free model of each photo is compared, too: the mean of many runs.
    """

    name: str = "matched-filter"
    counts: bool = True

    def ways(self, evidence: Evidence) -> Iterator[Way]:
        yield from _filters(evidence, evidence.after)


@dataclass(frozen=True)
class Trained:
    """Learns from results of photos that it has made itself who somebody is: linear maps and small networks.

    Networks see the face alone, without what lies around. Where the technique is known there are several results of
    each photo, each with another key; else the tool's own, of other photos than the one that is looked for.
    """

    name: str = "trained"
    counts: bool = True

    def ways(self, evidence: Evidence) -> Iterator[Way]:
        yield from _filtered_templates(evidence, ALONE)
        yield from _learnt(evidence, evidence.after["box"], evidence.singles)


@dataclass(frozen=True)
class Averaging:
    """Has so many releases of one photo, each made with another run key, and averages them."""

    releases: int
    name: str = "averaging"
    counts: bool = False

    def ways(self, evidence: Evidence) -> Iterator[Way]:
        mean = evidence.means[self.releases]
        yield from _filters(evidence, {"box": mean})
        view = mean_view(self.releases)
        yield from _by_networks(evidence, "naive, averaged", view, CLEAR)
        yield from _by_networks(evidence, "parrot, averaged", view, view)
        yield from _filtered_templates(evidence, view)
        yield from _learnt(evidence, mean, mean[:, None], networks=False)


@dataclass(frozen=True)
class OfOnePerson:
    """Averages the results of half of a person's photos, and looks for them in clear photos of the other half."""

    name: str = "averaging"
    counts: bool = False

    def ways(self, evidence: Evidence) -> Iterator[Way]:
        table = evidence.table
        alike = (table.owners[:, None] == table.owners) & (table.rounds[:, None] % 2 == table.rounds % 2)
        alike &= table.rounds >= 0
        several = alike.sum(axis=1) > 1
        if not (several & (evidence.other_photo >= 0)).any():
            return
        mixed = alike / np.maximum(1, alike.sum(axis=1, keepdims=True))

        def kept(distances: Floats) -> Floats:
            return np.where(several[:, None] & ~alike, distances, np.nan)

        for how, after, before in _features(evidence, evidence.after, model=False):
            yield Way(f"{how}, averaged over one person's photos", kept(whitened(mixed @ after, before, evidence)))
        for network, views in table.templates.items():
            seen, clear = views[ALONE], views[CLEAR]
            usable = np.isfinite(seen).all(axis=1)
            if usable.all() and np.isfinite(clear).all():
                yield Way("naive, averaged over one person's photos", kept(euclidean(mixed @ seen, clear)), network)


@dataclass(frozen=True)
class Context:
    """Looks only at what lies around face and cover, which no technique for faces changes."""

    name: str = "context"
    counts: bool = False

    def ways(self, evidence: Evidence) -> Iterator[Way]:
        if not evidence.table.labelled or not evidence.around.any():
            return
        for count in AROUND_COUNTS:
            after, before = (
                crops.cells(side["box"], evidence.around, area=crops.REACH, count=count, alignment="box")
                for side in (evidence.after, evidence.before)
            )
            if after.shape[1]:
                yield Way(f"{count} x {count} cells around", whitened(after, before, evidence))


@dataclass(frozen=True)
class Place:
    """Sees no pixel: only how large each cover is, of which outline and where it lies in the photo."""

    name: str = "place"
    counts: bool = False

    def ways(self, evidence: Evidence) -> Iterator[Way]:
        if not evidence.table.labelled or evidence.places is None:
            return
        spread = evidence.places.std(axis=0)
        told = (evidence.places / np.maximum(spread, 1e-6))[:, spread > 1e-6]
        if told.shape[1]:
            yield Way("height, outline and place of the cover", whitened(told, told, evidence))


# --- ways --------------------------------------------------------------------------------------------------------


def _by_networks(evidence: Evidence, how: str, probe: str, gallery: str) -> Iterator[Way]:
    for network, views in evidence.table.templates.items():
        if probe in views and gallery in views:
            distances = euclidean(np.nan_to_num(views[probe]), np.nan_to_num(views[gallery]))
            lost = ~np.isfinite(views[probe]).all(axis=1), ~np.isfinite(views[gallery]).all(axis=1)
            distances[lost[0]], distances[:, lost[1]] = np.nan, np.nan
            yield Way(f"{how} with {network}", distances, network)


def _features(
    evidence: Evidence, after: Mapping[Any, Floats], *, model: bool
) -> Iterator[tuple[str, Floats, Floats]]:
    """Words, features of results, and of photos; with ``model`` of what the technique makes of them but for noise."""
    for alignment in after:
        for area in evidence.areas:
            if alignment == "landmarks" and area > crops.FACE:
                continue  # covers follow boxes: aligned otherwise, what lies around would slip in
            for count in _counts(evidence, area):
                pair = _cells(evidence, after[alignment], evidence.before[alignment], area, count, alignment)
                if pair[0].shape[1]:
                    yield f"{count} x {count} cells of {area:.2g} boxes by {alignment}", *pair
                if model and alignment == "box" and evidence.model is not None:
                    pair = _cells(evidence, after["box"], evidence.model, area, count, "box")
                    if pair[0].shape[1]:
                        yield f"{count} x {count} cells of {area:.2g} boxes, as the technique makes them", *pair


def _counts(evidence: Evidence, area: float) -> tuple[int, ...]:
    """Numbers of cells, and the technique's own where it has a grid."""
    blocks = getattr(evidence.technique, "blocks", None)
    own = round(blocks * area) if isinstance(blocks, int) else 0
    return tuple(sorted({*COUNTS, *([own] if 2 <= own <= 24 else [])}))


def _cells(
    evidence: Evidence, after: Floats, before: Floats, area: float, count: int, alignment: Alignment
) -> tuple[Floats, Floats]:
    found = [
        crops.cells(side, evidence.seen, area=area, count=count, alignment=alignment) for side in (after, before)
    ]
    return found[0], found[1]


def _filters(evidence: Evidence, after: Mapping[Any, Floats]) -> Iterator[Way]:
    for how, seen, before in _features(evidence, after, model=True):
        yield Way(how, whitened(seen, before, evidence))
        if "8 x 8" in how:
            yield Way(f"{how}, as they are", euclidean(seen - seen.mean(axis=0), before - before.mean(axis=0)))


def _filtered_templates(evidence: Evidence, probe: str) -> Iterator[Way]:
    """Templates whitened by what other people's show, against clear photos and against the attacker's own results."""
    for network, views in evidence.table.templates.items():
        if probe not in views:
            continue
        seen = np.nan_to_num(views[probe])
        runs = [views[name] for name in views if name.startswith("run ")]
        models = {"clear photos": views[CLEAR]}
        if runs or evidence.table.labelled:  # else the only result of a face is the one that is looked for
            models["own results"] = np.nanmean(runs or [views[probe]], axis=0)
        for what, model in models.items():
            distances = whitened(seen, np.nan_to_num(model), evidence, floor=1e-4)
            distances[~np.isfinite(views[probe]).all(axis=1)] = np.nan
            yield Way(f"templates of {network} against {what}, whitened", distances, network)


def _learnt(evidence: Evidence, after: Floats, results: Floats | None, *, networks: bool = True) -> Iterator[Way]:
    """Maps from results to who it is. results: ``(F, K, …)`` to learn from; None: the tool's own."""
    targets = {f"templates of {name}": views[CLEAR] for name, views in evidence.table.templates.items()}
    if not evidence.areas:
        return
    area = max(evidence.areas)
    targets["cells"] = crops.cells(evidence.before["box"], evidence.seen, area=area, count=8, alignment="box")
    for how, tried, own in _inputs(evidence, after, results, area):
        maps = (
            (("linear", ridge), ("small network", small_network))
            if networks and "12" not in how
            else (("linear", ridge),)
        )
        for kind, learn in maps:
            yield from _mapped(evidence, f"{kind} from {how}", tried, own, targets, learn)


def _inputs(
    evidence: Evidence, after: Floats, results: Floats | None, area: float
) -> Iterator[tuple[str, Floats, Floats]]:
    """Words, ``(F, D)`` features of results, and ``(F, K, D)`` of the attacker's own."""
    for count in (8, 12):
        tried = crops.cells(after, evidence.seen, area=area, count=count, alignment="box")
        if not tried.shape[1]:
            continue
        own = tried[:, None]
        if results is not None:
            flat = results.reshape(-1, *results.shape[2:])
            scaled = flat / 255.0 if flat.dtype == np.uint8 else flat
            own = crops.cells(scaled, evidence.seen, area=area, count=count, alignment="box")
            own = own.reshape(len(tried), -1, tried.shape[1])
        yield f"{count} x {count} cells", tried, own
    if after is evidence.after["box"]:
        for network, views in evidence.table.templates.items():
            runs = [views[name] for name in sorted(views) if name.startswith("run ")] or [views[ALONE]]
            yield f"templates of {network}", np.nan_to_num(views[ALONE]), np.nan_to_num(np.stack(runs, axis=1))


def _mapped(
    evidence: Evidence, how: str, tried: Floats, own: Floats, targets: Mapping[str, Floats], learn: Any
) -> Iterator[Way]:
    out = {name: np.full((len(tried), len(tried)), np.nan) for name in targets}
    draws = own.shape[1]
    for lesson in lessons(evidence):
        x = own[lesson.train].reshape(-1, tried.shape[1])
        made = {
            name: identity_targets(np.nan_to_num(clear), evidence.table.owners, lesson.train)
            for name, clear in targets.items()
        }
        widths = np.cumsum([wanted.shape[1] for wanted, _ in made.values()])[:-1]
        wanted = np.concatenate([wanted for wanted, _ in made.values()], axis=1)
        if not wanted.shape[1]:
            return  # all clear photos are alike
        parts = np.split(learn(x, np.repeat(wanted, draws, axis=0), tried[lesson.tried]), widths, axis=1)
        for (name, (_, places)), part in zip(made.items(), parts, strict=True):
            out[name][lesson.tried] = by_angle(part, places)
    for name, distances in out.items():
        yield Way(f"{how} to {name}", distances)


def attackers_of(evidence: Evidence | None) -> list[Attacker]:
    """Every attacker but the composite one, as far as there is something to attack."""
    found: list[Attacker] = [*(NetworkAttacker(name) for name in NETWORK_ATTACKERS), MatchedFilter(), Trained()]
    several = evidence.releases if evidence else ()
    return [*found, *(Averaging(n) for n in several), OfOnePerson(), Context(), Place()]
