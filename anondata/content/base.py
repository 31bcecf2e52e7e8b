"""What content types share: the answers of a type whose every value is one picture, or whatever has no parts.

A content type is a class that is derived from :class:`Content` and has a row in :data:`anondata.components.TABLES`.
:class:`anondata.protocols.ContentType` says what the engine asks of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from PIL import Image
from torch import Tensor

from anondata.components import TABLES, content_type
from anondata.policy import ContentPolicy
from anondata.protocols import Look
from anondata.regions import Box, Regions, empty_regions

Media = TypeVar("Media")


class Content(Generic[Media]):
    """A content type. What is here holds for values without parts; the rest of the protocol is the type's own."""

    rules: ClassVar[type[ContentPolicy]] = ContentPolicy
    """What its part of a policy holds."""

    about: ClassVar[str] = ""
    """What is done to its values beside its rules, in a clause for people."""

    also_in: ClassVar[tuple[str, ...]] = ()
    """Content types whose fields may hold values of this one, too."""

    @classmethod
    def made(cls, policy: ContentPolicy) -> Self:
        """The content type as a policy's part wants it."""
        raise NotImplementedError

    @classmethod
    def parts(cls, value: Any) -> Sequence[tuple[str, Any]]:
        """The pictures that a value is made of, as tensors, by the place that records tell; none for one without.

        Raises:
            UndecodableError: it has parts, and they cannot be read.
        """
        return ()

    @classmethod
    def rewritten(cls, data: bytes) -> bytes | None:
        """What this type writes of the pixels of a file, without loss; None where it is not its own."""
        return None

    @classmethod
    def opened(cls, data: bytes) -> Image.Image | None:
        """A PIL image of a file of its own with all its parts; None for what a still picture can show."""
        return None

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


def parts_of(value: Any) -> Sequence[tuple[str, Any]]:
    """The parts of a value by the first content type that knows it; see :meth:`Content.parts`."""
    for name in TABLES["content"]:
        if parts := content_type(name).parts(value):
            found: Sequence[tuple[str, Any]] = parts
            return found
    return ()


def opened(data: bytes) -> Image.Image | None:
    """A PIL image of a file that has several parts, by the first content type that knows it; None for any other."""
    images = (content_type(name).opened(data) for name in TABLES["content"])
    found: Image.Image | None = next((image for image in images if image is not None), None)
    return found


def rewritten(data: bytes) -> bytes | None:
    """A file as it would be written of its pixels alone, by the first content type that knows it."""
    for name in TABLES["content"]:
        written: bytes | None = content_type(name).rewritten(data)
        if written is not None:
            return written
    return None
