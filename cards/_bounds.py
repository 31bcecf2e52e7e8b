"""What is left of a region at most, by calculation, in words and as data: for every rung of a policy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anondata.leakage import SAFE_CANDIDATES, SAFE_RELEASES, Leakage
from anondata.policy import Policy, RegionPolicy, Step

RELEASES = (1, SAFE_RELEASES)

_SCOPE = (
    "These bounds are of the covered area alone: not of what is around it, of where a region is and how large, or of "
    "its soft edge."
)


def bounds(policy: Policy) -> list[dict[str, Any]]:
    """Every rung's bound as plain data.

    ``bits`` and ``rank1_percent`` (of an ideal attacker, among 100 candidates) are by number of releases, and None
    where there is no bound. ``safe``: rank 1 is at most 3 points above chance from 50 releases.
    """
    return [
        {"kind": kind, "ladder": ladder, "rung": number, "technique": step.name, **_figures(step.make().leakage())}
        for content in policy.own.values()
        for kind, region in content.regions.items()
        for ladder, number, step in _rungs(region)
    ]


def bound_sentences(kind: str, region: RegionPolicy) -> list[str]:
    """The same in sentences, for one kind of region."""
    return [*(_sentence(kind, ladder, number, step) for ladder, number, step in _rungs(region)), _SCOPE]


def _rungs(region: RegionPolicy) -> Iterator[tuple[str, int, Step]]:
    for number, step in enumerate(region.ladder, start=1):
        yield "usual", number, step
    for number, step in enumerate(region.tiny.ladder if region.tiny else (), start=1):
        yield "tiny", number, step


def _figures(leakage: Leakage) -> dict[str, Any]:
    if not leakage.bounded:
        return {"bits": None, "rank1_percent": None, "candidates": SAFE_CANDIDATES, "safe": False}
    return {
        "bits": {str(n): round(leakage.bits(releases=n), 3) for n in RELEASES},
        "rank1_percent": {
            str(n): round(100 * leakage.rank1(candidates=SAFE_CANDIDATES, releases=n), 2) for n in RELEASES
        },
        "candidates": SAFE_CANDIDATES,
        "safe": leakage.safe,
    }


def _sentence(kind: str, ladder: str, number: int, step: Step) -> str:
    leakage = step.make().leakage()
    article = "an" if kind[0] in "aeiou" else "a"
    which = f"{'Step' if ladder == 'usual' else 'For tiny ones step'} {number}, {step.name}"
    if leakage.nothing:
        return (
            f"{which}, leaves nothing of {article} {kind} where it covers it: 0 bits, and an ideal attacker guesses "
            f"(1 % of {SAFE_CANDIDATES} candidates), from one release as from {SAFE_RELEASES}."
        )
    if not leakage.bounded:
        return (
            f"{which}: there is no bound of what it leaves of {article} {kind}: only measured attackers speak for it."
        )
    bits = [_number(leakage.bits(releases=n)) for n in RELEASES]
    named = [f"{100 * leakage.rank1(releases=n):.3g} %" for n in RELEASES]
    verdict = "safe" if leakage.safe else "not safe"
    groups = "" if leakage.groups == 1 else f" (it falls into one of {leakage.groups} groups, without noise)"
    rest = "" if leakage.safe else ": only measured attackers speak for it"
    return (
        f"{which}, leaves at most {bits[0]} bits of {article} {kind}{groups} in one release and {bits[1]} in "
        f"{SAFE_RELEASES} of one picture. From one and from {SAFE_RELEASES} releases, of whatever pictures, an ideal "
        f"attacker names at most {named[0]} and {named[1]} right of {SAFE_CANDIDATES} candidates: {verdict} by "
        f"calculation{rest}."
    )


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
