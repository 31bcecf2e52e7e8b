"""What an audit says in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from anondata.verifiers.audit.attacks import COMPOSITE, CONTEXT, PLACE, Attack
from anondata.verifiers.audit.evidence import MIN_PEOPLE
from anondata.verifiers.audit.groups import MIN_PEOPLE as FEW_PEOPLE
from anondata.verifiers.audit.metrics import Share

WHO = {
    "naive": "a naive attacker",
    "parrot": "a parrot",
    "smoothing-parrot": "a smoothing parrot",
    "matched-filter": "a matched filter",
    "trained": "a trained attacker",
    "averaging": "an averaging attacker",
    "context": "an attacker who looks around the cover",
    "place": "an attacker who knows where covers lie",
    "composite": "the best of all attackers",
}
POOR_CONTROL = 0.5  # of the people named in untouched originals: below it, an audit of these photos shows little


def percent(share: Share) -> str:
    """A share with its interval, in whole percent.

    >>> percent(Share(0.8333, 0.747, 0.894))
    '83 [75-89] %'
    """
    return f"{100 * share.value:.0f} [{100 * share.low:.0f}-{100 * share.high:.0f}] %"


def chance(value: float) -> str:
    """A chance in percent, with a digit more where it is small.

    >>> chance(0.0196), chance(0.00098)
    ('2 %', '0.1 %')
    """
    return f"{100 * value:.0f} %" if value >= 0.0095 else f"{100 * value:.1g} %"


def verdict(worst: Attack, *, labelled: bool) -> str:
    """The worst attack in one sentence."""
    whom = "people" if labelled else "faces"
    where = {"enrolled": " and your gallery", "originals": "" if labelled else " and the originals"}.get(
        worst.gallery, ""
    )
    network = f" with {worst.network}" if worst.network else ""
    return (
        f"{WHO[worst.attacker]}{network}{where} names {percent(worst.rank1)} of {worst.people} {whom} "
        f"at rank 1; chance {chance(worst.chance[0])}"
    )


def notes(
    *,
    labelled: bool,
    asked: Sequence[str],
    controls: Sequence[Attack],
    networks: Sequence[str],
    detectors: Sequence[str],
    counts: Mapping[str, int],
    faces: Mapping[str, Any],
    attacks: Sequence[Attack] = (),
    technique: str = "",
) -> list[str]:
    """What a reader must know before trusting the figures."""
    said = []
    if not labelled:
        said.append(
            "no identities: each face is searched for among the originals themselves, its own included"
            + ("; parrots were not possible" if {"parrot", "smoothing-parrot"} & set(asked) else "")
        )
    said += _of_knowing(attacks, technique, faces["in_originals"])
    for control in controls:
        if control.rank1.value < POOR_CONTROL:
            said.append(
                f"{control.network} names only {percent(control.rank1)} of the people in the untouched originals: "
                "the identities are wrong, or the photos too poor to show what an attacker could do"
            )
    if labelled and controls and controls[0].people < FEW_PEOPLE:
        said.append(f"only {controls[0].people} people can be named: a large interval, and much is found by chance")
    if len(networks) == 1:
        said.append(f"one network only ({networks[0]}): what it misses, another may see")
    if len(detectors) == 1:
        said.append(f"no second detector confirms which faces are faces: missed ones are what {detectors[0]} finds")
    if counts["unlike"]:
        said.append(
            f"{counts['unlike']} pair(s) look like two different pictures: are they paired and turned rightly?"
        )
    if faces["missed"]:
        said.append(f"{faces['missed']} face(s) are as they were in the originals: the tool missed them")
    return said


def _of_knowing(attacks: Sequence[Attack], technique: str, faces: int) -> Iterator[str]:
    """What attackers who know more than a network does had to go by."""
    by = {one.attacker: one for one in attacks}
    composite = by.get(COMPOSITE)
    if composite is not None and not technique:
        yield "what the tool did is not known: attackers estimated it from the pictures and could not run it"
    if composite is not None and composite.people < MIN_PEOPLE:
        yield f"with {composite.people} people the composite attacker takes what is best in hindsight"
    if composite is not None and composite.gallery_templates < faces // 2:
        yield f"composite: of {faces} faces {composite.gallery_templates} were attacked by all means"
    around = by.get(CONTEXT)
    if around is not None and around.rank1.low > around.chance[0]:
        yield (
            f"what lies around the covers names {percent(around.rank1)} by itself, chance "
            f"{chance(around.chance[0])}: no technique that covers only faces changes that"
        )
    where = by.get(PLACE)
    if where is not None and where.rank1.low > where.chance[0]:
        yield (
            f"where covers lie and how large they are names {percent(where.rank1)} by itself, chance "
            f"{chance(where.chance[0])}: crop and align photos otherwise before they are anonymized"
        )
