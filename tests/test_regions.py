"""The flat structure that all regions of a batch share."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest
import torch

from anondata.errors import ShapeError
from anondata.regions import OUTLINES, Regions, cat_regions, empty_regions


def regions(count: int = 4) -> Regions:
    place = torch.arange(count, dtype=torch.float32)
    return Regions(
        image=torch.arange(count) % 2,
        boxes=torch.stack([place, place, place + 10, place + 20], dim=1),
        landmarks=place[:, None, None].expand(count, 5, 2).clone(),
        scores=place / 10,
        kinds=tuple("face" if i % 2 else "plate" for i in range(count)),
    )


def same(one: Regions, two: Regions) -> bool:
    tensors = ("image", "boxes", "landmarks", "scores")
    return one.kinds == two.kinds and all(torch.equal(getattr(one, n), getattr(two, n)) for n in tensors)


@pytest.mark.parametrize(
    ("field", "shape", "expected"),
    [
        ("image", (3,), r"image has shape \(3,\), expected \(4,\) for 4 kinds"),
        ("image", (4, 1), r"image has shape \(4, 1\), expected \(4,\) for 4 kinds"),
        ("boxes", (4, 5), r"boxes has shape \(4, 5\), expected \(4, 4\) for 4 kinds"),
        ("landmarks", (4, 68, 2), r"landmarks has shape \(4, 68, 2\), expected \(4, 5, 2\) for 4 kinds"),
        ("scores", (), r"scores has shape \(\), expected \(4,\) for 4 kinds"),
    ],
)
def test_a_tensor_of_another_shape_is_refused(field: str, shape: tuple[int, ...], expected: str) -> None:
    wrong: dict[str, Any] = {field: torch.zeros(shape, dtype=torch.int64)}
    with pytest.raises(ShapeError, match=f"regions: {expected}"):
        dataclasses.replace(regions(), **wrong)


def test_kinds_of_another_number_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"image has shape \(4,\), expected \(1,\) for 1 kinds"):
        dataclasses.replace(regions(), kinds=("face",))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.bool], ids=str)
def test_image_indices_that_are_no_int64_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ShapeError, match=f"regions: image is {dtype}, expected torch.int64"):
        dataclasses.replace(regions(), image=regions().image.to(dtype))


def test_fields_cannot_be_assigned() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        regions().kinds = ()  # type: ignore[misc]  # assigning is the point


def test_the_length_is_the_number_of_regions() -> None:
    assert [len(regions(n)) for n in (0, 1, 4)] == [0, 1, 4]


def test_sizes_are_width_and_height() -> None:
    assert regions().sizes.tolist() == [[10, 20]] * 4


def test_one_missing_landmark_is_no_landmarks() -> None:
    some = regions()
    landmarks = some.landmarks.clone()
    landmarks[1, 4, 1], landmarks[2] = float("nan"), float("inf")
    found = dataclasses.replace(some, landmarks=landmarks).has_landmarks
    assert found.tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    "index", [[2, 0], torch.tensor([2, 0]), (2, 0), torch.tensor([2, 0], dtype=torch.int32)], ids=str
)
def test_selecting_by_index_keeps_the_order_asked_for(index: Any) -> None:
    chosen = regions().select(index)
    assert chosen.boxes[:, 0].tolist() == [2, 0]
    assert chosen.kinds == ("plate", "plate")
    assert chosen.scores.tolist() == pytest.approx([0.2, 0.0])


@pytest.mark.parametrize("mask", [[True, False, False, True], torch.tensor([True, False, False, True])], ids=str)
def test_selecting_by_a_mask_is_selecting_where_it_holds(mask: Any) -> None:
    assert same(regions().select(mask), regions().select([0, 3]))


@pytest.mark.parametrize("nothing", [[], torch.zeros(0, dtype=torch.int64), [False] * 4], ids=str)
def test_selecting_nothing_is_empty(nothing: Any) -> None:
    assert same(regions().select(nothing), empty_regions())


@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_mask_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ShapeError, match=rf"regions: a mask of shape \({size},\) for 4 regions"):
        regions().select(torch.ones(size, dtype=torch.bool))


def test_an_index_beyond_the_end_is_refused() -> None:
    with pytest.raises(IndexError):
        regions().select([4])


def test_regions_of_an_image_are_those_with_its_index() -> None:
    assert same(regions().of_image(1), regions().select([1, 3]))
    assert len(regions().of_image(7)) == 0


def test_renumbering_changes_the_image_alone() -> None:
    moved = regions().renumbered(5)
    assert moved.image.tolist() == [5] * 4
    assert same(moved, dataclasses.replace(regions(), image=moved.image))


def test_iterating_gives_each_region_once() -> None:
    assert same(cat_regions(list(regions())), regions())


def test_concatenating_what_was_taken_apart_gives_it_back() -> None:
    some = regions(5)
    assert same(cat_regions([some.select([0, 1]), empty_regions(), some.select([2, 3, 4])]), some)


def test_concatenating_nothing_is_empty() -> None:
    assert same(cat_regions([]), empty_regions())


def test_a_selection_shares_no_memory() -> None:
    some = regions()
    some.select([0, 1, 2, 3]).boxes.fill_(-1)
    assert same(some, regions())


def test_moving_keeps_everything() -> None:
    assert same(regions().to("cpu"), regions())
    assert regions().to("meta").boxes.device.type == "meta"


def test_comparing_does_not_fail() -> None:
    some = regions()
    assert some == some
    assert some != regions()


def test_regions_survive_pickling() -> None:
    assert same(pickle.loads(pickle.dumps(regions())), regions())


def face(box: tuple[float, float, float, float], landmarks: list[tuple[float, float]] | None = None) -> Regions:
    points = torch.tensor(landmarks) if landmarks else torch.full((5, 2), torch.nan)
    return Regions(
        torch.zeros(1, dtype=torch.int64), torch.tensor([box]), points[None].float(), torch.ones(1), ("face",)
    )


UPRIGHT = [(3.0, 4.0), (7.0, 4.0), (5.0, 6.0), (3.0, 8.0), (7.0, 8.0)]


@pytest.mark.parametrize(
    ("landmarks", "head"),
    [
        (UPRIGHT, [-8.0, -6.0, 18.0, 19.0]),
        ([(x, 10 - y) for x, y in UPRIGHT], [-8.0, -9.0, 18.0, 16.0]),
        ([(y, x) for x, y in UPRIGHT], [-6.0, -8.0, 19.0, 18.0]),
        ([(10 - y, x) for x, y in UPRIGHT], [-9.0, -8.0, 16.0, 18.0]),
        (None, [-9.0, -9.0, 19.0, 19.0]),
    ],
    ids=["upright", "upside down", "chin to the right", "chin to the left", "unknown"],
)
def test_a_head_grows_towards_hair_and_shoulders_whichever_way_the_face_is_turned(
    landmarks: list[tuple[float, float]] | None, head: list[float]
) -> None:
    assert face((0.0, 0.0, 10.0, 10.0), landmarks).heads().boxes[0].tolist() == pytest.approx(head)


def test_outlines_of_faces_grow_to_one_of_three() -> None:
    whole = regions()
    grown = whole.outlined()
    assert torch.equal(grown.boxes[[0, 2]], whole.boxes[[0, 2]])  # plates
    assert grown.sizes[1].tolist() == pytest.approx([0.86 * 20, 20])
    for size in ((90, 100), (100, 100), (110, 100), (200, 100), (0, 0), (0, 4), (4, 0)):
        box = torch.tensor([[7.0, 9.0, 7.0 + size[0], 9.0 + size[1]]])
        one = dataclasses.replace(whole.select([1]), boxes=box)
        wide, high = one.outlined().sizes[0].tolist()
        assert (one.outlined().boxes[0, :2] <= box[0, :2]).all()
        assert (one.outlined().boxes[0, 2:] >= box[0, 2:]).all()
        assert high == 0 or min(abs(wide / high - outline) for outline in OUTLINES) < 1e-6
