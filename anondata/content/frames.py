"""Pictures in one file: animated GIF, PNG and WebP, and TIFF of several pages.

The engine's loop sees them as one tall view, a strip of film with the pictures below each other, and a region as a
place on it. Detectors are shown each picture by itself. What is the same region in one picture after another (by
overlap) looks the same in all of them: one changed crop is laid everywhere, so that there is one release of it and
not one a picture, whose noise an attacker averages out, and nothing flickers. Where detectors lose it for some
pictures, it is held.
"""

from __future__ import annotations

import io
from bisect import bisect
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from anondata.content import animated
from anondata.content._tracks import extended, labels
from anondata.content.animated import Film
from anondata.content.base import Content
from anondata.content.codec import Picture
from anondata.content.images import BLANK, MASK, ImageContent, ImageMedia, Patch, from_picture, laid
from anondata.content.insights import describe
from anondata.errors import FieldTypeError
from anondata.policy import NO_FACE, ContentPolicy
from anondata.protocols import Look
from anondata.regions import Box, Regions, cat_regions, empty_regions
from anondata.transforms.base import RegionTransform

GAP_PX = 64  # between pictures on the strip: what lies around a region at an edge is not the next picture

MOST_PARTS = 100_000  # where a file is only looked at: what it was written with is not known

EVERY_FRAME = "every_frame"
"""The note of a file all of whose pictures were looked at and written."""


class FramesPolicy(ContentPolicy):
    """What happens to files of several pictures.

    Args:
        max_frames: files of more pictures are withheld as ``too_large``; ``decode: {max_pixels: …}`` is the limit on
            the pixels of all of them together.
    """

    max_frames: int = Field(default=animated.MAX_FRAMES, ge=1)


@dataclass(frozen=True)
class Span:
    """Where a picture lies on the strip: its first row, and its sides."""

    top: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        return slice(self.top, self.top + self.height)


@dataclass(frozen=True)
class FramesMedia:
    """Several pictures on one strip.

    pixels: ``(3, H, W)`` uint8. alpha: ``(H, W)`` uint8, or None. film: what else the file said, without pixels.
    """

    pixels: Tensor
    alpha: Tensor | None
    spans: tuple[Span, ...]
    film: Film

    def frame(self, number: int) -> ImageMedia:
        """One picture; a view of the strip."""
        span = self.spans[number]
        alpha = None if self.alpha is None else self.alpha[span.rows, : span.width]
        still = from_picture(self.film.pictures[number], "bytes")
        return replace(still, pixels=self.pixels[:, span.rows, : span.width], alpha=alpha)

    def numbers(self, regions: Regions) -> list[int]:
        """The picture that each region is in: the one that its centre is nearest to."""
        ends = [span.top + span.height + GAP_PX / 2 for span in self.spans[:-1]]
        return [bisect(ends, y) for y in ((regions.boxes[:, 1] + regions.boxes[:, 3]) / 2).tolist()]


@dataclass(frozen=True)
class FramePatch:
    """A patch of one of the pictures."""

    number: int
    patch: Patch


