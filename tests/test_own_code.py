"""Code that a policy names is run only where somebody said that its module may be."""

from __future__ import annotations

import contextvars
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from anondata import Anonymizer, Sample, load_policy
from anondata.components import build
from anondata.errors import ManifestError, PolicyError
from anondata.manifest import Manifest, from_json
from anondata.policy import DetectorStep, Policy, from_yaml
from anondata.randomness import RunKey
from anondata.report import empty_report
from anondata.samples import Schema
from anondata.verifiers.embedders import embedder_of_file

MODULE = "an_own_package.parts"
PLAIN = load_policy("faces-fill").model_dump(mode="json")


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once the module of somebody's own was imported."""
    sprung = tmp_path / "sprung"
    package = tmp_path / "an_own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text(
        "from dataclasses import dataclass\n"
        "from pathlib import Path\n"
        "from subprocess import Popen\n"
        "from anondata.detectors.centerface import CenterFaceDetector\n"
        f"Path({str(sprung)!r}).touch()\n"
        "@dataclass(frozen=True)\n"
        "class Found(CenterFaceDetector): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in (MODULE, "an_own_package"):  # of the test before
        sys.modules.pop(name, None)
    return sprung


def with_detector(name: str, **params: Any) -> dict[str, Any]:
    content = PLAIN["content"]["image"]
    return {**PLAIN, "content": {"image": {**content, "detect": [{name: params}]}}}


def test_a_content_type_of_one_s_own_is_declared_by_its_path(
    trap: Path, tmp_path: Path, photo: Callable[..., bytes]
) -> None:
    (tmp_path / "an_own_package" / "types.py").write_text(
        "from anondata.content.images import ImageContent\n"
        "class Mine(ImageContent):\n"
        "    def notes(self, media): return ('mine',)\n"
    )
    name = "an_own_package.types:Mine"
    text = yaml.safe_dump({**PLAIN, "content": {name: PLAIN["content"]["image"]}})
    with pytest.raises(PolicyError, match=r"--own-code an_own_package\.types"):
        from_yaml(text)
    policy = from_yaml(text, own_code=["an_own_package.types"])
    [outcome] = Anonymizer(policy, device="cpu").run([Sample("a", {"photo": photo()})], Schema({"photo": name}))
    assert outcome.released
    assert outcome.record.notes == ("mine",)
    sys.modules.pop("an_own_package.types", None)


def with_gate(gate: Any) -> dict[str, Any]:
    content = PLAIN["content"]["image"]
    face = {**content["regions"]["face"], "verify": [gate]}
    return {**PLAIN, "content": {"image": {**content, "regions": {"face": face}}}}


@pytest.mark.parametrize("command", ["check", "show", "explain"])
def test_a_command_that_a_policy_names_is_refused_and_not_run(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from anondata.tools.cli import main

    ran = tmp_path / "ran"
    (tmp_path / "popen.yaml").write_text(
        yaml.safe_dump(with_detector("subprocess:Popen", args=f"touch {ran}", shell=True))
    )
    with pytest.raises(SystemExit) as end:
        main(["policy", command, str(tmp_path / "popen.yaml")])
    assert end.value.code == 2
    assert "--own-code subprocess" in capsys.readouterr().err
    assert not ran.exists()


@pytest.mark.parametrize(
    "body",
    [
        with_detector(f"{MODULE}:Found"),
        with_gate({"all_of": {"gates": [{f"{MODULE}:Found": {}}]}}),
        with_gate({"self_match": {"embedder": f"{MODULE}:Found"}}),
        with_gate({"confidence_drop": {"gallery": "", "classifiers": [f"{MODULE}:Found"]}}),
        with_gate({"keeps_face": {"detector": f"{MODULE}:Found"}}),
    ],
)
def test_nothing_is_imported_that_nobody_named(body: dict[str, Any], trap: Path) -> None:
    for read in (from_yaml, lambda text: Policy.model_validate(yaml.safe_load(text))):
        with pytest.raises(ValueError, match=rf"--own-code {MODULE}, or own_code=\['{MODULE}'\]"):
            read(yaml.safe_dump(body, sort_keys=False))
    with pytest.raises(PolicyError):
        from_yaml(yaml.safe_dump(body, sort_keys=False), own_code=["another_package", "an_own"])
    assert not trap.exists()


def test_a_step_alone_is_no_way_around(trap: Path) -> None:
    with pytest.raises(ValueError, match="own-code"):
        DetectorStep.model_validate(f"{MODULE}:Found")
    assert not trap.exists()


@pytest.mark.parametrize("own_code", [[MODULE], "an_own_package"])
def test_a_module_that_was_named_is_used_by_whoever_gets_the_policy(
    own_code: Any, trap: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(with_detector(f"{MODULE}:Found"), sort_keys=False))
    made = Anonymizer(tmp_path / "mine.yaml", own_code=own_code, run_key=b"0123456789abcdef")
    sent = contextvars.Context().run(pickle.loads, pickle.dumps(made))  # as a worker gets it
    assert sent.policy == made.policy
    assert type(sent.policy.content["image"].detect[0].make()).__name__ == "Found"
    assert trap.exists()


@pytest.mark.usefixtures("trap")
def test_what_a_module_imports_for_itself_is_of_another_module(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    body = with_detector(f"{MODULE}:Popen", args=["touch", str(ran)])
    with pytest.raises(PolicyError, match="--own-code subprocess"):
        from_yaml(yaml.safe_dump(body), own_code=[MODULE])
    assert not ran.exists()


def test_a_script_may_build_what_it_names_itself(trap: Path) -> None:
    assert type(build("detector", f"{MODULE}:Found", {})).__name__ == "Found"
    assert trap.exists()


def test_a_manifest_with_the_seal_of_one_s_own_key_may_name_what_was_allowed(trap: Path) -> None:
    """Whoever has no key may have put another policy into it."""
    key = RunKey(b"0123456789abcdef")
    policy = from_yaml(yaml.safe_dump(with_detector(f"{MODULE}:Found"), sort_keys=False), own_code=[MODULE])
    trap.unlink()
    made = Manifest(policy, empty_report(policy), {}, {"image": "image"}, "images").sealed(key)
    assert from_json(made.to_json(), run_key=key).policy == policy
    assert from_json(made.to_json(), own_code=[MODULE]).policy == policy
    edited = {**json.loads(made.to_json()), "created": "2026-01-01"}
    for text, known in ((made.to_json(), RunKey(b"fedcba9876543210")), (json.dumps(edited), key)):
        with pytest.raises(ManifestError, match=f"--own-code {MODULE}"):
            from_json(text, run_key=known)


def test_an_embedder_that_a_gallery_s_file_names_is_not_run(trap: Path) -> None:
    assert embedder_of_file("dlib-face-resnet").name == "dlib-face-resnet"
    with pytest.raises(PolicyError, match="--embedder"):
        embedder_of_file(f"{MODULE}:Found")
    assert not trap.exists()
