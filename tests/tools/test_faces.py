"""Folders of labelled faces: who is in which photo, in every layout, and the one face of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from anondata.errors import ArgumentError, UnreadableSourceError
from anondata.regions import Regions
from anondata.verifiers.embedders import DlibEmbedder
from anondata.verifiers.gallery.labelled import LabelledPhoto, embed_photos, list_photos


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listed(folder: Path, **options: str) -> list[tuple[str, str]]:
    found = list_photos(folder, **options).photos
    return [(photo.path.relative_to(folder).as_posix(), photo.identity) for photo in found]


def test_metadata_csv_says_who_is_in_which_photo(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "in/a.png", "c.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,identity,age\nin/a.png,7,31\nb.jpg,Jane,40\nc.jpg,7,31\n")
    assert listed(tmp_path) == [("b.jpg", "Jane"), ("c.jpg", "7"), ("in/a.png", "7")]
    assert list_photos(tmp_path).photos[0].row == {"file_name": "b.jpg", "identity": "Jane", "age": "40"}


def test_metadata_jsonl_says_who_is_in_which_photo(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    rows = [{"file_name": "b.jpg", "who": 12, "box": [1, 2]}, {"file_name": "a.jpg", "who": "x"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert listed(tmp_path, identity="who") == [("a.jpg", "x"), ("b.jpg", "12")]
    assert list_photos(tmp_path, identity="who").photos[1].row["box"] == [1, 2]


def test_a_byte_order_mark_is_no_part_of_a_column_s_name(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "metadata.csv").write_bytes(b"\xef\xbb\xbffile_name,identity\na.jpg,x\n")
    assert listed(tmp_path) == [("a.jpg", "x")]


def test_without_metadata_a_folder_is_a_person(tmp_path: Path) -> None:
    touch(tmp_path, "ann/1.jpg", "ann/deep/2.PNG", "bob/1.webp", "bob/notes.txt", "bob/.hidden.jpg", ".git/x.jpg")
    touch(tmp_path, "loose.jpg", "README.md", ".loose.jpg")
    assert listed(tmp_path) == [("ann/1.jpg", "ann"), ("ann/deep/2.PNG", "ann"), ("bob/1.webp", "bob")]
    assert list_photos(tmp_path).unlabelled == 1


def test_photos_without_a_label_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,identity\na.jpg,x\nb.jpg,\nc.jpg,  \n")
    assert listed(tmp_path) == [("a.jpg", "x")]
    assert list_photos(tmp_path).unlabelled == 3


def test_names_are_in_no_representation() -> None:
    assert "jane" not in repr(LabelledPhoto(Path("jane.jpg"), "jane", {"file_name": "jane.jpg"}))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "file_name,identity\njane.jpg,x\n", "metadata.csv, row 1 names a file that is not there"),
        ("metadata.csv", "file_name,identity\na.jpg,x\na.jpg,x\n", "row 2 names a photo that an earlier row names"),
        ("metadata.csv", "file_name,identity\n../a.jpg,x\n", "row 1: file_name leads out of its folder"),
        ("metadata.csv", "file_name,identity\n/etc/a.jpg,x\n", "row 1: file_name leads out of its folder"),
        ("metadata.csv", "file_name,identity\n,x\n", "row 1 has no file_name"),
        ("metadata.csv", "name,identity\na.jpg,x\n", "row 1 has no file_name"),
        ("metadata.csv", "file_name,identity\na.jpg,x,jane\n", "row 1 has more cells than the header"),
        ("metadata.csv", "file_name,identity\na.jpg,\xe9\n", "metadata.csv is not csv in UTF-8"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "identity": "x"}\njane\n', "row 2 is not a JSON object"),
        ("metadata.jsonl", '["a.jpg"]\n', "row 1 is not a JSON object"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "identity": ["x"]}\n', "row 1: 'identity' is neither a text nor"),
        ("metadata.jsonl", '{"file_name": 3, "identity": "x"}\n', "row 1 has no file_name"),
    ],
)
def test_metadata_that_cannot_be_right_is_refused_by_row(tmp_path: Path, name: str, text: str, message: str) -> None:
    touch(tmp_path / "faces", "a.jpg")
    touch(tmp_path, "a.jpg")
    (tmp_path / "faces" / name).write_text(text, encoding="latin-1")
    with pytest.raises(UnreadableSourceError) as error:
        list_photos(tmp_path / "faces")
    assert message in str(error.value)
    assert "jane" not in str(error.value)


def test_another_column_must_be_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,person\na.jpg,jane\n")
    with pytest.raises(ArgumentError, match=r"row 1 has no column 'identity'; --identity names the right one"):
        list_photos(tmp_path)
    assert listed(tmp_path, identity="person") == [("a.jpg", "jane")]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["metadata.csv", "metadata.jsonl"], "FACES holds both"),
        (["train/metadata.csv", "train/a.jpg", "test/a.jpg"], "have metadata of their own"),
        (["a.jpg"], "nor a folder with photos for each person"),
        ([], "nor a folder with photos for each person"),
        (["ann/notes.txt"], "nor a folder with photos for each person"),
    ],
)
def test_a_layout_that_is_not_known_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        list_photos(touch(tmp_path, *files))


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    for path in (touch(tmp_path, "a.csv") / "a.csv", tmp_path / "nowhere"):
        with pytest.raises(ArgumentError, match="FACES is not a folder"):
            list_photos(path)


@pytest.fixture
def shown(tmp_path: Path, photo) -> list[LabelledPhoto]:
    """A face, six faces, no face, no picture, a missing file, and the first face again."""
    import io

    from PIL import Image

    wall = io.BytesIO()
    Image.new("RGB", (200, 200), "grey").save(wall, "PNG")
    contents = [photo(0), photo(group=True), wall.getvalue(), b"no picture", None, photo(5)]
    for number, data in enumerate(contents):
        if data is not None:
            (tmp_path / f"{number}.jpg").write_bytes(data)
    return [LabelledPhoto(tmp_path / f"{number}.jpg", str(number), {}) for number in range(len(contents))]


def test_photos_of_one_face_become_templates_and_others_are_counted(shown: list[LabelledPhoto]) -> None:
    done: list[int] = []
    found = embed_photos(shown, DlibEmbedder(), show=done.append)
    assert [photo.identity for photo in found.photos] == ["0", "5"]
    assert found.templates.shape == (2, 128)
    assert float((found.templates[0] - found.templates[1]).norm()) < 0.4
    assert found.left_out == {"several_faces": 1, "no_face": 1, "unreadable": 2}
    assert done == [6]


def test_a_bystander_in_the_background_does_not_hide_whom_a_photo_is_of(shown: list[LabelledPhoto]) -> None:
    class Two:
        """The face, and one of a given width."""

        def __init__(self, width: float) -> None:
            self.width = width

        def detect(self, views: object) -> Regions:
            boxes = torch.tensor([[0.0, 0, self.width, 20], [40, 30, 110, 130]])
            points = torch.full((2, 5, 2), torch.nan)
            return Regions(torch.zeros(2, dtype=torch.int64), boxes, points, torch.tensor([0.9, 0.8]), ("face",) * 2)

    near, far = (embed_photos(shown[:1], DlibEmbedder(), detector=Two(width)) for width in (36.0, 34.0))
    assert near.left_out == {"several_faces": 1}
    assert len(far.photos) == 1
    assert not far.left_out


def test_templates_that_are_not_finite_are_counted(shown: list[LabelledPhoto]) -> None:
    class Fails(DlibEmbedder):
        def embed(self, views, regions):
            return super().embed(views, regions) * torch.tensor([[torch.nan], [1.0]])

    found = embed_photos(shown, Fails())
    assert [photo.identity for photo in found.photos] == ["5"]
    assert found.left_out["no_template"] == 1


def test_no_photos_no_templates() -> None:
    assert len(embed_photos([], DlibEmbedder()).photos) == 0
