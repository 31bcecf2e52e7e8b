"""What each README tells people to write and to run works: each is run from top to bottom, in a folder of its own."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

ROOT = Path(__file__).resolve().parents[1]
KB = 1024
ROOMS = {  # and how large each may be, so that somebody reads it
    "": 8 * KB,
    "anondata": 12 * KB,
    "loaders": 12 * KB,
    "verifiers": 12 * KB,
    "cards": 12 * KB,
    "tools": 12 * KB,
    "tools/bench": 12 * KB,
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.(?:py|yaml))\n")

# One process for a README, so that libraries are loaded once. Each script gets a fork of its own, as it is alone when
# people run it: no network was loaded in the process that it is forked from.
DRIVER = """
import json, os, shlex, subprocess, sys
import datasets, torch, torchvision, webdataset, anondata
import anondata.publishing.checks, anondata.publishing.verify, anondata.verifiers.audit
from anondata.tools import cli

sys.path.insert(0, os.getcwd())
for module in (anondata.publishing.checks, anondata.publishing.verify):
    module.audit_problems = lambda *args, **kwargs: ()  # a few photos of one person are no audit
anondata.verifiers.audit.ATTACKERS = ("naive", "parrot")  # unless a README names others; the slow ones have tests

def step(kind, text):
    if kind == "python":
        exec(compile(text, "block.py", "exec"), {"__name__": "__main__"})
        return 0
    words = shlex.split(text, comments=True)
    return cli.run(words[1:]) if words[0] == "anondata" else subprocess.run(text, shell=True).returncode

for kind, text in json.load(open("steps.json")):
    print(">>>", text, flush=True)
    pid = os.fork()
    if not pid:
        try:
            code = step(kind, text)
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code not in (0, 3):  # 3: some were withheld
        sys.exit(f"exit code {code}: {text}")
"""


def text_of(room: str) -> str:
    return (ROOT / room / "README.md").read_text()


def steps_of(room: str) -> list[tuple[str, str]]:
    """Scripts and commands, in order, without what installs. Blocks that begin with a file's name are files."""
    steps: list[tuple[str, str]] = []
    for kind, text in BLOCK.findall(text_of(room)):
        if kind == "python" and not FILE.match(text):
            steps.append((kind, text))
        if kind == "console":
            commands = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
            steps += [("console", line) for line in commands if not line.startswith(("pip ", "export ", "make "))]
    return steps


def files_of(room: str) -> dict[str, str]:
    blocks = [text for kind, text in BLOCK.findall(text_of(room)) if kind in ("python", "yaml")]
    return {found[1]: text for text in blocks if (found := FILE.match(text))}


@pytest.fixture
def place(tmp_path: Path, photo: Callable[..., bytes]) -> Path:
    """What the READMEs take for granted: photos of two classes (one corrupt, grey, or with alpha each) in a folder,
    and with captions as shards; photos of people and of a place; a key; the files that any of the READMEs shows."""
    (tmp_path / "run.key").write_bytes(bytes(range(32)))
    (tmp_path / "photo.jpg").write_bytes(photo(0))
    for i in range(8):
        folder = tmp_path / "photos" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.jpg").write_bytes(photo(i) if i != 5 else photo(i)[:-900])
    for i, mode in ((2, "L"), (3, "RGBA")):
        path = tmp_path / "photos" / f"class{i % 2}" / f"{i}.jpg"
        Image.open(path).convert(mode).save(path.with_suffix(".png"))
        path.unlink()
    (tmp_path / "shards").mkdir()
    for n in range(2):
        with tarfile.open(tmp_path / "shards" / f"train-{n:04}.tar", "w") as tar:
            for i in range(n, 8, 2):
                picture = photo(i) if i != 5 else photo(i)[:-900]
                for suffix, value in (("jpg", picture), ("cls", str(i % 2).encode()), ("txt", b"Jane Doe")):
                    info = tarfile.TarInfo(f"{i}.{suffix}")
                    info.size = len(value)
                    tar.addfile(info, io.BytesIO(value))
    for name in ("people/jane", "staff/jane"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.jpg").write_bytes(photo(9))
    (tmp_path / "places" / "hut").mkdir(parents=True)
    Image.fromarray(data.rocket()).save(tmp_path / "places" / "hut" / "1.jpg")
    for room in ROOMS:
        for name, text in files_of(room).items():
            (tmp_path / name).write_text(text)
    return tmp_path


def label(place: Path) -> None:
    """Who is in each photo, which audits ask for, and boxes of one of them."""
    names = sorted(path.relative_to(place / "photos").as_posix() for path in place.glob("photos/*/*"))
    rows = [(name, f"p{i // 2}", name.partition("/")[0]) for i, name in enumerate(names)]
    with (place / "photos" / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "identity", "label"), *rows])
    images = [{"id": i, "file_name": name, "width": 160, "height": 160} for i, name in enumerate(names)]
    boxes = [{"id": 0, "image_id": 0, "bbox": [2, 2, 12, 12], "category_id": 7}]
    coco = {"images": images, "annotations": boxes, "categories": [{"id": 7, "name": "head"}]}
    (place / "instances.json").write_text(json.dumps(coco))


def run(room: str, place: Path) -> str:
    (place / "steps.json").write_text(json.dumps(steps_of(room)))
    environment = {
        **os.environ,
        "HF_HOME": str(place / "hf"),
        "HF_HUB_OFFLINE": "1",
        "ANONDATA_STATE": str(place / "state"),
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_a_readme_is_short_enough_to_be_read(room: str) -> None:
    assert len(text_of(room).encode()) < ROOMS[room]


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_readme_links_to_is_there(room: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(room)):
        path, _, anchor = target.partition("#")
        file = ROOT / room / path if path else ROOT / room / "README.md"
        assert file.exists(), target
        if anchor:
            titles = re.findall(
                r"^#+ (.*)$", (file / "README.md" if file.is_dir() else file).read_text(), re.MULTILINE
            )
            assert anchor in {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}, target


def test_the_training_scripts_see_all_that_can_be_released(place: Path) -> None:
    told = run("loaders", place)
    assert len(re.findall(r"^7 released, \{'(?:truncated|unreadable)': 1\}", told, re.MULTILINE)) == 3, told


@pytest.mark.parametrize("room", ["", "anondata", "verifiers", "cards", "tools"])
def test_what_a_readme_says_to_run_runs(room: str, place: Path, fetched: Callable[..., None]) -> None:
    label(place)
    if room == "verifiers":
        fetched("xfeat")  # for galleries of places
    told = run(room, place)
    if room == "anondata":  # both of the user's own parts were asked
        assert re.search(r"^True \[(\['self_match.*?', 'changed'\](, )?){2}\]$", told, re.MULTILINE), told
