"""A policy in sentences, for readers of a card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from anondata.cards._bounds import bound_sentences
from anondata.components import content_type, name_of
from anondata.policy import NO_FACE, ContentPolicy, Policy, RegionPolicy, Step

_EXHAUSTED = {
    "fill": "What fails after all of them is filled wholly and verified again; what fails even so is withheld.",
    "drop": "What fails after all of them is withheld with its whole sample.",
    "raise": "What fails after all of them stops the run.",
}
_COVERS = {
    "everyone": "Every {kind} is changed, whoever it is.",
    "head": "Every {kind} is changed, whoever it is, and hair, neck and shoulders with it.",
    "gallery": "A {kind} is changed where it may be of somebody in the gallery {gallery}; others stay.",
    "everyone_except": "Every {kind} is changed but those of people in the gallery {gallery}; in doubt it is.",
}

_PLACES = (
    "Held against every photo of the gallery {gallery} of protected places, too, no result may match one: not even "
    "of a picture of which nobody knew that it shows one of them."
)

_PEOPLE = ("face", "person")


def sentences(policy: Policy) -> list[str]:
    """What a policy does, step by step."""
    return [line for kind, content in policy.content.items() for line in _content(kind, content)]


def _content(name: str, content: ContentPolicy) -> Iterator[str]:
    if content.like:
        yield f"The same is done to {name}, as to every {content.like}: {content_type(name).about}."
        return
    look = "looks" if len(content.detect) == 1 else "look"
    yield f"In every {name}, {_named(content.detect)} {look} for what is to be changed."
    if content.given:
        told = "; ".join(f"{category}: {kind}" for category, kind in content.given.items())
        yield f"Boxes and masks that come with samples count, too. Their categories mean: {told}."
        if NO_FACE in content.given.values():
            yield (
                f"What detectors find just where a box of the meaning {NO_FACE} lies stays as it is, unless it may "
                "be of somebody in a gallery of this policy."
            )
    for kind, region in content.regions.items():
        yield from _region(kind, region)
    if len(content.regions) > 1:
        yield f"Where they overlap, what is named later lies on top: {', '.join(content.regions)}."
    if content.scan and content.scan.passes:
        times = "once" if content.scan.passes == 1 else f"up to {content.scan.passes} times"
        yield (
            f"The result is looked through again, {times}, by {_named(content.scan.detect)}. What is found then is "
            "changed, too; a sample in which the last look still finds something is withheld."
        )
    yield f"JPEG and WebP are written at quality {content.encode.quality}, without the metadata of the original."


def _region(kind: str, region: RegionPolicy) -> Iterator[str]:
    rule = _COVERS.get(region.cover.name, "Which {kind} is changed is told by the rule {rule}.")
    told = rule.format(kind=kind, rule=region.cover.name, gallery=repr(region.cover.params.get("gallery", "")))
    if region.cover.params.get("area") == "head":
        told += " Hair, neck and shoulders are covered, too."
    yield told if kind in _PEOPLE else told.replace(", whoever it is", "")
    ladder = "; then ".join(_step(step) for step in region.ladder)
    yield (
        f"It is changed by the first of these that passes verification, each time from the original: {ladder}. "
        f"{_EXHAUSTED[region.on_exhausted]}"
    )
    yield f"It passes when {_named(region.verify)} {_passes(region.verify)} it, on the encoded and decoded result."
    if region.pseudonyms:
        yield (
            f"Whoever {_step(region.pseudonyms)} knows has one new {kind} in all samples; others have another each "
            "time."
        )
    yield from (_PLACES.format(gallery=name) for name in _galleries_of_places(region.verify))
    if region.utility:
        yield f"It must stay of use, too, unless it is filled: {_named(region.utility)} {_passes(region.utility)} it."
    if region.tiny:
        ladder = "; then ".join(_step(step) for step in region.tiny.ladder)
        yield f"Below {region.tiny.below_px:g} px a {kind} is too small to be verified: {ladder}."
    yield from bound_sentences(kind, region)


def _galleries_of_places(steps: Sequence[Step]) -> Iterator[str]:
    """Those that some gate looks at, wherever it stands among gates of gates."""
    for step in steps:
        gate = step.make()
        yield from (one.gallery for one in getattr(gate, "gates", [gate]) if _is_of_places(one))


def _is_of_places(gate: Any) -> bool:
    return name_of("verifier", gate) == "place_match" and gate.gallery is not None


def _passes(steps: Sequence[Step]) -> str:
    return "passes" if len(steps) == 1 else "pass"


def _named(steps: Sequence[Step]) -> str:
    return " and ".join(_step(step) for step in steps)


def _step(step: Step) -> str:
    told = ", ".join(
        f"{name.replace('_', ' ')} {_value(value)}" for name, value in step.params.items() if _shown(value)
    )
    return f"{step.name} ({told})" if told else step.name


def _nested(name: str, params: Any) -> str:
    told = ", ".join(f"{key.replace('_', ' ')} {_value(v)}" for key, v in (params or {}).items() if _shown(v))
    return f"{name} ({told})" if told else name


def _shown(value: Any) -> bool:
    return value is not None and value != "" and not isinstance(value, Mapping)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        if not value:
            return "nothing"
        return ("/" if all(isinstance(one, float | int) for one in value) else " + ").join(map(_value, value))
    if isinstance(value, Mapping):  # a gate among the gates of another, or a step of a chain
        return " + ".join(_nested(str(name), params) for name, params in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
