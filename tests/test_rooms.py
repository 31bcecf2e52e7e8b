"""Which room may import which, and that no import goes round in a circle, through the mapped folders too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "anondata"
ABOVE = {
    "core": 0,
    "verifiers": 1,
    "loaders": 1,
    "cards": 1,
    "publishing": 2,
    "auditing": 3,
    "requests": 4,
    "tools": 5,
}


@cache
def modules() -> dict[str, ast.Module]:
    """By dotted name, with what lies behind the links to the mapped folders."""
    found = {}
    for folder in (ROOT, *(path for path in ROOT.iterdir() if path.is_symlink())):
        for path in folder.rglob("*.py"):
            name = ".".join(("anondata", *path.relative_to(ROOT).with_suffix("").parts))
            found[name.removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


def imports(tree: ast.Module, *, typed: bool) -> Iterator[str]:
    """Modules of ours that one imports, wherever in it. typed: also those for type checkers alone."""
    guarded = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    left_out = set() if typed else {id(inner) for guard in guarded for inner in ast.walk(guard)}
    for node in ast.walk(tree):
        if id(node) in left_out or not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        below = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in node.names:
            parts = ".".join((*below, name.name)).split(".")
            whole = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
            yield from [known for known in whole if known in modules()][:1]


def room(module: str) -> str:
    part = module.split(".")[1] if "." in module else "core"
    return part if part in ABOVE else "core"


def test_no_room_imports_one_above_it_or_beside_it() -> None:
    """A request is audited and published, and an audit seals what publishing checks. `anondata` itself names what is
    public in any room, and loads it on first use."""
    wrong = [
        f"{module} imports {other}"
        for module, tree in modules().items()
        if module != "anondata"
        for other in set(imports(tree, typed=True)) - {"anondata"}
        if room(module) != room(other)
        and (ABOVE[room(other)] > ABOVE[room(module)] or ABOVE[room(other)] == ABOVE[room(module)] == 1)
    ]
    assert not wrong


def test_no_import_goes_round_in_a_circle() -> None:
    graph = {module: set(imports(tree, typed=False)) - {module, "anondata"} for module, tree in modules().items()}
    while leaves := [module for module, others in graph.items() if not others & graph.keys()]:
        for module in leaves:
            del graph[module]
    assert not graph


def test_only_the_command_line_knows_click() -> None:
    texts = {module: ast.unparse(tree) for module, tree in modules().items() if room(module) != "tools"}
    assert [module for module, text in texts.items() if "import click" in text] == []
