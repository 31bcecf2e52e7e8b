"""What a policy needs before its first sample: all of it is told at once, and one command gets it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anondata import Anonymizer
from anondata.errors import WeightsError
from anondata.models import registry
from anondata.policy import from_yaml, load_policy
from anondata.preparing import check_weights, people_of, weights_of

MINE = """
name: mine
content:
  image:
    detect: [yunet]
    regions:
      face:
        ladder:
          - chain: {steps: [style_transfer, noise]}
          - synthetic_face: {members: 5, people: generated}
          - ksame: {k: 2, members: 3, people: generated}
        verify: [all_of: {gates: [self_match: {embedder: mobilefacenet-ms1m}, text_unread]}]
"""


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine to which nothing was fetched."""
    monkeypatch.delenv(registry.OVERRIDE_VARIABLE, raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda _: str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("bare")
def test_all_that_is_missing_is_told_at_once_with_the_command() -> None:
    with pytest.raises(WeightsError) as raised:
        check_weights(load_policy("documents"))
    for words in ("ppocr-det (", "ppocr-rec (", "Run `anondata weights pull --policy documents`"):
        assert words in str(raised.value)


@pytest.mark.usefixtures("bare")
def test_so_it_is_of_policies_of_ones_own_and_of_what_has_no_address() -> None:
    with pytest.raises(WeightsError) as raised:
        check_weights(from_yaml(MINE))
    said = str(raised.value)
    assert "`anondata weights pull ppocr-rec mobile-stylegan-mapping mobile-stylegan-synthesis style-26`" in said
    assert "No public address is known for MobileFaceNet" in said


def test_networks_of_gates_of_gates_and_of_chains_count() -> None:
    assert {item.name for item in weights_of(from_yaml(MINE))} == {
        *("yunet", "style-26", "mobile-stylegan-mapping", "mobile-stylegan-synthesis", "mobilefacenet-ms1m"),
        *("centerface", "ppocr-rec"),
    }


def test_an_anonymizer_says_so_before_its_first_sample(bare: Path) -> None:
    with pytest.raises(WeightsError, match=r"needs weights.*ppocr-det.*ppocr-rec"):
        Anonymizer("documents").anonymize([np.zeros((8, 8, 3), np.uint8)])
    Anonymizer("faces").prepare()
    assert not list(bare.iterdir())


def test_the_most_people_that_a_technique_draws_from_are_made() -> None:
    assert people_of(from_yaml(MINE)) == 5
    assert people_of(load_policy("faces")) == people_of(load_policy("faces-synthetic")) == 0
