"""The history's entries as rows, and the hashes that chain them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from anondata.ledger import _clock
from anondata.ledger.values import Entry

# Everything but the hash itself, which is over these.
HASHED = (
    "seq",
    "at_ms",
    "actor",
    "event",
    "client",
    "dataset",
    "content_type",
    "amounts",
    "detail",
    "policy",
    "report",
    "reservation",
    "previous",
)


def canonical(value: Any) -> str:
    """JSON that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def entry_hash(row: Mapping[str, Any]) -> str:
    """sha256, in hexadecimal, over an entry's row."""
    return hashlib.sha256(canonical({name: row[name] for name in HASHED}).encode()).hexdigest()


def entry_of(row: Mapping[str, Any]) -> Entry:
    """An entry from its row.

    Raises:
        ValueError: when the row was changed to something that is none.
    """
    values = {name: row[name] for name in HASHED if name not in ("at_ms", "amounts", "detail")}
    amounts, detail = json.loads(row["amounts"]), json.loads(row["detail"])
    return Entry(**values, at=_clock.at(row["at_ms"]), amounts=amounts, detail=detail, hash=row["hash"])
