"""Time in a ledger: whose clock counts, which day it is, and when a window ends."""

from __future__ import annotations

import ctypes
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, text

from anondata.errors import ClockError

SKEW_MS = 5 * 60 * 1000  # machines whose clocks differ by less are taken as one
LEAP_MS = 60 * 60 * 1000  # so far a clock may be set forward: less than from one time zone to the next but one
UNSEEN_MS = 23 * 60 * 60 * 1000  # so long may nobody have written, where nothing tells whether the clock is right
_DRIFT = 1e-3  # by which two good clocks may differ
_DAY_MS = 24 * 60 * 60 * 1000


def steady_s() -> float:
    """A clock of this machine that only goes forward, where there is one also while the machine sleeps."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def boot() -> str:
    """What stands for this machine since it was started; nothing where that cannot be told.

    While it is the same, :func:`steady_s` goes on from where it was, in every process.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:64]
    except OSError:
        return ""


def database_ms(connection: Connection) -> int:
    """Milliseconds since 1970: the server's clock, or this machine's for a file."""
    if connection.dialect.name == "postgresql":
        # Not now(): that is when the transaction began, perhaps long before it got the lock.
        return int(
            connection.execute(text("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)")).scalar_one()
        )
    return time.time_ns() // 1_000_000


def is_kept(connection: Connection) -> bool:
    """Whether the clock that counts is kept right by somebody: a server's, or this machine's by a time service.

    Before it has reached such a service, or without one, a machine that was just started has any time.
    """
    return connection.dialect.name == "postgresql" or _synchronized()


def _synchronized() -> bool:
    """What the kernel says of its clock, on Linux; False where it cannot be asked."""
    try:
        state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # a struct timex has 208 bytes
    except (OSError, AttributeError, TypeError):
        return False
    return 0 <= state < 5  # TIME_ERROR is 5


def not_before(now_ms: int, latest_ms: int) -> int:
    """The time that counts when the ledger has already seen ``latest_ms``: it never goes back.

    Raises:
        ClockError: when the clock is behind by more than five minutes.
    """
    if latest_ms - now_ms <= SKEW_MS:
        return max(now_ms, latest_ms)
    behind = timedelta(seconds=(latest_ms - now_ms) // 1000)
    raise ClockError(
        f"the clock is {behind} behind the latest entry of the ledger, and quotas must not renew twice; set it. "
        "If it is right, a clock that was ahead made the entry: `anondata quota clock --accept` goes on from now"
    )


def check_leap(now_ms: int, latest_ms: int, expected_ms: int | None, *, kept: bool = False) -> None:
    """Whether it can be now: a clock that was set forward would open the next day's quota.

    expected_ms: the time by the clock of this machine that only goes forward, since it wrote before; None where it
        did not, and then nobody knows how long nobody wrote.
    kept: of such a machine, whether its clock is kept right: then it may be any time since the latest entry.

    Raises:
        ClockError: when the clock is ahead by more than can be explained.
    """
    if not latest_ms or (expected_ms is None and kept):
        return  # nothing was written yet, or nothing contradicts a clock that is right
    since, bound = (latest_ms, UNSEEN_MS) if expected_ms is None else (max(expected_ms, latest_ms), LEAP_MS)
    if now_ms - since <= bound + _DRIFT * (now_ms - latest_ms):
        return
    ahead = timedelta(seconds=(now_ms - since) // 1000)
    told, remedy = "of what passed on this machine", "set it"
    if expected_ms is None:
        told, remedy = "of the ledger's latest entry", "let a time service (chrony, systemd-timesyncd) keep it right"
    raise ClockError(
        f"the clock is {ahead} ahead {told}, which would give away another day's quota; {remedy}. "
        "If it is right, `anondata quota clock --accept` goes on from now"
    )


def at(ms: int) -> datetime:
    """UTC, of milliseconds since 1970."""
    return datetime.fromtimestamp(ms // 1000, UTC) + timedelta(milliseconds=ms % 1000)


def day_of(ms: int) -> int:
    """The UTC day as a number, 20260131: such numbers compare alike in every database and collation."""
    day = at(ms).date()
    return day.year * 10_000 + day.month * 100 + day.day


def days(window: str, ms: int) -> tuple[int, int]:
    """First and last day, as numbers, of the window that a moment is in."""
    today = day_of(ms)
    if window == "day":
        return today, today
    if window == "month":
        return today // 100 * 100 + 1, today // 100 * 100 + 31
    return 0, 99_999_999


def end_ms(window: str, ms: int) -> int | None:
    """When the window ends that a moment is in; None for ``total``."""
    if window == "day":
        return (ms // _DAY_MS + 1) * _DAY_MS
    if window == "month":
        first = at(ms).date().replace(day=1)
        following = (first + timedelta(days=32)).replace(day=1)
        return (following - date(1970, 1, 1)).days * _DAY_MS
    return None
