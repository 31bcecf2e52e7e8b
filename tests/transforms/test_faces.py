"""Faces laid over faces: what is left of the original, and where the new face comes to lie."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from anondata import Anonymizer, Released, RunKey
from anondata.components import build
from anondata.crops import cut, outer_rects, resize, similarity
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import PolicyError, WeightsError
from anondata.leakage import NOTHING
from anondata.policy import from_yaml, load_policy
from anondata.regions import cat_regions
from anondata.transforms._face_swap import GROUPS, TONE_DRAW, TONES, each_once, look_of, unlikeness
from anondata.transforms._faces_blend import (
    HEAD,
    Pose,
    ahead,
    blended,
    coarse,
    depth_within,
    from_ycc,
    landmarks_or_usual,
    pose_of,
    posed,
    thin_plate,
    to_ycc,
    usual_landmarks,
)
from anondata.transforms.ksame import KSame
from anondata.verifiers.embedders import DlibEmbedder

NAMES = ("synthetic_face", "ksame")
ALL = tuple(GROUPS)


@pytest.fixture
def portrait(astronaut: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The astronaut, the box of her face and its landmarks."""
    face = CenterFaceDetector().detect([astronaut])
    return astronaut, face.boxes[:1], face.landmarks[:1]


def cropped(technique: Any, picture: Tensor, boxes: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """The crop that an engine would cut, and landmarks in shares of it."""
    rects = outer_rects(boxes, technique.extent, torch.tensor(picture.shape[-2:]))
    near, far = rects[:, None, :2].float(), rects[:, None, 2:].float()
    return cut(picture, rects, technique.crop_px), (landmarks - near) / (far - near)


def changed(technique: Any, crops: Tensor, landmarks: Tensor, seed: int = 5) -> Tensor:
    out: Tensor = technique.change_aligned(crops, extent=technique.extent, seeds=[seed], landmarks=landmarks)
    return out


@pytest.mark.parametrize("shape", ["ellipse", "rectangle"])
@pytest.mark.parametrize("name", NAMES)
def test_where_pixels_move_within_the_covered_area_nothing_else_is_seen(
    name: str, shape: str, make: Any, portrait: Any
) -> None:
    """Details that keep mean, spread and the mouth's coarse pattern may not be in the result."""
    technique = make(name, shape=shape, keep=ALL)
    crops, landmarks = cropped(technique, *portrait)
    side = technique.crop_px
    inner = depth_within(side, shape, technique.coverage / technique.extent) > 0.02
    other = crops.clone()
    half = side // 2
    noise = torch.rand(1, 3, 8, side, generator=torch.Generator().manual_seed(3)) * inner[half - 60 : half - 52]
    other[..., half - 60 : half - 52, :] = (
        noise + other[..., half - 60 : half - 52, :] * ~inner[half - 60 : half - 52]
    )
    before, after = changed(technique, crops, landmarks), changed(technique, other, landmarks)
    assert float((after - before)[..., half - 60 : half - 52, :].abs().mean()) < 0.1 * float(
        (other - crops)[..., half - 60 : half - 52, :].abs().mean()
    )


@pytest.mark.parametrize("name", NAMES)
def test_what_lies_around_the_covered_area_stays(name: str, make: Any, portrait: Any) -> None:
    technique = make(name)
    crops, landmarks = cropped(technique, *portrait)
    outside = depth_within(technique.crop_px, technique.shape, technique.coverage / technique.extent) < 0
    assert torch.equal(changed(technique, crops, landmarks)[..., outside], crops[..., outside])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_face_stays_unless_it_is_kept(name: str, make: Any, portrait: Any) -> None:
    """Whatever the pixels and landmarks: black, white, noise, turned over and unknown give the same, bit for bit."""
    technique = make(name)
    crops, landmarks = cropped(technique, *portrait)
    inside = depth_within(technique.crop_px, technique.shape, technique.coverage / technique.extent) > 0
    noise = torch.rand(crops.shape, generator=torch.Generator().manual_seed(1))
    others = (
        (crops, landmarks),
        (noise, landmarks.flip(1)),
        (crops * 0, landmarks * float("nan")),
        (crops * 0 + 1, landmarks),
    )
    one, *rest = [changed(technique, *other)[..., inside] for other in others]
    assert all(torch.equal(one, other) for other in rest)
    assert technique.leakage() == NOTHING
    assert not technique.erases  # gates look at it: it may be like a real one by chance
    assert not technique.aligns


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_divides_faces_into_as_many_groups_as_it_says(name: str, make: Any, portrait: Any) -> None:
    technique = make(name, keep=["skin", "smile"])
    crops, landmarks = cropped(technique, *portrait)
    inside = depth_within(technique.crop_px, technique.shape, technique.coverage / technique.extent) > 0
    seen = set[bytes]()
    for number in range(16):
        drawn = torch.rand(1, 3, 5, 4, generator=torch.Generator().manual_seed(number)) * (0.4 + 0.6 * (number % 2))
        face = resize(drawn, *crops.shape[-2:]) * inside + crops * ~inside
        seen.add(changed(technique, face, landmarks)[..., inside].numpy().tobytes())
    assert 1 < len(seen) <= technique.leakage().groups == 6


@pytest.mark.parametrize("name", NAMES)
def test_a_face_is_found_where_one_was(name: str, make: Any, portrait: Any) -> None:
    technique = make(name)
    crops, landmarks = cropped(technique, *portrait)
    found = CenterFaceDetector(threshold=0.5).detect([(changed(technique, crops, landmarks)[0] * 255).byte()])
    away = (found.landmarks / technique.crop_px - landmarks).norm(dim=2).mean(dim=1).min()
    assert away < 0.2 * (landmarks[0, 0] - landmarks[0, 1]).norm()


@pytest.mark.parametrize("name", NAMES)
def test_unknown_landmarks_lie_at_the_usual_places(name: str, make: Any, portrait: Any) -> None:
    technique = make(name, keep=ALL)
    crops, landmarks = cropped(technique, *portrait)
    blind = technique.change(crops, extent=technique.extent, seeds=[5])
    usual = usual_landmarks(1, technique.extent)
    assert torch.equal(blind, changed(technique, crops, usual.double()))
    assert torch.equal(blind, changed(technique, crops, torch.full_like(landmarks, float("nan"))))
    assert torch.equal(blind, changed(technique, crops, torch.zeros_like(landmarks)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [float("inf"), -1e30, 1e30, 0.5, 7.0])
def test_absurd_landmarks_give_a_finite_face(name: str, value: float, make: Any, portrait: Any) -> None:
    technique = make(name, keep=ALL)
    crops, landmarks = cropped(technique, *portrait)
    landmarks[0, 2] = value
    out = changed(technique, crops, landmarks)
    assert out.isfinite().all()
    assert 0 <= out.min() <= out.max() <= 1


def test_seeds_choose_among_the_most_suitable(make: Any) -> None:
    technique = make("synthetic_face", choices=2)
    members = technique.members()
    order = torch.arange(len(members))
    two = each_once(order, members)[:2].tolist()
    assert {int(technique.chosen(order, members, seed)) for seed in range(20)} == set(two)


def test_a_seed_among_all_chooses_the_same_person_in_any_order(make: Any) -> None:
    technique = make("synthetic_face", choices=1024)
    members = technique.members()
    orders = [torch.randperm(len(members), generator=torch.Generator().manual_seed(i)) for i in range(6)]
    for seed in range(6):
        assert len({int(members.people[technique.chosen(order, members, seed)]) for order in orders}) == 1
    assert len({int(technique.chosen(orders[0], members, seed)) for seed in range(20)}) > 1


def test_another_seed_averages_others(make: Any, portrait: Any) -> None:
    technique = make("ksame", k=2)
    crops, landmarks = cropped(technique, *portrait)
    look, order = look_of(resize(crops, 256, 256), landmarks.double(), [0], extent=1.5), torch.tensor([[0, 3, 6, 9]])
    results = [technique.faces(order, look, [seed]) for seed in range(5)]
    assert any(not torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize(("brightness", "group"), [(0.3, 0), (0.5, 0), (1.0, 1), (1.2, 1)])
def test_of_a_face_s_colour_only_one_of_two_groups_is_kept(
    brightness: float, group: int, make: Any, portrait: Any
) -> None:
    """Or the mean colour of a face would name people, in one release or averaged over many."""
    crops, landmarks = cropped(make("ksame"), *portrait)
    work = (resize(crops, 256, 256) * brightness).clamp(0, 1)
    many = work.expand(200, -1, -1, -1), landmarks.double().expand(200, -1, -1), range(200)
    look = look_of(*many, extent=1.5, keep=["skin"])
    assert look.tone is not None
    tones = look.tone.flatten(1)
    assert torch.allclose(tones.mean(dim=0), torch.tensor(TONES[group]), atol=0.01)
    assert torch.allclose(tones.std(dim=0), torch.tensor(TONE_DRAW), rtol=0.2)


def test_nothing_of_the_surroundings_is_continued_inside(make: Any, portrait: Any) -> None:
    """Around the new head lie random colours: hair and background would name people there, too."""
    technique = make("synthetic_face")
    crops, landmarks = cropped(technique, *portrait)
    inside = depth_within(technique.crop_px, technique.shape, technique.coverage / technique.extent) > 0
    other = torch.where(inside, crops, 1 - crops)
    shown = [changed(technique, c, landmarks)[..., inside] for c in (crops, other)]
    assert torch.equal(*shown)


@pytest.mark.parametrize("wide", [0.9, 1.1])
def test_a_narrow_face_and_a_wide_one_come_out_alike(wide: float, make: Any, portrait: Any) -> None:
    """Landmarks tell the tilt; what makes them this person's is not kept."""
    technique = make("synthetic_face", keep=["tilt"])
    crops, landmarks = cropped(technique, *portrait)
    middle = landmarks.mean(dim=1, keepdim=True)
    stretched = middle + (landmarks - middle) * torch.tensor([wide, 1.0])

    def ratio(marks: Tensor) -> float:
        found = CenterFaceDetector(threshold=0.5).detect([(changed(technique, crops, marks)[0] * 255).byte()])
        eyes, mouth = found.landmarks[0, :2], found.landmarks[0, 3:].mean(dim=0)
        return float((eyes[0] - eyes[1]).norm() / (eyes.mean(dim=0) - mouth).norm())

    assert abs(ratio(stretched) / ratio(landmarks) - 1) < 0.03


@pytest.mark.parametrize("shown", [-1.5, 0.0, 1.5])
def test_everybody_can_be_chosen_with_every_smile(shown: float, make: Any, portrait: Any) -> None:
    technique = make("synthetic_face")
    crops, landmarks = cropped(technique, *portrait)
    look = look_of(resize(crops, 256, 256), landmarks.double(), [5], extent=technique.extent, keep=["smile"])
    members = technique.members()
    likely = unlikeness(look.pose, torch.tensor([shown]).double(), members)[0].isfinite()
    assert set(members.smiles[likely].tolist()) == {min(shown, 0.0)}  # nobody laughs more than that
    assert int(likely.sum()) == 2 * 4  # each of four people, and their mirror images


@pytest.mark.parametrize("name", NAMES)
def test_two_photos_of_one_pose_come_out_alike(name: str, make: Any, portrait: Any) -> None:
    technique = make(name, keep=["tilt"])
    crops, landmarks = cropped(technique, *portrait)
    apart = 0.004 * torch.randn(landmarks.shape, generator=torch.Generator().manual_seed(1))
    assert (
        float((changed(technique, crops, landmarks) - changed(technique, crops, landmarks + apart)).abs().max())
        < 0.01
    )


def test_an_alpha_channel_tells_nothing(make: Any) -> None:
    crops = torch.rand(1, 4, 64, 64, generator=torch.Generator().manual_seed(2))
    assert bool((make("synthetic_face")(crops)[:, 3] == 1).all())


def test_ksame_averages_consented_photos(make: Any, tmp_path: Path, photo: Callable[..., bytes]) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(photo(number))
    out = KSame(k=2, faces=str(tmp_path))(torch.rand(1, 3, 64, 64))
    assert out.isfinite().all()
    with pytest.raises(WeightsError, match="has 3 people, expected k = 4 or more"):
        KSame(k=4, faces=str(tmp_path))(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("synthetic_face", {"members": 0}, "members must be a whole number between 1 and 64, got 0"),
        ("ksame", {"members": 65}, "members must be a whole number between 1 and 64, got 65"),
        ("ksame", {"people": "mine"}, "people must be mixed or generated, got 'mine'"),
        ("synthetic_face", {"choices": 2.0}, "choices must be a whole number between 1 and 1024, got 2.0"),
        ("synthetic_face", {"keep": "smile"}, "keep must be a list of any of tilt, smile, skin, got 'smile'"),
        ("ksame", {"keep": ["pose"]}, "keep must be a list of any of tilt, smile, skin, got \\['pose'\\]"),
        ("ksame", {"keep": ["smile", "smile"]}, "keep names the same twice: smile, smile"),
        ("ksame", {"k": 1}, "k must be a whole number between 2 and 64, got 1"),
        ("ksame", {"k": 9, "members": 8}, "k must be at most members, got 9 of 8"),
        ("ksame", {"faces": 3}, "faces must be the path of a folder, got int"),
    ],
)
def test_bad_parameters_are_refused(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        build("technique", name, params)


def test_a_policy_of_new_faces_releases_a_picture_with_a_face(make: Any, astronaut: Tensor) -> None:
    make("synthetic_face")  # fetches
    text = load_policy("faces-synthetic").to_yaml().replace("members: 64", "members: 4")
    anonymizer = Anonymizer(from_yaml(text), run_key=RunKey(b"a secret of enough bytes"), device="cpu")
    one, two = (anonymizer.anonymize([astronaut], keys=["a"])[0] for _ in range(2))
    assert isinstance(one, Released)
    assert isinstance(two, Released)
    shown, again = cast(Tensor, one.image), cast(Tensor, two.image)
    assert torch.equal(shown, again)
    before, after = (CenterFaceDetector(threshold=0.5).detect([view]) for view in (astronaut, shown))
    assert len(after) == 1
    assert (after.landmarks - before.landmarks).norm(dim=2).mean() < 0.2 * before.sizes[0, 0]
    assert (
        DlibEmbedder().embed([astronaut, shown], cat_regions([before, after.renumbered(1)])).diff(dim=0).norm() > 0.6
    )


def upright_in_steps(landmarks: Tensor) -> Pose:
    return ahead(coarse(pose_of(landmarks).angle), 1.5)


# --- pure functions ------------------------------------------------------------------------------------------------


def test_a_thin_plate_without_bending_is_the_affine_map() -> None:
    source = usual_landmarks(1, 1.5).double()
    target = source * torch.tensor([0.8, 1.1]) + torch.tensor([0.1, -0.05])
    places = thin_plate(source, target, 16)
    centre = (torch.arange(16) + 0.5) / 16
    assert torch.allclose(places[0, :, :, 0], (centre * 0.8 + 0.1).expand(16, 16), atol=1e-4)
    assert torch.allclose(places[0, :, :, 1], (centre * 1.1 - 0.05)[:, None].expand(16, 16), atol=1e-4)


def test_a_similarity_brings_landmarks_back() -> None:
    source = usual_landmarks(1, 1.0)[0]
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]]) * 1.7
    target = (source @ turn.T + torch.tensor([0.3, -0.2]))[None]
    found = similarity(source, target)[0]
    assert torch.allclose(found[:, :2], turn, atol=1e-5)
    assert torch.allclose(found[:, 2], torch.tensor([0.3, -0.2]), atol=1e-5)


