"""insightface's models through insightface's own code: found, never downloaded, read as insightface reads them."""

from __future__ import annotations

import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from anondata import components
from anondata.detectors.centerface import CenterFaceDetector
from anondata.errors import MissingExtraError, PolicyError, WeightsError
from anondata.regions import Regions, cat_regions, empty_regions
from anondata.verifiers.insightface import InsightFace, InsightFaceDetector, InsightFaceEmbedder, find

POINTS = ((-1.0, -0.5), (1.0, -0.5), (0.0, 0.25), (-0.75, 1.0), (0.75, 1.0))  # of the toy detector, from the centre
RED, GREY = (255, 0, 0), (128, 128, 128)


def toy_scrfd(path: Path, *, points: bool = True) -> None:
    """A detector of SCRFD's layout: strides 8, 16 and 32, two anchors, its outputs flattened.

    Its score is the share of saturated red in a square of four strides around an anchor, less twice the share in the
    rest of a square of eight: 1 for a red square of four strides. Boxes are that, and landmarks ``POINTS`` strides
    from its centre.
    """
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, values: object, shape: tuple[int, ...]) -> Any:
        return numpy_helper.from_array(np.asarray(values, np.float32).reshape(shape), name)

    initial = [
        constant("red", [1, -1, -1], (1, 3, 1, 1)),  # red first, so 3 for red and 1 at most for all else
        constant("minus2", [-2], (1,)),
        constant("contrast", [5 / 3, -8 / 3], (1, 2, 1, 1)),
        constant("zero", 0, ()),
        constant("one", 1, ()),
        constant("none", np.zeros(14), (14, 1, 1, 1)),
        constant("shape", [2.0] * 4 + [v for point in POINTS for v in point], (14,)),
        numpy_helper.from_array(np.array([4, 10]), "parts"),
        numpy_helper.from_array(np.array([-1, 1]), "as1"),
        numpy_helper.from_array(np.array([-1, 4]), "as4"),
        numpy_helper.from_array(np.array([-1, 10]), "as10"),
    ]
    nodes = [
        helper.make_node("Conv", ["input", "red", "minus2"], ["redness"]),
        helper.make_node("Clip", ["redness", "zero", "one"], ["mask"]),
    ]
    for s in (8, 16, 32):
        for side in (4, 8):
            half = side // 2 * s
            pool = {"kernel_shape": [side * s] * 2, "strides": [s] * 2, "pads": [half] * 2 + [half - s] * 2}
            nodes.append(helper.make_node("AveragePool", ["mask"], [f"in{side}_{s}"], count_include_pad=1, **pool))
        nodes += [
            helper.make_node("Concat", [f"in4_{s}", f"in8_{s}"], [f"squares{s}"], axis=1),
            helper.make_node("Conv", [f"squares{s}", "contrast"], [f"raw{s}"]),
            helper.make_node("Clip", [f"raw{s}", "zero", "one"], [f"share{s}"]),
            helper.make_node("Concat", [f"share{s}"] * 2, [f"both{s}"], axis=1),
            helper.make_node("Transpose", [f"both{s}"], [f"last{s}"], perm=[0, 2, 3, 1]),
            helper.make_node("Reshape", [f"last{s}", "as1"], [f"score{s}"]),
            helper.make_node("Conv", [f"share{s}", "none", "shape"], [f"map{s}"]),
            helper.make_node("Split", [f"map{s}", "parts"], [f"box{s}", f"kps{s}"], axis=1),
        ]
        for part, columns in (("box", 4), ("kps", 10)):
            nodes += [
                helper.make_node("Concat", [f"{part}{s}"] * 2, [f"{part}2{s}"], axis=1),
                helper.make_node("Transpose", [f"{part}2{s}"], [f"{part}3{s}"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{part}3{s}", f"as{columns}"], [f"{part}s{s}"]),
            ]
    names = [("score", 1), ("boxs", 4), *([("kpss", 10)] if points else [])]
    outputs = [
        helper.make_tensor_value_info(f"{name}{s}", TensorProto.FLOAT, ["n", columns])
        for name, columns in names
        for s in (8, 16, 32)
    ]
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])
    graph = helper.make_graph(nodes, "toy", [picture], outputs, initial)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )


