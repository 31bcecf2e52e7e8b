"""Still images: how the engine's loop decodes, changes, composes and renders them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from anondata.content import codec, looks
from anondata.content.base import Content
from anondata.content.codec import Picture
from anondata.content.insights import describe
from anondata.crops import cut, mark, outer_rects, paste, unmark
from anondata.errors import FieldTypeError
from anondata.policy import ContentPolicy
from anondata.protocols import Look
from anondata.regions import Regions
from anondata.transforms.base import RegionTransform
from anondata.transforms.fill import Fill
from anondata.transforms.mask import around

SAMPLED_PX = 10_000  # pixels that tell a picture's range
AT_ONCE = 128  # regions changed in one batch: no row depends on the others, and memory stays small
FLAT_LEVELS = 64  # of 256; the detector still found faces in 16 levels, and in 8 none

# The last resort covers more than any rung of the default ladders, so that what hung over a rung's edge goes, too.
BLANK = Fill(coverage=1.7, feather=0.0)
MASK = Fill(coverage=1.0, shape="ellipse", feather=0.0)


@dataclass(frozen=True)
class ImageMedia:
    """One decoded image.

    pixels: ``(3, H, W)`` uint8, or float in [0, 1] where the value was a float tensor or array.
    alpha: ``(H, W)`` uint8, or None. form: what the value was, and so what is given back.
    """

    pixels: Tensor
    alpha: Tensor | None
    form: _Form


@dataclass(frozen=True)
class _Form:
    """What a value was, so that the consumer gets the same kind of thing back."""

    kind: str  # bytes, pil, array or tensor
    channels: int = 3
    has_channel_axis: bool = True
    picture: Picture | None = None
    device: str = "cpu"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Patch:
    """A changed region: where it goes, ``(C, S, S)`` pixels in [0, 1], and ``(h, w)`` how far they replace."""

    rect: tuple[int, int, int, int]
    crop: Tensor
    weight: Tensor


@dataclass(frozen=True)
class ImageContent(Content[ImageMedia]):
    """The content type ``image``: encoded bytes, PIL images, numpy arrays or torch tensors, the same kind back.

    Arrays are ``(H, W)`` or ``(H, W, C)``, tensors ``(C, H, W)``, of 1, 3 or 4 channels (the fourth is alpha), uint8
    or float in [0, 1]. Bytes are any of the codec's formats. Floats come back in steps of 1/255, which is what was
    looked at.

    quality: JPEG and WebP quality of rendered bytes, 1 to 100. max_pixels: larger images are withheld.
    written: the format of rendered bytes, a key of the codec's ``SUFFIXES``; empty for that which each came in.
    """

    rules: ClassVar[type[ContentPolicy]] = ContentPolicy

    quality: int = 95
    max_pixels: int = codec.MAX_PIXELS
    written: str = ""
    blank: RegionTransform = BLANK
    mask: RegionTransform = MASK

    @classmethod
    def made(cls, policy: ContentPolicy) -> ImageContent:
        return cls(
            quality=policy.encode.quality,
            max_pixels=policy.decode.max_pixels,
            written="" if policy.encode.format == "same" else policy.encode.format.upper(),
        )

    @classmethod
    def rewritten(cls, data: bytes) -> bytes | None:
        return codec.encode(codec.decode(data))

    def decode(self, value: Any, device: torch.device) -> ImageMedia:
        if isinstance(value, bytes | bytearray | memoryview):
            picture = codec.decode(bytes(value), max_pixels=self.max_pixels)
            return from_picture(codec.in_format(picture, self.written), "bytes", device)
        if isinstance(value, Image.Image):
            return from_picture(codec.from_pil(value, max_pixels=self.max_pixels), "pil", device)
        if isinstance(value, np.ndarray):
            return _from_array(value, device)
        if isinstance(value, Tensor):
            return _from_tensor(value, device)
        raise FieldTypeError(
            f"an image field holds {type(value).__name__}; expected encoded bytes, a PIL image, an array or a tensor"
        )

    def view(self, media: ImageMedia) -> Tensor:
        """``(3, H, W)`` uint8."""
        pixels = media.pixels
        return pixels if pixels.dtype == torch.uint8 else (pixels.float() * 255).round().to(torch.uint8)

    def held_bytes(self, media: ImageMedia) -> int:
        return sum(part.numel() * part.element_size() for part in (media.pixels, media.alpha) if part is not None)

    def hidden(self, media: ImageMedia) -> Sequence[Tensor]:
        """What the view does not show: a face drawn in transparency alone, or in a few grey levels.

        The alpha channel as a grey picture, unless it is one value; and the picture stretched to the full range,
        where nearly all of it lies within :data:`FLAT_LEVELS` levels.
        """
        stretched = _stretched(media.pixels)
        return _in_alpha(media) if stretched is None else [*_in_alpha(media), stretched]

    def upright(self, media: ImageMedia) -> list[Look]:
        return [Look(view) for view in (self.view(media), *self.hidden(media))]

    def looks(self, media: ImageMedia, names: Collection[str]) -> Iterator[Look]:
        """Of the picture, and of its alpha channel as of one."""
        for view in (self.view(media), *_in_alpha(media)):
            for name, look in looks.LOOKS.items():
                if name in names:
                    yield from look(view)

    def notes(self, media: ImageMedia) -> tuple[str, ...]:
        return media.form.notes

    def insights(self, media: ImageMedia, shown: ImageMedia, regions: Regions) -> str:
        return describe(self.view(media), self.view(shown), regions)

    def change(
        self, media: Sequence[ImageMedia], regions: Regions, technique: RegionTransform, seeds: Sequence[int]
    ) -> list[Patch]:
        if len(regions) > AT_ONCE:
            rows = range(len(regions))
            parts = [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
            return [
                patch
                for part in parts
                for patch in self.change(media, regions.select(part), technique, seeds[part.start : part.stop])
            ]
        if not len(regions):
            return []
        regions, rects, frames = _rects(media, regions, technique, exact=self.mask)
        order, crops = [], []
        for image in sorted(set(regions.image.tolist())):
            rows = (regions.image == image).nonzero().flatten()
            order += rows.tolist()
            crops.append(cut(media[image].pixels, rects[rows], technique.crop_px).float())
        batch = torch.cat(crops)
        common: dict[str, Any] = {"extent": technique.extent, "seeds": [seeds[i] for i in order]}
        if technique.looks_around:
            known = _around(regions, rects, frames, technique)[order]
            changed = technique.change_around(batch, known=known.to(batch.device), **common)
        elif technique.aligns:
            marks = _in_crops(regions, rects)[order]
            changed = technique.change_aligned(batch, landmarks=marks.to(batch.device), **common)
        else:
            changed = technique.change(batch, **common)
        where = {row: place for place, row in enumerate(order)}
        return [
            _patch(changed[where[row]], box, rect, technique)
            for row, (box, rect) in enumerate(zip(regions.boxes.tolist(), rects.tolist(), strict=True))
        ]

    def compose(self, media: ImageMedia, patches: Sequence[Patch]) -> ImageMedia:
        if not patches:
            return media
        pixels = media.pixels.clone()
        alpha = None if media.alpha is None else media.alpha.clone()
        for patch in patches:
            paste(pixels, list(patch.rect), patch.crop, patch.weight)
            if alpha is not None:  # an outline in the alpha channel can tell as much as one in colour
                paste(alpha[None], list(patch.rect), torch.ones_like(patch.crop[:1]), patch.weight)
        if pixels.is_floating_point():  # blending rounds, to a little more than 1 where both are 1
            pixels.clamp_(0, 1)
        return replace(media, pixels=pixels, alpha=alpha)

    def render(self, media: ImageMedia) -> tuple[Any, ImageMedia]:
        form, device = media.form, media.pixels.device
        if form.picture is not None:
            pixels = media.pixels.cpu()
            alpha = None if media.alpha is None else media.alpha.cpu()
            picture = replace(form.picture, pixels=pixels, alpha=alpha)
            if form.kind == "pil":
                image = codec.to_pil(picture)
                return image, from_picture(codec.from_pil(image, max_pixels=self.max_pixels), "pil", device)
            data = codec.encode(picture, quality=self.quality)
            return data, from_picture(codec.decode(data, max_pixels=self.max_pixels), "bytes", device)
        value = _to_value(media)
        again = _from_array(value, device) if form.kind == "array" else _from_tensor(value, device)
        return value, again

    def covered(self, patches: Sequence[tuple[Patch, bool]], media: ImageMedia, regions: Regions) -> Tensor:
        mask = torch.zeros(media.pixels.shape[-2:], dtype=torch.bool)
        for patch, hides in patches:
            if hides:
                mark(mask, list(patch.rect), patch.weight)
            else:
                unmark(mask, list(patch.rect), patch.weight)
        return torch.tensor([_share(mask, box) for box in regions.boxes.tolist()], device=regions.boxes.device)


def laid(
    media: Sequence[ImageMedia],
    regions: Regions,
    technique: RegionTransform,
    crops: Sequence[Tensor],
    *,
    exact: RegionTransform = MASK,
) -> list[Patch]:
    """Patches of crops that were changed already, each of another region. exact: see :func:`_rects`."""
    if not len(regions):
        return []
    regions, rects, _ = _rects(media, regions, technique, exact=exact)
    places = zip(crops, regions.boxes.tolist(), rects.tolist(), strict=True)
    return [_patch(crop, box, rect, technique) for crop, box, rect in places]


def _rects(
    media: Sequence[ImageMedia], regions: Regions, technique: RegionTransform, *, exact: RegionTransform
) -> tuple[Regions, Tensor, Tensor]:
    """Regions as they are covered, where their crops are cut, and the sizes of the pictures that each is in.

    exact: the technique that is in no result, whose outline need not hide that of a face.
    """
    frames = torch.tensor([media[image].pixels.shape[-2:] for image in regions.image.tolist()])
    if technique is not exact:  # the outline of a cover could be measured
        regions = regions.outlined()
    return regions, outer_rects(regions.boxes, technique.extent, frames), frames


def _in_alpha(media: ImageMedia) -> list[Tensor]:
    """The alpha channel as a grey picture ``(3, H, W)``, unless there is none or it is one value."""
    if media.alpha is None or bool(media.alpha.min() == media.alpha.max()):
        return []
    return [media.alpha.expand(3, -1, -1)]


def _stretched(pixels: Tensor) -> Tensor | None:
    """``(3, H, W)`` uint8 over the full range, or None where the picture has more than a narrow one."""
    unit = 1 if pixels.dtype == torch.uint8 else 255
    low, high = _most(pixels, unit)
    if high - low >= FLAT_LEVELS:
        return None
    levels = pixels.float() * unit
    if high == low:
        low, high = float(levels.min()), float(levels.max())
    return None if high == low else ((levels - low) * (255 / (high - low))).clamp(0, 255).round().to(torch.uint8)


def _most(pixels: Tensor, unit: int) -> tuple[float, float]:
    """The bounds in 8-bit levels of all but a hundredth at each end, by a sample."""
    step = max(1, math.isqrt(pixels[0].numel() // SAMPLED_PX))
    sample = pixels[:, ::step, ::step].flatten()
    few = len(sample) // 100
    if unit == 1:  # counting is 30 times as fast as sorting
        below = sample.bincount(minlength=256).cumsum(dim=0)
        low, high = torch.searchsorted(below, below.new_tensor([few, len(sample) - 1 - few]), right=True).tolist()
        return float(low), float(high)
    levels = (sample.float() * unit).sort().values
    return float(levels[few]), float(levels[-1 - few])


def _in_crops(regions: Regions, rects: Tensor) -> Tensor:
    """Landmarks ``(R, 5, 2)`` as shares of the sides of the crops that were cut from ``rects``."""
    near, far = rects[:, None, :2].to(regions.landmarks), rects[:, None, 2:].to(regions.landmarks)
    return (regions.landmarks - near) / (far - near)


def _around(regions: Regions, rects: Tensor, frames: Tensor, technique: RegionTransform) -> Tensor:
    """Which pixels of crops lie beyond what is covered, and in the picture; see :func:`around`."""
    weights = [technique.weight(b, r) for b, r in zip(regions.boxes.tolist(), rects.tolist(), strict=True)]
    return around(weights, rects, frames, crop_px=technique.crop_px)


def _patch(crop: Tensor, box: list[float], rect: list[int], technique: RegionTransform) -> Patch:
    x0, y0, x1, y1 = rect
    return Patch((x0, y0, x1, y1), crop, technique.weight(box, rect).to(crop.device))


def _share(mask: Tensor, box: list[float]) -> float:
    """The share of a box's visible part that a mask covers; a box wholly outside the picture counts as covered."""
    height, width = mask.shape
    x0, y0 = max(int(box[0]), 0), max(int(box[1]), 0)
    x1, y1 = min(int(np.ceil(box[2])), width), min(int(np.ceil(box[3])), height)
    if x0 >= x1 or y0 >= y1:
        return 1.0
    return float(mask[y0:y1, x0:x1].float().mean())


