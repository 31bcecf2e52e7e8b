"""``anondata verify``: what was changed after publication is found, each time by the check that it belongs to."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from anondata.errors import PublishError
from anondata.manifest import digest_of, from_json
from anondata.policy import Policy, load_policy
from anondata.publishing.examine import FaceLook, look_at
from anondata.publishing.verify import verify
from anondata.randomness import RunKey

ROWS = "data/train-00000-of-00001.parquet"
MANIFEST, REPORT, AUDIT = (f"anonymization/{name}.json" for name in ("manifest", "report", "audit"))


@pytest.fixture(scope="session")
def original(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("published") / "p"
    finished.publish(at)
    return at


@pytest.fixture
def place(original: Path, tmp_path: Path) -> Path:
    """A publication of the test's own."""
    shutil.copytree(original, tmp_path / "p")
    return tmp_path / "p"


def wrong(place: Path, **options: Any) -> set[str]:
    return {check.name for check in verify(place, **options) if check.ok is False}


def edit_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert len(re.findall(old, text)) >= 1, old
    path.write_text(re.sub(old, new, text, count=1))


def rewrite(place: Path, change: Callable[[list[Any]], list[Any]]) -> None:
    """Changes the rows, as somebody would who knows parquet."""
    table = pq.read_table(place / ROWS)
    pq.write_table(pa.Table.from_pylist(change(table.to_pylist()), schema=table.schema), place / ROWS)


def cover_up(place: Path) -> None:
    """Makes the manifest agree with the files again, which anybody can who may write there."""
    manifest = from_json((place / MANIFEST).read_text())
    files = {name: digest_of(place / name) for name in manifest.files}
    (place / MANIFEST).write_text(replace(manifest, files=files).to_json())


def test_an_untouched_publication_is_well(place: Path, anondata: Any) -> None:
    result = anondata("verify", place, "--json")
    assert (result.code, result.json["ok"]) == (0, True)
    assert {check["name"] for check in result.json["checks"]} == {
        *(
            "manifest",
            "seal",
            "files",
            "report",
            "policy",
            "pictures",
            "metadata",
            "audit",
            "columns",
            "faces",
            "card",
            "croissant",
        ),
    }


def test_the_files_of_a_git_clone_are_no_strangers(place: Path) -> None:
    (place / ".gitattributes").write_text("*.parquet filter=lfs")
    (place / ".git").mkdir()
    (place / ".git" / "HEAD").write_text("ref")
    assert wrong(place) == set()


def test_one_byte_of_a_picture_is_found(place: Path) -> None:
    data = bytearray((place / ROWS).read_bytes())
    at = data.index(b"\xff\xd8\xff") + 900
    data[at] ^= 1
    (place / ROWS).write_bytes(data)
    assert "files" in wrong(place)


def test_one_byte_of_a_picture_is_found_behind_a_new_manifest(place: Path) -> None:
    def change(rows: list[Any]) -> list[Any]:
        data = bytearray(rows[0]["image"]["bytes"])
        data[-40] ^= 1
        rows[0]["image"]["bytes"] = bytes(data)
        return rows

    rewrite(place, change)
    cover_up(place)
    assert "audit" in wrong(place)


def test_a_picture_that_was_added_or_taken_away_is_found(place: Path) -> None:
    rewrite(place, lambda rows: rows[1:])
    cover_up(place)
    assert {"audit", "card"} <= wrong(place)


def test_a_new_manifest_does_not_have_the_seal(place: Path, finished: Any) -> None:
    assert wrong(place, run_key=RunKey(finished.key)) == set()
    cover_up(place)
    assert wrong(place, run_key=RunKey(finished.key)) == set()  # nothing was changed, so it is the same
    rewrite(place, lambda rows: rows[1:])
    cover_up(place)
    assert "seal" in wrong(place, run_key=RunKey(finished.key))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"\n    released: 5\n|\n  released: 5\n|released: 5", "released: 6"),
        (r"\| 5 of 5 samples|5 of 5 samples released", "6 of 6 samples released"),
        (r"above_chance: 90\.0", "above_chance: 2.0"),
    ],
)
def test_one_number_of_the_card_is_found(place: Path, old: str, new: str) -> None:
    edit_text(place / "README.md", old, new)
    assert {"files", "card"} <= wrong(place)
    cover_up(place)
    assert wrong(place) == {"card"}


