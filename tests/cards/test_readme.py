"""The card as README.md: what it says, what it holds for programs, and what no text of others can do to it."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from anondata.cards._escape import code, escaped, fenced
from anondata.cards.check import check_card
from anondata.cards.facts import Bound, Facts, Feature, Gate
from anondata.cards.readme import card_of, from_card
from anondata.errors import CardError, MissingExtraError
from anondata.policy import from_yaml
from anondata.report import Report

MakeFacts = Callable[..., Facts]

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
# What people write into a title, and what somebody might to break a card; control characters are refused before.
NASTY = st.one_of(
    st.sampled_from(
        [
            "---\nlicense: mit\n---",
            "# head | <script>alert(1)</script>",
            "a | b | c\n|---|---|",
            "```\n</details>\n```",
            "[x](javascript:1) ![y](z)",
            "title: {a: &b *b}",
            "- item\n\n    code",
            "'\"\\ \u00e9\U0001f600 ::: @user $x$ ~~s~~ **b**",
            "1. one",
            "=== \n ===",
            "&lt;b&gt; <!-- c -->",
            "{{ 7*7 }}{% raw %}",
        ]
    ),
    st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp", "Cf", "Cn", "Co")), min_size=1, max_size=60),
).filter(lambda text: bool(text.strip()))


def body(text: str) -> str:
    return text.split("\n---\n", 1)[1]


def tables(text: str) -> Iterator[list[str]]:
    """Every row of every table of a card, as text without markup."""
    row: list[str] = []
    for token in MARKDOWN.parse(body(text)):
        if token.type == "tr_open":
            row = []
        elif token.type == "inline":
            row.append("".join(c.content for c in token.children or [] if c.type in ("text", "code_inline")))
        elif token.type == "tr_close":
            yield row
            row = []


def shape(text: str) -> list[tuple[str, str]]:
    """The kinds of blocks of a card's body, without its words, and every tag and link in it."""
    found = []
    for token in MARKDOWN.parse(body(text)):
        if token.type != "inline":
            found.append((token.type, token.tag))
        for child in token.children or []:
            if child.type in ("html_inline", "link_open", "image"):
                found.append((child.type, str(child.attrs.get("href", child.content))))
    return found


def test_the_figures_come_back_exactly_as_they_were_put_in(facts: Facts) -> None:
    block = from_card(card_of(facts))
    assert block["samples"] == {"seen": 131, "released": 113, "withheld": 18, "replaced": 5, "dropped": 13}
    assert block["regions"]["face"]["technique"] == {'pixelate {"blocks": 8}': 101, "fill": 50}
    assert block["policy"]["fingerprint"] == facts.policy.fingerprint
    assert from_yaml(yaml.safe_dump(block["policy"]["data"])).fingerprint == facts.policy.fingerprint
    assert facts.audit is not None
    for told, one in zip(block["audit"]["attacks"], facts.audit["attacks"], strict=True):
        assert (told["attacker"], told["rank1"], told["tar_at_far"]) == (
            one["attacker"],
            one["rank1"],
            one["tar_at_far"],
        )


def test_the_hub_reads_licence_sizes_sources_and_where_the_data_is(facts: Facts) -> None:
    data = DatasetCard(card_of(facts), ignore_metadata_errors=False).data.to_dict()
    assert data["license"] == "cc-by-4.0"
    assert data["size_categories"] == ["n<1K"]
    assert data["source_datasets"] == ["private", "someone/streets"]
    [config] = data["configs"]
    assert {"split": "train", "path": "data/train-*.parquet"} in config["data_files"]
    assert data["dataset_info"]["splits"][0] == {"name": "train", "num_bytes": 90_001, "num_examples": 103}
    assert data["dataset_info"]["features"][0] == {"name": "image", "dtype": "image"}


