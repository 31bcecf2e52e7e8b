"""Parts are there whole or not at all, and a later run knows which are."""

from __future__ import annotations

import hashlib
import json
import pickle
import secrets
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from anondata.errors import OutputError
from anondata.loaders._parts import Parts
from anondata.policy import load_policy
from anondata.randomness import RunKey
from anondata.report import Report, empty_report

SETTING = {"policy": "a", "key": "b"}
KEY = RunKey(b"0123456789abcdef")


@pytest.fixture(params=["local", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A local folder, and a storage that knows whole objects only."""
    if request.param == "local":
        yield str(tmp_path / "out")
        return
    name = f"memory://{secrets.token_hex(4)}"
    yield name
    fsspec.filesystem("memory").rm(name, recursive=True)


@pytest.fixture
def report() -> Report:
    return empty_report(load_policy("faces")).with_instead(dropped=2)


def made(parts: Parts, data: bytes) -> Path:
    path = parts.temporary() / "part"
    path.write_bytes(data)
    return path


def test_a_part_is_found_again_with_its_record(out: str, report: Report) -> None:
    with Parts(out, setting=SETTING, key=KEY) as parts:
        part = parts.commit(made(parts, b"x" * 99), "a/0.tar", version="v", report=report, facts={"samples": 3})
    with Parts(out, setting=SETTING, key=KEY) as again:
        assert again.find("a/0.tar", "v") == part
        assert part.facts == {"samples": 3}
        assert part.report == report
        assert again.fs.cat_file(f"{again.root}/a/0.tar") == b"x" * 99


def test_a_part_of_another_version_is_not_done(out: str, report: Report) -> None:
    with Parts(out, setting=SETTING, key=KEY) as parts:
        assert parts.recorded() == set()
        parts.commit(made(parts, b"x"), "0.tar", version="v", report=report)
        assert parts.recorded() == {"0.tar"}
        assert parts.find("0.tar", "w") is None
        assert parts.find("1.tar", "v") is None


def test_a_part_that_is_gone_or_was_cut_is_not_done(out: str, report: Report) -> None:
    with Parts(out, setting=SETTING, key=KEY) as parts:
        parts.commit(made(parts, b"whole"), "0.tar", version="v", report=report)
        parts.fs.pipe_file(f"{parts.root}/0.tar", b"who")
        assert parts.find("0.tar") is None
        parts.fs.rm(f"{parts.root}/0.tar")
        assert parts.find("0.tar") is None


def test_a_local_part_with_one_changed_byte_is_not_done(tmp_path: Path, report: Report) -> None:
    with Parts(tmp_path, setting=SETTING, key=KEY) as parts:
        parts.commit(made(parts, b"whole"), "0.tar", version="v", report=report)
        (tmp_path / "0.tar").write_bytes(b"whale")
        assert parts.find("0.tar") is None


@pytest.mark.parametrize("how", ["digest", "without a seal", "another key", "another setting", "another name"])
def test_a_record_that_the_run_key_did_not_seal_is_not_believed(out: str, report: Report, how: str) -> None:
    """Who may write into the place cannot put an original over a part and call it done."""
    raw = b"raw photo of the same size"
    key = RunKey(b"fedcba9876543210") if how == "another key" else KEY
    setting = {"policy": "weaker", "key": "b"} if how == "another setting" else SETTING
    name = "1.tar" if how == "another name" else "0.tar"
    with Parts(out, setting=setting, key=key) as parts:
        parts.commit(made(parts, raw if how != "digest" else raw[::-1]), name, version="v", report=report)
    parts = Parts(out, setting=SETTING, key=KEY)  # who can write run.json, too
    body = json.loads(parts.read(f".anondata/parts/{name}.json") or b"")
    body |= {"name": "0.tar", "sha256": hashlib.sha256(raw).hexdigest(), "stamp": ""}
    if how == "without a seal":
        del body["seal"]
    parts.fs.pipe_file(f"{parts.root}/0.tar", raw)
    parts.fs.pipe_file(f"{parts.root}/.anondata/parts/0.tar.json", json.dumps(body).encode())
    assert parts.find("0.tar", "v") is None
    assert parts.find("0.tar") is None


def test_a_part_over_which_something_of_its_size_was_put_is_not_done(out: str, report: Report) -> None:
    with Parts(out, setting=SETTING, key=KEY) as parts:
        parts.commit(made(parts, b"whole"), "0.tar", version="v", report=report)
        parts.fs.pipe_file(f"{parts.root}/0.tar", b"photo")
        assert parts.find("0.tar", "v") is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"name": "0.tar"}', b"\xff\xfe"])
def test_a_part_with_a_damaged_record_is_not_done(out: str, report: Report, damage: bytes) -> None:
    with Parts(out, setting=SETTING, key=KEY) as parts:
        parts.commit(made(parts, b"whole"), "0.tar", version="v", report=report)
        parts.fs.pipe_file(f"{parts.root}/.anondata/parts/0.tar.json", damage)
        assert parts.find("0.tar") is None


def test_another_setting_is_refused_by_its_name_alone(out: str, report: Report) -> None:
    with Parts(out, setting=SETTING, key=KEY) as parts:
        parts.commit(made(parts, b"x"), "0.tar", version="v", report=report)
    with (
        pytest.raises(OutputError, match=r"other settings: key\. Choose another place") as error,
        Parts(out, setting={"policy": "a"}, key=KEY),
    ):
        pass
    assert out not in str(error.value)


def test_another_setting_is_taken_where_no_part_was_made_yet(out: str) -> None:
    with Parts(out, setting=SETTING, key=KEY):
        pass
    with Parts(out, setting={"policy": "a"}, key=KEY) as parts:
        assert b'"policy": "a"' in (parts.read(".anondata/run.json") or b"")


def test_two_runs_into_one_local_place_are_refused(tmp_path: Path) -> None:
    with (
        Parts(tmp_path, setting=SETTING, key=KEY),
        pytest.raises(OutputError, match="another run"),
        Parts(tmp_path, setting=SETTING, key=KEY),
    ):
        pass


def test_what_a_killed_run_left_unfinished_goes(tmp_path: Path) -> None:
    with Parts(tmp_path, setting=SETTING, key=KEY) as parts:
        left = made(parts, b"half")
        pickle.loads(pickle.dumps(parts))
    assert not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == [".anondata"]


def test_a_copy_writes_to_the_same_place(out: str, report: Report) -> None:
    with Parts(out, setting=SETTING, key=KEY) as parts:
        copy = pickle.loads(pickle.dumps(parts))
        copy.commit(made(copy, b"x"), "0.tar", version="v", report=report)
        assert parts.find("0.tar", "v") is not None


def test_files_that_nobody_knows_are_told(out: str, report: Report) -> None:
    with Parts(out, setting=SETTING, key=KEY) as parts:
        parts.commit(made(parts, b"x"), "0.tar", version="v", report=report)
        parts.fs.pipe_file(f"{parts.root}/raw.jpg", b"raw")
        assert list(parts.strangers(["0.tar"])) == ["raw.jpg"]


@pytest.mark.parametrize("name", ["../x.tar", "a/../../x.tar", "/x.tar"])
def test_no_name_leads_out_of_the_place(tmp_path: Path, report: Report, name: str) -> None:
    with (
        Parts(tmp_path / "out", setting=SETTING, key=KEY) as parts,
        pytest.raises(OutputError, match="leads out"),
    ):
        parts.commit(made(parts, b"x"), name, version="v", report=report)


def test_a_place_that_cannot_be_written_says_so() -> None:
    with pytest.raises(OutputError, match="cannot be used"), Parts("/proc/anondata", setting=SETTING, key=KEY):
        pass


def test_a_place_that_is_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be used"), Parts(tmp_path / "file", setting=SETTING, key=KEY):
        pass