def test_a_number_of_the_report_is_found(place: Path) -> None:
    edit_text(place / REPORT, '"seen": 5', '"seen": 50')
    cover_up(place)
    assert wrong(place) == {"report"}


def test_a_figure_of_the_audit_is_found(place: Path) -> None:
    body = json.loads((place / AUDIT).read_text())
    body["attacks"][0]["rank1"]["percent"] += 1
    (place / AUDIT).write_text(json.dumps(body))
    cover_up(place)
    assert wrong(place) == {"card"}


def test_an_audit_above_the_bound_is_found(place: Path) -> None:
    body = json.loads((place / AUDIT).read_text())
    body["attacks"][0]["rank1"] |= {"percent": 100.0, "chance_percent": 2.0}
    (place / AUDIT).write_text(json.dumps(body))
    cover_up(place)
    assert {"audit", "card"} <= wrong(place)


@pytest.mark.parametrize("name", [AUDIT, REPORT, "README.md", "croissant.json", "anonymization/policy.yaml"])
def test_what_is_missing_is_found(place: Path, name: str) -> None:
    (place / name).unlink()
    assert len(wrong(place)) >= 2


@pytest.mark.parametrize("name", [AUDIT, REPORT, MANIFEST, "README.md", "croissant.json", ROWS])
@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"[]", b"{}", b"[" * 99_999])
def test_what_is_damaged_is_found_without_a_crash(place: Path, name: str, data: bytes, anondata: Any) -> None:
    (place / name).write_bytes(data)
    result = anondata("verify", place, "--json", "--limit", "0")
    assert result.code == 1
    assert "unforeseen" not in result.err


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        (AUDIT, ("counts", "unreadable_original"), "many"),
        (AUDIT, ("counts", "unreadable_original"), float("inf")),
        (AUDIT, ("attacks", 0, "rank1", "percent"), "few"),
        (AUDIT, ("attacks", 0, "rank5"), None),
        (AUDIT, ("faces",), [1]),
        (AUDIT, ("networks",), [1]),
        (MANIFEST, ("report", "counts", "regions_per_sample"), {"x": 1}),
        (MANIFEST, ("policy", "content", "image", "regions", "face", "verify"), [{"self_match": {"far": [1]}}]),
    ],
)
def test_a_value_of_another_kind_is_wrong_and_no_crash(
    place: Path, name: str, path: tuple[Any, ...], value: Any
) -> None:
    body = json.loads((place / name).read_text())
    inner = body
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (place / name).write_text(json.dumps(body))
    assert wrong(place) - {"files"}


def test_words_of_others_do_not_steer_the_terminal(place: Path, anondata: Any) -> None:
    steer = "\x1b]0;title\x07\x1b[2J"
    edit_text(place / "README.md", "(?m)^anonymization:$", r'anonymization:\n  "\\e]0;title\\a\\e[2J": 1')
    assert "\x1b" not in anondata("verify", place, "--limit", "0").out
    body = json.loads((place / MANIFEST).read_text())
    (place / MANIFEST).write_text(json.dumps({**body, steer: 1}))
    assert "\x1b" not in anondata("verify", place).out
    assert all("\x1b" not in check.words for check in verify(place))


@pytest.mark.parametrize("name", [AUDIT, REPORT, "README.md", "croissant.json", ROWS])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_never_ends_or_lies_elsewhere_is_not_read(place: Path, name: str, kind: str) -> None:
    (place / name).unlink()
    if kind == "link":
        (place / name).symlink_to("/dev/zero")
    else:
        os.mkfifo(place / name)
    assert len(wrong(place)) >= 2


