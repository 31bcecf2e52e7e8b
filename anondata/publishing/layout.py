"""What a publication looks like.

::

    README.md, croissant.json           the dataset card, for people and for programs
    data/train-00000-of-00003.parquet   rows with embedded pictures, as `datasets.load_dataset` finds them
    webdataset/*.tar                    the shards themselves, where they were asked for
    anonymization/report.json, audit.json, policy.yaml, plots/
    anonymization/manifest.json         every other file with its sha256; written and sent last
"""

from __future__ import annotations

import re

FOLDER = "anonymization"
MANIFEST, REPORT, AUDIT, POLICY, PLOTS = (
    f"{FOLDER}/{name}" for name in ("manifest.json", "report.json", "audit.json", "policy.yaml", "plots")
)
CARD, CROISSANT = "README.md", "croissant.json"
DATA = "data/"
SHARDS = "webdataset/"

_NAMES = re.compile(
    r"README\.md|croissant\.json|data/[\w.-]+\.parquet|webdataset/.+\.tar"
    r"|anonymization/(report\.json|audit\.json|policy\.yaml|plots/[\w-]+\.(png|svg))"
)


def belongs(name: str) -> bool:
    """Whether a publication may have a file of this name. Any other could hold anything, and nobody looks into it.

    >>> belongs("data/train-00000-of-00001.parquet"), belongs("data/alice.jpg")
    (True, False)
    """
    return _NAMES.fullmatch(name) is not None
