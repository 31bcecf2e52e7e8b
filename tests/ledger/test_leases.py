"""What is reserved, settled, forgotten, settled too late, or settled by a connection that is lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from anondata.errors import LedgerError, QuotaExceeded
from anondata.ledger import Ledger, Limit, Scope

IMAGE = Scope("acme", "faces", "image")


def events(ledger: Ledger) -> list[str]:
    return [entry.event for entry in ledger.history()]


def standing(ledger: Ledger) -> tuple[int, int]:
    [usage] = ledger.usage("acme")
    return usage.used, usage.reserved


@pytest.fixture(autouse=True)
def ten(request):
    """Ten samples for acme, in ledgers that tests ask for."""
    if "clock" in request.fixturenames:
        request.getfixturevalue("clock")
    if "ledger" in request.fixturenames:
        request.getfixturevalue("ledger").set_limit(Limit("acme", amount=10))


def test_a_commit_counts_what_was_given_and_frees_the_rest(ledger):
    reservation = ledger.reserve(IMAGE, {"samples": 6})
    assert standing(ledger) == (0, 6)
    reservation.commit({"samples": 4})
    assert standing(ledger) == (4, 0)


def test_a_release_frees_all(ledger):
    ledger.reserve(IMAGE, {"samples": 6}).release()
    assert standing(ledger) == (0, 0)
    assert events(ledger) == ["limit", "reserve", "release"]


def test_settling_again_changes_nothing(ledger):
    reservation = ledger.reserve(IMAGE, {"samples": 6})
    reservation.commit({"samples": 4})
    reservation.commit({"samples": 6})
    reservation.release()
    assert standing(ledger) == (4, 0)
    assert events(ledger) == ["limit", "reserve", "commit"]


def test_a_lease_that_nobody_settles_counts_as_wholly_used(ledger, clock):
    ledger.reserve(IMAGE, {"samples": 6}, ttl_s=60)
    clock.pass_s(59)
    assert standing(ledger) == (0, 6)
    clock.pass_s(1)
    assert standing(ledger) == (6, 0)  # those who only look see it, too
    ledger.reserve(IMAGE, {"samples": 4}).release()
    assert events(ledger) == ["limit", "reserve", "expired", "reserve", "release"]
    assert standing(ledger) == (6, 0)
    assert ledger.verify().ok


def test_a_late_commit_frees_nothing_and_is_told_once(ledger, clock):
    reservation = ledger.reserve(IMAGE, {"samples": 6}, ttl_s=60)
    clock.pass_s(61)
    for _ in range(2):
        reservation.commit({"samples": 1})
    reservation.release()
    assert standing(ledger) == (6, 0)
    assert events(ledger) == ["limit", "reserve", "expired", "late"]
    assert list(ledger.history())[-1].amounts == {"samples": 1}
    assert ledger.verify().ok


def test_a_lease_is_usable_until_it_expires(ledger, clock):
    reservation = ledger.reserve(IMAGE, {"samples": 6}, ttl_s=60)
    clock.pass_s(59)
    assert reservation.usable
    clock.pass_s(1)
    assert not reservation.usable


def test_a_reservation_of_another_ledger_is_refused(ledger, tmp_path, opened):
    other = opened(tmp_path / "other.db")
    other.set_limit(Limit("acme", amount=10))
    reservation = ledger.reserve(IMAGE, {"samples": 6})
    with pytest.raises(LedgerError, match="does not know this reservation"):
        other.settle(reservation, {"samples": 1})


def test_the_history_tells_who_gave_what_under_which_policy(ledger):
    ledger.reserve(IMAGE, {"samples": 6}, policy="abc", report="run-7").commit({"samples": 4})
    limit, reserve, commit = ledger.history("acme")
    assert (limit.actor, limit.amounts) == ("test", {"samples/total": 10})
    assert (reserve.event, reserve.amounts, reserve.policy, reserve.report) == (
        "reserve",
        {"samples": 6},
        "abc",
        "run-7",
    )
    assert (commit.event, commit.amounts, commit.policy, commit.report) == ("commit", {"samples": 4}, "abc", "run-7")
    assert commit.reservation == reserve.reservation
    assert not list(ledger.history("other"))


def test_setting_the_same_amount_again_is_no_entry(ledger):
    ledger.set_limit(Limit("acme", amount=10))
    assert events(ledger) == ["limit"]


class Wire:
    """A way to a server that can lose the answer to a commit: the server has done it, and nobody hears of it."""

    def __init__(self, server: Path, folder: Path) -> None:
        self.server, self.losing, self.lost = server, False, 0
        self.when_lost: Callable[[], object] = lambda: None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / ".s.PGSQL.5432"))
        self.listener.listen()

    def serve(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(self.server / ".s.PGSQL.5432"))
            threading.Thread(target=self.forth, args=(near, far), daemon=True).start()
            threading.Thread(target=self.back, args=(near, far), daemon=True).start()

    def forth(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := near.recv(65536):
                if self.losing and b"COMMIT" in data:
                    self.losing, self.lost = False, self.lost + 1
                    near.shutdown(socket.SHUT_WR)  # before it is asked, so that no answer can come through
                    self.when_lost()
                    far.sendall(data)
                    return
                far.sendall(data)
            far.shutdown(socket.SHUT_RDWR)

    def back(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, suppress(OSError):
            while data := far.recv(65536):
                near.sendall(data)


@contextmanager
def wire(server: Path, folder: Path) -> Iterator[Wire]:
    made = Wire(server, folder)
    threading.Thread(target=made.serve, daemon=True).start()
    yield made
    made.listener.shutdown(socket.SHUT_RDWR)
    made.listener.close()


@pytest.fixture
def lossy(server, tmp_path_factory, opened):
    """A ledger behind such a wire, and the wire."""
    folder = tmp_path_factory.mktemp("w")
    with wire(server.folder, folder) as made:
        ledger = opened(server.url(server.new_schema(), folder))
        ledger.set_limit(Limit("acme", amount=10))
        yield ledger, made
        ledger.close()


def test_a_reservation_whose_answer_was_lost_is_made_once(lossy):
    ledger, wire = lossy
    wire.losing = True
    reservation = ledger.reserve(IMAGE, {"samples": 6})
    assert (wire.lost, reservation.granted, standing(ledger)) == (1, {"samples": 6}, (0, 6))
    assert events(ledger) == ["limit", "reserve"]


def test_a_commit_whose_answer_was_lost_is_counted_once(lossy):
    ledger, wire = lossy
    reservation = ledger.reserve(IMAGE, {"samples": 6})
    wire.losing = True
    reservation.commit({"samples": 4})
    assert (wire.lost, standing(ledger)) == (1, (4, 0))
    assert events(ledger) == ["limit", "reserve", "commit"]


def test_a_removal_whose_answer_was_lost_is_told_as_done(lossy):
    ledger, wire = lossy
    wire.losing = True
    assert ledger.remove_limit(Limit("acme"))
    assert (wire.lost, events(ledger)) == (1, ["limit", "unlimit"])


def test_a_lease_granted_before_midnight_by_a_lost_answer_gives_nothing_after_it(clock, lossy):
    ledger, wire = lossy
    ledger.set_limit(Limit("acme", window="day", amount=5))
    clock.set("2026-01-31T23:59:59")
    wire.losing = True
    wire.when_lost = lambda: clock.set("2026-02-01T00:00:01")  # the second try is made tomorrow
    reservation = ledger.reserve(IMAGE, {"samples": 5})
    assert (wire.lost, reservation.usable) == (1, False)


def test_a_limit_is_full_while_others_hold_it_and_free_when_they_let_go(ledger):
    held = ledger.reserve(IMAGE, {"samples": 10})
    with pytest.raises(QuotaExceeded):
        ledger.reserve(IMAGE, {"samples": 1})
    held.release()
    ledger.reserve(IMAGE, {"samples": 1}).release()


def test_a_delivery_as_a_whole_is_charged_once_however_often_it_is_asked_for(ledger):
    cost = {IMAGE: {"samples": 6}, Scope("acme", "faces", "text"): {"samples": 1, "bytes": 0}}
    assert ledger.charge_once("part 1", cost)
    assert not ledger.charge_once("part 1", cost)
    assert standing(ledger) == (7, 0)
    assert ledger.verify().ok


def test_a_delivery_as_a_whole_that_passes_a_limit_is_not_charged_in_part(ledger):
    with pytest.raises(QuotaExceeded):
        ledger.charge_once("part 1", {IMAGE: {"samples": 6}, Scope("acme", "faces", "text"): {"samples": 6}})
    assert standing(ledger) == (0, 0)
