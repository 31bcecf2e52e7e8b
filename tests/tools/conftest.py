"""Small real photos, a state folder of the test's own, and the command as a function."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anondata.tools import cli


@dataclass(frozen=True)
class Result:
    """What one run of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.out)
        return loaded


Command = Callable[..., Result]


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of run keys, which must be neither the user's own nor in any DST."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("ANONDATA_STATE", str(folder))
    monkeypatch.delenv("ANONDATA_DEBUG", raising=False)
    return folder


@pytest.fixture(autouse=True)
def one_look(upright_alone: None) -> None:
    """The commands are tested on clear upright faces."""


@pytest.fixture
def anondata(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``anondata`` with the given arguments, in this process."""

    def run(*args: object) -> Result:
        capsys.readouterr()
        code = cli.run([str(arg) for arg in args])
        shown = capsys.readouterr()
        return Result(code, shown.out, shown.err)

    return run


@pytest.fixture
def photos(tmp_path: Path, photo: Callable[..., bytes]) -> Path:
    """A folder of five photos in two folders, with other and hidden files beside them."""
    src = tmp_path / "src"
    for number, name in enumerate(["alice.jpg", "bob.JPEG", "trip/carol.png", "trip/deep/dave.webp", "erin.jpg"]):
        path = src / name
        path.parent.mkdir(parents=True, exist_ok=True)
        formats = {".png": "PNG", ".webp": "WEBP"}
        path.write_bytes(photo(number, formats.get(path.suffix, "JPEG")))
    (src / "notes.txt").write_text("alice and bob")
    (src / ".hidden.jpg").write_bytes(photo())
    return src


@pytest.fixture
def tree() -> Callable[..., dict[str, str]]:
    """Path -> sha256 of every file in a folder; without the journal, whose lines come in any order."""

    def read(folder: Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and ".anondata" not in path.parts
        }

    return read
