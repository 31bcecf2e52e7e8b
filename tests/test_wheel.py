"""What users get: the built wheel, and that it works away from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "anondata": ROOT / "anondata",
    **{f"anondata/{r}": ROOT / r for r in ("cards", "loaders", "tools", "verifiers")},
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build folder left in the checkout would carry removed modules into the next wheel."""
    out, copy = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("copy") / "source"
    left_out = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "demo-out")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=left_out)
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(copy)]
    subprocess.run(build, check=True, capture_output=True, cwd=out)
    (made,) = out.glob("*.whl")
    return made


def expected() -> set[str]:
    """Every tracked module and data file of the rooms, but benchmarks, what made the weights, and READMEs."""
    names = set()
    for name, folder in ROOMS.items():
        for path in folder.rglob("*"):
            inner = path.relative_to(folder)
            skipped = {"__pycache__", "bench", "build", "README.md"} | (
                {"cards", "loaders", "tools", "verifiers"} if name == "anondata" else set()
            )
            if path.is_file() and not skipped & set(inner.parts):
                names.add(f"{name}/{inner}")
    return names


def test_every_module_and_data_file_is_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert names == expected()


def test_anondata_is_the_only_top_level_name(wheel: Path) -> None:
    tops = {n.split("/")[0] for n in zipfile.ZipFile(wheel).namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"anondata"}


def test_the_wheel_anonymizes_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import numpy, skimage.data, anondata; from pathlib import Path; "
        "assert Path(anondata.__file__).is_relative_to(Path.cwd()), anondata.__file__; "
        "[o] = anondata.Anonymizer().anonymize([numpy.array(skimage.data.astronaut())]); "
        "print(o.released, len(o.record.regions))"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "1"]
