"""Thresholds at stated false-accept rates, with the data that they come from.

A threshold is a distance below which two templates are taken for one person. The false-accept rate (FAR) is the share
of pairs of *different* people that fall below it. A gate wants results to be farther from a protected face than that:
the higher its FAR, the stricter it is. The true-accept rate (TAR) is the share of pairs of *one* person that fall
below it: what a gate at that threshold can notice at all.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from anondata.components import check_file_is_trusted
from anondata.errors import CalibrationError, PolicyError, ShapeError
from anondata.protocols import Embedder
from anondata.verifiers._pairs import MAX_PAIRS, Array, Pairs, accepted, apart, at_rates, count_apart, draws, together

FORMAT = "anondata.calibration/1"
PAIRS_PER_ACCEPT = 10  # fewer than 10 / FAR impostor pairs cannot support a FAR
MIN_PEOPLE = 10  # resampling fewer gives intervals that are too narrow, down to no width at all for two
RATES = (0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 1e-4, 1e-5)
LARGEST = 1e30  # float32 holds it


@dataclass(frozen=True)
class Threshold:
    """A distance at a false-accept rate, and the share of genuine pairs accepted there; None where unknown.

    low, high: 95 % bootstrap interval of the distance; ``high`` is what a gate takes that grants its data no luck.
    tar_low, tar_high: of the share at ``distance``.

    Raises:
        CalibrationError: for numbers that no threshold can have.
    """

    far: float
    distance: float
    low: float
    high: float
    tar: float | None = None
    tar_low: float | None = None
    tar_high: float | None = None

    def __post_init__(self) -> None:
        _check_number("far", self.far, 1.0)
        if not 0 < self.far < 1:
            raise CalibrationError("calibration: far must lie between 0 and 1")
        for name in ("distance", "low", "high"):
            _check_number(name, getattr(self, name), LARGEST)
        if self.low > self.high:
            raise CalibrationError("calibration: low must not be above high")
        for name in ("tar", "tar_low", "tar_high"):
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name), 1.0)


@dataclass(frozen=True)
class Calibration:
    """What an embedder's thresholds are and where they come from.

    embedder, embedder_fingerprint: whose templates; no fingerprint where it was not recorded.
    data: the labelled faces, in words. identities, impostor_pairs, genuine_pairs: how many were used.
    left_out: templates that were not finite. thresholds: by FAR.

    Plain values: ``from_json(asdict(calibration)) == calibration``.

    Raises:
        CalibrationError: for values that no calibration can have.
    """

    embedder: str
    data: str
    identities: int
    impostor_pairs: int
    thresholds: tuple[Threshold, ...]
    genuine_pairs: int | None = None
    left_out: int = 0
    embedder_fingerprint: str = ""

    def __post_init__(self) -> None:
        for name in ("embedder", "data", "embedder_fingerprint"):
            if not isinstance(getattr(self, name), str):
                raise CalibrationError(f"calibration: {name} must be a text")
        for name in ("identities", "impostor_pairs", "genuine_pairs", "left_out"):
            value = getattr(self, name)
            if (type(value) is not int or value < 0) and not (name == "genuine_pairs" and value is None):
                raise CalibrationError(f"calibration: {name} must be a whole number, 0 or more")
        rows = self.thresholds
        if not isinstance(rows, tuple) or not rows or not all(isinstance(row, Threshold) for row in rows):
            raise CalibrationError("calibration: thresholds must be a tuple of at least one Threshold")
        if len({row.far for row in rows}) < len(rows):
            raise CalibrationError("calibration: two thresholds have the same far")

    def at(self, far: float) -> Threshold:
        """The threshold at a calibrated FAR; :class:`PolicyError` names those that there are."""
        for threshold in self.thresholds:
            if threshold.far == far:
                return threshold
        known = ", ".join(f"{t.far:g}" for t in self.thresholds)
        raise PolicyError(f"embedder {self.embedder!r} has no threshold at FAR {far:g}; calibrated: {known}")

    def to_json(self) -> str:
        """JSON text that :func:`from_json` reads without loss."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"


