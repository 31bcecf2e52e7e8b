"""Reports: numbers that add up, and nothing that identifies."""

from __future__ import annotations

import json
import math

import pytest
from torch import Tensor

from anondata import Anonymizer, Released, Sample
from anondata.errors import ReportError
from anondata.policy import load_policy
from anondata.records import RegionRecord, SampleRecord, Verdict
from anondata.report import empty_report, from_json, report_of


@pytest.fixture(scope="module")
def outcomes(astronaut: Tensor, party_jpeg: bytes) -> list[object]:
    return Anonymizer("faces").anonymize([astronaut, party_jpeg, b"", b"text", astronaut[:, 300:]])


def test_counts_add_up(outcomes: list) -> None:
    report = report_of(load_policy("faces"), outcomes)
    assert (report.seen, report.released, dict(report.withheld)) == (5, 3, {"empty": 1, "not_an_image": 1})
    assert report.counts["regions"]["face"]["found"] == 7
    assert report.counts["regions_per_sample"] == {"1": 1, "6": 1, "0": 1}
    (verifier,) = report.counts["verdicts"].values()
    assert sum(verifier["score"].values()) == 7


def test_the_parts_of_a_run_merge_into_the_whole_in_any_order(outcomes: list) -> None:
    policy = load_policy("faces")
    parts = [report_of(policy, [outcome]) for outcome in outcomes]
    forward, backward = empty_report(policy), empty_report(policy)
    for part in parts:
        forward = forward + part
    for part in reversed(parts):
        backward = backward + part
    assert forward.to_json() == backward.to_json() == report_of(policy, outcomes).to_json()


def test_json_round_trips(outcomes: list) -> None:
    report = report_of(load_policy("faces"), outcomes)
    assert from_json(report.to_json()) == report


def test_reports_of_different_policies_do_not_merge() -> None:
    with pytest.raises(ReportError, match="reports of different policies cannot be merged"):
        empty_report(load_policy("faces")) + empty_report(load_policy("faces-fill"))


@pytest.mark.parametrize(
    "change", [{"format": "other/9"}, {"counts": {"samples": {"seen": -1}}}, {"counts": {"a": 0.5}}]
)
def test_what_is_no_report_is_refused(change: dict) -> None:
    body = json.loads(empty_report(load_policy("faces")).to_json())
    with pytest.raises(ReportError):
        from_json(json.dumps(body | change))
    with pytest.raises(ReportError, match="not a report"):
        from_json("{")


def test_no_sample_s_own_threshold_or_score_is_told_and_none_breaks_the_report() -> None:
    verdicts = (Verdict("gate", 0.0, 0.123456, 0.499921, True), Verdict("other", 0.0, math.nan, math.inf, True))
    record = SampleRecord(
        (RegionRecord("image", (0, 0, 40, 40), "face", 50.0, 0.9, "detect", False, 0, "fill {}", verdicts),)
    )
    text = report_of(load_policy("faces"), [Released(Sample("a", {}), record)]).to_json()
    assert '"0.45": 1' in text
    assert '"none": 1' in text
    assert "0.4999" not in text
    assert "0.1234" not in text
