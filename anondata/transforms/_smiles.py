"""How much a face smiles, read from the lower half of its picture.

The reading is linear in a histogram of edges, which says how lips and cheeks run and not how light a skin is. Its
weights were learnt by tools/learn_smile.py from generated faces alone.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from anondata.models.registry import bundled_file, check_sha256
from anondata.regions import USUAL_LANDMARKS
from anondata.transforms._faces_blend import affine, mapped, sample, to_ycc

SMILE = "smile.safetensors"
_SMILE_SHA256 = "faaefb49f4cc0c79165500f70af8ac0f85bed1edc73aac03926406b231a87ff2"

AREA = (0.02, 0.98, 0.5, 1.0)  # left, right, top and bottom in an upright face's box: from the nose to the chin
ROWS, COLUMNS, CELL_PX, BINS = 8, 14, 4, 8
EDGE_FLOOR = 0.01  # of luma: fainter edges than that count for less


def smiles(pictures: Tensor, landmarks: Tensor) -> Tensor:
    """``(R,)`` float64, the standard deviations by which faces smile more than generated ones on average do.

    pictures: ``(R, 3, S, S)`` in [0, 1]. landmarks: ``(R, 5, 2)`` float64 in shares of their sides.
    """
    weights = learnt()
    return edges(pictures, landmarks).double().cpu() @ weights["edges"].double() + weights["edges_bias"].double()


@lru_cache(maxsize=1)
def learnt() -> dict[str, Tensor]:
    """What is bundled: the reading of edges, and the direction of a smile in the generator's styles."""
    path = bundled_file(SMILE)
    check_sha256(path, _SMILE_SHA256, name=SMILE)
    return load_file(path)


def edges(pictures: Tensor, landmarks: Tensor) -> Tensor:
    """``(R, 896)`` of length 1: in cells of the lower face, how much edge there is in each of eight directions.

    Source: Dalal, Triggs (2005), doi 10.1109/CVPR.2005.177; directions over a full turn, cells normalised by what
    lies around them.
    """
    luma = _area(pictures, landmarks)
    across = luma[..., 1:-1, 2:] - luma[..., 1:-1, :-2]
    down = luma[..., 2:, 1:-1] - luma[..., :-2, 1:-1]
    turn = torch.atan2(down, across) / (2 * math.pi) * BINS
    centre = torch.arange(BINS, device=luma.device).view(1, BINS, 1, 1)
    near = (1 - ((turn - centre + BINS / 2) % BINS - BINS / 2).abs()).clamp(min=0)
    cells = F.avg_pool2d(near * torch.hypot(across, down), CELL_PX)
    around = F.avg_pool2d(cells.square().sum(dim=1, keepdim=True), 3, stride=1, padding=1).sqrt()
    return F.normalize((cells / (around + EDGE_FLOOR)).flatten(1), dim=1)


def _area(pictures: Tensor, landmarks: Tensor) -> Tensor:
    """Luma of the lower faces, upright, ``(R, 1, 34, 58)``: a pixel more to each side than the cells take."""
    usual = torch.tensor(USUAL_LANDMARKS).to(landmarks).expand(len(landmarks), -1, -1)
    height, width = 2 * (ROWS * CELL_PX + 2), 2 * (COLUMNS * CELL_PX + 2)  # twice as fine, then means
    x = AREA[0] + (torch.arange(width) + 0.5) / width * (AREA[1] - AREA[0])
    y = AREA[2] + (torch.arange(height) + 0.5) / height * (AREA[3] - AREA[2])
    places = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=-1)
    return F.avg_pool2d(sample(to_ycc(pictures)[:, :1], mapped(affine(usual, landmarks), places).to(pictures)), 2)
