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


def test_importing_techniques_loads_none_of_them_and_no_torch() -> None:
    code = "import anondata.transforms as t, sys; 'Pixelate' in dir(t); "
    code += "print([m for m in sys.modules if m in ('torch', 'kornia') or m.startswith('anondata.transforms.')])"
    assert fresh(code) == "[]"


def test_one_technique_loads_no_network_and_no_optional_package() -> None:
    code = "from anondata.transforms import Pixelate; import sys; "
    code += f"print([m for m in {HEAVY!r} + ('anondata.transforms.face_pool',) if m in sys.modules])"
    assert fresh(code) == "[]"


def test_building_an_anonymizer_loads_no_dataset_library() -> None:
    loaded = (
        "import anondata, sys; anondata.Anonymizer(); print([m for m in sys.modules if m in {'faiss', 'datasets', "
    )
    assert fresh(loaded + "'webdataset', 'ray', 'insightface', 'matplotlib'}])") == "[]"


def test_nothing_is_a_top_level_package_but_anondata() -> None:
    code = "import anondata.loaders, anondata.verifiers, anondata.cards, anondata.tools, sys; "
    assert fresh(code + "print([m for m in ('loaders', 'verifiers', 'cards', 'tools') if m in sys.modules])") == "[]"


def test_the_public_surface_is_what_is_written_here() -> None:
    names = "About AnondataError Anonymizer Audited Check Engine Files Outcome Policy Published Regions Released"
    names += " Report"
    names += " RequestResult RunKey Sample Schema Withheld"
    names += " anonymize_files audit load_policy publish request verify"
    assert fresh("import anondata; print(*anondata.__all__)") == names
    assert fresh("import anondata; print(all(getattr(anondata, n) for n in anondata.__all__))") == "True"


def test_modules_under_their_earlier_names_warn() -> None:
    code = """
import importlib, warnings
import anondata
from anondata._moved import MOVED
for earlier, now in MOVED.items():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        module = importlib.import_module(earlier)
    own = [str(one.message) for one in told if one.category is DeprecationWarning and "anondata" in str(one.message)]
    assert own == [f"{earlier} is {now} now"], (earlier, own)
    names = {name: value for name, value in vars(importlib.import_module(now)).items() if name[:2] != "__"}
    assert all(getattr(module, name) is value for name, value in names.items())
from anondata.engine import Engine
print(Engine is anondata.Engine)
"""
    assert fresh(code) == "True"