def toy_recognizer(path: Path, batch: int | str) -> None:
    """A recognizer whose template is the mean red, green and blue of a chip."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["template"]),
    ]
    chip = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 112, 112])
    template = helper.make_tensor_value_info("template", TensorProto.FLOAT, [batch, 3])
    graph = helper.make_graph(nodes, "toy", [chip], [template])
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )


def painted(height: int, width: int, *boxes: tuple[int, int, int, int], colour: tuple[int, ...] = RED) -> Tensor:
    """``(3, height, width)`` grey with boxes of a colour."""
    view = torch.tensor(GREY, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
    for x0, y0, x1, y1 in boxes:
        view[:, y0:y1, x0:x1] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return view


@pytest.fixture(scope="module")
def recognizer(shared_data: Path) -> str:
    return str(shared_data / "weights" / "mobilefacenet_ms1m.onnx")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory, recognizer: str) -> str:
    """A pack as insightface publishes them: a folder of a detector and a recognizer."""
    folder = tmp_path_factory.mktemp("models") / "toy_pack"
    folder.mkdir()
    toy_scrfd(folder / "det.onnx")
    shutil.copy(recognizer, folder / "rec.onnx")
    return str(folder)


@pytest.fixture(scope="module")
def detector_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("detector") / "toy.onnx"
    toy_scrfd(path)
    return str(path)


@pytest.fixture(scope="module")
def people(shared_data: Path) -> tuple[list[Tensor], Regions]:
    """Twelve people of ``faces_london``, neutral then smiling."""
    views, faces = [], []
    for expression in ("neutral", "smiling"):
        for path in sorted((shared_data / "faces_london").glob(f"*_{expression}.jpg"))[:12]:
            views.append(torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1))
            found = CenterFaceDetector(smallest_px=40).detect(views[-1:])
            faces.append(found.select([int(found.sizes.prod(dim=1).argmax())]).renumbered(len(faces)))
    return views, cat_regions(faces)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any model, on which a download would fail the test."""
    import insightface.utils.storage

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("insightface was made to download")

    monkeypatch.setattr(insightface.utils.storage, "download_file", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ANONDATA_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Boxes lie on the grid of strides after scaling, where the toy detector is exact; the rest is insightface's rounding.
@pytest.mark.parametrize(
    ("height", "width", "boxes"),
    [
        (640, 480, [(64, 96, 96, 128)]),  # portrait, scale 1
        (640, 640, [(64, 96, 96, 128), (320, 320, 384, 384), (448, 64, 576, 192)]),  # one for each stride
        (640, 1280, [(128, 192, 192, 256), (1024, 512, 1088, 576)]),  # landscape, scale 1/2
        (64, 80, [(16, 24, 24, 32)]),  # small, scale 8
        (1280, 1280, [(320, 320, 960, 960)]),  # a close-up: only at 128 px does it fit a stride
    ],
)
def test_boxes_and_landmarks_are_in_pixels_of_the_picture(
    detector_file: str, height: int, width: int, boxes: list[tuple[int, int, int, int]]
) -> None:
    found = InsightFaceDetector(detector_file).detect([painted(height, width, *boxes)])
    order = found.boxes[:, 0].argsort()
    wanted = torch.tensor(sorted(boxes)).float()
    side = wanted[:, 2] - wanted[:, 0]
    assert found.kinds == ("face",) * len(boxes)
    assert torch.allclose(found.boxes[order], wanted, atol=float(side.max()) * 0.02)
    centre = (wanted[:, :2] + wanted[:, 2:]) / 2
    points = centre[:, None] + torch.tensor(POINTS) * (side / 4)[:, None, None]
    assert torch.allclose(found.landmarks[order], points, atol=float(side.max()) * 0.02)
    assert bool((found.scores > 0.8).all())
    assert bool((found.scores <= 1).all())


def test_a_pack_detects_what_insightface_s_face_analysis_detects(pack: str) -> None:
    from insightface.app import FaceAnalysis

    view = painted(700, 500, (60, 90, 101, 133), (300, 400, 371, 466))
    theirs = FaceAnalysis(pack, allowed_modules=["detection"], providers=["CPUExecutionProvider"])
    theirs.prepare(-1, det_thresh=0.45, det_size=[(128, 128), (640, 640)])
    wanted = theirs.get(np.ascontiguousarray(view.permute(1, 2, 0).numpy()[..., ::-1]))
    found = InsightFaceDetector(pack, threshold=0.45).detect([view])
    assert len(wanted) == 2
    assert np.array_equal(found.boxes.numpy(), np.stack([face.bbox for face in wanted]))
    assert np.array_equal(found.landmarks.numpy(), np.stack([face.kps for face in wanted]))
    assert np.allclose(found.scores.numpy(), [face.det_score for face in wanted])


def test_pictures_of_a_batch_do_not_influence_each_other(detector_file: str) -> None:
    one, other = painted(640, 480, (64, 96, 96, 128)), painted(640, 1280, (128, 192, 192, 256))
    found = InsightFaceDetector(detector_file).detect([one, painted(300, 200), other, one])
    assert found.image.tolist() == [0, 2, 3]
    alone = [InsightFaceDetector(detector_file).detect([view]) for view in (one, other)]
    assert torch.equal(found.boxes, torch.cat([alone[0].boxes, alone[1].boxes, alone[0].boxes]))


@pytest.mark.parametrize("colour", [(0, 0, 255), (128, 0, 0), (255, 255, 255), (0, 0, 0)])
def test_only_red_is_a_face_to_the_toy_so_channels_arrive_in_order(
    detector_file: str, colour: tuple[int, ...]
) -> None:
    assert len(InsightFaceDetector(detector_file).detect([painted(640, 480, (64, 96, 96, 128), colour=colour)])) == 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 2), (33, 47)])
