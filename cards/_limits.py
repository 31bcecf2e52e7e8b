"""What a policy leaves as it is, in words: the part of a card that nobody likes to write."""

from __future__ import annotations

from anondata.policy import ContentPolicy, Policy
from anondata.report import Report

# What could still tell who somebody is or where it was -> kinds of region that would cover it.
_TRACES: tuple[tuple[str, frozenset[str]], ...] = (
    ("Faces", frozenset({"face", "person"})),
    ("Bodies, how people stand and move, their clothes and tattoos", frozenset({"person"})),
    ("Hair and ears beyond the covered area", frozenset({"person"})),
    ("Backgrounds: rooms, buildings, places", frozenset({"frame"})),
    ("Text in pictures: signs, screens, name tags, documents", frozenset({"text"})),
    ("Number plates", frozenset({"plate", "text"})),
)


def unprotected(policy: Policy, report: Report) -> list[str]:
    """Sentences about what can still identify somebody, derived from what the policy covers and the run spared."""
    said = left_alone(policy)
    said.append("Somebody can be recognised by what is around them, or by who is known to be in these pictures.")
    for kind, content in sorted(
        ((kind, own) for own in policy.own.values() for kind in own.regions), key=lambda pair: pair[0]
    ):
        said += _of_kind(kind, content, report)
    return said


def left_alone(policy: Policy) -> list[str]:
    """Sentences about what could identify somebody and is not looked for at all."""
    kinds = {kind for own in policy.own.values() for kind in own.regions}
    return [f"{trace} are as they were." for trace, by in _TRACES if not kinds & by]


def _of_kind(kind: str, content: ContentPolicy, report: Report) -> list[str]:
    region, counts = content.regions[kind], report.counts.get("regions", {}).get(kind, {})
    smallest = [float(s.params["smallest_px"]) for s in content.detect if "smallest_px" in s.params]
    below = f" below about {min(smallest):g} px, or" if len(smallest) == len(content.detect) and smallest else ""
    given = int(counts.get("given", 0))
    nobody = "no detector found, and that the publisher did not mark," if given else "no detector found"
    found = int(counts.get("found", 0))
    article = "An" if kind[0] in "aeiou" else "A"
    said = [f"{article} {kind} that {nobody} is as it was: one{below} turned, dark or hidden in part."]
    if content.looked_for and kind not in content.looked_for:
        said = [f"{article} {kind} that the publisher did not mark is as it was: no detector looks for it."]
    if given:
        others = "detectors found the others. " if given < found else ""
        said.append(
            f"{given} of {found} regions of the kind {kind} were marked by the publisher, by boxes or masks; {others}"
            "Whether all were marked was not measured."
        )
    if denied := int(counts.get("denied", 0)):
        said.append(
            f"{denied} regions that detectors take for the kind {kind} are as they were: the publisher marked them "
            "as none, such as statues and drawings. Only the policy's galleries, where it has any, were asked."
        )
    if not region.covers_everyone:
        spared = int(counts.get("spared", 0)) - denied
        said.append(
            f"The policy does not cover everyone: by the rule `{region.cover.name}` {spared} of "
            f"{int(counts.get('found', 0))} regions of the kind {kind} were left as they were."
        )
    if region.pseudonyms:
        said.append(
            f"People of a gallery keep one new {kind} throughout, by the rule `{region.pseudonyms.name}`: who knows "
            "somebody in one sample, by what is around them, knows them in all."
        )
    if region.tiny and counts.get("tiny"):
        said.append(
            f"{int(counts['tiny'])} regions of the kind {kind} below {region.tiny.below_px:g} px were changed by the "
            "strongest means, but are too small for a gate to check."
        )
    return said
