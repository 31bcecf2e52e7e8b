"""The regions of a batch, in one flat structure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from anondata.errors import ShapeError

# Where landmarks lie in a detector's box, relative to it: the mean of CenterFace's own on upright faces. It stands in
# for landmarks that a region does not have.
USUAL_LANDMARKS = ((0.28, 0.39), (0.72, 0.39), (0.50, 0.60), (0.32, 0.77), (0.68, 0.77))
# What belongs to a head, from the face's box on, in its widths and heights: to each side, above and below. Hair, neck
# and shoulders are in it.
HEAD = (0.8, 0.6, 0.9)
# Width by height of what is covered of a face: the least of these that holds its box. How wide a face is named 10 %
# of 51 people in another photo (chance is 2), whatever lay over it. Who looks ahead has one of the first kind.
OUTLINES = (0.86, 1.0, 1 / 0.86)
Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""

LANDMARKS = 5  # left eye, right eye, nose, left and right mouth corner, as seen in the picture


@dataclass(frozen=True, eq=False)  # tensors have no one truth value to compare by
class Regions:
    """What was found in a batch: ``R`` regions of any kind, whichever image they lie in.

    image: ``(R,)`` int64, index of the image within the batch.
    boxes: ``(R, 4)`` float32 x0, y0, x1, y1 in pixels, the far side exclusive.
    landmarks: ``(R, 5, 2)`` float32 x, y in pixels; NaN where a region has none. Of a face see :data:`LANDMARKS`; of
        a line of text its corners as it is read, from the top left on, and a point one line's height along its top.
    scores: ``(R,)`` float32 in [0, 1], the detector's confidence.
    kinds: ``R`` names such as ``"face"``. Host data, because they decide control flow.

    All tensors are on one device. Shapes are checked; nothing is ever written in place.
    """

    image: Tensor
    boxes: Tensor
    landmarks: Tensor
    scores: Tensor
    kinds: tuple[str, ...]

    def __post_init__(self) -> None:
        r = len(self.kinds)
        wanted = {"image": (r,), "boxes": (r, 4), "landmarks": (r, LANDMARKS, 2), "scores": (r,)}
        for name, shape in wanted.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise ShapeError(f"regions: {name} has shape {found}, expected {shape} for {r} kinds")
        if self.image.dtype != torch.int64:
            raise ShapeError(f"regions: image is {self.image.dtype}, expected torch.int64")

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def sizes(self) -> Tensor:
        """``(R, 2)`` width and height in pixels."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    @property
    def has_landmarks(self) -> Tensor:
        """``(R,)`` bool: all five landmarks are finite."""
        return self.landmarks.isfinite().flatten(1).all(dim=1)

    def select(self, index: Tensor | Sequence[int]) -> Regions:
        """The regions of an integer index or a boolean mask ``(R,)``, in that order."""
        chosen = torch.as_tensor(index, device=self.boxes.device)
        if chosen.dtype == torch.bool:
            if chosen.shape != self.scores.shape:
                raise ShapeError(f"regions: a mask of shape {tuple(chosen.shape)} for {len(self)} regions")
            chosen = chosen.nonzero().flatten()
        chosen = chosen.long()
        kinds = tuple(self.kinds[i] for i in chosen.tolist())
        return Regions(self.image[chosen], self.boxes[chosen], self.landmarks[chosen], self.scores[chosen], kinds)

    def of_image(self, image: int) -> Regions:
        """The regions of one image."""
        return self.select(self.image == image)

    def scaled(self, factor: float) -> Regions:
        """The same regions, their boxes scaled about their centres."""
        centre, half = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2, self.sizes * (factor / 2)
        return replace(self, boxes=torch.cat([centre - half, centre + half], dim=1))

    def heads(self) -> Regions:
        """The same regions, each box grown to the head with hair, neck and shoulders, see :data:`HEAD`.

        Which way is down is told by the landmarks, to the nearest quarter turn; where a region has none, the box
        grows to all sides as far as it would to any.
        """
        side, above, below = HEAD
        margins = self.boxes.new_tensor(  # left, top, right, bottom of a face whose chin points down, up, right, left
            [
                [side, above, side, below],
                [side, below, side, above],
                [above, side, below, side],
                [below, side, above, side],
            ]
        )
        across, down = (self.landmarks[:, 3:].mean(dim=1) - self.landmarks[:, :2].mean(dim=1)).unbind(dim=1)
        turned = torch.where(down.abs() >= across.abs(), (down < 0).long(), 2 + (across < 0).long())
        grown = margins[turned].where(self.has_landmarks[:, None], max(HEAD)) * self.sizes.repeat(1, 2)
        return replace(self, boxes=self.boxes + grown * grown.new_tensor([-1, -1, 1, 1]))

    def outlined(self) -> Regions:
        """The same regions, but faces' boxes grown about their centres to one of :data:`OUTLINES`."""
        width, height = self.sizes.unbind(dim=1)
        ratios = width.new_tensor(OUTLINES)
        least = torch.searchsorted(ratios, width / height.clamp(min=1e-9)).clamp(max=len(OUTLINES) - 1)
        wide = torch.maximum(width, ratios[least] * height)
        high = torch.maximum(height, width / ratios[least])
        faces = torch.tensor([kind == "face" for kind in self.kinds], dtype=torch.bool, device=width.device)
        more = torch.stack([wide - width, high - height], dim=1) / 2 * faces[:, None]
        return replace(self, boxes=self.boxes + torch.cat([-more, more], dim=1))

    def shares_inside(self, height: int, width: int) -> Tensor:
        """``(R,)`` share in [0, 1] of each box that lies in a picture of this size."""
        far = self.boxes.new_tensor([width, height])
        visible = (torch.minimum(self.boxes[:, 2:], far) - self.boxes[:, :2].clamp(min=0)).clamp(min=0)
        return visible.prod(dim=1) / self.sizes.prod(dim=1).clamp(min=1e-9)

    def mapped(self, places: Tensor) -> Regions:
        """The same regions in another picture, to whose places ``(2, 3)`` takes x, y, 1 of this one's.

        Boxes become the upright ones around where they went.
        """
        turn, shift = places[:, :2].to(self.boxes), places[:, 2].to(self.boxes)
        corners = self.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) @ turn.T + shift
        boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
        return replace(self, boxes=boxes, landmarks=self.landmarks @ turn.T + shift)

    def shifted(self, x: float, y: float) -> Regions:
        """The same regions, so many pixels further right and down."""
        by = self.boxes.new_tensor([x, y])
        return replace(self, boxes=self.boxes + by.repeat(2), landmarks=self.landmarks + by)

    def renumbered(self, image: int) -> Regions:
        """The same regions, all in image number ``image``."""
        return replace(self, image=torch.full_like(self.image, image))

    def to(self, device: torch.device | str) -> Regions:
        """The same regions on another device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "kinds"}
        return replace(self, **moved)

    def __iter__(self) -> Iterator[Regions]:
        return (self.select([i]) for i in range(len(self)))


def empty_regions(device: torch.device | str = "cpu") -> Regions:
    """No regions at all."""
    return Regions(
        image=torch.zeros(0, dtype=torch.int64, device=device),
        boxes=torch.zeros(0, 4, device=device),
        landmarks=torch.zeros(0, LANDMARKS, 2, device=device),
        scores=torch.zeros(0, device=device),
        kinds=(),
    )


def cat_regions(parts: Sequence[Regions], device: torch.device | str = "cpu") -> Regions:
    """All regions of several structures, in order; the image indices must already agree."""
    if not parts:
        return empty_regions(device)
    return Regions(
        image=torch.cat([p.image for p in parts]),
        boxes=torch.cat([p.boxes for p in parts]),
        landmarks=torch.cat([p.landmarks for p in parts]),
        scores=torch.cat([p.scores for p in parts]),
        kinds=tuple(kind for p in parts for kind in p.kinds),
    )
