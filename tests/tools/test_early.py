"""What is wrong with the options of a command is told before anything heavy is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

WRONG = {
    "anonymize": [
        (["{here}/none", "--out", "{here}/out"], "SRC 1 does not exist"),
        (["{photos}", "--out", "{here}/out", "--policy", "fases"], "did you mean 'faces'?"),
        (["{photos}", "--out", "{here}/out", "--policy", "{here}/none.yaml"], "the policy file cannot be read"),
        (["{photos}", "--out", "{here}/out", "--gallery", "protected={here}/none"], "the file does not exist"),
        (["{photos}", "--out", "{here}/out", "--gallery", "protected"], "--gallery takes NAME=FILE"),
        (["{photos}", "--out", "{here}/out", "--device", "cuad"], "device 'cuad' cannot be used here"),
        (["{photos}", "--out", "{here}/out", "--client", "acme"], "--client needs --ledger"),
        (["{photos}", "--out", "s3://bucket/out"], "DST is a URL"),
    ],
    "shards": [
        (["{here}/none.tar", "--out", "{here}/out"], "SRC 1 does not exist"),
        (["{here}/{{0..3}}.tar", "--out", "{here}/out", "--policy", "fases"], "did you mean 'faces'?"),
        (["{here}/*.tar", "--out", "{here}/out", "--image", "json", "--regions", "json"], "named twice"),
    ],
    "preview": [(["{here}/none", "--out", "{here}/look.html"], "SRC 1 does not exist")],
    "gallery": [
        (["build", "{here}/none", "--out", "{here}/g"], "SRC 1 does not exist"),
        (["build", "{photos}", "--out", "{here}/g", "--device", "gpu"], "device 'gpu' cannot be used here"),
    ],
    "calibrate": [(["{here}/none", "--out", "{here}/c.json"], "FACES is not a folder")],
    "audit": [
        (["--original", "{photos}", "--anonymized", "{photos}", "--out", "{here}", "--device", "x"], "cannot be"),
    ],
    "request": [
        (["--catalog", "{catalog}", "--client", "a", "--dataset", "b", "--n", "3", "--out", "{here}/r"], "validate"),
    ],
}  # fmt: skip

CODE = """
import json, sys
from anondata.tools import cli
for args in json.load(sys.stdin):
    print(cli.run(args), "torch" in sys.modules, flush=True)
    print("---", file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], tuple[str, str]]:
    """Exit code and whether torch was loaded, and what was said, of each of the wrong commands."""
    here = tmp_path_factory.mktemp("early")
    (here / "photos").mkdir()
    (here / "photos" / "a.jpg").write_bytes(b"")
    (here / "catalog.yaml").write_text("datasets: {b: {feilds: 3}}")
    places = {"here": str(here), "photos": str(here / "photos"), "catalog": str(here / "catalog.yaml")}
    known = [(name, i) for name, wrong in WRONG.items() for i in range(len(wrong))]
    lines = [[name, *(word.format(**places) for word in WRONG[name][i][0])] for name, i in known]
    done = subprocess.run(
        [sys.executable, "-c", CODE], input=json.dumps(lines), capture_output=True, text=True, check=True, cwd=here
    )
    said = done.stderr.split("---\n")
    return dict(zip(known, zip(done.stdout.splitlines(), said, strict=False), strict=True))


@pytest.mark.parametrize(("name", "number"), [(n, i) for n, wrong in WRONG.items() for i in range(len(wrong))])
def test_a_mistake_is_told_before_torch_is_loaded(
    name: str, number: int, told: dict[tuple[str, int], tuple[str, str]]
) -> None:
    outcome, said = told[name, number]
    assert WRONG[name][number][1] in said
    assert outcome == ("1 False" if name == "request" else "2 False")
    assert str(Path.cwd()) not in said
