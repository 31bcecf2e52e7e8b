"""The seams: what the engine asks of a detector, a verifier and a content type.

Rooms beside the core implement these and are handed in; the core imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from anondata.regions import Box, Regions
from anondata.transforms.base import RegionTransform

__all__ = [
    "ContentType",
    "Cover",
    "Detector",
    "Embedder",
    "Judge",
    "NeedsGalleries",
    "Probe",
    "Pseudonyms",
    "Verdicts",
    "Verifier",
]

Media = TypeVar("Media")


UPRIGHT = "upright"
"""The look that detectors get if they ask for no others: a media's view, and what is hidden in it."""


INSIDE = 0.25  # of a region, without which it is the mirror image of one


@dataclass(frozen=True)
class Look:
    """What detectors are shown of one media, and the way back to its view.

    Args:
        view: a picture as a detector takes it.
        name: the kind of look.
        back: ``(2, 3)``; maps x, y, 1 of a place in the look to the place in the frame. None if they are the same.
        frame: height and width of the part of the view that is looked at, if the look shows more than it.
        corner: x, y of that part's corner in the view.
    """

    view: Tensor
    name: str = UPRIGHT
    back: Tensor | None = None
    frame: tuple[int, int] | None = None
    corner: tuple[int, int] = (0, 0)

    def mapped(self, found: Regions) -> Regions:
        """All that was found in the look, in pixels of the view."""
        return self._moved(found if self.back is None else found.mapped(self.back))

    def on_view(self, found: Regions) -> Regions:
        """What was found in the look, in pixels of the view, without what lies beyond the edge of its part."""
        inside = found if self.back is None else found.mapped(self.back)
        if self.frame is not None:
            inside = inside.select(inside.shares_inside(*self.frame) >= INSIDE)
        return self._moved(inside)

    def _moved(self, inside: Regions) -> Regions:
        return inside if self.corner == (0, 0) else inside.shifted(*self.corner)


class Detector(Protocol):
    """Finds regions in a batch of pictures (or of whatever its content type shows it).

    It needs only :meth:`detect`. It may also have:

    * ``kinds``, a tuple of the kinds of region that it finds. A policy without a ladder for one of them is then
      refused when it is read, and not only when such a region is found.
    * ``looks``, the kinds of looks that it wants (for images see :mod:`anondata.content.looks`). By default it gets
      only :data:`UPRIGHT` ones. It returns regions in pixels of what it was shown.
    * ``networks``, the registered weights that it computes with, for dataset cards. By default cards name the class.
    * parameters: keywords of its constructor that are plain data (numbers, texts, lists). A policy's fingerprint
      holds the fields of a dataclass, or what ``config()`` returns, or else what the policy says and the defaults.

    It must find the same regions whatever else is in the batch. Several threads may call it at once.
    """

    def detect(self, views: Sequence[Tensor]) -> Regions:
        """Finds regions in all views.

        Args:
            views: for images each is ``(3, H, W)`` uint8; sizes may differ, any device. There may be more views than
                pictures in the batch.

        Returns:
            The regions of all views. ``image`` of a region is the index of its view.
        """
        ...


@runtime_checkable
class Judge(Protocol):
    """A detector whose :meth:`detect` has two steps: it proposes regions, and then drops those that it doubts.

    The second step is left out for what was found in another look already. ``detect(views)`` must be what
    ``confirm(views, propose(views))`` is, and each region must be confirmed whatever others there are.
    """

    def propose(self, views: Sequence[Tensor]) -> Regions: ...

    def confirm(self, views: Sequence[Tensor], proposed: Regions) -> Regions: ...


class Embedder(Protocol):
    """Turns regions into templates that can be compared."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digits that change when templates do, because of other weights or another alignment."""
        ...

    def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
        """``(R, D)`` float32, a row for each region; NaN rows where no template can be made."""
        ...


@dataclass(frozen=True)
class Probe:
    """What a verifier may look at: ``R`` regions, before and after.

    Args:
        regions: where they are.
        before, after: templates ``(R, D)`` by embedder name. Each embedder runs once, however many verifiers ask.
        techniques: what was done to each region.
        erased: ``(R,)`` bool, whether that technique leaves nothing of a region.
        last: ``(R,)`` bool, whether the ladder has nothing stronger.
        blank: gives templates ``(N, D)`` of an embedder for ``N`` of the regions as if nothing of them were left. It
            costs a pass of the network, so ask only for the regions that need it.
        original, result: the whole samples, ``(3, H, W)`` uint8 for images, by the regions' ``image``.
    """

    regions: Regions
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]
    techniques: tuple[RegionTransform, ...]
    erased: Tensor
    last: Tensor
    blank: Callable[[str, Tensor], Tensor]
    original: Sequence[Tensor] = ()
    result: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Verdicts:
    """One verifier's verdicts on ``R`` regions. A score of NaN never passes.

    Args:
        verifier: its name.
        before, after, threshold: ``(R,)`` scores of the originals and the results, and the bounds.
        passed: ``(R,)`` bool.
        parts: the verdicts that this one is composed of, each on the same regions.
    """

    verifier: str
    before: Tensor
    after: Tensor
    threshold: Tensor
    passed: Tensor
    parts: tuple[Verdicts, ...] = ()


class Verifier(Protocol):
    """Judges whether regions can still be recognised.

    It may have ``kinds`` (those that it is made for) and parameters, as a :class:`Detector` may. A verifier that
    looks at galleries is a :class:`NeedsGalleries`, too.
    """

    @property
    def name(self) -> str: ...

    @property
    def embedders(self) -> Sequence[Embedder]:
        """The embedders whose templates :meth:`judge` needs."""
        ...

    def judge(self, probe: Probe) -> Verdicts: ...