def from_picture(picture: Picture, kind: str, device: torch.device | str = "cpu") -> ImageMedia:
    """A decoded picture as media. kind: of the value that it came in, ``"bytes"`` or ``"pil"``."""
    form = _Form(kind, picture=picture, notes=picture.notes)
    alpha = None if picture.alpha is None else picture.alpha.to(device)
    return ImageMedia(picture.pixels.to(device), alpha, form)


def _from_array(array: np.ndarray[Any, Any], device: torch.device) -> ImageMedia:
    if array.ndim not in (2, 3):
        raise FieldTypeError(f"an image array has {array.ndim} axes; expected (H, W) or (H, W, C)")
    if array.dtype not in (np.uint8, np.float16, np.float32, np.float64):
        raise FieldTypeError(f"an image array holds {array.dtype}; expected uint8 or float in [0, 1]")
    tensor = torch.from_numpy(np.array(array))  # a copy: the caller's may be read-only
    tensor = tensor[..., None] if array.ndim == 2 else tensor
    media = _from_tensor(tensor.permute(2, 0, 1), device)
    return replace(media, form=replace(media.form, kind="array", has_channel_axis=array.ndim == 3))


def _from_tensor(tensor: Tensor, device: torch.device) -> ImageMedia:
    if tensor.ndim not in (2, 3) or 0 in tensor.shape:
        raise FieldTypeError(f"an image tensor has shape {tuple(tensor.shape)}; expected (C, H, W)")
    if not (tensor.dtype == torch.uint8 or tensor.is_floating_point()):
        raise FieldTypeError(f"an image tensor holds {tensor.dtype}; expected uint8 or float in [0, 1]")
    planes = tensor[None] if tensor.ndim == 2 else tensor
    channels = planes.shape[0]
    if channels not in (1, 3, 4):
        raise FieldTypeError(f"an image tensor has {channels} channels; expected 1, 3 or 4, channels first")
    if planes.is_floating_point() and not bool(((planes >= 0) & (planes <= 1)).all()):
        raise FieldTypeError("a float image has values outside [0, 1]; anonymize before normalising")
    form = _Form("tensor", channels, tensor.ndim == 3, device=str(tensor.device))
    planes = _in_steps(planes.detach().to(device, copy=True))  # the caller's may change while it is looked at
    pixels = planes[:1].expand(3, -1, -1) if channels == 1 else planes[:3]
    return ImageMedia(pixels, _alpha(planes) if channels == 4 else None, form)