def test_a_manifest_that_is_a_link_is_not_read(place: Path) -> None:
    (place / MANIFEST).rename(place.parent / "m")
    (place / MANIFEST).symlink_to(place.parent / "m")
    with pytest.raises(PublishError, match="is a link or no plain file"):
        verify(place)


def test_a_policy_that_was_exchanged_is_found(place: Path) -> None:
    (place / "anonymization/policy.yaml").write_text(load_policy("faces").to_yaml())
    cover_up(place)
    assert wrong(place) == {"policy"}


def test_a_digest_in_croissant_is_found(place: Path) -> None:
    body = json.loads((place / "croissant.json").read_text())
    for one in body["distribution"]:
        if "sha256" in one:
            one["sha256"] = "0" * 64
    (place / "croissant.json").write_text(json.dumps(body))
    cover_up(place)
    assert wrong(place) == {"croissant"}


def test_a_file_that_was_put_there_is_named(place: Path, anondata: Any) -> None:
    (place / "data" / "more.parquet").write_bytes((place / ROWS).read_bytes())
    result = anondata("verify", place, "--json")
    [files] = [check for check in result.json["checks"] if check["name"] == "files"]
    assert (result.code, files["ok"]) == (1, False)
    assert files["words"] == "1 in no manifest (in no manifest: 'data/more.parquet')"


def test_a_file_that_no_publication_has_is_found_behind_a_new_manifest(place: Path, photo: Any) -> None:
    """Nobody looks into it, so it could be an original."""
    (place / "data" / "alice.jpg").write_bytes(photo(0))
    manifest = from_json((place / MANIFEST).read_text())
    files = {**manifest.files, "data/alice.jpg": digest_of(place / "data" / "alice.jpg")}
    (place / MANIFEST).write_text(replace(manifest, files=files).to_json())
    assert "files" in wrong(place)


@pytest.mark.parametrize("where", ["column", "footer"])
def test_what_was_not_declared_is_found_in_rows(place: Path, where: str) -> None:
    table = pq.read_table(place / ROWS)
    if where == "column":
        table = table.append_column("who", pa.array(["alice"] * len(table)))
    else:
        table = table.replace_schema_metadata({**table.schema.metadata, b"note": b"alice"})
    pq.write_table(table, place / ROWS)
    cover_up(place)
    assert "columns" in wrong(place)


def test_a_picture_with_metadata_is_found(place: Path) -> None:
    def change(rows: list[Any]) -> list[Any]:
        exif, buffer = Image.Exif(), io.BytesIO()
        exif[0x010F] = "a camera"
        Image.open(io.BytesIO(rows[0]["image"]["bytes"])).save(buffer, "JPEG", exif=exif)
        rows[0]["image"]["bytes"] = buffer.getvalue()
        return rows

    rewrite(place, change)
    assert {"files", "metadata", "audit"} <= wrong(place)


def test_a_row_that_tells_a_path_is_found(place: Path) -> None:
    def change(rows: list[Any]) -> list[Any]:
        rows[0]["image"]["path"] = "alice.jpg"
        return rows

    rewrite(place, change)
    assert "pictures" in wrong(place)


def test_a_picture_that_does_not_decode_is_found(place: Path) -> None:
    rewrite(place, lambda rows: [{"image": {"bytes": b"\xff\xd8\xff\xe0", "path": None}}, *rows])
    assert {"pictures", "metadata"} <= wrong(place)


def test_a_place_without_manifest_is_no_publication(tmp_path: Path, anondata: Any) -> None:
    result = anondata("verify", tmp_path)
    assert result.code == 1
    assert "this is not a publication" in " ".join(result.out.split())


def test_a_place_that_cannot_be_read_is_an_error(anondata: Any) -> None:
    result = anondata("verify", "nosuchprotocol://x")
    assert (result.code, "cannot read from the place" in result.err) == (1, True)


