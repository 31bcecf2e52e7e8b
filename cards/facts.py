"""What a dataset card tells: plain values, collected elsewhere. Nothing here reads a file.

A measured value that is missing is an error, not a placeholder. An audit that was never made is a state of its own:
the card then says so before anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit

from anondata.cards.licences import check_licence
from anondata.errors import CardError
from anondata.policy import Policy
from anondata.report import Report

AUDIT_FORMAT = "anondata.audit/2"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")  # licence ids, tags, repositories of the Hub
_SPLIT = re.compile(r"\w+(\.\w+)*")
_NOT_TEXT = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


@dataclass(frozen=True)
class Split:
    """One split. rows, bytes: of its files. patterns: globs of its files, relative to the card."""

    name: str
    rows: int
    bytes: int
    patterns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check(bool(_SPLIT.fullmatch(self.name)), "a split's name is made of letters, digits and underscores")
        _check_count("a split's rows", self.rows)
        _check_count("a split's bytes", self.bytes)

    @property
    def globs(self) -> tuple[str, ...]:
        """Its patterns; by default the parquet files in ``data`` that begin with its name."""
        return self.patterns or (f"data/{self.name}-*.parquet",)


@dataclass(frozen=True)
class Feature:
    """One column.

    type: a dtype such as ``image`` or ``int64``, or what the Hub's ``dataset_info`` has beside a feature's name:
    ``{"dtype": {"class_label": …}}``, ``{"list": "int64"}`` … (``Features._to_yaml_list()`` of datasets gives them).
    """

    name: str
    type: str | Mapping[str, Any]

    def __post_init__(self) -> None:
        _check_text("a feature's name", self.name, lines=1)

    @property
    def row(self) -> dict[str, Any]:
        """Its row in ``dataset_info``."""
        told = {"dtype": self.type} if isinstance(self.type, str) else dict(self.type)
        return {"name": self.name, **told}


@dataclass(frozen=True)
class File:
    """One file that is described. path: below the card, with slashes. size: in bytes."""

    path: str
    sha256: str
    size: int
    media_type: str

    def __post_init__(self) -> None:
        _check(not is_path_of_a_machine(self.path) and ".." not in PurePosixPath(self.path).parts, "a file's path")
        _check(bool(_SHA256.fullmatch(self.sha256)), "a file's sha256 is 64 hexadecimal digits")
        _check_count("a file's size", self.size)


@dataclass(frozen=True)
class Gate:
    """A verifier of the policy, or the rule of whom it covers.

    name: as the report has it. region: kind of region. use: ``verify`` or ``cover``. within: the gate of which it is
    a part, empty for none. embedder, far, threshold: of a gate that holds distances against a calibrated threshold,
    else None. calibrated_on: the labelled faces in words; people, impostor_pairs: how many; calibration_sha256: of
    the calibration as JSON. note: where a threshold that is None comes from.
    """

    name: str
    region: str
    use: str
    within: str = ""
    embedder: str | None = None
    far: float | None = None
    threshold: float | None = None
    calibrated_on: str | None = None
    people: int | None = None
    impostor_pairs: int | None = None
    calibration_sha256: str | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.threshold is None:
            _check(bool(self.note), f"gate {self.name}: a threshold, or where it comes from")
        else:
            rest = (self.embedder, self.far, self.calibrated_on, self.people, self.calibration_sha256)
            _check(None not in rest, f"gate {self.name}: where its threshold was calibrated")


@dataclass(frozen=True)
class Model:
    """Weights that had a part in it.

    role: what they did. sha256: None where it is not known. licence: SPDX identifier, or in words.
    commercial_use: None where it is not known. forbids: what the licence forbids; empty for nothing of note. credit:
    whom the licence wants to be named; empty for nobody.
    """

    name: str
    role: str
    sha256: str | None
    licence: str
    commercial_use: bool | None
    forbids: str = ""
    credit: str = ""


@dataclass(frozen=True)
class Bound:
    """What the policy demands of an audit before publication.

    above_chance: percentage points above chance that an attack may name at rank 1. attackers: who must have tried.
    """

    above_chance: float
    attackers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Everything that a card says.

    title: of the dataset. licence: an id of the Hub's list, such as ``cc-by-4.0``, or ``other``.
    policy, report: what was asked for, and what was done. audit: the body of ``audit.json``, None where nobody has
    attacked the result. bound: what the policy demands of it. gates, models: see there.
    splits, features, files: what there is to load. features may be empty where they are told by the files alone.
    versions: of packages. created: the day of the run, ISO. digest: over the sha256 of the contents.
    sealed: whether the run's seal holds; None where nobody with its key has looked.
    summary: about the data, plain text with paragraphs. homepage: http(s). source_datasets: ids of the Hub, or words
    such as ``private``. tags: beside ours. plots: pictures of the card, relative to it. version: of the dataset.

    Raises:
        CardError: for a value that is missing or cannot be shown as it is; the message names it.
    """

    title: str
    licence: str
    policy: Policy
    report: Report
    splits: tuple[Split, ...]
    files: tuple[File, ...]
    gates: tuple[Gate, ...]
    models: tuple[Model, ...]
    versions: Mapping[str, str]
    created: str
    digest: str
    audit: Mapping[str, Any] | None = None
    bound: Bound | None = None
    features: tuple[Feature, ...] = ()
    sealed: bool | None = None
    summary: str | None = None
    homepage: str | None = None
    source_datasets: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    plots: tuple[str, ...] = ()
    version: str = "1.0.0"

    def __post_init__(self) -> None:
        _check_text("title", self.title, lines=1)
        _check_words(self)
        if self.summary is not None:
            _check_text("summary", self.summary, lines=200)
        if self.homepage is not None:
            _check_url(self.homepage)
        _check(bool(_SHA256.fullmatch(self.digest)), "digest: 64 hexadecimal digits over the contents")
        try:
            date.fromisoformat(self.created)
        except ValueError:
            raise CardError("created: expected a day such as 2026-01-31") from None
        _check_measured(self)
        if self.audit is not None:
            check_audit(self.audit)

    @property
    def rows(self) -> int:
        """Of all splits."""
        return sum(split.rows for split in self.splits)

    @property
    def bytes(self) -> int:
        """Of all splits."""
        return sum(split.bytes for split in self.splits)


