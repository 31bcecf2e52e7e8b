"""Licence ids of the Hub, and where their texts are."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SPDX: Mapping[str, str] = {
    "afl-3.0": "AFL-3.0",
    "agpl-3.0": "AGPL-3.0-only",
    "apache-2.0": "Apache-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "cdla-permissive-1.0": "CDLA-Permissive-1.0",
    "cdla-permissive-2.0": "CDLA-Permissive-2.0",
    "cdla-sharing-1.0": "CDLA-Sharing-1.0",
    "gpl-3.0": "GPL-3.0-only",
    "mit": "MIT",
    "mpl-2.0": "MPL-2.0",
    "odbl": "ODbL-1.0",
    "odc-by": "ODC-By-1.0",
    "pddl": "PDDL-1.0",
    "unlicense": "Unlicense",
}
_CREATIVE_COMMONS = re.compile(r"cc0-1\.0|cc-by(-nc)?(-nd|-sa)?-[1-4]\.[05]")


def licence_url(licence: str) -> str | None:
    """The page of a licence in the SPDX list, or None for one that is not in it.

    >>> licence_url("cc-by-4.0"), licence_url("other")
    ('https://spdx.org/licenses/CC-BY-4.0.html', None)
    """
    word = licence.lower()
    spdx = word.upper() if _CREATIVE_COMMONS.fullmatch(word) else _SPDX.get(word)
    return f"https://spdx.org/licenses/{spdx}.html" if spdx else None
