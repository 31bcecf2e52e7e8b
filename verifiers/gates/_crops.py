"""What gates that look at pixels share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def crop_of(view: Tensor, box: Sequence[float]) -> Tensor:
    """The visible part of a box ``x0, y0, x1, y1`` in a picture ``(C, H, W)``, at least one pixel of it."""
    height, width = view.shape[-2:]
    x0, y0 = (min(max(math.floor(v), 0), side - 1) for v, side in zip(box[:2], (width, height), strict=True))
    x1, y1 = (
        min(max(math.ceil(v), low + 1), side) for v, low, side in zip(box[2:], (x0, y0), (width, height), strict=True)
    )
    return view[..., y0:y1, x0:x1]
