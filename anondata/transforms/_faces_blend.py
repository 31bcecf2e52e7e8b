"""Pure functions that lay one face over another: align by landmarks, match colours, blend without a seam.

Places are x, y as shares of a picture's sides. Everything is computed a row at a time in effect: no row's result
depends on the others of its batch.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from anondata.crops import Shape, norm
from anondata.regions import USUAL_LANDMARKS

MIRRORED = (1, 0, 2, 4, 3)
MIN_SPREAD = 0.15  # of the box's side; the landmarks of real faces spread over about half
STIFFNESS = 0.02  # of the thin plate: 0 meets every landmark exactly, and bends more for it

# Eyes, nose and mouth corners of a head that looks ahead, in distances of the eyes: right, down, to the viewer.
HEAD = ((-0.5, 0.0, 0.0), (0.5, 0.0, 0.0), (0.0, 0.57, 0.45), (-0.42, 1.03, 0.15), (0.42, 1.03, 0.15))
# Degrees, in steps of which a head's tilt is kept, if it is. What is finer tells people apart, such as how long a
# nose is: two releases of exact poses named 12 % of 51 people, where chance is 2.
TILT_STEP = 30.0
FRAME = 0.05  # width of what fades along the border of a member's picture, relative to its side
RIM = 0.12  # of the covered area's half side: over this a face fades in along its edge
_LUMA = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def usual_landmarks(count: int, extent: float) -> Tensor:
    """``(count, 5, 2)`` where landmarks lie in a crop that reaches ``extent`` times its region."""
    return ((torch.tensor(USUAL_LANDMARKS) - 0.5) / extent + 0.5).expand(count, -1, -1)


def landmarks_or_usual(landmarks: Tensor, extent: float) -> Tensor:
    """``(R, 5, 2)`` float64 on the CPU; where they are unknown or cannot be a face's, the usual places."""
    exact = landmarks.detach().to("cpu", torch.float64)
    known = exact.nan_to_num(0.0, 0.0, 0.0)
    near = (known - 0.5).abs().flatten(1).amax(dim=1) <= 1.0
    centred = known - known.mean(dim=1, keepdim=True)
    # The lesser principal spread: landmarks on one line define no face.
    xx, yy = centred[..., 0].square().mean(1), centred[..., 1].square().mean(1)
    xy = (centred[..., 0] * centred[..., 1]).mean(1)
    least = ((xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).sqrt()).clamp(min=0).sqrt()
    good = exact.isfinite().flatten(1).all(dim=1) & near & (least >= MIN_SPREAD / extent / 2)
    return torch.where(good[:, None, None], known, usual_landmarks(len(known), extent).to(known))


def affine(source: Tensor, target: Tensor) -> Tensor:
    """The affine map ``(R, 2, 3)`` that brings ``source (R, P, 2)`` closest to ``target (R, P, 2)``."""
    ones = torch.ones_like(source[..., :1])
    solved: Tensor = torch.linalg.pinv(torch.cat([source, ones], dim=2)) @ target
    return solved.transpose(1, 2)


class Pose(NamedTuple):
    """Where ``R`` heads are and how they are turned, under weak perspective.

    project: ``(R, 2, 3)`` scaled rows of a rotation, from :data:`HEAD` to the picture. shift: ``(R, 1, 2)``.
    """

    project: Tensor
    shift: Tensor

    @property
    def scale(self) -> Tensor:
        """``(R,)`` distance of the eyes of a head that looks ahead."""
        size: Tensor = self.project.norm(dim=(1, 2)) / 2**0.5
        return size

    @property
    def roll(self) -> Tensor:
        """``(R, 2, 2)`` rotation in the picture's plane."""
        return _rotation(self.angle)

    @property
    def angle(self) -> Tensor:
        """``(R,)`` of that rotation, in radians. What is left when it is undone turns about a line in the picture."""
        return torch.atan2(
            self.project[:, 1, 0] - self.project[:, 0, 1], self.project[:, 0, 0] + self.project[:, 1, 1]
        )

    @property
    def turn(self) -> Tensor:
        """``(R, 2)`` how far the nose points to the side and down, as a sine each; of an upright head."""
        nose = self.project[:, :, 2:] / self.scale.clamp(min=1e-9)[:, None, None]
        turned: Tensor = (self.roll.transpose(1, 2) @ nose)[:, :, 0]
        return turned


def pose_of(landmarks: Tensor) -> Pose:
    """The poses in which one and the same head comes closest to landmarks ``(R, 5, 2)``.

    Least squares over affine cameras, then the nearest scaled rotation: Tomasi, Kanade (1992) call the camera
    scaled orthographic. What makes one person's landmarks differ from another's in the same pose is not in it.
    """
    model = landmarks.new_tensor(HEAD)
    model = model - model.mean(dim=0)
    middle = landmarks.mean(dim=1, keepdim=True)
    camera = (torch.linalg.pinv(model) @ (landmarks - middle)).transpose(1, 2)
    left, sizes, right = torch.linalg.svd(camera, full_matrices=False)
    return Pose(sizes.mean(dim=1)[:, None, None] * (left @ right), middle)


