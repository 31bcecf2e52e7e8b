"""One shard: read as a stream, anonymized, written to a temporary tar, scanned, and put in place."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TypeAlias

from anondata.errors import LeakError, QuotaExceeded, ShardsError, UnreadableSourceError, WithheldError
from anondata.ledger.costs import cost_of, total
from anondata.loaders._flow import HOPELESS, Flow
from anondata.loaders._parts import WORK_FOLDER, Part, Parts
from anondata.loaders._spares import group_of
from anondata.loaders._wds_fields import Fields
from anondata.loaders.leaks import Traces
from anondata.loaders.shards.read import Left, Stream, samples
from anondata.loaders.shards.sources import Shard
from anondata.loaders.shards.write import Slots, Spool, true_name, write_tar
from anondata.manifest import digest_of
from anondata.records import Outcome, Released, Withheld
from anondata.report import Report
from anondata.samples import Schema

Lost: TypeAlias = tuple[str, str, str]
"""A sample that was withheld: its key, which may name somebody, the reason, and the detail."""

Tell: TypeAlias = Callable[[int, int, Sequence[Lost]], None]
"""Takes how many samples of the shard were seen, how many of them were withheld, and which since it was last told."""

NOTE = "anondata.txt"
"""Field that says of each sample ``released`` or ``replaced: REASON``; there only when samples may be replaced."""

OF_ONE_SHARD = (UnreadableSourceError, ShardsError, WithheldError, LeakError)
"""What stops one shard, while others may go on. All other errors would stop the next one, too."""


@dataclass(frozen=True)
class Recipe:
    """How shards are anonymized; it can be pickled. total: how many shards there are, for messages."""

    flow: Flow
    fields: Fields
    rename_keys: bool
    total: int

    @property
    def setting(self) -> dict[str, str]:
        """What all runs into one place must share. It tells nothing of the run key."""
        renamed = "yes" if self.rename_keys else "no"
        return {**self.flow.setting("shards"), "fields": self.fields.words, "rename_keys": renamed}

    def version(self, shard: Shard) -> str:
        """What stands for a shard's version and this setting, by the run key: an ETag is a digest of the original.

        Raises: UnreadableSourceError.
        """
        setting = hashlib.sha256(repr(sorted(self.setting.items())).encode()).hexdigest()
        try:
            return self.flow.anonymizer.name("version", setting, shard.version())
        except UnreadableSourceError as error:
            raise _about(shard, self.total, error) from error


def make(recipe: Recipe, parts: Parts, shard: Shard, tell: Tell) -> Part:
    """Anonymizes one shard, and puts the result in place. Whatever happens, nothing half is there.

    Raises:
        UnreadableSourceError, ShardsError, WithheldError, LeakError: this shard cannot be done.
    """
    version = recipe.version(shard)
    _check_room(recipe, parts, shard, version)
    folder = parts.temporary()
    try:
        made, traces, left = folder / "shard.tar", Traces(), Left()
        with closing(Stream(shard.fs, shard.place)) as stream, Spool(folder / "spool") as spool:
            work = _Work(recipe, spool, traces)
            work.take(samples(stream, left), tell)
            index = write_tar(made, work.result())
        traces.check_file(made)
        if recipe.version(shard) != version:
            raise UnreadableSourceError("was changed while it was read; run again")
        tell(work.report.seen, work.report.seen - work.report.released, ())  # fails when nobody waits for the result
        facts = {"samples": work.written, "left_alone": left.members}
        if recipe.flow.account is not None and work.cost:  # before anything of it is in place
            content = digest_of(made).sha256  # a version can stay the same where originals change
            delivery = recipe.flow.anonymizer.name("delivery", parts.out, shard.name, version, content)
            try:
                recipe.flow.account.charge_once(delivery, work.cost)
            except QuotaExceeded:
                parts.write(_refused(shard), json.dumps({"version": version, "cost": work.cost}).encode())
                raise
            parts.remove(_refused(shard))
        parts.write(f"{Path(shard.name).stem}.idx", index.encode(errors="surrogateescape"))
        return parts.commit(
            made, shard.name, version=version, report=work.report, facts=facts, originals=work.originals
        )
    except OF_ONE_SHARD as error:
        raise _about(shard, recipe.total, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_room(recipe: Recipe, parts: Parts, shard: Shard, version: str) -> None:
    """Raises QuotaExceeded for a shard that was refused before, while there is no room for it: not worth the work."""
    if recipe.flow.account is None or (told := parts.read(_refused(shard))) is None:
        return
    try:
        before = json.loads(told)
        cost = before["cost"] if before["version"] == version else {}
    except (ValueError, KeyError, TypeError):
        return
    if cost:
        recipe.flow.account.check_room(cost)


def _refused(shard: Shard) -> str:
    return f"{WORK_FOLDER}/refused/{shard.name}.json"


def _about(shard: Shard, total: int, error: Exception) -> Exception:
    which, text = f"shard {shard.number} of {total}", str(error)
    if text.startswith(which):
        return error
    between = " " if isinstance(error, UnreadableSourceError | ShardsError) else ": "
    return type(error)(f"{which}{between}{text}")


@dataclass(slots=True)
class _Sample:
    """A sample between the two passes.

    slots: where its released values are; None where it was withheld. digest: of its content, then. cost: of its
    released values, where there is an account. originals: keyed digests of what they were made of.
    """

    key: str
    group: Hashable
    slots: Slots | None
    reason: str = ""
    digest: str = ""
    cost: dict[str, dict[str, int]] = field(default_factory=dict)
    originals: tuple[str, ...] = ()


@dataclass
class _Work:
    """The two passes over a shard: anonymize all, then write them in order, with stand-ins where they belong."""

    recipe: Recipe
    spool: Spool
    traces: Traces
    report: Report = field(init=False)
    written: int = 0
    cost: dict[str, dict[str, int]] = field(default_factory=dict)
    originals: list[str] = field(default_factory=list)
    _done: list[_Sample] = field(default_factory=list)
    _lost: list[Lost] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.report = self.recipe.flow.anonymizer.report([])

    def take(self, stream: Iterable[dict[str, Any]], tell: Tell) -> None:
        """The first pass.

        Raises:
            WithheldError: a sample was withheld and ``on_withheld`` says so, or nothing was released for long.
        """
        for batch in self.recipe.flow.batches(stream):
            keyed = [(self.recipe.fields.of(n for n in sample if n != "__key__"), sample) for sample in batch]
            for schema, part in groupby(keyed, key=lambda pair: pair[0]):
                self._settle([sample for _, sample in part], schema)
            tell(self.report.seen, self.report.seen - self.report.released, tuple(self._lost))
            self._lost.clear()

    def _settle(self, members: Sequence[dict[str, Any]], schema: Schema) -> None:
        rows = [{name: value for name, value in sample.items() if name in schema.fields} for sample in members]
        outcomes = [self._named(o, schema) for o in self.recipe.flow.outcomes(rows, schema)]
        self.report = self.report + self.recipe.flow.anonymizer.report([outcome for outcome, _ in outcomes])
        for sample, row, (outcome, fields) in zip(members, rows, outcomes, strict=True):
            originals = {name: row[name] for name in schema.content() if name in row}
            released = {n: outcome.sample[n] for n in originals} if isinstance(outcome, Released) else {}
            kept = {name: row[name] for name in schema.kept() if name in row}
            self.traces.add(originals, outcome.record, released, kept)
            self._done.append(self._kept(sample["__key__"], row, outcome, fields))
            if isinstance(outcome, Withheld):
                self._lost.append((sample["__key__"], outcome.reason, outcome.detail))
        withheld = [outcome for outcome, _ in outcomes if isinstance(outcome, Withheld)]
        if withheld:
            self._refuse(withheld[-1])

    def _kept(self, key: str, row: Mapping[str, Any], outcome: Outcome, fields: Mapping[str, bytes]) -> _Sample:
        flow = self.recipe.flow
        group = group_of(flow.group, {name: row[name] for name in flow.schema.kept() if name in row})
        if isinstance(outcome, Withheld):
            return _Sample(key, group, None, outcome.reason, outcome.key)
        cost = cost_of(outcome.sample.fields, flow.schema, outcome.record) if flow.account is not None else {}
        return _Sample(key, group, self.spool.add(fields), cost=cost, originals=flow.originals(row))

    def _named(self, outcome: Outcome, schema: Schema) -> tuple[Outcome, dict[str, bytes]]:
        """An outcome with its fields under the names that tell how they were written."""
        if isinstance(outcome, Withheld):
            return outcome, {}
        content, fields = schema.content(), dict[str, bytes]()
        for name, value in outcome.sample.fields.items():
            true = true_name(name, value) if name in content else name
            if true in fields:
                why = "a field would have the name of another one, once its suffix tells how it was written"
                record = replace(outcome.record, regions=())
                return Withheld(outcome.sample.key, "name_taken", why, record), {}
            fields[true] = value.encode() if name in schema.insights() else value
        return outcome, fields

    def _refuse(self, last: Withheld) -> None:
        if self.recipe.flow.on_withheld == "raise":
            raise WithheldError(f"a sample was withheld ({last.reason}): {last.detail}")
        if not self.report.released and self.report.seen >= HOPELESS:
            raise WithheldError(f"its first {self.report.seen} samples were all withheld, the last: {last.detail}")

    def result(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """The second pass: key and values of each sample, in the order of the shard, or of the new keys."""
        groups = defaultdict[Hashable, list[_Sample]](list)
        for sample in self._done:
            if sample.slots is not None:
                groups[sample.group].append(sample)
        for key, sample in self._in_order():
            source = sample if sample.slots is not None else self._stand_in(groups, sample)
            if source is not None and source.slots is not None:
                self.written += 1
                self.cost = total([self.cost, source.cost])
                self.originals += source.originals
                yield key, {**self.spool.get(source.slots), **self._note(sample)}
        missing = sum(sample.slots is None for sample in self._done)
        if missing:
            dropped = len(self._done) - self.written
            self.report = self.report.with_instead(replaced=missing - dropped, dropped=dropped)

    def _stand_in(self, groups: Mapping[Hashable, list[_Sample]], sample: _Sample) -> _Sample | None:
        """A released sample of the same group (of any, where it has none) for one that was withheld."""
        flow = self.recipe.flow
        if flow.on_withheld != "replace":
            return None
        others = groups.get(sample.group, []) if sample.group is not None else list(chain(*groups.values()))
        return others[flow.anonymizer.draw("stand-in", sample.digest) % len(others)] if others else None

    def _note(self, sample: _Sample) -> dict[str, bytes]:
        if self.recipe.flow.on_withheld != "replace":
            return {}
        return {NOTE: (f"replaced: {sample.reason}" if sample.reason else "released").encode()}

    def _in_order(self) -> list[tuple[str, _Sample]]:
        if not self.recipe.rename_keys:
            return [(sample.key, sample) for sample in self._done]
        name = self.recipe.flow.anonymizer.name
        return sorted(((name("key", sample.key), sample) for sample in self._done), key=lambda pair: pair[0])
