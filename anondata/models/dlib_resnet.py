"""dlib's face recognition ResNet (v1): an aligned face to a 128-d embedding, as a plain torch module."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHIP_PX = 150
"""Side of the aligned face image ("chip") that the network was trained on."""

EMBEDDING_DIM = 128

TEMPLATE = (
    (46.05, 45.63),
    (101.82, 44.81),
    (74.54, 76.86),
    (50.16, 102.20),
    (98.45, 102.15),
)
"""Where the five landmarks lie in a chip, as (x, y) in pixels of a 150 px chip.

Order: left eye, right eye, nose, left and right corner of the mouth, as seen in the image. A chip is cut
by the similarity transform that brings a face's landmarks closest to these points.
"""

L2_THRESHOLD = 0.6
"""dlib's own verdict: two embeddings closer than this (Euclidean distance) show the same person."""

# Means of R, G and B on the 0-255 scale, and the divisor: dlib's input_rgb_image_sized layer.
_MEAN = (122.782, 117.001, 104.298)
_DIVISOR = 256.0

# Channels of each residual block; a block of a stage's first entry halves the map where marked.
_BLOCKS = (
    *((32, False),) * 3,
    (64, True),
    *((64, False),) * 3,
    (128, True),
    *((128, False),) * 2,
    (256, True),
    *((256, False),) * 2,
    (256, True),
)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without weights.

    Where the block halves the map, the shortcut is a 2x2 average. The two paths then differ by a pixel and
    in channels, and dlib adds them as if the smaller were padded by zeros: at the right and the bottom,
    and after the last channel.

    Shape: ``(N, inputs, H, W)`` to ``(N, channels, H', W')`` with ``H' = H``, or ``H // 2`` when halving.
    """

    def __init__(self, inputs: int, channels: int, *, halve: bool) -> None:
        super().__init__()
        # dlib pads only the convolutions of stride 1.
        self.first = nn.Conv2d(inputs, channels, 3, stride=2 if halve else 1, padding=0 if halve else 1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.halve = halve
        self.missing_channels = channels - inputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x).relu())
        if not self.halve:
            return (x + y).relu()
        shortcut = F.avg_pool2d(x, 2)
        rows, columns = shortcut.shape[-2] - y.shape[-2], shortcut.shape[-1] - y.shape[-1]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.missing_channels))
        return (shortcut + F.pad(y, (0, columns, 0, rows))).relu()


class DlibFaceResNet(nn.Module):
    """Embeds aligned faces so that the Euclidean distance tells people apart.

    The affine layers of the published network are folded into its convolutions; its input normalisation
    is the first step of `forward`. The embedding is *not* of unit length: compare by L2, as it was trained.

    Shape:
        - chips: ``(N, 3, 150, 150)`` float RGB in [0, 1], any device and float dtype, aligned to `TEMPLATE`.
        - returns ``(N, 128)``, in the dtype of the weights.

    Source: D. King (2017), http://blog.dlib.net/2017/02/high-quality-face-recognition-with-deep.html;
    weights (CC0) from the ``face_recognition_models`` 0.3.0 sdist.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.stem = nn.Conv2d(3, 32, 7, stride=2)
        blocks = []
        inputs = 32
        for channels, halve in _BLOCKS:
            blocks.append(ResidualBlock(inputs, channels, halve=halve))
            inputs = channels
        self.blocks = nn.Sequential(*blocks)
        self.embed = nn.Linear(inputs, EMBEDDING_DIM, bias=False)

    def forward(self, chips: Tensor) -> Tensor:
        x = (chips * 255.0 - self.mean) / _DIVISOR
        x = F.max_pool2d(self.stem(x).relu(), 3, stride=2)
        embedding: Tensor = self.embed(self.blocks(x).mean(dim=(2, 3)))
        return embedding
