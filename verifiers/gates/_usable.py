"""Which faces a recognizer can be asked about: those like the ones that its thresholds were calibrated on."""

from __future__ import annotations

from torch import Tensor

from anondata.regions import USUAL_LANDMARKS, Regions
from anondata.verifiers.alignment import sane_landmarks

# Where the nose lies between the eyes of a face that looks at the camera: halfway. A face turned further than this
# is not compared, because recognizers are calibrated on faces that look ahead.
NOSE_BETWEEN = (0.2, 0.8)


# How far the middle of the landmarks may be from its usual place in the box, relative to the box: of 102 faces none
# was farther than 0.07; that of somebody behind a face, who got its landmarks, was 0.13 off.
OFF_CENTRE = 0.1

# With faces of 28 px and more none of 51 people is missed at the threshold that decides, and 50 are known at the
# strict one; with 18 px 19 are (smiling probes, shrunk). The rest is for light that is not a studio's.
SMALLEST_PX = 40.0


def comparable(regions: Regions, *, smallest_px: float) -> Tensor:
    """``(R,)`` bool: large enough, with landmarks, and looking ahead."""
    large = regions.sizes.prod(dim=1).sqrt() >= smallest_px
    return large & sane_landmarks(regions) & _centred(regions) & _looks_ahead(regions.landmarks)


def _centred(regions: Regions) -> Tensor:
    """``(R,)`` bool: the landmarks lie where those of the box's own face do, not of one beside it."""
    places = (regions.landmarks - regions.boxes[:, None, :2]) / regions.sizes[:, None]
    usual = places.new_tensor(USUAL_LANDMARKS).mean(dim=0)
    return (places.mean(dim=1) - usual).abs().amax(dim=1) <= OFF_CENTRE


def _looks_ahead(landmarks: Tensor) -> Tensor:
    """``(R,)`` bool of ``(R, 5, 2)``: the nose lies between the eyes, along the line through both."""
    left, right, nose = landmarks[:, 0], landmarks[:, 1], landmarks[:, 2]
    line = right - left
    place = ((nose - left) * line).sum(dim=1) / line.square().sum(dim=1).clamp(min=1e-9)
    low, high = NOSE_BETWEEN
    return (place > low) & (place < high)
