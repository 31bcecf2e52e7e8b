"""What a released sample costs, by content type and unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from anondata.errors import FieldTypeError
from anondata.records import SampleRecord
from anondata.samples import Schema, leaves

_NUMBER_BYTES = 8


def cost_of(fields: Mapping[str, Any], schema: Schema, record: SampleRecord) -> dict[str, dict[str, int]]:
    """What to charge for a sample: by content type, ``samples``, ``bytes``, ``seconds`` and ``faces``.

    fields: the released values. Each content type counts one sample, however many fields and pictures it has in it;
    bytes are those of the values: the encoded ones of ``bytes``, of decoded ones those in memory. Seconds are 0.
    A content type none of whose fields is there costs nothing.

    Raises:
        FieldTypeError: for a value whose size nobody knows.

    >>> cost_of({"image": b"abc"}, Schema({"image": "image"}), SampleRecord())
    {'image': {'samples': 1, 'bytes': 3, 'seconds': 0, 'faces': 0}}
    """
    content = {name: kind for name, kind in schema.content().items() if name in fields}
    costs = {kind: {"samples": 1, "bytes": 0, "seconds": 0, "faces": 0} for kind in content.values()}
    for name, kind in content.items():
        costs[kind]["bytes"] += sum(_size(value) for _, value in leaves(fields[name], name))
        costs[kind]["faces"] += _faces(name, record)
    return costs


def total(costs: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """What several samples cost together.

    >>> total([{"image": {"samples": 1, "bytes": 3}}, {"image": {"samples": 1, "bytes": 4}}])
    {'image': {'samples': 2, 'bytes': 7}}
    """
    out: dict[str, dict[str, int]] = {}
    for cost in costs:
        for kind, amounts in cost.items():
            so_far = out.setdefault(kind, {})
            for unit, amount in amounts.items():
                so_far[unit] = so_far.get(unit, 0) + amount
    return out


def _faces(name: str, record: SampleRecord) -> int:
    places = (r.place for r in record.regions if r.kind == "face")
    return sum(1 for place in places if place == name or place.startswith(f"{name}["))


def _size(value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, bytes | bytearray):
        return len(value)
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bool | int | float):
        return _NUMBER_BYTES
    if isinstance(value, Mapping):
        return sum(_size(leaf) for item in value.values() for _, leaf in leaves(item, ""))
    if hasattr(value, "getbands"):  # a picture of Pillow, which need not be installed to count bytes
        return int(value.width * value.height * len(value.getbands()))
    if isinstance(getattr(value, "nbytes", None), int):
        return int(value.nbytes)
    raise FieldTypeError(f"the size of a {type(value).__name__} is not known, so it cannot be charged; give bytes")