def coarse(angle: Tensor) -> Tensor:
    """Tilts in radians, in steps of 30 degrees."""
    step = math.radians(TILT_STEP)
    return step * (angle / step).round()


def ahead(angle: Tensor, extent: float) -> Pose:
    """Heads that look ahead, tilted by angles ``(R,)`` in radians, where heads usually lie.

    extent: how far crops reach, in sides of their regions.
    """
    usual = pose_of(usual_landmarks(1, extent).to(angle))
    roll = _rotation(angle)
    shift = (usual.shift - 0.5) @ roll.transpose(1, 2) + 0.5
    return Pose(usual.scale[:, None, None] * (roll @ torch.eye(2, 3).to(angle)), shift)


def _rotation(angle: Tensor) -> Tensor:
    """``(R, 2, 2)`` by angles ``(R,)``."""
    x, y = angle.cos(), angle.sin()
    return torch.stack([torch.stack([x, -y], 1), torch.stack([y, x], 1)], 1)


def posed(landmarks: Tensor, own: Pose, other: Pose) -> Tensor:
    """Landmarks ``(R, 5, 2)`` of heads brought from their own pose to another; what makes them theirs stays."""
    model = landmarks.new_tensor(HEAD)
    model = model - model.mean(dim=0)
    theirs = landmarks - (model @ own.project.transpose(1, 2) + own.shift)
    turn = other.roll @ own.roll.transpose(1, 2) * (other.scale / own.scale.clamp(min=1e-9))[:, None, None]
    placed: Tensor = model @ other.project.transpose(1, 2) + other.shift + theirs @ turn.transpose(1, 2)
    return placed


def centres(side: int, device: torch.device | str = "cpu") -> Tensor:
    """``(side, side, 2)`` x, y of the centres of a square picture's pixels."""
    line = (torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1)


def mapped(transform: Tensor, places: Tensor) -> Tensor:
    """``(R, H, W, 2)``: ``places (H, W, 2)`` under affine maps ``(R, 2, 3)``."""
    x, y = places[None, ..., 0], places[None, ..., 1]
    a = transform.to(places)[:, :, :, None, None]
    return torch.stack([a[:, i, 0] * x + a[:, i, 1] * y + a[:, i, 2] for i in (0, 1)], dim=-1)


def warp(pictures: Tensor, back: Tensor, side: int) -> Tensor:
    """``(R, C, side, side)``: pixels of ``pictures (R, C, h, w)`` from where affine maps ``back (R, 2, 3)`` point."""
    return sample(pictures, mapped(back, centres(side, pictures.device)))


def sample(pictures: Tensor, places: Tensor) -> Tensor:
    """Pixels of ``pictures (R, C, h, w)`` at ``places (R, H, W, 2)``; beyond the border it is repeated."""
    return F.grid_sample(pictures, places * 2 - 1, mode="bilinear", padding_mode="border", align_corners=False)


def trimmed(mattes: Tensor) -> Tensor:
    """Mattes ``(R, 1, S, S)`` drawn in a little, so that no rim of the old background comes along."""
    shrunk = -F.max_pool2d(-mattes, 5, stride=1, padding=2)
    soft = F.avg_pool2d(shrunk, 3, stride=1, padding=1, count_include_pad=False)
    return smooth((soft - 0.35) / 0.5)


def within(places: Tensor) -> Tensor:
    """``(R, 1, H, W)``: 1 where ``places (R, H, W, 2)`` lie in their picture, falling to 0 towards its border."""
    return smooth((0.5 - (places - 0.5).abs()).amin(dim=-1) / FRAME)[:, None]


def smooth(ramp: Tensor) -> Tensor:
    """A ramp from 0 to 1 with soft ends."""
    bounded = ramp.clamp(0, 1)
    return bounded * bounded * (3 - 2 * bounded)


def thin_plate(source: Tensor, target: Tensor, side: int) -> Tensor:
    """``(R, side, side, 2)``: where each pixel goes under the smoothest map that brings source to target landmarks.

    source, target: ``(R, 5, 2)`` float64 on the CPU. Source: Bookstein (1989), doi 10.1109/34.24792.
    """
    rows, points = source.shape[:2]
    system = source.new_zeros(rows, points + 3, points + 3)
    system[:, :points, :points] = _kernel((source[:, :, None] - source[:, None]).square().sum(-1))
    scale = (source - source.mean(1, keepdim=True)).square().sum(-1).mean(1)  # stiffness in units of the face
    system[:, :points, :points] += STIFFNESS * scale[:, None, None] * torch.eye(points).to(source)
    affine_part = torch.cat([torch.ones_like(source[..., :1]), source], dim=2)
    system[:, :points, points:], system[:, points:, :points] = affine_part, affine_part.transpose(1, 2)
    wanted = torch.cat([target, target.new_zeros(rows, 3, 2)], dim=1)
    solved = torch.linalg.solve(system, wanted).float()
    places, knots = centres(side), source.float()
    back = solved[:, points:].transpose(1, 2)[:, :, [1, 2, 0]]
    out = mapped(back, places)
    for knot in range(points):  # one at a time: five times less memory
        distance = (places[None] - knots[:, knot, None, None]).square().sum(-1)
        out += _kernel(distance)[..., None] * solved[:, knot, None, None]
    return out


