"""The gates: what each passes, on real faces, and what it refuses to work with."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anondata import Anonymizer
from anondata.content.codec import decode
from anondata.content.images import BLANK
from anondata.detectors.centerface import CenterFaceDetector
from anondata.engine.rules import check_galleries
from anondata.errors import GalleryError, PolicyError
from anondata.policy import from_yaml
from anondata.protocols import Probe, Verdicts
from anondata.regions import Regions
from anondata.transforms import Fill, GaussianBlur, Pixelate, RegionTransform
from anondata.verifiers.calibration import Calibration, Threshold, shipped
from anondata.verifiers.embedders import DlibEmbedder
from anondata.verifiers.gallery import Gallery, Portrait, empty_gallery
from anondata.verifiers.gates.compose import AllOf, AnyOf, Ensemble, all_of, any_of
from anondata.verifiers.gates.confidence_drop import ConfidenceDrop
from anondata.verifiers.gates.cover import EveryoneExcept, GalleryPeople, OnlyGallery
from anondata.verifiers.gates.gallery_match import GalleryMatch
from anondata.verifiers.gates.parrot_match import ParrotMatch, parrot_templates, with_parrots
from anondata.verifiers.gates.self_match import SelfMatch

DLIB = DlibEmbedder()


@pytest.fixture(scope="module")
def party(party_jpeg: bytes) -> Tensor:
    """``(3, 886, 1280)`` uint8 with six faces."""
    return decode(party_jpeg).pixels


@pytest.fixture(scope="module")
def faces(party: Tensor) -> Regions:
    found = CenterFaceDetector().detect([party])
    assert len(found) == 6
    return found


@pytest.fixture(scope="module")
def gallery(party: Tensor, faces: Regions) -> Gallery:
    """The six people, two templates each: as they are, and from a slightly shifted crop; with portraits."""
    import io

    from PIL import Image

    names, rows, portraits = [], [], []
    for shift in (0, 3):
        view = party.roll(shift, dims=2)
        moved = replace(faces, boxes=faces.boxes + shift, landmarks=faces.landmarks + torch.tensor([shift, 0]))
        names += [f"person {i}" for i in range(6)]
        rows.append(DLIB.embed([view], moved))
        buffer = io.BytesIO()
        Image.fromarray(view.permute(1, 2, 0).numpy()).save(buffer, "PNG", compress_level=1)
        portraits += [
            Portrait(buffer.getvalue(), moved.boxes[i].numpy(), moved.landmarks[i].numpy()) for i in range(6)
        ]
    return empty_gallery(DLIB).add(names, torch.cat(rows).numpy(), portraits=portraits)


@pytest.fixture(scope="module")
def others(gallery: Gallery, astronaut: Tensor) -> Gallery:
    """Those of the gallery whom the recognizer is sure the astronaut is not."""
    face = CenterFaceDetector().detect([astronaut])
    distance = np.linalg.norm(gallery.templates - DLIB.embed([astronaut], face).numpy(), axis=1)
    alike = {gallery.identities[i] for i in gallery.owners[distance < 0.72]}
    assert len(alike) <= 2
    return gallery.remove(sorted(alike))


def probe(view: Tensor, faces: Regions, technique: RegionTransform, **more: Tensor) -> Probe:
    def blank(name: str, rows: Tensor) -> Tensor:
        return DLIB.embed([BLANK.change_regions(view, faces.boxes)], faces.select(rows))

    return Probe(
        faces,
        {DLIB.name: DLIB.embed([view], faces), **{k: v[0] for k, v in more.items()}},
        {
            DLIB.name: DLIB.embed([technique.change_regions(view, faces.boxes)], faces),
            **{k: v[1] for k, v in more.items()},
        },
        (technique,) * len(faces),
        torch.full((len(faces),), technique.erases),
        torch.ones(len(faces), dtype=torch.bool),
        blank,
    )


def test_gallery_match_fails_the_enrolled_and_passes_the_erased(
    party: Tensor, faces: Regions, gallery: Gallery
) -> None:
    gate = GalleryMatch().bound({"protected": gallery})
    weak = gate.judge(probe(party, faces, GaussianBlur(0.01)))
    assert not weak.passed.any()
    assert weak.before.abs().max() < 1e-3
    assert gate.judge(probe(party, faces, Fill(coverage=1.7, feather=0.0))).passed.all()


def test_gallery_match_says_what_a_naive_search_would(party: Tensor, faces: Regions, gallery: Gallery) -> None:
    tried = probe(party, faces, GaussianBlur(0.06))
    verdicts = GalleryMatch().bound({"protected": gallery}).judge(tried)
    after = tried.after[DLIB.name].numpy()
    expected = [min(float(np.linalg.norm(row - t)) for t in gallery.templates) for row in after]
    assert np.allclose(verdicts.after.numpy(), expected, atol=1e-4)
    assert verdicts.passed.tolist() == [d > 0.6102 for d in expected]


def test_parrot_match_sees_what_a_blur_leaves_and_the_naive_gate_does_not(
    party: Tensor, faces: Regions, gallery: Gallery
) -> None:
    blur = GaussianBlur(0.2)
    tried = probe(party, faces, blur)
    assert GalleryMatch().bound({"protected": gallery}).judge(tried).passed.any()
    parrot = ParrotMatch(far=0.2).bound({"protected": gallery})
    assert not parrot.judge(tried).passed.any()
    assert parrot.judge(probe(party, faces, Fill(coverage=1.7, feather=0.0))).passed.all()


def test_parrot_match_passes_who_is_not_in_the_gallery(others: Gallery, astronaut: Tensor) -> None:
    face = CenterFaceDetector().detect([astronaut])
    verdicts = ParrotMatch(far=0.5).bound({"protected": others}).judge(probe(astronaut, face, GaussianBlur(0.2)))
    assert verdicts.passed.tolist() == [True]
    assert verdicts.threshold.tolist() == [0.0]


def test_parrots_made_at_enrolment_are_those_made_on_first_use(gallery: Gallery) -> None:
    blur, noisy = GaussianBlur(0.2), Pixelate(8, 0.2)
    kept = with_parrots(gallery, [blur], DLIB)
    again = parrot_templates(gallery, blur, DLIB)
    assert np.array_equal(next(iter(kept.parrots.values())), again)
    first, second = parrot_templates(gallery, noisy, DLIB), parrot_templates(gallery, Pixelate(8, 0.2), DLIB)
    assert np.array_equal(first, second)  # the noise is the gallery's own


def test_confidence_falls_with_the_technique(party: Tensor, faces: Regions, gallery: Gallery) -> None:
    gate = ConfidenceDrop().bound({"protected": gallery})
    weak = gate.judge(probe(party, faces, GaussianBlur(0.01)))
    assert not weak.passed.any()
    assert (weak.before > 0.99).all()
    strong = gate.judge(probe(party, faces, Fill(coverage=1.7, feather=0.0)))
    assert strong.passed.all()
    assert (strong.after <= strong.before - 0.5).all()


@dataclass(frozen=True)
class Smiles:
    """A classifier of one's own: confidences of two classes."""

    name: str = "smiles"
    fingerprint: str = "1"

    def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
        raise NotImplementedError


