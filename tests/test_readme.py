"""What the README tells people to run, runs."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

README = Path(__file__).resolve().parents[1] / "README.md"


def script(title: str) -> str:
    """The first Python block under a heading."""
    text = README.read_text()
    section = text[text.index(f"\n### {title}\n") :]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture
def place(tmp_path: Path, photo: Callable[..., bytes]) -> Path:
    """Photos of two classes, one corrupt, one grey, one with alpha; as a folder, and as shards with captions."""
    (tmp_path / "run.key").write_bytes(bytes(range(32)))
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
                data = photo(i) if i != 5 else photo(i)[:-900]
                for suffix, value in (("jpg", data), ("cls", str(i % 2).encode()), ("txt", b"Jane Doe")):
                    info = tarfile.TarInfo(f"{i}.{suffix}")
                    info.size = len(value)
                    tar.addfile(info, io.BytesIO(value))
    return tmp_path


@pytest.mark.parametrize("title", ["Hugging Face datasets", "WebDataset", "torch"])
def test_the_training_script(title: str, place: Path) -> None:
    (place / "train.py").write_text(script(title))
    environment = {**os.environ, "HF_HOME": str(place / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^7 released, \{'(truncated|unreadable)': 1\}", done.stdout, re.MULTILINE), done.stdout
