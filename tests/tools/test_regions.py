"""``anondata anonymize --regions``: boxes by file name are followed, and what is unclear about them is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BOX = [4, 100, 40, 30]  # of a corner of the photos where no face is
OTHER = [112, 4, 40, 30]


@pytest.fixture
def src(tmp_path: Path, photo: Callable[..., bytes]) -> Path:
    """Three photos, one of them in a folder."""
    for number, name in enumerate(["alice.png", "bob.png", "trip/carol.png"]):
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number, "PNG"))
    return tmp_path / "src"


@pytest.fixture
def anonymize(anondata: Any, src: Path, tmp_path: Path, grey_policy: Callable[[str], str]) -> Callable[..., Any]:
    """Runs the command with a file of regions and a policy to which a head is a face."""
    (tmp_path / "mine.yaml").write_text(grey_policy("{head: face, 3: face, dog: ignore}"))

    def run(regions: Path | None, *more: Any) -> Any:
        given = () if regions is None else ("--regions", regions)
        where = ("--out", tmp_path / "out", "--policy", tmp_path / "mine.yaml")
        return anondata("anonymize", src, *where, *given, "--json", *more)

    return run


def coco(at: Path, boxes: Mapping[str, list[list[float]]], **changed: Any) -> Path:
    images = [{"id": i, "file_name": name, "width": 160, "height": 160} for i, name in enumerate(boxes)]
    annotations = [
        {"id": 9, "image_id": i, "bbox": box, "category_id": 7, "iscrowd": 0, "segmentation": [[1, 2, 3]]}
        for i, each in enumerate(boxes.values())
        for box in each
    ]
    body = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "head"}], **changed}
    path = at / "instances.json"
    path.write_text(json.dumps(body))
    return path


def jsonl(at: Path, boxes: Mapping[str, list[list[float]]], called: Any = 3, word: str = "categories") -> Path:
    lines = [
        {"file_name": name, "text": "secret\u2028", "objects": {"bbox": each, word: [called] * len(each)}}
        for name, each in boxes.items()
    ]
    path = at / "metadata.jsonl"
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n", encoding="utf-8")
    return path


ALL = {"alice.png": [BOX], "bob.png": [], "trip/carol.png": [BOX, OTHER]}


def covered(path: Path) -> list[bool]:
    pixels = np.array(Image.open(io.BytesIO(path.read_bytes())))
    return [bool((pixels[y : y + h, x : x + w] == pixels[y + 15, x + 16]).all()) for x, y, w, h in (BOX, OTHER)]


def given(at: Path) -> int:
    counts = json.loads((at / "out/report.json").read_text())["counts"]
    return int(counts["regions"]["face"]["given"])


@pytest.mark.parametrize("form", [coco, jsonl])
def test_boxes_of_a_file_are_anonymized(anonymize, src, tmp_path, form):
    shown = anonymize(form(tmp_path, ALL))
    assert shown.code == 0, shown.err
    out = tmp_path / "out"
    assert covered(out / "alice.png") == [True, False]
    assert covered(out / "bob.png") == [False, False]
    assert covered(out / "trip/carol.png") == [True, True]
    assert given(tmp_path) >= 3
    assert json.loads((out / ".anondata/manifest.json").read_text())["fields"] == {"image": "image"}


@pytest.mark.parametrize("word", ["category", "labels", "kind"])
def test_categories_may_be_called_as_in_a_field_of_regions(anonymize, tmp_path, word):
    assert anonymize(jsonl(tmp_path, ALL, "head", word)).code == 0
    assert covered(tmp_path / "out/alice.png") == [True, False]


def test_what_the_policy_ignores_is_left(anonymize, tmp_path):
    assert anonymize(jsonl(tmp_path, ALL, "dog")).code == 0
    assert given(tmp_path) == 0


def test_with_new_names_and_insights_boxes_are_followed_too(anonymize, tmp_path):
    shown = anonymize(coco(tmp_path, ALL), "--rename", "--insights")
    assert shown.code == 0
    written = list((tmp_path / "out").glob("*.png"))
    assert sorted(sum(covered(path)) for path in written) == [0, 1, 2]


def test_names_of_other_pictures_are_counted_and_not_told(anonymize, tmp_path):
    shown = anonymize(coco(tmp_path, {**ALL, "secret.png": [BOX], "secrets.png": []}))
    assert shown.code == 0
    assert "names 2 pictures that no SRC holds; they are ignored" in shown.err
    assert "secret" not in shown.out + shown.err


def test_a_picture_that_the_file_does_not_name_is_a_usage_error(anonymize, tmp_path):
    shown = anonymize(coco(tmp_path, {"alice.png": [BOX], "carol.png": []}), "--limit", 1)
    assert shown.code == 2
    assert "does not name 2 of 3 pictures in SRC" in shown.err
    assert not {"alice", "bob", "carol"} & {*shown.err.replace(".", " ").split()}
    assert not (tmp_path / "out").exists()


def test_a_picture_of_another_size_than_its_boxes_were_drawn_in_is_withheld(anonymize, tmp_path):
    """As where EXIF turns a photo, and its boxes were drawn before."""
    path = coco(tmp_path, ALL)
    body = json.loads(path.read_text())
    body["images"][0]["width"] = 120
    path.write_text(json.dumps(body))
    shown = anonymize(path)
    assert (shown.code, shown.json["withheld"]) == (3, {"wrong_regions": 1})


def test_a_box_outside_of_its_picture_withholds_that_alone(anonymize, tmp_path):
    shown = anonymize(jsonl(tmp_path, {**ALL, "alice.png": [[400, 8, 20, 20]]}))
    assert (shown.code, shown.json["withheld"], shown.json["released"]) == (3, {"wrong_regions": 1}, 2)
    again = anonymize(jsonl(tmp_path, ALL))
    assert (again.code, again.json["skipped_done"]) == (0, 2)


ENTRY = {"file_name": "secret.png", "objects": {"bbox": [BOX], "category": ["head"]}}


def line(**changed: Any) -> str:
    return json.dumps({**ENTRY, **changed})


def objects(**changed: Any) -> str:
    return line(objects={**ENTRY["objects"], **changed})


LINES = {
    "nothing": ("", "does not name 3 of 3"),
    "no JSON": ("secret", "is not JSON at line 1, column 1"),
    "no UTF-8": (b"\xff\xfe", "cannot be read as JSON"),
    "too deep": ("[" * 100_000, "cannot be read as JSON"),
    "a list": ("[]", "line 1 of --regions has no file_name"),
    "no name": (line(file_name=None), "has no file_name"),
    "a name twice": (f"{line()}\n{line()}", "names a picture twice"),
    "a key twice": (line()[:-1] + ', "objects": {"bbox": [], "category": []}}', "says something twice"),
    "no objects": ('{"file_name": "secret.png"}', 'write "objects"'),
    "objects of nothing": (line(objects=None), 'write "objects"'),
    "objects under another name": ('{"file_name": "secret.png", "annotations": {}}', 'write "objects"'),
    "no boxes": (line(objects={"category": []}), "must have a list bbox"),
    "no categories": (line(objects={"bbox": []}), "one list of categories, category"),
    "categories twice": (objects(labels=["head"]), "one list of categories, category"),
    "too few categories": (objects(category=[]), "has 1 boxes and 0 categories"),
    "three numbers": (objects(bbox=[[1, 2, 3]]), "four finite numbers"),
    "texts": (objects(bbox=[["1", "2", "3", "4"]]), "four finite numbers"),
    "not finite": (objects(bbox=[[1, 2, float("nan"), 4]]), "four finite numbers"),
    "infinite": (objects(bbox=[[1, 2, 10**400, 4]]), "four finite numbers"),
    "a truth value": (objects(category=[True]), "neither a text nor a whole number"),
    "no size": (line(width=640), "that no picture can have"),
    "a negative size": (line(width=640, height=-1), "that no picture can have"),
}
COCOS = {
    "a list": ([], "holds no list of images"),
    "no categories": ({"images": [], "annotations": []}, "holds no list of categories"),
    "no objects": ({"images": [1], "annotations": [], "categories": []}, "holds no list of images"),
    "an annotation of no image": (
        {"annotations": [{"image_id": 99, "category_id": 7, "bbox": BOX}]},
        "refers to an unknown image",
    ),
    "an annotation of no category": (
        {"annotations": [{"image_id": 0, "category_id": 99, "bbox": BOX}]},
        "annotation 1 of --regions refers to an unknown category",
    ),
    "an annotation of a list": ({"annotations": [{"image_id": [0], "category_id": 7}]}, "refers to an unknown image"),
    "an annotation without a box": ({"annotations": [{"image_id": 0, "category_id": 7}]}, "four finite numbers"),
    "an image without an id": ({"images": [{"file_name": "secret.png"}]}, "need an id of their own"),
    "an image without a name": ({"images": [{"id": 0}]}, "need an id of their own and a text file_name"),
    "an id twice": ({"categories": [{"id": 7, "name": "secret"}] * 2}, "categories of --regions need an id"),
    "a name twice": ({"images": [{"id": i, "file_name": "secret.png"} for i in range(3)]}, "names a picture twice"),
    "a category that nobody named": ({"categories": [{"id": 7, "name": "secret"}]}, "1 of 1 categories in --regions"),
}


@pytest.mark.parametrize(("text", "why"), LINES.values(), ids=LINES)
def test_lines_that_cannot_be_trusted_are_refused(anonymize, tmp_path, text, why):
    path = tmp_path / "metadata.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(anonymize(path), why, tmp_path)


@pytest.mark.parametrize(("changed", "why"), COCOS.values(), ids=COCOS)
def test_coco_that_cannot_be_trusted_is_refused(anonymize, tmp_path, changed, why):
    path = coco(tmp_path, ALL)
    if isinstance(changed, list) or len(changed) > 1:
        path.write_text(json.dumps(changed))
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    refused(anonymize(path), why, tmp_path)


def refused(shown: Any, why: str, at: Path) -> None:
    assert shown.code == 2
    assert why in " ".join(shown.err.split())
    assert "secret" not in shown.err
    assert not (at / "out").exists()


def test_a_file_that_is_not_there_is_a_usage_error(anonymize, tmp_path):
    assert anonymize(tmp_path / "none.json").code == 2


def test_pictures_of_one_name_cannot_be_told_apart(anondata, src, tmp_path):
    path = coco(tmp_path, ALL)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/alice.png").write_bytes((src / "bob.png").read_bytes())
    shown = anondata("preview", src, tmp_path / "more", "--out", tmp_path / "p.html", "--regions", path)
    assert shown.code == 2
    assert "two SRC have pictures of one name" in shown.err


# --- resumed -----------------------------------------------------------------------------------------------------


def times(at: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (at / "out").rglob("*.png")}


def changed(before: Mapping[str, int], after: Mapping[str, int]) -> set[str]:
    return {name for name in after if before.get(name) != after[name]}


@pytest.mark.parametrize("form", [coco, jsonl])
def test_only_pictures_whose_boxes_changed_are_done_again(anonymize, tmp_path, form):
    anonymize(form(tmp_path, ALL))
    before = times(tmp_path)
    path = form(tmp_path, {**ALL, "bob.png": [BOX]})
    assert anonymize(path, "--dry-run").json["skipped_done"] == 2
    again = anonymize(path)
    assert (again.code, again.json["skipped_done"]) == (0, 2)
    assert changed(before, times(tmp_path)) == {"bob.png"}
    assert covered(tmp_path / "out/bob.png") == [True, False]
    assert given(tmp_path) >= 4
    assert anonymize(path).json["skipped_done"] == 3


def test_a_category_that_changed_is_noticed(anonymize, tmp_path):
    anonymize(jsonl(tmp_path, ALL, "dog"))
    assert anonymize(jsonl(tmp_path, ALL, "head")).json["skipped_done"] == 1  # the one without boxes
    assert covered(tmp_path / "out/alice.png") == [True, False]


def test_boxes_that_come_later_are_followed_where_they_are(anonymize, tmp_path):
    """A face that was missed gets a box, and only its picture is done again."""
    anonymize(None)
    before = times(tmp_path)
    assert anonymize(coco(tmp_path, {**ALL, "trip/carol.png": []})).json["skipped_done"] == 2
    assert changed(before, times(tmp_path)) == {"alice.png"}


def test_boxes_that_are_forgotten_are_refused(anonymize, tmp_path):
    anonymize(coco(tmp_path, ALL))
    before = times(tmp_path)
    shown = anonymize(None)
    assert shown.code == 2
    assert "DST was written with --regions" in shown.err
    assert times(tmp_path) == before
    assert anonymize(None, "--overwrite").code == 0


def test_what_was_made_with_other_boxes_does_not_stay_where_it_is_not_made_again(anonymize, src, tmp_path):
    """A face that was missed gets a box, and its picture cannot be read, or is beyond the limit."""
    anonymize(coco(tmp_path, {**ALL, "alice.png": []}))
    (src / "bob.png").unlink()
    (src / "bob.png").symlink_to("nowhere")
    shown = anonymize(coco(tmp_path, {"alice.png": [], "bob.png": [BOX], "trip/carol.png": [BOX]}))
    assert (shown.code, shown.json["withheld"]) == (3, {"unreadable": 1})
    assert set(times(tmp_path)) == {"alice.png", "carol.png"}
    assert anonymize(coco(tmp_path, {**ALL, "trip/carol.png": [OTHER]}), "--limit", 1).code == 0
    assert set(times(tmp_path)) == {"alice.png"}
    assert covered(tmp_path / "out/alice.png") == [True, False]


def test_results_are_those_of_a_straight_run(anonymize, tmp_path, tree):
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef")
    path = coco(tmp_path, ALL)
    anonymize(path, "--key-file", key)
    straight = tree(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "before")
    anonymize(coco(tmp_path, {**ALL, "bob.png": [BOX]}), "--key-file", key, "--limit", 2)
    anonymize(coco(tmp_path, ALL), "--key-file", key)
    assert tree(tmp_path / "out") == straight


def test_the_journal_tells_neither_names_nor_boxes(anonymize, tmp_path):
    anonymize(jsonl(tmp_path, ALL, "head"))
    journal = (tmp_path / "out/.anondata/journal.jsonl").read_text()
    assert not {"alice", "head", "100.0"} & {*journal.replace('"', " ").replace(",", " ").split()}


# --- preview -----------------------------------------------------------------------------------------------------


def test_a_preview_shows_what_was_given(anondata, src, tmp_path, anonymize):
    mine, page = tmp_path / "mine.yaml", tmp_path / "page.html"
    shown = anondata("preview", src, "--out", page, "--policy", mine, "--regions", coco(tmp_path, ALL), "--limit", 1)
    assert shown.code == 0, shown.err
    assert "given" in page.read_text()
    shown = anondata("preview", src, "--out", page, "--policy", mine, "--regions", coco(tmp_path, {}))
    assert shown.code == 2
