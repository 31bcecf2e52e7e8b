"""``anondata gallery``: built from every kind of source, changed, searched; bad input is refused without a name."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import webdataset
from PIL import Image
from safetensors.numpy import save_file

from anondata.errors import GalleryError
from anondata.verifiers.embedders import DlibEmbedder
from anondata.verifiers.gallery import Gallery, Portrait, empty_gallery, examination
from anondata.verifiers.gallery import indexing as _indexing
from anondata.verifiers.gallery import resume as _enrol_parts
from anondata.verifiers.gallery.examination import Examiner
from anondata.verifiers.gallery.file import open_gallery, save_gallery
from anondata.verifiers.gallery.photos import Photo, photos_of_dataset

NAMES = ("alice", "bob", "carol", "dave")
KEY = b"0123456789abcdef0123456789abcdef"

Command = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANONDATA_GALLERY_KEY", raising=False)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(KEY)
    return path


@pytest.fixture
def photos(shared_data: Path) -> dict[str, list[bytes]]:
    """Two photos each of four people, halved: a face is some 65 px wide."""
    files = sorted((shared_data / "faces_london").glob("*.jpg"))[:8]
    return {name: [halved(files[2 * i]), halved(files[2 * i + 1])] for i, name in enumerate(NAMES)}


@pytest.fixture
def faces(tmp_path: Path, photos: dict[str, list[bytes]]) -> Path:
    """A folder of folders."""
    for name, images in photos.items():
        (tmp_path / "faces" / name).mkdir(parents=True)
        for i, image in enumerate(images):
            (tmp_path / "faces" / name / f"{i}.jpg").write_bytes(image)
    return tmp_path / "faces"


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """A gallery of made-up templates, two each of alice and bob."""
    save_gallery(made("alice", "bob"), tmp_path / "made.gallery")
    return tmp_path / "made.gallery"


def made(*names: str, role: Any = "protected") -> Gallery:
    rng = np.random.default_rng([ord(name[0]) for name in names])
    owners = [name for name in names for _ in range(2)]
    return empty_gallery(DlibEmbedder(), role=role).add(
        owners, rng.normal(size=(len(owners), 128)).astype(np.float32)
    )


def halved(path: Path) -> bytes:
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.resize((image.width // 2, image.height // 2)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def said(result: Any) -> str:
    """All that was printed, on one line, without names that must not be in it."""
    shown = f"{result.out} {result.err}"
    assert not any(name in shown for name in (*NAMES, "mallory", ".jpg"))
    return " ".join(shown.split())


class TestBuild:
    def test_a_folder_of_folders_becomes_a_gallery_that_knows_its_people(self, anondata, faces, tmp_path):
        out = tmp_path / "g.gallery"
        result = anondata("gallery", "build", faces, "--out", out, "--role", "consented", "--json")
        told = result.json
        assert (result.code, told["photos"], told["taken"], told["refused"]) == (0, 8, 8, {})
        assert told["format"] == "anondata.enrolment/1"
        assert (told["encrypted"], told["resumed"], told["error"]) == (False, 0, None)
        assert "not encrypted" in said(result)
        gallery = open_gallery(out)
        assert (gallery.role, gallery.identities) == ("consented", NAMES)
        assert told["gallery"]["fingerprint"] == gallery.fingerprint
        assert stat.S_IMODE(os.stat(out).st_mode) == 0o600
        assert not list(tmp_path.glob(".*.part"))

    def test_what_is_refused_is_counted_and_listed_in_a_file_only(self, anondata, faces, party_jpeg, tmp_path):
        (faces / "alice" / "2.jpg").write_bytes(b"junk")
        (faces / "mallory").mkdir()
        (faces / "mallory" / "0.jpg").write_bytes(party_jpeg)
        shutil.copy(faces / "bob" / "0.jpg", faces / "carol" / "9.jpg")
        (faces / "stray.jpg").write_bytes(b"of nobody")
        listed = tmp_path / "refused"
        result = anondata(*("gallery", "build", faces, "--out", tmp_path / "g", "--json", "--list-refused", listed))
        told = result.json
        assert result.code == told["exit_code"] == 3
        assert told["refused"] == {"no_identity": 1, "several_faces": 1, "undecodable": 1}
        assert (told["taken"], told["people_left_out"]) == (9, 1)
        assert told["doubtful"]["look_alikes"] >= 1
        assert told["doubtful"]["nearest"] < 1e-3
        said(result)
        lines = listed.read_text().splitlines()
        assert f'undecodable\t"{faces}/alice/2.jpg"' in lines
        assert f'several_faces\t"{faces}/mallory/0.jpg"' in lines
        assert f'look_alike\t"{faces}/bob/0.jpg"\t"{faces}/carol/9.jpg"' in lines
        assert stat.S_IMODE(os.stat(listed).st_mode) == 0o600

    def test_the_largest_face_and_a_lower_width_on_request(self, anondata, party_jpeg, tmp_path):
        (tmp_path / "mallory").mkdir()
        (tmp_path / "mallory" / "0.jpg").write_bytes(party_jpeg)
        build = ("gallery", "build", "--out", tmp_path / "g", tmp_path / "mallory" / "0.jpg", "--person", "mallory")
        assert anondata(*build, "--several", "largest", "--smallest-px", 500).code == 1
        assert anondata(*build, "--several", "largest").code == 0

    def test_nobody_enrolled_is_a_failure_that_says_why(self, anondata, tmp_path):
        (tmp_path / "src" / "alice").mkdir(parents=True)
        (tmp_path / "src" / "alice" / "0.jpg").write_bytes(b"junk")
        result = anondata("gallery", "build", tmp_path / "src", "--out", tmp_path / "g", "--json")
        assert result.code == result.json["exit_code"] == 1
        assert "nobody was enrolled, nothing was written: 1 photos refused (undecodable 1)" in said(result)
        assert not (tmp_path / "g").exists()

    def test_a_key_encrypts_and_portraits_need_one(self, anondata, faces, key, tmp_path, monkeypatch):
        build = ("gallery", "build", faces / "alice" / "*.jpg", "--person", "alice", "--keep-portraits", "--json")
        refused = anondata(*build, "--out", tmp_path / "g")
        assert refused.code == 2
        assert "it needs a key" in said(refused)
        done = anondata(*build, "--out", tmp_path / "g", "--key-file", key)
        assert (done.code, done.json["encrypted"], done.json["gallery"]["portraits"]) == (0, True, 2)
        assert "not encrypted" not in said(done)
        assert b"alice" not in (tmp_path / "g").read_bytes()
        monkeypatch.setenv("ANONDATA_GALLERY_KEY", KEY.decode())
        assert anondata(*build, "--out", tmp_path / "h").json["encrypted"] is True

    def test_a_gallery_that_is_there_is_replaced_on_request_only(self, anondata, faces, gallery):
        before = gallery.read_bytes()
        result = anondata("gallery", "build", faces, "--out", gallery)
        assert result.code == 2
        assert "--overwrite replaces it" in said(result)
        assert gallery.read_bytes() == before
        assert anondata("gallery", "build", faces, "--out", gallery, "--overwrite").code == 0
        assert len(open_gallery(gallery)) == 8


class TestSources:
    """The same people from every kind of source."""

    @staticmethod
    def built(anondata: Command, out: Path, *args: object) -> Gallery:
        result = anondata("gallery", "build", *args, "--out", out, "--json")
        assert result.code == 0, result.err
        return open_gallery(out)

    @pytest.mark.parametrize("kind", ["csv", "jsonl"])
    def test_an_imagefolder(self, anondata, photos, tmp_path, kind):
        rows = []
        (tmp_path / "src" / "deep").mkdir(parents=True)
        for name, images in photos.items():
            (tmp_path / "src" / "deep" / f"{len(rows)}.jpg").write_bytes(images[0])
            rows.append({"file_name": f"deep/{len(rows)}.jpg", "who": name})
        with open(tmp_path / "src" / f"metadata.{kind}", "w") as file:
            if kind == "csv":
                writer = csv.DictWriter(file, ["file_name", "who"])
                writer.writeheader()
                writer.writerows(rows)
            else:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        gallery = self.built(anondata, tmp_path / "g", tmp_path / "src", "--identity", "who")
        assert gallery.identities == NAMES

    @pytest.mark.parametrize("kind", ["saved", "parquet"])
    def test_a_dataset_with_class_labels_and_a_corrupt_photo_in_the_middle(self, anondata, photos, tmp_path, kind):
        rows = [{"photo": {"bytes": images[0], "path": None}, "who": i} for i, images in enumerate(photos.values())]
        rows.insert(2, {"photo": {"bytes": b"junk", "path": "alice.jpg"}, "who": 0})
        rows.append({"photo": rows[0]["photo"], "who": None})
        features = datasets.Features({"photo": datasets.Image(), "who": datasets.ClassLabel(names=list(NAMES))})
        dataset = datasets.Dataset.from_list(rows, features=features)
        source = tmp_path / "ds"
        if kind == "saved":
            dataset.save_to_disk(source)
        else:
            source = tmp_path / "part-0.parquet"
            dataset.to_parquet(source)
            source = tmp_path / "part-*.parquet"
        out = tmp_path / "g"
        result = anondata("gallery", "build", source, "--identity", "who", "--out", out, "--json")
        assert result.code == 3, result.err
        assert result.json["refused"] == {"no_identity": 1, "undecodable": 1}
        assert open_gallery(out).identities == NAMES
        again = [photo.identity for photo in photos_of_dataset(dataset, identity="who")]
        assert again == ["alice", "bob", "alice", "carol", "dave", ""]

    @pytest.mark.parametrize(
        ("field", "option"),
        [("cls", ()), ("txt", ("--identity", "txt")), ("json", ("--identity", "person")), ("json", ())],
    )
    def test_shards_with_the_identity_in_any_field(self, anondata, photos, tmp_path, field, option):
        entry = "person" if option else "label"
        for shard, half in enumerate([NAMES[:2], NAMES[2:]]):
            with webdataset.TarWriter(str(tmp_path / f"s-{shard:03}.tar")) as writer:
                for name in half:
                    value: Any = {entry: name} if field == "json" else name
                    sample = {"__key__": f"key-{name}", "jpg": photos[name][0]}
                    writer.write(sample | {field: value.encode() if field == "cls" else value})
        gallery = self.built(anondata, tmp_path / "g", f"{tmp_path}/s-{{000..001}}.tar", *option)
        assert gallery.identities == NAMES
        if field == "cls":
            glob = self.built(anondata, tmp_path / "h", f"{tmp_path}/s-*.tar", *option)
            np.testing.assert_array_equal(glob.templates, gallery.templates)

    def test_a_matrix_of_templates(self, anondata, tmp_path):
        templates = np.random.default_rng(0).normal(size=(6, 128)).astype(np.float32)
        names = ["a", "a", "b", "b", "c", "c"]
        np.save(tmp_path / "m.npy", templates)
        np.savez(tmp_path / "m.npz", templates=templates.astype(np.float64), identities=np.array(names))
        save_file({"embeddings": templates, "who": np.array([0, 0, 1, 1, 2, 2])}, tmp_path / "m.safetensors")
        (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
        (tmp_path / "names.csv").write_text("row,who\n" + "".join(f"{i},{n}\n" for i, n in enumerate(names)))
        embedder = ("--embedder", "dlib-face-resnet")
        cases: list[tuple[object, ...]] = [
            ("m.npy", "--identities", tmp_path / "names.txt"),
            ("m.npy", "--identities", tmp_path / "names.csv", "--identity", "who"),
            ("m.npz",),
            ("m.safetensors", "--identity", "who"),
        ]
        for i, (name, *options) in enumerate(cases):
            gallery = self.built(anondata, tmp_path / f"g{i}", tmp_path / str(name), *options, *embedder)
            np.testing.assert_array_equal(gallery.templates, templates)
            assert gallery.owners.tolist() == [0, 0, 1, 1, 2, 2]
        assert gallery.identities == ("0", "1", "2")


class TestBadSources:
    @staticmethod
    def refused(anondata: Command, tmp_path: Path, *args: object, code: int = 2) -> str:
        result = anondata("gallery", "build", *args, "--out", tmp_path / "g")
        assert result.code == code, result.err
        assert not (tmp_path / "g").exists()
        assert not list(tmp_path.glob(".*.part"))
        return said(result)

    def test_a_source_that_is_not_there(self, anondata, tmp_path):
        assert "SRC 1 does not exist" in self.refused(anondata, tmp_path, tmp_path / "nothing")
        assert "2 file(s) of SRC 1 are not there" in self.refused(anondata, tmp_path, f"{tmp_path}/s-{{0..1}}.tar")

    def test_photos_without_identities(self, anondata, photos, tmp_path):
        (tmp_path / "src").mkdir()
        (tmp_path / "src" / "0.jpg").write_bytes(photos["alice"][0])
        assert "a folder with photos for each person" in self.refused(anondata, tmp_path, tmp_path / "src")
        assert "--person NAME" in self.refused(anondata, tmp_path, tmp_path / "src" / "0.jpg")
        with webdataset.TarWriter(str(tmp_path / "s.tar")) as writer:
            writer.write({"__key__": "alice", "jpg": photos["alice"][0]})
        assert "--identity COLUMN names" in self.refused(anondata, tmp_path, tmp_path / "s.tar", code=1)

    def test_sources_of_two_kinds(self, anondata, faces, tmp_path):
        (tmp_path / "s.tar").touch()
        assert "of several kinds" in self.refused(anondata, tmp_path, faces, tmp_path / "s.tar")

    def test_options_that_do_not_fit(self, anondata, faces, tmp_path):
        person = ("--person", "mallory")
        (tmp_path / "s.tar").touch()
        assert "--person goes with folders" in self.refused(anondata, tmp_path, tmp_path / "s.tar", *person)
        out = (faces, "--list-refused", tmp_path / "g")
        assert "is the gallery's file" in self.refused(anondata, tmp_path, *out)
        far = self.refused(anondata, tmp_path, faces, "--far", "0.03")
        assert "no threshold at FAR 0.03" in far
        assert "unknown embedder" in self.refused(anondata, tmp_path, faces, "--embedder", "dlib")
        assert "smallest_px" in self.refused(anondata, tmp_path, faces, "--smallest-px", 2, code=1)

    def test_a_dataset_of_several_splits(self, anondata, tmp_path):
        part = datasets.Dataset.from_list([{"identity": "alice"}])
        datasets.DatasetDict({"train": part}).save_to_disk(tmp_path / "ds")
        assert "several splits" in self.refused(anondata, tmp_path, tmp_path / "ds")
        columns = self.refused(anondata, tmp_path, tmp_path / "ds" / "train", code=1)
        assert "say which one it is (--image-column)" in columns

    def test_a_dataset_that_is_damaged(self, anondata, tmp_path):
        datasets.Dataset.from_list([{"identity": "alice"}]).save_to_disk(tmp_path / "ds")
        for file in (tmp_path / "ds").glob("*.arrow"):
            file.write_bytes(b"alice")
        assert "SRC 1 cannot be read as a dataset" in self.refused(anondata, tmp_path, tmp_path / "ds", code=1)

    def test_a_shard_that_is_cut_short(self, anondata, photos, tmp_path):
        with webdataset.TarWriter(str(tmp_path / "s.tar")) as writer:
            for name in NAMES:
                writer.write({"__key__": name, "cls": name.encode(), "jpg": photos[name][0]})
        whole = (tmp_path / "s.tar").read_bytes()
        (tmp_path / "s.tar").write_bytes(whole[: len(whole) // 2])
        assert "cannot be read beyond photo" in self.refused(anondata, tmp_path, tmp_path / "s.tar", code=1)

    def test_a_shard_is_a_file_and_never_a_command(self, anondata, tmp_path):
        """The webdataset library would run what follows "pipe:"."""
        self.refused(anondata, tmp_path, f"pipe:touch {tmp_path}/ran #.tar")
        assert not (tmp_path / "ran").exists()
        assert "local paths" in self.refused(anondata, tmp_path, "https://example.invalid/s.tar")

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"templates": np.full((2, 128), np.nan, np.float32)}, "2 of 2 templates are not finite"),
            ({"templates": np.ones((2, 64), np.float32)}, "64 dimensions, templates of 'dlib-face-resnet' have 128"),
            ({"templates": np.ones((3, 128), np.float32)}, "2 identities for 3 templates"),
            ({"templates": np.ones(128, np.float32)}, "no matrix (N, D) of floats"),
            ({"a": np.ones((2, 128), np.float32), "b": np.ones((2, 128), np.float32)}, "2 matrices in the file"),
            (
                {"templates": np.ones((2, 128), np.float32), "identities": np.array(["a", " "])},
                "1 of the 2 identities",
            ),
            ({"templates": np.ones((2, 128), np.float32), "identities": np.ones(2)}, "nothing says whose"),
            ({"templates": np.ones((2, 128), np.float32), "identities": np.array([{}, {}])}, "no Python objects"),
            ({}, "no matrix"),
        ],
    )
    def test_a_matrix_that_cannot_be_right(self, anondata, tmp_path, arrays, message):
        np.savez(tmp_path / "m.npz", **({"identities": np.array(["alice", "bob"])} | arrays))
        embedder = ("--embedder", "dlib-face-resnet")
        assert message in self.refused(anondata, tmp_path, tmp_path / "m.npz", *embedder, code=1)

    def test_a_matrix_comes_alone_and_with_its_network(self, anondata, tmp_path):
        (tmp_path / "m.npy").write_bytes(b"junk")
        matrix, embedder = tmp_path / "m.npy", ("--embedder", "dlib-face-resnet")
        assert "say which network" in self.refused(anondata, tmp_path, matrix)
        assert "must be the only SRC" in self.refused(anondata, tmp_path, matrix, matrix, *embedder)
        assert "matrix cannot be read" in self.refused(anondata, tmp_path, matrix, *embedder, code=1)

    def test_places_where_no_gallery_can_be_written(self, anondata, faces, tmp_path):
        cases = {"s3://bucket/g": 1, f"{tmp_path}/no/g": 2, str(faces): 1, "/proc/g": 1}
        for out, code in cases.items():
            result = anondata("gallery", "build", faces, "--out", out)
            assert result.code == code, out
            assert "error: " in said(result).replace(str(faces), "")

    def test_a_key_that_cannot_be_used(self, anondata, faces, tmp_path):
        (tmp_path / "short").write_bytes(b"123")
        short = ("--key-file", tmp_path / "short")
        assert "3 bytes" in self.refused(anondata, tmp_path, faces, *short, code=1)


class TestIndex:
    @pytest.fixture
    def matrix(self, tmp_path: Path) -> tuple[object, ...]:
        rng = np.random.default_rng(0)
        people = rng.normal(size=(600, 128)) / 12
        templates = people.repeat(2, axis=0) + rng.normal(size=(1200, 128)) / 60
        names = np.array([f"p{i // 2}" for i in range(1200)])
        np.savez(tmp_path / "m.npz", templates=templates.astype(np.float32), identities=names)
        return (tmp_path / "m.npz", "--embedder", "dlib-face-resnet")

    def test_an_index_is_kept_with_its_measured_recall_and_made_again_after_a_change(
        self, anondata, matrix, tmp_path
    ):
        out = tmp_path / "g"
        result = anondata("gallery", "build", *matrix, "--out", out, "--index", "ivf", "--json")
        assert result.code == 0, result.err
        told = result.json["gallery"]["index"]
        assert told["recall"] >= 0.9999
        assert told["radius"] == pytest.approx(0.632)  # the upper end of the threshold's interval
        changed = anondata("gallery", "remove", out, "p7", "--index", "ivf", "--json")
        assert changed.json["index"]["recall"] >= 0.9999
        assert changed.json["identities"] == 599
        assert anondata("gallery", "remove", out, "p8", "--json").json["index"] is None

    def test_an_index_that_finds_too_little_is_not_saved(self, anondata, matrix, tmp_path, monkeypatch):
        def refuse(*args: object, **options: object) -> None:
            assert options["bound"] == 0.95
            raise GalleryError("the index finds 9 of 10 matches; search this gallery exactly, or lower the bound")

        monkeypatch.setattr("anondata.verifiers.gallery.index.build_index", refuse)
        out = tmp_path / "g"
        result = anondata("gallery", "build", *matrix, "--out", out, "--index", "ivf", "--recall", "0.95")
        assert result.code == 1
        assert "the index finds 9 of 10" in said(result)
        assert not out.exists()
        assert anondata("gallery", "build", *matrix, "--out", out).code == 0
        before = out.read_bytes()
        assert anondata("gallery", "remove", out, "p1", "--index", "ivf", "--recall", "0.95").code == 1
        assert out.read_bytes() == before

    def test_a_large_gallery_gets_an_index_unless_told_otherwise(self, monkeypatch):
        monkeypatch.setattr("anondata.verifiers.gallery.index.exact_is_cheap", lambda count, dimensions: False)
        monkeypatch.setattr("anondata.verifiers.gallery.index.build_index", lambda *args, **options: None)
        seen: list[float] = []
        threshold = _indexing.IndexChoice.threshold
        monkeypatch.setattr(
            _indexing.IndexChoice, "threshold", lambda self, name: seen.append(self.far) or threshold(self, name)
        )
        for kind in ("auto", "ivf", "exact"):
            _indexing.indexed(made("alice"), _indexing.IndexChoice(kind))
        assert len(seen) == 2

    def test_an_embedder_without_a_calibration_needs_one_for_an_index(self, anondata, matrix, tmp_path):
        own = ("--embedder", f"{__name__}:Own", "--index", "ivf")
        result = anondata("gallery", "build", matrix[0], *own, "--out", tmp_path / "g")
        assert result.code == 2


class TestChange:
    def test_people_are_added_and_only_extended_on_request(self, anondata, faces, key, tmp_path):
        out, keyed = tmp_path / "g", ("--key-file", key)
        assert (
            anondata("gallery", "build", faces / "alice" / "0.jpg", "--person", "alice", "--out", out, *keyed).code
            == 0
        )
        assert anondata("gallery", "add", out, faces / "bob" / "*.jpg", "--person", "bob", *keyed, "--json").code == 0
        before = out.read_bytes()
        again = anondata("gallery", "add", out, faces, *keyed)
        assert again.code == 1
        assert "the person of photo 1 is in the gallery already" in said(again)
        assert out.read_bytes() == before
        more = anondata("gallery", "add", out, faces, "--extend", *keyed, "--json")
        assert (more.code, more.json["taken"], more.json["gallery"]["templates"]) == (0, 8, 11)
        assert more.json["encrypted"] is True
        assert open_gallery(out, key=key).identities == NAMES

    def test_a_gallery_of_another_network_takes_nobody(self, anondata, gallery, faces):
        result = anondata("gallery", "add", gallery, faces, "--embedder", "mobilefacenet-ms1m")
        assert result.code == 1
        assert "made with embedder 'dlib-face-resnet'" in said(result)

    def test_nobody_added_leaves_the_file_as_it_was(self, anondata, gallery, tmp_path):
        (tmp_path / "x.jpg").write_bytes(b"junk")
        before = gallery.read_bytes()
        assert anondata("gallery", "add", gallery, tmp_path / "x.jpg", "--person", "mallory").code == 1
        assert gallery.read_bytes() == before

    def test_removal_of_several_people_at_once(self, anondata, gallery, tmp_path):
        (tmp_path / "gone").write_text("bob\n\nbob\n")
        result = anondata("gallery", "remove", gallery, "--from-file", tmp_path / "gone")
        assert result.code == 0
        assert "people 1" in said(result)
        assert open_gallery(gallery).identities == ("alice",)
        assert b"bob" not in gallery.read_bytes()

    def test_an_unknown_person_leaves_the_file_as_it_was(self, anondata, gallery):
        before = gallery.read_bytes()
        result = anondata("gallery", "remove", gallery, "alice", "mallory")
        assert result.code == 1
        assert "not in the gallery: number 2 of the identities given" in said(result)
        assert gallery.read_bytes() == before
        assert anondata("gallery", "remove", gallery).code == 2

    def test_the_last_person_can_be_removed_and_another_added(self, anondata, gallery, faces):
        assert anondata("gallery", "remove", gallery, "alice", "bob").code == 0
        assert anondata("gallery", "info", gallery, "--json").json["templates"] == 0
        assert anondata("gallery", "add", gallery, faces / "carol" / "0.jpg", "--person", "carol").code == 0

    def test_galleries_are_merged_with_keys_of_their_own(self, anondata, gallery, key, tmp_path, monkeypatch):
        monkeypatch.setenv("ANONDATA_GALLERY_KEY", "f" * 32)
        main, plain, other = tmp_path / "main", gallery, tmp_path / "other"
        save_gallery(made("carol"), main)
        save_gallery(made("dave"), other, key=key)
        result = anondata("gallery", "merge", main, plain, other, "--other-key-file", key, "--json")
        assert (result.code, result.json["identities"]) == (0, 4)
        assert open_gallery(main).identities == ("carol", "alice", "bob", "dave")
        assert anondata("gallery", "merge", main, plain).code == 1
        extended = anondata("gallery", "merge", main, plain, "--extend", "--json")
        assert extended.json["templates_per_identity"] == [2, 4]

    def test_portraits_do_not_end_up_in_a_file_that_is_not_encrypted(self, anondata, gallery, key, tmp_path):
        none = np.zeros((5, 2), np.float32)
        portrait = Portrait(b"RIFF", np.zeros(4, np.float32), none)
        row = np.ones((1, 128), np.float32)
        kept = empty_gallery(DlibEmbedder()).add(["carol"], row, portraits=[portrait])
        save_gallery(kept, tmp_path / "other", key=key)
        before = gallery.read_bytes()
        result = anondata("gallery", "merge", gallery, tmp_path / "other", "--other-key-file", key)
        assert result.code == 2
        assert "FILE is not encrypted" in said(result)
        assert gallery.read_bytes() == before

    def test_galleries_of_two_roles_do_not_merge(self, anondata, gallery, tmp_path):
        save_gallery(made("carol", role="consented"), tmp_path / "other")
        result = anondata("gallery", "merge", gallery, tmp_path / "other")
        assert result.code == 1
        assert "a consented gallery cannot be merged" in said(result)


class TestBadFiles:
    """What every command says of a file that it cannot use."""

    @pytest.mark.parametrize("command", ["info", "remove", "search", "add", "merge"])
    @pytest.mark.parametrize("bad", ["foreign", "truncated", "empty", "locked away"])
    def test_a_file_that_is_no_whole_gallery(self, anondata, gallery, photo, tmp_path, command, bad):
        if bad == "locked away":
            save_gallery(made("alice"), gallery, key=KEY, overwrite=True)
        else:
            content = {"foreign": b"\x89PNG" * 99, "truncated": gallery.read_bytes()[:-9], "empty": b""}
            gallery.write_bytes(content[bad])
        before = gallery.read_bytes()
        (tmp_path / "mallory.jpg").write_bytes(photo())
        rest = {
            "info": (),
            "remove": ("alice",),
            "search": (tmp_path / "mallory.jpg",),
            "add": (tmp_path / "mallory.jpg", "--person", "mallory"),
            "merge": (gallery,),
        }
        result = anondata("gallery", command, gallery, *rest[command])
        assert result.code == 1
        assert "gallery" in said(result)
        assert gallery.read_bytes() == before

    def test_the_wrong_key(self, anondata, gallery, tmp_path):
        save_gallery(made("alice"), gallery, key=KEY, overwrite=True)
        (tmp_path / "wrong").write_bytes(b"x" * 32)
        result = anondata("gallery", "info", gallery, "--key-file", tmp_path / "wrong")
        assert result.code == 1
        assert "cannot be decrypted" in said(result)

    def test_an_empty_gallery_has_nobody_to_search_for(self, anondata, gallery, photo, tmp_path):
        save_gallery(empty_gallery(DlibEmbedder()), gallery, overwrite=True)
        (tmp_path / "mallory.jpg").write_bytes(photo())
        result = anondata("gallery", "search", gallery, tmp_path / "mallory.jpg")
        assert result.code == 1
        assert "the gallery is empty" in said(result)


class TestInfo:
    def test_counts_are_told_and_names_on_request_only(self, anondata, gallery):
        result = anondata("gallery", "info", gallery)
        assert result.code == 0
        assert "people 2 templates 4 (2 to 2 each)" in said(result)
        assert open_gallery(gallery).fingerprint in said(result)
        told = anondata("gallery", "info", gallery, "--json").json
        assert (told["format"], told["identities"], told["encrypted"]) == ("anondata.gallery_info/1", 2, False)
        assert "people" not in told
        assert "     2  alice\n     2  bob\n" in anondata("gallery", "info", gallery, "--identities").out
        people = anondata("gallery", "info", gallery, "--identities", "--json").json["people"]
        assert people[1] == {"identity": "bob", "label": "", "templates": 2}


class TestSearch:
    def test_people_are_found_in_other_photos_of_theirs(self, anondata, faces, party_jpeg, tmp_path):
        out = tmp_path / "g"
        for name in NAMES:
            (faces / name / "1.jpg").rename(tmp_path / f"{name}.jpg")
        assert anondata("gallery", "build", faces, "--out", out).code == 0
        (tmp_path / "party.jpg").write_bytes(party_jpeg)
        (tmp_path / "junk.jpg").write_bytes(b"junk")
        names = ("bob.jpg", "party.jpg", "junk.jpg", "missing.jpg")
        probes = [tmp_path / name for name in names]
        result = anondata("gallery", "search", out, *probes, "--top", 2, "--json")
        assert result.code == 3
        bob, party, junk, missing = result.json["photos"]
        assert [n["within"] for n in bob["faces"][0]["near"]] == [True, False]
        assert bob["faces"][0]["near"][0]["identity"] == "bob"
        assert len(party["faces"]) == 6
        widths = [face["width_px"] for face in party["faces"]]
        assert widths[0] == pytest.approx(max(widths), rel=0.2)
        assert (junk["error"], missing["error"]) == ("not_an_image", "unreadable: No such file or directory")
        shown = anondata("gallery", "search", out, *probes[:1], "--top", 1)
        assert shown.code == 0
        assert shown.out.splitlines()[0].startswith("photo 1 face 1, ")
        assert "match  bob" in shown.out

    def test_its_help_says_that_it_prints_identities(self, anondata):
        assert "PRINTS IDENTITIES" in anondata("gallery", "search", "--help").out


class TestResume:
    @pytest.fixture(autouse=True)
    def pieces_of_two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_enrol_parts, "EVERY", 2)

    @pytest.fixture
    def killed(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
        """Lets the next runs examine so many photos, and then be killed; returns the numbers that were examined."""
        whole = Examiner.examine

        def arm(limit: int) -> list[int]:
            numbers: list[int] = []

            def examine(self: Examiner, photos: Any, *, first: int = 1) -> Any:
                for result in whole(self, photos, first=first):
                    if len(numbers) >= limit:
                        raise KeyboardInterrupt
                    numbers.append(result.number)
                    yield result

            monkeypatch.setattr(examination.Examiner, "examine", examine)
            return numbers

        return arm

    @pytest.mark.parametrize("encrypted", [False, True])
    def test_a_killed_run_goes_on_and_ends_like_one_that_was_not(
        self, anondata, faces, key, tmp_path, killed, encrypted
    ):
        (faces / "bob" / "1.jpg").write_bytes(b"junk")
        keyed = ("--key-file", key, "--keep-portraits") if encrypted else ()
        run = ("gallery", "build", faces, "--json", *keyed, "--out")
        straight = anondata(*run, tmp_path / "straight").json
        killed(5)
        assert anondata(*run, tmp_path / "g").code == 130
        part = tmp_path / ".g.part"
        assert sorted(path.name for path in part.glob("*.gallery")) == ["0.gallery", "1.gallery"]
        assert stat.S_IMODE(os.stat(part).st_mode) == 0o700
        texts = b"".join(path.read_bytes() for path in part.iterdir())
        assert (b"alice" in texts) is not encrypted
        assert not any(name.encode() in (part / "log").read_bytes() for name in NAMES)
        numbers = killed(99)
        result = anondata(*run, tmp_path / "g")
        assert numbers == [5, 6, 7, 8]
        told = result.json
        assert (result.code, told["resumed"]) == (3, 4)
        same = ("photos", "taken", "refused", "people_left_out", "doubtful")
        assert [told[name] for name in same] == [straight[name] for name in same]
        one, other = (open_gallery(tmp_path / name, key=key if encrypted else None) for name in ("straight", "g"))
        np.testing.assert_array_equal(one.templates, other.templates)
        assert (one.identities, one.owners.tolist()) == (other.identities, other.owners.tolist())
        assert [p.image for p in one.portraits if p] == [p.image for p in other.portraits if p]
        assert not part.exists()

    def test_other_options_or_photos_start_anew(self, anondata, faces, tmp_path, killed):
        run = ("gallery", "build", faces, "--json", "--out", tmp_path / "g")
        killed(5)
        anondata(*run)
        numbers = killed(5)
        assert anondata(*run, "--smallest-px", 20).code == 130
        assert numbers == [1, 2, 3, 4, 5]
        os.utime(faces / "alice" / "0.jpg", (1, 1))
        numbers = killed(99)
        assert anondata(*run, "--smallest-px", 20).json["resumed"] == 0
        assert numbers == list(range(1, 9))

    def test_a_line_that_a_kill_tore_costs_its_piece_alone(self, anondata, faces, tmp_path, killed):
        run = ("gallery", "build", faces, "--json", "--out", tmp_path / "g")
        killed(5)
        anondata(*run)
        log = tmp_path / ".g.part" / "log"
        log.write_bytes(log.read_bytes()[:-7])
        numbers = killed(99)
        assert anondata(*run).json["resumed"] == 2
        assert numbers == [3, 4, 5, 6, 7, 8]

    def test_an_index_that_failed_costs_no_second_look_at_the_photos(
        self, anondata, faces, tmp_path, killed, monkeypatch
    ):
        def refuse(*args: object, **options: object) -> None:
            raise GalleryError("too little")

        monkeypatch.setattr("anondata.verifiers.gallery.index.build_index", refuse)
        run = ("gallery", "build", faces, "--json", "--out", tmp_path / "g")
        assert anondata(*run, "--index", "ivf").code == 1
        numbers = killed(99)
        assert anondata(*run).code == 0
        assert numbers == []

    def test_pieces_that_cannot_be_used_are_named(self, anondata, faces, tmp_path, killed):
        run = ("gallery", "build", faces, "--out", tmp_path / "g")
        killed(5)
        anondata(*run)
        (tmp_path / ".g.part" / "1.gallery").unlink()
        result = anondata(*run)
        assert result.code == 1
        assert "remove the hidden folder .part" in said(result)

    def test_photos_of_a_stream_are_not_hoarded(self, photos, tmp_path, monkeypatch):
        """A piece of many photos must not be read before it is looked at."""
        monkeypatch.setattr(_enrol_parts, "EVERY", 1000)
        read = 0

        def stream() -> Any:
            nonlocal read
            for _ in range(100):
                read += 1
                yield Photo("alice", photos["alice"][0])

        with _enrol_parts.EnrolParts(tmp_path / "g", task="", key=None) as parts:
            next(parts.examine(stream(), Examiner(DlibEmbedder())))
        assert read <= examination.BATCH * examination.AHEAD

    def test_two_runs_into_one_file_do_not_mix(self, anondata, faces, tmp_path):
        with _enrol_parts.EnrolParts(tmp_path / "g", task="", key=None):
            result = anondata("gallery", "build", faces, "--out", tmp_path / "g")
        assert result.code == 2
        assert "another run is enrolling into this file" in said(result)
