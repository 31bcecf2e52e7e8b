"""``anondata weights pull --policy``: all that a policy needs, with one command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def test_one_command_pulls_all_that_a_policy_needs(
    anondata: Callable[..., Any], fetched: Callable[..., None]
) -> None:
    fetched("ppocr-det", "ppocr-rec")
    shown = anondata("weights", "pull", "--policy", "documents")
    assert shown.code == 0
    pulled = {line.partition(":")[0] for line in shown.out.splitlines()}
    assert pulled >= {"centerface", "dlib-face-resnet", "ppocr-det", "ppocr-rec"}


def test_pull_needs_a_name_or_a_policy(anondata: Callable[..., Any]) -> None:
    shown = anondata("weights", "pull")
    assert shown.code == 2
    assert "say which: NAME..., or --policy" in shown.err
    shown = anondata("weights", "pull", "--policy", "document")
    assert shown.code == 2
    assert "did you mean 'documents'?" in shown.err
