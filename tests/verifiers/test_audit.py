"""Audits: what they find in results whose strength is known, and what never passes for safe."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from anondata.content import codec
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import AuditError, GalleryError, PolicyError
from anondata.randomness import RunKey
from anondata.regions import Regions
from anondata.transforms import Fill, GaussianBlur, Noise, Pixelate, RandomColors, RegionTransform
from anondata.verifiers.audit import ATTACKERS, Audit, Face, PhotoPair, audit
from anondata.verifiers.audit.attacks import NETWORK_ATTACKERS, FaceTable, attack
from anondata.verifiers.audit.change import alike, same_shape, scaled, unchanged
from anondata.verifiers.audit.crops import GREY
from anondata.verifiers.audit.faces import Eyes
from anondata.verifiers.audit.groups import Group, binned, by_group, worst_of
from anondata.verifiers.audit.metrics import Share
from anondata.verifiers.audit.run import _in_order
from anondata.verifiers.embedders import DlibEmbedder
from anondata.verifiers.gallery import empty_gallery

KEY = RunKey(b"a key of the tests, no secret")
PEOPLE = 12


def jpeg(view: Tensor, quality: int = 92, *, size: tuple[int, int] | None = None, form: str = "JPEG") -> bytes:
    picture, buffer = Image.fromarray(view.permute(1, 2, 0).numpy()), io.BytesIO()
    (picture.resize(size, Image.Resampling.LANCZOS) if size else picture).save(buffer, form, quality=quality)
    return buffer.getvalue()


@dataclass(frozen=True)
class Photo:
    data: bytes
    view: Tensor
    face: Regions
    row: dict[str, str]


@pytest.fixture(scope="module")
def photos(shared_data: Path) -> list[Photo]:
    """Two photos each of twelve people."""
    with (shared_data / "faces_london/metadata.csv").open() as stream:
        rows = list(csv.DictReader(stream))[: 2 * PEOPLE]
    out = []
    for row in rows:
        data = (shared_data / "faces_london" / row["file_name"]).read_bytes()
        view = codec.decode(data).pixels
        out.append(Photo(data, view, CenterFaceDetector(0.35).detect([view]), row))
    return out


def pairs_of(photos: Sequence[Photo], change: Callable[[Photo], bytes]) -> list[PhotoPair]:
    return [PhotoPair(photo.data, change(photo), photo.row["identity"], photo.row) for photo in photos]


def by(technique: RegionTransform) -> Callable[[Photo], bytes]:
    return lambda photo: jpeg(technique.change_regions(photo.view, photo.face.boxes))


def rank1(found: Audit) -> dict[tuple[str, str], float]:
    return {(a.attacker, a.network): a.rank1.value for a in found.attacks}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Many small pictures: on two threads they take three times as much CPU time, and longer where others work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights(shared_data: Path) -> Path:
    return shared_data / "weights"


@pytest.fixture(autouse=True)
def _two_networks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "photos" in request.fixturenames:
        monkeypatch.setenv("ANONDATA_WEIGHTS", str(request.getfixturevalue("weights")))


# --- what is known of techniques ---------------------------------------------------------------------------------


def test_untouched_copies_name_everybody_and_every_face_is_missed(photos: list[Photo]) -> None:
    found = audit(pairs_of(photos, lambda photo: photo.data), groups=["gender", "age"])
    named = rank1(found)
    assert {attacker for attacker, _ in named} == {*ATTACKERS} - {"averaging"}  # nothing is known to be run again
    assert all(value == 1 for (attacker, _), value in named.items() if attacker in ("naive", "parrot", "composite"))
    assert named["matched-filter", ""] >= 0.8
    assert all(a.within_threshold is not None for a in found.attacks if a.attacker == "naive")
    assert (found.faces["in_originals"], found.faces["missed"], found.faces["still_detected"]) == (24, 24, 24)
    assert [n["self_match"]["refused"]["percent"] for n in found.networks] == [100, 100]
    assert [n["role"] for n in found.networks] == ["gate network", "other network"]
    assert found.verdict.startswith(
        "the best of all attackers names 100 [76-100] % of 12 people at rank 1; chance 8 %"
    )


def test_a_parrot_undoes_a_blur_that_looks_safe_to_a_naive_attacker(photos: list[Photo]) -> None:
    found = audit(pairs_of(photos, by(GaussianBlur(0.1, coverage=1.15))), attackers=NETWORK_ATTACKERS)
    named = rank1(found)
    for network in ("dlib-face-resnet", "mobilefacenet-ms1m"):
        assert named["parrot", network] >= named["naive", network] + 0.4
        assert named["smoothing-parrot", network] >= named["naive", network] + 0.4
    assert found.worst.attacker != "naive"
    assert found.faces["missed"] == 0
    assert all(control.rank1.value == 1 for control in found.controls)


def test_nobody_is_named_behind_a_fill(photos: list[Photo]) -> None:
    hidden = pairs_of(photos, by(Fill(coverage=1.7, feather=0.0)))
    found = audit(hidden, attackers=["naive", "parrot", "matched-filter"])  # one who smooths sees what is around
    assert max(rank1(found).values()) <= 0.3
    assert (found.faces["missed"], found.faces["still_detected"]) == (0, 0)
    assert [n["self_match"]["refused"]["percent"] for n in found.networks] == [0, 0]


def test_what_lies_around_a_cover_is_learnt_by_nobody_but_context(photos: list[Photo]) -> None:
    """Networks' chips reach beyond a cover where landmarks lie far apart, or heads are turned."""
    covered, pairs = Fill([GREY / 255] * 3, coverage=1.35, feather=0.0), []
    for photo in photos:
        middle, [box] = photo.face.boxes.reshape(2, 2).mean(dim=0), photo.face.boxes.tolist()
        wide = (middle + 1.5 * (photo.face.landmarks[0] - middle)).flatten().tolist()
        marked = Face((box[0], box[1], box[2], box[3]), tuple(wide), photo.row["identity"])
        hidden = jpeg(covered.change_regions(photo.view, photo.face.boxes), form="PNG")
        pairs.append(PhotoPair(photo.data, hidden, faces=(marked,)))
    found = rank1(audit(pairs, attackers=["trained", "context"]))
    assert found["trained", ""] <= 0.25
    assert found["context", ""] >= 0.5


