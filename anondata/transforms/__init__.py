"""Techniques: composable modules that change regions of pictures."""

from __future__ import annotations

from anondata.transforms.base import RegionTransform, describe
from anondata.transforms.blur import GaussianBlur
from anondata.transforms.fill import Fill
from anondata.transforms.frequency import FrequencyFilter
from anondata.transforms.mask import Mask
from anondata.transforms.noise import Noise
from anondata.transforms.pixelate import Pixelate
from anondata.transforms.random_colors import RandomColors
from anondata.transforms.random_replace import RandomReplace
from anondata.transforms.resize import Resize
from anondata.transforms.shuffle import Shuffle
from anondata.transforms.warp import Warp

__all__ = [
    "Fill",
    "FrequencyFilter",
    "GaussianBlur",
    "Mask",
    "Noise",
    "Pixelate",
    "RandomColors",
    "RandomReplace",
    "RegionTransform",
    "Resize",
    "Shuffle",
    "Warp",
    "describe",
]


def __dir__() -> list[str]:
    return sorted(__all__)