def test_every_number_of_the_report_stands_in_a_table(facts: Facts) -> None:
    rows = list(tables(card_of(facts)))
    shown = {(row[0], row[-1]) for row in rows}
    face = facts.report.counts["regions"]["face"]
    for name in ("technique", "size_px"):
        assert {(key, str(n)) for key, n in face[name].items()} <= shown
    assert {(key, str(n)) for key, n in facts.report.counts["regions_per_sample"].items()} <= shown
    assert {("undecodable", "11"), ("still detected", "7"), ("first frame only", "19")} <= shown
    assert {("found", "151"), ("1", "101"), ("after the last one: filled wholly", "1")} <= shown
    assert {
        ("self_match(dlib-face-resnet, far=0.01)", "17"),
        ("self_match(dlib-face-resnet, far=0.01)", "114"),
    } <= shown


def with_given(facts: Facts, count: int) -> Facts:
    regions = {"face": {**facts.report.counts["regions"]["face"], "given": count}}
    return replace(facts, report=replace(facts.report, counts={**facts.report.counts, "regions": regions}))


def test_regions_that_the_publisher_marked_are_told_apart_from_those_that_were_found(facts: Facts) -> None:
    marked = with_given(facts, 53)
    text = card_of(marked)
    assert ("of these marked by the publisher, by boxes or masks", "53") in {(r[0], r[-1]) for r in tables(text)}
    assert "53 of 151 regions of the kind face were marked by the publisher" in " ".join(text.split())
    assert "that no detector found, and that the publisher did not mark, is as it was" in " ".join(text.split())
    assert from_card(text)["regions"]["face"]["given"] == 53
    assert check_card(text, marked) == []
    assert any("regions.face.given" in one for one in check_card(text, with_given(facts, 54)))


def test_a_card_of_a_run_without_such_regions_is_as_it_was_before_there_were_any(facts: Facts) -> None:
    assert card_of(with_given(facts, 0)) == card_of(facts)
    assert "marked by the publisher" not in card_of(facts)


def test_every_figure_of_the_audit_stands_in_a_table(facts: Facts) -> None:
    rows = list(tables(card_of(facts)))
    assert facts.audit is not None

    def share(one: dict[str, float]) -> str:
        return f"{one['percent']:g} [{one['low']:g}-{one['high']:g}]"

    for one in (*facts.audit["attacks"], *facts.audit["controls"]):
        first, fifth = one["rank1"], one["rank5"]
        told = [
            share(first),
            f"{first['chance_percent']}",
            share(fifth),
            f"{fifth['chance_percent']}",
            share(one["eer"]),
        ]
        counts = [str(one["people"]), str(one["probes"])]
        several = f", {one['releases']} releases" if one["releases"] > 1 else ""
        who = [one["attacker"] + several, one["network"] or "\u2013"]
        assert [*who, *told, *counts] in rows
        for at in one["tar_at_far"]:
            if at["tar"]:
                assert [*who, f"{100 * at['far']:g}", share(at["tar"])] in rows


def test_gates_tell_their_thresholds_and_where_these_come_from(facts: Facts) -> None:
    [row] = [row for row in tables(card_of(facts)) if row[0].startswith("self_match") and len(row) == 6]
    assert row[1:4] == ["face", "0.01", "0.6102"]
    assert row[4].startswith("Face Research Lab London Set")
    assert "51 people, 5100 pairs" in row[4]


def test_without_an_audit_the_first_lines_say_that_nobody_attacked_it(make_facts: MakeFacts) -> None:
    text = card_of(make_facts(audit=None))
    assert "**Nobody has attacked this dataset.**" in "\n".join(body(text).strip().split("\n")[:4])
    assert from_card(text)["audit"] is None


def test_an_audit_beyond_the_bound_or_without_an_attacker_is_told_first(make_facts: MakeFacts) -> None:
    first = body(card_of(make_facts(bound=Bound(0.5, ("naive", "other")))))[:900]
    assert "more than the policy's bound allows" in first
    assert "who have not tried: other" in first


def test_what_is_not_protected_follows_from_what_the_policy_covers(facts: Facts) -> None:
    said = body(card_of(facts))
    for words in ("Bodies, how people stand", "Number plates are", "Text in pictures", "below about 10 px"):
        assert words in said
    assert "Faces are as they were" not in said
    kinds = facts.policy.model_dump(mode="json")
    kinds["content"]["image"]["regions"]["plate"] = kinds["content"]["image"]["regions"]["face"]
    policy = type(facts.policy).model_validate(kinds)
    more = replace(facts, policy=policy, report=replace(facts.report, fingerprint=policy.fingerprint))
    assert "Number plates are" not in body(card_of(more))