def test_pictures_of_any_shape_are_looked_at(detector_file: str, height: int, width: int) -> None:
    assert len(InsightFaceDetector(detector_file).detect([painted(height, width)])) == 0


def test_what_lies_in_the_padding_is_no_face_of_the_picture(detector_file: str) -> None:
    view = painted(640, 12, (0, 96, 12, 128))  # anchors at 0 and at 16 px see the same
    found = InsightFaceDetector(detector_file, threshold=0.3).detect([view])
    assert found.boxes.tolist() == [[-16, 96, 16, 128]]


def test_a_detector_without_landmarks_gives_none(tmp_path: Path) -> None:
    toy_scrfd(tmp_path / "plain.onnx", points=False)
    found = InsightFaceDetector(str(tmp_path / "plain.onnx")).detect([painted(640, 480, (64, 96, 96, 128))])
    assert found.boxes.tolist() == [[64, 96, 96, 128]]
    assert found.has_landmarks.tolist() == [False]


def test_size_px_sets_how_small_a_face_is_found(detector_file: str) -> None:
    view = painted(1280, 1280, (320, 320, 352, 352))
    assert len(InsightFaceDetector(detector_file, size_px=640).detect([view])) == 0
    assert len(InsightFaceDetector(detector_file, size_px=1280).detect([view])) == 1


def test_no_pictures_no_regions() -> None:
    assert len(InsightFaceDetector().detect([])) == 0


def test_a_policy_builds_the_detector_by_name() -> None:
    made = components.build("detector", "insightface", {"pack": "antelopev2", "size_px": 960})
    assert made == InsightFaceDetector("antelopev2", size_px=960)
    with pytest.raises(PolicyError, match="did you mean 'pack'"):
        components.build("detector", "insightface", {"packs": "antelopev2"})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"threshold": 0.0}, "threshold must be between 0 and 1"),
        ({"size_px": 100}, "size_px must be a multiple of 32 from 128 to 4096, got 100"),
        ({"size_px": 650}, "got 650"),
        ({"pack": ""}, "needs the path"),
        ({"pack": 3}, "needs the path"),
    ],
)
def test_parameters_out_of_range_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        InsightFaceDetector(**params)


def test_real_people_are_told_apart(people: tuple[list[Tensor], Regions], recognizer: str) -> None:
    templates = InsightFaceEmbedder(recognizer).embed(*people)
    assert torch.cdist(templates[12:], templates[:12]).argmin(dim=1).tolist() == list(range(12))


