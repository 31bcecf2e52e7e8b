"""Masks: what they span, and that nothing of the covered area flows into an inpainting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

from anondata.components import build
from anondata.content.images import ImageContent
from anondata.crops import outer_rects, resize
from anondata.errors import PolicyError, ShapeError
from anondata.regions import Regions
from anondata.transforms import Mask
from anondata.transforms._membrane import membrane
from anondata.transforms.mask import around, surely_around


@pytest.mark.parametrize(
    ("params", "message"),
    [
        *[({"by": bad}, "by must be 'inpaint', 'mean' or 'solid', got") for bad in ("median", None, True)],
        *[
            ({"color": bad}, "color must be three numbers in [0, 1], got")
            for bad in ("mean", (0, 0), (0, 0, 2), (0, 0, -0.1), (0, 0, math.nan), (True, 0, 0), None, 0.5)
        ],
    ],
    ids=str,
)
def test_bad_parameters_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        build("technique", "mask", params)
    assert str(raised.value).startswith(f"technique 'mask': {message}")


@pytest.mark.parametrize(
    ("params", "erases"),
    [
        ({"by": "solid"}, True),
        ({"by": "solid", "coverage": 1.2}, False),
        ({"by": "mean"}, False),
        ({"by": "inpaint"}, False),
    ],
    ids=str,
)
def test_only_one_colour_erases(params: dict[str, Any], erases: bool) -> None:
    assert Mask(**params).erases is erases


def test_a_solid_mask_is_its_colour(face_crop: Tensor) -> None:
    out = Mask("solid", color=(0.25, 0.5, 0.75))(face_crop)
    assert torch.equal(out, torch.tensor([0.25, 0.5, 0.75]).view(1, 3, 1, 1).expand_as(face_crop))


def test_a_mean_mask_is_the_mean_of_the_crop(face_crop: Tensor) -> None:
    expected = face_crop[0].double().numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(Mask("mean")(face_crop)[0, :, 3, 5].numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_bare_crops_have_no_surroundings_to_inpaint_from(channels: int) -> None:
    assert (Mask(color=(0.25, 0.25, 0.25))(torch.rand(2, channels, 64, 64)) == 0.25).all()


# --- the membrane --------------------------------------------------------------------------------------------------


def exact(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Laplace's equation on the unknown pixels by scipy's direct solver."""
    (height, width), (ys, xs) = known.shape, np.nonzero(~known)
    number = -np.ones((height, width), int)
    number[ys, xs] = np.arange(len(ys))
    entries, right = [], np.zeros((len(ys), len(values)))
    for n, (y, x) in enumerate(zip(ys, xs, strict=True)):
        near = [(y + dy, x + dx) for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        near = [(a, b) for a, b in near if 0 <= a < height and 0 <= b < width]
        entries.append((n, n, float(len(near))))
        for a, b in near:
            if known[a, b]:
                right[n] += values[:, a, b]
            else:
                entries.append((n, number[a, b], -1.0))
    rows, columns, weights = zip(*entries, strict=True)
    out = values.copy()
    out[:, ys, xs] = spsolve(coo_matrix((weights, (rows, columns))).tocsr(), right).T
    return out


def hole(kind: str) -> Tensor:
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    return {
        "square": ((x - 63.5).abs() > 32) | ((y - 63.5).abs() > 32),
        "off the grid": (x < 31) | (x > 93) | (y < 33) | (y > 96),
        "ellipse": ((x - 60) / 31).square() + ((y - 64) / 40).square() > 1,
        "known at the bottom only": y >= 100,
        "two": ((x - 35).abs() > 20) & ((x - 95).abs() > 15),
    }[kind][None, None]


@pytest.mark.parametrize("kind", ["square", "off the grid", "ellipse", "known at the bottom only", "two"])
def test_a_membrane_is_harmonic_to_a_few_grey_levels(astronaut: Tensor, kind: str) -> None:
    crop = resize(astronaut[None, :, 0:270, 100:350].float() / 255, 128, 128)
    known = hole(kind)
    out = membrane(crop, known)[0].numpy()
    difference = np.abs(out - exact(crop[0].double().numpy(), known[0, 0].numpy())) * 255
    assert difference.max() < 6
    assert difference[:, ~known[0, 0].numpy()].mean() < 2.5
    np.testing.assert_array_equal(out[:, known[0, 0].numpy()], crop[0].numpy()[:, known[0, 0].numpy()])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (17, 31), (64, 5)])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_a_membrane_stays_between_what_is_known(shape: tuple[int, int], share: float) -> None:
    generator = torch.Generator().manual_seed(3)
    known = torch.rand(2, 1, *shape, generator=generator) < share
    values = (0.4 + 0.2 * torch.rand(2, 3, *shape, generator=generator)).where(known, torch.tensor(9.0))
    out = membrane(values, known)
    for row, mask in zip(out, known, strict=True):
        assert not mask.any() or (row.min() >= 0.4 and row.max() <= 0.6)
        assert mask.any() or (row == 0).all()


