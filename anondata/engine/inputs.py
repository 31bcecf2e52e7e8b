"""How a sample enters the engine's loop: each value of its content decoded, with the regions that came with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from anondata.content import given as boxes
from anondata.content import masks
from anondata.engine.rules import ContentRules
from anondata.engine.state import Item
from anondata.errors import FieldTypeError, UndecodableError
from anondata.policy import NO_FACE
from anondata.regions import cat_regions
from anondata.samples import Sample, Schema, beside, is_masks, leaves, path_of


def decoded(
    rules: Mapping[str, ContentRules], index: int, sample: Sample, schema: Schema, device: torch.device
) -> Iterator[Item]:
    """An item for each value of content of sample number ``index``; what cannot be read has failed already."""
    regions = schema.regions()
    for name, kind in schema.content().items():
        own = [n for n, whose in regions.items() if whose == name]
        if lacking := [n for n in (name, *own) if n not in sample.fields]:
            missing = Item(index, name, name, sample.key, None)
            missing.fail("missing_field", f"the declared field {lacking[0]!r} is not in the sample")
            yield missing
            continue
        values = dict(leaves(sample.fields[name], name))
        given = {n: dict(beside(sample.fields[name], sample.fields[n], name)) for n in own}
        if any(by_place.keys() != values.keys() for by_place in given.values()):
            odd = Item(index, name, name, sample.key, None)
            odd.fail("wrong_regions", f"{name!r} is a list, and its field of regions no list of the same shape")
            yield odd
            continue
        for place, value in values.items():
            item = Item(index, name, place, sample.key, None)
            read = [(n, schema.fields[n], by_place[place]) for n, by_place in given.items()]
            _read(item, rules, kind, value, read, device)
            yield item


def type_of(rules: Mapping[str, ContentRules], declared: str, value: Any) -> str:
    """The content type that takes a value: the declared one, or one of the policy's that is for such values."""
    for name, own in rules.items():
        if declared in own.content.also_in and own.content.takes(value):
            return name
    return declared


def _read(
    item: Item,
    by_type: Mapping[str, ContentRules],
    declared: str,
    value: Any,
    given: Sequence[tuple[str, str, Any]],
    device: torch.device,
) -> None:
    """given: names of fields of regions, what they are declared, and what they hold for it."""
    try:
        item.kind = type_of(by_type, declared, value)
        rules = by_type[item.kind]
        item.media = rules.content.decode(value, device)
        if given:
            frame = rules.content.frame(item.media)
            told: dict[str, Any] = {"frame": frame, "kinds": rules.kinds, "meaning": rules.given}
            read = [
                masks.parse(held, **told)
                if is_masks(kind)
                else boxes.parse(held, name=name, path=path_of(kind), **told)
                for name, kind, held in given
            ]
            regions = rules.content.given(item.media, cat_regions(read)).to(device)
            denied = torch.tensor([kind == NO_FACE for kind in regions.kinds], dtype=torch.bool, device=device)
            item.given, item.denied = regions.select(~denied), regions.select(denied)
    except UndecodableError as error:
        item.fail(error.reason, str(error))
    except FieldTypeError as error:
        item.fail("wrong_type" if item.media is None else "wrong_regions", str(error))
    except Exception as error:  # noqa: BLE001 - fail closed: whatever a decoder does ends here
        item.blame(error)
