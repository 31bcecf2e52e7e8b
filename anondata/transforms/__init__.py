"""Techniques: composable modules that change regions of pictures."""

from __future__ import annotations

from anondata.transforms.base import RegionTransform, describe
from anondata.transforms.blur import GaussianBlur
from anondata.transforms.fill import Fill
from anondata.transforms.noise import Noise
from anondata.transforms.pixelate import Pixelate

__all__ = ["Fill", "GaussianBlur", "Noise", "Pixelate", "RegionTransform", "describe"]
