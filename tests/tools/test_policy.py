"""``anondata policy``: policies as their users see them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from anondata.policy import from_yaml, load_policy, presets


def test_the_list_has_every_preset_with_its_kinds(anondata):
    shown = anondata("policy", "list")
    assert shown.code == 0
    assert [line.split()[0] for line in shown.out.splitlines()] == list(presets())
    assert all("face" in line for line in shown.out.splitlines() if line.startswith("faces"))


def test_the_list_is_json_too(anondata):
    found = anondata("policy", "list", "--json").json["policies"]
    assert {one["name"]: one["fingerprint"] for one in found} == {n: load_policy(n).fingerprint for n in presets()}


@pytest.mark.parametrize("name", presets())
def test_what_is_shown_is_the_policy(anondata, name):
    assert from_yaml(anondata("policy", "show", name).out) == load_policy(name)


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_explained(anondata, name):
    shown = anondata("policy", "explain", name)
    assert shown.code == 0
    assert "What is done:" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 100


def test_the_explanation_says_what_stays(anondata):
    stays = anondata("policy", "explain", "faces", "--json").json["stays"]
    assert "Number plates are as they were." in stays
    assert not any(line.startswith("Faces") for line in stays)


def test_the_explanation_says_what_each_rung_leaves_at_most(anondata, tmp_path):
    mine = yaml.safe_load(load_policy("faces").to_yaml())
    face = mine["content"]["image"]["regions"]["face"]
    face["ladder"] = [
        {"gaussian_blur": {}},
        {"pixelate": {"blocks": 8, "noise": 0.13, "contrast": 0.2, "coverage": 1.5}},
        {"pixelate": {"blocks": 1, "noise": 1.0, "contrast": 0.05}},
        {"pixelate": {"blocks": 8, "noise": 0.13, "contrast": 0.0}},
    ]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine, sort_keys=False))
    told = anondata("policy", "explain", tmp_path / "mine.yaml", "--json").json
    blur, strong, weak, none, tiny = told["bounds"]
    assert [row["rung"] for row in told["bounds"]] == [1, 2, 3, 4, 1]
    assert (blur["technique"], blur["bits"], blur["rank1_percent"]) == ("gaussian_blur", None, None)
    assert not blur["safe"]
    # 13 x 13 blocks of 3 colors, each at most .1 from grey
    bits = {str(n): 507 / 2 * math.log2(1 + n * (0.1 / 0.13) ** 2) for n in (1, 50)}
    assert strong["bits"] == pytest.approx(bits, abs=1e-3)
    assert (strong["rank1_percent"], strong["safe"]) == ({"1": 100, "50": 100}, False)
    # mu is .025 sqrt(3) for one and sqrt(50) of it for 50: Phi(-2.3263 + mu)
    assert (weak["rank1_percent"], weak["safe"]) == ({"1": 1.12, "50": 2.17}, True)
    assert none["bits"] == tiny["bits"] == {"1": 0, "50": 0}
    assert (none["rank1_percent"], tiny["ladder"], tiny["safe"]) == ({"1": 1, "50": 1}, "tiny", True)
    words = " ".join(told["done"])
    assert (
        "Step 1, gaussian_blur: there is no bound of what it leaves of a face: only measured attackers speak" in words
    )
    assert "Step 2, pixelate, leaves at most 170 bits of a face in one release and 1251 in 50" in words
    assert "names at most 1.12 % and 2.17 % right of 100 candidates: safe by calculation." in words
    assert "Step 4, pixelate, leaves nothing of a face where it covers it: 0 bits" in words
    assert "For tiny ones step 1, random_colors, leaves nothing of a face" in words
    assert "not of what is around it" in words


def test_the_explanation_says_how_many_groups_are_told_apart(anondata, tmp_path):
    mine = tmp_path / "mine.yaml"
    text = load_policy("faces-synthetic").to_yaml()
    mine.write_text(text.replace("keep: []", "keep: [smile, skin]"))
    kept = anondata("policy", "explain", mine, "--json").json
    assert kept["bounds"][0]["rank1_percent"] == {"1": 6, "50": 100}
    assert not kept["bounds"][0]["safe"]
    told = " ".join(kept["done"])
    assert "keep smile + skin" in told
    assert (
        "leaves at most 2.58 bits of a face (it falls into one of 6 groups, without noise) in one release and "
        "2.58 in 50 of one picture. From one and from 50 releases, of whatever pictures, an ideal attacker names at "
        "most 6 % and 100 % right of 100 candidates: not safe by calculation"
    ) in told
    usual = anondata("policy", "explain", "faces-synthetic", "--json").json
    assert usual["bounds"][0]["safe"]
    assert "keep nothing" in " ".join(usual["done"])


def test_a_good_policy_is_called_so(anondata):
    shown = anondata("policy", "check", "faces")
    assert (shown.code, shown.out) == (0, f"faces: good, {load_policy('faces').fingerprint}\n")


def test_galleries_that_are_needed_are_named(anondata):
    shown = anondata("policy", "check", "faces-protected")
    assert shown.code == 0
    assert "--gallery protected=FILE" in shown.err


def written(to: Path, old: str, new: str) -> Path:
    text = load_policy("faces").to_yaml()
    assert old in text
    to.write_text(text.replace(old, new, 1))
    return to


def test_an_unknown_technique_suggests_the_nearest(anondata, tmp_path):
    shown = anondata("policy", "check", written(tmp_path / "mine.yaml", "random_colors", "random_color"))
    assert shown.code == 2
    assert "did you mean 'random_colors'?" in shown.err


def test_weights_that_are_not_here_are_told(anondata, tmp_path, monkeypatch):
    monkeypatch.delenv("ANONDATA_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shown = anondata("policy", "check", "people")
    assert shown.code == 2
    assert "needs weights that are not on this machine: persons-ssdlite (" in shown.err
    assert "anondata weights pull --policy people" in shown.err


def test_kinds_in_layers_and_utility_are_explained(anondata, tmp_path):
    mine = yaml.safe_load(load_policy("faces").to_yaml())
    regions = mine["content"]["image"]["regions"]
    mine["content"]["image"]["regions"] = {
        "text": regions["face"],
        "face": {**regions["face"], "utility": ["self_match"]},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine, sort_keys=False))
    told = json.dumps(anondata("policy", "explain", tmp_path / "mine.yaml", "--json").json["done"])
    assert "lies on top: text, face" in told
    assert "must stay of use" in told


def test_explain_tells_what_the_categories_of_given_regions_mean(anondata, tmp_path):
    text = load_policy("faces").to_yaml().replace("given: {}", "given: {'3': ignore, driver: face}")
    (tmp_path / "mine.yaml").write_text(text)
    done = anondata("policy", "explain", tmp_path / "mine.yaml", "--json").json["done"]
    assert any("with samples count, too. Their categories mean: 3: ignore; driver: face." in line for line in done)


def test_check_says_what_nobody_looks_for_and_what_cannot_be_published(anondata, tmp_path):
    policy = yaml.safe_load(load_policy("faces").to_yaml())
    face = policy["content"]["image"]["regions"]["face"]
    policy["content"]["image"]["regions"] = {"face": face, "car": face}
    policy["audit"] = None
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))
    shown = anondata("policy", "check", tmp_path / "mine.yaml")
    assert shown.code == 0
    assert "no detector looks for 'car'" in shown.err
    assert "no audit: bound" in shown.err
    assert anondata("policy", "check", "faces").err == ""


def test_check_says_which_gates_and_techniques_are_made_for_something_else(anondata, tmp_path):
    policy = yaml.safe_load(load_policy("faces").to_yaml())
    face = policy["content"]["image"]["regions"]["face"]
    face["utility"] = [{"still_text": {}}]
    face["ladder"] = [{"text_swap": {}}, *face["ladder"]]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))
    told = anondata("policy", "check", tmp_path / "mine.yaml").err
    assert "text_swap is made for text and plate, and is used on 'face'" in told
    assert "still_text is made for text and plate, and is used on 'face'" in told


@pytest.mark.parametrize("name", presets())
def test_presets_suit_their_kinds(anondata, name):
    assert "is made for" not in anondata("policy", "check", name).err


@pytest.mark.parametrize(
    "cover", ["head", {"gallery": {"gallery": "protected", "far": 0.05, "area": "head"}}], ids=str
)
def test_the_explanation_says_that_hair_and_shoulders_are_covered(anondata, tmp_path, cover):
    mine = yaml.safe_load(load_policy("faces").to_yaml())
    mine["content"]["image"]["regions"]["face"]["cover"] = cover
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine, sort_keys=False))
    told = " ".join(anondata("policy", "explain", tmp_path / "mine.yaml", "--json").json["done"]).lower()
    assert "hair, neck and shoulders" in told
