"""One connection pool a process, transactions that lock the ledger, and another try where that can help."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_exponential, wait_random

from anondata.errors import LedgerError, MissingExtraError
from anondata.ledger import _tables

T = TypeVar("T")

TRIES_VARIABLE = "ANONDATA_TRIES"
TRIES = 5
GIVE_UP_S = 12.0  # no further try begins after this
_BUSY_S = 5.0  # how long one try waits for another writer
_OPTIONS = {"connect_timeout": "5", "keepalives_idle": "10", "tcp_user_timeout": "10000"}
# A writer whose machine froze must not hold the ledger for ever: the server ends it.
_SERVER_SETTINGS = (
    f"SET lock_timeout = {int(_BUSY_S * 1000)}",
    "SET idle_in_transaction_session_timeout = 30000",
    "SET synchronous_commit = on",
)


class Database:
    """A ledger's database: nothing is opened before the first transaction; after a fork the child opens its own."""

    def __init__(self, url: str | Path) -> None:
        self.url = _parsed(url)
        self.file = Path(self.url.database or "") if self.url.get_backend_name() == "sqlite" else None
        # Without user, password and options: what may be shown.
        where = f"{self.url.host or 'localhost'}/{self.url.database or ''}"
        self.place = str(self.file) if self.file else f"postgresql://{where}"
        self._forget()
        _ALL.add(self)

    def _forget(self) -> None:
        self._engine: Engine | None = None
        self._finalizer: Any = None
        self._ready = False
        self._opened_as = (0, 0)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Gives the connections back; the next transaction opens others."""
        with self._lock:
            if self._engine is not None:
                self._finalizer.detach()
                self._engine.dispose()
            self._engine, self._finalizer, self._ready = None, None, False

    def write(self, do: Callable[[Connection, bool], T], *, create: bool = False) -> T:
        """Runs ``do(connection, again)`` in a transaction that is committed when it returns.

        ``again``: an earlier try may have been committed although its answer was lost.

        Raises:
            LedgerError: when the database cannot be reached, read or written.
        """

        def once(again: bool) -> T:
            with self._transaction(create=create) as connection:
                return do(connection, again)

        return self._tried(once)

    def read(self, do: Callable[[Connection], T]) -> T:
        """Runs ``do(connection)`` on one unchanging state of the database; writers go on."""

        def once(_: bool) -> T:
            with self._transaction(reading=True) as connection:
                return do(connection)

        return self._tried(once)

    @contextmanager
    def _transaction(self, *, reading: bool = False, create: bool = False) -> Iterator[Connection]:
        engine = self._opened(create=create)
        with engine.connect() as connection:
            if not self._ready:
                with connection.begin():
                    _tables.prepare(connection, self.place, create=create)
                self._ready = True
            if reading:
                options: dict[str, Any] = {"anondata_reading": True}
                if self.file is None:
                    options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
                connection = connection.execution_options(**options)
            with connection.begin():
                yield connection

    def _opened(self, *, create: bool) -> Engine:
        """The engine; another one when the file is no longer the one that was opened."""
        if self.file is not None and self._engine is not None and self._identity() != self._opened_as:
            self.close()
        if self.file is not None and not create and not self.file.exists():
            raise _tables.no_ledger(self.place)
        with self._lock:
            if self._engine is None:
                self._engine = engine = self._made()
                self._finalizer = weakref.finalize(self, engine.dispose)
            return self._engine

    def _identity(self) -> tuple[int, int]:
        assert self.file is not None
        try:
            found = self.file.stat()
        except OSError:
            return 0, 0
        return found.st_dev, found.st_ino

    def _made(self) -> Engine:
        if self.file is None:
            options = {name: value for name, value in _OPTIONS.items() if name not in self.url.query}
            engine = create_engine(self.url, pool_size=1, connect_args=options, hide_parameters=True)
            event.listen(engine, "connect", _set_up_server)
        else:
            arguments = {"timeout": _BUSY_S, "isolation_level": None}
            engine = create_engine(self.url, pool_size=1, connect_args=arguments, hide_parameters=True)
            event.listen(engine, "connect", self._set_up_file)
            event.listen(engine, "begin", _begin_at_once)
        return engine

    def _set_up_file(self, connection: Any, _: Any) -> None:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        self._opened_as = self._identity()

    def _tried(self, once: Callable[[bool], T]) -> T:
        tries = max(1, int(os.environ.get(TRIES_VARIABLE, TRIES)))
        retrying = Retrying(
            stop=stop_after_attempt(tries) | stop_after_delay(GIVE_UP_S),
            wait=wait_exponential(multiplier=0.05, max=2.0) + wait_random(0, 0.1),
            retry=retry_if_exception(_passing),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    return once(attempt.retry_state.attempt_number > 1)
        except (SQLAlchemyError, OSError) as error:
            if isinstance(error, LedgerError):
                raise
            raise LedgerError(
                f"the ledger at {self.place} cannot be reached or written: {_words(error)}; nothing was delivered "
                "beyond what is reserved. Mend it and run again"
            ) from error
        raise AssertionError("unreachable: the last try returns or raises")


_ALL: weakref.WeakSet[Database] = weakref.WeakSet()
_PARENTS: list[Any] = []


def _after_fork() -> None:
    """A child leaves its parent's connections alone: even closing one would end it for the parent."""
    for database in list(_ALL):
        if database._finalizer is not None:
            database._finalizer.detach()
            _PARENTS.append(database._engine)
        database._forget()