def test_colours_come_back_from_luma_and_differences() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert torch.allclose(from_ycc(to_ycc(images)), images, atol=1e-5)


def test_landmarks_on_one_line_count_as_unknown() -> None:
    line = torch.linspace(0.3, 0.7, 5)[None, :, None].expand(1, 5, 2)
    assert torch.equal(landmarks_or_usual(line, 1.5), usual_landmarks(1, 1.5).double())


@pytest.mark.parametrize("turn", [(0.0, 0.0), (0.4, -0.2), (-0.6, 0.3)], ids=str)
def test_a_pose_is_told_from_landmarks(turn: tuple[float, float]) -> None:
    yaw, pitch = turn
    across = torch.tensor([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    down = torch.tensor([[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]])
    turned = down @ across
    marks = (torch.tensor(HEAD) @ turned.T)[None, :, :2].double() * 0.2 + 0.4
    pose = pose_of(marks)
    assert pose.scale[0] == pytest.approx(0.2, abs=1e-6)
    assert torch.allclose(pose.project[0], (turned[:2] * 0.2).double(), atol=1e-6)
    ahead = pose_of(torch.tensor(HEAD)[None, :, :2].double())
    assert torch.allclose(posed(torch.tensor(HEAD)[None, :, :2].double(), ahead, pose), marks, atol=1e-6)


@pytest.mark.parametrize(("yaw", "roll"), [(0, 0), (0, 41), (32, -62), (-90, 120), (5, 180)], ids=str)
def test_of_a_pose_only_broad_steps_of_its_tilt_are_kept(yaw: int, roll: int) -> None:
    """Or how long somebody's nose is would tell who it is, in many releases better than in one."""
    across, over = math.radians(yaw), math.radians(roll)
    head = torch.tensor(HEAD, dtype=torch.float64)
    head = head - head.mean(dim=0)
    aside = torch.stack([head[:, 0] * math.cos(across) + head[:, 2] * math.sin(across), head[:, 1]], dim=1)
    back = torch.tensor([[math.cos(over), math.sin(over)], [-math.sin(over), math.cos(over)]], dtype=torch.float64)
    kept = upright_in_steps((0.27 * aside @ back + 0.5)[None])
    assert abs(math.remainder(float(kept.angle[0]) - over, 2 * math.pi)) <= math.radians(15) + 1e-6
    assert torch.allclose(kept.turn[0], torch.zeros(2, dtype=torch.float64), atol=1e-9)
    alike = head @ kept.project.transpose(1, 2) + kept.shift
    many = alike * torch.tensor([1.05, 1.0]) + 0.006 * torch.randn(
        50, 5, 2, generator=torch.Generator().manual_seed(0)
    )
    again = upright_in_steps(many)
    for part, one in zip(again, kept, strict=True):
        assert torch.allclose(part, one, atol=1e-9)


@pytest.mark.parametrize("nod", [-40, -20, 20, 40])
@pytest.mark.parametrize(("larger", "off"), [(0.7, 0.1), (1.0, 0.0), (1.4, -0.15)])
def test_how_heads_nod_and_where_they_lie_in_their_boxes_is_not_kept(nod: int, larger: float, off: float) -> None:
    """It named 23 % of 32 people from several releases, where chance is 3."""
    down = math.radians(nod)
    head = torch.tensor(HEAD, dtype=torch.float64)
    head = head - head.mean(dim=0)
    nodding = torch.stack([head[:, 0], head[:, 1] * math.cos(down) + head[:, 2] * math.sin(down)], dim=1)
    kept = upright_in_steps((0.27 * larger * nodding + 0.5 + off)[None])
    for part, one in zip(kept, upright_in_steps(usual_landmarks(1, 1.5).double()), strict=True):
        assert torch.allclose(part, one, atol=1e-9)


def test_who_looks_at_the_camera_comes_out_as_heads_usually_lie() -> None:
    usual = usual_landmarks(1, 1.5).double()
    kept = upright_in_steps(usual)
    assert (posed(usual, pose_of(usual), kept) - usual).abs().max() < 0.002


def test_where_nobody_is_the_other_background_shows() -> None:
    crops, faces, ground = torch.rand(3, 1, 3, 32, 32).unbind()
    depth, nobody = depth_within(32, "ellipse", 0.8), torch.zeros(1, 1, 32, 32)
    out = blended(crops, faces, nobody, depth, ground)
    assert torch.equal(out[..., depth > 0], ground[..., depth > 0])
    assert torch.equal(out[..., depth <= 0], crops[..., depth <= 0])


def test_where_nothing_lies_around_the_face_is_all() -> None:
    crops, faces = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    depth, nobody = depth_within(32, "ellipse", 1.5), torch.zeros(1, 1, 32, 32)
    assert torch.equal(blended(crops, faces, nobody, depth, crops), faces)
