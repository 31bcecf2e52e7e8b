"""The first gate: templates, alignment, thresholds, and what passes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from anondata.crops import similarity
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import PolicyError
from anondata.protocols import Probe
from anondata.regions import USUAL_LANDMARKS, Regions, cat_regions, empty_regions
from anondata.transforms import Fill, GaussianBlur
from anondata.verifiers.alignment import chips
from anondata.verifiers.calibration import PAIRS_PER_ACCEPT, shipped
from anondata.verifiers.embedders import EMBEDDERS, DlibEmbedder, MobileFaceNetEmbedder
from anondata.verifiers.gates.self_match import SelfMatch


@pytest.fixture(scope="module")
def face(astronaut: Tensor) -> Regions:
    return CenterFaceDetector().detect([astronaut])


def judged(before: Tensor, after: Tensor, face: Regions, *, erased: bool = False) -> list[bool]:
    gate, embedder = SelfMatch(), DlibEmbedder()
    covered = Fill(coverage=1.7, feather=0.0).change_regions(before, face.boxes)
    probe = Probe(
        face,
        {embedder.name: embedder.embed([before], face)},
        {embedder.name: embedder.embed([after], face)},
        ("anything",) * len(face),
        torch.tensor([erased] * len(face)),
        torch.tensor([True] * len(face)),
        lambda name, rows: embedder.embed([covered], face.select(rows)),
    )
    return gate.judge(probe).passed.tolist()


def test_the_untouched_face_fails(astronaut: Tensor, face: Regions) -> None:
    assert judged(astronaut, astronaut, face) == [False]


def test_a_weak_blur_fails_and_a_fill_passes(astronaut: Tensor, face: Regions) -> None:
    weak = GaussianBlur(0.02).change_regions(astronaut, face.boxes)
    assert judged(astronaut, weak, face) == [False]
    assert judged(astronaut, Fill(coverage=1.5).change_regions(astronaut, face.boxes), face) == [True]


def test_what_is_no_face_fails_untouched_and_passes_blanked(astronaut: Tensor) -> None:
    wall = Regions(
        torch.zeros(1, dtype=torch.int64),
        torch.tensor([[30.0, 30, 110, 130]]),
        torch.full((1, 5, 2), torch.nan),
        torch.ones(1),
        ("face",),
    )
    assert judged(astronaut, astronaut, wall) == [False]
    blank = Fill(coverage=1.7, feather=0.0).change_regions(astronaut, wall.boxes)
    assert judged(astronaut, blank, wall) == [False]  # unless the technique is known to leave nothing
    assert judged(astronaut, blank, wall, erased=True) == [True]


def test_nan_templates_never_pass(astronaut: Tensor, face: Regions) -> None:
    name = DlibEmbedder.name
    good, bad = torch.zeros(1, 128), torch.full((1, 128), torch.nan)
    for before, after in ((bad, good), (good, bad), (bad, bad)):
        probe = Probe(
            face,
            {name: before},
            {name: after},
            ("x",),
            torch.tensor([True]),
            torch.tensor([True]),
            lambda n, rows: bad,
        )
        assert SelfMatch().judge(probe).passed.tolist() == [False]


@pytest.mark.parametrize("points", [0.0, -1e6, 1e6, 256.0])
def test_landmarks_that_cannot_be_a_face_s_do_not_blind_the_gate(
    astronaut: Tensor, face: Regions, points: float
) -> None:
    wrong = Regions(face.image, face.boxes, torch.full((1, 5, 2), points), face.scores, face.kinds)
    weak = GaussianBlur(0.01).change_regions(astronaut, face.boxes)
    assert judged(astronaut, weak, wrong) == [False]
    assert judged(astronaut, weak, wrong, erased=True) == [False]


def test_similarity_recovers_a_known_transform() -> None:
    angle, scale, shift = 0.4, 1.7, torch.tensor([12.0, -5.0])
    turn = scale * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    source = torch.tensor([[1.0, 2], [30, 4], [16, 20], [5, 33], [28, 34]])
    found = similarity(source[None], source @ turn.T + shift)[0]
    assert torch.allclose(found, torch.cat([turn, shift[:, None]], dim=1), atol=1e-4)


def test_a_turned_picture_gives_the_same_chip(astronaut: Tensor, face: Regions) -> None:
    template = torch.tensor(USUAL_LANDMARKS) * 100
    turned = astronaut.rot90(1, (1, 2))
    points = torch.stack([face.landmarks[..., 1], 512 - face.landmarks[..., 0]], dim=-1)
    x0, y0, x1, y1 = face.boxes[0].tolist()
    moved = Regions(face.image, torch.tensor([[y0, 512 - x1, y1, 512 - x0]]), points, face.scores, face.kinds)
    a = chips([astronaut], face, template=template, chip_px=100)
    b = chips([turned], moved, template=template, chip_px=100)
    assert float((a - b).abs().mean()) < 0.01


def test_templates_do_not_depend_on_the_batch(astronaut: Tensor, face: Regions) -> None:
    embedder = DlibEmbedder()
    alone = embedder.embed([astronaut], face)
    several = cat_regions([face, face.renumbered(1), face])
    together = embedder.embed([astronaut, astronaut.flip(2)], several)
    assert torch.allclose(together[0], alone[0], atol=1e-5)
    assert torch.allclose(together[2], alone[0], atol=1e-5)


@pytest.mark.parametrize("name", EMBEDDERS)
def test_no_regions_no_templates(name: str, astronaut: Tensor) -> None:
    assert EMBEDDERS[name]().embed([astronaut], empty_regions()).shape == (0, 128)


@pytest.mark.parametrize("name", EMBEDDERS)
def test_shipped_thresholds_are_supported_by_their_data_and_fall_with_the_rate(name: str) -> None:
    calibration = shipped(name)
    assert all(calibration.impostor_pairs >= PAIRS_PER_ACCEPT / t.far for t in calibration.thresholds)
    assert all(t.low <= t.distance <= t.high for t in calibration.thresholds)
    ordered = sorted(calibration.thresholds, key=lambda t: t.far)
    assert [t.distance for t in ordered] == sorted(t.distance for t in ordered)


def test_an_unknown_rate_or_embedder_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"no threshold at FAR 0\.3; calibrated: 0\.05"):
        SelfMatch(far=0.3)
    with pytest.raises(PolicyError, match="unknown embedder"):
        SelfMatch(embedder="facenet")


@pytest.fixture(scope="module")
def people(shared_data: Path) -> list[tuple[Tensor, Regions]]:
    """Twelve people of ``faces_london``, neutral then smiling."""
    import numpy as np
    from PIL import Image

    out = []
    for expression in ("neutral", "smiling"):
        for path in sorted((shared_data / "faces_london").glob(f"*_{expression}.jpg"))[:12]:
            view = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
            found = CenterFaceDetector().detect([view])
            out.append((view, found.select([int(found.sizes.prod(dim=1).argmax())])))
    return out


@pytest.mark.parametrize("made", [DlibEmbedder, MobileFaceNetEmbedder])
def test_embedders_tell_real_people_apart(
    made: type, people: list[tuple[Tensor, Regions]], shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONDATA_WEIGHTS", str(shared_data / "weights"))
    views, faces = [v for v, _ in people], [f.renumbered(i) for i, (_, f) in enumerate(people)]
    templates = made().embed(views, cat_regions(faces))
    nearest = torch.cdist(templates[12:], templates[:12]).argmin(dim=1)
    assert nearest.tolist() == list(range(12))
