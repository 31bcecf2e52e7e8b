"""A policy in words, for people who decide whether to start a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anondata.components import content_type

if TYPE_CHECKING:
    from anondata.policy import ContentPolicy, Policy, RegionPolicy, Step

_EXHAUSTED = {
    "fill": "then filled wholly and checked again, else withheld",
    "drop": "else withheld",
    "raise": "else the run stops",
}


def in_words(policy: Policy) -> list[str]:
    """Lines that say what a policy does."""
    lines = [f"policy {policy.name} ({policy.fingerprint})"]
    for kind, content in policy.content.items():
        told = [f"like {content.like}: {content_type(kind).about}"] if content.like else _content(content)
        lines += [f"  {kind}: {line}" for line in told]
    if policy.audit:
        tried = ", ".join(policy.audit.attackers)
        lines.append(
            f"  published if no attack ({tried}) names over {policy.audit.above_chance:g} points above chance"
        )
    return lines


def _content(policy: ContentPolicy) -> list[str]:
    lines = [f"found by {_steps(policy.detect)}"]
    for kind, region in policy.regions.items():
        lines += [f"{kind}: {line}" for line in _region(region)]
    if policy.scan and policy.scan.passes:
        lines.append(f"the output is looked through again by {_steps(policy.scan.detect)}")
    return [
        *lines,
        f"written at quality {policy.encode.quality}; over {policy.decode.max_pixels / 1e6:.0f} megapixels withheld",
    ]


def _region(policy: RegionPolicy) -> list[str]:
    lines = [
        f"covers {_steps([policy.cover])}",
        f"{_steps(policy.ladder, ' → ')}; {_EXHAUSTED[policy.on_exhausted]}",
        f"checked by {_steps(policy.verify)}",
    ]
    if policy.pseudonyms:
        lines.append(f"one new look throughout: {_steps([policy.pseudonyms])}")
    if policy.utility:
        lines.append(f"must stay of use: {_steps(policy.utility)}")
    if policy.tiny:
        lines.append(f"below {policy.tiny.below_px:g} px: {_steps(policy.tiny.ladder, ' → ')}, nothing to check")
    return lines


def _steps(steps: Sequence[Step], between: str = " and ") -> str:
    return between.join(
        f"{s.name}({', '.join(f'{k}={v}' for k, v in s.params.items())})" if s.params else s.name for s in steps
    )
