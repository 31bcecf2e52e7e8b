"""The loop that every sample goes through, whatever its content type.

::

    decode ─► detect ─► templates before ─► rung 1 ─► compose ─► render ─► verify ─► scan ─► Released
                                              ▲                               │ fails   │ finds more
                                              └───────── next rung ◄──────────┴─────────┘
                                                             │ ladder exhausted
                                                             └─► Withheld(reason)

What is verified is the rendered value decoded again, so the verifiers' last look is at what the consumer gets.
A stronger rung starts from the original region. There is no third way out: an exception inside the loop withholds
the sample it belongs to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from anondata.content.given import UNREADABLE, join, released
from anondata.detectors.pyramid import box_iou
from anondata.engine.detection import (
    BESIDE_IOU,
    SAME_IOU,
    elsewhere,
    find,
    keeping_doubtful,
    movers,
    scanned,
    uncovered_tiny,
    unexplained,
    without_spared,
)
from anondata.engine.identities import name_people, spared_by_cover, spared_by_word
from anondata.engine.inputs import decoded
from anondata.engine.rules import ContentRules, Everyone
from anondata.engine.state import HELD, Item, RegionState
from anondata.engine.verification import embed, judge
from anondata.errors import FieldTypeError, GalleryError, MissingExtraError, PolicyError, WeightsError, WithheldError
from anondata.randomness import RunKey
from anondata.records import Outcome, Released, SampleRecord, Withheld
from anondata.regions import Regions, cat_regions
from anondata.samples import Sample, Schema, is_masks, is_regions, path_of, with_leaves
from anondata.transforms.base import RegionTransform, describe

# These concern the whole run, not the sample at hand: withholding every sample would hide them.
_RUN_ERRORS = (PolicyError, WeightsError, MissingExtraError, GalleryError)

AT_ONCE_BYTES = 1 << 28  # of decoded samples: eight pictures of 11 megapixels, or one of any size


class Engine:
    """Anonymizes samples by rules, verifies them, and withholds what cannot be made safe.

    Args:
        rules: by content type. They hold no state, so an engine may be used from several threads at once.
        run_key: the secret of this run's randomness.
        device: where pictures, crops and networks live.
    """

    def __init__(
        self,
        rules: Mapping[str, ContentRules],
        *,
        run_key: RunKey | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rules = dict(rules)
        self.device = torch.device(device)
        self._run_key = run_key or RunKey()

    @torch.no_grad()  # not inference_mode: users train on what comes out
    def run(self, samples: Sequence[Sample], schema: Schema) -> list[Outcome]:
        """One outcome for each sample, in order.

        A field may hold a list or tuple of values of its content type, also nested: each is anonymized, and the
        sample is released when all of them are safe. A field of regions then holds a list of the same shape.

        Raises:
            UndeclaredFieldError: for a field that the schema does not name, before anything is done.
            PolicyError: for a field of a content type, or a detected kind of region, without rules, or a field of
                regions that does not say whose.
            WithheldError: when a ladder is exhausted and the policy says ``raise``.
        """
        schema.check_content_types(self.rules)
        schema.regions()
        for sample in samples:
            schema.check(sample.fields)
        return [o for part in self._parts(samples, schema) for o in self._outcomes(part, schema)]

    def _parts(self, samples: Sequence[Sample], schema: Schema) -> Iterator[list[tuple[Sample, list[Item]]]]:
        """Samples decoded, as many at once as fit into :data:`AT_ONCE_BYTES`: huge ones go one by one."""
        part, held = list[tuple[Sample, list[Item]]](), 0
        for sample in samples:
            items = list(decoded(self.rules, len(part), sample, schema, self.device))
            part.append((sample, items))
            read = [(self.rules[w.kind].content, w.media) for w in items if w.media is not None]
            held += sum(content.held_bytes(media) for content, media in read)
            if held >= AT_ONCE_BYTES:
                yield part
                part, held = [], 0
        if part:
            yield part

    def _outcomes(self, part: Sequence[tuple[Sample, Sequence[Item]]], schema: Schema) -> list[Outcome]:
        samples, items = [sample for sample, _ in part], [item for _, own in part for item in own]
        by_type: dict[str, list[Item]] = defaultdict(list)
        for item in items:
            by_type[item.kind or schema.fields[item.field]].append(item)
        done: list[dict[tuple[str, str], Item]] = [{} for _ in samples]
        for kind, group in by_type.items():
            for item in self._settle_apart(self.rules[kind], group):
                done[item.sample][item.field, item.name] = item
        outcomes = [self._outcome(i, sample, schema, done[i]) for i, sample in enumerate(samples)]
        for item in items:  # who asks for the next part holds this one still
            item.media = item.shown = None
        return outcomes

    def _settle_apart(self, rules: ContentRules, items: list[Item]) -> list[Item]:
        """Settles a batch; when it breaks, each sample alone, so that one cannot withhold the others."""
        good = [item for item in items if item.failure is None]
        if good:
            try:
                self._settle(rules, good)
            except _RUN_ERRORS:
                raise
            except Exception as error:  # noqa: BLE001 - fail closed: nothing may leave the loop unverified
                if len(good) == 1:
                    good[0].blame(error)
                else:
                    alone = [self._settle_apart(rules, [item.fresh()])[0] for item in good]
                    return [*(w for w in items if w.failure is not None and w not in good), *alone]
        return items

    def _settle(self, rules: ContentRules, items: list[Item]) -> None:
        given = cat_regions([w.given.renumbered(i) for i, w in enumerate(items)], self.device)
        found = find(rules, rules.detectors, [w.media for w in items], self.device)
        given, found, agreed = join(given, found, iou=SAME_IOU)
        self._add(rules, items, given.select(agreed), "given")
        self._add(rules, items, given.select(~agreed), "given", spare=False)  # nobody knows whose landmarks these are
        self._add(rules, items, found, "detect")
        self._follow(rules, items)
        self._look_behind(rules, [w for w in items if w.spared])
        open_items = items
        while open_items:
            self._render(rules, open_items)
            judge(rules.content, open_items, self.device)
            for item in open_items:
                if kind := uncovered_tiny(rules, item):
                    item.fail(
                        "tiny_uncovered",
                        f"a tiny {kind} lies under what was made of another kind; name {kind!r} later in the policy",
                    )
            sound = [w for w in open_items if w.failure is None and all(t.passed for t in w.states)]
            raised = [w for w in open_items if w.failure is None and w not in sound]
            for item in raised:
                self._escalate(item, item.with_alike([state for state in item.states if not state.passed]))
            open_items = [w for w in raised if w.failure is None] + self._scan(rules, sound)

    def _add(
        self, rules: ContentRules, items: list[Item], found: Regions, found_by: str, *, spare: bool = True
    ) -> set[Item]:
        """Adds new regions, with the templates of their originals; returns the items that got any."""
        fresh = [(int(r.image), RegionState(r.renumbered(0), rules.kinds[r.kinds[0]], found_by)) for r in found]
        known = [(i, t) for i, t in fresh if not t.tiny]
        templates = embed(rules.content, [w.media for w in items], known, self.device)
        for row, (_, state) in enumerate(known):
            state.before = {name: matrix[row] for name, matrix in templates.items()}
        name_people([state for _, state in known], self.device)
        partly = {i for i, t in known if len(items[i].denied) or not isinstance(t.rules.cover, Everyone)}
        hiding = {i for i in partly if rules.content.hidden(items[i].media)}
        candidates = [state for i, state in known if i not in hiding]  # templates see the view alone
        spared = spared_by_cover(candidates, self.device) if spare else set()
        if spare and found_by != "given":  # what somebody marked as a face, too, is one
            spared |= self._denied(items, [(i, t) for i, t in known if i not in hiding and t not in spared])
        for i, state in fresh:
            state.order = len(items[i].states)
            (items[i].spared if state in spared else items[i].states).append(state)
        return {items[i] for i, state in fresh if state not in spared}

    def _follow(self, rules: ContentRules, items: Sequence[Item]) -> set[Item]:
        """Follows regions that stay: adds them where detectors lost them, and gives each one look.

        Returns:
            The items in which there is more to change than before.
        """
        more = {item for item in items if item.follow(rules.content)}
        for item in items:
            seen = cat_regions([t.region for t in item.states if not t.held], self.device)
            lost = rules.content.held(item.media, seen) if len(seen) else seen
            for state in item.states if len(lost) else ():
                lost = lost.select(elsewhere(lost, state.region, iou=SAME_IOU))
            if len(lost):
                more |= self._add(rules, [item], lost.renumbered(0), HELD, spare=False)
                item.follow(rules.content)
        return more

    def _denied(self, items: list[Item], states: Sequence[tuple[int, RegionState]]) -> set[RegionState]:
        """Those that the publisher marked as no face, and that no gallery may know."""
        out = set[RegionState]()
        for i in {i for i, _ in states if len(items[i].denied)}:
            out |= spared_by_word([t for row, t in states if row == i], items[i].denied, self.device)
        return out

    def _look_behind(self, rules: ContentRules, items: list[Item]) -> set[Item]:
        """Looks for regions that one which was spared hid from the detectors; returns the items that have any.

        A stranger who looks out from behind somebody's shoulder is one detection with them, and would stay, too. So
        nobody stays whom somebody is found behind, beyond a touch of their boxes.
        """
        if not items:
            return set()
        masked = [without_spared(rules, w, w.media, self.device) for w in items]
        found = find(rules, keeping_doubtful(rules.detectors), masked, self.device)
        hiding: set[Item] = set()
        for i, item in enumerate(items):
            behind = unexplained(rules, item, found.of_image(i), self.device)
            for state in item.states:
                behind = behind.select(elsewhere(behind, state.region, iou=SAME_IOU))
            for state in item.spared:
                if bool((box_iou(behind.boxes, state.region.boxes) > BESIDE_IOU).any()):
                    state.order = len(item.states)
                    item.states.append(state)
            item.spared = [state for state in item.spared if state not in item.states]
            hiding |= self._add(rules, [item], behind.renumbered(0), "detect", spare=False)
        return hiding | self._follow(rules, items)

    def _render(self, rules: ContentRules, items: list[Item]) -> None:
        pending: dict[int, list[tuple[int, RegionState]]] = defaultdict(list)
        techniques: dict[int, RegionTransform] = {}
        for i, item in enumerate(items):
            for state in item.states:
                if state.patch is None:
                    pending[id(state.technique)].append((i, state))
                    techniques[id(state.technique)] = state.technique
        for which, states in pending.items():
            regions = cat_regions([t.covered.renumbered(i) for i, t in states], self.device)
            seeds = [self._seed(items[i], t) for i, t in states]
            media = self._unmoved(rules, items, techniques[which], states)
            patches = rules.content.change(media, regions, techniques[which], seeds)
            for (_, state), patch in zip(states, patches, strict=True):
                state.patch = patch
        for item in items:
            item.value, item.shown = rules.content.render(rules.content.compose(item.media, item.patches()))

    def _unmoved(
        self,
        rules: ContentRules,
        items: list[Item],
        technique: RegionTransform,
        states: Sequence[tuple[int, RegionState]],
    ) -> list[Any]:
        """The originals that patches are made of, without what a technique would carry out from under its own patch.

        A face in a picture that is bent is seen beside where it was, too, and there no gate looks.
        """
        media = [item.media for item in items]
        if not technique.moves:
            return media
        for i in {i for i, _ in states}:
            kinds = {kind for row, t in states if row == i for kind in t.region.kinds}
            others = [t.region for t in items[i].states if not kinds & set(t.region.kinds)]
            regions = cat_regions(others, self.device)
            blanks = rules.content.change([media[i]], regions, rules.content.blank, [0] * len(regions))
            media[i] = rules.content.compose(media[i], blanks)
        return media

    def _seed(self, item: Item, state: RegionState) -> int:
        """Differs between techniques, too: noise that two strengths share cancels, and so does that of two boxes."""
        if state.person and state.technique.pseudonymous:
            return self._run_key.seed("person", state.person, describe(state.technique))
        boxes = [item.given.boxes.cpu().numpy().tobytes()] if len(item.given) else []
        return self._run_key.seed(item.key, item.name, state.look, state.rung, describe(state.technique), *boxes)

    @staticmethod
    def _escalate(item: Item, failed: Sequence[RegionState], by: str = "") -> None:
        """One rung up; beyond those that move what is there, too, where that is why. by: who failed them all."""
        for state in failed:
            blamed = by or state.failed_by
            while state.patch is not None or (by and state.technique.moves):
                if state.on_last_rung:
                    item.fail(
                        "still_recognised",
                        f"a {state.region.kinds[0]} still failed {blamed} on the last rung of its ladder",
                        raises=state.rules.raises,
                    )
                    return
                state.rung, state.patch = state.rung + 1, None

    def _scan(self, rules: ContentRules, items: list[Item]) -> list[Item]:
        """Looks for regions that the first pass missed; returns the items that must go round again."""
        if not items or not rules.scan_passes:
            return []
        found = scanned(rules, items, self.device)
        missed = [unexplained(rules, w, found.of_image(i), self.device).renumbered(i) for i, w in enumerate(items)]
        before = {item: len(item.spared) for item in items}
        moved = {w: t for i, w in enumerate(items) if (t := movers(rules, w, found.of_image(i), self.device))}
        again = self._add(rules, items, cat_regions(missed, self.device), "scan") | set(moved)
        again |= self._follow(rules, items)
        again |= self._look_behind(rules, [item for item in items if len(item.spared) > before[item]])
        for state in (t for item in again for t in item.states if t.technique.moves):
            state.patch = None  # made of an original that showed what is only known now
        for item, states in moved.items():
            self._escalate(item, item.with_alike(states), "the output scan")
        for item in items:
            item.scans += 1
            if item in again and item.failure is None and item.scans >= rules.scan_passes:
                item.fail("scan_unsettled", f"the output scan still found regions after {item.scans} passes")
        return [item for item in items if item in again and item.failure is None]

    def _outcome(self, index: int, sample: Sample, schema: Schema, done: Mapping[tuple[str, str], Item]) -> Outcome:
        items = list(done.values())
        told = self._insights(items) if schema.insights() else ""
        record = SampleRecord(
            regions=tuple(r for w in items if w.media is not None for r in w.records(self.rules[w.kind].content)),
            notes=tuple(n for w in items if w.media is not None for n in self._notes(w)),
            scans=sum(item.scans for item in items),
        )
        for item in items:
            if item.failure is not None:
                if item.raises:
                    raise WithheldError(f"sample {index} of the batch was withheld: {item.failure[1]}")
                return Withheld(sample.key, *item.failure, record)
        changed: dict[str, dict[str, Any]] = defaultdict(dict)
        for (field, place), item in done.items():  # by field, too: one may be named as the place in another is
            changed[field][place] = item.value
        kept = {n: sample.fields[n] for n in schema.unchanged() if n in sample.fields}
        try:
            kept |= {n: released(kept[n], name=n, path=path_of(k)) for n, k in self._boxes(schema) if n in kept}
        except (FieldTypeError, *UNREADABLE):  # such as one of several values that no picture stands beside
            why = "a field of regions cannot be written without what else it holds"
            return Withheld(sample.key, "wrong_regions", why, record)
        content = {n: with_leaves(sample.fields[n], n, changed[n]) for n in schema.content()}
        fields = {n: content[n] if n in content else kept[n] for n in sample.fields if n in content or n in kept}
        return Released(Sample(sample.key, {**fields, **dict.fromkeys(schema.insights(), told)}), record)

    @staticmethod
    def _boxes(schema: Schema) -> list[tuple[str, str]]:
        return [(name, kind) for name, kind in schema.fields.items() if is_regions(kind) and not is_masks(kind)]

    def _insights(self, items: Sequence[Item]) -> str:
        """What was in a sample's content, in words that identify nobody; by place where there are several."""
        texts = []
        for item in items:
            if item.failure is None:
                found = cat_regions([t.region for t in (*item.states, *item.spared)], self.device)
                try:
                    text = self.rules[item.kind].content.insights(item.media, item.shown, found)
                except Exception as error:  # noqa: BLE001 - fail closed, as in the loop
                    item.blame(error)
                    continue
                texts.append(f"{item.name}: {text}" if len(items) > 1 else text)
        return " ".join(texts)

    def _notes(self, item: Item) -> tuple[str, ...]:
        return (*self.rules[item.kind].content.notes(item.media), *item.notes)
