"""XFeat: keypoints and local descriptors of a picture, by which two views of one place are matched.

Source: Potje, Cadar, Araujo, Martins, Nascimento (2024), XFeat: Accelerated Features for Lightweight Image Matching,
CVPR, doi 10.1109/CVPR52733.2024.00259. The names of the layers are those of the published weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 8  # pixels along a side of the cell that one descriptor and one set of keypoint logits stand for
STRIDE = 32  # what the sides of a picture must be a multiple of


class XFeat(nn.Module):
    """The network without the fine matcher that refines dense matches.

    Shape:
        pictures: ``(B, 3, H, W)`` in any range of values, sides a multiple of :data:`STRIDE`.
        returns: descriptors ``(B, 64, H/8, W/8)`` of no set length; keypoint logits ``(B, 65, H/8, W/8)``: the pixels
        of each cell row by row, and last that there is none; reliability ``(B, 1, H/8, W/8)`` in [0, 1].
    """

    def __init__(self) -> None:
        super().__init__()
        self.skip1 = nn.Sequential(nn.AvgPool2d(4, stride=4), nn.Conv2d(1, 24, 1))
        self.block1 = nn.Sequential(_layer(1, 4), _layer(4, 8, stride=2), _layer(8, 8), _layer(8, 24, stride=2))
        self.block2 = nn.Sequential(_layer(24, 24), _layer(24, 24))
        self.block3 = nn.Sequential(_layer(24, 64, stride=2), _layer(64, 64), _layer(64, 64, size=1))
        self.block4 = nn.Sequential(_layer(64, 64, stride=2), _layer(64, 64), _layer(64, 64))
        self.block5 = nn.Sequential(
            _layer(64, 128, stride=2), _layer(128, 128), _layer(128, 128), _layer(128, 64, size=1)
        )
        self.block_fusion = nn.Sequential(_layer(64, 64), _layer(64, 64), nn.Conv2d(64, 64, 1))
        self.heatmap_head = nn.Sequential(
            _layer(64, 64, size=1), _layer(64, 64, size=1), nn.Conv2d(64, 1, 1), nn.Sigmoid()
        )
        self.keypoint_head = nn.Sequential(*(_layer(64, 64, size=1) for _ in range(3)), nn.Conv2d(64, 65, 1))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grey = F.instance_norm(pictures.mean(dim=1, keepdim=True))
        quarter: Tensor = self.block2(self.block1(grey) + self.skip1(grey))
        eighth: Tensor = self.block3(quarter)
        sixteenth: Tensor = self.block4(eighth)
        coarse = [sixteenth, self.block5(sixteenth)]
        size = [eighth.shape[-2], eighth.shape[-1]]
        fine = sum((F.interpolate(x, size, mode="bilinear") for x in coarse), eighth)
        descriptors = self.block_fusion(fine)
        return descriptors, self.keypoint_head(F.pixel_unshuffle(grey, CELL)), self.heatmap_head(descriptors)


class _Layer(nn.Module):
    """Convolution, normalization and rectifier, under the name that the weights have for them."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=False),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


def _layer(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> _Layer:
    return _Layer(inputs, outputs, size, stride)


def peaks(logits: Tensor, *, least: float = 0.05, apart_px: int = 2) -> Tensor:
    """``(H, W)`` likelihood of a keypoint at each pixel from logits ``(65, H/8, W/8)``; 0 at no local maximum.

    least: likelihood under which a maximum does not count. apart_px: no two are nearer than this.
    """
    likely = F.pixel_shuffle(logits.softmax(dim=0)[None, :-1], CELL)
    highest = F.max_pool2d(likely, 2 * apart_px + 1, stride=1, padding=apart_px)
    return torch.where((likely == highest) & (likely > least), likely, 0.0)[0, 0]
