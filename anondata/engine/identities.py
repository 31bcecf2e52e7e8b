"""Whom the rules know by their templates: who stays as they are, and who keeps one new look in all samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from anondata.detectors.pyramid import box_iou
from anondata.engine.detection import SAME_IOU
from anondata.engine.rules import KindRules
from anondata.engine.state import RegionState
from anondata.policy import FACE
from anondata.protocols import Embedder
from anondata.regions import Regions, cat_regions


def spared_by_cover(states: Sequence[RegionState], device: torch.device) -> set[RegionState]:
    """Those that their cover leaves out; never one without a whole template."""
    spared: set[RegionState] = set()
    for rules, members in _by_rules(states):
        templates, whole = _templates(members, rules.cover.embedders, device)
        mask = rules.cover.spares(cat_regions([t.region for t in members], device), templates)
        if mask.shape != (len(members),) or mask.dtype != torch.bool:
            raise ValueError("a cover returned a mask of the wrong shape or type")
        spared |= {t for t, leave in zip(members, (mask & whole).tolist(), strict=True) if leave}
    return spared


def spared_by_word(states: Sequence[RegionState], boxes: Regions, device: torch.device) -> set[RegionState]:
    """Those of one picture's detections that its publisher marked as no face, and that no gallery may know.

    All that were marked are noted to be.

    boxes: what was marked. Each speaks of the one detection that it overlaps most, by more than :data:`SAME_IOU`.
    """
    faces = [t for t in states if t.region.kinds[0] == FACE and not t.tiny]
    if not faces or not len(boxes):
        return set()
    most, which = box_iou(boxes.boxes, cat_regions([t.region for t in faces], device).boxes).max(dim=1)
    marked = [faces[i] for i in sorted(set(which[most > SAME_IOU].tolist()))]
    for state in marked:
        state.marked = True
    return {t for t, known in zip(marked, _may_be_known(marked, device), strict=True) if not known}


def _may_be_known(states: Sequence[RegionState], device: torch.device) -> list[bool]:
    """Whether each may be somebody of a gallery of its rules; in doubt it may. All are of one kind."""
    if not states:
        return []
    regions = cat_regions([t.region for t in states], device)
    doubt = torch.zeros(len(states), dtype=torch.bool, device=device)
    for knower in states[0].rules.knowers:
        if not hasattr(knower, "may_know"):  # nobody can be asked
            return [True] * len(states)
        templates, whole = _templates(states, knower.embedders, device)
        known = knower.may_know(regions, templates)
        if known.shape != doubt.shape or known.dtype != torch.bool:
            raise ValueError("a gallery's component returned a mask of the wrong shape or type")
        doubt |= known.to(device) | ~whole
    answers: list[bool] = doubt.tolist()
    return answers


def name_people(states: Sequence[RegionState], device: torch.device) -> None:
    """Notes of each who it is to the pseudonyms of its rules; nobody without a whole template."""
    for rules, members in _by_rules(states):
        if rules.pseudonyms is None:
            continue
        templates, whole = _templates(members, rules.pseudonyms.embedders, device)
        people = rules.pseudonyms.people(cat_regions([t.region for t in members], device), templates)
        for state, person, sure in zip(members, people, whole.tolist(), strict=True):
            state.person = person if sure else ""


def _templates(
    states: Sequence[RegionState], embedders: Sequence[Embedder], device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    """Templates ``(R, D)`` by embedder, and ``(R,)`` bool: all of them finite."""
    templates = {e.name: torch.stack([t.before[e.name] for t in states]) for e in embedders}
    whole = torch.ones(len(states), dtype=torch.bool, device=device)
    for matrix in templates.values():
        whole = whole & matrix.isfinite().all(dim=1).to(device)
    return templates, whole


def _by_rules(states: Sequence[RegionState]) -> Iterator[tuple[KindRules, list[RegionState]]]:
    for rules in {id(t.rules): t.rules for t in states}.values():
        yield rules, [t for t in states if t.rules is rules]
