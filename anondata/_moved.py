"""Modules under their names of version 0.1.0: importing one warns, and gives the module that it is now.

To be removed in the next version.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED: Mapping[str, str] = {
    "anondata.decoding": "anondata.engine.inputs",
    "anondata.insights": "anondata.content.insights",
    "anondata.judging": "anondata.engine.verification",
    "anondata.kernels": "anondata.crops",
    "anondata.looking": "anondata.engine.detection",
    "anondata.models.face_pool": "anondata.transforms.face_pool",
    "anondata.recognizing": "anondata.engine.identities",
    "anondata.rules": "anondata.engine.rules",
    "anondata.tracks": "anondata.engine.state",
}


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        now = importlib.import_module(MOVED[spec.name])
        warnings.warn(f"{spec.name} is {now.__name__} now", DeprecationWarning, stacklevel=2)
        module = ModuleType(spec.name, now.__doc__)
        module.__dict__.update({name: value for name, value in vars(now).items() if not name.startswith("__")})
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: it has all names of the module that it is now."""


def install() -> None:
    """Makes the earlier names importable, once."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