OWN = f"{Smiles.__module__}:Smiles"


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [
        ([0.9, 0.1], [0.3, 0.7], True),
        ([0.9, 0.1], [0.5, 0.5], False),
        ([0.04, 0.02], [0.05, 0.9], True),
        ([0.9, 0.1], [torch.nan, 0.1], False),
        ([0.9, 0.1], [-3.0, 0.1], False),
    ],
)
def test_every_classifier_must_be_less_sure_of_the_class_it_found_before(
    astronaut: Tensor, monkeypatch: pytest.MonkeyPatch, before: list[float], after: list[float], passed: bool
) -> None:
    monkeypatch.setattr("anondata.verifiers.gates.confidence_drop.embedder_of", lambda path: Smiles())
    gate = ConfidenceDrop(gallery="", classifiers=("mine:Smiles",))
    face = CenterFaceDetector().detect([astronaut])
    tried = probe(astronaut, face, Fill(), smiles=(torch.tensor([before]), torch.tensor([after])))
    assert gate.judge(tried).passed.tolist() == [passed]
    assert len(gate.judge(tried).parts) == 1


@pytest.mark.parametrize("make", [GalleryMatch, lambda: ParrotMatch(far=0.2), ConfidenceDrop])
def test_nan_templates_never_pass(make: Any, faces: Regions, gallery: Gallery) -> None:
    bad, good = torch.full((6, 128), torch.nan), torch.zeros(6, 128)
    gate = make().bound({"protected": gallery})
    for before, after in ((good, bad), (bad, bad)):
        tried = Probe(
            faces,
            {DLIB.name: before},
            {DLIB.name: after},
            (Fill(),) * 6,
            torch.ones(6, dtype=torch.bool),
            torch.ones(6, dtype=torch.bool),
            lambda name, rows: bad[rows],
        )
        verdicts = gate.judge(tried)
        assert not (verdicts.passed & verdicts.after.isfinite()).any()


