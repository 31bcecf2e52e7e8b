"""Enrolment: photos of known people become the templates of a gallery.

Of photos that are refused, and of people who look alike, it is told how many and where in the stream, never who.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch

from anondata.errors import GalleryError
from anondata.protocols import Detector, Embedder
from anondata.verifiers.calibration import Calibration
from anondata.verifiers.gallery.doubts import Doubts, doubts
from anondata.verifiers.gallery.examination import SMALLEST_PX, Examined, Examiner, Several
from anondata.verifiers.gallery.gallery import Gallery
from anondata.verifiers.gallery.photos import Photo


class _Told(Protocol):
    @property
    def reason(self) -> str: ...


R = TypeVar("R", bound=_Told)


@dataclass(frozen=True)
class Refusal:
    """A photo that was not taken: its place in the stream, from 1, and a key of ``examination.REASONS``."""

    number: int
    reason: str


@dataclass(frozen=True)
class LookAlike:
    """A photo as near to somebody else's as two of one person are: perhaps one person under two names.

    number: of the photo. other: number of the other person's photo, None where that was in the gallery before.
    row: of the other one's template in the gallery.
    """

    number: int
    other: int | None
    row: int
    distance: float


@dataclass(frozen=True)
class Enrolled:
    """What became of a stream of photos.

    taken: how many became templates. people_left_out: how many people are named in it and not in the gallery, because
        none of their photos was taken.
    look_alikes: each two people once, nearest first. near: how many photos have a look-alike; by_chance: how many
        would where nobody is in the gallery twice.
    astray: numbers of photos that are near to no other one of their person: perhaps they show somebody else.
    doubted: whether look_alikes and astray were looked for; see :func:`anondata.verifiers.gallery.doubts.doubts`.
    """

    gallery: Gallery
    taken: int
    refusals: tuple[Refusal, ...] = ()
    people_left_out: int = 0
    look_alikes: tuple[LookAlike, ...] = ()
    near: int = 0
    by_chance: float = 0.0
    astray: tuple[int, ...] = ()
    doubted: bool = False


def enroll(
    photos: Iterable[Photo],
    *,
    into: Gallery,
    embedder: Embedder,
    detector: Detector | None = None,
    smallest_px: float = SMALLEST_PX,
    keep_portraits: bool = False,
    several: Several = "refuse",
    device: torch.device | str = "cpu",
    extend: bool = False,
    calibration: Calibration | None = None,
    show: Callable[[int, int], None] | None = None,
) -> Enrolled:
    """Adds the people of some photos to a gallery. There may be several photos of a person.

    Args:
        photos: the photos, each with the name of its person.
        into: the gallery to add to; :func:`anondata.verifiers.gallery.empty_gallery` makes a new one.
        embedder, detector, smallest_px, keep_portraits, several, device: as for :class:`Examiner`.
        extend: allow people that the gallery holds already.
        calibration: thresholds of your own, by which look-alikes are told.
        show: called with how many photos are done, and how many of them were refused.

    Returns:
        The gallery, and what became of the photos.

    Raises:
        GalleryError: there is no photo, the embedder is not the gallery's, or it holds one of the people already.
        WeightsError, MissingExtraError: a network cannot be loaded.
    """
    into.check_embedder(embedder.name, embedder.fingerprint)
    examiner = Examiner(embedder, detector, smallest_px, several, keep_portraits, device)
    known = frozenset() if extend else frozenset(into.identities)
    results = examiner.examine(only_new(photos, known))
    return collect(counted(results, show), into=into, extend=extend, calibration=calibration, device=device)


def only_new(photos: Iterable[Photo], known: frozenset[str], *, of: str = "person") -> Iterator[Photo]:
    """The same photos; GalleryError at the first of a known person or place, which is before the work is done."""
    for number, photo in enumerate(photos, 1):
        if photo.identity in known:
            raise GalleryError(
                f"the {of} of photo {number} is in the gallery already; remove them first, or extend them"
            )
        yield photo


def counted(results: Iterable[R], show: Callable[[int, int], None] | None) -> Iterator[R]:
    """The same results; ``show`` is told how many there were, and how many of them refused."""
    refused = 0
    for done, result in enumerate(results, 1):
        refused += bool(result.reason)
        if show:
            show(done, refused)
        yield result


def collect(
    results: Iterable[Examined],
    *,
    into: Gallery,
    extend: bool = False,
    calibration: Calibration | None = None,
    device: torch.device | str = "cpu",
) -> Enrolled:
    """A gallery with the templates of examined photos, and what is to be said of them.

    Raises:
        GalleryError: no photo at all, or what :meth:`anondata.verifiers.gallery.Gallery.add` raises.
    """
    taken, refused = list[Examined](), list[Examined]()
    for result in results:
        (refused if result.reason else taken).append(result)
    if not taken and not refused:
        raise GalleryError("the source holds no photo: nobody to enroll")
    gallery = gallery_of(taken, into=into, extend=extend) if taken else into
    done = Enrolled(
        gallery,
        len(taken),
        tuple(Refusal(r.number, r.reason) for r in refused),
        len({r.identity for r in refused if r.reason != "no_identity"} - set(gallery.identities)),
    )
    found = doubts(gallery, since=len(into), calibration=calibration, device=device) if taken else None
    return _with_doubts(done, found, [t.number for t in taken]) if found else done


def gallery_of(taken: Sequence[Examined], *, into: Gallery, extend: bool = False) -> Gallery:
    """A gallery with some photos that were taken, at least one; raises what ``Gallery.add`` raises."""
    return into.add(
        [t.identity for t in taken],
        np.stack([t.template for t in taken if t.template is not None]),
        labels={t.identity: t.label for t in reversed(taken) if t.label},
        portraits=[t.portrait for t in taken] if any(t.portrait for t in taken) else None,
        extend=extend,
    )


def _with_doubts(done: Enrolled, found: Doubts, numbers: Sequence[int]) -> Enrolled:
    """With the gallery's rows told as numbers of photos."""
    since = len(done.gallery) - len(numbers)
    alike = tuple(
        LookAlike(
            numbers[pair.row - since],
            numbers[pair.other - since] if pair.other >= since else None,
            pair.other,
            pair.distance,
        )
        for pair in found.look_alikes
    )
    astray = tuple(numbers[row - since] for row in found.astray)
    return replace(done, look_alikes=alike, near=found.near, by_chance=found.by_chance, astray=astray, doubted=True)
