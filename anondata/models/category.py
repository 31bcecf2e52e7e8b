"""MobileNetV2: which of a thousand generic categories a picture shows.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen (2018), doi 10.1109/CVPR.2018.00474.
"""

from __future__ import annotations

from torch import nn

CATEGORIES = 1000  # of ImageNet-1k
SIDE_PX = 224
MEAN = (0.485, 0.456, 0.406)  # red, green and blue of the pictures that it was trained on
STD = (0.229, 0.224, 0.225)


def mobilenet_v2() -> nn.Module:
    """The network without weights: normalized pictures ``(B, 3, 224, 224)`` to logits ``(B, 1000)``."""
    from torchvision.models import mobilenet_v2 as make  # 0.3 s that only this needs

    made: nn.Module = make(weights=None)
    return made