@dataclass(frozen=True)
class Says:
    """A gate that says the same of every region."""

    answer: bool
    after: float = 1.0
    name: str = "says"
    embedders: tuple[()] = ()

    def judge(self, probe: Probe) -> Verdicts:
        rows = torch.ones(len(probe.regions))
        return Verdicts(self.name, rows * 0, rows * self.after, rows * 0, rows.bool() & self.answer)


@pytest.mark.parametrize(
    ("made", "passed"),
    [
        (all_of(Says(True), Says(True)), True),
        (all_of(Says(True), Says(False)), False),
        (any_of(Says(True), Says(False)), True),
        (any_of(Says(False), Says(False)), False),
        (all_of(Says(True), any_of(Says(False), Says(True))), True),
        (all_of(Says(True), Says(True, after=float("nan"))), False),
        (any_of(Says(True, after=float("nan"))), False),
    ],
)
def test_composed_gates_count_and_keep_every_verdict(made: Any, passed: bool, faces: Regions) -> None:
    tried = Probe(
        faces,
        {},
        {},
        (Fill(),) * 6,
        torch.ones(6, dtype=torch.bool),
        torch.ones(6, dtype=torch.bool),
        lambda name, rows: rows,
    )
    verdicts = made.judge(tried)
    assert verdicts.passed.tolist() == [passed] * 6
    assert len(verdicts.parts) == len(made.gates)


def test_composed_gates_round_trip_and_hand_on_galleries(gallery: Gallery) -> None:
    gate = all_of(SelfMatch(), any_of(GalleryMatch(), GalleryMatch(gallery="others")))
    again = AllOf(**gate.config())
    assert again.config() == gate.config()
    assert list(gate.galleries) == ["protected", "others"]
    bound = gate.bound({"protected": gallery, "others": gallery})
    assert isinstance(bound.gates[1], AnyOf)
    assert bound.gates[1].gates[1].opened is gallery
    ensemble = Ensemble()
    assert Ensemble(**ensemble.config()).name == ensemble.name
    assert {e.name for e in ensemble.embedders} == {"dlib-face-resnet", "mobilefacenet-ms1m"}


@pytest.mark.parametrize("wrong", [(), "self_match", {"self_match": {}}, [{"a": 1, "b": 2}], ["no_such"]])
def test_what_is_no_list_of_gates_is_refused(wrong: Any) -> None:
    with pytest.raises(PolicyError):
        AllOf(wrong)


def test_a_gate_without_its_gallery_says_so(faces: Regions, party: Tensor) -> None:
    with pytest.raises(PolicyError, match="gallery 'protected' is not at hand"):
        GalleryMatch().judge(probe(party, faces, Fill()))


