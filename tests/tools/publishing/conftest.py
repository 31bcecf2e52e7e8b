"""A finished output with its audit, made once, and a Hub to publish to, with faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pytest_httpserver import HTTPServer
from skimage import data as pictures
from werkzeug import Request, Response

from anondata.policy import load_policy
from anondata.publishing.publish import About, publish
from anondata.tools import cli

KEY = b"0123456789abcdef"
NAMES = ("alice", "bob", "carol", "dave", "erin")


@dataclass(frozen=True)
class Output:
    """A folder that a run wrote with a key, and an audit of it."""

    folder: Path
    audit: Path
    key: bytes = KEY

    def copy(self, to: Path) -> Output:
        """One's own, to be changed."""
        shutil.copytree(self.folder, to / "out")
        shutil.copy(self.audit, to / "audit.json")
        return Output(to / "out", to / "audit.json")

    @property
    def pictures(self) -> list[bytes]:
        return [path.read_bytes() for path in self.folder.rglob("*.jpg")]

    def publish(self, to: Path | str | None = None, **options: Any) -> Any:
        given = {"audit": self.audit, "about": About("Faces", "cc-by-4.0"), "run_key": self.key, **options}
        return publish(self.folder, to=to, **given)


def run(*args: object) -> None:
    code = cli.run([str(arg) for arg in args])
    assert code == 0, code


def policy(folder: Path) -> Path:
    """The preset that fills, with a bound that says nothing: five photos of one person are no audit."""
    path = folder / "mine.yaml"
    path.write_text(load_policy("faces-fill").to_yaml().replace("above_chance: 5.0", "above_chance: 90.0"))
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Output:
    """Five photos, anonymized and audited; not to be changed."""
    at = tmp_path_factory.mktemp("finished")
    (at / "src").mkdir()
    face = Image.fromarray(pictures.astronaut()).crop((140, 20, 310, 190))
    for number, name in enumerate(NAMES):
        face.crop((number, 0, 160 + number, 160)).save(at / "src" / f"{name}.jpg", quality=90)
    (at / "key").write_bytes(KEY)
    run("anonymize", at / "src", "--out", at / "out", "--policy", policy(at), "--key-file", at / "key")
    sides = ("--original", at / "src", "--anonymized", at / "out")
    run("audit", *sides, "--run-key", at / "key", "--out", at / "audit", "--no-plots")
    return Output(at / "out", at / "audit" / "audit.json")


@pytest.fixture
def output(finished: Output, tmp_path: Path) -> Output:
    """A finished output of the test's own."""
    return finished.copy(tmp_path)


@pytest.fixture
def edit() -> Callable[..., None]:
    """Changes keys of a JSON file."""

    def change(path: Path, **changes: Any) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


@pytest.fixture
def hub(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """An empty Hub, and this process has its token."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("ANONDATA_TRIES", "3")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its protocol is not HTTP that one can read
    one = Hub(httpserver.url_for("").rstrip("/"))
    httpserver.expect_request(re.compile(".*")).respond_with_handler(one)
    return one


TOKEN = "hf_of_this_test"
FIRST = "0" * 40


@dataclass
class Hub:
    """What was sent, and what goes wrong.

    faults: answers that a path ending in the key gets first, each a status with headers, or ``"break"``: the
    connection is closed without an answer. taken: what was asked, in order. lost: how many commits are taken without
    an answer. refuse_large: status that uploads get.
    """

    url: str
    private: bool | None = None  # None: there is no repository
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b""})
    commits: int = 0
    large: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, deque[Any]] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    lost: int = 0
    refuse_large: int = 0

    def fail(self, path: str, *answers: Any) -> None:
        self.faults[path] = deque(answers)

    def __call__(self, request: Request) -> Response:
        path = request.path
        self.taken.append(f"{request.method} {path}")
        data = request.get_data()
        for end, answers in self.faults.items():
            if path.endswith(end) and answers:
                return self._fault(request, answers.popleft())
        if request.headers.get("authorization") != f"Bearer {TOKEN}" and not path.startswith("/lfs/"):
            return Response(status=401)
        return self._answer(request.method, path, data)

    def _fault(self, request: Request, fault: Any) -> Response:
        if fault == "break":
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return Response(status=500)
        status, headers = fault
        return Response(status=status, headers=headers)

    def _answer(self, method: str, path: str, data: bytes) -> Response:
        if path == "/api/whoami-v2":
            return told({"name": "org"})
        if path == "/api/repos/create":
            return self._create(json.loads(data))
        if path == "/api/validate-yaml":
            return told({"errors": [], "warnings": []})
        if method == "PUT" and path.startswith("/lfs/"):
            if self.refuse_large:
                return Response(status=self.refuse_large)
            self.large[path.removeprefix("/lfs/")] = data
            return Response(status=200)
        if self.private is None:
            return Response(status=404, headers={"X-Error-Code": "RepoNotFound"})
        if "/preupload/" in path:
            return told({"files": [self._mode(file["path"]) for file in json.loads(data)["files"]]})
        if path.endswith("/info/lfs/objects/batch"):
            return told({"transfer": "basic", "objects": [self._upload(o) for o in json.loads(data)["objects"]]})
        if "/commit/" in path:
            answer = self._commit([json.loads(line) for line in data.splitlines()])
            self.lost -= 1
            return answer if self.lost < 0 else Response(status=403)
        return told(
            {
                "id": "org/name",
                "sha": f"{self.commits:040d}",
                "private": self.private,
                "siblings": [{"rfilename": name} for name in self.files],
            }
        )

    def _create(self, asked: Any) -> Response:
        if self.private is not None:
            return told({"url": f"{self.url}/datasets/org/name"}, status=409)
        self.private = asked.get("private", asked.get("visibility") == "private")
        return told({"url": f"{self.url}/datasets/org/name"})

    @staticmethod
    def _mode(path: str) -> Any:
        return {"path": path, "uploadMode": "lfs" if path.endswith(".parquet") else "regular", "shouldIgnore": False}

    def _upload(self, asked: Any) -> Any:
        if asked["oid"] in self.large:
            return {"oid": asked["oid"], "size": asked["size"]}
        return {**asked, "actions": {"upload": {"href": f"{self.url}/lfs/{asked['oid']}"}}}

    def _commit(self, lines: list[Any]) -> Response:
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.large[value["oid"]]
                assert hashlib.sha256(files[value["path"]]).hexdigest() == value["oid"]
        self.files |= files
        self.commits += 1
        return told({"commitUrl": f"{self.url}/datasets/org/name/commit/1", "commitOid": "1" * 40})


def told(body: Any, status: int = 200) -> Response:
    return Response(json.dumps(body), status=status, content_type="application/json")