@cache
def shipped(embedder: str) -> Calibration:
    """The calibration that comes with the package."""
    source = files("anondata.verifiers") / "thresholds" / f"{embedder}.json"
    if not source.is_file():
        raise PolicyError(f"no calibration for embedder {embedder!r} comes with anondata")
    return from_json(source.read_text())


def load(path: str | Path) -> Calibration:
    """A calibration from a file, for example one that ``anondata calibrate`` wrote.

    Raises: CalibrationError. PolicyError: somebody who is not trusted names the file.
    """
    check_file_is_trusted()
    try:
        return from_json(Path(path).read_bytes())
    except OSError as error:
        raise CalibrationError(f"the calibration file cannot be read: {error.strerror}") from error


def from_json(data: str | bytes | Mapping[str, Any]) -> Calibration:
    """A calibration from JSON text, or from what such a text says, as ``dataclasses.asdict`` gives it, too.

    Raises:
        CalibrationError: for anything else; without quoting it, because it may be any file.
    """
    body = _parsed(data) if isinstance(data, str | bytes) else data
    if not isinstance(body, Mapping):
        raise CalibrationError("calibration: expected a JSON object")
    if body.get("format", FORMAT) != FORMAT:  # earlier files have no format word
        raise CalibrationError(f"calibration: the format is not {FORMAT!r}; write it again with `anondata calibrate`")
    found = _only_known(Calibration, {key: body[key] for key in body if key != "format"})
    rows = found["thresholds"]
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise CalibrationError("calibration: thresholds must be a list of objects")
    return Calibration(**{**found, "thresholds": tuple(Threshold(**_only_known(Threshold, row)) for row in rows)})


def calibrate(
    templates: Tensor,
    people: Sequence[str],
    *,
    embedder: Embedder,
    data: str,
    rates: Sequence[float] | None = None,
    repeats: int = 1000,
) -> Calibration:
    """The distances at which stated shares of pairs of different people are taken for one person.

    A threshold is the largest distance below which at most that share of pairs lies. The intervals come from a
    bootstrap over *people*, not pairs, because pairs that share a person are not independent; a person drawn twice is
    not paired with themselves. The same input gives the same result.

    All pairs are looked at up to 5 million (about 3 160 templates); of more, a fixed sample of 5 million, which
    supports a FAR of 2e-6 and adds less to an interval than the choice of people does. Memory stays below 1 GiB.

    templates: ``(N, D)`` float, any device. Rows that are not finite are left out and counted.
    people: who each row shows. embedder: whose templates. data: what the photos are, in words.
    rates: false-accept rates; by default all of ``RATES`` that the data supports.
    repeats: of the bootstrap.

    Raises:
        CalibrationError: fewer than 10 people, or a rate that the data cannot support: the message says how many
            pairs there are and the smallest rate that they support.
        ShapeError: templates and people do not belong together.
    """
    if templates.dim() != 2 or len(templates) != len(people):
        raise ShapeError(
            f"templates of shape {tuple(templates.shape)} for {len(people)} people, expected (N, D) and N"
        )
    finite = templates.isfinite().all(dim=1).cpu()
    names, number = np.unique(np.asarray(people, dtype=str)[finite.numpy()], return_inverse=True)
    photos = np.bincount(number, minlength=len(names))
    _check_people(photos)
    usable = templates.detach()[finite.to(templates.device)].float()
    impostors, genuine = apart(usable, number), together(usable, number)
    chosen = supported(len(impostors), rates)
    return Calibration(
        embedder=embedder.name,
        data=data,
        identities=len(names),
        impostor_pairs=len(impostors),
        thresholds=thresholds_of(impostors, genuine, photos, chosen, repeats),
        genuine_pairs=len(genuine),
        left_out=len(people) - len(usable),
        embedder_fingerprint=embedder.fingerprint,
    )


def check_support(people: Sequence[str], rates: Sequence[float] | None = None) -> None:
    """Raises :class:`CalibrationError` where :func:`calibrate` would, whatever the photos show. Cheap."""
    photos = np.array(list(Counter(people).values()))
    _check_people(photos)
    supported(min(count_apart(photos), MAX_PAIRS), rates)


