"""What ``import anondata`` costs and loads."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "faiss",
    "datasets",
    "webdataset",
    "ray",
    "onnxruntime",
    "insightface",
    "matplotlib",
    "kornia",
    "torchvision",
)


def fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_anondata_loads_no_optional_or_slow_package() -> None:
    assert fresh(f"import anondata, sys; print([m for m in {HEAVY!r} if m in sys.modules])") == "[]"


def test_building_an_anonymizer_loads_no_dataset_library() -> None:
    loaded = (
        "import anondata, sys; anondata.Anonymizer(); print([m for m in sys.modules if m in {'faiss', 'datasets', "
    )
    assert fresh(loaded + "'webdataset', 'ray', 'insightface', 'matplotlib'}])") == "[]"


def test_nothing_is_a_top_level_package_but_anondata() -> None:
    code = "import anondata.loaders, anondata.verifiers, anondata.cards, anondata.tools, sys; "
    assert fresh(code + "print([m for m in ('loaders', 'verifiers', 'cards', 'tools') if m in sys.modules])") == "[]"


def test_the_public_surface_is_what_is_written_here() -> None:
    names = "AnondataError Anonymizer Engine Outcome Policy Regions Released Report RunKey Sample Schema Withheld"
    names += " load_policy"
    assert fresh("import anondata; print(*anondata.__all__)") == names
    assert fresh("import anondata; print(all(getattr(anondata, n) for n in anondata.__all__))") == "True"


def test_siblings_do_not_import_each_other_and_the_core_imports_none_of_them() -> None:
    from pathlib import Path

    root = Path(__file__).resolve().parents[1]
    may = {"anondata": set(), "verifiers": {"verifiers"}, "loaders": {"loaders"}, "cards": {"cards"}}
    for room, allowed in may.items():
        for path in (root / room).rglob("*.py"):
            inner = path.relative_to(root / room).parts[0]
            if room == "anondata" and inner in ("verifiers", "loaders", "cards", "tools"):
                continue
            for line in path.read_text().splitlines():
                words = line.strip().removeprefix("from ").removeprefix("import ").split(" ")[0].split(".")
                if line.strip().startswith(("from anondata.", "import anondata.")) and len(words) > 1:
                    assert words[1] not in {"verifiers", "loaders", "cards", "tools"} - allowed, (path, line)
