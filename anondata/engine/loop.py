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
from anondata.engine.tracks import Track, Work
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

    def _parts(self, samples: Sequence[Sample], schema: Schema) -> Iterator[list[tuple[Sample, list[Work]]]]:
        """Samples decoded, as many at once as fit into :data:`AT_ONCE_BYTES`: huge ones go one by one."""
        part, held = list[tuple[Sample, list[Work]]](), 0
        for sample in samples:
            works = list(decoded(self.rules, len(part), sample, schema, self.device))
            part.append((sample, works))
            read = [(self.rules[schema.fields[w.field]].content, w.media) for w in works if w.media is not None]
            held += sum(content.held_bytes(media) for content, media in read)
            if held >= AT_ONCE_BYTES:
                yield part
                part, held = [], 0
        if part:
            yield part

    def _outcomes(self, part: Sequence[tuple[Sample, Sequence[Work]]], schema: Schema) -> list[Outcome]:
        samples, works = [sample for sample, _ in part], [work for _, own in part for work in own]
        by_type: dict[str, list[Work]] = defaultdict(list)
        for work in works:
            by_type[schema.fields[work.field]].append(work)
        done: list[dict[tuple[str, str], Work]] = [{} for _ in samples]
        for kind, group in by_type.items():
            for work in self._settle_apart(self.rules[kind], group):
                done[work.sample][work.field, work.name] = work
        outcomes = [self._outcome(i, sample, schema, done[i]) for i, sample in enumerate(samples)]
        for work in works:  # who asks for the next part holds this one still
            work.media = work.shown = None
        return outcomes

    def _settle_apart(self, rules: ContentRules, works: list[Work]) -> list[Work]:
        """Settles a batch; when it breaks, each sample alone, so that one cannot withhold the others."""
        good = [work for work in works if work.failure is None]
        if good:
            try:
                self._settle(rules, good)
            except _RUN_ERRORS:
                raise
            except Exception as error:  # noqa: BLE001 - fail closed: nothing may leave the loop unverified
                if len(good) == 1:
                    good[0].blame(error)
                else:
                    alone = [self._settle_apart(rules, [work.fresh()])[0] for work in good]
                    return [*(w for w in works if w.failure is not None and w not in good), *alone]
        return works

    def _settle(self, rules: ContentRules, works: list[Work]) -> None:
        given = cat_regions([w.given.renumbered(i) for i, w in enumerate(works)], self.device)
        found = find(rules, rules.detectors, [w.media for w in works], self.device)
        given, found, agreed = join(given, found, iou=SAME_IOU)
        self._add(rules, works, given.select(agreed), "given")
        self._add(rules, works, given.select(~agreed), "given", spare=False)  # nobody knows whose landmarks these are
        self._add(rules, works, found, "detect")
        self._look_behind(rules, [w for w in works if w.spared])
        open_works = works
        while open_works:
            self._render(rules, open_works)
            judge(rules.content, open_works, self.device)
            for work in open_works:
                if kind := uncovered_tiny(rules, work):
                    work.fail(
                        "tiny_uncovered",
                        f"a tiny {kind} lies under what was made of another kind; name {kind!r} later in the policy",
                    )
            sound = [w for w in open_works if w.failure is None and all(t.passed for t in w.tracks)]
            raised = [w for w in open_works if w.failure is None and w not in sound]
            for work in raised:
                self._escalate(work, [track for track in work.tracks if not track.passed])
            open_works = [w for w in raised if w.failure is None] + self._scan(rules, sound)

    def _add(
        self, rules: ContentRules, works: list[Work], found: Regions, found_by: str, *, spare: bool = True
    ) -> set[Work]:
        """Tracks new regions, with the templates of their originals; returns the works that got any."""
        fresh = [(int(r.image), Track(r.renumbered(0), rules.kinds[r.kinds[0]], found_by)) for r in found]
        known = [(i, t) for i, t in fresh if not t.tiny]
        templates = embed(rules.content, [w.media for w in works], known, self.device)
        for row, (_, track) in enumerate(known):
            track.before = {name: matrix[row] for name, matrix in templates.items()}
        name_people([track for _, track in known], self.device)
        partly = {i for i, t in known if len(works[i].denied) or not isinstance(t.rules.cover, Everyone)}
        hiding = {i for i in partly if rules.content.hidden(works[i].media)}
        candidates = [track for i, track in known if i not in hiding]  # templates see the view alone
        spared = spared_by_cover(candidates, self.device) if spare else set()
        if spare and found_by != "given":  # what somebody marked as a face, too, is one
            spared |= self._denied(works, [(i, t) for i, t in known if i not in hiding and t not in spared])
        for i, track in fresh:
            track.order = len(works[i].tracks)
            (works[i].spared if track in spared else works[i].tracks).append(track)
        return {works[i] for i, track in fresh if track not in spared}

    def _denied(self, works: list[Work], tracks: Sequence[tuple[int, Track]]) -> set[Track]:
        """Those that the publisher marked as no face, and that no gallery may know."""
        out = set[Track]()
        for i in {i for i, _ in tracks if len(works[i].denied)}:
            out |= spared_by_word([t for row, t in tracks if row == i], works[i].denied, self.device)
        return out

    def _look_behind(self, rules: ContentRules, works: list[Work]) -> set[Work]:
        """Looks for regions that one which was spared hid from the detectors; returns the works that have any.

        A stranger who looks out from behind somebody's shoulder is one detection with them, and would stay, too. So
        nobody stays whom somebody is found behind, beyond a touch of their boxes.
        """
        if not works:
            return set()
        masked = [without_spared(rules, w, w.media, self.device) for w in works]
        found = find(rules, keeping_doubtful(rules.detectors), masked, self.device)
        hiding: set[Work] = set()
        for i, work in enumerate(works):
            behind = unexplained(rules, work, found.of_image(i), self.device)
            for track in work.tracks:
                behind = behind.select(elsewhere(behind, track.region, iou=SAME_IOU))
            for track in work.spared:
                if bool((box_iou(behind.boxes, track.region.boxes) > BESIDE_IOU).any()):
                    track.order = len(work.tracks)
                    work.tracks.append(track)
            work.spared = [track for track in work.spared if track not in work.tracks]
            hiding |= self._add(rules, [work], behind.renumbered(0), "detect", spare=False)
        return hiding

    def _render(self, rules: ContentRules, works: list[Work]) -> None:
        pending: dict[int, list[tuple[int, Track]]] = defaultdict(list)
        techniques: dict[int, RegionTransform] = {}
        for i, work in enumerate(works):
            for track in work.tracks:
                if track.patch is None:
                    pending[id(track.technique)].append((i, track))
                    techniques[id(track.technique)] = track.technique
        for which, tracks in pending.items():
            regions = cat_regions([t.covered.renumbered(i) for i, t in tracks], self.device)
            seeds = [self._seed(works[i], t) for i, t in tracks]
            media = self._unmoved(rules, works, techniques[which], tracks)
            patches = rules.content.change(media, regions, techniques[which], seeds)
            for (_, track), patch in zip(tracks, patches, strict=True):
                track.patch = patch
        for work in works:
            work.value, work.shown = rules.content.render(rules.content.compose(work.media, work.patches()))

    def _unmoved(
        self, rules: ContentRules, works: list[Work], technique: RegionTransform, tracks: Sequence[tuple[int, Track]]
    ) -> list[Any]:
        """The originals that patches are made of, without what a technique would carry out from under its own patch.

        A face in a picture that is bent is seen beside where it was, too, and there no gate looks.
        """
        media = [work.media for work in works]
        if not technique.moves:
            return media
        for i in {i for i, _ in tracks}:
            kinds = {kind for row, t in tracks if row == i for kind in t.region.kinds}
            others = [t.region for t in works[i].tracks if not kinds & set(t.region.kinds)]
            regions = cat_regions(others, self.device)
            blanks = rules.content.change([media[i]], regions, rules.content.blank, [0] * len(regions))
            media[i] = rules.content.compose(media[i], blanks)
        return media

    def _seed(self, work: Work, track: Track) -> int:
        """Differs between techniques, too: noise that two strengths share cancels, and so does that of two boxes."""
        if track.person and track.technique.pseudonymous:
            return self._run_key.seed("person", track.person, describe(track.technique))
        boxes = [work.given.boxes.cpu().numpy().tobytes()] if len(work.given) else []
        return self._run_key.seed(work.key, work.name, track.order, track.rung, describe(track.technique), *boxes)

    @staticmethod
    def _escalate(work: Work, failed: Sequence[Track], by: str = "") -> None:
        """One rung up; beyond those that move what is there, too, where that is why. by: who failed them all."""
        for track in failed:
            blamed = by or track.failed_by
            while track.patch is not None or (by and track.technique.moves):
                if track.on_last_rung:
                    work.fail(
                        "still_recognised",
                        f"a {track.region.kinds[0]} still failed {blamed} on the last rung of its ladder",
                        raises=track.rules.raises,
                    )
                    return
                track.rung, track.patch = track.rung + 1, None

    def _scan(self, rules: ContentRules, works: list[Work]) -> list[Work]:
        """Looks for regions that the first pass missed; returns the works that must go round again."""
        if not works or not rules.scan_passes:
            return []
        found = scanned(rules, works, self.device)
        missed = [unexplained(rules, w, found.of_image(i), self.device).renumbered(i) for i, w in enumerate(works)]
        before = {work: len(work.spared) for work in works}
        moved = {w: t for i, w in enumerate(works) if (t := movers(rules, w, found.of_image(i), self.device))}
        again = self._add(rules, works, cat_regions(missed, self.device), "scan") | set(moved)
        again |= self._look_behind(rules, [work for work in works if len(work.spared) > before[work]])
        for track in (t for work in again for t in work.tracks if t.technique.moves):
            track.patch = None  # made of an original that showed what is only known now
        for work, tracks in moved.items():
            self._escalate(work, tracks, "the output scan")
        for work in works:
            work.scans += 1
            if work in again and work.failure is None and work.scans >= rules.scan_passes:
                work.fail("scan_unsettled", f"the output scan still found regions after {work.scans} passes")
        return [work for work in works if work in again and work.failure is None]

    def _outcome(self, index: int, sample: Sample, schema: Schema, done: Mapping[tuple[str, str], Work]) -> Outcome:
        works = list(done.values())
        told = self._insights(schema, works) if schema.insights() else ""
        record = SampleRecord(
            regions=tuple(record for work in works for record in work.records()),
            notes=tuple(n for w in works if w.media is not None for n in self._notes(schema, w)),
            scans=sum(work.scans for work in works),
        )
        for work in works:
            if work.failure is not None:
                if work.raises:
                    raise WithheldError(f"sample {index} of the batch was withheld: {work.failure[1]}")
                return Withheld(sample.key, *work.failure, record)
        changed: dict[str, dict[str, Any]] = defaultdict(dict)
        for (field, place), work in done.items():  # by field, too: one may be named as the place in another is
            changed[field][place] = work.value
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

    def _insights(self, schema: Schema, works: Sequence[Work]) -> str:
        """What was in a sample's content, in words that identify nobody; by place where there are several."""
        texts = []
        for work in works:
            if work.failure is None:
                found = cat_regions([t.region for t in (*work.tracks, *work.spared)], self.device)
                try:
                    text = self.rules[schema.fields[work.field]].content.insights(work.media, work.shown, found)
                except Exception as error:  # noqa: BLE001 - fail closed, as in the loop
                    work.blame(error)
                    continue
                texts.append(f"{work.name}: {text}" if len(works) > 1 else text)
        return " ".join(texts)

    def _notes(self, schema: Schema, work: Work) -> tuple[str, ...]:
        return (*self.rules[schema.fields[work.field]].content.notes(work.media), *work.notes)
