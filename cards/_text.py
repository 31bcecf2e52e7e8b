"""The text of a card, part by part: all but what the publisher says is written from the figures alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from anondata.cards._escape import Markdown, code, escaped, fenced, finalized, paragraphs
from anondata.cards.facts import Facts
from anondata.errors import CardError, MissingExtraError
from anondata.policy import audit_allows

if TYPE_CHECKING:
    from jinja2 import Environment

Json = Mapping[str, Any]

SECTIONS = ("contents", "audit", "limits", "policy", "done", "withheld", "gates", "models", "versions", "check")
"""Parts of the text, in their order; each is a template that is written from the figures alone."""


def text_of(facts: Facts, block: Json) -> str:
    """The whole text below the header."""
    parts = [_head(facts, block), *(section(name, block) for name in SECTIONS), *_plots(facts.plots)]
    return _tidy("\n\n".join(parts))


def section(name: str, block: Json) -> str:
    """One of :data:`SECTIONS`, or ``status``, written from a card's figures.

    Raises: CardError where they lack something.
    """
    environment = _environment()
    from jinja2 import TemplateError

    try:
        return _tidy(environment.get_template(f"{name}.md.j2").render(**_given(block)))
    except (TemplateError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CardError(f"the card's figures lack something that its part {name!r} tells") from error


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("cards need jinja2: pip install 'anondata[cards]'") from error
    return Environment(
        loader=PackageLoader("anondata.cards"),
        undefined=StrictUndefined,
        finalize=finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # it is markdown: `finalize` escapes
    )


def _given(block: Json) -> dict[str, Any]:
    """What the templates may use."""
    audit, verdicts = block["audit"], block["verdicts"]
    attacks = [] if audit is None else [*audit["attacks"], *audit["controls"]]
    return {
        "block": block,
        "attacks": attacks,
        "exceeded": exceeded(block),
        "lacking": lacking(block),
        "policy_yaml": lambda: fenced(yaml.safe_dump(block["policy"]["data"], sort_keys=False, width=110), "yaml"),
        "checked": lambda name: sum(verdicts.get(name, {"score": {}})["score"].values()),
        "code": code,
        "number": lambda value: f"{value:g}",
        "percent": lambda share: f"{100 * share:g}",
        "plain": lambda word: word.replace("_", " "),
        "who": _who,
        "rung": lambda kind, name: _rung(block["policy"]["data"], kind, name),
        "share": lambda one: Markdown(f"{one['percent']:g} [{one['low']:g}-{one['high']:g}]"),
    }


def _rung(policy: Json, kind: str, name: str) -> str:
    if not name.isdigit():
        return f"of the ladder for {name} ones"
    ladder = next(
        one["regions"][kind]["ladder"] for one in policy["content"].values() if kind in one.get("regions", ())
    )
    return "after the last one: filled wholly" if int(name) >= len(ladder) else str(int(name) + 1)


def _who(one: Json) -> str:
    told = str(one["attacker"]) + (", enrolled gallery" if one["gallery"] == "enrolled" else "")
    return told + (f", {one['releases']} releases" if one["releases"] > 1 else "")


def exceeded(block: Json) -> bool:
    """Whether an attack of a card's audit names more than its policy allows."""
    if block["bound"] is None or block["audit"] is None:
        return False
    bound = block["bound"]
    return not all(audit_allows(bound["above_chance"], bound["attackers"], one) for one in block["audit"]["attacks"])


def lacking(block: Json) -> list[str]:
    """Attackers whom a card's policy demands and who have not tried."""
    if block["bound"] is None or block["audit"] is None:
        return []
    tried = {one["attacker"] for one in block["audit"]["attacks"]}
    return [name for name in block["bound"]["attackers"] if name not in tried]


def _head(facts: Facts, block: Json) -> str:
    """Title, status, and what the publisher says of the data."""
    told = [f"# {escaped(facts.title)}", section("status", block)]
    if facts.summary:
        told.append(paragraphs(facts.summary))
    if facts.homepage:
        told.append(f"Homepage: <{facts.homepage}>")
    if facts.source_datasets:
        told.append(f"Made from: {escaped(', '.join(facts.source_datasets))}")
    return "\n\n".join(told)


def _plots(paths: Sequence[str]) -> list[str]:
    """Pictures, each once: of two kinds of one file the PNG, which every reader shows."""
    shown = {PurePosixPath(path).stem: path for path in sorted(paths, key=lambda path: path.endswith(".png"))}
    words = {stem: escaped(stem.replace("_", " ").replace("-", " ")) for stem in shown}
    return (
        [
            "## Plots",
            *(f"![{words[stem]}]({shown[stem]})" for stem in dict.fromkeys(PurePosixPath(p).stem for p in paths)),
        ]
        if shown
        else []
    )


def _tidy(text: str) -> str:
    """No more than one empty line in a row, and none at the end."""
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"
