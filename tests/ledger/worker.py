"""What tests run in processes of their own: ``worker.py WHAT URL [NUMBER]``. Prints what it was allowed to give."""

from __future__ import annotations

import os
import resource
import sys
import time
from multiprocessing import get_context
from typing import Any

from anondata.errors import LedgerError, QuotaExceeded
from anondata.ledger import Account, Ledger, Limit, Scope

SCOPE = Scope("acme", "faces", "image")
ONE = {"image": {"samples": 1}}


def take(url: str, requests: str) -> None:
    """Asks for one sample at a time."""
    ledger, granted = Ledger(url), 0
    for _ in range(int(requests)):
        try:
            ledger.reserve(SCOPE, {"samples": 1}).commit({"samples": 1})
        except QuotaExceeded:
            continue
        granted += 1
    print(granted)
    ledger.close()


def stream(url: str, largest: str) -> None:
    """Charges one delivery after the other until a limit, and tells of each before it counts it as made."""
    given = 0
    with Ledger(url).account("acme", "faces", at_limit="stop") as account:
        while given < int(largest) and account.charge([ONE]):
            given += 1
            print(given, flush=True)


def slow(url: str, seconds: str) -> None:
    """Goes on until it is killed, with a pause after each delivery."""
    account = Ledger(url).account("acme", "faces", at_limit="stop")
    given = 0
    while account.charge([ONE]):
        given += 1
        print(given, flush=True)
        time.sleep(float(seconds))


def create(url: str, number: str) -> None:
    ledger = Ledger(url)
    ledger.set_limit(Limit(f"client{number}", amount=5))
    print(1)
    ledger.close()


def full(url: str, more_bytes: str) -> None:
    """Takes until no file may grow any more, as on a full disk."""
    ledger, granted = Ledger(url), 0
    ledger.reserve(SCOPE, {"samples": 1}).commit({"samples": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(more_bytes), int(more_bytes)))
    try:
        while granted < 10_000:
            ledger.reserve(SCOPE, {"samples": 1})
            granted += 1
    except LedgerError as error:
        print(granted)
        print(error)


def leave(url: str, _: str) -> None:
    """Ends without closing the account."""
    account = Ledger(url).account("acme", "faces")
    print(account.charge([ONE] * 5))


def fork(url: str, _: str) -> None:
    """Parent and children charge one account, in turns; the parent's connections and leases stay its own."""
    account = Ledger(url).account("acme", "faces", at_limit="stop")
    given = account.charge([ONE] * 10)
    children = [get_context("fork").Process(target=_child, args=(account,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    given += account.charge([ONE] * 10)
    account.close()
    print(given)


def _child(account: Account) -> None:
    assert not account._leases
    assert account.charge([ONE] * 7) == 7


def os_fork(url: str, _: str) -> None:
    """A child that ends as the interpreter does, with all that it inherited."""
    ledger = Ledger(url)
    reservation = ledger.reserve(SCOPE, {"samples": 1})
    child = os.fork()
    if child == 0:
        ledger.reserve(SCOPE, {"samples": 1}).commit({"samples": 1})
        ledger.close()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    reservation.commit({"samples": 1})
    ledger.close()
    print(2)


if __name__ == "__main__":
    commands: dict[str, Any] = dict(globals())
    commands[sys.argv[1]](*sys.argv[2:])
