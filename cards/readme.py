"""The card as README.md: metadata that the Hub reads, a block of figures that programs read, and text for people.

The text is written from the block alone, but for the title and what the publisher says of the data; so a card whose
text and figures disagree can be told by anybody who has nothing but the card: see :mod:`anondata.cards.check`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from anondata._yaml import YamlError, load_yaml
from anondata.cards._block import FORMAT, block_of
from anondata.cards._text import text_of
from anondata.cards.facts import Facts
from anondata.errors import CardError, MissingExtraError

Json = Mapping[str, Any]

TAGS = ("anonymized", "privacy")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
          (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))  # fmt: skip
_HEADER = re.compile(r"\A---\n(.*?)\n---\n(.*)\Z", re.DOTALL)


class _Dumper(yaml.SafeDumper):
    """Writes out what is there twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def card_of(facts: Facts) -> str:
    """README.md of a dataset.

    Raises:
        CardError: a figure is missing. MissingExtraError: jinja2 or huggingface_hub is not installed.
    """
    block = block_of(facts)
    text = f"---\n{_metadata(facts, block)}---\n\n{text_of(facts, block)}"
    if from_card(text) != block:
        raise CardError("the card's figures do not survive YAML: a name in the report or the audit is not plain text")
    return text


def from_card(text: str) -> Json:
    """The figures of a card: exactly what :func:`card_of` put under ``anonymization``.

    Raises: CardError for what is no card of ours.
    """
    found = _parsed(text)[0].get("anonymization")
    if not isinstance(found, Mapping):
        raise CardError("the card has no part `anonymization` in its header; anondata did not write it")
    if found.get("format") != FORMAT:
        raise CardError(f"the card is of another version of anondata: its format is not {FORMAT!r}")
    return found


def body_of(text: str) -> str:
    """The text of a card below its header. Raises: CardError."""
    return _parsed(text)[1]


def _parsed(text: str) -> tuple[Json, str]:
    match = _HEADER.match(text.replace("\r\n", "\n"))
    if match is None:
        raise CardError("the card has no header between two lines of ---")
    try:
        header = load_yaml(match[1], aliases=False)
    except YamlError:
        raise CardError("the card's header is not YAML") from None  # the cause would quote it
    if not isinstance(header, Mapping):
        raise CardError("the card's header is not a mapping")
    return header, match[2]


# --- metadata -----------------------------------------------------------------------------------------------------


def _metadata(facts: Facts, block: Json) -> str:
    try:
        from huggingface_hub import DatasetCardData
    except ImportError as error:
        raise MissingExtraError("cards need huggingface_hub: pip install 'anondata[cards]'") from error
    data = DatasetCardData(
        license=facts.licence,
        pretty_name=facts.title,
        size_categories=[_size_category(facts.rows)],
        source_datasets=list(facts.source_datasets) or None,
        tags=list(dict.fromkeys((*TAGS, *facts.tags))),
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": one.name, "path": _one_or_all(one.globs)} for one in facts.splits],
                **({} if _has_labels(facts) else {"drop_labels": True}),
            }
        ],
        dataset_info=_dataset_info(facts),
        anonymization=block,
    )
    body: dict[str, Any] = data.to_dict()  # type: ignore[no-untyped-call]  # theirs
    text: str = yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def _has_labels(facts: Facts) -> bool:
    """Whether the files are tables. Folders of pictures are told apart by nothing: their names may be people's."""
    return all(PurePosixPath(glob).suffix in (".parquet", ".tar") for one in facts.splits for glob in one.globs)


def _dataset_info(facts: Facts) -> dict[str, Any]:
    splits = [{"name": one.name, "num_bytes": one.bytes, "num_examples": one.rows} for one in facts.splits]
    features = {"features": [feature.row for feature in facts.features]} if facts.features else {}
    return {**features, "splits": splits, "download_size": facts.bytes, "dataset_size": facts.bytes}


def _one_or_all(globs: Sequence[str]) -> str | list[str]:
    return globs[0] if len(globs) == 1 else list(globs)


def _size_category(rows: int) -> str:
    return next((name for below, name in _SIZES if rows < below), "n>1B")