def test_smoothing_averages_noise_away(photos: list[Photo]) -> None:
    noisy = by(Pixelate(8, 0.2, key=KEY))
    found = audit(pairs_of(photos, noisy), attackers=["parrot", "smoothing-parrot"])
    named = rank1(found)
    assert named["smoothing-parrot", "mobilefacenet-ms1m"] > named["parrot", "mobilefacenet-ms1m"] + 0.1


def test_the_one_face_that_a_tool_missed_is_counted(photos: list[Photo]) -> None:
    hidden = by(Fill(coverage=1.5))
    pairs = pairs_of(photos, hidden)
    pairs[5] = replace(pairs[5], anonymized=jpeg(photos[5].view, 75))
    found = audit(pairs, attackers=["naive"], embedders=[DlibEmbedder()])
    assert (found.faces["missed"], found.faces["unchanged_found_by"]) == (1, {"centerface+yunet": 1})
    assert any("the tool missed them" in note for note in found.notes)


def test_results_of_another_size_are_attacked_where_the_faces_are_then(photos: list[Photo]) -> None:
    found = audit(pairs_of(photos, lambda photo: jpeg(photo.view, size=(200, 200))), attackers=["naive"])
    assert set(rank1(found).values()) == {1.0}
    assert found.faces["missed"] == 24


