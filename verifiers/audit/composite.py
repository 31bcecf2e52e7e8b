"""Attacks by everybody who knows more than a network does, and by the composite attacker, who has the best of all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from anondata.verifiers.audit.attackers import Averaging, attackers_of
from anondata.verifiers.audit.attacks import COMPOSITE, NEED_IDENTITIES, NETWORK_ATTACKERS, Attack, attack_measured
from anondata.verifiers.audit.evidence import Attacker, Evidence, Way, best_of

Stage = Callable[[str], None]
"""Is told the name of what begins."""


def attack_knowing(
    evidence: Evidence, wanted: Collection[str], *, fars: Sequence[float], stage: Stage = lambda name: None
) -> Iterator[Attack]:
    """The attacks of those attackers that are wanted and do not only compare templates.

    Each has many ways; the best is chosen on one half of the people and judged on the other. The composite attacker
    chooses among the ways of all who have one release and look at the cover. Without identities a parrot would have
    the very photo, and find it again by what lies around the cover: none is asked.

    Raises: AuditError when no face can be compared.
    """
    everything: list[Way] = []
    for attacker in attackers_of(evidence):
        possible = evidence.table.labelled or attacker.name not in NEED_IDENTITIES
        if not possible or not _needed(attacker, wanted):
            continue
        stage(attacker.name)
        ways = list(attacker.ways(evidence))
        everything += ways if attacker.counts else []
        if ways and attacker.name in wanted and attacker.name not in NETWORK_ATTACKERS:
            releases = attacker.releases if isinstance(attacker, Averaging) else 1
            yield _attack(evidence, attacker.name, ways, fars, releases)
    if COMPOSITE in wanted and everything:
        stage(COMPOSITE)
        yield _attack(evidence, COMPOSITE, everything, fars, 1)


def _needed(attacker: Attacker, wanted: Collection[str]) -> bool:
    if attacker.name in NETWORK_ATTACKERS:
        return COMPOSITE in wanted
    return attacker.name in wanted or (attacker.counts and COMPOSITE in wanted)


def _attack(evidence: Evidence, name: str, ways: Sequence[Way], fars: Sequence[float], releases: int) -> Attack:
    found = best_of(ways, evidence)
    return attack_measured(evidence.table, name, found.distances, fars=fars, how=found.how, releases=releases)
