"""How the engine's loop asks its verifiers: templates and views of regions, before and after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor

from anondata.engine.rules import distinct_embedders
from anondata.engine.state import Item, RegionState, rows_of
from anondata.protocols import ContentType, Probe
from anondata.regions import Regions, cat_regions

BLANKED = 16  # at once: each is a whole picture of its own


class Views(Sequence[Tensor]):
    """What media look like, each made when it is asked for, once."""

    def __init__(self, content: ContentType[Any], media: Sequence[Any]) -> None:
        self._content, self._media = content, media
        self._made: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._media)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return Views(self._content, self._media[index])
        if index not in self._made:
            self._made[index] = self._content.view(self._media[index])
        return self._made[index]


def embed(
    content: ContentType[Any], media: Sequence[Any], states: Sequence[tuple[int, RegionState]], device: torch.device
) -> dict[str, Tensor]:
    """Templates by embedder, a row for each state; each embedder runs once, on all kinds that ask for it.

    states: each with the number of its media.
    """
    if not states:
        return {}
    views = [content.view(m) for m in media]
    regions = _regions(states, device)
    out = {}
    for name, embedder in distinct_embedders({id(t.rules): t.rules for _, t in states}.values()).items():
        matrix = embedder.embed(views, regions)
        if matrix.ndim != 2 or len(matrix) != len(regions):
            raise ValueError("an embedder returned a matrix of the wrong shape")
        whole = matrix.square().sum(dim=1).isfinite()  # an overflow would be infinitely far from everybody
        out[name] = torch.where(whole[:, None], matrix, torch.nan)
    return out


def judge(content: ContentType[Any], items: Sequence[Item], device: torch.device) -> None:
    """Sets the verdicts of every region of the items: a new rendering may have changed any of them."""
    states = [(i, t) for i, item in enumerate(items) for t in item.states if not t.tiny]
    after = embed(content, [w.shown for w in items], states, device)
    views = Views(content, [w.media for w in items]), Views(content, [w.shown for w in items])
    rows: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, (_, state) in enumerate(states):
        state.verdicts = ()
        rows[id(state.rules), len(state.judges)].append(row)
    for chosen in rows.values():
        members = [states[row] for row in chosen]
        judges = members[0][1].judges
        names = {e.name for verifier in judges for e in verifier.embedders}
        probe = Probe(
            regions=_regions(members, device),
            before={name: torch.stack([t.before[name] for _, t in members]) for name in names},
            after={name: after[name][chosen] for name in names},
            techniques=tuple(t.technique for _, t in members),
            erased=torch.tensor([_is_erased(content, items[i], t) for i, t in members], device=device),
            last=torch.tensor([t.on_last_rung for _, t in members], device=device),
            blank=partial(_blank, content, [(items[i], t) for i, t in members], device),
            original=views[0],
            result=views[1],
        )
        for verifier in judges:
            for (_, state), verdict in zip(members, rows_of(verifier.judge(probe), len(members)), strict=True):
                state.verdicts += (verdict,)


def _is_erased(content: ContentType[Any], item: Item, state: RegionState) -> bool:
    """Whether nothing of a region is left: not in its own patch, and in none of another kind that lies on it."""
    if not state.technique.erases:
        return False
    laid = item.hiding(state.region.kinds[0])
    return all(hides for _, hides in laid) or bool(content.covered(laid, item.media, state.region) >= 1)


def _blank(
    content: ContentType[Any],
    members: Sequence[tuple[Item, RegionState]],
    device: torch.device,
    name: str,
    rows: Tensor,
) -> Tensor:
    """Templates of some regions of originals that were blanked out; see :class:`anondata.protocols.Probe`."""
    out = []
    for start in range(0, len(rows), BLANKED):
        chosen = [members[row] for row in rows[start : start + BLANKED].tolist()]
        media = [item.media for item, _ in chosen]
        states = [(i, state) for i, (_, state) in enumerate(chosen)]
        patches = content.change(media, _regions(states, device), content.blank, [0] * len(chosen))
        shown = [content.compose(m, [patch]) for m, patch in zip(media, patches, strict=True)]
        out.append(embed(content, shown, states, device)[name])
    return torch.cat(out)


def _regions(states: Sequence[tuple[int, RegionState]], device: torch.device) -> Regions:
    return cat_regions([state.region.renumbered(i) for i, state in states], device)
