"""An audit: who can still be named in what a tool wrote?

It attacks the output of any tool, given the originals, and reports how often each attacker is right. Attackers are
granted perfect alignment: the faces of the originals, at the same places.

::

    from anondata.verifiers.audit import PhotoPair, audit

    pairs = [PhotoPair(original.read_bytes, anonymized.read_bytes, identity=who) for original, anonymized, who in …]
    print(audit(pairs).verdict)
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from anondata.detectors.centerface import CenterFaceDetector
from anondata.detectors.yunet import YuNetDetector
from anondata.errors import AuditError, PolicyError, WeightsError
from anondata.models.registry import locate
from anondata.protocols import Detector, Embedder
from anondata.transforms.base import RegionTransform, describe
from anondata.verifiers.audit import words as words
from anondata.verifiers.audit.attacks import (
    APART,
    ATTACKERS,
    COMPOSITE,
    CONTROL,
    NEED_IDENTITIES,
    NETWORK_ATTACKERS,
    Attack,
    FaceTable,
    attack,
    attack_enrolled,
)
from anondata.verifiers.audit.composite import Stage, attack_knowing
from anondata.verifiers.audit.faces import SMOOTHING, Eyes, Face, PhotoPair
from anondata.verifiers.audit.run import Collected, Show, collect, fates, gate_of, table_of
from anondata.verifiers.audit.trials import Templates
from anondata.verifiers.embedders import EMBEDDERS

if TYPE_CHECKING:
    from anondata.verifiers.gallery.gallery import Gallery

__all__ = ["ATTACKERS", "Audit", "Face", "PhotoPair", "audit", "detectors_here", "embedders_here"]

FORMAT = "anondata.audit/2"
FARS = (0.1, 0.01, 0.001)
GATE = "dlib-face-resnet"
THRESHOLD = 0.35  # of the first detector: with a lower one, bushes count as faces that a tool left alone


@dataclass(frozen=True, eq=False)
class Audit:
    """The result of an audit. Holds numbers: no picture, no template, no file name, no identity.

    Args:
        counts: how many files and pairs there were.
        faces: what became of the faces.
        networks: whose templates were compared, and what a gate with each would say.
        attacks: every attacker with every network.
        controls: the same with untouched originals on both sides.
        notes: what a reader must know, in sentences.
        parameters: what was asked for.
    """

    counts: Mapping[str, int]
    faces: Mapping[str, Any]
    networks: tuple[Mapping[str, Any], ...]
    attacks: tuple[Attack, ...]
    controls: tuple[Attack, ...]
    notes: tuple[str, ...]
    parameters: Mapping[str, Any]

    @property
    def worst(self) -> Attack:
        """The attack that names the most people.

        If there is a composite attacker, it stands for all that it chooses among. Attackers who look around the
        cover, or who have several releases, are not counted.
        """
        usual = [a for a in self.attacks if a.attacker not in APART] or self.attacks
        whole = [a for a in usual if a.attacker == COMPOSITE or a.gallery == "enrolled"]
        known = whole if any(a.attacker == COMPOSITE for a in whole) else usual
        return max(known, key=lambda a: (a.rank1.value, a.rank1.low))

    @property
    def verdict(self) -> str:
        """The worst attack in one sentence."""
        return words.verdict(self.worst, labelled=bool(self.parameters["labelled"]))

    def to_json(self) -> dict[str, Any]:
        """The format :data:`FORMAT`, for programs and for :mod:`anondata.cards.audit_plots`. Shares in percent."""
        worst = self.worst
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "worst": {
                "attacker": worst.attacker,
                "network": worst.network,
                "gallery": worst.gallery,
                "releases": worst.releases,
            },
            "notes": list(self.notes),
            "counts": dict(self.counts),
            "faces": dict(self.faces),
            "networks": [dict(network) for network in self.networks],
            "attacks": [one.to_json() for one in self.attacks],
            "controls": [one.to_json() for one in self.controls],
            "parameters": dict(self.parameters),
            "versions": _versions(),
        }


def audit(
    pairs: Iterable[PhotoPair],
    *,
    embedders: Sequence[Embedder] | None = None,
    attackers: Sequence[str] = ATTACKERS,
    gallery: Gallery | None = None,
    groups: Sequence[str] = (),
    fars: Sequence[float] = FARS,
    gate: str = GATE,
    technique: RegionTransform | None = None,
    detectors: Mapping[str, Detector] | None = None,
    device: torch.device | str = "cpu",
    workers: int = 1,
    counts: Mapping[str, int] | None = None,
    show: Show = lambda done, unusable: None,
    stage: Stage = lambda name: None,
) -> Audit:
    """Attacks pairs of originals and anonymized pictures, which are read when their turn comes.

    With identities, every face is searched for in all *other* photos; it counts if its person is in one of them.
    Without identities it is searched for in the originals, its own included, and attackers that need identities are
    left out.

    Memory: three templates of each face and network, a pair of pictures for each worker, and the faces of a batch.

    Args:
        pairs: the pictures.
        embedders: networks of the attackers; by default all whose weights are here.
        attackers: names of :data:`ATTACKERS`.
        gallery: enrolled people; one more naive attacker has it.
        groups: columns of :attr:`PhotoPair.groups` whose groups of people are compared.
        fars: false-accept rates at which the true-accept rate is reported.
        gate: the network that the tool's own gate uses, to tell it from the others.
        technique: what the tool did to most faces, if that is known. Attackers then run it with keys of their own.
        detectors: detectors by name. The first finds faces, the others confirm them; by default CenterFace, and YuNet
            if its weights are here.
        device: a torch device.
        workers: how many pairs are looked at together.
        counts: how many files are in no pair, for the report.
        show: called with how far it is.
        stage: called with the name of each attacker that begins.

    Returns:
        All figures.

    Raises:
        AuditError: no pair can be used, there is no face, nobody to compare with, or a group has too many kinds.
        PolicyError: an attacker is unknown, or a network is named twice.
        GalleryError: no network makes the templates of the gallery.
    """
    networks = tuple(embedders_here() if embedders is None else embedders)
    looks = dict(detectors_here() if detectors is None else detectors)
    _check(networks, attackers, gallery)
    closely = bool(set(attackers) - set(NETWORK_ATTACKERS))
    eyes = Eyes(looks, device, technique if closely else None)
    found = collect(pairs, eyes, networks, workers=workers, show=show, closely=closely)
    table = table_of(found, groups)
    alone = gallery is not None and table.labelled and not table.several  # then only the gallery can attack
    attacks = [] if alone else _attacks(table, networks, attackers, fars)
    evidence = found.closer.evidence(table, technique) if closely and not alone else None
    if evidence is not None:
        attacks += attack_knowing(evidence, _possible(table, attackers), fars=fars, stage=stage)
    if gallery is not None:
        attacks.append(_enrolled(found, table, gallery, fars))
    if not attacks:
        told = ", ".join(name for name in ATTACKERS if name not in NEED_IDENTITIES)
        raise AuditError(f"without identities only these attacks are possible, none of which was asked for: {told}")
    controls = [attack(table, n.name, CONTROL, fars=fars) for n in networks] if table.labelled and not alone else []
    faces = fates(found, table, tuple(looks))
    notes = words.notes(
        labelled=table.labelled,
        asked=attackers,
        controls=controls,
        networks=[n.name for n in networks],
        detectors=list(looks),
        counts=found.counts,
        faces=faces,
        attacks=attacks,
        technique=technique.name if technique else "",
    )
    return Audit(
        {**(counts or {}), **found.counts},
        faces,
        tuple(_network(n, gate, found, table) for n in networks),
        tuple(attacks),
        tuple(controls),
        tuple(notes),
        {
            "attackers": list(attackers),
            "labelled": table.labelled,
            "groups": list(groups),
            "fars": list(fars),
            "gate_network": gate,
            "technique": describe(technique) if technique else None,
            "detectors": {name: str(detector) for name, detector in looks.items()},
            "smoothing_of_face_width": SMOOTHING,
            "enrolled_templates": None if gallery is None else len(gallery.owners),
        },
    )


def embedders_here() -> tuple[Embedder, ...]:
    """Every known network whose weights are on this machine.

    Raises: WeightsError for weights that are here but damaged.
    """
    return tuple(make() for name, make in EMBEDDERS.items() if _is_here(name))


def detectors_here() -> dict[str, Detector]:
    """CenterFace, and YuNet if its weights are on this machine."""
    first: dict[str, Detector] = {"centerface": CenterFaceDetector(THRESHOLD)}
    return {**first, "yunet": YuNetDetector()} if _is_here("yunet") else first


def _is_here(name: str) -> bool:
    try:
        locate(name)
    except WeightsError as error:
        if "has sha256" in str(error):  # damaged, which is not the same as absent
            raise
        return False
    return True


def _check(networks: Sequence[Embedder], attackers: Sequence[str], gallery: Gallery | None) -> None:
    for name in attackers:
        if name not in ATTACKERS:
            raise PolicyError(f"unknown attacker {name!r}; there are {', '.join(ATTACKERS)}")
    names = [n.name for n in networks]
    if not names:
        raise AuditError("no network to attack with; `anondata weights list` says which weights are here")
    if len(set(names)) < len(names):
        raise PolicyError("an embedder is named twice")
    if gallery is not None:
        same = next((n for n in networks if n.name == gallery.embedder), networks[0])
        gallery.check_embedder(same.name, same.fingerprint)


def _attacks(
    table: FaceTable, networks: Sequence[Embedder], attackers: Sequence[str], fars: Sequence[float]
) -> list[Attack]:
    possible = [name for name in _possible(table, attackers) if name in NETWORK_ATTACKERS]
    return [attack(table, network.name, name, fars=fars) for name in possible for network in networks]


def _possible(table: FaceTable, attackers: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(attackers) if table.labelled or name not in NEED_IDENTITIES]


def _enrolled(found: Collected, table: FaceTable, gallery: Gallery, fars: Sequence[float]) -> Attack:
    """The attack of somebody who has the gallery. Its people get the numbers that they have in the table."""
    if not table.labelled:
        raise AuditError("an attack with a gallery needs identities: which of its people is in which photo?")
    number = {f.identity: int(owner) for f, owner in zip(found.faces, table.owners, strict=True) if f.identity}
    if not set(number) & set(gallery.identities):
        raise AuditError("none of the people in the photos is in the gallery; do both use the same names?")
    strangers = len(number) + np.arange(len(gallery.identities))
    people = np.array([number.get(name, strangers[i]) for i, name in enumerate(gallery.identities)], dtype=np.int64)
    everywhere = np.full(len(gallery.owners), -1, dtype=np.int64)
    enrolled = Templates(gallery.templates, people[gallery.owners], everywhere)
    return attack_enrolled(table, gallery.embedder, enrolled, fars=fars)


def _network(network: Embedder, gate: str, found: Collected, table: FaceTable) -> dict[str, Any]:
    return {
        "name": network.name,
        "fingerprint": network.fingerprint,
        "role": "gate network" if network.name == gate else "other network",
        "self_match": gate_of(found, table, network),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("anondata", "torch", "numpy", "onnxruntime", "pillow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
