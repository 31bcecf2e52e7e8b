"""Photos become templates, or a reason why not; what looks wrong in a gallery is told."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from anondata.content.codec import decode
from anondata.content.images import ImageContent
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import GalleryError, WeightsError
from anondata.models import shared
from anondata.regions import Regions
from anondata.verifiers.calibration import shipped
from anondata.verifiers.embedders import DlibEmbedder, MobileFaceNetEmbedder
from anondata.verifiers.gallery import Gallery, empty_gallery, examination
from anondata.verifiers.gallery import doubts as doubting
from anondata.verifiers.gallery.doubts import doubts
from anondata.verifiers.gallery.enrolment import collect, enroll
from anondata.verifiers.gallery.examination import REASONS, Examined, Examiner, portrait_of, view_of
from anondata.verifiers.gallery.photos import Photo, photos_of_dataset

EMBEDDER = DlibEmbedder()


def jpeg(pixels: Tensor, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def shrunk(pixels: Tensor, side: int) -> Tensor:
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((side, side))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def examined(*photos: Photo, **options: Any) -> list[Examined]:
    return list(Examiner(EMBEDDER, **options).examine(photos))


def reasons(*images: Any, **options: Any) -> list[str]:
    return [result.reason for result in examined(*(Photo("somebody", image) for image in images), **options)]


@pytest.fixture
def people(shared_data: Path) -> list[Photo]:
    """Two photos each of eight people."""
    files = sorted((shared_data / "faces_london").glob("*.jpg"))[:16]
    return [Photo(file.name[:3], file.read_bytes) for file in files]


class TestExamination:
    def test_a_good_photo_gives_the_template_of_its_face(self, astronaut):
        [result] = examined(Photo("eileen", astronaut, "Eileen Collins"))
        face = Examiner(EMBEDDER)._faces([astronaut])[0]
        assert isinstance(face, Regions)
        expected = EMBEDDER.embed([astronaut], face)[0].numpy()
        assert (result.number, result.identity, result.label, result.reason) == (1, "eileen", "Eileen Collins", "")
        np.testing.assert_allclose(result.template, expected, atol=1e-5)
        assert result.portrait is None

    def test_all_that_an_image_field_may_hold_is_a_photo(self, astronaut):
        array = astronaut.permute(1, 2, 0).numpy()
        images = [astronaut, array, Image.fromarray(array), jpeg(astronaut), lambda: jpeg(astronaut)]
        results = examined(*(Photo("eileen", image) for image in images))
        rows = np.stack([r.template for r in results if r.template is not None])
        assert len(rows) == 5
        assert np.linalg.norm(rows - rows[0], axis=1).max() < 0.15  # JPEG moves it a little

    def test_a_photo_that_the_camera_lay_on_its_side_for_is_turned_upright(self, astronaut):
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = jpeg(torch.rot90(astronaut, 1, dims=(1, 2)), exif=exif)
        plain, upright = examined(Photo("a", jpeg(astronaut)), Photo("a", turned))
        assert plain.template is not None
        assert upright.template is not None
        assert np.linalg.norm(plain.template - upright.template) < 0.15

    def test_every_reason_to_refuse_a_photo(self, astronaut, party_jpeg, tmp_path):
        blank = torch.zeros(3, 64, 64, dtype=torch.uint8)
        missing = (tmp_path / "alice.jpg").read_bytes
        images = [blank, party_jpeg, shrunk(astronaut, 96), b"junk", jpeg(astronaut)[:9000], None, missing]
        assert reasons(*images) == [
            "no_face",
            "several_faces",
            "too_small",
            "undecodable",
            "undecodable",
            "undecodable",
            "unreadable",
        ]
        nameless = [Photo(identity, astronaut) for identity in ("", "  ", None, "a\udcff")]  # type: ignore[arg-type]  # as callers do
        assert [r.reason for r in examined(*nameless)] == ["no_identity"] * 4

    def test_the_largest_of_several_faces_is_taken_on_request(self, party_jpeg):
        view = decode(party_jpeg).pixels
        found = CenterFaceDetector(0.35).detect([view])
        largest = found.select(found.sizes.prod(dim=1).argsort(descending=True)[:2])  # the two differ by 1 %
        [result] = examined(Photo("a", party_jpeg), several="largest")
        assert result.template is not None
        assert np.linalg.norm(EMBEDDER.embed([view], largest).numpy() - result.template, axis=1).min() < 0.3

    def test_people_far_in_the_background_do_not_count(self, astronaut):
        beside = torch.full((3, 512, 700), 128, dtype=torch.uint8)
        beside[:, :, :512] = astronaut
        beside[:, :190, 510:] = shrunk(astronaut, 190)
        assert reasons(beside) == [""]
        beside[:, :360, 340:] = shrunk(astronaut, 360)
        assert reasons(beside) == ["several_faces"]

    def test_a_large_photo_is_judged_as_if_it_were_looked_at_in_full(self, astronaut):
        large = torch.full((3, 1500, 2800), 128, dtype=torch.uint8)
        large[:, 100:612, 100:612] = astronaut  # 80 px wide: too narrow for the first look
        full = CenterFaceDetector(0.35, smallest_px=16)
        assert reasons(large) == reasons(large, detector=full) == [""]
        large[:, 300:1500, 1000:2200] = shrunk(astronaut, 1200)
        assert reasons(large) == reasons(large, detector=full) == [""]
        large[:, 100:900, 60:860] = shrunk(astronaut, 800)
        assert reasons(large) == reasons(large, detector=full) == ["several_faces"]
        [one], [other] = (
            examined(Photo("a", large), several="largest"),
            examined(Photo("a", large), several="largest", detector=full),
        )
        assert one.template is not None
        assert other.template is not None
        assert np.linalg.norm(one.template - other.template) < 0.15

    def test_the_least_width_is_the_callers(self, astronaut):
        small = shrunk(astronaut, 150)  # a face of some 25 px
        assert reasons(small) == ["too_small"]
        assert reasons(small, smallest_px=20.0) == [""]

    def test_a_detector_without_landmarks_is_not_guessed_at(self, astronaut):
        assert reasons(astronaut, detector=Faces(landmarks=False)) == ["no_landmarks"]

    def test_regions_of_other_kinds_are_no_faces(self, astronaut):
        assert reasons(astronaut, detector=Faces(kind="plate")) == ["no_face"]

    def test_a_template_that_is_not_finite_is_refused(self, astronaut):
        [result] = Examiner(Fixed(float("nan"))).examine([Photo("a", astronaut)])
        assert (result.reason, result.template) == ("no_template", None)

    def test_one_photo_that_breaks_the_detector_costs_no_other(self, astronaut, caplog):
        blank = torch.zeros(3, 64, 64, dtype=torch.uint8)
        assert reasons(astronaut, blank, astronaut, detector=Faces(breaks_below=100)) == ["", "error", ""]
        assert "RuntimeError" in caplog.text
        assert "alice" not in caplog.text

    def test_missing_weights_stop_the_run_and_not_each_photo(self, astronaut, monkeypatch, tmp_path):
        monkeypatch.setenv("ANONDATA_WEIGHTS", str(tmp_path))
        shared._load.cache_clear()  # another test may have had the weights
        embedder = MobileFaceNetEmbedder()
        with pytest.raises(WeightsError):
            list(Examiner(embedder).examine([Photo("a", astronaut)]))

    def test_results_come_in_order_while_the_stream_goes_on(self, astronaut):
        read = 0

        def photos() -> Iterator[Photo]:
            nonlocal read
            for _ in range(100):
                read += 1
                yield Photo("a", astronaut if read % 2 else b"junk")

        first = [next(results) for results in [Examiner(Fixed(1.0)).examine(photos(), first=11)] for _ in range(4)]
        assert [(r.number, r.reason) for r in first] == [(11, ""), (12, "undecodable"), (13, ""), (14, "undecodable")]
        assert read <= examination.BATCH * examination.AHEAD

    @pytest.mark.parametrize("options", [{"several": "all"}, {"smallest_px": 0.0}, {"smallest_px": float("nan")}])
    def test_parameters_out_of_range_are_errors(self, options):
        with pytest.raises(GalleryError, match=next(iter(options))):
            Examiner(EMBEDDER, **options)

    def test_every_reason_is_explained(self):
        assert all(text and name == name.lower() for name, text in REASONS.items())

    def test_nothing_of_a_photo_is_in_a_repr(self, astronaut):
        [result] = examined(Photo("eileen", astronaut, "Eileen Collins"), keep_portraits=True)
        shown = repr(result) + repr(Photo("eileen", b"pixels", "Eileen Collins"))
        assert not any(word in shown for word in ("eileen", "Eileen", "pixels", "array"))


class TestPortraits:
    def test_a_portrait_gives_the_template_of_its_photo(self, astronaut):
        [result] = examined(Photo("eileen", astronaut), keep_portraits=True)
        assert result.portrait is not None
        assert result.template is not None
        assert np.linalg.norm(self.template(result) - result.template) < 0.02

    def test_a_large_photo_is_kept_small(self, astronaut):
        large = shrunk(astronaut, 1600)
        [result] = examined(Photo("eileen", large), keep_portraits=True)
        assert result.portrait is not None
        assert result.template is not None
        assert max(decode(result.portrait.image).pixels.shape) == examination.PORTRAIT_PX
        assert np.linalg.norm(self.template(result) - result.template) < 0.15

    def test_a_face_at_the_edge_keeps_what_is_there(self):
        face = Regions(
            torch.zeros(1, dtype=torch.int64),
            torch.tensor([[-10.0, 20.0, 30.0, 70.0]]),
            torch.full((1, 5, 2), 15.0),
            torch.ones(1),
            ("face",),
        )
        view = torch.arange(3 * 100 * 200, dtype=torch.int64).reshape(3, 100, 200).to(torch.uint8)
        portrait = portrait_of(view, face)
        kept = decode(portrait.image).pixels
        assert torch.equal(
            kept, view[:, :100, :70]
        )  # three times 40x50 about (10, 45), cut off at the picture's edge
        np.testing.assert_allclose(portrait.box, [-10, 20, 30, 70])

    @staticmethod
    def template(result: Examined) -> np.ndarray[Any, Any]:
        portrait = result.portrait
        assert portrait is not None
        assert portrait.image[:4] == b"RIFF"
        face = Regions(
            torch.zeros(1, dtype=torch.int64),
            torch.from_numpy(portrait.box)[None],
            torch.from_numpy(portrait.landmarks)[None],
            torch.ones(1),
            ("face",),
        )
        return EMBEDDER.embed([decode(portrait.image).pixels], face)[0].numpy()


class TestEnroll:
    def test_every_person_is_the_nearest_to_their_own_other_photo(self, people):
        neutral, smiling = people[::2], people[1::2]
        done = enroll(neutral, into=empty_gallery(EMBEDDER), embedder=EMBEDDER)
        assert (done.taken, done.refusals, done.people_left_out) == (8, (), 0)
        assert done.gallery.identities == tuple(photo.identity for photo in neutral)
        probes = np.stack([r.template for r in examined(*smiling) if r.template is not None])
        found = done.gallery.search(torch.from_numpy(probes)).row[:, 0].tolist()
        assert found == list(range(8))

    def test_refusals_are_told_by_number_and_reason(self, astronaut, party_jpeg):
        photos = [Photo("alice", astronaut), Photo("bob", party_jpeg), Photo("carol", b""), Photo("", astronaut)]
        done = enroll(photos, into=empty_gallery(EMBEDDER), embedder=EMBEDDER)
        told = [(refusal.number, refusal.reason) for refusal in done.refusals]
        assert told == [(2, "several_faces"), (3, "undecodable"), (4, "no_identity")]
        assert (done.taken, done.people_left_out, done.gallery.identities) == (1, 2, ("alice",))
        assert not any(name in repr(done) for name in ("alice", "bob", "carol"))

    def test_a_person_with_one_good_photo_of_two_is_not_left_out(self, astronaut):
        done = enroll(
            [Photo("alice", b"junk"), Photo("alice", astronaut)], into=empty_gallery(EMBEDDER), embedder=EMBEDDER
        )
        assert (done.people_left_out, len(done.gallery)) == (0, 1)

    def test_portraits_and_labels_are_kept(self, astronaut):
        photos = [Photo("a", astronaut), Photo("a", astronaut, "Ann")]
        done = enroll(photos, into=empty_gallery(EMBEDDER), embedder=EMBEDDER, keep_portraits=True)
        assert done.gallery.labels == ("Ann",)
        assert all(portrait is not None for portrait in done.gallery.portraits)

    def test_progress_counts_photos_and_refusals(self, astronaut):
        seen: list[tuple[int, int]] = []
        photos = [Photo("a", astronaut), Photo("b", b"junk"), Photo("c", astronaut)]
        enroll(
            photos, into=empty_gallery(EMBEDDER), embedder=EMBEDDER, show=lambda done, bad: seen.append((done, bad))
        )
        assert seen == [(1, 0), (2, 1), (3, 1)]

    def test_no_photo_at_all_is_an_error(self):
        with pytest.raises(GalleryError, match="holds no photo"):
            enroll([], into=empty_gallery(EMBEDDER), embedder=EMBEDDER)

    def test_refused_photos_alone_leave_the_gallery_as_it_was(self):
        start = empty_gallery(EMBEDDER)
        done = enroll([Photo("a", b"junk")], into=start, embedder=EMBEDDER)
        assert (done.gallery, done.taken, done.doubted) == (start, 0, False)

    def test_a_known_person_stops_the_run_before_the_work(self, astronaut):
        done = enroll([Photo("alice", astronaut)], into=empty_gallery(EMBEDDER), embedder=EMBEDDER)

        def photos() -> Iterator[Photo]:
            yield Photo("bob", astronaut)
            yield Photo("alice", astronaut)
            pytest.fail("read on")

        with pytest.raises(GalleryError, match="person of photo 2 is in the gallery already") as caught:
            enroll(photos(), into=done.gallery, embedder=EMBEDDER)
        assert "alice" not in str(caught.value)
        more = enroll([Photo("alice", astronaut)], into=done.gallery, embedder=EMBEDDER, extend=True)
        assert (len(more.gallery), more.gallery.identities) == (2, ("alice",))

    def test_templates_of_another_network_are_refused_before_the_work(self):
        with pytest.raises(GalleryError, match="made with embedder"):
            enroll(iter([]), into=empty_gallery(MobileFaceNetEmbedder()), embedder=EMBEDDER)

    def test_batches_and_neighbours_change_nothing(self, people, monkeypatch):
        def templates(photos: Sequence[Photo]) -> np.ndarray[Any, Any]:
            return enroll(photos, into=empty_gallery(EMBEDDER), embedder=EMBEDDER).gallery.templates

        together = templates(people[:6])
        monkeypatch.setattr(examination, "BATCH", 1)
        np.testing.assert_allclose(templates(people[:6]), together, atol=1e-5)
        np.testing.assert_allclose(templates(people[5::-1])[::-1], together, atol=1e-5)


class TestDoubts:
    def test_one_photo_under_two_names_is_told_by_number(self, people):
        double = dataclasses.replace(people[0], identity="somebody else")
        done = enroll([*people[:4], double], into=empty_gallery(EMBEDDER), embedder=EMBEDDER)
        nearest = done.look_alikes[0]
        assert {nearest.number, nearest.other} == {1, 5}
        assert nearest.distance < 1e-3
        assert done.doubted
        assert done.near >= 2

    def test_a_look_alike_of_somebody_enrolled_before_has_a_row_and_no_number(self, people):
        before = enroll(people[:2], into=empty_gallery(EMBEDDER), embedder=EMBEDDER).gallery
        double = dataclasses.replace(people[0], identity="somebody else")
        [pair] = enroll([double], into=before, embedder=EMBEDDER).look_alikes
        assert (pair.number, pair.other, pair.row) == (1, None, 0)

    def test_a_photo_under_the_wrong_name_is_astray(self, people):
        wrong = dataclasses.replace(people[8], identity=people[0].identity)
        done = enroll([*people[:2], wrong], into=empty_gallery(EMBEDDER), embedder=EMBEDDER)
        assert done.astray == (3,)

    def test_doubts_are_those_of_a_naive_loop(self, monkeypatch):
        monkeypatch.setattr(doubting, "_LEAST_ROWS", 7)
        monkeypatch.setattr(doubting, "_PAIRS_AT_ONCE", 0)
        gallery = random_gallery()
        thresholds = shipped(EMBEDDER.name).thresholds
        strict, loose = min(t.distance for t in thresholds), max(t.distance for t in thresholds)
        pairs: dict[frozenset[int], float] = {}
        near, astray = 0, []
        for row in range(10, len(gallery)):
            distances = np.linalg.norm(gallery.templates - gallery.templates[row], axis=1)
            strangers = gallery.owners != gallery.owners[row]
            own = ~strangers
            own[row] = False
            other = int(np.where(strangers, distances, np.inf).argmin())
            if distances[other] < strict:
                near += 1
                people = frozenset((int(gallery.owners[row]), int(gallery.owners[other])))
                pairs[people] = min(pairs.get(people, np.inf), float(distances[other]))
            if own.any() and distances[own].min() > loose:
                astray.append(row)
        found = doubts(gallery, since=10)
        assert found is not None
        assert near
        assert astray
        assert (found.near, list(found.astray)) == (near, astray)
        np.testing.assert_allclose([p.distance for p in found.look_alikes], sorted(pairs.values()), atol=1e-6)

    def test_as_many_look_alikes_by_chance_as_the_false_accept_rate_says(self):
        found = doubts(random_gallery())
        assert found is not None
        assert found.by_chance == pytest.approx(40 * (1 - (1 - 0.002) ** 19))

    def test_what_would_take_hours_is_left_out(self, monkeypatch):
        monkeypatch.setattr(doubting, "MOST_PAIRS", 40 * 40 - 1)
        assert doubts(random_gallery()) is None
        assert doubts(random_gallery(), since=1) is not None

    def test_without_a_calibration_there_are_none(self, astronaut):
        embedder = Fixed(1.0)
        assert not enroll([Photo("a", astronaut)], into=empty_gallery(embedder), embedder=embedder).doubted
        own = dataclasses.replace(shipped(EMBEDDER.name), embedder="fixed")
        done = collect(
            [Examined(1, "a", template=np.ones(4, np.float32))], into=empty_gallery(embedder), calibration=own
        )
        assert done.doubted


class TestDatasets:
    """Rows as the datasets library gives them; the library itself is in tests/tools/test_gallery.py."""

    def test_rows_of_any_kind_become_photos(self, astronaut):
        rows = [
            {"image": {"bytes": b"x", "path": "alice.jpg"}, "identity": 7},
            {"image": astronaut, "identity": " bob "},
            {"image": None, "identity": None},
        ]
        photos = list(photos_of_dataset(rows))
        assert [photo.identity for photo in photos] == ["7", "bob", ""]
        assert photos[0].image == b"x"
        assert photos[1].image is astronaut

    def test_a_path_is_read_when_it_is_needed(self, tmp_path):
        [photo] = photos_of_dataset([{"image": {"bytes": None, "path": str(tmp_path / "x")}, "identity": "a"}])
        (tmp_path / "x").write_bytes(b"later")
        assert photo.image() == b"later"

    @pytest.mark.parametrize(
        ("rows", "options", "message"),
        [
            ([{"image": b"", "name": "alice"}], {}, "no column 'identity' or 'label'; .*image, name"),
            ([{"photo": b"", "identity": "alice"}], {}, "no column 'image' or 'jpg' or 'png'"),
            ([{"image": b"", "identity": "alice"}], {"identity": "who"}, "no column 'who'"),
            ([{"image": b"", "identity": "alice"}, {}], {}, "a row of the dataset lacks"),
        ],
    )
    def test_columns_that_are_not_there_are_errors(self, rows, options, message):
        with pytest.raises(GalleryError, match=message) as caught:
            list(photos_of_dataset(rows, **options))
        assert "alice" not in str(caught.value)


@dataclasses.dataclass(frozen=True)
class Faces:
    """A detector that finds one region in the middle of every picture."""

    landmarks: bool = True
    kind: str = "face"
    breaks_below: int = 0

    def detect(self, views: Sequence[Tensor]) -> Regions:
        if any(view.shape[1] < self.breaks_below for view in views):
            raise RuntimeError("alice.jpg breaks me")
        points = torch.tensor([[200.0, 100], [240, 100], [220, 120], [205, 140], [235, 140]])
        return Regions(
            torch.arange(len(views)),
            torch.tensor([[190.0, 80, 250, 160]]).repeat(len(views), 1),
            (points if self.landmarks else torch.full((5, 2), float("nan"))).repeat(len(views), 1, 1),
            torch.ones(len(views)),
            (self.kind,) * len(views),
        )


@dataclasses.dataclass(frozen=True)
class Fixed:
    """An embedder that says the same of every face."""

    value: float
    name: str = "fixed"
    fingerprint: str = "00"

    def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
        return torch.full((len(regions), 4), self.value)


def random_gallery() -> Gallery:
    """40 templates of 20 people on a line in 128 dimensions, some of whom are near to others."""
    rng = np.random.default_rng(7)
    places = rng.uniform(0, 12, size=(20, 1)) + rng.normal(0, 0.6, size=(20, 2))
    templates = np.zeros((40, 128), np.float32)
    templates[:, 0] = places.reshape(-1)
    return empty_gallery(EMBEDDER).add([f"p{i // 2}" for i in range(40)], templates)


def test_a_view_is_what_the_engine_looks_at(astronaut):
    content = ImageContent()
    view = content.view(content.decode(jpeg(astronaut), torch.device("cpu")))
    assert torch.equal(view_of(Photo("a", jpeg(astronaut)), "cpu"), view)