def test_galleries_that_do_not_fit_are_refused(gallery: Gallery) -> None:
    def bind(gate: Any, found: Any) -> None:
        gate.bound({"protected": found, "consented": found})

    with pytest.raises(GalleryError, match="is empty"):
        bind(GalleryMatch(), empty_gallery(DLIB))
    with pytest.raises(GalleryError, match="made with embedder 'other'"):
        bind(GalleryMatch(), replace(gallery, embedder="other"))
    with pytest.raises(GalleryError, match="made with other weights"):
        bind(GalleryMatch(), replace(gallery, embedder_fingerprint="0" * 32))
    with pytest.raises(GalleryError, match="expected a Gallery or its file"):
        bind(GalleryMatch(), 3)
    with pytest.raises(GalleryError, match="of protected people, this cover needs consented ones"):
        bind(EveryoneExcept(), gallery)
    with pytest.raises(GalleryError, match="of consented people, this cover needs protected ones"):
        bind(OnlyGallery(), replace(gallery, role="consented"))
    with pytest.raises(GalleryError, match=r"of strangers up to 12% would be taken for one of the 12 consented"):
        bind(EveryoneExcept(far=0.01), replace(gallery, role="consented"))
    with pytest.raises(GalleryError, match="lacks portraits"):
        bind(ParrotMatch(), replace(gallery, portraits=()))
    with pytest.raises(GalleryError, match=r"has 60 pairs of portraits of different people; .* needs 200"):
        bind(ParrotMatch(far=0.05), gallery)


def test_only_the_gallery_is_covered_and_doubts_are(
    party: Tensor, faces: Regions, gallery: Gallery, others: Gallery, astronaut: Tensor
) -> None:
    cover = OnlyGallery().bound({"protected": gallery})
    assert not cover.spares(faces, {DLIB.name: DLIB.embed([party], faces)}).any()
    cover = OnlyGallery().bound({"protected": others})
    face = CenterFaceDetector().detect([astronaut])
    templates = {DLIB.name: DLIB.embed([astronaut], face)}
    assert cover.spares(face, templates).tolist() == [True]
    for doubt in (
        replace(face, landmarks=torch.full_like(face.landmarks, torch.nan)),
        replace(face, boxes=face.boxes[:, :2].repeat(1, 2) + torch.tensor([0, 0, 30.0, 30.0])),
        replace(face, landmarks=face.landmarks.index_copy(1, torch.tensor([2]), face.landmarks[:, :1])),
    ):
        assert cover.spares(doubt, templates).tolist() == [False]
    assert cover.spares(face, {DLIB.name: torch.full((1, 128), torch.nan)}).tolist() == [False]


def test_everyone_but_the_consented_is_covered(
    party: Tensor, faces: Regions, gallery: Gallery, astronaut: Tensor
) -> None:
    consented = replace(gallery, role="consented")
    cover = EveryoneExcept().bound({"consented": consented})
    ahead = cover.spares(faces, {DLIB.name: DLIB.embed([party], faces)})
    assert ahead.sum() >= 4  # who looks aside is covered, too
    face = CenterFaceDetector().detect([astronaut])
    assert cover.spares(face, {DLIB.name: DLIB.embed([astronaut], face)}).tolist() == [False]


def test_people_of_a_gallery_are_named_and_strangers_and_doubts_are_not(
    party: Tensor, faces: Regions, gallery: Gallery, astronaut: Tensor
) -> None:
    known = GalleryPeople().bound({"protected": gallery})
    names = known.people(faces, {DLIB.name: DLIB.embed([party], faces)})
    assert {name for name in names if name} <= set(gallery.identities)
    assert len(set(names) - {""}) == sum(map(bool, names)) >= 4  # who looks aside is nobody
    face = CenterFaceDetector().detect([astronaut])
    assert known.people(face, {DLIB.name: DLIB.embed([astronaut], face)}) == [""]
    aside = replace(faces, landmarks=torch.full_like(faces.landmarks, torch.nan))
    assert known.people(aside, {DLIB.name: DLIB.embed([party], faces)}) == [""] * len(faces)


