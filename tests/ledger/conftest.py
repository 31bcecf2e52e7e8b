"""Ledgers in both databases, the real ones, and a clock that tests may set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from anondata.ledger import Ledger, _clock

WORKER = Path(__file__).with_name("worker.py")


@dataclass
class Server:
    """A PostgreSQL server of the tests' own, on a unix socket."""

    programs: Path
    folder: Path
    user: str | None
    names: Iterator[int] = field(default_factory=lambda: iter(range(10_000)))

    def run(self, program: str, *args: str) -> None:
        whose = {"user": self.user, "group": "nogroup", "extra_groups": []} if self.user else {}
        command = [self.programs / program, "-D", self.folder / "data", *args]
        with (self.folder / "log").open("ab") as log:
            subprocess.run(command, check=True, cwd=self.folder, stdout=log, stderr=log, **whose)

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self.run("pg_ctl", "-w", "-o", options, "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-w", "-m", "immediate", "stop")

    def url(self, schema: str, folder: Path | None = None) -> str:
        return f"postgresql://ledger@/postgres?host={folder or self.folder}&options=-csearch_path%3D{schema}"

    def new_schema(self) -> str:
        """A place of its own for a test's tables; a database for each would be a gigabyte in all."""
        import psycopg

        name = f"test{next(self.names)}"
        with psycopg.connect(host=str(self.folder), user="ledger", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return name


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Skips where the server is not installed."""
    found = shutil.which("initdb") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if found is None:
        pytest.skip("PostgreSQL's server (initdb) is not installed")
    folder = Path(tempfile.mkdtemp(prefix="ledger"))
    made = Server(Path(found).parent, folder, "nobody" if os.geteuid() == 0 else None)
    (folder / "log").touch()
    try:
        if made.user:  # the server refuses to run as root
            shutil.chown(folder, made.user)
        made.run("initdb", "-U", "ledger", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        made.start()
        yield made
        made.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a ledger may be made: both databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'quotas.db'}"
    server: Server = request.getfixturevalue("server")
    return server.url(server.new_schema())


@pytest.fixture
def opened() -> Iterator[Callable[..., Ledger]]:
    """Opens ledgers, and closes them in the end."""
    made: list[Ledger] = []

    def open_(url: str | Path, **options: str) -> Ledger:
        made.append(Ledger(url, **options))
        return made[-1]

    yield open_
    for ledger in made:
        ledger.close()


@pytest.fixture
def ledger(url: str, opened: Callable[..., Ledger]) -> Ledger:
    return opened(url, actor="test")


@pytest.fixture
def file_ledger(tmp_path: Path, opened: Callable[..., Ledger]) -> Ledger:
    return opened(tmp_path / "quotas.db", actor="test")


@dataclass
class Clock:
    """The database's clock and the steady one of this machine, as the ledger sees them."""

    ms: int
    steady: float = 1000.0

    def pass_s(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)
        self.steady += seconds

    def set(self, text: str) -> None:
        """Time goes on to, or the database's clock jumps back to, this moment."""
        ms = round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
        self.steady += max(0, ms - self.ms) / 1000
        self.ms = ms


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """It is noon on the last of January, time stands still, and nobody keeps the clock right."""
    clock = Clock(0)
    clock.set("2026-01-31T12:00")
    monkeypatch.setattr(_clock, "database_ms", lambda connection: clock.ms)
    monkeypatch.setattr(_clock, "steady_s", lambda: clock.steady)
    monkeypatch.setattr(_clock, "is_kept", lambda connection: False)
    return clock


@pytest.fixture
def worker() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``worker.py`` in processes of their own; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", str(WORKER), *map(str, args)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