@dataclass(frozen=True)
class FramesContent(Content[FramesMedia]):
    """The content type ``frames``: encoded bytes of an animated GIF, PNG or WebP, or of a TIFF of several pages.

    All pictures come back, with their durations, in the format that they came in. ``still`` is what each is taken as.
    """

    rules: ClassVar[type[ContentPolicy]] = FramesPolicy
    about: ClassVar[str] = (
        "every picture of an animated GIF, PNG or WebP and of a TIFF of several pages is changed and checked, and "
        "what stays through pictures looks the same in all of them"
    )
    also_in: ClassVar[tuple[str, ...]] = ("image",)

    still: ImageContent = field(default_factory=ImageContent)
    max_frames: int = animated.MAX_FRAMES
    blank: RegionTransform = BLANK
    mask: RegionTransform = MASK

    @classmethod
    def made(cls, policy: ContentPolicy) -> FramesContent:
        most = policy.max_frames if isinstance(policy, FramesPolicy) else animated.MAX_FRAMES
        return cls(ImageContent.made(policy), most)

    @classmethod
    def parts(cls, value: Any) -> list[tuple[str, Tensor]]:
        if not isinstance(value, bytes | bytearray | memoryview) or not animated.several(bytes(value)):
            return []
        pictures = animated.decode(bytes(value), max_frames=MOST_PARTS).pictures
        return [(f"[{number}]", _planes(picture)) for number, picture in enumerate(pictures)]

    @classmethod
    def rewritten(cls, data: bytes) -> bytes | None:
        return animated.encode(animated.decode(data, max_frames=MOST_PARTS)) if animated.several(data) else None

    @classmethod
    def opened(cls, data: bytes) -> Image.Image | None:
        return Image.open(io.BytesIO(data), formats=animated.FORMATS) if animated.several(data) else None

    def takes(self, value: Any) -> bool:
        """Not where all pictures are to be written as JPEG, which holds one."""
        known = isinstance(value, bytes | bytearray | memoryview) and self.still.written != "JPEG"
        return known and animated.several(bytes(value))

    def decode(self, value: Any, device: torch.device) -> FramesMedia:
        if not (isinstance(value, bytes | bytearray | memoryview) and animated.several(bytes(value))):
            raise FieldTypeError(
                f"a field of frames holds {type(value).__name__} that is no animated GIF, PNG or WebP and no TIFF of "
                "several pages; declare it 'image', which takes both where the policy has rules for frames"
            )
        film = animated.decode(bytes(value), max_pixels=self.still.max_pixels, max_frames=self.max_frames)
        return _strip(animated.in_format(film, self.still.written), device)

    def view(self, media: FramesMedia) -> Tensor:
        """``(3, H, W)`` uint8, all pictures below each other."""
        return media.pixels

    def held_bytes(self, media: FramesMedia) -> int:
        return media.pixels.numel() + (0 if media.alpha is None else media.alpha.numel())

    def frame(self, media: FramesMedia) -> tuple[int, int]:
        return media.spans[0].height, media.spans[0].width

    def given(self, media: FramesMedia, regions: Regions) -> Regions:
        """In every picture. That something is no face in all of them, nobody knows who marked one place."""
        faces = regions.select([row for row, kind in enumerate(regions.kinds) if kind != NO_FACE])
        return cat_regions([faces.shifted(0, span.top) for span in media.spans], regions.boxes.device)

    def places(self, media: FramesMedia, regions: Regions) -> list[tuple[str, Box]]:
        out = list[tuple[str, Box]]()
        for number, (x0, y0, x1, y1) in zip(media.numbers(regions), regions.boxes.tolist(), strict=True):
            top = media.spans[number].top
            out.append((f"[{number}]", (x0, y0 - top, x1, y1 - top)))
        return out

    def followed(self, media: FramesMedia, regions: Regions) -> list[int]:
        return labels(self._inside(media, regions))

    def held(self, media: FramesMedia, regions: Regions) -> Regions:
        pictures = [media.frame(number).pixels for number in range(len(media.spans))]
        more = extended(self._inside(media, regions), pictures, pages=media.film.form == "TIFF")
        return self._on_strip(media, more)

    def upright(self, media: FramesMedia) -> list[Look]:
        parts = [(span.top, self.still.upright(media.frame(k))) for k, span in enumerate(media.spans)]
        return [replace(look, corner=(0, top)) for top, looks in parts for look in looks]

    def hidden(self, media: FramesMedia) -> list[Tensor]:
        return [view for number in range(len(media.spans)) for view in self.still.hidden(media.frame(number))]

    def looks(self, media: FramesMedia, names: Collection[str]) -> Iterator[Look]:
        for number, span in enumerate(media.spans):
            for look in self.still.looks(media.frame(number), names):
                yield replace(look, corner=(0, span.top))

    def notes(self, media: FramesMedia) -> tuple[str, ...]:
        return tuple(dict.fromkeys([EVERY_FRAME, *(note for p in media.film.pictures for note in p.notes)]))

    def insights(self, media: FramesMedia, shown: FramesMedia, regions: Regions) -> str:
        """Of the picture in which most was found."""
        found = self._inside(media, regions)
        counts = torch.bincount(found.image, minlength=len(media.spans))
        fullest = int(counts.argmax())
        return describe(media.frame(fullest).pixels, shown.frame(fullest).pixels, found.of_image(fullest))

    def change(
        self, media: Sequence[FramesMedia], regions: Regions, technique: RegionTransform, seeds: Sequence[int]
    ) -> list[FramePatch]:
        """Regions of one media with one seed get one crop, made of the largest of them.

        Not if a technique fits it to what lies around, or to how a face is turned.
        """
        frames, local, numbers = self._apart(media, regions)
        makers = list(range(len(regions)))
        if not (technique.aligns or technique.looks_around or technique.moves):
            makers = _largest(regions, seeds)
        rows = sorted(set(makers))
        made = self.still.change(frames, local.select(rows), technique, [seeds[row] for row in rows])
        crops = {row: patch.crop for row, patch in zip(rows, made, strict=True)}
        patches = dict(zip(rows, made, strict=True))
        others = [row for row in range(len(regions)) if row not in patches]
        patches |= zip(
            others,
            laid(frames, local.select(others), technique, [crops[makers[row]] for row in others], exact=self.mask),
            strict=True,
        )
        return [FramePatch(number, patches[row]) for row, number in enumerate(numbers)]

    def compose(self, media: FramesMedia, patches: Sequence[FramePatch]) -> FramesMedia:
        if not patches:
            return media
        pixels = media.pixels.clone()
        alpha = None if media.alpha is None else media.alpha.clone()
        for number, own in _by_number(patches).items():
            span, shown = media.spans[number], self.still.compose(media.frame(number), [p.patch for p in own])
            pixels[:, span.rows, : span.width] = shown.pixels
            if alpha is not None and shown.alpha is not None:
                alpha[span.rows, : span.width] = shown.alpha
        return replace(media, pixels=pixels, alpha=alpha)

    def render(self, media: FramesMedia) -> tuple[bytes, FramesMedia]:
        pictures = tuple(
            replace(picture, pixels=frame.pixels.cpu(), alpha=None if frame.alpha is None else frame.alpha.cpu())
            for picture, frame in ((p, media.frame(k)) for k, p in enumerate(media.film.pictures))
        )
        data = animated.encode(replace(media.film, pictures=pictures), quality=self.still.quality)
        film = animated.decode(data, max_pixels=self.still.max_pixels, max_frames=len(pictures))
        again = _strip(film, media.pixels.device)
        if again.spans != media.spans:
            raise ValueError(
                "the pictures that were written are not as many, or not as large, as those that were read"
            )
        return data, again

    def covered(self, patches: Sequence[tuple[FramePatch, bool]], media: FramesMedia, regions: Regions) -> Tensor:
        found = self._inside(media, regions)
        out = torch.ones(len(regions), device=regions.boxes.device)
        for number in sorted(set(found.image.tolist())):
            own = [(patch.patch, hides) for patch, hides in patches if patch.number == number]
            mine = found.image == number
            out[mine] = self.still.covered(own, media.frame(number), found.select(mine)).to(out)
        return out

    def _inside(self, media: FramesMedia, regions: Regions) -> Regions:
        """Regions of one media, in pixels of the pictures, and with their numbers."""
        numbers = media.numbers(regions)
        tops = regions.boxes.new_tensor([float(media.spans[number].top) for number in numbers])
        return replace(
            regions,
            image=torch.tensor(numbers, dtype=torch.int64, device=regions.boxes.device),
            boxes=regions.boxes - tops[:, None] * regions.boxes.new_tensor([0, 1, 0, 1]),
            landmarks=regions.landmarks - tops[:, None, None] * regions.landmarks.new_tensor([0, 1]),
        )

    def _on_strip(self, media: FramesMedia, regions: Regions) -> Regions:
        """The way back, all of them of media 0."""
        parts = [one.shifted(0, media.spans[int(one.image)].top).renumbered(0) for one in regions]
        return cat_regions(parts, regions.boxes.device) if parts else empty_regions(regions.boxes.device)

    def _apart(self, media: Sequence[FramesMedia], regions: Regions) -> tuple[list[ImageMedia], Regions, list[int]]:
        """The pictures in which regions lie, the regions in them, and the number of each in its file."""
        known: dict[tuple[int, int], int] = {}
        frames, parts, numbers = list[ImageMedia](), list[Regions](), list[int]()
        for one in regions:
            own = self._inside(media[int(one.image)], one)
            place = (int(one.image), int(own.image))
            if place not in known:
                known[place] = len(frames)
                frames.append(media[place[0]].frame(place[1]))
            parts.append(own.renumbered(known[place]))
            numbers.append(place[1])
        return frames, cat_regions(parts, regions.boxes.device), numbers


