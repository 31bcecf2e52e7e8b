"""The HTML of ``anondata preview``: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from anondata.policy_words import in_words

if TYPE_CHECKING:
    from anondata.policy import Policy

MARK = '<meta name="generator" content="anondata preview">'

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2127; --soft: #66707b; --line: #d9dee4; --card: #fff; --ground: #f3f5f7;
  --ok: #1a7f4b; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --soft: #98a2ad; --line: #333a42; --card: #1d2228;
  --ground: #14181c; --ok: #55c38a; --bad: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
.banner { position: sticky; top: 0; z-index: 1; padding: .7rem 1.2rem; background: #b3261e; color: #fff;
  font-weight: 600; }
main { max-width: 1280px; margin: 0 auto; padding: 1.2rem; }
h1 { font-size: 1.3rem; margin: .4rem 0 .2rem; }
p, summary { color: var(--soft); margin: .2rem 0 1rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8rem; color: var(--soft); }
article { background: var(--card); border: 1px solid var(--line); border-radius: 12px; margin: 0 0 1.2rem;
  overflow: hidden; }
header { display: flex; justify-content: space-between; padding: .6rem 1rem; border-bottom: 1px solid var(--line); }
header b { font-variant-numeric: tabular-nums; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1px; background: var(--line); }
@media (max-width: 640px) { .pair { grid-template-columns: 1fr; } }
figure { margin: 0; background: var(--card); display: flex; flex-direction: column; }
figcaption { padding: .35rem 1rem; color: var(--soft); font-size: .8rem;
  letter-spacing: .04em; text-transform: uppercase; }
img { display: block; width: 100%; height: auto; max-height: 78vh; object-fit: contain; background: var(--ground); }
.none { flex: 1; display: grid; place-items: center; min-height: 10rem; padding: 1rem; color: var(--soft);
  background: repeating-linear-gradient(45deg, transparent 0 12px,
    color-mix(in srgb, var(--line) 45%, transparent) 12px 24px); }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .85rem; }
th, td { text-align: left; padding: .4rem 1rem; border-top: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } th.number { text-align: right; }
.ok { color: var(--ok); } .bad { color: var(--bad); }
"""

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{mark}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex, nofollow">
<title>anondata preview: holds originals</title>
<style>{style}</style>
</head>
<body>
<div class="banner" role="alert">This page holds original photos of people. Do not publish, send or commit it.</div>
<main>
<h1>Before and after: policy {name}</h1>
<p>{count} pictures: {released} released, {withheld} withheld. Randomness is drawn anew for a preview.</p>
<details><summary>The policy in words</summary><pre>{words}</pre></details>
"""


@dataclass(frozen=True)
class Face:
    """One region and one verifier's look at it. Distances are None where nothing had to be checked."""

    kind: str
    size_px: float
    found_by: str
    technique: str
    rung: str
    verifier: str
    distance: float | None
    threshold: float | None
    passed: bool | None


@dataclass(frozen=True)
class Pair:
    """A picture before and after, as data URLs; None where there is none. reason: why it was withheld."""

    before: str | None
    after: str | None
    reason: str
    faces: tuple[Face, ...]


def page(policy: Policy, pairs: Sequence[Pair]) -> str:
    """The whole page. Pictures have numbers, not names."""
    withheld = sum(pair.after is None for pair in pairs)
    head = _HEAD.format(
        mark=MARK,
        style=_STYLE,
        name=escape(policy.name),
        count=len(pairs),
        released=len(pairs) - withheld,
        withheld=withheld,
        words=escape("\n".join(in_words(policy))),
    )
    body = "".join(_article(number, pair) for number, pair in enumerate(pairs, 1))
    return f"{head}{body}</main>\n</body>\n</html>\n"


def _article(number: int, pair: Pair) -> str:
    state = (
        '<span class="ok">released</span>'
        if pair.after
        else f'<span class="bad">withheld: {escape(pair.reason)}</span>'
    )
    figures = _figure("before", pair.before, "cannot be shown") + _figure("after", pair.after, "withheld")
    return (
        f"<article><header><b>{number}</b>{state}</header>\n"
        f'<div class="pair">{figures}</div>\n{_table(pair.faces)}</article>\n'
    )


def _figure(caption: str, url: str | None, instead: str) -> str:
    shown = f'<img src="{url}" alt="{caption}">' if url else f'<div class="none">{instead}</div>'
    return f"<figure><figcaption>{caption}</figcaption>{shown}</figure>"


def _table(faces: Sequence[Face]) -> str:
    if not faces:
        return ""
    head = (
        "<tr><th>region</th><th class=number>px</th><th>found by</th><th>technique</th><th class=number>rung</th>"
        "<th>checked by</th><th class=number>distance</th><th class=number>threshold</th><th></th></tr>"
    )
    return f'<div class="scroll"><table>{head}{"".join(_row(face) for face in faces)}</table></div>'


def _row(face: Face) -> str:
    technique, _, parameters = face.technique.partition(" ")
    verdict = {True: '<td class="ok">passed</td>', False: '<td class="bad">failed</td>', None: "<td>not checked</td>"}
    numbers = "".join(
        f'<td class="number">{"&ndash;" if value is None else f"{value:.3f}"}</td>'
        for value in (face.distance, face.threshold)
    )
    return (
        f'<tr><td>{escape(face.kind)}</td><td class="number">{face.size_px:.0f}</td><td>{escape(face.found_by)}</td>'
        f'<td title="{escape(parameters)}">{escape(technique)}</td><td class="number">{escape(face.rung)}</td>'
        f"<td>{escape(face.verifier)}</td>{numbers}{verdict[face.passed]}</tr>"
    )