@pytest.mark.parametrize("technique", [None, Fill(coverage=1.5)], ids=["unknown", "of most"])
def test_of_an_output_of_two_techniques_the_weak_part_is_named(
    photos: list[Photo], technique: RegionTransform | None
) -> None:
    """Two people get a fill, the next two a mosaic of their own colours, and so on: attackers choose on both."""
    weak, strong = by(Pixelate(8, coverage=1.5)), by(Fill(coverage=1.5))
    mixed = [(weak if i // 4 % 2 else strong)(photo) for i, photo in enumerate(photos)]
    pairs = [replace(pair, anonymized=m) for pair, m in zip(pairs_of(photos, strong), mixed, strict=True)]
    pairs = [replace(pair, groups={"part": "weak" if i // 4 % 2 else "strong"}) for i, pair in enumerate(pairs)]
    told: Any = {"attackers": ["composite"], "embedders": [DlibEmbedder()], "groups": ["part"]}
    [found] = audit(pairs, technique=technique, **told).attacks
    assert found.probes == 24
    part = {group.value: group.rank1.value for group in found.groups["part"]}
    assert part["weak"] >= 0.5
    assert found.rank1.low < found.rank1.value < found.rank1.high


def test_grey_results_of_colour_photos_are_attacked(photos: list[Photo]) -> None:
    def grey(photo: Photo) -> bytes:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(photo.data)).convert("L").save(buffer, "JPEG", quality=92)
        return buffer.getvalue()

    told: Any = {"attackers": ["matched-filter", "composite"], "embedders": [DlibEmbedder()]}
    named = rank1(audit(pairs_of(photos, grey), **told))
    assert named["matched-filter", ""] >= 0.5
    assert named["composite", ""] >= 0.9
    hidden = by(Fill(coverage=1.5))
    covered = [replace(p, original=grey(photo)) for p, photo in zip(pairs_of(photos, hidden), photos, strict=True)]
    assert rank1(audit(covered, **told))["composite", ""] <= 0.25


def test_boxes_that_lie_askew_are_attacked(photos: list[Photo]) -> None:
    """Each off by up to a tenth of its size, another way in each photo, and up to a fifth larger."""
    random = np.random.default_rng(0)

    def marked(photo: Photo, result: bytes) -> PhotoPair:
        x0, y0, x1, y1 = photo.face.boxes[0].tolist()
        [dx, dy], larger = random.uniform(-0.1, 0.1, 2) * (x1 - x0), random.uniform(0, 0.1) * (x1 - x0)
        box = (x0 + dx - larger, y0 + dy - larger, x1 + dx + larger, y1 + dy + larger)
        return PhotoPair(photo.data, result, faces=(Face(box, identity=photo.row["identity"]),))

    told: Any = {"attackers": ["composite"], "embedders": [DlibEmbedder()]}
    for change, low, high in ((lambda p: p.data, 0.7, 1.0), (by(Fill(coverage=1.7)), 0.0, 0.25)):
        [found] = audit([marked(photo, change(photo)) for photo in photos], **told).attacks
        assert found.probes == 24
        assert low <= found.rank1.value <= high


# --- what cannot be used -----------------------------------------------------------------------------------------


def test_pairs_that_cannot_be_used_are_counted_and_stop_nothing(photos: list[Photo]) -> None:
    def fail() -> bytes:
        raise PermissionError(13, "Permission denied", "/secret/alice.jpg")

    pairs = pairs_of(photos, lambda photo: photo.data)
    blank = jpeg(torch.full((3, 400, 400), 128, dtype=torch.uint8))
    pairs[0] = replace(pairs[0], original=b"no picture")
    pairs[2] = replace(pairs[2], anonymized=photos[2].data[:900])
    pairs[4] = replace(pairs[4], anonymized=jpeg(photos[4].view[:, :300]))
    pairs[6] = replace(pairs[6], original=blank, anonymized=blank)
    pairs[8] = replace(pairs[8], anonymized=fail)
    told: list[tuple[int, int]] = []
    found = audit(
        pairs,
        attackers=["naive"],
        embedders=[DlibEmbedder()],
        show=lambda done, unusable: told.append((done, unusable)),
    )
    assert found.counts == {
        "pairs": 24,
        "unreadable_original": 1,
        "unreadable_anonymized": 2,
        "different_shape": 1,
        "no_face": 1,
        "unlike": 0,
        "left_alone": 0,
    }
    assert (found.faces["in_originals"], found.attacks[0].probes, told[-1]) == (19, 14, (24, 4))


def test_faces_without_a_template_count_for_nobody(photos: list[Photo]) -> None:
    class Blind(DlibEmbedder):
        """Sees nothing in dark pictures."""

        def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
            made = super().embed(views, regions)
            made[[i for i, v in enumerate(views) if float(v.float().mean()) < 20]] = torch.nan
            return made

    pairs = pairs_of(photos, lambda photo: photo.data)
    dark = jpeg(photos[0].view // 16)
    found = audit([replace(pairs[0], anonymized=dark), *pairs[1:]], embedders=[Blind()], attackers=NETWORK_ATTACKERS)
    for one in found.attacks:
        assert (one.probes, one.unusable) == ((23, 1) if one.attacker == "naive" else (22, 1))
    assert found.networks[0]["self_match"]["refused"]["percent"] == 100  # not a number is never safe


def test_wrong_identities_and_wrong_pairs_are_suspected(photos: list[Photo]) -> None:
    pairs = pairs_of(photos, lambda photo: photo.data)
    wrong = [replace(pair, identity=f"{i % PEOPLE}") for i, pair in enumerate(pairs)]
    found = audit(wrong, attackers=["naive"], embedders=[DlibEmbedder()])
    assert any("the identities are wrong" in note for note in found.notes)
    upside_down = [
        replace(pair, anonymized=jpeg(photo.view.flip(1))) for pair, photo in zip(pairs, photos, strict=True)
    ]
    found = audit(upside_down, attackers=["naive"], embedders=[DlibEmbedder()])
    assert any("are they paired and turned rightly?" in note for note in found.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pairs: [], "there is no pair"),
        (lambda pairs: [replace(p, original=b"") for p in pairs], r"none of 4 pairs.*4 unreadable original"),
        (
            lambda pairs: [replace(p, identity=f"{i}") for i, p in enumerate(pairs)],
            "another photo of the same person",
        ),
        (lambda pairs: [replace(p, identity="one") for p in pairs], "only one person"),
    ],
)
@pytest.mark.parametrize("attackers", [["naive"], ["composite"]])
def test_nothing_to_attack_is_an_error(
    photos: list[Photo], change: Callable[[list[PhotoPair]], list[PhotoPair]], message: str, attackers: list[str]
) -> None:
    with pytest.raises(AuditError, match=message):
        audit(change(pairs_of(photos[:4], lambda photo: photo.data)), attackers=attackers)


def test_unknown_attackers_and_networks_named_twice_are_refused() -> None:
    with pytest.raises(PolicyError, match="unknown attacker 'owl'; there are naive, parrot, smoothing-parrot"):
        audit([], attackers=["owl"])
    with pytest.raises(PolicyError, match="named twice"):
        audit([], embedders=[DlibEmbedder(), DlibEmbedder()])


# --- labels ------------------------------------------------------------------------------------------------------


def test_without_identities_faces_are_searched_for_in_the_originals(photos: list[Photo]) -> None:
    pairs = [replace(p, identity="") for p in pairs_of(photos, by(GaussianBlur(0.02)))]
    found = audit(pairs)
    by_network = {("naive", "dlib-face-resnet"), ("naive", "mobilefacenet-ms1m")}
    assert set(rank1(found)) == {*by_network, ("matched-filter", ""), ("trained", ""), ("composite", "")}
    assert min(rank1(found).values()) >= 0.75
    assert found.attacks[0].chance[0] == pytest.approx(1 / 24)
    assert not found.controls
    assert "parrots were not possible" in found.notes[0]
    assert "% of 24 faces at rank 1" in found.verdict
    with pytest.raises(
        AuditError,
        match=r"without identities only these.*: naive, matched-filter, trained, composite",
    ):
        audit(pairs, attackers=["parrot"])


def test_without_identities_the_composite_attacker_asks_no_parrot(photos: list[Photo]) -> None:
    """It would have the very photo, and find it by its surroundings whatever lies over the face."""
    hidden = by(RandomColors(cells=3, spread=0.15, coverage=1.55, shape="rounded"))
    found = audit([replace(p, identity="") for p in pairs_of(photos, hidden)], attackers=["composite"])
    [composite] = found.attacks
    assert "parrot" not in composite.how
    assert composite.rank1.value <= 1 / 24 + 0.15


def test_marked_faces_are_audited_where_they_are_marked(photos: list[Photo]) -> None:
    def marked(photo: Photo) -> PhotoPair:
        box = tuple(photo.face.boxes[0].tolist())
        points = tuple(photo.face.landmarks.flatten().tolist())
        face = Face((box[0], box[1], box[2], box[3]), points, photo.row["identity"])
        return PhotoPair(photo.data, photo.data, faces=(face, Face((5.0, 5.0, 60.0, 70.0))))

    found = audit([marked(photo) for photo in photos], attackers=["naive"], embedders=[DlibEmbedder()])
    assert found.faces["in_originals"] == 48
    assert found.faces["labelled"] == found.attacks[0].probes == 24
    assert found.faces["unchanged_found_by"] == {"marked": 24, "marked+centerface+yunet": 24}
    assert rank1(found) == {("naive", "dlib-face-resnet"): 1.0}


def test_order_and_workers_change_nothing(photos: list[Photo]) -> None:
    pairs = pairs_of(photos[:16], by(GaussianBlur(0.1)))
    told: Any = {"embedders": [DlibEmbedder()], "groups": ["gender"], "technique": GaussianBlur(0.1)}
    one = audit(pairs, **told).to_json()
    other = audit(pairs[::-1], **told, workers=3).to_json()
    for key in ("verdict", "worst", "counts", "faces", "notes"):
        assert one[key] == other[key]
    for a, b in zip(one["attacks"], other["attacks"], strict=True):
        assert a["rank1"] == b["rank1"]
        assert a["cmc"] == b["cmc"]
        assert a["groups"] == b["groups"]


def test_the_json_names_nobody(photos: list[Photo]) -> None:
    pairs = [
        replace(pair, identity=f"alice-{photo.row['identity']}", groups={"gender": photo.row["gender"], "who": "bob"})
        for pair, photo in zip(pairs_of(photos, by(Fill())), photos, strict=True)
    ]
    found = audit(pairs, embedders=[DlibEmbedder()], groups=["gender"], attackers=[*NETWORK_ATTACKERS, "context"])
    text = json.dumps(found.to_json())
    assert json.loads(text)["format"] == "anondata.audit/2"
    for name in ("alice", "bob", "london", ".jpg", "/"):
        assert name not in text.replace("anondata.audit/2", "")
    assert "alice" not in repr(pairs[0])


def test_an_attacker_with_the_gallery_is_one_more(photos: list[Photo]) -> None:
    embedder = DlibEmbedder()
    made = torch.cat([embedder.embed([photo.view], photo.face) for photo in photos[:20]]).numpy()
    names = [*(photo.row["identity"] for photo in photos[:18]), "a stranger", "a stranger"]
    enrolled = empty_gallery(embedder).add(names, made)
    hidden = pairs_of(photos, lambda photo: photo.data)
    found = audit(hidden, embedders=[embedder], attackers=["naive"], gallery=enrolled)
    naive, known = found.attacks
    assert (naive.gallery, known.gallery) == ("originals", "enrolled")
    assert (known.rank1.value, known.probes, known.people, known.gallery_templates) == (1.0, 18, 9, 20)
    assert known.chance[0] == pytest.approx(2 / 20)
    seen: set[str] = set()
    once = [p for p in hidden if p.identity not in seen and not seen.add(p.identity)]  # nobody in two photos
    (alone,) = audit(once, embedders=[embedder], attackers=["naive"], gallery=enrolled).attacks
    assert (alone.gallery, alone.probes) == ("enrolled", 9)
    with pytest.raises(AuditError, match="no face has another photo"):
        audit(once, embedders=[embedder], attackers=["naive"])
    strangers = empty_gallery(embedder).add(["x", "y"], made[:2])
    with pytest.raises(AuditError, match="none of the people in the photos is in the gallery"):
        audit(hidden, embedders=[embedder], attackers=["naive"], gallery=strangers)
    with pytest.raises(AuditError, match="needs identities"):
        audit([replace(p, identity="") for p in hidden], embedders=[embedder], attackers=["naive"], gallery=enrolled)
    with pytest.raises(GalleryError):
        audit(hidden, embedders=[embedder], gallery=replace(enrolled, embedder_fingerprint="0" * 32))


# --- parts -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def face(astronaut: Tensor) -> Regions:
    return CenterFaceDetector(0.35).detect([astronaut])


def decoded(data: bytes) -> Tensor:
    return codec.decode(data).pixels


@pytest.mark.parametrize(
    ("quality", "size", "form"),
    [
        *[(95, None, "JPEG"), (75, None, "JPEG"), (50, None, "JPEG"), (30, None, "JPEG"), (75, None, "WEBP")],
        *[(75, (256, 256), "JPEG"), (90, (128, 128), "JPEG"), (75, (700, 700), "JPEG"), (0, None, "PNG")],
    ],
)
def test_a_face_that_was_only_written_again_is_unchanged(
    astronaut: Tensor, face: Regions, quality: int, size: tuple[int, int] | None, form: str
) -> None:
    again = decoded(jpeg(astronaut, quality, size=size, form=form))
    where = scaled(face, (again.shape[2] / 512, again.shape[1] / 512))
    assert unchanged(astronaut, again, where).tolist() == [True]


@pytest.mark.parametrize("quality", [75, 95])
@pytest.mark.parametrize(
    "technique",
    [GaussianBlur(0.05), GaussianBlur(0.3), Pixelate(16), Pixelate(8), Fill(), Noise(0.3, key=KEY)],
    ids=lambda t: f"{t.name}",
)
def test_a_face_that_a_technique_changed_is_not_unchanged(
    astronaut: Tensor, face: Regions, technique: RegionTransform, quality: int
) -> None:
    changed = decoded(jpeg(technique.change_regions(astronaut, face.boxes), quality))
    assert unchanged(astronaut, changed, face).tolist() == [False]


def test_each_face_is_judged_by_itself(party_jpeg: bytes) -> None:
    view = decoded(party_jpeg)
    faces = CenterFaceDetector(0.35).detect([view])
    half = faces.select(list(range(0, len(faces), 2)))
    changed = decoded(jpeg(Pixelate(8).change_regions(view, half.boxes), 75))
    assert unchanged(view, changed, faces).tolist() == [i % 2 == 1 for i in range(len(faces))]


@pytest.mark.parametrize(
    ("after", "scale"),
    [((40, 30), (1, 1)), ((20, 15), (0.5, 0.5)), ((13, 10), (1 / 3, 13 / 40)), ((30, 40), None), ((40, 33), None)],
)
def test_resized_pictures_have_a_scale_and_others_none(
    after: tuple[int, int], scale: tuple[float, float] | None
) -> None:
    found = same_shape(torch.zeros(3, 40, 30), torch.zeros(3, *after))
    assert found == (scale if scale is None else pytest.approx(scale))


def test_two_pictures_are_alike_where_the_tool_left_them(astronaut: Tensor, face: Regions) -> None:
    hidden = Fill(coverage=1.7).change_regions(astronaut, face.boxes)
    assert alike(astronaut, decoded(jpeg(hidden, 50, size=(300, 300))), scaled(face, (300 / 512, 300 / 512)))
    assert not alike(astronaut, astronaut.flip(1), face)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["b", "", "a", "NA"], ["b", "not stated", "a", "not stated"]),
        ([str(n) for n in range(16)], ["0 to 3"] * 4 + ["4 to 7"] * 4 + ["8 to 11"] * 4 + ["12 to 15"] * 4),
        (
            [*["1"] * 6, *"123456789", ""],
            ["1 to 1"] * 7 + ["2 to 2"] + ["3 to 5"] * 3 + ["6 to 9"] * 4 + ["not stated"],
        ),
        (["1", "2", "3"], ["1", "2", "3"]),
    ],
)
def test_numbers_of_many_kinds_become_quarters(values: list[str], names: list[str]) -> None:
    assert list(binned(values)) == names


