"""What a network refuses for the moment is tried again; what will not change is not."""

from __future__ import annotations

import pytest
import tenacity

from anondata.loaders._retry import TRIES, with_retries


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits, instead of waiting."""
    taken: list[float] = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", taken.append)
    return taken


class Storage:
    """Fails with some errors, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_a_broken_connection_is_tried_again_with_growing_waits(waits: list[float]) -> None:
    assert with_retries(Storage(ConnectionResetError(), TimeoutError(), OSError())) == "answer"
    assert len(waits) == 3
    assert waits[0] < waits[2]


@pytest.mark.parametrize("final", [FileNotFoundError(), PermissionError(), ValueError(), KeyboardInterrupt()])
def test_what_will_not_change_is_raised_at_once(waits: list[float], final: Exception) -> None:
    with pytest.raises(type(final)):
        with_retries(Storage(final))
    assert waits == []


def test_the_last_error_comes_out_after_the_last_try(waits: list[float]) -> None:
    with pytest.raises(TimeoutError):
        with_retries(Storage(*[TimeoutError()] * 99))
    assert len(waits) == TRIES - 1


def test_the_number_of_tries_can_be_set(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANONDATA_TRIES", "2")
    with pytest.raises(TimeoutError):
        with_retries(Storage(*[TimeoutError()] * 99))
    assert len(waits) == 1