def test_a_plain_surrounding_spans_a_plain_membrane() -> None:
    out = membrane(torch.full((1, 3, 128, 128), 0.7), hole("ellipse"))
    assert (out - 0.7).abs().max() < 1e-4


# --- nothing flows in ----------------------------------------------------------------------------------------------

PLACES: dict[str, list[float]] = {
    "inside": [90.3, 70.2, 150.9, 140.4],
    "at the left border": [-3.0, 60, 40, 120],
    "at the top right corner": [240.0, -10, 300.5, 60],
    "most of the picture": [20.0, 10, 280, 215],
    "beyond the picture on all sides": [-50.0, -50, 400, 300],
    "mostly out of the frame": [-260.0, 30, 40, 90],
    "far out": [-4000.0, 30, 60, 90],
    "small": [100.2, 100.7, 109.1, 110.3],
    "thin": [100.0, 50, 200, 59],
}


def covered_mask(technique: Mask, box: Tensor, shape: tuple[int, int]) -> Tensor:
    """The covered area's pixels ``(H, W)``, by the box alone."""
    x0, y0, x1, y1 = box[0].tolist()
    dx, dy = (x1 - x0) * (technique.coverage - 1) / 2, (y1 - y0) * (technique.coverage - 1) / 2
    out = torch.zeros(shape, dtype=torch.bool)
    top, left = max(0, math.floor(y0 - dy)), max(0, math.floor(x0 - dx))
    out[top : max(0, math.ceil(y1 + dy)), left : max(0, math.ceil(x1 + dx))] = True
    return out