def test_a_column_of_names_is_no_group() -> None:
    with pytest.raises(AuditError, match="30 values, at most 20 are compared"):
        binned([f"name {n}" for n in range(30)])


def test_small_groups_are_told_and_never_called_the_worst() -> None:
    owners = np.arange(29)
    named = np.where(owners < 5, 1.0, np.where(owners < 17, 0.5, 0.0))
    values = ("few",) * 5 + ("many",) * 12 + ("others",) * 12
    groups = by_group({"g": values}, np.arange(29), named, owners)["g"]
    assert {g.value: (g.people, g.too_few) for g in groups} == {
        "few": (5, True),
        "many": (12, False),
        "others": (12, False),
    }
    worst = worst_of(groups)
    assert worst is not None
    assert worst["value"] == "many"
    assert worst_of([Group("a", 9, 9, Share(1, 0.7, 1)), Group("b", 20, 20, Share(0, 0, 0.2))]) is None


def test_attacks_take_plain_arrays() -> None:
    random = np.random.default_rng(0)
    owners = np.repeat(np.arange(20), 2)
    clear = random.normal(size=(20, 8))[owners] + 0.1 * random.normal(size=(40, 8))
    shift = random.normal(size=8) * 9  # a tool that moves all templates alike: nothing to a parrot
    views = {"clear": clear, "anonymized": clear[:, ::-1] + shift, "smoothed": clear}
    table = FaceTable(np.arange(40), owners, {}, {"some network": views}, labelled=True)
    named = {name: attack(table, "some network", name, fars=[0.1]) for name in ("naive", "parrot", "untouched")}
    assert named["naive"].rank1.value < 0.3
    assert named["parrot"].rank1.value == named["untouched"].rank1.value == 1
    assert named["naive"].within_threshold is None  # nobody calibrated it
    assert named["parrot"].to_json()["tar_at_far"] == [
        {"far": 0.1, "tar": {"percent": 100.0, "low": 83.89, "high": 100.0}}
    ]


