"""How the engine's loop looks: what detectors find, and what of that is not explained by what was done already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from anondata.detectors.pyramid import box_iou, merge
from anondata.engine.rules import ContentRules
from anondata.engine.state import Item, RegionState
from anondata.errors import PolicyError
from anondata.protocols import UPRIGHT, Detector, Judge, Look
from anondata.regions import Regions, cat_regions, empty_regions

# A region that the output scan finds counts as already anonymized when this share of its core was replaced: the inner
# part that holds eyes, nose and mouth. An anonymized face is often found again, its box a little off or grown to the
# whole head; of a face that was missed nothing is covered, or a rim.
CORE = 0.6
CORE_COVERED = 0.95

# A face that is seen turned or stretched has a worse box there: 74 % of its core and more lay in the least that a
# policy covers where it was found upright.
AROUND = 1.3
HELD = 0.7
SAME_PLACE = 0.75  # however sure
AS_SURE = 0.03  # a surer look has the better box: upside down, a face is found without its forehead

SAME_IOU = 0.6  # two detectors, or two looks, that agree this far found the same region

# A masked face that is still found as one: 12 of 102 were, at 0.74 and more. Strangers behind one: at 0.62 and less.
# It costs the consent of 2 in 90 faces in scenes, and of 3 in 6 in a party photo, where hair is taken for a face.
MASK_IOU = 0.7
BESIDE_IOU = 0.1

PLACE_IOU = 0.8  # a region that is seen as far from its place as this was moved: its gate looked beside it


def find(rules: ContentRules, detectors: Sequence[Detector], media: Sequence[Any], device: torch.device) -> Regions:
    """What any of the detectors finds in media, by their number, each region once.

    First in the media as they are; then in the further looks that detectors want, such as turned pictures. What these
    show within a region that was found already is the same one, seen less well.

    Raises:
        PolicyError: a kind is found that the policy has no ladder for.
        ValueError: boxes or scores that are not finite.
    """
    content, parts = rules.content, list[Regions]()
    plain = [(i, look) for i, m in enumerate(media) for look in content.upright(m)]
    found = _checked(rules, merge(_seen(detectors, plain, device), iou=SAME_IOU))
    names = {name for detector in detectors for name in _wanted(detector)} - {UPRIGHT}
    for i, one in enumerate(media):
        known, further = found.of_image(i), content.looks(one, names) if names else ()
        seen = [_beside(known, detectors, look, device).renumbered(i) for look in further]  # one by one, for memory
        more = _checked(rules, merge(cat_regions(seen, device), iou=SAME_IOU))
        parts += [known, more.select(~_held(more, known))]
    return cat_regions(parts, device)


def keeping_doubtful(detectors: Sequence[Detector]) -> list[Detector]:
    """The same detectors, and those that drop what they find with a low score once more without that, upright.

    Whoever looks out from behind a mask is half hidden: in doubt there is somebody. Not so in further looks, in which
    hair around a mask is often taken for a face.
    """
    out = list(detectors)
    for detector in detectors:
        if is_dataclass(detector) and getattr(detector, "second_look", False) and UPRIGHT in _wanted(detector):
            out.append(replace(detector, second_look=False, looks=(UPRIGHT,)))
    return out


def _checked(rules: ContentRules, found: Regions) -> Regions:
    for kind in set(found.kinds) - set(rules.kinds):
        raise PolicyError(f"a detector finds {kind!r}, but the policy has no ladder for it")
    if not bool(found.boxes.isfinite().all() and found.scores.isfinite().all()):
        raise ValueError("a detector returned boxes or scores that are not finite")
    return found


def _wanted(detector: Detector) -> Sequence[str]:
    names: Sequence[str] = getattr(detector, "looks", (UPRIGHT,))
    return names


def _seen(detectors: Sequence[Detector], looks: Sequence[tuple[int, Look]], device: torch.device) -> Regions:
    """All that detectors find in those looks that they want, where it lies on the views. looks: with their media."""
    parts = []
    for detector in detectors:
        wanted = [(i, look) for i, look in looks if look.name in _wanted(detector)]
        found = _detected(detector, [look.view for _, look in wanted], device) if wanted else empty_regions(device)
        parts += [look.on_view(found.of_image(row)).renumbered(i) for row, (i, look) in enumerate(wanted)]
    return cat_regions(parts, device)


def _beside(known: Regions, detectors: Sequence[Detector], look: Look, device: torch.device) -> Regions:
    """What detectors find in one further look, where it lies on the view.

    What is known already is not judged once more: faces found upright are found in most looks, with low scores. It is
    returned, so that it merges with what another look shows in its place.
    """
    parts = []
    for detector in detectors:
        if look.name not in _wanted(detector):
            continue
        if isinstance(detector, Judge):
            proposed = _told(detector, detector.propose([look.view]), [look.view], device)
            held = _held(look.mapped(proposed), known)
            found = _told(detector, detector.confirm([look.view], proposed.select(~held)), [look.view], device)
            found = cat_regions([proposed.select(held), found], device)
        else:
            found = _detected(detector, [look.view], device)
        parts.append(look.on_view(found))
    return cat_regions(parts, device)


def _detected(detector: Detector, views: Sequence[Tensor], device: torch.device) -> Regions:
    return _told(detector, detector.detect(views), views, device)


def _told(detector: Detector, found: Any, views: Sequence[Tensor], device: torch.device) -> Regions:
    """What it returned. Raises :class:`PolicyError` for what the protocol does not allow: it would be lost."""
    if not isinstance(found, Regions):
        raise PolicyError(
            f"detector {type(detector).__name__!r} returned {type(found).__name__}; expected anondata.Regions, see "
            "anondata.protocols.Detector"
        )
    if len(found) and not bool(((found.image >= 0) & (found.image < len(views))).all()):
        raise PolicyError(
            f"detector {type(detector).__name__!r} returned regions of pictures that it was not shown; image holds "
            "the picture's index in the batch, from 0 on"
        )
    return found.to(device)


def _held(regions: Regions, by: Regions) -> Tensor:
    """``(N,)`` bool: which are one of these regions, or have most of their core in or right around one as sure."""
    if not len(regions) or not len(by):
        return torch.zeros(len(regions), dtype=torch.bool, device=regions.boxes.device)
    core, whole = regions.scaled(CORE).boxes[:, None], by.scaled(AROUND).boxes[None]
    low, high = torch.maximum(core[..., :2], whole[..., :2]), torch.minimum(core[..., 2:], whole[..., 2:])
    share = (high - low).clamp(min=0).prod(dim=2) / (core[..., 2:] - core[..., :2]).prod(dim=2).clamp(min=1e-9)
    same = torch.tensor([[a == b for b in by.kinds] for a in regions.kinds], device=share.device)
    surer = by.scores[None] + AS_SURE >= regions.scores[:, None]
    return (same & ((share >= HELD) & surer | (box_iou(regions.boxes, by.boxes) >= SAME_PLACE))).any(dim=1)


def without_spared(rules: ContentRules, item: Item, media: Any, device: torch.device) -> Any:
    """The media with what was spared masked, so that detectors see what else there is."""
    regions = cat_regions([t.region for t in item.spared], device)
    return rules.content.compose(
        media, rules.content.change([media], regions, rules.content.mask, [0] * len(regions))
    )


def _on_spared(rules: ContentRules, items: Sequence[Item], device: torch.device) -> Regions:
    """What the scan finds of kinds none of which was spared: a spared person's mask would hide their face."""
    own = [i for i, item in enumerate(items) if item.spared]
    if not own or len(rules.kinds) == 1:
        return empty_regions(device)
    found = find(rules, rules.scanners, [items[i].shown for i in own], device)
    kept = [
        row
        for row, (image, kind) in enumerate(zip(found.image.tolist(), found.kinds, strict=True))
        if all(kind not in state.region.kinds for state in items[own[image]].spared)
    ]
    found = found.select(kept)
    return replace(found, image=torch.tensor(own, device=device)[found.image])