def test_policies_with_galleries_anonymize_real_photos(
    party_jpeg: bytes, gallery: Gallery, others: Gallery, astronaut: Tensor
) -> None:
    everyone = Anonymizer("faces-protected", galleries={"protected": gallery})
    (out,) = everyone.anonymize([party_jpeg])
    assert {len(r.verdicts) for r in out.record.regions if not r.tiny} == {2}
    assert len(out.record.regions) >= 6
    assert everyone.report([out]).galleries == {"protected": gallery.fingerprint}
    only = Anonymizer("faces-only-protected", galleries={"protected": others})
    group, stranger = only.anonymize([party_jpeg, astronaut])
    assert sum(not r.spared for r in group.record.regions) >= len(others.identities)
    assert torch.equal(stranger.image, astronaut)
    consent = Anonymizer("faces-except-consented", galleries={"consented": replace(gallery, role="consented")})
    group, stranger = consent.anonymize([party_jpeg, astronaut])
    assert sum(r.spared for r in group.record.regions) >= 3  # behind the others something like a face is seen
    assert not torch.equal(stranger.image, astronaut)


def test_an_anonymizer_with_galleries_survives_pickling(gallery: Gallery, astronaut: Tensor) -> None:
    made = Anonymizer("faces-protected", galleries={"protected": gallery}, run_key=b"0123456789abcdef")
    again = pickle.loads(pickle.dumps(made))
    assert torch.equal(again.anonymize([astronaut])[0].image, made.anonymize([astronaut])[0].image)
    assert again.galleries == made.galleries


def test_thresholds_of_one_s_own_become_part_of_the_policy(tmp_path: Any) -> None:
    own = Calibration("dlib-face-resnet", "mine", 20, 5000, (Threshold(0.01, 0.7, 0.65, 0.75),))
    path = tmp_path / "mine.json"
    path.write_text(own.to_json())
    text = """
name: mine
content: {image: {detect: [centerface], regions: {face: {ladder: [fill], verify: [self_match: {calibration: PATH}]}}}}
"""
    policy = from_yaml(text.replace("PATH", str(path)))
    assert str(tmp_path) not in policy.to_yaml()
    path.unlink()
    (step,) = from_yaml(policy.to_yaml()).content["image"].regions["face"].verify
    assert step.make().threshold.distance == 0.7
    assert policy.fingerprint != from_yaml(text.replace("{calibration: PATH}", "{}")).fingerprint


def test_a_calibration_of_another_embedder_is_refused() -> None:
    with pytest.raises(PolicyError, match="the calibration is of embedder 'mobilefacenet-ms1m'"):
        SelfMatch(calibration=shipped("mobilefacenet-ms1m"))
    other = replace(shipped("dlib-face-resnet"), embedder_fingerprint="0" * 32)
    with pytest.raises(PolicyError, match="other weights"):
        SelfMatch(calibration=other)
    with pytest.raises(PolicyError, match="the path of a file"):
        SelfMatch(calibration=3)


