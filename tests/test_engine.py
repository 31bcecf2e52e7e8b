"""The loop: what leaves it was verified, and there is no third way out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from anondata import Anonymizer, Engine, Released, RunKey, Sample, Withheld
from anondata.content.images import ImageContent, Patch
from anondata.engine.rules import ContentRules, KindRules, rules_of
from anondata.errors import PolicyError, UndeclaredFieldError, WeightsError, WithheldError
from anondata.policy import load_policy
from anondata.protocols import Probe, Verdicts
from anondata.regions import Regions, cat_regions
from anondata.samples import Schema
from anondata.transforms import Fill, Pixelate, RegionTransform

IMAGE = Schema({"image": "image"})
BOX = [170.0, 60.0, 270.0, 190.0]


def region(box: Sequence[float], image: int = 0, kind: str = "face") -> Regions:
    return Regions(
        torch.tensor([image]), torch.tensor([list(box)]), torch.full((1, 5, 2), torch.nan), torch.ones(1), (kind,)
    )


@dataclass(frozen=True)
class Finds:
    """A detector that finds fixed boxes in every picture; ``unless`` this value is at the centre of the box."""

    boxes: tuple[tuple[float, ...], ...] = (tuple(BOX),)
    kind: str = "face"

    def detect(self, views: Sequence[Tensor]) -> Regions:
        return cat_regions([region(b, i, self.kind) for i in range(len(views)) for b in self.boxes])


@dataclass(frozen=True)
class Breaks:
    error: type[BaseException] = RuntimeError

    def detect(self, views: Sequence[Tensor]) -> Regions:
        raise self.error("a text that quotes secret-name.jpg")

    def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
        raise self.error("a text that quotes secret-name.jpg")

    name = "breaks"


@dataclass(frozen=True)
class MeanColour:
    """An embedder: the mean colour of a box."""

    name: str = "mean"

    def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
        rows = []
        for i, (x0, y0, x1, y1) in zip(regions.image.tolist(), regions.boxes.int().tolist(), strict=True):
            rows.append(views[i][:, y0:y1, x0:x1].float().mean(dim=(1, 2)))
        return torch.stack(rows)


@dataclass(frozen=True)
class Moved:
    """A gate: passes where the template moved by more than ``by``; counts what it was shown."""

    by: float
    embedder: Any = field(default_factory=MeanColour)
    seen: list[int] = field(default_factory=list)
    name: str = "moved"

    @property
    def embedders(self) -> Sequence[Any]:
        return (self.embedder,)

    def judge(self, probe: Probe) -> Verdicts:
        self.seen.append(len(probe.regions))
        name = self.embedder.name
        distance = (probe.after[name] - probe.before[name]).norm(dim=1)
        return Verdicts(self.name, distance * 0, distance, torch.full_like(distance, self.by), distance > self.by)


def engine(
    *,
    ladder: Sequence[RegionTransform] = (Fill((1.0, 1.0, 1.0)),),
    verifier: Any = None,
    detector: Any = None,
    scanner: Any = None,
    passes: int = 0,
    **kind: Any,
) -> Engine:
    verifiers = verifier if isinstance(verifier, tuple) else (verifier or Moved(1.0),)
    rules = KindRules(tuple(ladder), verifiers, **kind)
    content = ContentRules(
        ImageContent(), (detector or Finds(),), {"face": rules}, (scanner,) if scanner else (), passes
    )
    return Engine({"image": content}, run_key=RunKey(b"0123456789abcdef"))


def run(made: Engine, *images: Any) -> list[Any]:
    return made.run([Sample(f"secret-{i}.jpg", {"image": image}) for i, image in enumerate(images)], IMAGE)


def test_real_faces_are_changed_verified_and_released(astronaut: Tensor, party_jpeg: bytes) -> None:
    one, six = Anonymizer("faces").anonymize([astronaut, party_jpeg])
    assert [type(one), type(six)] == [Released, Released]
    found = [[r.found_by for r in o.record.regions].count("detect") for o in (one, six)]
    assert found == [1, 6]  # the scan may take a result for a face, and cover more
    assert all(
        v.passed and v.score_after > v.threshold for o in (one, six) for r in o.record.regions for v in r.verdicts
    )
    assert all(len(r.verdicts) == 1 for o in (one, six) for r in o.record.regions)


def test_a_released_tensor_keeps_shape_dtype_and_everything_far_from_the_face(astronaut: Tensor) -> None:
    (out,) = Anonymizer("faces").anonymize([astronaut])
    assert out.image.shape == astronaut.shape
    assert out.image.dtype == torch.uint8
    assert torch.equal(out.image[:, 300:], astronaut[:, 300:])
    assert not torch.equal(out.image[:, 80:160, 190:250], astronaut[:, 80:160, 190:250])


def test_the_caller_s_image_is_not_modified(astronaut: Tensor) -> None:
    before = astronaut.clone()
    Anonymizer("faces").anonymize([astronaut])
    assert torch.equal(astronaut, before)


def test_only_failing_regions_go_to_the_next_rung(astronaut: Tensor) -> None:
    other = (300.0, 300.0, 400.0, 400.0)

    @dataclass(frozen=True)
    class FirstFails(Moved):
        def judge(self, probe: Probe) -> Verdicts:
            verdicts = super().judge(probe)
            weak = torch.tensor([t.name == "pixelate" for t in probe.techniques]) & (probe.regions.boxes[:, 0] < 200)
            return replace(verdicts, passed=~weak)

    made = engine(ladder=(Pixelate(4), Fill()), verifier=FirstFails(1.0), detector=Finds((tuple(BOX), other)))
    (out,) = run(made, astronaut)
    assert [(r.rung, r.technique.split()[0]) for r in out.record.regions] == [(1, "fill"), (0, "pixelate")]


@pytest.mark.parametrize("wide", [30.0, 76.0, 84.0])
def test_the_outline_of_a_cover_does_not_tell_how_wide_a_face_is(wide: float) -> None:
    """Or that alone would name one in ten of the people of another photo."""
    picture = torch.zeros(3, 300, 300, dtype=torch.uint8)
    box = (150 - wide / 2, 100.0, 150 + wide / 2, 200.0)
    fill = Fill((1.0, 1.0, 1.0), coverage=1.5, feather=0.0)
    [out] = run(engine(ladder=(fill,), detector=Finds((box,)), verifier=Moved(0.0)), picture)
    rows, columns = (out.image[0] > 127).nonzero().unbind(dim=1)
    assert int(columns.max() - columns.min() + 1) == 130
    assert int(rows.max() - rows.min() + 1) == 150
    assert out.record.regions[0].box == box


def test_a_stronger_rung_starts_from_the_original(astronaut: Tensor) -> None:
    made = engine(
        ladder=(Fill((1.0, 0.0, 0.0), coverage=2.0), Pixelate(8, coverage=1.0, feather=0.0)), verifier=Moved(1e9)
    )
    covered = region(BOX).outlined().boxes
    direct = Pixelate(8, coverage=1.0, feather=0.0).change_regions(astronaut, covered)
    (out,) = run(made, astronaut)
    assert isinstance(out, Withheld)  # the gate never passes: now let it pass on the second rung only

    @dataclass(frozen=True)
    class SecondPasses(Moved):
        def judge(self, probe: Probe) -> Verdicts:
            return replace(
                super().judge(probe), passed=torch.tensor([t.name == "pixelate" for t in probe.techniques])
            )

    made = engine(
        ladder=(Fill((1.0, 0.0, 0.0), coverage=2.0), Pixelate(8, coverage=1.0, feather=0.0)),
        verifier=SecondPasses(0.0),
    )
    (out,) = run(made, astronaut)
    assert torch.equal(out.image, direct)


def test_an_exhausted_ladder_withholds_and_hands_out_no_pixels(astronaut: Tensor) -> None:
    (out,) = run(engine(verifier=Moved(1e9)), astronaut)
    assert isinstance(out, Withheld)
    assert out.reason == "still_recognised"
    assert not hasattr(out, "sample")
    assert "secret" not in repr(out)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_every_gate_must_pass_wherever_it_stands(astronaut: Tensor, failing: int) -> None:
    """Each is asked about each region, and one that fails is enough: not the first alone, and not any of them."""
    gates = tuple(replace(Moved(1e9 if i == failing else 0.0), name=f"gate {i}") for i in range(3))
    (out,) = run(engine(verifier=gates), astronaut)
    assert (out.reason, out.detail) == (
        "still_recognised",
        f"a face still failed gate {failing} on the last rung of its ladder",
    )
    assert all(gate.seen == [1] for gate in gates)
    assert isinstance(run(engine(verifier=gates[:failing] + gates[failing + 1 :]), astronaut)[0], Released)


@pytest.mark.parametrize("failing", [0, 1])
def test_every_region_must_pass(astronaut: Tensor, failing: int) -> None:
    @dataclass(frozen=True)
    class OneFails(Moved):
        def judge(self, probe: Probe) -> Verdicts:
            verdicts = super().judge(probe)
            return replace(verdicts, passed=torch.arange(len(verdicts.passed)) != failing)

    made = engine(verifier=OneFails(0.0), detector=Finds((tuple(BOX), (300.0, 300.0, 400.0, 400.0))))
    (out,) = run(made, astronaut)
    assert out.reason == "still_recognised"


def test_raise_raises_without_a_name(astronaut: Tensor) -> None:
    with pytest.raises(
        WithheldError, match="sample 0 of the batch was withheld: a face still failed moved"
    ) as caught:
        run(engine(verifier=Moved(1e9), raises=True), astronaut)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("score", [torch.nan, -torch.inf])
def test_a_score_that_is_no_number_never_passes(astronaut: Tensor, score: float) -> None:
    @dataclass(frozen=True)
    class Odd(Moved):
        def judge(self, probe: Probe) -> Verdicts:
            verdicts = super().judge(probe)
            return replace(verdicts, after=verdicts.after * 0 + score, passed=verdicts.passed | True)

    (out,) = run(engine(verifier=Odd(0.0)), astronaut)
    assert isinstance(out, Withheld)


@pytest.mark.parametrize("broken", [lambda x: x[:, None] & False, lambda x: -x.int()])
def test_verdicts_of_the_wrong_shape_or_type_withhold(astronaut: Tensor, broken: Any) -> None:
    @dataclass(frozen=True)
    class Malformed(Moved):
        def judge(self, probe: Probe) -> Verdicts:
            verdicts = super().judge(probe)
            return replace(verdicts, passed=broken(verdicts.passed))

    (out,) = run(engine(verifier=Malformed(0.0)), astronaut)
    assert out.reason == "error"


def test_a_network_that_returns_nan_withholds(astronaut: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def nan(batch: Tensor) -> tuple[Tensor, ...]:
        height, width = batch.shape[2] // 4, batch.shape[3] // 4
        return tuple(torch.full((len(batch), c, height, width), torch.nan) for c in (1, 2, 2, 10))

    monkeypatch.setattr("anondata.detectors.centerface.network", lambda *a: nan)
    (out,) = Anonymizer("faces").anonymize([astronaut])
    assert out.reason == "error"


def test_noise_of_two_strengths_is_not_the_same(astronaut: Tensor) -> None:
    def changed(noise: float) -> Tensor:
        made = engine(ladder=(Pixelate(4, noise),), verifier=Moved(-1.0))
        (out,) = run(made, astronaut.float() / 255)
        return out.image[:, 100:150, 200:240] - (astronaut.float() / 255)[:, 100:150, 200:240].mean()

    one, two = changed(0.01).flatten(), changed(0.02).flatten()
    plain = changed(0.0).flatten()
    assert abs(float(torch.corrcoef(torch.stack([one - plain, two - plain]))[0, 1])) < 0.9


def test_a_verifier_that_answers_for_fewer_regions_withholds(astronaut: Tensor) -> None:
    @dataclass(frozen=True)
    class Short(Moved):
        def judge(self, probe: Probe) -> Verdicts:
            verdicts = super().judge(probe)
            return replace(verdicts, passed=verdicts.passed[:0])

    (out,) = run(engine(verifier=Short(0.0)), astronaut)
    assert out.reason == "error"


class BreakingTechnique(Fill):
    def change(self, crops: Tensor, *, extent: float, seeds: Sequence[int]) -> Tensor:
        raise RuntimeError("a text that quotes secret-name.jpg")


@pytest.mark.parametrize(
    "broken",
    [
        {"detector": Breaks()},
        {"detector": Breaks(MemoryError)},
        {"detector": Breaks(AssertionError)},
        {"verifier": Moved(0.0, Breaks())},
        {"ladder": (BreakingTechnique(),)},
        {"scanner": Breaks(), "passes": 1},
    ],
)
def test_an_exception_anywhere_in_the_loop_withholds(
    astronaut: Tensor, broken: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        (out,) = run(engine(**broken), astronaut)
    assert isinstance(out, Withheld)
    assert out.reason == "error"
    assert "secret" not in caplog.text + repr(out)


def test_one_broken_sample_does_not_withhold_its_neighbours(astronaut: Tensor) -> None:
    @dataclass(frozen=True)
    class BreaksOnSmall(Finds):
        def detect(self, views: Sequence[Tensor]) -> Regions:
            if any(v.shape[1] < 100 for v in views):
                raise RuntimeError("too small for me")
            return super().detect(views)

    out = run(engine(detector=BreaksOnSmall()), astronaut, astronaut[:, :50], astronaut)
    assert [type(o).__name__ for o in out] == ["Released", "Withheld", "Released"]


@pytest.mark.parametrize("error", [WeightsError, PolicyError])
def test_what_concerns_the_run_is_raised(astronaut: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        run(engine(detector=Breaks(error)), astronaut)


def test_keyboard_interrupt_is_not_swallowed(astronaut: Tensor) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(engine(detector=Breaks(KeyboardInterrupt)), astronaut)


def test_a_kind_without_a_ladder_stops_the_run(astronaut: Tensor) -> None:
    with pytest.raises(PolicyError, match="a detector finds 'plate', but the policy has no ladder for it"):
        run(engine(detector=Finds(kind="plate")), astronaut)


@dataclass(frozen=True)
class UntilWhite:
    """A detector that finds a box until its centre is white."""

    box: tuple[float, ...]

    def detect(self, views: Sequence[Tensor]) -> Regions:
        x, y = int(self.box[0] + self.box[2]) // 2, int(self.box[1] + self.box[3]) // 2
        return cat_regions([region(self.box, i) for i, v in enumerate(views) if int(v[:, y, x].min()) < 250])


def test_what_the_first_pass_missed_is_found_by_the_scan_and_anonymized(astronaut: Tensor) -> None:
    missed = (300.0, 300.0, 400.0, 400.0)
    (out,) = run(engine(scanner=UntilWhite(missed), passes=2), astronaut)
    assert [r.found_by for r in out.record.regions] == ["detect", "scan"]
    assert out.record.scans == 2
    assert int(out.image[:, 300:400, 300:400].min()) == 255


def test_a_scan_that_still_finds_something_at_the_last_pass_withholds(astronaut: Tensor) -> None:
    (out,) = run(engine(scanner=UntilWhite((300.0, 300.0, 400.0, 400.0)), passes=1), astronaut)
    assert out.reason == "scan_unsettled"


def test_a_face_found_again_where_it_was_anonymized_is_not_missed(astronaut: Tensor) -> None:
    grown = (BOX[0] - 10, BOX[1] - 25, BOX[2] + 25, BOX[3] + 40)
    (out,) = run(engine(scanner=Finds((grown,)), passes=1), astronaut)
    assert isinstance(out, Released)


def test_tiny_regions_take_their_own_ladder_and_no_verifier(astronaut: Tensor) -> None:
    gate = Moved(1e9)
    tiny = (300.0, 300.0, 305.0, 305.0)
    made = engine(detector=Finds((tiny,)), verifier=gate, tiny_below_px=6.0, tiny_ladder=(Fill((0.0, 1.0, 0.0)),))
    (out,) = run(made, astronaut)
    assert out.record.regions[0].tiny
    assert gate.seen == []
    assert out.image[:, 302, 302].tolist() == [0, 255, 0]


def test_overlapping_regions_are_both_verified_in_the_final_picture(astronaut: Tensor) -> None:
    near = tuple(v + 40 for v in BOX)
    (out,) = run(engine(ladder=(Pixelate(3), Fill()), detector=Finds((tuple(BOX), near))), astronaut)
    assert all(r.verdicts and r.verdicts[0].passed for r in out.record.regions)


def test_an_undeclared_field_stops_the_run(astronaut: Tensor) -> None:
    sample = Sample("a", {"image": astronaut, "caption": "Jane"})
    with pytest.raises(UndeclaredFieldError, match="field 'caption' is not declared; declare it as") as caught:
        engine().run([sample], IMAGE)
    assert "Jane" not in str(caught.value)


def test_fields_are_anonymized_kept_or_dropped_as_declared(astronaut: Tensor) -> None:
    sample = Sample("a", {"left": astronaut, "right": astronaut, "label": 3, "caption": "Jane"})
    schema = Schema({"left": "image", "right": "image", "label": "keep", "caption": "drop"})
    (out,) = engine().run([sample], schema)
    assert list(out.sample.fields) == ["left", "right", "label"]
    assert out.sample["label"] == 3
    assert not torch.equal(out.sample["left"], astronaut)
    assert not torch.equal(out.sample["right"], astronaut)


def test_one_withheld_field_withholds_the_sample(astronaut: Tensor) -> None:
    sample = Sample("a", {"left": astronaut, "right": b"no image"})
    (out,) = engine().run([sample], Schema({"left": "image", "right": "image"}))
    assert out.reason == "not_an_image"


def test_a_missing_field_withholds(astronaut: Tensor) -> None:
    (out,) = engine().run([Sample("a", {})], IMAGE)
    assert out.reason == "missing_field"


def test_a_content_type_without_rules_stops_the_run(astronaut: Tensor) -> None:
    with pytest.raises(PolicyError, match="field 'text' is declared 'text', but the policy has rules for image only"):
        engine().run([], Schema({"text": "text"}))


def test_an_empty_batch_is_an_empty_list() -> None:
    assert engine().run([], IMAGE) == []


@pytest.mark.parametrize("value", [None, 3, "a path", [1, 2], {"bytes": b"", "path": "x"}])
def test_what_is_no_image_is_withheld(value: Any) -> None:
    (out,) = run(engine(), value)
    assert out.reason == "wrong_type"


def test_the_result_does_not_depend_on_the_place_in_the_batch(astronaut: Tensor, party_jpeg: bytes) -> None:
    made = Anonymizer("faces", run_key=b"0123456789abcdef")
    alone = made.anonymize([astronaut], keys=["a"])[0].image
    mixed = made.anonymize([party_jpeg, astronaut[:, :60, :60], astronaut], keys=["c", "b", "a"])[2].image
    assert torch.equal(alone, mixed)


def test_another_run_key_gives_another_result(astronaut: Tensor) -> None:
    a, b = (Anonymizer("faces", run_key=key * 16).anonymize([astronaut])[0].image for key in (b"1", b"2"))
    assert not torch.equal(a, b)


def test_global_generators_are_not_touched(astronaut: Tensor) -> None:
    import random

    import numpy as np

    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    Anonymizer("faces").anonymize([astronaut])
    after = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_engine_rules_come_from_the_policy() -> None:
    rules = rules_of(load_policy("faces"))["image"]
    assert len(rules.kinds["face"].ladder) == 3  # two rungs and the last resort
    assert rules.scan_passes == 2


def test_two_embedders_of_one_name_stop_the_run(astronaut: Tensor) -> None:
    @dataclass(frozen=True)
    class Other(MeanColour):
        """Another network that goes by the same name."""

    rules = KindRules((Fill(),), (Moved(0.0), Moved(0.0, Other())))
    made = Engine({"image": ContentRules(ImageContent(), (Finds(),), {"face": rules})}, run_key=RunKey(b"0" * 16))
    with pytest.raises(PolicyError, match="two embedders are called 'mean' and differ"):
        run(made, astronaut)


@pytest.mark.parametrize("value", [torch.inf, 1e30])
def test_a_template_that_overflows_never_passes(astronaut: Tensor, value: float) -> None:
    class Huge(MeanColour):
        def embed(self, views: Sequence[Tensor], regions: Regions) -> Tensor:
            return torch.full((len(regions), 3), value)

    (out,) = run(engine(verifier=Moved(-1.0, Huge())), astronaut)
    assert out.reason == "still_recognised"


def test_each_value_of_a_list_is_anonymized(astronaut: Tensor, party_jpeg: bytes) -> None:
    anonymizer = Anonymizer("faces", run_key=b"0123456789abcdef")
    schema = Schema({"frames": "image", "label": "keep"})
    fields = {"frames": [astronaut, (party_jpeg,)], "label": [1, 2]}
    (out,) = anonymizer.run([Sample("k", fields)], schema)
    assert isinstance(out, Released)
    one, (six,) = out.sample["frames"]
    assert not torch.equal(one, astronaut)
    assert six != party_jpeg
    assert out.sample["label"] == [1, 2]
    assert {r.place for r in out.record.regions} == {"frames[0]", "frames[1][0]"}


@pytest.mark.parametrize("bad", [None, [[None]], b"no picture", {"path": "x.jpg", "bytes": None}])
def test_one_bad_value_in_a_list_withholds_the_sample(bad: object, astronaut: Tensor) -> None:
    out = run(engine(), [astronaut, bad])[0]
    assert isinstance(out, Withheld)
    assert out.reason in ("wrong_type", "not_an_image", "unsupported_format")


def test_an_empty_list_holds_nothing_to_be_anonymized() -> None:
    out = run(engine(), [])[0]
    assert isinstance(out, Released)
    assert out.image == []


def test_a_record_tells_where_a_region_was(astronaut: Tensor) -> None:
    (out,) = Anonymizer("faces").anonymize([astronaut])
    ((x0, y0, x1, y1),) = [region.box for region in out.record.regions]
    assert 150 < x0 < x1 < 300
    assert 40 < y0 < y1 < 220


def test_a_field_named_as_a_place_in_a_list_is_not_taken_for_it(astronaut: Tensor) -> None:
    schema = Schema({"frames": "image", "frames[0]": "image"})
    fields = {"frames": [b"no picture"], "frames[0]": astronaut}
    (out,) = engine().run([Sample("k", fields)], schema)
    assert isinstance(out, Withheld)
    (out,) = engine().run([Sample("k", {**fields, "frames": [astronaut[:, :99]]})], schema)
    assert isinstance(out, Released)
    assert (out.sample["frames"][0].shape, out.sample["frames[0]"].shape) == ((3, 99, 512), (3, 512, 512))


def test_a_float_picture_stays_within_its_range_however_blending_rounds() -> None:
    content = ImageContent()
    white = torch.ones(3, 64, 64)
    media = content.decode(white, torch.device("cpu"))
    above = Patch((8, 8, 40, 40), torch.full((3, 16, 16), 1 + 1e-6), torch.full((32, 32), 0.7))
    value, _ = content.render(content.compose(media, [above]))
    assert value.max() == 1