def test_templates_are_what_insightface_itself_gives(people: tuple[list[Tensor], Regions], recognizer: str) -> None:
    from insightface.app.common import Face
    from insightface.model_zoo import get_model

    views, faces = people
    templates = InsightFaceEmbedder(recognizer).embed(views, faces)  # which silences what insightface warns of
    theirs = get_model(recognizer, providers=["CPUExecutionProvider"])
    for row in (0, 7, 20):
        face = Face(bbox=faces.boxes[row].numpy(), kps=faces.landmarks[row].numpy(), det_score=1.0)
        theirs.get(np.ascontiguousarray(views[row].permute(1, 2, 0).numpy()[..., ::-1]), face)
        assert np.allclose(templates[row].numpy(), face.normed_embedding, atol=1e-6)


def test_rows_stay_with_their_regions_and_pictures(people: tuple[list[Tensor], Regions], recognizer: str) -> None:
    views, faces = people
    embedder = InsightFaceEmbedder(recognizer)
    templates = embedder.embed(views, faces)
    mixed = embedder.embed(views, faces.select([5, 0, 11, 0]))
    assert torch.allclose(mixed, templates[[5, 0, 11, 0]], atol=1e-5)
    assert torch.allclose(mixed.norm(dim=1), torch.ones(4), atol=1e-5)


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_batches_of_any_size_go_through_red_first(tmp_path: Path, batch: int | str) -> None:
    toy_recognizer(tmp_path / "toy.onnx", batch)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)] * 14  # 70, more than a batch
    views = [painted(40, 40, (0, 0, 40, 40), colour=colour) for colour in colours]
    n = len(colours)
    faces = Regions(
        torch.arange(n),
        torch.tensor([[10.0, 10, 30, 30]] * n),
        torch.full((n, 5, 2), torch.nan),
        torch.ones(n),
        ("face",) * n,
    )
    templates = InsightFaceEmbedder(str(tmp_path / "toy.onnx")).embed(views, faces)
    assert (templates > 0).tolist() == [[value == 255 for value in colour] for colour in colours]


def test_threads_get_the_same_templates(people: tuple[list[Tensor], Regions], recognizer: str) -> None:
    views, faces = people
    embedder = InsightFaceEmbedder(recognizer)
    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(lambda _: embedder.embed(views, faces.select([0, 1, 2])), range(8)))
    assert all(torch.equal(templates, several[0]) for templates in several)


def test_without_landmarks_the_box_aligns(people: tuple[list[Tensor], Regions], recognizer: str) -> None:
    views, faces = people
    bare = Regions(faces.image, faces.boxes, torch.full_like(faces.landmarks, torch.nan), faces.scores, faces.kinds)
    embedder = InsightFaceEmbedder(recognizer)
    nearest = torch.cdist(embedder.embed(views, bare), embedder.embed(views, faces)).argmin(dim=1)
    assert int((nearest == torch.arange(24)).sum()) >= 22


def test_where_no_template_can_be_made_the_row_is_nan(people: tuple[list[Tensor], Regions], recognizer: str) -> None:
    views, faces = people
    boxes = torch.tensor([[50.0, 50, 50, 90], [-90, -90, -10, -10], [500, 10, 600, 90], [torch.nan] * 4])
    impossible = Regions(
        torch.zeros(4, dtype=torch.int64), boxes, torch.full((4, 5, 2), torch.nan), torch.ones(4), ("face",) * 4
    )
    templates = InsightFaceEmbedder(recognizer).embed(views, cat_regions([impossible, faces.select([0])]))
    assert templates.isnan().all(dim=1).tolist() == [True] * 4 + [False]


def test_no_regions_no_templates(people: tuple[list[Tensor], Regions], recognizer: str) -> None:
    assert InsightFaceEmbedder(recognizer).embed(people[0], empty_regions()).shape == (0, 128)


def test_a_pack_embeds_as_its_recognition_model_does(
    people: tuple[list[Tensor], Regions], pack: str, recognizer: str
) -> None:
    both = InsightFace(pack)
    faces = people[1].select([0, 1])
    assert both.embedder().name == "insightface-toy_pack"
    assert both.embedder().fingerprint == InsightFaceEmbedder(recognizer).fingerprint
    templates = InsightFaceEmbedder(recognizer).embed(people[0], faces)
    assert torch.equal(both.embedder().embed(people[0], faces), templates)
    assert len(both.detector(threshold=0.9).detect([painted(640, 480, (64, 96, 96, 128))])) == 1