Area = Literal["face", "head"]


class Cover(Protocol):
    """Says which regions may stay as they are. It may have parameters, as a :class:`Detector` may.

    It may also have ``area``, which says how much of a face is covered: the ``"face"`` alone, or the
    whole ``"head"``.
    """

    @property
    def embedders(self) -> Sequence[Embedder]:
        """The embedders whose templates :meth:`spares` needs."""
        ...

    def spares(self, regions: Regions, templates: Mapping[str, Tensor]) -> Tensor:
        """Says which regions stay as they are. In doubt a region is changed.

        Args:
            regions: all regions that were found.
            templates: ``(R, D)`` of the originals, by embedder name.

        Returns:
            ``(R,)`` bool.
        """
        ...


class Pseudonyms(Protocol):
    """Says who is who, for techniques that give one person the same new look in every sample."""

    @property
    def embedders(self) -> Sequence[Embedder]:
        """Whose templates :meth:`people` needs."""
        ...

    def people(self, regions: Regions, templates: Mapping[str, Tensor]) -> Sequence[str]:
        """A name for each region that is the same wherever the same person is; empty for strangers and in doubt.

        Names never leave the engine. templates: ``(R, D)`` of the originals, by embedder name.
        """
        ...


@runtime_checkable
class NeedsGalleries(Protocol):
    """A component that names galleries. The galleries are handed in, because a policy holds no paths."""

    @property
    def galleries(self) -> Sequence[str]:
        """The names of the galleries that it needs."""
        ...

    def bound(self, galleries: Mapping[str, Any]) -> Any:
        """The component with its galleries.

        Raises:
            GalleryError: a gallery does not fit.
        """
        ...


class ContentType(Protocol[Media]):
    """A modality: all that the engine's loop must know of pixels, samples per second or tokens.

    ``Media`` is the content type's own decoded form. Nothing here may change its arguments. Classes derive from
    :class:`anondata.content.base.Content`, which answers what a type without parts need not think of.
    """

    @property
    def also_in(self) -> Sequence[str]:
        """Content types whose fields may hold values of this one, too; :meth:`takes` says which."""
        ...

    @property
    def blank(self) -> RegionTransform:
        """The technique that leaves nothing of a region: the last resort, and what verifiers compare with."""
        ...

    @property
    def mask(self) -> RegionTransform:
        """The technique that hides a region as far as its box, and nothing beside it."""
        ...

    def takes(self, value: Any) -> bool:
        """Whether a value in a field of another type (see :attr:`also_in`) is one of this type."""
        ...

    def decode(self, value: Any, device: torch.device) -> Media:
        """The decoded form of a field's value; :class:`UndecodableError` or :class:`FieldTypeError` otherwise."""
        ...

    def view(self, media: Media) -> Tensor:
        """What embedders and verifiers look at; regions are in its pixels. Parts lie beside each other in it."""
        ...

    def frame(self, media: Media) -> tuple[int, int]:
        """Height and width of what regions that come with a value are told in."""
        ...

    def given(self, media: Media, regions: Regions) -> Regions:
        """Where regions that came with a value lie in its view; those that are no face, too."""
        ...

    def places(self, media: Media, regions: Regions) -> Sequence[tuple[str, Box]]:
        """For the record of each region of one media: the part it is in (``"[3]"``, or nothing), its box in that."""
        ...

    def followed(self, media: Media, regions: Regions) -> Sequence[int]:
        """``R`` numbers, the same for regions of one media that are one and the same that stays."""
        ...

    def held(self, media: Media, regions: Regions) -> Regions:
        """Where some of these regions must be, too, though no detector saw them there."""
        ...

    def held_bytes(self, media: Media) -> int:
        """How much memory the media takes: by it the engine takes only so many samples of a batch at once."""
        ...

    def hidden(self, media: Media) -> Sequence[Tensor]:
        """What else of the media could show somebody; detectors look at it, in the view's coordinates."""
        ...

    def upright(self, media: Media) -> Sequence[Look]:
        """What detectors look at first: the view, or each of its parts, and what is hidden in it."""
        ...

    def looks(self, media: Media, names: Collection[str]) -> Iterable[Look]:
        """The media as detectors find more in it, turned for example: the kinds of looks of these names."""
        ...

    def notes(self, media: Media) -> tuple[str, ...]:
        """Words on the decoding for the report."""
        ...

    def insights(self, media: Media, shown: Media, regions: Regions) -> str:
        """What was in the original and its result, in words of closed vocabularies that identify nobody."""
        ...

    def change(
        self, media: Sequence[Media], regions: Regions, technique: RegionTransform, seeds: Sequence[int]
    ) -> list[Any]:
        """A patch for each region: the *original* region, changed by one technique, in batched kernels."""
        ...

    def compose(self, media: Media, patches: Sequence[Any]) -> Media:
        """A copy with the patches laid on, the last on top."""
        ...

    def render(self, media: Media) -> tuple[Any, Media]:
        """The value that a consumer will get, and that value decoded again: what verifiers must look at."""
        ...

    def covered(self, patches: Sequence[tuple[Any, bool]], media: Media, regions: Regions) -> Tensor:
        """``(R,)`` share in [0, 1] of each region of one media of which nothing is left.

        patches: in the order in which they were laid on, each with whether it hides what is looked for. One that
        does not may show it again where another had hidden it.
        """
        ...


def __dir__() -> list[str]:
    return sorted(__all__)
