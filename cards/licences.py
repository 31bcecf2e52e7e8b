"""Licence ids of the Hub, and where their texts are."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from anondata.errors import CardError

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
# Those of the Hub's list that are in no list of SPDX's, or under several of its names.
_OTHERS = """
apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
bsd-3-clause-clear bsl-1.0 c-uda cc creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0
etalab-2.0 eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 grok2-community
h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
lppl-1.3c ms-pl ncsa ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other postgresql unknown wtfpl zlib
"""
_CREATIVE_COMMONS = re.compile(r"cc0-1\.0|cc-by(-nc)?(-nd|-sa)?-[1-4]\.[05]")


def check_licence(licence: str) -> None:
    """Raises :class:`CardError` for what the Hub would not take as a licence."""
    if licence_url(licence) is None and licence not in _OTHERS.split():
        near = difflib.get_close_matches(
            licence, [*_SPDX, *_OTHERS.split(), "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"], n=1
        )
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise CardError(
            f"licence: the Hub knows no licence called {licence!r}; {hint}`other` stands for one of your own"
        )


def licence_url(licence: str) -> str | None:
    """The page of a licence in the SPDX list, or None for one that is not in it.

    >>> licence_url("cc-by-4.0"), licence_url("other")
    ('https://spdx.org/licenses/CC-BY-4.0.html', None)
    """
    word = licence.lower()
    spdx = word.upper() if _CREATIVE_COMMONS.fullmatch(word) else _SPDX.get(word)
    return f"https://spdx.org/licenses/{spdx}.html" if spdx else None
