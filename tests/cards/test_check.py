"""Checking a card: every figure that somebody changed is found, in the header and in the text."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest

from anondata.cards.check import check_card
from anondata.cards.facts import Bound, Facts, Model
from anondata.cards.readme import card_of
from anondata.errors import CardError

MakeFacts = Callable[..., Facts]


def test_a_card_as_it_was_written_is_right(facts: Facts) -> None:
    assert check_card(card_of(facts), facts) == []


def test_title_summary_and_added_parts_are_the_publishers(make_facts: MakeFacts, facts: Facts) -> None:
    text = card_of(make_facts(title="Another", summary="Words.", licence="mit", sealed=None, tags=("x",)))
    assert check_card(text + "\n## Thanks\n\nTo 7 people.\n", facts) == []


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("  released: 113", "samples.released"),
        ("  undecodable: 11", "withheld.undecodable"),
        ("      found: 151", "regions.face.found"),
        ("    threshold: 0.6102", r"gates\[0\].threshold"),
        ("        above_chance: 5.0", r"policy\.data\.audit\.above_chance"),
    ],
)
def test_a_number_that_was_changed_in_the_header_is_found(line: str, where: str, facts: Facts) -> None:
    text = card_of(facts)
    assert line in text
    changed = re.sub(re.escape(line) + r"$", re.sub(r"\S+$", "99", line), text, count=1, flags=re.MULTILINE)
    found = check_card(changed, facts)
    assert any(re.match(where, one) for one in found), found


def test_another_policy_or_bound_is_found(make_facts: MakeFacts, facts: Facts) -> None:
    text = card_of(facts)
    changed = text.replace(facts.policy.fingerprint, "f" * 32)
    assert any(one.startswith("policy.fingerprint") for one in check_card(changed, facts))
    assert any(one.startswith("bound.above_chance") for one in check_card(text, make_facts(bound=Bound(4.0))))


def test_every_number_of_the_text_is_held_against_the_header(facts: Facts) -> None:
    """Each digit of each table row is changed in turn: none goes unnoticed."""
    text = card_of(facts)
    start = text.index("\n## ")
    rows = [m for m in re.finditer(r"(?m)^\|.*$", text[start:]) if re.search(r"\d", m[0])]
    assert len(rows) > 25
    for row in rows:
        digit = start + row.start() + max(m.start() for m in re.finditer(r"\d", row[0]))
        changed = text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :]
        assert check_card(changed, facts), row[0]


def test_the_status_is_held_against_the_header(facts: Facts) -> None:
    text = card_of(facts)
    for words, instead in (("113 of 131 samples", "131 of 131 samples"), ("Seal: holds", "Seal: not checked")):
        assert check_card(text.replace(words, instead), facts) == [
            "the first lines of the card are not what its figures say"
        ]


def test_a_part_that_was_taken_away_or_is_there_twice_is_found(facts: Facts) -> None:
    text = card_of(facts)
    part = text[text.index("## What is not protected") : text.index("## What was asked for")]
    assert any("0 times" in one for one in check_card(text.replace(part, ""), facts))
    assert any("2 times" in one for one in check_card(text + "\n" + part, facts))


def test_a_limit_that_was_taken_out_is_found(facts: Facts) -> None:
    text = card_of(facts)
    assert check_card(re.sub(r"(?m)^- Number plates.*\n", "", text), facts)


def test_figures_of_another_run_are_found(facts: Facts) -> None:
    counts = deepcopy(dict(facts.report.counts))
    counts["withheld"]["undecodable"] = 12
    other = replace(facts, report=replace(facts.report, counts=counts))
    found = check_card(card_of(facts), other)
    assert any("withheld.undecodable: the card says 11, it is 12" in one for one in found)


def test_an_audit_that_was_dropped_from_the_card_is_found(make_facts: MakeFacts, facts: Facts) -> None:
    assert any(one.startswith("audit") for one in check_card(card_of(make_facts(audit=None)), facts))


def test_a_licence_that_was_changed_is_found_and_an_unknown_model_is_not(make_facts: MakeFacts, facts: Facts) -> None:
    cheaper = replace(facts.models[0], licence="Beerware")
    assert any(
        "licence" in one for one in check_card(card_of(make_facts(models=(cheaper, *facts.models[1:]))), facts)
    )
    own = Model("own:Net", "gate", None, "unknown", None)
    assert check_card(card_of(make_facts(models=(*facts.models, own))), facts) == []
    assert any("not among" in one for one in check_card(card_of(facts), make_facts(models=(*facts.models, own))))


def test_differences_quote_no_text_of_the_card(facts: Facts) -> None:
    text = card_of(facts).replace("name: self_match", "name: jane_doe")
    found = check_card(text, facts)
    assert found
    assert not any("jane" in one for one in found)


def test_a_header_of_the_wrong_kind_is_an_error_and_no_crash(facts: Facts) -> None:
    text = card_of(facts)
    damaged = re.sub(r"(?m)^  samples:\n(    .*\n)+", "  samples: 3\n", text)
    with pytest.raises(CardError, match="lack"):
        check_card(damaged, facts)