def _kernel(squared: Tensor) -> Tensor:
    return 0.5 * squared * squared.clamp(min=1e-12).log()


def canonical(landmarks: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Of each pixel, ``(R, side, side)`` each: where it lies across and down an upright face's detector box."""
    usual = torch.tensor(USUAL_LANDMARKS).to(landmarks).expand(len(landmarks), -1, -1)
    where = mapped(affine(landmarks, usual), centres(side))
    return where[..., 0], where[..., 1]


def face_mask(landmarks: Tensor, side: int) -> Tensor:
    """``(R, 1, side, side)`` float: 1 in the oval from brows to chin, falling softly to 0 around it."""
    distance = _oval(*canonical(landmarks, side))
    return ((1.15 - distance) / 0.3).clamp(0, 1)[:, None]


def _oval(across: Tensor, down: Tensor) -> Tensor:
    return (((across - 0.5) / 0.44).square() + ((down - 0.57) / 0.46).square()).sqrt()


def head_mask(landmarks: Tensor, side: int) -> Tensor:
    """``(R, 1, side, side)`` float: 1 on head and neck, falling to 0 beside the chin and the neck.

    Clothes stay behind: they seldom go with what is below the covered area.
    """
    across, down = canonical(landmarks, side)
    head = torch.maximum(smooth((1.3 - _oval(across, down)) / 0.25), smooth((0.95 - down) / 0.3))
    neck = smooth((0.45 - (across - 0.5).abs()) / 0.2) * smooth((1.18 - down) / 0.2)
    return torch.maximum(head, neck)[:, None]


@lru_cache(maxsize=32)
def depth_within(side: int, shape: Shape, share: float) -> Tensor:
    """``(side, side)``: how deep each pixel of a crop lies in what is replaced, 1 in the middle, 0 and less outside.

    The covered area takes ``share`` of each side. Half of what lies around it is replaced, too: crops are cut in
    whole pixels and resampled, and no pixel of the covered area may leave a trace in what stays. Where nothing lies
    around, all is replaced and as deep as can be.
    """
    if share >= 1 - 1e-6:
        return torch.ones(side, side)
    u = ((torch.arange(side, dtype=torch.float32) + 0.5) / side * 2 - 1).abs()
    return 1 - norm(u, u, shape) / ((1 + share) / 2)


def mean_within(images: Tensor, weight: Tensor) -> Tensor:
    """Mean ``(R, C, 1, 1)`` of ``(R, C, H, W)`` under weights ``(R, 1, H, W)``."""
    total = weight.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    return (images * weight).sum(dim=(2, 3), keepdim=True) / total


def to_ycc(images: Tensor) -> Tensor:
    """Luma and two differences of colour of ``(R, 3, H, W)`` (ITU-R BT.601)."""
    r, g, b = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return torch.cat([wr * r + wg * g + wb * b for wr, wg, wb in _LUMA], dim=1)


def from_ycc(images: Tensor) -> Tensor:
    y, cb, cr = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return torch.cat([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], dim=1)


def recoloured(faces: Tensor, mean: Tensor, weight: Tensor) -> Tensor:
    """Faces ``(R, 3, H, W)`` whose colours have a given mean under weights, in YCbCr, as far as that looks natural.

    mean: ``(R, 3, 1, 1)``. The shift is bounded: teeth and eyes are shifted with the skin. Colours are drawn nearer
    to grey as the skin is, so that black hair does not turn green.
    """
    ycc = to_ycc(faces)
    own_mean = mean_within(ycc, weight)
    vivid, own_vivid = (m[:, 1:].norm(dim=1, keepdim=True) for m in (mean, own_mean))
    gain = (vivid / own_vivid.clamp(min=1e-3)).clamp(0.5, 1.0).expand(-1, 2, -1, -1)
    limit = ycc.new_tensor([0.35, 0.08, 0.08])[None, :, None, None]
    shift = torch.minimum(torch.maximum(mean - own_mean, -limit), limit)
    return from_ycc((ycc - own_mean) * torch.cat([torch.ones_like(gain[:, :1]), gain], 1) + own_mean + shift).clamp(
        0, 1
    )


def blended(crops: Tensor, faces: Tensor, mattes: Tensor, depth: Tensor, ground: Tensor) -> Tensor:
    """``crops`` with ``faces`` before another background.

    crops, faces, ground: ``(R, 3, S, S)`` in [0, 1]. mattes: ``(R, 1, S, S)`` in [0, 1]. depth: ``(S, S)``, see
    :func:`depth_within`; where it is positive nothing is taken from ``crops``, and faces fade in over RIM of it.
    """
    inside = depth > 0
    if bool(inside.all()):
        return faces
    return torch.where(inside, torch.lerp(ground, faces, mattes * smooth(depth / RIM)), crops)
