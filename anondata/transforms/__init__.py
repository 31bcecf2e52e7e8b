"""Techniques: composable modules that change regions of pictures. Each is loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anondata.transforms.base import RegionTransform, describe
    from anondata.transforms.blur import GaussianBlur
    from anondata.transforms.chain import Chain
    from anondata.transforms.fill import Fill
    from anondata.transforms.frequency import FrequencyFilter
    from anondata.transforms.kornia_regions import KorniaRegions
    from anondata.transforms.ksame import KSame
    from anondata.transforms.mask import Mask
    from anondata.transforms.noise import Noise
    from anondata.transforms.pixelate import Pixelate
    from anondata.transforms.plate_swap import PlateSwap
    from anondata.transforms.random_colors import RandomColors
    from anondata.transforms.random_replace import RandomReplace
    from anondata.transforms.resize import Resize
    from anondata.transforms.shuffle import Shuffle
    from anondata.transforms.silhouette import Silhouette
    from anondata.transforms.style import StyleTransfer
    from anondata.transforms.synthetic_face import SyntheticFace
    from anondata.transforms.text_swap import TextSwap
    from anondata.transforms.warp import Warp

__all__ = [
    "Chain",
    "Fill",
    "FrequencyFilter",
    "GaussianBlur",
    "KSame",
    "KorniaRegions",
    "Mask",
    "Noise",
    "Pixelate",
    "PlateSwap",
    "RandomColors",
    "RandomReplace",
    "RegionTransform",
    "Resize",
    "Shuffle",
    "Silhouette",
    "StyleTransfer",
    "SyntheticFace",
    "TextSwap",
    "Warp",
    "describe",
]

_HOME = {
    "Chain": "chain",
    "Fill": "fill",
    "FrequencyFilter": "frequency",
    "GaussianBlur": "blur",
    "KSame": "ksame",
    "KorniaRegions": "kornia_regions",
    "Mask": "mask",
    "Noise": "noise",
    "Pixelate": "pixelate",
    "PlateSwap": "plate_swap",
    "RandomColors": "random_colors",
    "RandomReplace": "random_replace",
    "RegionTransform": "base",
    "Resize": "resize",
    "Shuffle": "shuffle",
    "Silhouette": "silhouette",
    "StyleTransfer": "style",
    "SyntheticFace": "synthetic_face",
    "TextSwap": "text_swap",
    "Warp": "warp",
    "describe": "base",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'anondata.transforms' has no attribute {name!r}")
    return getattr(import_module(f"anondata.transforms.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
