"""Rules: a policy with every component made, as the engine takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anondata.content.images import ImageContent
from anondata.policy import ContentPolicy, Policy, RegionPolicy
from anondata.protocols import ContentType, Detector, Verifier
from anondata.transforms.base import RegionTransform


@dataclass(frozen=True)
class KindRules:
    """What happens to one kind of region.

    ladder, tiny_ladder: techniques from the weakest to the last resort. tiny_below_px: regions whose geometric mean
    side is below it go the tiny ladder and are not verified, because no recognizer can tell them apart.
    """

    ladder: tuple[RegionTransform, ...]
    verifiers: tuple[Verifier, ...]
    tiny_below_px: float = 0.0
    tiny_ladder: tuple[RegionTransform, ...] = ()
    raises: bool = False

    def steps(self, tiny: bool) -> tuple[RegionTransform, ...]:
        return self.tiny_ladder if tiny else self.ladder


@dataclass(frozen=True)
class ContentRules:
    """What happens to one content type. ``scan_passes`` 0 means that the output is not scanned."""

    content: ContentType[Any]
    detectors: tuple[Detector, ...]
    kinds: Mapping[str, KindRules]
    scanners: tuple[Detector, ...] = ()
    scan_passes: int = 0


def rules_of(policy: Policy) -> dict[str, ContentRules]:
    """The engine's rules, with every component made."""
    return {"image": _content_rules(policy.content["image"])}


def _content_rules(policy: ContentPolicy) -> ContentRules:
    scan = policy.scan
    content = ImageContent(quality=policy.encode.quality)
    return ContentRules(
        content=content,
        detectors=tuple(step.make() for step in policy.detect),
        kinds={kind: _kind_rules(rules, content.blank) for kind, rules in policy.regions.items()},
        scanners=tuple(step.make() for step in scan.detect) if scan else (),
        scan_passes=scan.passes if scan else 0,
    )


def _kind_rules(policy: RegionPolicy, blank: RegionTransform) -> KindRules:
    last = (blank,) if policy.on_exhausted == "fill" else ()
    tiny = policy.tiny
    return KindRules(
        ladder=tuple(step.make() for step in policy.ladder) + last,
        verifiers=tuple(step.make() for step in policy.verify),
        tiny_below_px=tiny.below_px if tiny else 0.0,
        tiny_ladder=tuple(step.make() for step in tiny.ladder) if tiny else (),
        raises=policy.on_exhausted == "raise",
    )
