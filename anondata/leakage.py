"""How much of a region a technique can leave at most, by calculation: whatever the attacker, known or not.

It says nothing of what lies outside the covered area (hair, clothes, the background), of where a region is and how
large, and of the soft edge around it, which mixes the result with the original of the surroundings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

SAFE_ABOVE_CHANCE = 0.03  # of rank 1
SAFE_CANDIDATES = 100
SAFE_RELEASES = 50


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number, 1 or more, got {value!r}")


@dataclass(frozen=True)
class Leakage:
    """An upper bound of what results tell about a region: numbers with noise of their own, and a group it falls in.

    Each number is the region's signal, limited to a range, plus normal noise: a Gaussian channel. A group is told
    without noise, such as which of three smiles is nearest. Whatever is done to these afterwards (clipping, 8 bits,
    JPEG, networks, other draws at random) adds nothing: the data-processing inequality.

    Args:
        numbers: how many there are, 0 or more. None of them, and one group: results do not depend on the region.
        snr: the most power that a number's signal can have, measured from the middle of its range, over the power of
            its noise. Infinite where no bound is known.
        groups: how many there are, 1 or more.

    Raises:
        ValueError: for numbers that cannot be.

    >>> Leakage(numbers=192, snr=0.0).nothing
    True
    >>> one = Leakage(numbers=192, snr=(0.01 / 0.2) ** 2)  # of a signal within 0.01 of grey, and noise of 0.2
    >>> round(one.bits(), 2), round(one.rank1(candidates=100), 2), round(one.rank1(candidates=100, releases=50), 2)
    (0.35, 0.05, 0.99)
    >>> kept = Leakage(numbers=0, snr=0.0, groups=6)
    >>> round(kept.bits(), 2), kept.rank1(candidates=100), kept.rank1(candidates=100, releases=2)
    (2.58, 0.06, 0.36)
    """

    numbers: int
    snr: float
    groups: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.numbers, bool) or not isinstance(self.numbers, int) or self.numbers < 0:
            raise ValueError(f"numbers must be a whole number, 0 or more, got {self.numbers!r}")
        if isinstance(self.snr, bool) or not isinstance(self.snr, int | float) or not self.snr >= 0:
            raise ValueError(f"snr must be a number, 0 or more, got {self.snr!r}")
        _check_count("groups", self.groups)

    @property
    def nothing(self) -> bool:
        """Whether results do not depend on the region at all."""
        return self._silent and self.groups == 1

    @property
    def _silent(self) -> bool:
        """Whether the numbers tell nothing."""
        return self.numbers == 0 or self.snr == 0

    @property
    def bounded(self) -> bool:
        """Whether there is a bound; without one only measured attackers speak for a technique."""
        return self._silent or self.snr < math.inf

    @property
    def safe(self) -> bool:
        """Whether :meth:`rank1` is at most 3 points above chance, of 100 candidates and from 50 releases."""
        rank1 = self.rank1(candidates=SAFE_CANDIDATES, releases=SAFE_RELEASES)
        return rank1 <= 1 / SAFE_CANDIDATES + SAFE_ABOVE_CHANCE

    def mu(self, *, releases: int = 1) -> float:
        """How far any region is from the middle of all of its group, in Gaussian differential privacy.

        To tell the two apart is as hard as to tell ``N(0, 1)`` from ``N(mu, 1)``. Any two regions are at most twice
        as far from each other. It grows with the root of the number of releases, whose noise is independent; they may
        be of one picture, or of several that somebody is in.

        Source: Dong, Roth, Su (2022), doi 10.1111/rssb.12454: the Gaussian mechanism, and composition.
        """
        _check_count("releases", releases)
        return 0.0 if self._silent else math.sqrt(self.numbers * self.snr) * math.sqrt(releases)

    def bits(self, *, releases: int = 1) -> float:
        """The most bits that results carry about one region: the capacity of the channels, and log2 of the groups.

        Of several releases of *one* picture the noise averages out, and its power falls with their number; the group
        is the same in all. Of several pictures the bits of one release add up.

        Source: Shannon (1949), doi 10.1109/JRPROC.1949.232969: ½ log2(1 + signal / noise) for each number.
        """
        _check_count("releases", releases)
        noisy = 0.0 if self._silent else self.numbers / 2 * math.log1p(releases * self.snr) / math.log(2)
        return noisy + math.log2(self.groups)

    def rank1(self, *, candidates: int = SAFE_CANDIDATES, releases: int = 1) -> float:
        """The most that an ideal attacker can name right of equally likely candidates, as a share in [0, 1].

        The attacker knows every candidate's original and everything else but the noise. The least of two bounds:

        * ``Phi(Phi^-1(K / M) + mu)`` of M candidates in K groups. Let Q_g be the law of results of the middle of
          group g, and A_j the results at which the attacker names candidate j of that group. By :meth:`mu`,
          P_j(A_j) <= Phi(Phi^-1(Q_g(A_j)) + mu). That is concave in Q_g(A_j). These sum to at most 1 in each group,
          and to at most K in all, so their mean is greatest where all are K / M. K is the number of groups to the
          power of the releases: these may be of pictures that fall into different groups. Of releases of one picture
          it is the number of groups, however many there are.
        * Fano's inequality, ``(bits + 1) / log2(M)``, with the bits of each release added up.

        Both hold whether the releases are of one picture or of several, if their noise is independent. They do not
        cover what is not in the covered area: surroundings, the region's place and size, the soft edge.

        Source: Dong, Roth, Su (2022) for the trade-off function; Cover, Thomas (2006), 2.10, for Fano's inequality.
        """
        _check_count("candidates", candidates)
        mu, bits = self.mu(releases=releases), self.bits() * releases
        if candidates == 1 or mu == math.inf:
            return 1.0
        normal = NormalDist()
        told = math.log(self.groups) * releases >= math.log(candidates)
        share = 1.0 if told else self.groups**releases / candidates
        by_mu = normal.cdf(normal.inv_cdf(share) + mu) if mu and share < 1 else share
        return min(1.0, by_mu, (bits + 1) / math.log2(candidates))


NOTHING = Leakage(numbers=0, snr=0.0)
NO_BOUND = Leakage(numbers=1, snr=math.inf)


def least(*leakages: Leakage) -> Leakage:
    """That of a chain of techniques, each of which sees no more than the result of the one before."""
    return min(leakages, key=lambda one: (one.mu(), one.bits()))