def two_insides(technique: Mask, box: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two pictures that are equal but for the covered area, and that area."""
    generator = torch.Generator().manual_seed(seed)
    one, other = (torch.randint(0, 256, (3, 220, 300), generator=generator).byte() for _ in range(2))
    mask = covered_mask(technique, box, (220, 300))
    return one, torch.where(mask, other, one), mask


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("feather", [0.0, 0.1])
@pytest.mark.parametrize("seed", [1, 2])
def test_an_inpainted_picture_does_not_depend_on_what_was_covered(place: str, feather: float, seed: int) -> None:
    technique, box = Mask(feather=feather), torch.tensor([PLACES[place]])
    one, two, mask = two_insides(technique, box, seed)
    assert not torch.equal(one, two)
    results = [technique.change_regions(picture, box) for picture in (one, two)]
    assert torch.equal(results[0][:, mask], results[1][:, mask])
    assert torch.equal(results[0], results[1])


def test_nor_do_the_smallest_boxes() -> None:
    for side in (0.0, 0.4, 1.0, 2.5, 4.0):
        box = torch.tensor([[50.3, 60.6, 50.3 + side, 60.6 + side]])
        one, two, mask = two_insides(Mask(), box, 5)
        results = [Mask().change_regions(picture, box) for picture in (one, two)]
        assert torch.equal(results[0][:, mask], results[1][:, mask])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("feather", [0.0, 0.1])
def test_nor_does_a_patch_that_knows_the_crop_alone(place: str, feather: float) -> None:
    technique, box = Mask(feather=feather), torch.tensor([PLACES[place]])
    content, seen = ImageContent(), []
    *pictures, mask = two_insides(technique, box, 3)
    region = Regions(torch.zeros(1, dtype=torch.long), box, torch.full((1, 5, 2), math.nan), torch.ones(1), ("face",))
    for picture in pictures:
        media = content.decode(picture, torch.device("cpu"))
        seen.append(content.compose(media, content.change([media], region, technique, [0])).pixels[:, mask])
    assert torch.equal(*seen)


def test_no_light_from_the_covered_area_reaches_the_rim(astronaut: Tensor, face_box: Tensor) -> None:
    """Every other pixel of the covered area is black or white: any mixing would show as stripes."""
    technique, picture = Mask(), torch.full_like(astronaut, 128)
    mask = covered_mask(technique, face_box, (512, 512))
    stripes = (torch.arange(512) % 2 * 255).byte().expand(3, 512, 512)
    out = technique.change_regions(torch.where(mask, stripes, picture), face_box)
    assert ((out.int() - 128).abs()[:, mask] <= 1).all()


@pytest.mark.parametrize("shape", ["rectangle", "ellipse"])
def test_an_inpainting_meets_its_surroundings_without_a_seam(astronaut: Tensor, face_box: Tensor, shape: Any) -> None:
    """Along the edge of the covered area, steps are no higher than twice the highest in the picture."""
    smooth = resize(resize(astronaut[None].float() / 255, 12, 12), 512, 512)[0]
    out = Mask(shape=shape).change_regions(smooth, face_box)
    solid = Mask("solid", shape=shape).change_regions(smooth, face_box)
    before, after, flat = (max(p.diff(dim=1).abs().max(), p.diff(dim=2).abs().max()) for p in (smooth, out, solid))
    assert after <= 2 * before
    assert flat > 5 * before


def test_a_plain_background_is_inpainted_in_its_colour(face_box: Tensor) -> None:
    picture = torch.full((3, 512, 512), 200, dtype=torch.uint8)
    x0, y0, x1, y1 = (int(v) for v in face_box[0])
    picture[:, y0:y1, x0:x1] = 0
    assert ((Mask().change_regions(picture, face_box).int() - 200).abs() <= 1).all()


def test_what_is_known_lies_around_and_in_the_picture() -> None:
    technique, box = Mask(), torch.tensor([[0.0, 40, 60, 100]])
    rects = outer_rects(box, technique.extent, torch.tensor([200, 300]))
    weight = technique.weight(box[0].tolist(), rects[0].tolist())
    known = around([weight], rects, torch.tensor([200, 300]), crop_px=128)[0, 0]
    assert rects.tolist() == [[-48, -8, 108, 148]]  # 156 pixels on 128
    assert not known[:, :39].any()  # beyond the left border
    assert not known[:6].any()  # beyond the upper one
    assert not known[32:96, 39:96].any()  # covered
    assert known[9:31, 42:].all()
    assert known[98:, 42:].all()
    assert known[9:, 98:].all()


def test_a_weight_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match="expected a weight for each pixel"):
        around([torch.zeros(3, 3)], torch.tensor([[0, 0, 4, 4]]), torch.tensor([9, 9]), crop_px=8)


def test_a_crop_whose_sides_repeat_is_known_nowhere() -> None:
    assert not surely_around(torch.rand(1, 3, 1, 1).expand(1, 3, 128, 128), covered=0.5).any()
    assert not surely_around(torch.rand(1, 3, 128, 128), covered=1.0).any()
    one_side = torch.rand(1, 3, 128, 128)
    one_side[..., :40] = one_side[..., :1]
    known = surely_around(one_side, covered=0.5)[0, 0]
    assert not known[:, :16].any()
    assert known[:16, 16:].all()
    assert known[:, 112:].all()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("params", [{}, {"feather": 0.0}, {"shape": "ellipse"}], ids=str)
def test_the_engine_is_told_the_surroundings_too(place: str, params: dict[str, Any]) -> None:
    technique, box = Mask(**params), torch.tensor([PLACES[place]])
    picture = torch.randint(0, 256, (3, 220, 300), generator=torch.Generator().manual_seed(9)).byte()
    content, frame = ImageContent(), torch.device("cpu")
    region = Regions(torch.zeros(1, dtype=torch.long), box, torch.full((1, 5, 2), math.nan), torch.ones(1), ("face",))
    media = content.decode(picture, frame)
    out = content.compose(media, content.change([media], region, technique, [0])).pixels
    assert torch.equal(out, technique.change_regions(picture, region.outlined().boxes))