def test_code_of_a_policy_is_not_run(place: Path, tmp_path: Path) -> None:
    body = json.loads((place / MANIFEST).read_text())
    trap = tmp_path / "trap"
    body["policy"]["content"]["image"]["detect"] = [{"subprocess:Popen": {"args": ["touch", str(trap)]}}]
    (place / MANIFEST).write_text(json.dumps(body))
    assert wrong(place) == {"manifest"}
    assert not trap.exists()


# --- galleries ----------------------------------------------------------------------------------------------------


@pytest.fixture
def gallery(tmp_path: Path, photo: Callable[..., bytes], anondata: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The astronaut, enrolled."""
    monkeypatch.delenv("ANONDATA_GALLERY_KEY", raising=False)
    (tmp_path / "people" / "astronaut").mkdir(parents=True)
    for i in range(2):
        (tmp_path / "people" / "astronaut" / f"{i}.png").write_bytes(photo(3 * i, "PNG"))
    (tmp_path / "gallery.key").write_bytes(b"0123456789abcdef0123456789abcdef")
    file = tmp_path / "g.gallery"
    made = anondata("gallery", "build", tmp_path / "people", "--out", file, "--key-file", tmp_path / "gallery.key")
    assert made.code == 0, made.err
    return file


def test_nobody_of_a_gallery_is_near_what_was_anonymized(place: Path, gallery: Path, anondata: Any) -> None:
    key = ("--gallery-key", gallery.parent / "gallery.key")
    result = anondata("verify", place, "--gallery", f"team={gallery}", *key, "--json")
    assert result.code == 0, result.out
    assert {"gallery team"} <= {check["name"] for check in result.json["checks"]}


def test_somebody_of_a_gallery_is_found(
    place: Path, gallery: Path, photo: Callable[..., bytes], anondata: Any
) -> None:
    rewrite(place, lambda rows: [{"image": {"bytes": photo(5), "path": None}}, *rows])
    key = ("--gallery-key", gallery.parent / "gallery.key")
    result = anondata("verify", place, "--gallery", f"team={gallery}", *key, "--json")
    [check] = [check for check in result.json["checks"] if check["name"] == "gallery team"]
    assert (result.code, check["ok"]) == (1, False)
    assert check["words"] == "1 faces are near somebody"


@pytest.mark.parametrize("given", ["team", "=x", "team="])
def test_a_gallery_is_named(place: Path, anondata: Any, given: str) -> None:
    result = anondata("verify", place, "--gallery", given)
    assert (result.code, "NAME=FILE" in result.err) == (2, True)


def test_the_limit_is_of_pictures(place: Path) -> None:
    manifest = from_json((place / MANIFEST).read_text())
    seen = look_at([(ROWS, nullcontext(place / ROWS))], manifest, FaceLook(manifest.policy, 2), lambda done: None)
    assert (seen.looked, seen.digests.total()) == (2, 5)


def test_a_policy_whose_detector_is_blind_hides_no_face(place: Path, photo: Any) -> None:
    rewrite(place, lambda rows: [{"image": {"bytes": photo(5), "path": None}}])
    manifest = from_json((place / MANIFEST).read_text())
    blind = Policy.model_validate(
        json.loads(manifest.policy.model_dump_json().replace('"threshold":0.2', '"threshold":0.9999'))
    )
    assert blind != manifest.policy
    seen = look_at([(ROWS, nullcontext(place / ROWS))], manifest, FaceLook(blind, None), lambda done: None)
    assert (seen.looked, seen.faces) == (1, 1)


def test_what_is_no_parquet_file_is_an_error(tmp_path: Path, place: Path) -> None:
    manifest = from_json((place / MANIFEST).read_text())
    (tmp_path / "x").write_bytes(b"PAR1")
    with pytest.raises(PublishError, match="a parquet file cannot be read"):
        look_at([("x", nullcontext(tmp_path / "x"))], manifest, FaceLook(manifest.policy, 0), lambda done: None)
