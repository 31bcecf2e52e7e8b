"""The average of k that are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from anondata.crops import Shape
from anondata.randomness import normal
from anondata.transforms._face_swap import FaceSwap, Kept, Look, Members, People, each_once, laid, members_of, whole
from anondata.transforms._faces_blend import smooth
from anondata.transforms.base import Keyed


class KSame(FaceSwap):
    """Replaces a face by the average of ``k`` faces of a gallery that look ahead and smile alike.

    The classic (Newton, Sweeney, Malin 2005) gives each of k people of the set that is anonymized the same average of
    just these k, so that nobody can tell better than 1 in k which of them it is: a proof about the set. It does not
    hold here, for the gallery is another set. What holds is simpler: the original's face is not in the average at
    all. The result is a function of the seed, of the gallery and of what ``keep`` names, by default nothing; and k
    says how many of the *gallery* each result is made of, so that it shows none of them alone. How alike faces are is
    never asked of a network that tells people apart. Averages are smooth: wrinkles and single hairs go.
    Smiles, where they are kept, are kept as well as they are read: a probe is right about 67 % of 102 results.

    The k are drawn by the region's seed out of the ``choices * k`` most suitable. The classic takes the k nearest;
    then two photos of one person share most of their k, and a parrot named 9 % of 51 people by that alone.

    Args:
        k: how many are averaged, 2 to 64; each of them once, as they are or mirrored.
        members, people: the gallery, see :class:`anondata.transforms._face_swap.FaceSwap`.
        faces: a folder of photos to use in its place, one person each, of people who consented to be part of
            averages.
        choices: out of how many times k the seed draws; 1 gives the classic choice: the same average each time.
        keep: what stays of the original, see :class:`anondata.transforms._face_swap.FaceSwap`; by default nothing.

    Raises:
        WeightsError: at first use, where the faces cannot be had, or are fewer than k.

    Source: Newton, Sweeney, Malin (2005), doi 10.1109/TKDE.2005.32; aligned as in k-Same-M, Gross et al. (2006).
    """

    name = "ksame"

    def __init__(
        self,
        k: int = 8,
        members: int = 64,
        faces: str | None = None,
        choices: int = 4,
        people: People = "mixed",
        *,
        keep: Sequence[Kept] = (),
        coverage: float = 1.55,
        shape: Shape = "rounded",
        feather: float = 0.15,
        **common: Unpack[Keyed],
    ) -> None:
        super().__init__(members, people, keep=keep, coverage=coverage, shape=shape, feather=feather, **common)
        self.k = whole("k", k, 2, 64)
        if not (faces is None or isinstance(faces, str)):
            raise ValueError(f"faces must be the path of a folder, got {type(faces).__name__}")
        if faces is None and k > members:
            raise ValueError(f"k must be at most members, got {k} of {members}")
        self.folder = faces
        if faces is not None:
            self.networks, self.generated_people = (), 0
        self.choices = whole("choices", choices, 1, 1024)

    def strength(self) -> dict[str, Any]:
        own = {"k": self.k, "members": self.pool_size, "faces": self.folder, "choices": self.choices}
        return own | {"people": self.people, "keep": list(self.keep)}

    def members(self) -> Members:
        from anondata.errors import WeightsError
        from anondata.transforms.face_pool import photographed_pool

        if self.folder is None:
            return super().members()
        pool = photographed_pool(self.folder)
        if len(pool) < self.k:
            raise WeightsError(f"the folder of faces has {len(pool)} people, expected k = {self.k} or more")
        return members_of(pool)

    def faces(self, order: Tensor, look: Look, seeds: Sequence[int]) -> Tensor:
        members = self.members()
        rows = []
        for row in range(len(order)):
            likely = each_once(order[row], members)[: self.choices * self.k]
            which = likely[normal([seeds[row]], (len(likely),))[0].argsort()[: self.k]]
            rows.append(average(laid(members, which, look.of(row, len(which)))))
        return torch.cat(rows)


def average(faces: Tensor) -> Tensor:
    """``(1, 4, S, S)``: the mean of faces ``(k, 4, S, S)``, each pixel's colour only of those who are there."""
    colours, mattes = faces[:, :3], faces[:, 3:]
    mean = (colours * mattes).sum(dim=0) / mattes.sum(dim=0).clamp(min=1e-3)
    most = smooth((mattes.mean(dim=0) - 0.3) / 0.5)  # where most of them are: thin veils of single ones go
    return torch.cat([mean, most])[None]
