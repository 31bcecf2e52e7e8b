"""``anondata gallery`` with places: built, changed, searched; no name is told but to who asks for it."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from anondata.policy import load_policy
from anondata.verifiers.embedders import DlibEmbedder
from anondata.verifiers.gallery import empty_gallery
from anondata.verifiers.gallery.file import open_places, save_gallery

KEY = b"0123456789abcdef0123456789abcdef"
NAMES = ("farmhouse", "launchpad", "plainwall")


@pytest.fixture(autouse=True)
def ready(fetched: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    fetched("xfeat")
    monkeypatch.delenv("ANONDATA_GALLERY_KEY", raising=False)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    (tmp_path / "key").write_bytes(KEY)
    return tmp_path / "key"


def saved(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def src(tmp_path: Path) -> Path:
    """A folder for each place; the third's only photo shows nothing."""
    pictures = [skimage.data.coffee(), skimage.data.rocket(), np.full((200, 300, 3), 140, np.uint8)]
    for name, picture in zip(NAMES, pictures, strict=True):
        saved(Image.fromarray(picture), tmp_path / "src" / name / "0.png")
    return tmp_path / "src"


@pytest.fixture
def gallery(anondata: Any, src: Path, key: Path, tmp_path: Path) -> Path:
    out = tmp_path / "places.gallery"
    assert anondata("gallery", "build", src, "--of", "places", "--out", out, "--key-file", key).code == 3
    return out


@pytest.fixture
def people(tmp_path: Path) -> Path:
    save_gallery(empty_gallery(DlibEmbedder()), tmp_path / "people.gallery")
    return tmp_path / "people.gallery"


def said(result: Any) -> str:
    """All that was printed, on one line, without names that must not be in it."""
    shown = f"{result.out} {result.err}"
    assert not any(name in shown for name in NAMES)
    return " ".join(shown.split())


def test_places_are_built_and_what_shows_too_little_is_counted(anondata, src, key, tmp_path):
    out, refused = tmp_path / "g", tmp_path / "refused"
    options = ("--key-file", key, "--list-refused", refused, "--json")
    result = anondata("gallery", "build", src, "--of", "places", "--out", out, *options)
    told = result.json
    assert (result.code, told["photos"], told["taken"], told["refused"]) == (3, 3, 2, {"too_plain": 1})
    assert (told["format"], told["encrypted"], told["places_left_out"]) == ("anondata.place_enrolment/1", True, 1)
    said(result)
    assert refused.read_text().startswith("too_plain\t")
    assert NAMES[2] in refused.read_text()
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in (out, refused)] == [0o600, 0o600]
    opened = open_places(out, key=KEY)
    assert opened.names == NAMES[:2]
    assert told["gallery"]["fingerprint"] == opened.fingerprint


def test_without_a_key_it_is_said_that_nothing_is_encrypted(anondata, src, tmp_path):
    result = anondata("gallery", "build", src, "--of", "places", "--out", tmp_path / "g")
    assert "not encrypted" in said(result)


def test_nothing_is_written_where_no_place_is_taken(anondata, src, tmp_path):
    result = anondata("gallery", "build", src / NAMES[2], "--person", "x", "--of", "places", "--out", tmp_path / "g")
    assert result.code == 1
    assert "no place was enrolled, nothing was written: 1 photos refused (too_plain 1)" in said(result)
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize("option", [("--several", "largest"), ("--keep-portraits",), ("--role", "protected")])
def test_options_of_people_are_refused(anondata, src, tmp_path, option):
    result = anondata("gallery", "build", src, "--of", "places", "--out", tmp_path / "g", *option)
    assert result.code == 2
    assert f"{option[0]} is for galleries of people" in said(result)


def test_a_matrix_is_none_of_places(anondata, tmp_path):
    np.save(tmp_path / "m.npy", np.zeros((2, 8), np.float32))
    result = anondata("gallery", "build", tmp_path / "m.npy", "--of", "places", "--out", tmp_path / "g")
    assert (result.code, "is built from photos" in said(result)) == (2, True)