os.register_at_fork(after_in_child=_after_fork)


def _parsed(url: str | Path) -> URL:
    """Where the ledger is, with an absolute path: a worker may have another working directory."""
    if isinstance(url, Path) or "://" not in url:
        if not str(url) or str(url) == ":memory:":
            raise LedgerError("a ledger is a file or a PostgreSQL database: what is kept in memory is forgotten")
        return URL.create("sqlite", database=str(Path(url).absolute()))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise LedgerError("the URL of the ledger cannot be read; expected postgresql://user@host/database") from None
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        _need_psycopg()
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "sqlite" and parsed.database and parsed.database != ":memory:" and not parsed.query:
        return _parsed(Path(parsed.database))
    raise LedgerError(
        f"a ledger cannot be at {parsed.drivername}://…; expected a file, sqlite:///FILE or postgresql://…"
    )


def _need_psycopg() -> None:
    try:
        import psycopg  # noqa: F401 - only whether it can be imported is asked
    except ImportError as error:
        raise MissingExtraError("a ledger in PostgreSQL needs psycopg: pip install 'anondata[postgres]'") from error


def _set_up_server(connection: Any, _: Any) -> None:
    with connection.cursor() as cursor:
        for setting in _SERVER_SETTINGS:
            cursor.execute(setting)
    connection.commit()


def _begin_at_once(connection: Connection) -> None:
    """Takes the lock of writers at the start: one who reads first could find the lock gone when it wants to write."""
    reading = connection.get_execution_options().get("anondata_reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _passing(error: BaseException) -> bool:
    """Whether an error may be gone at the next try."""
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        name = getattr(error.orig, "sqlite_errorname", "")
        return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL"))
    state = getattr(error.orig, "sqlstate", None)
    if state is None:  # no answer: it cannot be reached
        return error.connection_invalidated or type(error.orig).__name__ in ("OperationalError", "ConnectionTimeout")
    return str(state).startswith(("08", "40", "53300", "55P03", "57P", "25P03"))


def _words(error: BaseException) -> str:
    """What the database said, without values: those of a statement are not shown, nor is a server's detail."""
    orig = getattr(error, "orig", None)
    if isinstance(orig, sqlite3.Error):
        return str(orig)
    diagnosis = getattr(getattr(orig, "diag", None), "message_primary", None)
    if diagnosis or orig is not None:
        return str(diagnosis or str(orig).partition("\n")[0] or type(orig).__name__)
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__