def unexplained(rules: ContentRules, item: Item, found: Regions, device: torch.device) -> Regions:
    """Those whose core nothing hides, and which are not the mask of one that was spared."""
    for kind in sorted(set(found.kinds)):
        laid, alike = item.hiding(kind), torch.tensor([k == kind for k in found.kinds], device=device)
        hidden = rules.content.covered(laid, item.media, found.scaled(CORE)) >= CORE_COVERED
        own = [(patch, hides) for patch, hides in laid if hides]
        if len(own) < len(laid):  # another kind lies on top of what did hide it, and the whole was verified
            known = cat_regions([t.region for t in item.states if kind in t.region.kinds and not t.tiny], device)
            below = rules.content.covered(own, item.media, found.scaled(CORE)) >= CORE_COVERED
            hidden |= below & (box_iou(found.boxes, known.boxes) >= SAME_IOU).any(dim=1)
        found = found.select(~(alike & hidden))
    for state in item.spared:
        found = found.select(elsewhere(found, state.region, iou=MASK_IOU))
    return found


def movers(rules: ContentRules, item: Item, found: Regions, device: torch.device) -> list[RegionState]:
    """States under whose patch something is seen that is not in its place: what their technique moved there.

    No gate looks there, and to the scan it would count as anonymized: an own kind's patch lies on it.
    """
    laid, out = item.in_order(), list[RegionState]()
    for state in laid:
        below = {k for k in set(found.kinds) if k in state.region.kinds or rules.kinds[k].layer < state.rules.layer}
        if not below or not state.technique.moves or state.patch is None:
            continue
        away = box_iou(found.boxes, state.region.boxes)[:, 0] < PLACE_IOU
        mine = found.select(away & torch.tensor([k in below for k in found.kinds], device=device))
        shown = [(t.patch, t is state) for t in laid if t.patch is not None]
        if bool((rules.content.covered(shown, item.media, mine.scaled(CORE)) > 1 - CORE_COVERED).any()):
            out.append(state)
    return out


def scanned(rules: ContentRules, items: Sequence[Item], device: torch.device) -> Regions:
    """What the scanners find in results; who was spared is masked, so that they see what else there is."""
    found = find(rules, rules.scanners, [without_spared(rules, w, w.shown, device) for w in items], device)
    return merge(cat_regions([found, _on_spared(rules, items, device)], device), iou=SAME_IOU)


def uncovered_tiny(rules: ContentRules, item: Item) -> str:
    """The kind of a tiny region that another kind's patch may show again: no gate looks there. Empty for none."""
    for kind in sorted({t.region.kinds[0] for t in item.states if t.tiny}):
        laid = item.hiding(kind)
        if all(hides for _, hides in laid):
            continue
        tiny = cat_regions([t.region for t in item.states if t.tiny and kind in t.region.kinds])
        if bool((rules.content.covered(laid, item.media, tiny.scaled(CORE)) < CORE_COVERED).any()):
            return kind
    return ""


def elsewhere(found: Regions, region: Regions, *, iou: float) -> Tensor:
    """``(N,)`` bool: which of those found are not this one region, being elsewhere or of another kind."""
    other = torch.tensor([k not in region.kinds for k in found.kinds], dtype=torch.bool, device=found.boxes.device)
    return other | (box_iou(found.boxes, region.boxes)[:, 0] < iou)