def test_info_counts_and_names_only_when_asked(anondata, gallery, key):
    plain = anondata("gallery", "info", gallery, "--key-file", key)
    assert plain.code == 0
    assert "places 2 photos 2 (1 to 1 each)" in said(plain)
    told = anondata("gallery", "info", gallery, "--key-file", key, "--json").json
    assert (told["of"], told["places"], told["encrypted"]) == ("places", 2, True)
    assert all(
        name in anondata("gallery", "info", gallery, "--key-file", key, "--identities").out for name in NAMES[:2]
    )


def test_photos_are_added_with_extend_only(anondata, gallery, src, key):
    again = anondata("gallery", "add", gallery, src, "--key-file", key)
    assert again.code == 1
    assert "the place of photo 1 is in the gallery already" in said(again)
    assert anondata("gallery", "add", gallery, src, "--extend", "--key-file", key).code == 3
    assert open_places(gallery, key=KEY).info()["photos_per_place"] == [2, 2]


def test_a_place_is_removed_and_one_that_is_not_there_is_an_error(anondata, gallery, key):
    wrong = anondata("gallery", "remove", gallery, NAMES[2], "--key-file", key)
    assert (wrong.code, "number 1 of the places given" in said(wrong)) == (1, True)
    right = anondata("gallery", "remove", gallery, NAMES[0], "--key-file", key, "--json")
    assert right.json["places"] == 1
    assert open_places(gallery, key=KEY).names == NAMES[1:2]


def test_search_tells_the_operator_which_place_it_is(anondata, gallery, key, tmp_path):
    view = Image.fromarray(skimage.data.coffee()).crop((60, 40, 540, 380))
    saved(view, tmp_path / "view.png")
    saved(Image.fromarray(skimage.data.chelsea()), tmp_path / "cat.png")
    (tmp_path / "junk.png").write_bytes(b"junk")
    probes = [tmp_path / name for name in ("view.png", "cat.png", "junk.png")]
    found = anondata("gallery", "search", gallery, *probes, "--key-file", key, "--json")
    view_of, cat, junk = found.json["photos"]
    assert found.code == 3
    assert view_of["near"][0]["place"] == NAMES[0]
    assert [row["found"] for row in view_of["near"]] == [True, False]
    assert not any(row["found"] for row in cat["near"])
    assert junk["error"]
    assert not junk["near"]
    assert "match" in anondata("gallery", "search", gallery, probes[0], "--key-file", key).out


def test_galleries_of_people_are_not_taken_for_places_nor_the_reverse(
    anondata, gallery, people, src, key, photo, tmp_path
):
    merged = anondata("gallery", "merge", gallery, people, "--key-file", key)
    assert (merged.code, "is a gallery of places, and one of people is needed" in said(merged)) == (1, True)
    source = tmp_path / "photo.jpg"
    source.write_bytes(photo())
    run = ("anonymize", source, "--out", tmp_path / "safe", "--gallery-key", key, "--gallery")
    faces = anondata(*run, f"protected={gallery}", "--policy", "faces-protected")
    assert faces.code != 0
    assert "expected a Gallery or its file" in said(faces)
    assert not list((tmp_path / "safe").rglob("*.jpg"))


def test_a_run_says_which_places_it_protects_and_explain_what_that_means(anondata, gallery, key, photo, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(photo())
    text = load_policy("places").to_yaml().replace("gallery: null", "gallery: places")
    (tmp_path / "mine.yaml").write_text(text)
    explained = " ".join(anondata("policy", "explain", tmp_path / "mine.yaml").out.split())
    assert "every photo of the gallery places of protected places" in explained
    assert "protected places" not in " ".join(anondata("policy", "explain", "places").out.split())
    policy = ("--policy", tmp_path / "mine.yaml", "--gallery", f"places={gallery}", "--gallery-key", key)
    dry = anondata("anonymize", tmp_path / "photo.jpg", "--out", tmp_path / "safe", *policy, "--dry-run")
    assert dry.code == 0
    assert "gallery places: 2 photos of 2 protected places" in said(dry)


def test_a_damaged_photo_costs_itself_only(anondata, src, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(skimage.data.coffee()).save(buffer, "PNG")
    (src / NAMES[1] / "1.png").write_bytes(buffer.getvalue()[:2000])
    told = anondata("gallery", "build", src, "--of", "places", "--out", tmp_path / "g", "--json").json
    assert (told["taken"], told["refused"]) == (2, {"too_plain": 1, "undecodable": 1})
