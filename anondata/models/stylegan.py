"""MobileStyleGAN: a vector of noise to the portrait of somebody who does not exist, as a plain torch module."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from anondata.errors import WeightsError
from anondata.models.registry import bundled_file, check_sha256

STYLE_DIM = 512
NATIVE_PX = 512
"""Side of the pictures before the last wavelet step, which would double it."""

MAPPING = "mobile-stylegan-mapping"
SYNTHESIS = "mobile-stylegan-synthesis"

MATTE = "mobile_stylegan_matte.safetensors"
"""769 numbers that tell the person from the background.

A logistic regression on the network's own maps of 28 generated faces. Its first labels were those of GrabCut on nine
of them where they were right by eye; then three rounds on its own, closed and in one piece.
"""
_MATTE_SHA256 = "9622f4936523a045eb474ee6b66765351d9c579c8fdf777027fb04604e187a9f"

_MAPPING_LAYERS = 8
_SLOPE = 0.2
_MIMIC_BLOCKS = range(3)  # with all blocks, a smile changes the light and what is behind, too
_FLOAT_BYTES = 4

# Where the parts of the published files begin, in bytes. Both are the constants of an OpenVINO graph, one after the
# other and here and there an integer between them; within a part everything is contiguous.
_FIRST_DENSE, _SECOND_DENSE = 28, 1_050_672
_DENSE_STEP = (STYLE_DIM * STYLE_DIM + STYLE_DIM) * _FLOAT_BYTES
_INPUT, _FIRST_STYLE, _FIRST_BODY = 13_855_156, 12_804_532, 13_887_924
_IMAGE_STYLE, _IMAGE_BODY = 0, 32_022_256
# Of each block: channels in and out, then the offsets of three styles (upsampling, first and second convolution) and
# of what follows them.
_BLOCKS = (
    (512, 512, 11_753_908, 11_491_252, 10_440_628, 23_329_344),
    (512, 512, 9_390_004, 9_127_348, 8_076_724, 24_667_712),
    (512, 512, 7_026_100, 6_763_444, 5_712_820, 26_007_616),
    (512, 512, 4_662_196, 4_399_540, 3_348_912, 27_353_664),
    (512, 256, 2_298_288, 2_035_632, 1_510_316, 28_724_288),
    (256, 128, 985_004, 853_676, 591_016, 29_265_496),
    (128, 64, 328_360, 262_692, 131_360, 29_896_560),
)


class Style(nn.Module):
    """A factor for each channel of a map, from the style vector."""

    def __init__(self, channels: int, gain: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, STYLE_DIM))
        self.bias = nn.Parameter(torch.empty(channels))
        self.gain = gain

    def forward(self, style: Tensor) -> Tensor:
        """``(N, channels, 1, 1)``."""
        return (self.gain * F.linear(style, self.weight, self.bias))[:, :, None, None]


class StyledConv(nn.Module):
    """A styled convolution, dense (3x3) or separable (3x3 a channel, then 1x1), with fixed noise and a bias."""

    def __init__(self, inputs: int, outputs: int, side: int, *, separable: bool) -> None:
        super().__init__()
        self.style = Style(inputs, 1 / math.sqrt(9 * inputs))
        self.depthwise = nn.Parameter(torch.empty(inputs, 1, 3, 3)) if separable else None
        kernel = 1 if separable else 3
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.noise = nn.Parameter(torch.empty(1, 1, side, side))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        factors = self.style(style)
        if self.depthwise is None:
            out = F.conv2d(maps * factors, self.weight, self.bias, padding=1)
        else:
            # Factors go to the small weights: maps of 512 px are what takes the time.
            kernels = (factors[:, :, None] * self.depthwise).flatten(0, 1)
            each = F.conv2d(maps.flatten(0, 1)[None], kernels, padding=1, groups=len(kernels))
            # A product of matrices is what a 1x1 convolution is; on one thread torch takes far longer for the latter.
            weight = self.weight.flatten(1).expand(len(maps), -1, -1)
            mixed = torch.baddbmm(self.bias[:, None], weight, each.reshape(len(maps), weight.shape[2], -1))
            out = mixed.reshape(len(maps), -1, *maps.shape[2:])
        return F.leaky_relu(out.add_(self.noise), _SLOPE, inplace=True)


class Block(nn.Module):
    """Doubles a map's sides by an inverse Haar wavelet, then two separable styled convolutions."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.style = Style(inputs, 1.0)
        self.first = StyledConv(inputs // 4, outputs, side, separable=True)
        self.second = StyledConv(outputs, outputs, side, separable=True)

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        maps = inverse_haar(maps * self.style(style))
        out: Tensor = self.second(self.first(maps, style), style)
        return out


class MobileStyleGAN(nn.Module):
    """StyleGAN2 distilled into separable convolutions and wavelets.

    Shape: noise ``(N, 512)`` standard normal to pictures ``(N, 3, 512, 512)`` RGB in [0, 1], floats on the device of
    the parameters. The published network ends in one more wavelet step, to 1024 px; leaving it out is exactly the
    mean of each 2x2 of its pixels.

    Source: Belousov (2021), MobileStyleGAN, arXiv:2104.04767.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.ModuleList(nn.Linear(STYLE_DIM, STYLE_DIM) for _ in range(_MAPPING_LAYERS))
        self.input = nn.Parameter(torch.empty(1, STYLE_DIM, 4, 4))
        self.first = StyledConv(STYLE_DIM, STYLE_DIM, 4, separable=False)
        self.blocks = nn.ModuleList(
            Block(inputs, outputs, 8 << level) for level, (inputs, outputs, *_) in enumerate(_BLOCKS)
        )
        channels = _BLOCKS[-1][1]
        self.image_style = Style(channels, 1 / math.sqrt(channels))
        self.image = nn.Conv2d(channels, 12, 1)
        self.matte_coarse, self.matte_fine, self.matte_bias = (
            nn.Parameter(torch.zeros(size)) for size in (_BLOCKS[3][1], _BLOCKS[4][1], 1)
        )

    def styles(self, noise: Tensor) -> Tensor:
        """``(N, 512)`` style vectors of noise ``(N, 512)``."""
        style = noise * (noise.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for dense in self.mapping:
            style = F.leaky_relu(dense(style), _SLOPE) * math.sqrt(2)
        return style

    def portraits(self, style: Tensor, mimic: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pictures ``(N, 3, 512, 512)`` and mattes ``(N, 1, 128, 128)`` of style vectors, both in [0, 1].

        mimic: other style vectors for the maps of 8 to 32 px, which say what a face does; light and colours follow
        the first ones.

        A matte says where the person is, hair included, and not what is behind: a linear probe of what the network
        computes at 64 and 128 px, see :data:`MATTE`.
        """
        maps, seen = self.first(self.input.expand(len(style), -1, -1, -1), style), {}
        for level, block in enumerate(self.blocks):
            maps = block(maps, style if mimic is None or level not in _MIMIC_BLOCKS else mimic)
            seen[maps.shape[-1]] = maps
        coarse = (seen[64] * self.matte_coarse[:, None, None]).sum(dim=1, keepdim=True)
        fine = (seen[128] * self.matte_fine[:, None, None]).sum(dim=1, keepdim=True)
        matte = torch.sigmoid(F.interpolate(coarse, scale_factor=2, mode="bilinear") + fine + self.matte_bias)
        # Of the bands only the low one: in an orthonormal Haar wavelet it is twice the mean of four pixels.
        weight, bias = (parameter[:3] for parameter in self.image.parameters())
        mixing = weight.flatten(1) * self.image_style(style)[:, None, :, 0, 0]
        low = torch.baddbmm(bias[:, None], mixing, maps.flatten(2)).reshape(len(maps), 3, *maps.shape[2:])
        return (low / 4 + 0.5).clamp(0, 1), matte

    def forward(self, noise: Tensor) -> Tensor:
        return self.portraits(self.styles(noise))[0]


def inverse_haar(bands: Tensor) -> Tensor:
    """``(N, 4 C, h, w)`` bands of an orthonormal Haar wavelet to ``(N, C, 2 h, 2 w)``.

    The first C channels are the low band; then three a channel: high down, high across, high in both.
    """
    n, channels, height, width = bands.shape
    low = bands[:, : channels // 4]
    down, across, both = bands[:, channels // 4 :].reshape(n, channels // 4, 3, height, width).unbind(2)
    upper, lower, upper_tilt, lower_tilt = low + down, low - down, across + both, across - both
    corners = [upper + upper_tilt, upper - upper_tilt, lower + lower_tilt, lower - lower_tilt]
    return F.pixel_shuffle(torch.stack(corners, dim=2).flatten(1, 2), 2) / 2


def read_generator(mapping: Path, synthesis: Path) -> MobileStyleGAN:
    """The network with the published weights, in evaluation mode, float32 on the CPU, its parameters frozen.

    mapping, synthesis: the files that the registry knows as :data:`MAPPING` and :data:`SYNTHESIS`.

    Raises:
        WeightsError: a file is too short.
    """
    network = MobileStyleGAN()
    dense, body = _Constants(mapping), _Constants(synthesis)
    for layer, linear in enumerate(cast("Iterable[nn.Linear]", network.mapping)):
        start = _FIRST_DENSE if layer == 0 else _SECOND_DENSE + (layer - 1) * _DENSE_STEP
        dense.fill(start, [linear.weight, linear.bias])
    body.fill(_INPUT, [network.input])
    _fill_conv(body, network.first, _FIRST_STYLE, _FIRST_BODY)
    for block, (*_, up, first, second, rest) in zip(cast("Iterable[Block]", network.blocks), _BLOCKS, strict=True):
        body.fill(up, [block.style.weight, block.style.bias])
        after = _fill_conv(body, block.first, first, rest)
        _fill_conv(body, block.second, second, after)
    body.fill(_IMAGE_STYLE, [network.image_style.weight, network.image_style.bias])
    body.fill(_IMAGE_BODY, list(network.image.parameters()))
    matte = bundled_file(MATTE)
    check_sha256(matte, _MATTE_SHA256, name=MATTE)
    for name, values in load_file(matte).items():
        getattr(network, f"matte_{name}").data.copy_(values)
    return network.eval().requires_grad_(False)


def _fill_conv(source: _Constants, conv: StyledConv, style: int, body: int) -> int:
    """Where the next convolution begins."""
    source.fill(style, [conv.style.weight, conv.style.bias])
    separable = [] if conv.depthwise is None else [conv.depthwise]
    return source.fill(body, [*separable, conv.weight, conv.noise, conv.bias])


class _Constants:
    """A file of little-endian floats, read at byte offsets."""

    def __init__(self, path: Path) -> None:
        self._bytes = path.read_bytes()

    def fill(self, start: int, parameters: list[Tensor]) -> int:
        """Fills parameters with what lies one after the other from ``start`` on; where the last one ends."""
        for parameter in parameters:
            stop = start + parameter.numel() * _FLOAT_BYTES
            if stop > len(self._bytes):
                raise WeightsError(
                    f"a file of MobileStyleGAN's weights has {len(self._bytes)} bytes, expected {stop} or more; "
                    f"run `anondata weights pull {SYNTHESIS}` again"
                )
            values = np.frombuffer(self._bytes, "<f4", parameter.numel(), start).astype(np.float32)
            parameter.data.copy_(torch.from_numpy(values).reshape(parameter.shape))
            start = stop
        return start
