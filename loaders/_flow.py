"""What every adapter does alike: micro-batches through the engine, and what stands in for a withheld sample."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

from anondata.anonymizer import Anonymizer, content_key
from anondata.errors import LedgerError, PolicyError, WithheldError
from anondata.ledger.costs import cost_of, total
from anondata.loaders._reports import Reports
from anondata.loaders._spares import Delivery, Group, Spares, group_of
from anondata.records import Outcome, Released, Withheld
from anondata.report import Report
from anondata.samples import Sample, Schema, leaves

if TYPE_CHECKING:
    from anondata.ledger import Account

log = logging.getLogger("anondata")

OnWithheld = Literal["replace", "drop", "raise"]

Row: TypeAlias = Mapping[str, Any] | Sample | Withheld
"""A sample's fields, a sample whose adapter chose the key, or why it could not even be read."""
Read: TypeAlias = Callable[[Sequence[int]], list[Row]]
T = TypeVar("T")

BATCH_CPU, BATCH_CUDA = 4, 16
HOPELESS = 16
"""So many samples withheld and none released are no bad samples, but a wrong declaration or a broken source."""
TRIES = 16
"""How many others are anonymized to stand in for one sample before that is given up."""


@dataclass(frozen=True)
class Settled:
    """What a consumer gets for one sample.

    given: the sample that was released, or the one that stands in; None when it was dropped.
    reason, detail: why the sample itself was withheld; empty when it was released.
    """

    given: Delivery | None
    reason: str = ""
    detail: str = ""

    @property
    def fields(self) -> Mapping[str, Any] | None:
        """Of what is given, if anything is."""
        return self.given.fields if self.given is not None else None

    @property
    def note(self) -> str:
        """``"released"``, ``"replaced: REASON"`` or ``"dropped: REASON"``."""
        if not self.reason:
            return "released"
        return f"{'dropped' if self.fields is None else 'replaced'}: {self.reason}"


