"""What every technique shares: how strength, coverage and containers work."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from copy import copy
from inspect import Parameter, Signature, signature
from typing import Any, ClassVar, Self, TypedDict, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree  # the tree that torchvision's v2 transforms walk, too

from anondata.crops import FLOATS, SHAPES, Shape, bounded, cover_weight, cut, outer_rects, paste
from anondata.errors import ShapeError
from anondata.leakage import NO_BOUND, Leakage
from anondata.randomness import RunKey

MIN_COVERAGE = 0.5
WHOLE_COVERAGE = 1.3  # from which on nothing of a face is beside the covered area but hair and what is around
MAX_COVERAGE = 4.0


# The methods that results come from.
_RESULTS = frozenset({"change", "change_aligned", "change_around", "change_regions", "extent", "forward", "weight"})


class Keyed(TypedDict, total=False):
    """Keywords that every technique takes; see :class:`RegionTransform`."""

    key: RunKey | None


class Shaped(Keyed, total=False):
    """The same, with the shape of what is covered."""

    shape: Shape


class Edged(Shaped, total=False):
    """The same, with its edge."""

    feather: float


class Common(Edged, total=False):
    """The same, with how much is covered: what a technique takes that has no coverage of its own."""

    coverage: float


class RegionTransform(nn.Module):
    """A technique that changes regions of pictures so that they can no longer be identified.

    It is called in one of two ways, and neither writes any state:

    * on crops, ``forward(crops)``: the whole of each crop is the region. This is what ``nn.Sequential``, kornia's
      ``ImageSequential`` and the engine do.
    * on a sample, ``forward({"image": tv_tensors.Image, "boxes": tv_tensors.BoundingBoxes, ...})`` or any nesting of
      dicts, lists and tuples with exactly one image and one set of boxes: the boxes' regions are changed and the
      image is put back. This is what ``torchvision.transforms.v2.Compose`` does.

    Shape:
        crops: ``(R, C, H, W)`` or ``(C, H, W)`` float in [0, 1], any device and float dtype. Same shape out.

    Args:
        coverage: side of the covered area relative to the box. Below 1.3 hair and background still identify: a
            black box of 1.0 left 24-79 % of 102 people at rank 1 for a parrot attacker, one of 1.3 left 2-8 %.
        shape: ``"rectangle"``, ``"ellipse"`` or ``"rounded"`` (a rectangle with round corners), inscribed in the
            covered box.
        feather: width of the soft edge relative to the covered area's half side, wholly *outside* of it.
        key: the secret that random techniques draw from when used alone; the engine hands in its own seeds.

    Raises:
        ShapeError: for anything that is neither of the two inputs, so that nothing passes unchanged unnoticed, and
            for boxes that are rotated, not finite, inside out or made for a picture of another size.
    """

    name: ClassVar[str]
    crop_px: int = 128
    draws: bool = True  # whether seeds matter; a technique that says no is spared their making
    looks_around: bool = False  # whether it is told where its surroundings are; one that is overrides change_around
    networks: tuple[str, ...] = ()  # the registered weights that it computes with
    generated_people: int = 0  # how many it draws from; see anondata.transforms.face_pool
    kinds: tuple[str, ...] = ()  # of region that it is made for; none says any
    aligns: bool = False  # whether it looks at landmarks; one that does overrides change_aligned
    redraws: bool = False  # whether it draws another of the same kind in its place: detail that lies where it did
    pseudonymous: bool = False  # whether the same seed gives the same new look, whatever the region looked like
    moves: bool = False  # whether what was in one place may be seen in another, beyond the patches that lie on it

    def __init__(
        self,
        *,
        coverage: float = 1.3,
        shape: Shape = "rectangle",
        feather: float = 0.1,
        key: RunKey | None = None,
    ) -> None:
        super().__init__()
        self.coverage = in_range("coverage", coverage, MIN_COVERAGE, MAX_COVERAGE)
        self.feather = in_range("feather", feather, 0.0, 1.0)
        if shape not in SHAPES:
            raise ValueError(f"shape must be {', '.join(map(repr, SHAPES[:-1]))} or {SHAPES[-1]!r}, got {shape!r}")
        if not (key is None or isinstance(key, RunKey)):
            raise ValueError(f"key must be a RunKey, got {type(key).__name__}")
        self.shape: Shape = shape
        self._key = RunKey() if key is None else key

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _show_keywords(cls)
        own = vars(cls).keys()
        if "erases" in own:
            raise TypeError(f"{cls.__name__} declares erases; it follows from leakage(), which may be overridden")
        if "leakage" not in own and own & _RESULTS:  # what the class that it is made from promises is not of these
            cls.leakage = RegionTransform.leakage  # type: ignore[method-assign]  # as if it were written in the class

    def leakage(self) -> Leakage:
        """The most that results can tell about what is in the covered area, by calculation.

        No bound unless a technique overrides it. One that does promises that nothing but the crop and its seed goes
        into the result, no surroundings, and of landmarks at most the group that they fall in. A subclass that
        changes regions in its own way has no bound until it overrides this, too.
        """
        return NO_BOUND

    @final
    @property
    def erases(self) -> bool:
        """Whether nothing of a region's content is in the result, whatever it was, nor anything like it.

        What shows another face is no erasure, whatever it was drawn from: it can be like a real one by chance, and
        gates judge it as they judge any other.
        """
        return self.leakage().nothing and self.coverage >= WHOLE_COVERAGE and not self.redraws

    @property
    def extent(self) -> float:
        """Side of a crop relative to its region's box, soft edge included."""
        return self.coverage * (1 + self.feather)

    @abstractmethod
    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        """The technique itself, a pure function of ``(R, C, S, S)`` finite crops in [0, 1], R at least 1.

        extent: side of a crop relative to its region; strength is relative to the region, so to ``S / extent``.
        seeds: one a crop, for techniques that draw at random.
        """

    def change_around(self, crops: Tensor, *, extent: float, seeds: Sequence[int], known: Tensor) -> Tensor:
        """As :meth:`change`, for a technique that takes nothing but a region's surroundings.

        known: ``(R, 1, S, S)`` bool, the pixels of crops that lie beyond what is covered, and in the picture.
        """
        return self.change(crops, extent=extent, seeds=seeds)

    def change_aligned(self, crops: Tensor, *, extent: float, seeds: Sequence[int], landmarks: Tensor) -> Tensor:
        """As :meth:`change`, for a technique that aligns what it draws with what is there.

        landmarks: ``(R, 5, 2)`` x, y as shares of the crop's sides, left eye first; NaN where there are none.
        """
        return self.change(crops, extent=extent, seeds=seeds)

    @abstractmethod
    def strength(self) -> dict[str, Any]:
        """The technique's own parameters as plain data."""

    def config(self) -> dict[str, Any]:
        """Every parameter as plain data: the constructor's keywords, without the key."""
        common = {"coverage": self.coverage, "shape": self.shape, "feather": self.feather}
        return {**self.strength(), **common}

    def with_key(self, key: RunKey) -> Self:
        """A copy that draws from another key when it is used alone."""
        twin = copy(self)
        twin._key = key
        return twin

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.config().items())

    def forward(self, *inputs: Any) -> Any:
        """Changes crops, or the boxes' regions of a sample; see the class."""
        if len(inputs) == 1 and type(inputs[0]) in (Tensor, nn.Parameter):
            return self._change_crops(inputs[0])
        return self._change_sample(inputs[0] if len(inputs) == 1 else inputs)

    def _change_crops(self, crops: Tensor) -> Tensor:
        batch = crops[None] if crops.ndim == 3 else crops
        if batch.ndim != 4 or batch.dtype not in FLOATS:
            raise ShapeError(
                f"{self.name}: expected float crops (R, C, H, W) in [0, 1], "
                f"got {tuple(crops.shape)} {crops.dtype}; for uint8 divide by 255 first"
            )
        if 0 in batch.shape:
            return crops.clone()
        batch = bounded(batch)
        return self.change(batch, extent=1.0, seeds=self._own_seeds(batch)).reshape(crops.shape)

    def _own_seeds(self, crops: Tensor) -> list[int]:
        """Seeds from the key and the content, so that position in the batch cannot matter."""
        if not self.draws:
            return [0] * len(crops)
        rows = crops.detach().to("cpu", torch.float32)
        return [self._key.seed(self.name, row.numpy().tobytes()) for row in rows]

    def _change_sample(self, sample: Any) -> Any:
        from PIL.Image import Image as PILImage
        from torchvision import tv_tensors

        leaves, tree = pytree.tree_flatten(sample)
        images = [
            i for i, leaf in enumerate(leaves) if isinstance(leaf, tv_tensors.Image | tv_tensors.Video | PILImage)
        ]
        boxes = [leaf for leaf in leaves if isinstance(leaf, tv_tensors.BoundingBoxes)]
        if len(images) != 1 or len(boxes) != 1 or not isinstance(leaves[images[0]], tv_tensors.Image):
            raise ShapeError(
                f"{self.name}: expected exactly one tv_tensors.Image and one tv_tensors.BoundingBoxes, found "
                f"{len(images)} image(s) and {len(boxes)} set(s) of boxes; wrap them with torchvision.tv_tensors, "
                "or pass plain float crops"
            )
        image = leaves[images[0]]
        if image.ndim != 3:
            raise ShapeError(f"{self.name}: boxes belong to one image (C, H, W), got {tuple(image.shape)}")
        if tuple(boxes[0].canvas_size) != tuple(image.shape[-2:]):
            raise ShapeError(
                f"{self.name}: the boxes are for a picture of height and width {tuple(boxes[0].canvas_size)}, "
                f"the image has {tuple(image.shape[-2:])}; resize both in one transform"
            )
        changed = self.change_regions(image.as_subclass(Tensor), self._xyxy(boxes[0]))
        leaves[images[0]] = tv_tensors.wrap(changed, like=image)
        return pytree.tree_unflatten(leaves, tree)

    def _xyxy(self, boxes: Any) -> Tensor:
        from torchvision.transforms.v2 import functional as v2

        if boxes.format.value not in ("XYXY", "XYWH", "CXCYWH"):
            raise ShapeError(
                f"{self.name}: expected upright boxes, got {boxes.format.value}; pass the upright boxes around them"
            )
        # Floats first: a conversion of integers or halves would round away up to a pixel of the region.
        exact = boxes.as_subclass(Tensor).to("cpu", torch.float64)
        xyxy: Tensor = v2.convert_bounding_box_format(exact, old_format=boxes.format, new_format="XYXY")
        return xyxy

    def change_regions(self, picture: Tensor, boxes: Tensor, *, seeds: Sequence[int] | None = None) -> Tensor:
        """A copy of ``picture (C, H, W)`` with the regions of ``boxes (R, 4)`` xyxy changed.

        seeds: one a box; left out, they follow from the key and the region.
        """
        if picture.ndim != 3 or not (picture.dtype == torch.uint8 or picture.dtype in FLOATS):
            raise ShapeError(
                f"{self.name}: expected a picture (C, H, W), uint8 or float in [0, 1], "
                f"got {tuple(picture.shape)} {picture.dtype}"
            )
        rects = outer_rects(boxes, self.extent, torch.tensor(picture.shape[-2:]))
        out = picture.clone()
        if len(boxes) == 0 or picture.numel() == 0:
            return out
        crops = cut(picture, rects, self.crop_px)
        seeds = self._own_seeds(crops) if seeds is None else seeds
        changed = self.change(crops, extent=self.extent, seeds=seeds)
        for box, rect, crop in zip(boxes.tolist(), rects.tolist(), changed, strict=True):
            paste(out, rect, crop, self.weight(box, rect))
        return out

    def weight(self, box: list[float], rect: list[int]) -> Tensor:
        """How far each pixel of ``rect`` is replaced, ``(h, w)`` in [0, 1]; see :func:`cover_weight`."""
        return cover_weight(box, rect, coverage=self.coverage, shape=self.shape, feather=self.feather)


def _show_keywords(kind: type[RegionTransform]) -> None:
    """Lets ``help`` and ``inspect`` show the common keywords of a technique in place of ``**common``."""
    if "__init__" not in vars(kind):
        return
    own, rest = list(signature(kind.__init__).parameters.values())[1:], list[Parameter]()
    if own and own[-1].kind is Parameter.VAR_KEYWORD:
        common = signature(RegionTransform.__init__).parameters.values()
        rest = [p for p in common if p.kind is Parameter.KEYWORD_ONLY and p.name not in {q.name for q in own}]
        own.pop()
    kind.__signature__ = Signature([*own, *rest])  # type: ignore[attr-defined]  # what inspect looks for


def in_range(name: str, value: float, low: float, high: float) -> float:
    """``value`` as a float, or a ``ValueError`` that names the range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, got {type(value).__name__}")
    if not low <= value <= high:  # NaN included
        raise ValueError(f"{name} must be between {low:g} and {high:g}, got {value}")
    return float(value)


def describe(transform: RegionTransform) -> str:
    """A canonical line that tells techniques apart: the name and every parameter."""
    return f"{transform.name} {json.dumps(transform.config(), sort_keys=True)}"