def test_models_tell_what_their_licence_forbids(make_facts: MakeFacts, facts: Facts) -> None:
    research = replace(facts.models[0], name="insightface-x", commercial_use=False, forbids="selling", sha256=None)
    unknown = replace(facts.models[0], name="own:Net", commercial_use=None, licence="unknown: ask its maker")
    rows = [row for row in tables(card_of(make_facts(models=(research, unknown)))) if len(row) == 6]
    assert any(row[3:] == ["forbidden", "selling", "not recorded"] for row in rows)
    assert any(row[2:4] == ["unknown: ask its maker"] * 2 for row in rows)


def test_whoever_a_licence_wants_to_be_named_is_named(make_facts: MakeFacts, facts: Facts) -> None:
    mixed = replace(facts.models[0], name="mixed-people", licence="CC-BY-4.0", credit="Somebody (2017), doi 10.1/2")
    assert "mixed-people: Somebody (2017), doi 10.1/2" in body(card_of(make_facts(models=(mixed,)))).replace("`", "")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=NASTY, summary=NASTY, column=NASTY)
def test_no_text_of_others_changes_the_card_around_it(
    title: str, summary: str, column: str, make_facts: MakeFacts
) -> None:
    title, column = " ".join(title.split()), " ".join(column.split())
    plain = make_facts(title="T", summary="S", features=(Feature("C", "image"),))
    text = card_of(replace(plain, title=title, summary=summary, features=(Feature(column, "image"),)))
    written, expected = shape(text), shape(card_of(plain))
    extra = len(written) - len(expected)
    assert extra % 2 == 0  # paragraphs of the summary, and nothing else
    at = next((i for i, (a, b) in enumerate(zip(written, expected, strict=False)) if a != b), len(expected))
    assert written[:at] + written[at + extra :] == expected
    assert {kind for kind, _ in written[at : at + extra]} <= {"paragraph_open", "paragraph_close"} or extra == 0
    data = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert (data["pretty_name"], data["dataset_info"]["features"][0]["name"]) == (title, column)
    assert DatasetCard(text).data.to_dict()["license"] == "cc-by-4.0"


@settings(deadline=None)
@given(NASTY)
def test_an_escaped_text_renders_as_it_was_written(text: str) -> None:
    tokens = MARKDOWN.parse(escaped(text))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    rendered = "".join(child.content for child in tokens[1].children or [])
    assert {child.type for child in tokens[1].children or []} <= {"text", "text_special"}
    assert rendered == " ".join(text.split())


@settings(deadline=None)
@given(NASTY)
def test_code_in_a_cell_and_in_a_block_shows_what_it_is_given(text: str) -> None:
    cells = [t for t in MARKDOWN.parse(f"| a | b |\n|---|---|\n| {code(text)} | c |") if t.type == "inline"]
    assert len(cells) == 4
    assert cells[2].children is not None
    assert [child.type for child in cells[2].children] == ["code_inline"]
    [block] = MARKDOWN.parse(fenced(text, "yaml"))
    assert block.type == "fence"
    assert block.content.rstrip() == text.rstrip()


@pytest.mark.parametrize(
    ("instead", "said"),
    [
        ({"title": "  "}, "title"),
        ({"title": "a\nb"}, "title"),
        ({"title": "a\x00b"}, "title"),
        ({"title": "a\ud800b"}, "title"),
        ({"licence": ""}, "licence"),
        ({"licence": "my own: terms"}, "licence"),
        ({"homepage": "javascript:alert(1)"}, "homepage"),
        ({"homepage": "https://a.b/>c"}, "homepage"),
        ({"homepage": "https://user:secret@a.b/"}, "homepage"),
        ({"created": "yesterday"}, "created"),
        ({"digest": "abc"}, "digest"),
        ({"splits": ()}, "splits"),
        ({"gates": ()}, "gates"),
        ({"models": ()}, "models"),
        ({"versions": {}}, "versions"),
        ({"tags": ("two words",)}, "tags"),
        ({"plots": ("/tmp/x.png",)}, "plots"),
    ],
)
def test_what_is_missing_or_cannot_be_shown_is_named(
    instead: dict[str, Any], said: str, make_facts: MakeFacts
) -> None:
    with pytest.raises(CardError, match=said):
        make_facts(**instead)


