"""Faces that belong to nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from anondata.crops import Shape
from anondata.randomness import normal
from anondata.transforms._face_swap import FaceSwap, Kept, Look, Members, People, each_once, laid, whole
from anondata.transforms.base import Keyed


class SyntheticFace(FaceSwap):
    """Replaces a face by another one that belongs to nobody.

    The region's seed chooses out of a pool of people who do not exist, and how much they smile. The new head is
    upright and looks ahead, whatever the original does. Of the original's face nothing remains unless ``keep`` names
    it. So the same sample, region and run key give the same face; another key gives another. One seed gives one
    person, so that somebody can keep a new face (see ``pseudonyms`` in :class:`anondata.policy.RegionPolicy`), but
    where smiles are kept and ``choices`` is less than all members: then the smile decides, too. Two seeds give the
    same person in 1 of ``members``: of ten people two of 64 are alike in half of all runs.

    What a member has, the result has: glasses, a beard, an age. Such a face can look like a real one by chance:
    results must pass the gates like any other. With ``keep: [smile]`` a probe for smiles, trained on 51 people, is
    right about 90 % of the originals and 64 % of the results. Part of what is lost is lost in reading a single photo,
    see :class:`anondata.transforms._smiles.SmileReader`.
    Around the new head lie random colours: a background that continued the surroundings let attackers name people by
    hair and neck within the covered area, too.
    Regions less than 18 px wide keep a trace of the original along the edge of the covered area: give them a rung
    of their own. Faces wider than 200 px come out softer than their surroundings.

    Args:
        members, people: whom the seed chooses from, see :class:`anondata.transforms._face_swap.FaceSwap`.
        choices: among how many of the people who look ahead most the seed chooses.
        keep: what stays of the original, see :class:`anondata.transforms._face_swap.FaceSwap`; by default nothing.

    Raises:
        WeightsError: at first use, where the people cannot be had.

    Source: Belousov (2021), arXiv:2104.04767, for generated people; DeBruine and Jones (2017) for mixed ones.
    """

    name = "synthetic_face"

    def __init__(
        self,
        members: int = 64,
        choices: int = 64,
        people: People = "mixed",
        *,
        keep: Sequence[Kept] = (),
        coverage: float = 1.55,
        shape: Shape = "rounded",
        feather: float = 0.15,
        **common: Unpack[Keyed],
    ) -> None:
        super().__init__(members, people, keep=keep, coverage=coverage, shape=shape, feather=feather, **common)
        self.choices = whole("choices", choices, 1, 1024)
        self.pseudonymous = "smile" not in self.keep or self.choices >= self.pool_size

    def strength(self) -> dict[str, Any]:
        return {"members": self.pool_size, "choices": self.choices, "people": self.people, "keep": list(self.keep)}

    def faces(self, order: Tensor, look: Look, seeds: Sequence[int]) -> Tensor:
        members = self.members()
        chosen = [self.chosen(row, members, seed) for row, seed in zip(order, seeds, strict=True)]
        return laid(members, torch.stack(chosen), look)

    def chosen(self, order: Tensor, members: Members, seed: int) -> Tensor:
        """The person whom the seed likes best among those who suit, which others of them do not change.

        Source: Thaler, Ravishankar (1998), doi 10.1109/90.663936, for choosing by the highest random weight.
        """
        likely = each_once(order, members)[: self.choices]
        liking = normal([seed], (int(members.people.max()) + 1,))[0]
        return likely[liking[members.people[likely]].argmax()]
