"""How a request is met: anonymized, evaluated, made whole, charged and put in place, from wherever it was stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anondata.errors import LedgerError, LimitError, PublishError, QuotaExceeded, RequestError, UnknownClientError
from anondata.requests.result import RequestResult

if TYPE_CHECKING:
    from datasets import Dataset

    from anondata.anonymizer import Anonymizer
    from anondata.ledger import Ledger
    from anondata.manifest import Manifest
    from anondata.publishing.publish import About
    from anondata.randomness import RunKey
    from anondata.requests.rows import Written
    from anondata.requests.terms import Terms
    from anondata.requests.workfolder import WorkFolder

Show = Callable[[str, int, int], None]
FEWEST = 2  # samples that an attack can confuse


@dataclass(frozen=True)
class Delivery:
    """How one request is met."""

    terms: Terms
    key: RunKey
    book: Ledger
    work: WorkFolder
    device: str
    show: Show

    def make(self) -> RequestResult:
        """Goes on from whatever is there. Raises as :func:`request` does."""
        charged = False
        if not self.work.is_delivered():
            self._prepare()
            charged = self._charge()
            self.work.deliver()
        result = self._result(charged_now=charged)
        self.work.done()
        return result

    def _prepare(self) -> None:
        """Makes the publication, if it is not there."""
        state = self.work.state
        charging = state is not None and state.charging  # what is left may be less by this very delivery
        granted = state.n if state is not None and charging else self._granted()
        if granted < FEWEST:
            raise RequestError("an audit needs at least two samples; ask for more")
        self.work.begin(granted)
        if not self.work.is_ready():
            self._publish(*self._anonymize(granted))

    def _granted(self) -> int:
        """How many samples may be had. Where nothing is set up yet, what is wrong with the catalog is told first."""
        from anondata.requests.source import check_place, loaded, quiet
        from anondata.requests.terms import grant

        check_place(self.terms)
        try:
            return grant(self.book, self.terms.scope, self.terms.asked)
        except LedgerError:  # no ledger, or no limit of this client
            with quiet():
                loaded(self.terms)
            raise

    def _anonymize(self, n: int) -> tuple[Dataset, list[Written]]:
        """Writes as many rows as may be delivered; those that are withheld are replaced by the next candidates."""
        from anondata.loaders import hf
        from anondata.requests.rows import collect
        from anondata.requests.source import candidates, drawn, loaded, quiet, texts_by_row

        with quiet():
            self.show("obtaining", 0, 1)
            found = loaded(self.terms)
            order = drawn(candidates(self.terms, found), self.key)
            texts = texts_by_row(self.terms, found)
            originals = found.select(order)
            schema = self.terms.schema
            view = hf.anonymize(
                originals,
                self._anonymizer(n),
                fields={name: kind for name, kind in schema.fields.items() if kind not in ("keep", "drop")},
                keep=schema.kept(),
                drop=[name for name, kind in schema.fields.items() if kind == "drop"],
                group=self.terms.entry.group,
            )
            view.materialize(self.work.rows, on_withheld="drop", at_most=n, cache_dir=self.work.cache)
        at = {position: texts[row] for position, row in enumerate(order) if row in texts}
        column = self.terms.insights
        return originals, collect(self.work.rows, self.work.output, self.key, column=column, texts=at)

    def _anonymizer(self, n: int) -> Anonymizer:
        """One that tells how far it is."""
        from anondata.anonymizer import Anonymizer
        from anondata.records import Outcome, Released
        from anondata.samples import Sample, Schema

        show, done = self.show, 0

        class Watched(Anonymizer):
            def run(self, samples: Any, schema: Schema) -> list[Outcome]:
                nonlocal done
                outcomes = super().run(list[Sample](samples), schema)
                done += sum(isinstance(one, Released) for one in outcomes)
                show("anonymizing", min(done, n), n)
                return outcomes

        made = Watched(self.terms.policy, device=self.device, run_key=self.key, galleries=dict(self.terms.galleries))
        made.prepare(progress=self.show)
        return made

    def _publish(self, originals: Dataset, written: list[Written]) -> None:
        """Attacks what was written and, if it is strong enough, makes all of what will be delivered."""
        from anondata.publishing.checks import sealed_audit
        from anondata.publishing.publish import publish
        from anondata.requests.rows import NOTHING, Evaluation

        total = sum(len(one.rows) for one in written)
        if not total:
            raise RequestError(f"none of {len(originals)} candidates could be delivered; {NOTHING}")
        evaluation = Evaluation(
            originals,
            self.work.output,
            written,
            self.terms.schema,
            self.terms.entry.identity,
            self.device,
            lambda done: self.show("evaluating", done, total),
        )
        self.work.audit.write_text(json.dumps(sealed_audit(evaluation.body(), self.key), indent=1) + "\n")
        try:
            publish(
                self.work.output,
                audit=self.work.audit,
                about=self._about(),
                to=self.work.publication,
                run_key=self.key,
                show=self.show,
            )
        except PublishError as error:
            raise RequestError(f"{error}; {NOTHING}") from error

    def _about(self) -> About:
        from anondata.publishing.publish import About

        entry = self.terms.entry
        title = entry.title or self.terms.asked.dataset
        return About(title, entry.licence, entry.summary, sources=tuple(entry.source))

    def _charge(self) -> bool:
        """Charges the publication as a whole, unless that was done. Returns whether it was done now."""
        from anondata.requests.rows import cost_of_all
        from anondata.requests.workfolder import manifest_of

        manifest = manifest_of(self.work.publication, self.key)
        costs = {self.terms.scope: cost_of_all(self.work.publication, manifest)}
        self.work.charging(True)
        try:
            return self.book.charge_once(
                self.key.name("delivery", str(self.work.out), _content(manifest)),
                costs,
                policy=manifest.policy.fingerprint,
                report=self.key.name("report"),
            )
        except (LimitError, QuotaExceeded, UnknownClientError):  # of others nobody knows whether it was made
            self.work.charging(False)
            raise

    def _result(self, *, charged_now: bool) -> RequestResult:
        from anondata.publishing.layout import AUDIT
        from anondata.requests.rows import cost_of_all
        from anondata.requests.workfolder import manifest_of

        asked, state = self.terms.asked, self.work.state
        manifest = manifest_of(self.work.out, self.key)
        cost = cost_of_all(self.work.out, manifest)
        delivered = cost["samples"]
        known = state.n if state else delivered if asked.as_many_as_there_are else asked.n
        return RequestResult(
            self.work.out,
            asked.client,
            asked.dataset,
            self.terms.content_type,
            asked.n,
            known,
            delivered,
            manifest.report.seen,
            manifest.report.withheld,
            json.loads((self.work.out / AUDIT).read_text())["verdict"],
            manifest.policy.name,
            manifest.policy.fingerprint,
            self.key.name("report"),
            cost,
            charged_now,
        )


def _content(manifest: Manifest) -> str:
    """Stands for the rows that are delivered, and not for the day on which the card was written."""
    from anondata.manifest import content_digest
    from anondata.publishing.layout import DATA

    return content_digest(one.sha256 for name, one in manifest.files.items() if name.startswith(DATA))
