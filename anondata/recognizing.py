"""Whom the rules know by their templates: who stays as they are, and who keeps one new look in all samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from anondata.protocols import Embedder
from anondata.regions import cat_regions
from anondata.rules import KindRules
from anondata.tracks import Track


def spared_by_cover(tracks: Sequence[Track], device: torch.device) -> set[Track]:
    """Those that their cover leaves out; never one without a whole template."""
    spared: set[Track] = set()
    for rules, members in _by_rules(tracks):
        templates, whole = _templates(members, rules.cover.embedders, device)
        mask = rules.cover.spares(cat_regions([t.region for t in members], device), templates)
        if mask.shape != (len(members),) or mask.dtype != torch.bool:
            raise ValueError("a cover returned a mask of the wrong shape or type")
        spared |= {t for t, leave in zip(members, (mask & whole).tolist(), strict=True) if leave}
    return spared


def name_people(tracks: Sequence[Track], device: torch.device) -> None:
    """Notes of each who it is to the pseudonyms of its rules; nobody without a whole template."""
    for rules, members in _by_rules(tracks):
        if rules.pseudonyms is None:
            continue
        templates, whole = _templates(members, rules.pseudonyms.embedders, device)
        people = rules.pseudonyms.people(cat_regions([t.region for t in members], device), templates)
        for track, person, sure in zip(members, people, whole.tolist(), strict=True):
            track.person = person if sure else ""


def _templates(
    tracks: Sequence[Track], embedders: Sequence[Embedder], device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    """Templates ``(R, D)`` by embedder, and ``(R,)`` bool: all of them finite."""
    templates = {e.name: torch.stack([t.before[e.name] for t in tracks]) for e in embedders}
    whole = torch.ones(len(tracks), dtype=torch.bool, device=device)
    for matrix in templates.values():
        whole = whole & matrix.isfinite().all(dim=1).to(device)
    return templates, whole


def _by_rules(tracks: Sequence[Track]) -> Iterator[tuple[KindRules, list[Track]]]:
    for rules in {id(t.rules): t.rules for t in tracks}.values():
        yield rules, [t for t in tracks if t.rules is rules]
