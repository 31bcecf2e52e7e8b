"""Attacks what a tool wrote, and says who can still be named in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anondata.auditing.folders import AuditTerms, Inputs, read_inputs
from anondata.errors import ArgumentError, OutputError
from anondata.loaders.files.output import write_whole

if TYPE_CHECKING:
    from anondata.auditing.rows import RowInputs
    from anondata.protocols import Embedder
    from anondata.randomness import RunKey
    from anondata.verifiers.gallery import Gallery

__all__ = ["Audited", "audit"]

FILE = "audit.json"
GATE = "dlib-face-resnet"
FARS = (0.1, 0.01, 0.001)

Show = Callable[[str, int, int], None]
"""Takes what is being done, how far it is, and of how much."""


@dataclass(frozen=True)
class Audited:
    """What an audit found.

    Args:
        body: all figures, as ``audit.json`` holds them; no file names and no identities.
        worst_rank1: the share of probes, in [0, 1], that the best attacker names at rank 1. The context attacker is
            not counted.
    """

    body: Mapping[str, Any]
    worst_rank1: float

    def write(self, out: str | os.PathLike[str], *, plots: bool = True) -> None:
        """Writes ``audit.json`` and plots into a folder, and removes plots of an earlier audit there.

        Raises:
            OutputError: the folder cannot be written.
            MissingExtraError: matplotlib is not installed, which plots need.
        """
        from anondata.cards.audit_plots import FILES, write_plots

        place = Path(out)
        try:
            place.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                (place / name).unlink(missing_ok=True)
            write_whole(place / FILE, (json.dumps(self.body, indent=1) + "\n").encode(), what="DIR")
            if plots:
                write_plots(self.body, place)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(f"DIR cannot be written: {error.strerror}") from error


def audit(
    originals: str | os.PathLike[str],
    anonymized: str | os.PathLike[str],
    *,
    pairs: str | os.PathLike[str] | None = None,
    identity: str | None = None,
    groups: Sequence[str] = (),
    marked: bool = True,
    attackers: Iterable[str] = (),
    embedders: Iterable[str] = (),
    gallery: Gallery | None = None,
    fars: Iterable[float] = FARS,
    gate: str = GATE,
    run_key: RunKey | None = None,
    device: str = "auto",
    show: Show = lambda what, done, total: None,
) -> Audited:
    """Attacks the output of any anonymization tool, and says how many people can still be named.

    A file of the output belongs to the original of the same path; its suffix may be another or an additional one, and
    its name may end in ``_anonymized``. For rows that ``materialize`` or ``anonymize_shards`` wrote, originals are
    found by their content, with the run key.

    Args:
        originals, anonymized: two folders, walked with all folders in them.
        pairs: a CSV with the columns original and anonymized, for results with other names.
        identity: the column of the originals' metadata that says who is in a photo. None takes the column
            ``identity`` if there is one, else the folders of the originals. ``"-"`` means that nobody knows.
        groups: columns of the metadata whose groups of people are compared.
        marked: take the faces that the metadata marks. Where it marks none, or if this is False, a detector finds
            them.
        attackers: names of :data:`anondata.verifiers.audit.ATTACKERS`; empty means all.
        embedders: names of the attackers' networks; empty means all whose weights are here.
        gallery: enrolled people; one more naive attacker has it.
        fars: false-accept rates at which the true-accept rate is reported.
        gate: the network that the tool checks its own results with, if it does.
        run_key: the key of the output. It seals the audit, so that the output can be published. None takes the one
            that is kept for the folder, if there is one.
        device: ``"auto"``, or a torch device.
        show: called with what is being done, how far it is, and of how much.

    Returns:
        All figures, and the share of people that the best attacker names.

    Raises:
        AuditError: there is nothing to pair or to compare.
        ArgumentError: a column is not there.
        WeightsError: no network of the attackers can be loaded.
    """
    from anondata.anonymizer import choose_device
    from anondata.auditing.rows import technique_of
    from anondata.keys import run_key as kept_key
    from anondata.loaders._cores import shared_threads
    from anondata.loaders.files.job import default_workers
    from anondata.publishing.checks import sealed_audit
    from anondata.verifiers.audit import ATTACKERS
    from anondata.verifiers.audit import audit as attack
    from anondata.verifiers.embedders import embedder_of

    a, b = Path(originals), Path(anonymized)
    networks: list[Embedder] = [embedder_of(name) for name in dict.fromkeys(embedders)]
    key = run_key or kept_key(b, None, create=False)
    inputs = _inputs(a, b, AuditTerms(identity, tuple(groups), marked), Path(pairs) if pairs else None, key)
    chosen = str(choose_device(device))
    workers = default_workers(chosen)
    with shared_threads(workers):
        result = attack(
            inputs.pairs(),
            embedders=networks or None,
            attackers=tuple(attackers) or ATTACKERS,
            gallery=gallery,
            groups=groups,
            fars=sorted(set(fars), reverse=True),
            gate=gate,
            device=chosen,
            workers=workers,
            counts=inputs.counts,
            technique=technique_of(b),
            show=lambda done, unusable: show("looking at photos", done, inputs.total),
            stage=lambda name: show(f"attacking: {name}", 1, 1),
        )
    body = sealed_audit({**result.to_json(), "anonymized": inputs.content()}, key)
    return Audited(body, result.worst.rank1.value)


def check_apart(originals: Path, anonymized: Path, out: Path) -> None:
    """Raises ArgumentError for a place of the audit where the next one would take its plots for pictures."""
    for name, folder in (("A", originals), ("B", anonymized)):
        if out.resolve().is_relative_to(folder.resolve()):
            raise ArgumentError(f"DIR lies in {name}, where the next audit would take its plots for pictures")


def _inputs(a: Path, b: Path, asked: AuditTerms, pairs: Path | None, key: RunKey | None) -> Inputs | RowInputs:
    """Rows of a finished run where B holds such, else files."""
    from anondata.auditing.rows import row_inputs

    if pairs is None and (found := row_inputs(a, b, asked, key)) is not None:
        return found
    return read_inputs(a, b, asked, table=pairs)