@dataclass(frozen=True)
class Flow:
    """How an adapter anonymizes: plain values that can be pickled, and that any number of processes may share.

    schema: declares every field. on_withheld: what a consumer gets instead of a withheld sample: ``"replace"``
        (another one of the same group that was released), ``"drop"`` (nothing) or ``"raise"`` (an error).
    group: the name of a kept field, or a function of a sample's kept fields; samples of one group may stand in for
        one another. None: all may. batch: samples that go through the engine together; None chooses by the device.
    account: what is delivered is charged to it, if there is one.

    Raises:
        PolicyError: an unknown ``on_withheld``, a group that is not kept, or a content type without rules.
    """

    anonymizer: Anonymizer
    schema: Schema
    on_withheld: OnWithheld = "replace"
    group: Group = None
    batch: int | None = None
    reports: Reports = field(default_factory=Reports)
    account: Account | None = None

    def __post_init__(self) -> None:
        if self.on_withheld not in get_args(OnWithheld):
            raise PolicyError(f"on_withheld is {self.on_withheld!r}; expected {', '.join(get_args(OnWithheld))}")
        if isinstance(self.group, str) and self.group not in self.schema.kept():
            raise PolicyError("group names a field that is not kept; only kept fields may be looked at")
        if self.batch is not None and self.batch < 1:
            raise PolicyError(f"batch is {self.batch}; expected at least 1")
        self.schema.check_content_types(self.anonymizer.policy.content)

    @property
    def size(self) -> int:
        """How many samples go through the engine together."""
        return self.batch or (BATCH_CUDA if self.anonymizer.device.type == "cuda" else BATCH_CPU)

    @property
    def report(self) -> Report:
        """What was done so far, by all processes."""
        return self.reports.total(self.anonymizer.report([]))

    def setting(self, purpose: str) -> dict[str, str]:
        """What all runs into one place must share, as words; they tell nothing of the run key.

        purpose: so that runs of different kinds share no name.
        """
        named = self.group if not callable(self.group) else f"{self.group.__module__}.{self.group.__qualname__}"
        return {
            "policy": self.anonymizer.report([]).setting,
            "key": self.anonymizer.name(purpose),
            "on_withheld": self.on_withheld,
            "group": named or "",
        }

    def key(self, row: Mapping[str, Any], schema: Schema | None = None) -> str:
        """What randomness is drawn from: a digest of the content, so that neither order nor place matters."""
        parts = [f"{name} {content_key(row.get(name))}" for name in sorted((schema or self.schema).content())]
        return hashlib.blake2b(" ".join(parts).encode(), digest_size=16).hexdigest()

    def originals(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Keyed digests of a sample's content, in order: an audit by who has the key pairs results with them."""
        content = [(name, values[name]) for name in self.schema.content() if name in values]
        parts = [leaf for name, value in content for _, leaf in leaves(value, name)]
        return tuple(self.anonymizer.name("original", content_key(part)) for part in parts)

    def outcomes(self, rows: Sequence[Row], schema: Schema | None = None) -> list[Outcome]:
        """One outcome for each row, in order, in micro-batches. Counts nothing.

        schema: of these rows, where samples of one stream have different fields.
        """
        chosen, out = schema or self.schema, list[Outcome]()
        for start in range(0, len(rows), self.size):
            part = rows[start : start + self.size]
            samples = [self._sample(row, chosen) for row in part if not isinstance(row, Withheld)]
            done = iter(self.anonymizer.run(samples, chosen) if samples else [])
            out += [row if isinstance(row, Withheld) else next(done) for row in part]
        return out

    def _sample(self, row: Mapping[str, Any] | Sample, schema: Schema) -> Sample:
        return row if isinstance(row, Sample) else Sample(self.key(row, schema), row)

    def settle(self, rows: Sequence[Row], spares: Spares, schema: Schema | None = None) -> list[Settled]:
        """What the consumer gets for each row of a stream, in order; ``spares`` takes and gives stand-ins.

        Raises:
            WithheldError: a sample was withheld and ``on_withheld`` says so, or nothing was ever released.
        """
        return self.settle_outcomes(rows, self.outcomes(rows, schema), spares)

    def settle_outcomes(self, rows: Sequence[Row], outcomes: Sequence[Outcome], spares: Spares) -> list[Settled]:
        """The second half of :meth:`settle`, for outcomes that were made elsewhere, as in another thread."""
        settled = list[Settled]()
        for row, outcome in zip(rows, outcomes, strict=True):
            group = self._group(row)
            if isinstance(outcome, Released):
                released = self._delivery(outcome)
                settled.append(Settled(released))
                if self.on_withheld == "replace":
                    spares.offer(group, released)
            else:
                stand_in = spares.choose(group, self._draw(outcome)) if self.on_withheld == "replace" else None
                settled.append(Settled(stand_in, outcome.reason, outcome.detail))
        self.count(outcomes, settled)
        return settled

    def batches(self, samples: Iterable[T]) -> Iterator[list[T]]:
        """Samples as lists that go through the engine together; no more than one of them is held here."""
        left = iter(samples)
        while batch := list(islice(left, self.size)):
            yield batch

    def stream(
        self, samples: Iterable[T], read: Callable[[T], Row], spares: Spares | None = None
    ) -> Iterator[tuple[T, Settled]]:
        """Settles a stream in micro-batches, and charges it; no more than one of them is held at a time."""
        pool = spares or Spares()
        try:
            for batch in self.batches(samples):
                settled = self.settle([read(sample) for sample in batch], pool)
                yield from zip(batch, self.paid(settled), strict=False)  # fewer where a limit ends the stream
                if self.ended:
                    return
        finally:
            self.settle_account()

    def check_account(self) -> None:
        """Before long work: raises UnknownClientError or LedgerError where nothing could be delivered in the end."""
        if self.account is not None:
            self.account.check(sorted({self.schema.fields[name] for name in self.schema.content()}))

    @property
    def ended(self) -> bool:
        """Whether a limit has ended the deliveries quietly."""
        return self.account is not None and self.account.exhausted

    def settle_account(self) -> None:
        """Tells the ledger what was charged, and frees what was only reserved; at the end of an iteration.

        Where that fails what was reserved will count as delivered, which no consumer needs to stop for.
        """
        try:
            if self.account is not None:
                self.account.close()
        except LedgerError as error:
            log.warning("%s", error)

    def paid(self, settled: Sequence[Settled]) -> Iterator[Settled]:
        """Those that may be delivered, from the first on, charged before they come.

        Raises:
            QuotaExceeded: after the last that may be. Where the account says ``"stop"`` they just end.
            UnknownClientError, LedgerError: nothing may be delivered, or nobody can be asked.
        """
        if self.account is None:
            yield from settled
            return
        costs = [s.given.cost for s in settled if s.given is not None]
        paid = allowed = 0
        for each in settled:
            if each.given is not None:
                if paid == allowed:
                    allowed += self.account.charge(costs[paid:])
                if paid == allowed:
                    return
                paid += 1
            yield each

    def paid_whole(self, settled: list[Settled]) -> list[Settled]:
        """All of them or, by an error, none: for what is asked for at once. See :meth:`paid`.

        Where the account says ``"stop"``, as many as may be.
        """
        costs = [s.given.cost for s in settled if s.given is not None]
        if self.account is None or not costs:
            return settled
        if self.account.at_limit == "stop":
            return list(self.paid(settled))
        self.account.charge([total(costs)])
        return settled

    def fetch(
        self,
        indices: Sequence[int],
        read: Read,
        candidates: Callable[[Hashable], Sequence[int]],
        groups: Sequence[Hashable] | None = None,
    ) -> list[Settled]:
        """What the consumer gets for some samples of a dataset with an index, charged as a whole.

        read: the rows of some indices. candidates: the indices of a group (None: of all). Which one stands in for
        a withheld sample depends on that and the run key, not on what was asked for before. groups: of the samples
        asked for, where they are known without looking at kept fields.

        Raises:
            WithheldError: a sample was withheld and ``on_withheld`` says so, or no other can stand in.
        """
        rows = read(indices)
        return self.paid_whole(self.fetch_outcomes(rows, self.outcomes(rows), read, candidates, groups))

    def fetch_outcomes(
        self,
        rows: Sequence[Row],
        outcomes: Sequence[Outcome],
        read: Read,
        candidates: Callable[[Hashable], Sequence[int]],
        groups: Sequence[Hashable] | None = None,
    ) -> list[Settled]:
        """The second half of :meth:`fetch`, for outcomes that were made elsewhere, as in another thread."""
        settled = list[Settled]()
        for i, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
            if isinstance(outcome, Released):
                settled.append(Settled(self._delivery(outcome)))
            else:
                group = self._group(row) if groups is None else groups[i]
                others = candidates(group) if self.on_withheld == "replace" else ()
                stand_in = self._stand_in(outcome, others, read) if self.on_withheld == "replace" else None
                settled.append(Settled(stand_in, outcome.reason, outcome.detail))
        self.count(outcomes, settled)
        return settled

    def _delivery(self, outcome: Released) -> Delivery:
        fields = outcome.sample.fields
        cost = cost_of(fields, self.schema, outcome.record) if self.account else {}
        return Delivery(fields, cost, outcome.sample.key)

    def _stand_in(self, withheld: Withheld, others: Sequence[int], read: Read) -> Delivery:
        tries = TRIES if len(others) else 0
        for attempt in range(tries):
            [outcome] = self.outcomes(read([others[self._draw(withheld, attempt) % len(others)]]))
            if isinstance(outcome, Released):
                return self._delivery(outcome)
        raise WithheldError(
            f"a sample was withheld ({withheld.reason}), and no sample was released that may stand in for it. "
            f"It was withheld because: {withheld.detail}"
        )

    def _draw(self, withheld: Withheld, attempt: int = 0) -> int:
        return self.anonymizer.draw("stand-in", withheld.key, attempt)

    def _group(self, row: Row) -> Hashable:
        if isinstance(row, Withheld):
            return None
        fields = row.fields if isinstance(row, Sample) else row
        return group_of(self.group, {name: fields[name] for name in self.schema.kept() if name in fields})

    def count(self, outcomes: Sequence[Outcome], settled: Sequence[Settled]) -> None:
        """Adds samples, and what consumers get for them, to the report.

        Raises:
            WithheldError: one was withheld and ``on_withheld`` is ``"raise"``, or :data:`HOPELESS` were and no other
                was released.
        """
        missing = [s for s in settled if s.reason]
        if not outcomes:
            return
        report = self.anonymizer.report(outcomes)
        if missing and self.on_withheld != "raise":
            dropped = sum(s.fields is None for s in missing)
            report = report.with_instead(replaced=len(missing) - dropped, dropped=dropped)
        total = self.reports.add(report)
        if not missing:
            return
        if total.seen - total.released == len(missing):
            said = "a sample was withheld (%s): %s. More are only counted, in the report"
            log.warning(said, missing[0].reason, missing[0].detail)
        if self.on_withheld == "raise":
            raise WithheldError(f"a sample was withheld ({missing[0].reason}): {missing[0].detail}")
        if not total.released and total.seen >= HOPELESS:
            raise WithheldError(f"the first {total.seen} samples were all withheld, the last: {missing[-1].detail}")
