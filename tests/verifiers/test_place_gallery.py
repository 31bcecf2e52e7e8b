"""A gallery of places: what it keeps, its file, and the gate that holds results against it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from anondata import Anonymizer
from anondata.detectors.frame import FrameDetector
from anondata.errors import GalleryError, PolicyError
from anondata.policy import from_yaml
from anondata.protocols import Probe, Verdicts
from anondata.transforms import Fill
from anondata.verifiers.embedders import DlibEmbedder
from anondata.verifiers.gallery import empty_gallery
from anondata.verifiers.gallery import place_search as _place_search
from anondata.verifiers.gallery.file import (
    change_gallery,
    change_places,
    from_payload,
    open_any,
    open_gallery,
    open_places,
    save_gallery,
    to_payload,
)
from anondata.verifiers.gallery.photos import Photo
from anondata.verifiers.gallery.place_enrolment import examine_places
from anondata.verifiers.gallery.place_search import WHOLE, PlaceSearch, counts
from anondata.verifiers.gallery.places import PlaceGallery, coded, decoded, empty_places
from anondata.verifiers.gates.gallery_match import GalleryMatch
from anondata.verifiers.gates.place_match import LIMITS, PlaceMatch, limits_of
from anondata.verifiers.local_features import SIDE_PX, Features, features, matches

KEY = b"0123456789abcdef0123456789abcdef"
CORNERS = [[0, 0], [600, 0], [600, 400], [0, 400]]


@pytest.fixture(autouse=True)
def weights(fetched: Callable[..., None]) -> None:
    fetched("xfeat")


def picture(name: str) -> Tensor:
    array = np.array(getattr(skimage.data, name)())
    array = np.stack([array] * 3, axis=2) if array.ndim == 2 else array
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


@pytest.fixture(scope="module")
def coffee() -> Tensor:
    return picture("coffee")


@pytest.fixture(scope="module")
def rocket() -> Tensor:
    return picture("rocket")


def other_view(photo: Tensor) -> Tensor:
    """As from another place and in less light."""
    seen = [[70, 50], [590, 20], [560, 390], [30, 340]]
    return (v2.perspective(photo, seen, CORNERS).float() * 0.8).to(torch.uint8)


def looked(photo: Tensor) -> Features:
    return features(photo, side_px=SIDE_PX)


@pytest.fixture(scope="module")
def house(coffee: Tensor, rocket: Tensor) -> PlaceGallery:
    """Two places: the house is the coffee's, the pad the rocket's."""
    return empty_places().add(["house", "pad"], [looked(coffee), looked(rocket)])


def judged(gallery: PlaceGallery, original: Tensor, result: Tensor, *, erased: bool = False) -> Verdicts:
    frames = FrameDetector().detect([original])
    techniques, no = (Fill(),), torch.zeros(1, dtype=torch.bool)
    probe = Probe(frames, {}, {}, techniques, no | erased, no, lambda *_: torch.zeros(0), [original], [result])
    return PlaceMatch(gallery="places").bound({"places": gallery}).judge(probe)


# --- the gallery ---------------------------------------------------------------------------------------------------


def test_it_holds_features_and_no_pixel(house: PlaceGallery, coffee: Tensor) -> None:
    held = sum(array.nbytes for array in (house.positions, house.descriptors, house.owners, house.ends))
    assert held < 80_000 * len(house)
    assert house.descriptors.dtype == np.int8


def test_descriptors_in_8_bits_match_as_they_did(coffee: Tensor, rocket: Tensor) -> None:
    one, view, other = looked(coffee), looked(other_view(coffee)), looked(rocket)
    kept = Features(one.places, decoded(coded(one.descriptors)))
    before, after = counts(*matches(one, view))[0], counts(*matches(kept, view))[0]
    assert after == pytest.approx(before, rel=0.05)
    assert counts(*matches(kept, other))[0] <= LIMITS[0.01][0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_descriptor_of_no_direction_is_refused(value: float) -> None:
    broken = torch.full((3, 64), 0.1)
    broken[1] = value
    with pytest.raises(GalleryError, match="not finite"):
        empty_places().add(["house"], [Features(torch.rand(3, 2), broken)])


def test_a_place_that_is_removed_leaves_nothing(house: PlaceGallery) -> None:
    left = house.remove(["house"])
    assert (left.names, len(left)) == (("pad",), 1)
    assert np.array_equal(left.descriptors, house.descriptors[house.ends[0] :])
    assert np.array_equal(left.positions, house.positions[house.ends[0] :])
    assert left.fingerprint != house.fingerprint
    assert len(house.remove(["pad", "house"])) == 0


def test_who_is_removed_must_be_there_and_is_not_named(house: PlaceGallery) -> None:
    with pytest.raises(GalleryError, match=r"number 2 of the places") as caught:
        house.remove(["house", "factory"])
    assert "factory" not in str(caught.value)


def test_photos_are_added_to_a_known_place_only_where_that_is_said(house: PlaceGallery, coffee: Tensor) -> None:
    with pytest.raises(GalleryError, match="1 of the places are in the gallery already") as caught:
        house.add(["house"], [looked(coffee)])
    assert "house" not in str(caught.value).replace("gallery", "")
    more = house.add(["house"], [looked(other_view(coffee))], extend=True)
    assert (more.info()["photos_per_place"], more.counted) == ([1, 2], "3 photos of 2 protected places")


def test_nothing_of_it_is_in_a_repr(house: PlaceGallery) -> None:
    assert "house" not in repr(house)
    assert "array" not in repr(house)


def test_a_photo_that_shows_too_little_is_refused(coffee: Tensor) -> None:
    blank = torch.full((3, 300, 400), 130, dtype=torch.uint8)
    photos = [
        Photo("a", coffee),
        Photo("b", blank),
        Photo("", coffee),
        Photo("c", b"junk"),
        Photo("d", lambda: 1 / 0),
    ]
    reasons = [result.reason for result in examine_places(photos)]
    assert reasons == ["", "too_plain", "no_identity", "undecodable", "unreadable"]


# --- its file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, KEY])
def test_a_file_gives_back_what_was_put_into_it(house: PlaceGallery, key: bytes | None, tmp_path: Path) -> None:
    save_gallery(house, tmp_path / "g", key=key)
    opened = open_places(tmp_path / "g", key=key)
    assert (opened.fingerprint, opened.names) == (house.fingerprint, house.names)
    assert isinstance(open_any(tmp_path / "g", key=key), PlaceGallery)
    assert (b"house" in (tmp_path / "g").read_bytes()) == (key is None)


def test_an_empty_one_can_be_kept(tmp_path: Path) -> None:
    save_gallery(empty_places(), tmp_path / "g")
    assert len(open_places(tmp_path / "g")) == 0


def test_a_change_that_fails_leaves_the_file(house: PlaceGallery, tmp_path: Path) -> None:
    save_gallery(house, tmp_path / "g", key=KEY)
    with pytest.raises(GalleryError):
        change_places(tmp_path / "g", lambda gallery: gallery.remove(["factory"]), key=KEY)
    assert change_places(tmp_path / "g", lambda gallery: gallery.remove(["pad"]), key=KEY).names == ("house",)
    assert open_places(tmp_path / "g", key=KEY).names == ("house",)


def test_people_and_places_are_not_taken_for_each_other(house: PlaceGallery, tmp_path: Path) -> None:
    people = empty_gallery(DlibEmbedder())
    save_gallery(house, tmp_path / "places")
    save_gallery(people, tmp_path / "people")
    with pytest.raises(GalleryError, match="is a gallery of places, and one of people is needed"):
        open_gallery(tmp_path / "places")
    with pytest.raises(GalleryError, match="is a gallery of people, and one of places is needed"):
        open_places(tmp_path / "people")
    with pytest.raises(GalleryError, match="one of people is needed"):
        change_gallery(tmp_path / "places", lambda gallery: gallery)
    with pytest.raises(GalleryError, match="is PlaceGallery, expected a Gallery or its file; a Gallery is of people"):
        GalleryMatch(gallery="g").bound({"g": house})
    with pytest.raises(GalleryError, match="is Gallery, expected a PlaceGallery or its file"):
        PlaceMatch(gallery="g").bound({"g": people})


@pytest.mark.parametrize(
    "change",
    [
        {"ends": np.array([2000, 1024])},
        {"ends": np.array([1024, 1024])},
        {"owners": np.array([0, 5])},
        {"names": ("house", "house")},
        {"names": ("house", " ")},
        {"salt": b"short"},
        {"positions": np.full((2048, 2), np.nan, np.float32)},
        {"descriptors": np.zeros((2048, 64), np.int8)},
        {"descriptors": np.ones((9, 64), np.int8)},
    ],
)
def test_what_does_not_fit_together_is_no_gallery(house: PlaceGallery, change: Mapping[str, Any]) -> None:
    assert len(house.positions) == 2048
    with pytest.raises(GalleryError):
        replace(house, **change)


def test_a_damaged_payload_is_said_to_be_so(house: PlaceGallery) -> None:
    payload = b"".join(to_payload(house))
    assert from_payload(payload).fingerprint == house.fingerprint
    with pytest.raises(GalleryError, match="damaged"):
        from_payload(payload.replace(b'"ends"', b'"endz"'))
    with pytest.raises(GalleryError, match="damaged"):
        from_payload(payload[:-10])


def test_it_survives_pickling(house: PlaceGallery) -> None:
    assert pickle.loads(pickle.dumps(house)).fingerprint == house.fingerprint


# --- the gate ------------------------------------------------------------------------------------------------------


def test_another_view_of_a_place_is_found_in_any_photo(house: PlaceGallery, coffee: Tensor, rocket: Tensor) -> None:
    """The original is the cat; only the result shows the house."""
    verdicts = judged(house, picture("chelsea"), other_view(coffee))
    own, known = verdicts.parts
    assert bool(own.passed)
    assert not known.passed
    assert not verdicts.passed
    assert float(verdicts.after) == float(known.after) > 3 > 1 > float(known.before)


def test_what_was_found_before_is_told(house: PlaceGallery, coffee: Tensor) -> None:
    blank = torch.full_like(coffee, 90)
    _, known = judged(house, other_view(coffee), blank).parts
    assert float(known.before) > 3 > float(known.after) == 0
    assert bool(known.passed)


@pytest.mark.parametrize("name", ["chelsea", "astronaut", "camera"])
def test_other_places_pass(house: PlaceGallery, name: str) -> None:
    _, known = judged(house, picture(name), picture(name)).parts
    assert bool(known.passed)


def test_a_mirrored_view_is_found(house: PlaceGallery, coffee: Tensor) -> None:
    assert not judged(house, picture("chelsea"), other_view(coffee).flip(-1)).parts[1].passed


def test_an_original_with_nothing_to_match_passes_only_when_erased(house: PlaceGallery) -> None:
    plain = torch.full((3, 60, 80), 100, dtype=torch.uint8)
    assert not judged(house, plain, plain).passed
    assert judged(house, plain, plain, erased=True).passed


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (5, 7)])
def test_results_of_any_size_are_judged(house: PlaceGallery, size: tuple[int, int]) -> None:
    tiny = torch.randint(0, 255, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert all(part.after.isfinite().all() for part in judged(house, tiny, tiny).parts)


def test_features_that_are_not_finite_are_an_error(
    house: PlaceGallery, coffee: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(view: Tensor, *, side_px: int) -> Features:
        raise ValueError("the features of a place are not finite")

    monkeypatch.setattr(_place_search, "features", broken)
    with pytest.raises(ValueError, match="not finite"):
        judged(house, coffee, coffee)


def test_a_gallery_of_another_network_is_refused(house: PlaceGallery) -> None:
    with pytest.raises(GalleryError, match="another network or version"):
        PlaceMatch(gallery="places").bound({"places": replace(house, maker="0" * 32)})


def test_an_empty_gallery_is_refused() -> None:
    with pytest.raises(GalleryError, match="would protect nobody"):
        PlaceMatch(gallery="places").bound({"places": empty_places()})


def test_a_gallery_that_is_not_at_hand_is_an_error(coffee: Tensor) -> None:
    frames = FrameDetector().detect([coffee])
    no = torch.zeros(1, dtype=torch.bool)
    probe = Probe(frames, {}, {}, (Fill(),), no, no, lambda *_: torch.zeros(0), [coffee], [coffee])
    with pytest.raises(PolicyError, match="not at hand"):
        PlaceMatch(gallery="places").judge(probe)


@pytest.mark.parametrize("gallery", ["", 3, ["places"]])
def test_a_gallery_is_a_name(gallery: object) -> None:
    with pytest.raises(PolicyError, match="gallery must be a name"):
        PlaceMatch(gallery=gallery)  # type: ignore[arg-type]


def test_without_a_gallery_it_is_the_gate_that_it_was() -> None:
    gate = PlaceMatch()
    assert (gate.name, list(gate.galleries), gate.bound({}) is gate) == ("place_match(xfeat, far=0.01)", [], True)


def test_limits_grow_with_the_gallery_and_never_fall_below_those_of_a_pair() -> None:
    for far, pair in LIMITS.items():
        grown = [limits_of(far, photos=photos) for photos in (1, 3, 10, 100, 1000)]
        assert grown == sorted(set(grown))
        assert all(h > pair[0] and n > pair[1] for h, n in grown)


# --- many photos ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(house: PlaceGallery) -> PlaceGallery:
    """The house and the pad behind so many other photos that not each is compared: crops of three pictures."""
    others = [picture(name) for name in ("chelsea", "astronaut", "camera")]
    crops = [
        other[:, y : y + 150, x : x + 150] for other in others for y in range(0, 150, 30) for x in range(0, 150, 30)
    ]
    assert len(crops) > WHOLE
    filled = empty_places().add([f"crop {i}" for i in range(len(crops))], [looked(crop) for crop in crops])
    return filled.add(list(house.names), list(house.photos()))


def test_a_large_gallery_finds_what_a_small_one_does(many: PlaceGallery, house: PlaceGallery, coffee: Tensor) -> None:
    limits = limits_of(0.01, photos=len(many))
    large, small = PlaceSearch(many, limits), PlaceSearch(house, limits)
    view = other_view(coffee)
    assert large.best(view) == small.best(view) > 3
    assert large.shortlist(looked(view))[0] == len(many) - 2
    assert len(large.shortlist(looked(view))) < len(many)


def test_nothing_to_vote_with_is_no_error(many: PlaceGallery) -> None:
    search = PlaceSearch(many, limits_of(0.01, photos=len(many)))
    assert search.best(torch.full((3, 50, 50), 9, dtype=torch.uint8)) == 0


def test_an_original_is_looked_at_once(
    house: PlaceGallery, coffee: Tensor, rocket: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, asked = PlaceSearch(house, (12, 10)), list[int]()

    def counted(view: Tensor, *, side_px: int) -> Features:
        asked.append(1)
        return features(view, side_px=side_px)

    monkeypatch.setattr(_place_search, "features", counted)
    assert search.before(coffee) == search.before(coffee.clone()) == search.best(coffee)
    assert search.before(rocket) == search.best(rocket)
    assert len(asked) == 2 * 4  # both ways: each original once, and twice what was asked for directly


# --- a policy ------------------------------------------------------------------------------------------------------


MINE = """
name: mine
content:
  image:
    detect: [frame]
    regions:
      frame:
        ladder: [resize: {pixels: 64, coverage: 1.0, feather: 0.0}, fill]
        verify: [place_match: {gallery: places}]
"""


def test_a_policy_names_it_and_reports_tell_its_fingerprint(
    house: PlaceGallery, coffee: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_gallery(house, tmp_path / "g", key=KEY)
    monkeypatch.setenv("ANONDATA_GALLERY_KEY", KEY.decode())
    policy = from_yaml(MINE)
    with pytest.raises(PolicyError, match="needs a gallery called 'places'"):
        Anonymizer(policy)
    made = Anonymizer(policy, device="cpu", galleries={"places": tmp_path / "g"})
    [outcome] = made.anonymize([other_view(coffee)])
    [record] = outcome.record.regions
    assert (outcome.released, record.rung) == (True, 1)  # what still shows the house is filled
    report = made.report([outcome])
    assert report.galleries == {"places": house.fingerprint}
    assert "house" not in report.to_json()