def is_path_of_a_machine(text: str) -> bool:
    """Whether a text is an absolute path, or one that begins in somebody's home."""
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute() or text.startswith("~")


def _check_measured(facts: Facts) -> None:
    report, policy = facts.report, facts.policy
    _check(report.fingerprint == policy.fingerprint, "report: it is of another policy than the one that is given")
    for name in ("seen", "released"):
        _check(name in report.counts.get("samples", {}), f"report: the number of samples {name}")
    _check(bool(facts.splits), "splits: at least one")
    _check(len({split.name for split in facts.splits}) == len(facts.splits), "splits: each name once")
    _check(len({one.name for one in facts.features}) == len(facts.features), "features: each name once")
    _check(bool(facts.gates), "gates: the policy's, with their thresholds")
    _check(bool(facts.models), "models: the weights that had a part in it")
    _check("anondata" in facts.versions, "versions: that of anondata")
    for text in _texts(policy.model_dump(mode="json")):
        place = text.removeprefix("insightface:")
        _check(
            not is_path_of_a_machine(place) and not (place != text and len(PurePosixPath(place).parts) > 1),
            "policy: names that can be shown; it holds a path of a machine. Put the file into the folder that "
            "ANONDATA_WEIGHTS names, use its bare name in the policy, and run again",
        )


def check_audit(audit: Mapping[str, Any]) -> None:
    """Raises :class:`CardError` unless every figure of an audit that the card shows is there."""
    _check(audit.get("format") == AUDIT_FORMAT, f"audit: the format {AUDIT_FORMAT!r}")
    for name in ("verdict", "worst", "attacks", "controls", "networks", "faces", "counts", "parameters", "notes"):
        _check(name in audit, f"audit: {name}")
    _check(bool(audit["attacks"]), "audit: at least one attack")
    for one in (*audit["attacks"], *audit["controls"]):
        for name in (
            "attacker",
            "network",
            "gallery",
            "releases",
            "probes",
            "people",
            "rank1",
            "rank5",
            "tar_at_far",
            "eer",
        ):
            _check(name in one, f"audit: {name} of each attack")
        for name in ("rank1", "rank5", "eer"):
            needed = ("percent", "low", "high", *(("chance_percent",) if name != "eer" else ()))
            _check(all(key in one[name] for key in needed), f"audit: {name} with interval and chance of each attack")


def _check_words(facts: Facts) -> None:
    check_licence(facts.licence)
    for name in ("source_datasets", "tags"):
        _check(all(_WORD.fullmatch(word) for word in getattr(facts, name)), f"{name} as ids or words without spaces")
    _check(bool(re.fullmatch(r"\d+\.\d+\.\d+", facts.version)), "version: three numbers, such as 1.0.0")
    for path in facts.plots:
        _check(not is_path_of_a_machine(path) and bool(re.fullmatch(r"[\w./-]+", path)), "plots: relative paths")


def _check_text(name: str, text: str, *, lines: int) -> None:
    _check(isinstance(text, str) and bool(text.strip()), f"{name}: it is missing")
    _check(len(text) <= 100 * lines + 200 and text.count("\n") < lines, f"{name}: it is too long")
    _check(not _NOT_TEXT.search(text), f"{name}: text without control characters")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    plain = re.fullmatch(r"[\w:/?#@!&=.,;%~+-]+", url, re.ASCII)  # no bracket or quote that would end a link
    good = parts.scheme in ("http", "https") and parts.hostname and plain
    _check(bool(good) and "@" not in parts.netloc, "homepage: an http or https address")


def _check_count(name: str, value: int) -> None:
    _check(
        isinstance(value, int) and not isinstance(value, bool) and value >= 0, f"{name}: a whole number, 0 or more"
    )


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise CardError(f"the card needs {what}")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
