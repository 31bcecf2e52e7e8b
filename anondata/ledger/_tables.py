"""The tables of a ledger, and the steps that bring an older one up to date."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    func,
    inspect,
    select,
    update,
)

from anondata.errors import LedgerError

GENESIS = "0" * 64  # what the first entry has before it
_LOCK = 0x616E6F6E64617461  # of PostgreSQL's advisory locks, for those who create or upgrade

metadata = MetaData()


def _name(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, String(200), nullable=False, primary_key=key)


def _number(name: str, *, key: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=False, primary_key=key, autoincrement=False)


head = Table(
    "anondata_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # one row: who writes locks it first
    _number("version"),
    _number("entries"),
    _number("latest_ms"),
    Column("hash", String(64), nullable=False),
)
limits = Table(
    "anondata_limits",
    metadata,
    _name("client", key=True),
    _name("dataset", key=True),
    _name("content_type", key=True),
    _name("unit", key=True),
    _name("period", key=True),  # the window, which is a reserved word
    Column("amount", BigInteger),
)
reservations = Table(
    "anondata_reservations",
    metadata,
    Column("id", String(32), primary_key=True),
    _name("client"),
    _name("dataset"),
    _name("content_type"),
    _number("day"),
    _number("expires_ms"),
    Column("granted", Text, nullable=False),
    Column("limited", Text, nullable=False),
    _name("policy"),
    _name("report"),
    Index("anondata_reservations_expires", "expires_ms"),
)
usage = Table(
    "anondata_usage",
    metadata,
    _name("client", key=True),
    _name("dataset", key=True),
    _name("content_type", key=True),
    _name("unit", key=True),
    _number("day", key=True),
    _number("used"),
    _number("reserved"),
)
history = Table(
    "anondata_history",
    metadata,
    _number("seq", key=True),
    _number("at_ms"),
    _name("actor"),
    _name("event"),
    _name("client"),
    _name("dataset"),
    _name("content_type"),
    Column("amounts", Text, nullable=False),
    Column("detail", Text, nullable=False),
    _name("policy"),
    _name("report"),
    _name("reservation"),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("anondata_history_reservation", "reservation"),
)
clocks = Table(
    "anondata_clocks",
    metadata,
    Column("boot", String(64), primary_key=True),  # of a machine that wrote, since it was started
    _number("steady_ms"),  # its clock that only goes forward
    _number("at_ms"),  # the time that counted then
)


def _create(connection: Connection) -> None:
    metadata.create_all(connection, tables=[head, limits, reservations, usage, history])
    connection.execute(head.insert().values(id=1, version=0, entries=0, latest_ms=0, hash=GENESIS))


# Step n brings a ledger of version n to n + 1. Append; never change one that was released. When the tables above
# change, `_create` must go on making those of version 1.
STEPS: Sequence[Callable[[Connection], None]] = (_create, clocks.create)


def prepare(connection: Connection, place: str, *, create: bool) -> None:
    """Brings the tables to this version, within the caller's transaction.

    Raises:
        LedgerError: when there is no ledger and ``create`` is not set, or one that a newer anondata wrote.
    """
    if _version(connection, place, create=create) == len(STEPS):
        return
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    done = _version(connection, place, create=create)
    for step in STEPS[done:]:
        step(connection)
    connection.execute(update(head).values(version=len(STEPS)))


def check_version(version: int) -> None:
    """Raises :class:`LedgerError` for a ledger that is newer than this code."""
    if version > len(STEPS):
        raise LedgerError(
            f"the ledger was written by a newer anondata (its version is {version}, {len(STEPS)} is known); upgrade"
        )


def _version(connection: Connection, place: str, *, create: bool) -> int:
    if not inspect(connection).has_table(head.name):
        if create:
            return 0
        raise no_ledger(place)
    version = int(connection.execute(select(head.c.version)).scalar_one())
    check_version(version)
    return version


def no_ledger(place: str) -> LedgerError:
    """What to say where no ledger is."""
    return LedgerError(f"there is no ledger at {place}; `anondata quota set` makes one with its first limit")