def _alpha(planes: Tensor) -> Tensor:
    alpha = planes[3]
    return alpha if alpha.dtype == torch.uint8 else (alpha.float() * 255).round().to(torch.uint8)


def _to_value(media: ImageMedia) -> Any:
    """The array or tensor that a consumer gets: the kind, shape, dtype and device that came in."""
    form, planes = media.form, media.pixels
    if form.channels == 1:
        planes = _luma(planes)
    elif media.alpha is not None:
        alpha = media.alpha if planes.dtype == torch.uint8 else media.alpha.to(planes) / 255
        planes = torch.cat([planes, alpha[None]])
    planes = planes.to(form.device)
    if form.kind == "tensor":
        return planes.clone() if form.has_channel_axis else planes[0].clone()
    array = np.ascontiguousarray(planes.permute(1, 2, 0).numpy())
    return array if form.has_channel_axis else array[..., 0]


def _in_steps(planes: Tensor) -> Tensor:
    """Floats in steps of 1/255: detectors look at 8 bits, and finer steps could hold what they do not see."""
    if not planes.is_floating_point():
        return planes
    steps = (planes.float() * 255).round_().div_(255).to(planes.dtype)
    if planes.dtype != torch.float64 or torch.equal(steps, planes):
        return steps
    return (planes * 255).round_().div_(255)


def _luma(pixels: Tensor) -> Tensor:
    """``(1, H, W)`` of ``(3, H, W)``: a grey picture's channels differ only where a technique coloured them."""
    red, green, blue = pixels if pixels.dtype == torch.float64 else pixels.float()
    grey: Tensor = red + 0.587 * (green - red) + 0.114 * (blue - red)  # exact where the channels agree
    return (grey.round() if pixels.dtype == torch.uint8 else grey)[None].to(pixels.dtype)
