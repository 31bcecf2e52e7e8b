"""Shards to shards over a real S3 server, by the command as a user runs it: killed, resumed, damaged, unreachable."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds

s3fs = pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

COMMAND = [sys.executable, "-c", "from anondata.tools.cli import main; main()", "shards"]
SHARDS, EACH = 20, 2
DEADLINE_S = 60


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server on loopback that lasts for this module."""
    thread = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    thread.start()
    host, port = thread.get_host_and_port()
    yield f"http://{host}:{port}"
    thread.stop()


def environment(endpoint: str, state: Path) -> dict[str, str]:
    aws = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    return {**os.environ, **aws, "AWS_ENDPOINT_URL": endpoint, "ANONDATA_STATE": str(state)}


@pytest.fixture(scope="module")
def fs(endpoint: str) -> Any:
    fs = s3fs.S3FileSystem(key="test", secret="test", endpoint_url=endpoint, use_listings_cache=False)
    fs.mkdir("raw")
    fs.mkdir("clean")
    return fs


@pytest.fixture
def env(endpoint: str, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    return environment(endpoint, tmp_path / "state")


def shard(photos: list[bytes], first: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for i, data in enumerate(photos, first):
            for name, value in ((f"{i:04}.jpg", data), (f"{i:04}.cls", b"%d" % (i % 3)), (f"{i:04}.json", b"alice")):
                info = tarfile.TarInfo(name)
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
    return buffer.getvalue()


@pytest.fixture
def raw(fs: Any, photo: Callable[..., bytes]) -> str:
    """Shards of few small photos. One photo in the middle of one shard is corrupt."""
    for s in range(SHARDS):
        photos = [photo(s * EACH + i) for i in range(EACH)]
        if s == 11:
            photos.insert(1, b"no photo")
        fs.pipe_file(f"raw/in/s-{s:04}.tar", shard(photos, s * 10))
    return f"s3://raw/in/s-{{0000..{SHARDS - 1:04}}}.tar"


def arguments(src: str, out: str, tmp_path: Path, *more: str) -> list[str]:
    options = ["--keep", "cls", "--drop", "json", "--key-file", str(tmp_path / "key"), "--workers", "2", "--json"]
    return [*COMMAND, src, "--out", out, *options, *more]


def run(src: str, out: str, tmp_path: Path, env: dict[str, str], *more: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(arguments(src, out, tmp_path, *more), env=env, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def contents(fs: Any, place: str) -> dict[str, bytes]:
    """All files of a place but for the work folder's, whose records hold no time either."""
    return {path.removeprefix(f"{place}/"): fs.cat_file(path) for path in fs.find(place) if ".anondata" not in path}


def keys(data: bytes) -> list[str]:
    files = wds.tariterators.tar_file_iterator(io.BytesIO(data))
    return [sample["__key__"] for sample in wds.tariterators.group_by_keys({**f, "__url__": ""} for f in files)]


def test_a_killed_run_goes_on_and_ends_as_a_straight_one(fs, raw, env, tmp_path):
    process = subprocess.Popen(
        arguments(raw, "s3://clean/killed", tmp_path), env=env, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None and len(fs.glob("clean/killed/*.tar")) < 5:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = {name: data for name, data in contents(fs, "clean/killed").items() if name.endswith(".tar")}
    assert 5 <= len(before) < SHARDS
    assert not fs.exists("clean/killed/index.json")

    code, summary, _ = run(raw, "s3://clean/killed", tmp_path, env)
    assert (code, summary["done"], summary["withheld"]) == (3, SHARDS, {"not_an_image": 1})
    assert len(before) - 2 <= summary["skipped_done"] <= len(before)
    code, summary, _ = run(raw, "s3://clean/straight", tmp_path, env)
    assert (code, summary["skipped_done"]) == (3, 0)

    resumed, straight = contents(fs, "clean/killed"), contents(fs, "clean/straight")
    assert resumed == straight
    assert {name: resumed[name] for name in before} == before
    found = [key for name in sorted(resumed) if name.endswith(".tar") for key in keys(resumed[name])]
    assert found == [f"{s * 10 + i + (s == 11 and i > 0):04}" for s in range(SHARDS) for i in range(EACH)]
    index = json.loads(resumed["index.json"])
    assert [entry["url"] for entry in index["shardlist"]] == [f"s-{s:04}.tar" for s in range(SHARDS)]

    code, summary, _ = run(raw, "s3://clean/killed", tmp_path, env)
    assert (code, summary["skipped_done"], summary["samples_per_s"]) == (3, SHARDS, None)


def test_a_truncated_shard_stops_the_run_and_with_keep_going_only_itself(fs, photo, env, tmp_path):
    for s in range(3):
        fs.pipe_file(f"raw/cut/s-{s}.tar", shard([photo(s)], s)[: 3000 if s == 1 else None])
    code, summary, err = run("s3://raw/cut/", "s3://clean/cut", tmp_path, env, "--workers", "1")
    assert (code, summary["done"], summary["not_reached"], summary["report"]) == (1, 1, 1, None)
    assert [failure["shard"] for failure in summary["failed"]] == [2]
    assert "failed: shard 2 of 3 is truncated or damaged (ReadError); repack the shard, or take it out" in err
    assert sorted(contents(fs, "clean/cut")) == ["s-0.idx", "s-0.tar"]

    code, summary, err = run("s3://raw/cut/", "s3://clean/cut", tmp_path, env, "--keep-going")
    assert (code, summary["done"], summary["skipped_done"], summary["not_reached"]) == (1, 2, 1, 0)
    assert [failure["shard"] for failure in summary["failed"]] == [2]
    index = json.loads(contents(fs, "clean/cut")["index.json"])
    assert [entry["url"] for entry in index["shardlist"]] == ["s-0.tar", "s-2.tar"]
    assert "raw" not in err
    assert "s-1" not in err


def test_a_shard_that_was_changed_is_done_again(fs, photo, env, tmp_path):
    fs.pipe_file("raw/one/s.tar", shard([photo(1)], 0))
    run("s3://raw/one/*.tar", "s3://clean/one", tmp_path, env)
    first = contents(fs, "clean/one")["s.tar"]
    fs.pipe_file("raw/one/s.tar", shard([photo(2)], 0))
    code, summary, _ = run("s3://raw/one/*.tar", "s3://clean/one", tmp_path, env)
    assert (code, summary["skipped_done"]) == (0, 0)
    assert contents(fs, "clean/one")["s.tar"] != first


@pytest.mark.parametrize(
    ("src", "out", "message"),
    [
        ("s3://bucket/s-{0..3}.tar", "out", "shard 1 of 4 cannot be read: "),
        ("s3://bucket/*.tar", "out", "SRC 1 cannot be listed: "),
        ("in", "s3://bucket/out", "the output place cannot be read: "),
    ],
)
def test_an_unreachable_bucket_is_said_in_time_and_without_its_name(photo, tmp_path, src, out, message):
    with socket.socket() as closed:  # bound, and not listening
        closed.bind(("127.0.0.1", 0))
        env = environment(f"http://127.0.0.1:{closed.getsockname()[1]}", tmp_path / "state")
        env |= {"ANONDATA_TRIES": "2", "AWS_MAX_ATTEMPTS": "1"}
        (tmp_path / "in").mkdir()
        (tmp_path / "in/s.tar").write_bytes(shard([photo(1)], 0))
        (tmp_path / "key").write_bytes(b"0123456789abcdef")
        places = [place if "://" in place else str(tmp_path / place) for place in (src, out)]
        start = time.monotonic()
        code, _, err = run(places[0], places[1], tmp_path, env)
    assert code == 1
    assert message in err
    assert "bucket" not in err
    assert "127.0.0.1" not in err
    assert time.monotonic() - start < 30
