"""What content types share: the answers of a type whose every value is one picture, or whatever has no parts.

A content type is a class that is derived from :class:`Content` and has a row in :data:`anondata.components.TABLES`.
:class:`anondata.protocols.ContentType` says what the engine asks of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor

from anondata.policy import ContentPolicy
from anondata.protocols import Look
from anondata.regions import Box, Regions, empty_regions

Media = TypeVar("Media")


class Content(Generic[Media]):
    """A content type. What is here holds for values without parts; the rest of the protocol is the type's own."""

    rules: ClassVar[type[ContentPolicy]] = ContentPolicy
    """What its part of a policy holds."""

    also_in: ClassVar[tuple[str, ...]] = ()
    """Content types whose fields may hold values of this one, too."""

    @classmethod
    def made(cls, policy: ContentPolicy) -> Self:
        """The content type as a policy's part wants it."""
        raise NotImplementedError

    def takes(self, value: Any) -> bool:
        """Whether a value is one of its own, of a field that was declared as a type of :attr:`also_in`."""
        return False

    def view(self, media: Media) -> Tensor:
        raise NotImplementedError

    def upright(self, media: Media) -> Sequence[Look]:
        return [Look(self.view(media))]

    def hidden(self, media: Media) -> Sequence[Tensor]:
        return ()

    def frame(self, media: Media) -> tuple[int, int]:
        height, width = self.view(media).shape[-2:]
        return height, width

    def given(self, media: Media, regions: Regions) -> Regions:
        return regions

    def places(self, media: Media, regions: Regions) -> list[tuple[str, Box]]:
        rows: list[list[float]] = regions.boxes.tolist()
        return [("", (x0, y0, x1, y1)) for x0, y0, x1, y1 in rows]

    def followed(self, media: Media, regions: Regions) -> Sequence[int]:
        return range(len(regions))

    def held(self, media: Media, regions: Regions) -> Regions:
        return empty_regions(regions.boxes.device)

    def notes(self, media: Media) -> tuple[str, ...]:
        return ()

    def decode(self, value: Any, device: torch.device) -> Media:
        raise NotImplementedError
