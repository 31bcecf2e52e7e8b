"""Collects what a dataset card tells: from a run's manifest, its audit, the calibrations and the model registry."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata.cards.facts import Bound, Facts, Feature, File, Gate, Model, Split

if TYPE_CHECKING:
    from anondata.manifest import Manifest
    from anondata.policy import Policy, Step

Json = Mapping[str, Any]

UNKNOWN = "unknown: ask its maker"
_INSIGHTFACE = "insightface's, or that of whoever trained the file"
_INSIGHTFACE_FORBIDS = "any use that is not non-commercial research, where it is one of insightface's published packs"


def facts_of(
    manifest: Manifest,
    *,
    audit: Json | None,
    title: str,
    licence: str,
    splits: Sequence[Split],
    features: Sequence[Feature] = (),
    files: Sequence[File] = (),
    summary: str | None = None,
    homepage: str | None = None,
    sources: Sequence[str] = (),
    tags: Sequence[str] = (),
    sealed: bool | None = None,
    plots: Sequence[str] = (),
    created: str | None = None,
    digest: str | None = None,
) -> Facts:
    """What the card of a finished run tells.

    audit: body of ``audit.json``, None where there is none. splits, features, files: of what is described, which is
    the run's output or a publication that was made from it. created, digest: of the publication; by default the
    run's. The rest is as :class:`anondata.cards.facts.Facts` has it.

    Raises:
        CardError: a measured value is missing. PolicyError: a component of the policy's own is not here.
    """
    demanded = getattr(manifest.policy, "audit", None)
    return Facts(
        title=title,
        licence=licence,
        policy=manifest.policy,
        report=manifest.report,
        splits=tuple(splits),
        files=tuple(files),
        gates=tuple(gates_of(manifest.policy)),
        models=tuple(models_of(manifest.policy, audit)),
        versions=dict(manifest.versions),
        created=created or manifest.created,
        digest=digest or manifest.digest,
        audit=audit,
        bound=None if demanded is None else Bound(float(demanded.above_chance), tuple(demanded.attackers)),
        features=tuple(features),
        sealed=sealed,
        summary=summary,
        homepage=homepage,
        source_datasets=tuple(sources),
        tags=tuple(tags),
        plots=tuple(plots),
    )


# --- gates --------------------------------------------------------------------------------------------------------


def gates_of(policy: Policy) -> Iterator[Gate]:
    """Every gate and every rule of whom it covers, with their thresholds and where these come from."""
    for content in policy.own.values():
        for kind, region in content.regions.items():
            for step in (*region.verify, *region.utility):
                yield from _gates(step.make(), kind)
            if not region.covers_everyone:
                yield _cover(region.cover.make(), region.cover.name, kind)


def _gates(component: Any, kind: str, within: str = "") -> Iterator[Gate]:
    from anondata.components import name_of
    from anondata.verifiers.gates.base import ByDistance
    from anondata.verifiers.gates.compose import AllOf, AnyOf
    from anondata.verifiers.gates.confidence_drop import ConfidenceDrop
    from anondata.verifiers.gates.parrot_match import ParrotMatch
    from anondata.verifiers.gates.pixel_match import PixelMatch

    if isinstance(component, AllOf | AnyOf):
        for part in component.gates:
            yield from _gates(part, kind, component.name)
        return
    note = ""
    if isinstance(component, ParrotMatch):
        note = "calibrated on the gallery's portraits, put through each technique"
    elif isinstance(component, ConfidenceDrop):
        note = f"a fall of every classifier's confidence by {component.drop:g}, or to {component.negligible:g}"
    elif not isinstance(component, ByDistance | PixelMatch):
        ours = ":" not in name_of("verifier", component)
        note = (
            str(inspect.getdoc(component)).partition("\n\n")[0] if ours else "a gate of the policy's own: " + UNKNOWN
        )
    if note:
        yield Gate(str(component.name), kind, "verify", within, note=note)
    else:
        yield _by_distance(component, str(component.name), kind, "verify", component.threshold.distance, within)


def _cover(component: Any, word: str, kind: str) -> Gate:
    from anondata.verifiers.gates.base import ByDistance
    from anondata.verifiers.gates.cover import EveryoneExcept

    if not isinstance(component, ByDistance):
        return Gate(word, kind, "cover", note="a rule of the policy's own: " + UNKNOWN)
    interval = component.threshold
    distance = interval.low if isinstance(component, EveryoneExcept) else interval.high  # in doubt it is covered
    return _by_distance(component, word, kind, "cover", distance)


def _by_distance(component: Any, name: str, kind: str, use: str, distance: float, within: str = "") -> Gate:
    calibration = component.thresholds
    return Gate(
        name=name,
        region=kind,
        use=use,
        within=within,
        embedder=calibration.embedder,
        far=component.far,
        threshold=distance,
        calibrated_on=calibration.data,
        people=calibration.identities,
        impostor_pairs=calibration.impostor_pairs,
        calibration_sha256=hashlib.sha256(calibration.to_json().encode()).hexdigest(),
    )


# --- models -------------------------------------------------------------------------------------------------------


def models_of(policy: Policy, audit: Json | None) -> list[Model]:
    """Every network that had a part in it, each with all of its parts, and what its licence says."""
    parts: dict[str, list[str]] = {}
    for name, part in (*_of_policy(policy), *_of_audit(audit)):
        roles = parts.setdefault(name, [])
        if part not in roles:
            roles.append(part)
    return [_model(name, ", ".join(roles)) for name, roles in parts.items()]


def _of_policy(policy: Policy) -> Iterator[tuple[str, str]]:
    for content in policy.own.values():
        parts: list[tuple[Sequence[Step], str]] = [(content.detect, "detector")]
        if content.scan and content.scan.passes:
            parts.append((content.scan.detect, "detector of the second look"))
        for region in content.regions.values():
            parts += [(region.ladder, "technique"), (region.tiny.ladder if region.tiny else (), "technique")]
            parts += [((*region.verify, *region.utility), "gate"), ((region.cover,), "whom it covers")]
            parts += [((region.pseudonyms,), "who keeps one new look")] if region.pseudonyms else []
        for steps, role in parts:
            for step in steps:
                yield from _of_component(step, role)


def _of_component(step: Step, role: str) -> Iterator[tuple[str, str]]:
    """Its own networks by the registry's names, those of its embedders, and for other detectors the name itself."""
    made = step.make()
    named = getattr(made, "networks", (_detector(step.name, step.params),) if step.role == "detector" else ())
    yield from ((str(name), role) for name in named)
    yield from ((_embedder(embedder), role) for embedder in getattr(made, "embedders", ()))


def _of_audit(audit: Json | None) -> Iterator[tuple[str, str]]:
    for network in audit["networks"] if audit else ():
        yield str(network["name"]), "attacker of the audit"
    for name in audit["parameters"].get("detectors", {}) if audit else ():
        yield str(name), "detector of the audit"


def _detector(name: str, params: Json) -> str:
    return f"insightface-{Path(str(params['pack'])).name.removesuffix('.onnx')}" if name == "insightface" else name


def _embedder(embedder: Any) -> str:
    """Its own name where it is known, else the dotted path of its class, which tells more."""
    kind = type(embedder)
    if kind.__module__.startswith("anondata."):
        return str(embedder.name)
    return f"{kind.__module__}:{kind.__qualname__}"


def _model(name: str, role: str) -> Model:
    from anondata.errors import WeightsError
    from anondata.models.registry import entry

    if name.startswith("insightface-"):
        return Model(name, role, None, _INSIGHTFACE, False, _INSIGHTFACE_FORBIDS)
    try:
        known = entry(name)
    except WeightsError:
        return Model(name, role, None, UNKNOWN, None, UNKNOWN)
    terms = known.licence
    return Model(name, role, known.sha256, terms.spdx, None if terms.forbids else True, terms.forbids, terms.credit)