def test_groups_are_of_the_faces_that_were_probes() -> None:
    """Faces that nobody knows or that have no template must not shift the others' groups."""
    random = np.random.default_rng(0)
    owners = np.array([-1, *np.repeat(np.arange(24), 2), -1])
    clear = random.normal(size=(25, 8))[owners] + 0.01 * random.normal(size=(50, 8))
    hidden = np.where((owners % 2 == 1)[:, None], clear, random.normal(size=(50, 8)))
    hidden[1] = np.nan
    columns = {"g": ("nobody", *(f"{o % 2}" for o in owners[1:-1]), "nobody")}
    views = {"clear": clear, "anonymized": hidden, "smoothed": hidden}
    one = attack(FaceTable(np.arange(50), owners, columns, {"n": views}, labelled=True), "n", "naive", fars=[])
    assert (one.probes, one.unusable) == (47, 1)
    assert [(g.value, g.probes, g.people) for g in one.groups["g"]] == [("0", 23, 12), ("1", 24, 12)]
    assert one.groups["g"][0].rank1.value < 0.3
    assert one.groups["g"][1].rank1.value == 1
    assert one.to_json()["worst_group"]["g"]["value"] == "1"


def test_a_parrot_has_each_pair_once(astronaut: Tensor) -> None:
    random = np.random.default_rng(0)
    views = dict.fromkeys(("clear", "anonymized", "smoothed"), random.normal(size=(24, 4)))
    table = FaceTable(np.arange(24), np.repeat(np.arange(12), 2), {}, {"n": views}, labelled=True)
    found = {name: attack(table, "n", name, fars=[0.05, 0.04]) for name in ("naive", "parrot", "smoothing-parrot")}
    assert {name: one.impostor_pairs for name, one in found.items()} == {
        "naive": 24 * 11,  # the first photo of each person against the second of the others, and the other way round
        "parrot": 12 * 11,
        "smoothing-parrot": 12 * 11,
    }
    assert [found["naive"].tar[far] is None for far in (0.05, 0.04)] == [False, False]
    assert [found["parrot"].tar[far] is None for far in (0.05, 0.04)] == [True, True]