def _planes(picture: Picture) -> Tensor:
    return picture.pixels if picture.alpha is None else torch.cat([picture.pixels, picture.alpha[None]])


def _strip(film: Film, device: torch.device) -> FramesMedia:
    spans, top = list[Span](), 0
    for picture in film.pictures:
        height, width = picture.pixels.shape[-2:]
        spans.append(Span(top, height, width))
        top += height + GAP_PX
    shape = (top - GAP_PX, max(span.width for span in spans))
    pixels = torch.zeros(3, *shape, dtype=torch.uint8)
    alpha = None
    if any(picture.alpha is not None for picture in film.pictures):
        alpha = torch.full(shape, 255, dtype=torch.uint8)
    for span, picture in zip(spans, film.pictures, strict=True):
        pixels[:, span.rows, : span.width] = picture.pixels
        if alpha is not None and picture.alpha is not None:
            alpha[span.rows, : span.width] = picture.alpha
    bare = tuple(replace(p, pixels=p.pixels[:, :0, :0], alpha=None) for p in film.pictures)
    told = replace(film, pictures=bare)
    return FramesMedia(pixels.to(device), None if alpha is None else alpha.to(device), tuple(spans), told)


def _largest(regions: Regions, seeds: Sequence[int]) -> list[int]:
    """For each region the row of the largest with its seed, in its media, of its kind."""
    areas = regions.sizes.prod(dim=1).tolist()
    groups: Mapping[tuple[int, int, str], list[int]] = defaultdict(list)
    keys = list(zip(regions.image.tolist(), seeds, regions.kinds, strict=True))
    for row, key in enumerate(keys):
        groups[key].append(row)
    best = {key: max(rows, key=lambda row: (areas[row], -row)) for key, rows in groups.items()}
    return [best[key] for key in keys]


def _by_number(patches: Sequence[FramePatch]) -> dict[int, list[FramePatch]]:
    out: dict[int, list[FramePatch]] = {}
    for patch in patches:
        out.setdefault(patch.number, []).append(patch)
    return out
