"""Persons by torchvision's own detectors, with weights that the user brings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from anondata.detectors.centerface import check_params
from anondata.errors import PolicyError, WeightsError
from anondata.regions import LANDMARKS, Regions, cat_regions

PERSON = 1  # of COCO's classes, as torchvision counts them
CLASSES = 91

# The published files, whose names hold the first eight digits of their sha256.
MODELS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": "907ea3f9",
    "fasterrcnn_resnet50_fpn": "258fb6c6",
    "maskrcnn_resnet50_fpn": "bf2d0c1e",
}


@dataclass(frozen=True)
class TorchvisionPersonDetector:
    """Finds persons with a detector of torchvision's (BSD-3-Clause) that was trained on COCO. Masks are not used.

    Its weights are not fetched: the registry wants a whole sha256, and the published names hold eight digits of it.
    So download the file that torchvision names, such as ``fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth``, and
    say where it is. It is read as tensors alone (``weights_only``), and refused where its sha256 does not begin as
    told.

    model: one of :data:`MODELS`. weights: path of its file. sha256: how the file's sha256 begins, eight digits or
    more; left out, as in torchvision's file name. threshold: the least score of a person, in (0, 1).

    Not guaranteed: recall. It was not measured here, where the weights cannot be had.
    """

    kinds: ClassVar[tuple[str, ...]] = ("person",)

    weights: str = ""
    model: str = "fasterrcnn_mobilenet_v3_large_320_fpn"
    threshold: float = 0.3
    sha256: str = ""

    def __post_init__(self) -> None:
        check_params("persons-torchvision", threshold=self.threshold, smallest_px=100)
        if self.model not in MODELS:
            raise PolicyError(f"model {self.model!r} is not one of {', '.join(MODELS)}")
        if self.sha256 and not (len(self.sha256) >= 8 and set(self.sha256) <= set("0123456789abcdef")):
            raise PolicyError("sha256 must be eight hexadecimal digits in lower case or more")

    def detect(self, views: Sequence[Tensor]) -> Regions:
        if not views:
            return cat_regions([])
        run = _network(self.weights, self.model, self.sha256 or MODELS[self.model], str(views[0].device))
        with torch.no_grad():
            said = [run([view.float() / 255])[0] for view in views]
        return cat_regions([self._persons(i, one) for i, one in enumerate(said)])

    def _persons(self, image: int, said: dict[str, Tensor]) -> Regions:
        if not bool(said["scores"].isfinite().all()):
            raise ValueError("the detector's scores are not finite")
        keep = (said["labels"] == PERSON) & (said["scores"] >= self.threshold)
        boxes = said["boxes"][keep]
        return Regions(
            torch.full((len(boxes),), image, dtype=torch.int64, device=boxes.device),
            boxes,
            torch.full((len(boxes), LANDMARKS, 2), torch.nan, device=boxes.device),
            said["scores"][keep],
            ("person",) * len(boxes),
        )


@lru_cache(maxsize=2)
def _network(file: str, model: str, sha256: str, device: str) -> Any:
    from torchvision.models import detection

    if not file or not Path(file).is_file():
        raise WeightsError(
            f"persons-torchvision: the weights of {model} are not at hand; download torchvision's file "
            f"{model}…-{sha256[:8]}.pth and give its path as weights"
        )
    found = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    if not found.startswith(sha256):
        raise WeightsError(f"persons-torchvision: the file has sha256 {found}, expected {sha256}…; download it again")
    made = getattr(detection, model)(weights=None, weights_backbone=None, num_classes=CLASSES)
    made.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))
    return made.eval().requires_grad_(False).to(device)