@pytest.mark.parametrize(
    ("front", "behind", "scale", "place"),
    [("030", "105", 0.832, (72, 45)), ("027", "132", 0.828, (6, 57)), ("030", "003", 0.668, (47, 94))],
)
def test_a_stranger_behind_somebody_who_consented_is_not_released(
    shared_data: Any, front: str, behind: str, scale: float, place: tuple[int, int]
) -> None:
    """Composites in which the detector took both for one face, or gave one the other's landmarks."""
    from PIL import Image, ImageDraw, ImageFilter

    def photo(who: str) -> Image.Image:
        return Image.open(shared_data / "faces_london" / f"{who}_smiling.jpg").convert("RGB")

    def tensor(image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    face = CenterFaceDetector().detect([tensor(photo(front))]).select([0])
    (x, y), (w, h) = (face.boxes[0, :2] + face.boxes[0, 2:]).div(2).tolist(), face.sizes[0].tolist()
    oval = (x - w * 0.525, y - h * 0.51, x + w * 0.525, y + h * 0.51)
    mask = Image.new("L", photo(front).size, 0)
    ImageDraw.Draw(mask).ellipse(oval, fill=255)
    size = tuple(int(side * scale) for side in mask.size)
    scene = photo(behind)
    scene.paste(photo(front).resize(size), place, mask.filter(ImageFilter.GaussianBlur(2)).resize(size))
    templates = DLIB.embed([tensor(photo(front))], face)
    consented = empty_gallery(DLIB, role="consented").add([front], templates.numpy())
    made = Anonymizer("faces-except-consented", run_key=b"0123456789abcdef", galleries={"consented": consented})
    alone, both = made.anonymize([tensor(photo(front)), tensor(scene)])
    assert [r.spared for r in alone.record.regions] == [True]
    assert not all(r.spared for r in both.record.regions)


@pytest.mark.parametrize("far_away", [torch.inf, 1e19])
@pytest.mark.parametrize("make", [SelfMatch, GalleryMatch, lambda: ParrotMatch(far=0.2), ConfidenceDrop])
def test_templates_that_overflow_never_pass(make: Any, faces: Regions, gallery: Gallery, far_away: float) -> None:
    gate = make()
    gate = gate.bound({"protected": gallery}) if hasattr(gate, "bound") else gate
    before = torch.from_numpy(gallery.templates[:6])
    six = torch.ones(6, dtype=torch.bool)
    after = torch.full((6, 128), far_away)
    tried = Probe(faces, {DLIB.name: before}, {DLIB.name: after}, (Fill(),) * 6, ~six, six, lambda name, rows: before)
    verdicts = gate.judge(tried)
    assert not (verdicts.passed & verdicts.after.isfinite()).any()


def test_scores_do_not_depend_on_the_batch(faces: Regions, gallery: Gallery) -> None:
    gate = ParrotMatch(far=0.2).bound({"protected": gallery})
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(96, 128)).astype(np.float32) * 0.1)

    def judged(rows: Tensor) -> Verdicts:
        count = len(rows)
        many = faces.select([0] * count)
        yes = torch.ones(count, dtype=torch.bool)
        tried = Probe(many, {DLIB.name: rows}, {DLIB.name: rows}, (Fill(),) * count, ~yes, yes, lambda n, r: rows[r])
        return gate.judge(tried)

    together = judged(noise)
    for i in range(0, 96, 19):
        alone = judged(noise[i : i + 1])
        assert torch.equal(alone.after[0], together.after[i])
        assert torch.equal(alone.before[0], together.before[i])


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("self_match: {far: 1e-2}", "far is the text '1e-2', expected a number; YAML wants 1.0e-5"),
        ("gallery_match: {gallery: ''}", "gallery must be a name"),
        ("gallery_match: {gallery: 5}", "gallery must be a name"),
        ("all_of: {gates: [5]}", "a gate is int, expected a verifier"),
        ("confidence_drop: {classifiers: 'a.b:C'}", "classifiers must be a list of dotted paths"),
        ("confidence_drop: {classifiers: ['nope.nope:C']}", "nope"),
        ("ensemble: {galleries: ab}", "an ensemble needs"),
        ("anondata.transforms.fill:Fill", "is not a verifier: it has no 'judge'"),
    ],
)
def test_a_gate_that_cannot_work_is_refused_with_the_policy(gate: str, message: str) -> None:
    gate = gate if "{" in gate else f"'{gate}'"
    regions = f"{{face: {{ladder: [fill], verify: [{gate}]}}}}"
    text = f"name: x\ncontent: {{image: {{detect: [centerface], regions: {regions}}}}}\n"
    with pytest.raises(PolicyError, match=message):
        check_galleries(from_yaml(text, own_code=["anondata", "nope"]), ())


def test_a_number_written_otherwise_is_the_same_policy() -> None:
    def fingerprint(cover: str) -> str:
        regions = f"{{face: {{ladder: [fill], verify: [self_match], cover: {{everyone_except: {cover}}}}}}}"
        return from_yaml(f"name: x\ncontent: {{image: {{detect: [centerface], regions: {regions}}}}}\n").fingerprint

    assert fingerprint("{smallest_px: 40, fpir: 1}") == fingerprint("{smallest_px: 40.0, fpir: 1.0}")
    with pytest.raises(PolicyError, match="fpir must be between 0 and 1"):
        fingerprint("{fpir: .nan}")
