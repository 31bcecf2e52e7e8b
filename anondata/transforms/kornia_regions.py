"""Techniques as members of kornia's ``AugmentationSequential``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from anondata.errors import MissingExtraError, ShapeError
from anondata.transforms.base import RegionTransform, in_range

try:
    from kornia.augmentation import RandomTransplantation
    from kornia.constants import DataKey
except ModuleNotFoundError as error:
    raise MissingExtraError("kornia is not installed: pip install 'anondata[kornia]'") from error

_BOXES = (DataKey.BBOX, DataKey.BBOX_XYXY, DataKey.BBOX_XYWH)


# RandomTransplantation is the one class that AugmentationSequential shows a call's other data before its images
# (kornia 0.9). Nothing of it is used but that door.
class KorniaRegions(RandomTransplantation):  # type: ignore[misc]  # kornia is not typed for mypy
    """Lets a technique change the regions of a batch's boxes inside ``kornia.augmentation.AugmentationSequential``.

    Boxes, masks and keypoints stay as they are, so ``data_keys`` may name them all. The boxes of every key
    (``"bbox"``, ``"bbox_xyxy"``, ``"bbox_xywh"``) are covered, also those that earlier members moved. kornia's
    ``bbox_xyxy`` includes its last pixel; boxes of torchvision are covered one pixel further.

    Put it first: kornia's elastic, fisheye and thin-plate warps move pixels but not boxes. Do not use it with
    ``random_apply``, which leaves members out. kornia allows one such member in a container, and beside it no labels
    in ``data_keys``, no lists of masks and no ``inverse``; it raises.

    Shape:
        images: ``(B, C, H, W)`` or ``(C, H, W)`` float in [0, 1], any device. Same shape out, with a batch axis.
        boxes: a list of B tensors ``(N_i, 4)``, or one ``(B, N, 4)``.

    Args:
        technique: what changes the regions. It draws from its key and what it changes, never from global generators.
        p: the share of images that are changed, chosen by kornia. The others **keep their faces**.
        same_on_batch: the i-th regions of all images draw the same. Who knows one of them can then subtract the noise
            of the others: for training, not for what is published.
        keepdim: whether an image without a batch axis comes back without one.

    Raises:
        ShapeError: there are no boxes, or not for each image: also inside a nested container, which shows its members
            no boxes.

    >>> from kornia.augmentation import AugmentationSequential, RandomHorizontalFlip
    >>> from anondata.transforms import Fill
    >>> augment = AugmentationSequential(
    ...     KorniaRegions(Fill(coverage=1.0, feather=0.0)),
    ...     RandomHorizontalFlip(p=1.0),
    ...     data_keys=["input", "bbox_xyxy"],
    ... )
    >>> images, boxes = augment(torch.zeros(2, 3, 8, 8), [torch.tensor([[0.0, 0.0, 3.0, 1.0]]), torch.zeros(0, 4)])
    >>> images.count_nonzero(dim=(1, 2, 3)).tolist(), boxes[0].tolist()
    ([24, 0], [[4.0, 0.0, 7.0, 1.0]])
    """

    def __init__(
        self, technique: RegionTransform, *, p: float = 1.0, same_on_batch: bool = False, keepdim: bool = False
    ) -> None:
        if not isinstance(technique, RegionTransform):
            raise TypeError(f"technique must be a RegionTransform, got {type(technique).__name__}")
        super().__init__(p=in_range("p", p, 0.0, 1.0))
        self.technique = technique
        self.same_on_batch = same_on_batch
        self.keepdim = keepdim

    def __repr__(self) -> str:
        return (
            f"KorniaRegions({self.technique!r}, p={self.p}, same_on_batch={self.same_on_batch}, "
            f"keepdim={self.keepdim})"
        )

    def params_from_input(
        self, *inputs: Any, data_keys: Sequence[DataKey], params: dict[str, Any], extra_args: Any = None
    ) -> dict[str, Any]:
        """The parameters with ``regions``: of each image, its boxes ``(N, 4)`` xyxy on the CPU."""
        sets = [_of_each(given) for given, key in zip(inputs, data_keys, strict=True) if key in _BOXES]
        if not sets:
            raise _no_boxes(self.technique)
        images = len(params["batch_prob"])
        if any(len(boxes) != images for boxes in sets):
            raise ShapeError(
                f"{self.technique.name}: expected boxes of {images} images, got those of "
                f"{', '.join(str(len(boxes)) for boxes in sets)}; an image without regions has an empty (0, 4)"
            )
        return {**params, "regions": [torch.cat(of_one) for of_one in zip(*sets, strict=True)]}

    def forward(
        self,
        given: Tensor,
        params: dict[str, Any] | None = None,
        data_keys: Sequence[DataKey] = (DataKey.INPUT,),
        **_: Any,
    ) -> Tensor:
        """Changes images; a container calls it for each of its data keys, and masks are given back."""
        if params is None or "regions" not in params:
            raise _no_boxes(self.technique)
        if tuple(map(DataKey.get, data_keys)) != (DataKey.INPUT,):
            return given
        images: Tensor = self.transform_tensor(given)
        if len(images) != len(params["regions"]):
            raise ShapeError(f"{self.technique.name}: {len(images)} images, boxes of {len(params['regions'])}")
        always = self.p == 1 and self.p_batch == 1  # as in kornia, whatever params say
        chosen = [True] * len(images) if always else (params["batch_prob"] > 0.5).tolist()
        jobs = [
            job for job, change in zip(zip(images, params["regions"], strict=True), chosen, strict=True) if change
        ]
        if jobs:
            changed = iter(self._changed(jobs))
            images = torch.stack([next(changed) if c else image for c, image in zip(chosen, images, strict=True)])
        return images.reshape(given.shape) if self.keepdim else images

    def _changed(self, jobs: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Images whose regions are changed, of images and their regions."""
        technique = self.technique
        if not (self.same_on_batch and technique.draws):
            return [technique.change_regions(image, regions) for image, regions in jobs]
        first = jobs[0][0].detach().to("cpu", torch.float32).numpy().tobytes()
        draw = technique._key.digest(technique.name, "same on batch", first)
        seeds = [technique._key.seed(draw, place) for place in range(max(len(regions) for _, regions in jobs))]
        return [technique.change_regions(image, regions, seeds=seeds[: len(regions)]) for image, regions in jobs]

    def transform_boxes(self, boxes: Any, params: Any, flags: Any) -> Any:
        return boxes

    def transform_keypoint(self, keypoints: Any, params: Any, flags: Any) -> Any:
        return keypoints


def _of_each(boxes: Any) -> list[Tensor]:
    """Of each image, what kornia's ``Boxes`` hold: upright xyxy around their corners, past their last pixels."""
    xyxy = boxes.to_tensor("xyxy")
    rows = [xyxy] if isinstance(xyxy, Tensor) and xyxy.ndim == 2 else list(xyxy)
    return [row.detach().to("cpu", torch.float64) for row in rows]


def _no_boxes(technique: RegionTransform) -> ShapeError:
    return ShapeError(
        f"{technique.name}: sees no boxes here; make it a direct member of kornia's AugmentationSequential and name "
        "boxes in data_keys, such as 'bbox_xyxy'"
    )