@pytest.mark.parametrize("key", ["rank1", "eer", "people", "network"])
def test_an_audit_that_lacks_a_figure_makes_no_card(key: str, facts: Facts) -> None:
    body = deepcopy(dict(facts.audit or {}))
    del body["attacks"][1][key]
    with pytest.raises(CardError, match=key):
        replace(facts, audit=body)


def test_a_report_without_counts_or_of_another_policy_makes_no_card(facts: Facts) -> None:
    with pytest.raises(CardError, match="samples seen"):
        replace(facts, report=Report(facts.report.policy, facts.report.fingerprint, {}))
    with pytest.raises(CardError, match="another policy"):
        replace(facts, report=replace(facts.report, fingerprint="0" * 32))


def test_a_gate_without_a_threshold_must_say_why() -> None:
    with pytest.raises(CardError, match="threshold"):
        Gate("g", "face", "verify")
    with pytest.raises(CardError, match="calibrated"):
        Gate("g", "face", "verify", threshold=0.5)


@pytest.mark.parametrize("place", ["/home/jane/x.onnx", "insightface:./packs/own", "insightface:/x", "~/net.onnx"])
def test_a_policy_that_names_a_path_of_a_machine_makes_no_card(place: str, facts: Facts) -> None:
    data = facts.policy.model_dump(mode="json")
    data["about"] = place  # the text is looked at, wherever it stands
    policy = type(facts.policy).model_validate(data)
    with pytest.raises(CardError, match="path of a machine") as caught:
        replace(facts, policy=policy)
    assert "jane" not in str(caught.value)


def test_the_policy_as_yaml_cannot_close_its_block(facts: Facts) -> None:
    data = {**facts.policy.model_dump(mode="json"), "about": "```\n# Not ours\n````\n<b>"}
    text = card_of(replace(facts, policy=type(facts.policy).model_validate(data)))
    assert "Not ours" not in "".join(h for h in re.findall(r"(?m)^#.*$", body(text)))
    fences = [t for t in MARKDOWN.parse(body(text)) if t.type == "fence"]
    assert any("# Not ours" in fence.content for fence in fences)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# no header",
        "---\nlicense: mit\n---\nno block",
        "---\n[1, 2]\n---\n",
        "---\n{a: [\n---\n",
        "---\nanonymization: {format: anondata.card/99}\n---\n",
        "---\na: &a [1]\nanonymization: *a\n---\n",
        "---\na: 2026-99-99\n---\n",
    ],
)
def test_what_is_no_card_of_ours_is_refused(text: str) -> None:
    with pytest.raises(CardError):
        from_card(text)


def test_a_card_with_line_ends_of_windows_is_read(facts: Facts) -> None:
    text = card_of(facts)
    assert from_card(text.replace("\n", "\r\n")) == from_card(text)


def test_plots_are_shown_once_each(make_facts: MakeFacts) -> None:
    text = card_of(make_facts(plots=("plots/cmc.svg", "plots/cmc.png", "plots/rungs.svg")))
    assert re.findall(r"!\[(.*?)\]\((.*?)\)", text) == [("cmc", "plots/cmc.png"), ("rungs", "plots/rungs.svg")]


@pytest.mark.parametrize("package", ["jinja2", "huggingface_hub"])
def test_without_its_packages_the_extra_is_named(package: str, facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    from anondata.cards import _text

    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    _text._environment.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install 'anondata\[cards\]'"):
        card_of(facts)


def test_importing_the_cards_loads_nothing_heavy() -> None:
    code = (
        "import sys; import anondata.cards.readme, anondata.cards.check, anondata.cards.croissant, "
        "anondata.cards.report_plots\n"
        "heavy = {'jinja2', 'huggingface_hub', 'mlcroissant', 'matplotlib', 'faiss', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