def test_a_picture_that_was_changed_as_a_whole_is_no_face_that_was_missed(astronaut: Tensor, face: Regions) -> None:
    everywhere = face.boxes.new_tensor([[0.0, 0, 512, 512]])
    blurred = GaussianBlur(0.05, coverage=1.1).change_regions(astronaut, everywhere)
    assert unchanged(astronaut, blurred, face).tolist() == [False]


def test_changed_faces_around_make_none_unchanged(astronaut: Tensor, face: Regions) -> None:
    """What a tool did to a neighbour is no measure of what writing the picture did."""
    middle = int(face.boxes[0, [0, 2]].mean())
    crowd = torch.cat([astronaut[:, :, middle - 75 : middle + 75]] * 2, dim=2)
    faces = CenterFaceDetector(0.35).detect([crowd])
    assert len(faces) == 2
    weak, strong = Pixelate(16), Noise(2.0, cells=16, key=KEY)
    first = weak.change_regions(crowd, faces.boxes[:1])
    both = strong.change_regions(first, faces.boxes[1:])
    assert unchanged(crowd, both, faces).tolist() == [False, False]


def test_the_identity_of_a_photo_is_that_of_its_largest_face(party_jpeg: bytes) -> None:
    pair = PhotoPair(party_jpeg, party_jpeg, "ann", {"g": "x"})
    seen = Eyes({"centerface": CenterFaceDetector(0.35)}).see(pair).faces
    sizes = [float(face.views["clear"][1].sizes.prod()) for face in seen]
    assert sizes.index(max(sizes)) not in (0, len(sizes) - 1)
    assert [face.identity for face in seen] == ["ann" if size == max(sizes) else "" for size in sizes]