def distances(templates: Tensor, people: Sequence[str]) -> tuple[Array, Array]:
    """Ascending distances of the pairs of one person, and of the pairs of different people, as calibration sees them.

    templates: ``(N, D)``, all finite. people: who each row shows.
    """
    number = np.unique(np.asarray(people, dtype=str), return_inverse=True)[1]
    return together(templates, number).distance, apart(templates, number).distance


def _check_people(photos: Array) -> None:
    if len(photos) < MIN_PEOPLE:
        raise CalibrationError(
            f"photos of {len(photos)} people cannot be calibrated on, {MIN_PEOPLE} are needed; "
            "thresholds and their intervals come from comparing and resampling people"
        )


def supported(pairs: int, rates: Sequence[float] | None = None) -> tuple[float, ...]:
    """The rates in descending order; by default all of ``RATES`` that so many impostor pairs support.

    Raises: CalibrationError for a rate that they do not support.
    """
    enough = [rate for rate in RATES if _is_supported(rate, pairs)]
    least = PAIRS_PER_ACCEPT / max(pairs, 1)
    hint = f"the smallest that they support is {_rounded_up(least):g}" if least < 0.5 else "they support none"
    if not (enough if rates is None else rates):
        raise CalibrationError(f"{pairs} pairs of different people support none of the usual rates; {hint}")
    for rate in rates or ():
        if not 0 < rate < 1:
            raise CalibrationError(f"a false-accept rate lies between 0 and 1, got {rate:g}")
        if not _is_supported(rate, pairs):
            raise CalibrationError(
                f"{pairs} pairs of different people cannot support a false-accept rate of {rate:g}, which needs "
                f"{math.ceil(PAIRS_PER_ACCEPT / rate)}; {hint}. Take more people, or a higher rate"
            )
    return tuple(sorted(set(enough if rates is None else rates), reverse=True))


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise CalibrationError("calibration: the text is not JSON") from None  # the cause would quote it


def _only_known(kind: type, row: Any) -> dict[str, Any]:
    """The fields of an object, all that are needed and no other."""
    known = {field.name: field.default is MISSING for field in fields(kind)}
    if not isinstance(row, Mapping):
        raise CalibrationError(f"calibration: a {kind.__name__.lower()} must be an object")
    missing = [name for name, needed in known.items() if needed and name not in row]
    unknown = sum(name not in known for name in row)
    if missing or unknown:
        said = (
            f"lacks {', '.join(missing)}" if missing else f"has {unknown} unknown fields; known: {', '.join(known)}"
        )
        raise CalibrationError(f"calibration: a {kind.__name__.lower()} {said}")
    return dict(row)


def _check_number(name: str, value: Any, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise CalibrationError(f"calibration: {name} must be a number from 0 to {most:g}")


def _is_supported(rate: float, pairs: int) -> bool:
    return pairs * rate >= PAIRS_PER_ACCEPT * (1 - 1e-9)


def _rounded_up(rate: float) -> float:
    """To two digits, so that the rate that a message names is really supported."""
    digits = 1 - math.floor(math.log10(rate))
    return math.ceil(rate * 10.0**digits - 1e-9) / 10.0**digits


def thresholds_of(
    impostors: Pairs, genuine: Pairs, photos: Array, rates: Sequence[float], repeats: int
) -> tuple[Threshold, ...]:
    """The thresholds at rates that the pairs support; for measures other than distances of templates, too.

    photos: ``(n,)`` int, how many photos each person has. repeats: of the bootstrap.
    """
    drawn = np.stack([at_rates(impostors, photos, rates, draw) for draw in draws(len(photos), repeats)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    found = []
    for i, rate in enumerate(rates):
        distance = float(impostors.distance[int(rate * len(impostors))])
        shares = accepted(genuine, len(photos), distance, repeats)
        found.append(Threshold(rate, distance, float(low[i]), float(high[i]), *shares))
    return tuple(found)
