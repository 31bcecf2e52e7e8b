"""Anonymizing transforms for datasets, each result checked by a second network before it is released.

::

    anondata.anonymize_files("photos", "anonymized")           # folders and files, see anondata.loaders for the rest
    anondata.audit("photos", "anonymized").write("audit")      # who can still be named in it?
    anondata.publish("anonymized", audit="audit", about=anondata.About("Title", "cc-by-4.0"), to="publication")
    anondata.verify("publication")                             # what anybody can check
    anondata.request("catalog.yaml", client="acme", dataset="portraits", n=500, out="out")

>>> import anondata
>>> anondata.load_policy("faces").name
'faces'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from anondata import _moved

if TYPE_CHECKING:
    from anondata.anonymizer import Anonymizer
    from anondata.auditing.audit import Audited, audit
    from anondata.engine.loop import Engine
    from anondata.errors import AnondataError
    from anondata.loaders.files import anonymize_files
    from anondata.loaders.files.job import Files
    from anondata.policy import Policy, load_policy
    from anondata.publishing.publish import About, Published, publish
    from anondata.publishing.verify import Check, verify
    from anondata.randomness import RunKey
    from anondata.records import Outcome, Released, Withheld
    from anondata.regions import Regions
    from anondata.report import Report
    from anondata.requests.request import request
    from anondata.requests.result import RequestResult
    from anondata.samples import Sample, Schema

__version__ = "0.1.0"

__all__ = [
    "About",
    "AnondataError",
    "Anonymizer",
    "Audited",
    "Check",
    "Engine",
    "Files",
    "Outcome",
    "Policy",
    "Published",
    "Regions",
    "Released",
    "Report",
    "RequestResult",
    "RunKey",
    "Sample",
    "Schema",
    "Withheld",
    "anonymize_files",
    "audit",
    "load_policy",
    "publish",
    "request",
    "verify",
]

# Loaded on first use: a script that only reads a report should not wait for a network library.
_HOME = {
    "About": "anondata.publishing.publish",
    "AnondataError": "anondata.errors",
    "Anonymizer": "anondata.anonymizer",
    "Audited": "anondata.auditing.audit",
    "Check": "anondata.publishing.verify",
    "Engine": "anondata.engine.loop",
    "Files": "anondata.loaders.files.job",
    "Outcome": "anondata.records",
    "Policy": "anondata.policy",
    "Published": "anondata.publishing.publish",
    "Regions": "anondata.regions",
    "Released": "anondata.records",
    "Report": "anondata.report",
    "RequestResult": "anondata.requests.result",
    "RunKey": "anondata.randomness",
    "Sample": "anondata.samples",
    "Schema": "anondata.samples",
    "Withheld": "anondata.records",
    "anonymize_files": "anondata.loaders.files",
    "audit": "anondata.auditing.audit",
    "load_policy": "anondata.policy",
    "publish": "anondata.publishing.publish",
    "request": "anondata.requests.request",
    "verify": "anondata.publishing.verify",
}


_moved.install()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'anondata' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(["__version__", *__all__])