def test_the_fingerprint_follows_the_file(recognizer: str, tmp_path: Path) -> None:
    import onnx

    copy = tmp_path / "other.onnx"
    shutil.copy(recognizer, copy)
    before = InsightFaceEmbedder(str(copy)).fingerprint
    assert before == InsightFaceEmbedder(recognizer).fingerprint
    changed = onnx.load(copy)
    changed.producer_name = "somebody else"
    onnx.save(changed, copy)
    assert InsightFaceEmbedder(str(copy)).fingerprint != before


def test_a_file_that_is_replaced_is_loaded_again(tmp_path: Path) -> None:
    toy_recognizer(tmp_path / "toy.onnx", 1)
    embedder = InsightFaceEmbedder(str(tmp_path / "toy.onnx"))
    assert embedder.embed([painted(40, 40)], empty_regions()).shape == (0, 3)
    toy_scrfd(tmp_path / "toy.onnx")
    with pytest.raises(WeightsError, match="for detection, and recognition is needed"):
        embedder.embed([painted(40, 40)], empty_regions())


def test_components_are_plain_values(pack: str) -> None:
    made = [InsightFace(pack), InsightFace(pack).detector(size_px=320), InsightFace(pack).embedder()]
    made[1].detect([painted(64, 64)])
    assert pickle.loads(pickle.dumps(made)) == made
    assert components.params_of(made[1]) == {"pack": pack, "threshold": 0.5, "size_px": 320}


def test_a_bare_name_is_looked_for_in_the_folder_of_weights_and_at_home(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, weights = nowhere / ".insightface" / "models", nowhere / "weights"
    for place in (home / "buffalo_l", home / "antelopev2" / "antelopev2", weights / "buffalo_l"):
        place.mkdir(parents=True)
        (place / "x.onnx").touch()
    (weights / "arcface.onnx").touch()
    assert find("buffalo_l") == home / "buffalo_l"
    assert find("antelopev2") == home / "antelopev2" / "antelopev2"  # as its archive unpacks
    assert find("~/.insightface/models/buffalo_l") == home / "buffalo_l"
    monkeypatch.setenv("ANONDATA_WEIGHTS", str(weights))
    assert find("buffalo_l") == weights / "buffalo_l"
    assert find("arcface") == find("arcface.onnx") == find("weights/arcface") == weights / "arcface.onnx"


@pytest.mark.parametrize("source", ["buffalo_l", "models/buffalo_l", "/nowhere/w600k_r50.onnx", "."])
def test_a_missing_pack_is_never_downloaded(nowhere: Path, source: str) -> None:
    for use in (
        lambda: InsightFaceDetector(source).detect([painted(64, 64)]),
        lambda: InsightFaceEmbedder(source).embed([painted(64, 64)], empty_regions()),
        lambda: InsightFaceEmbedder(source).fingerprint,
    ):
        with pytest.raises(WeightsError, match=r"non-commercial research only|cannot load") as error:
            use()
        assert source == "." or str(nowhere / ".insightface" / "models") in str(error.value)
    assert not (nowhere / ".insightface").exists()


def test_files_that_are_no_models_are_refused(nowhere: Path, recognizer: str, detector_file: str) -> None:
    (nowhere / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(WeightsError, match=r"cannot load .*broken\.onnx"):
        InsightFaceDetector("broken").detect([painted(64, 64)])
    with pytest.raises(WeightsError, match="for recognition, and detection is needed"):
        InsightFaceDetector(recognizer).detect([painted(64, 64)])
    with pytest.raises(WeightsError, match="for detection, and recognition is needed"):
        InsightFaceEmbedder(detector_file).embed([painted(64, 64)], empty_regions())
    (nowhere / "half").mkdir()
    shutil.copy(recognizer, nowhere / "half")
    with pytest.raises(WeightsError, match="folder needs a detection model"):
        InsightFaceEmbedder("half").embed([painted(64, 64)], empty_regions())


def test_without_insightface_the_error_names_the_extra(
    nowhere: Path, detector_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(detector_file, nowhere / "mine.onnx")
    monkeypatch.setitem(sys.modules, "insightface", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'anondata\[insightface\]'"):
        InsightFaceDetector("mine").detect([painted(64, 64)])
