"""Anonymizing transforms for datasets, each result checked by a second network before it is released.

>>> import anondata
>>> anondata.load_policy("faces").name
'faces'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anondata.anonymizer import Anonymizer
    from anondata.engine.loop import Engine
    from anondata.errors import AnondataError
    from anondata.policy import Policy, load_policy
    from anondata.randomness import RunKey
    from anondata.records import Outcome, Released, Withheld
    from anondata.regions import Regions
    from anondata.report import Report
    from anondata.samples import Sample, Schema

__version__ = "0.1.0"

__all__ = [
    "AnondataError",
    "Anonymizer",
    "Engine",
    "Outcome",
    "Policy",
    "Regions",
    "Released",
    "Report",
    "RunKey",
    "Sample",
    "Schema",
    "Withheld",
    "load_policy",
]

# Loaded on first use: a script that only reads a report should not wait for a network library.
_HOME = {
    "AnondataError": "anondata.errors",
    "Anonymizer": "anondata.anonymizer",
    "Engine": "anondata.engine.loop",
    "Outcome": "anondata.records",
    "Policy": "anondata.policy",
    "Regions": "anondata.regions",
    "Released": "anondata.records",
    "Report": "anondata.report",
    "RunKey": "anondata.randomness",
    "Sample": "anondata.samples",
    "Schema": "anondata.samples",
    "Withheld": "anondata.records",
    "load_policy": "anondata.policy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'anondata' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(["__version__", *__all__])