@dataclass(frozen=True)
class Sees:
    """A detector that sees what it is told to."""

    regions: Regions

    def detect(self, views: Sequence[Tensor]) -> Regions:
        return self.regions


def test_missed_is_what_every_detector_takes_for_a_face(party_jpeg: bytes) -> None:
    faces = CenterFaceDetector(0.35).detect([decoded(party_jpeg)])
    detectors = {"first": Sees(faces.select([0, 1, 2, 3])), "second": Sees(faces.select([0, 1, 5]))}
    found = audit([PhotoPair(party_jpeg, party_jpeg)], embedders=[DlibEmbedder()], detectors=detectors)
    assert found.faces["in_originals"] == 4
    assert found.faces["missed"] == 2
    assert found.faces["unchanged_found_by"] == {"first": 2, "first+second": 2, "second alone": 1}


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_pairs_are_in_memory_than_there_are_workers(workers: int) -> None:
    given = [0]

    def pairs() -> Iterator[PhotoPair]:
        for _ in range(20):
            given[0] += 1
            yield PhotoPair(b"", b"")

    for taken, seen in enumerate(_in_order(Eyes({}).see, pairs(), workers)):
        assert given[0] - taken <= workers
        assert seen.problem == "unreadable_original"
    assert given[0] == 20


def test_a_resized_result_is_looked_at_where_its_faces_are(astronaut: Tensor, face: Regions) -> None:
    hidden = jpeg(Pixelate(8).change_regions(astronaut, face.boxes), size=(300, 300))
    kept = jpeg(astronaut, size=(300, 300))
    eyes = Eyes({"centerface": CenterFaceDetector(0.35)})
    seen = [eyes.see(PhotoPair(jpeg(astronaut), data)).faces[0] for data in (hidden, kept)]
    assert [face.unchanged for face in seen] == [False, True]
    assert [face.detected_after for face in seen] == [False, True]


def test_eyes_need_only_one_detector(astronaut: Tensor) -> None:
    data = jpeg(astronaut)
    seen = Eyes({"centerface": CenterFaceDetector(0.35)}).see(PhotoPair(data, data))
    assert [face.found_by for face in seen.faces] == [("centerface",)]
