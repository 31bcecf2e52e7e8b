"""Many processes against one limit, a third of them killed; requests a second; what charging costs, and a loader.

    python -m anondata.tools.bench.ledger [--processes 16] [--requests 2000] [--database sqlite|postgresql|both]
    python -m anondata.tools.bench.ledger --only streaming

A request reserves one sample and commits it; the limit is half of what all ask for. In the second round a third of
the processes is killed (SIGKILL) when a third of the limit is given: half of these hold blocks, the others are
somewhere in a request. What was delivered is counted by the processes themselves, in shared memory. PostgreSQL is a
server of the benchmark's own on this machine, with its defaults; both lie in the temporary folder (TMPDIR), and each
transaction is synced to it before it counts. The saved figures are of a folder in memory: a disk adds its own wait.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from anondata.errors import QuotaExceeded
from anondata.ledger import Ledger, Limit, Scope

SCOPE = Scope("acme", "faces", "image")
ONE = {"samples": 1}
COST = {"image": {"samples": 1, "bytes": 50_000, "seconds": 0, "faces": 2}}
PAUSE_S = 0.02  # between two deliveries of those who hold blocks, so that others get something, too
SPAWN = multiprocessing.get_context("spawn")


def ask(url: str, requests: int, start: Any, given: Any, index: int) -> None:
    """One process: a reservation and a commit for each sample."""
    ledger = Ledger(url)
    ledger.limits()
    start.wait()
    for _ in range(requests):
        try:
            reservation = ledger.reserve(SCOPE, ONE)
        except QuotaExceeded:
            continue
        given[index] += 1
        reservation.commit(ONE)
    ledger.close()


def hold(url: str, requests: int, start: Any, given: Any, index: int) -> None:
    """One process that charges an account, which holds blocks, until it is killed."""
    account = Ledger(url).account("acme", "faces", at_limit="stop")
    start.wait()
    while True:
        given[index] += account.charge([{"image": ONE}])
        time.sleep(PAUSE_S)


def started(url: str, kinds: list[Any], requests: int) -> tuple[list[SpawnProcess], Any, float]:
    start, given = SPAWN.Barrier(len(kinds) + 1), SPAWN.Array("q", len(kinds), lock=False)
    made = [SPAWN.Process(target=kind, args=(url, requests, start, given, i)) for i, kind in enumerate(kinds)]
    for process in made:
        process.start()
    start.wait()
    return made, given, time.perf_counter()


def standing(ledger: Ledger) -> tuple[int, int]:
    [usage] = ledger.usage("acme")
    return usage.used, usage.reserved


def together(url: str, processes: int, requests: int) -> dict[str, Any]:
    """All of them to the end: exactly the limit."""
    ledger, limit = Ledger(url), processes * requests // 2
    ledger.set_limit(Limit("acme", amount=limit))
    made, given, began = started(url, [ask] * processes, requests)
    for process in made:
        process.join()
    took_s = time.perf_counter() - began
    used, reserved = standing(ledger)
    assert all(process.exitcode == 0 for process in made), "a process failed"
    assert used == sum(given) == limit, f"{used} used, {sum(given)} given, limit {limit}"
    assert reserved == 0
    verified = timed(ledger)
    row = {"asked": processes * requests, "limit": limit, "granted": sum(given), "used": used, "lost": 0}
    return {**row, "requests_per_s": round(processes * requests / took_s), "took_s": round(took_s, 1), **verified}


def killed(url: str, processes: int, requests: int) -> dict[str, Any]:
    """A third of them killed: never more than the limit, and what they held is lost to the client."""
    ledger, limit = Ledger(url), processes * requests // 2
    ledger.set_limit(Limit("acme", amount=limit))
    victims = processes // 3
    holders = (victims + 1) // 2
    kinds = [hold] * holders + [ask] * (processes - holders)
    made, given, _ = started(url, kinds, requests)
    while sum(given) < limit // 3:
        time.sleep(0.01)
    for process in made[:victims]:
        os.kill(process.pid or 0, signal.SIGKILL)
    for process in made:
        process.join()
    used, reserved = standing(ledger)
    assert sum(given) <= used + reserved <= limit, f"{sum(given)} given, {used} used, {reserved} reserved"
    assert all(process.exitcode == 0 for process in made[victims:]), "a process failed"
    row = {"asked": (processes - holders) * requests, "limit": limit, "granted": sum(given), "used": used + reserved}
    return {**row, "lost": used + reserved - sum(given), "killed": victims, "held_blocks": holders, **timed(ledger)}


def timed(ledger: Ledger) -> dict[str, Any]:
    """The verification of all that was done, and how long it took."""
    began = time.perf_counter()
    found = ledger.verify()
    assert found.ok, found.problem
    took_s = time.perf_counter() - began
    ledger.close()
    return {"entries": found.entries, "verified_per_s": round(found.entries / took_s)}


def charging(url: str, samples: int, batch: int, repeats: int = 5) -> dict[str, Any]:
    """Microseconds a sample, of one process that charges batches against two limits."""
    ledger = Ledger(url)
    ledger.set_limit(Limit("acme", amount=10**12))
    ledger.set_limit(Limit("acme", unit="bytes", window="month", amount=10**17))
    taken = []
    with ledger.account("acme", "faces") as account:
        account.charge([COST] * 20_000)  # until blocks have their full size
        for _ in range(repeats):
            began = time.perf_counter()
            for _ in range(samples // batch):
                assert account.charge([COST] * batch) == batch
            taken.append((time.perf_counter() - began) / samples * 1e6)
    ledger.close()
    return {
        "batch": batch,
        "us_per_sample": round(statistics.median(taken), 2),
        "spread_us": [round(min(taken), 2), round(max(taken), 2)],
        "samples": samples,
        "repeats": repeats,
    }


def streaming(url: str, repeats: int) -> dict[str, Any]:
    """What the ledger takes from a WebDataset stage that anonymizes: the same photos with and without, in turns."""
    from anondata.anonymizer import Anonymizer
    from anondata.loaders import webdataset
    from anondata.tools.bench._common import data_folder

    Ledger(url).set_limit(Limit("acme", amount=10**12))
    photos = [path.read_bytes() for path in sorted((data_folder() / "faces_london").glob("*.jpg"))]
    samples = [{"__key__": str(i), "jpg": photo} for i, photo in enumerate(photos)]
    made = Anonymizer("faces", device="cpu", run_key=b"a key for benchmarks, not secret")
    stages = {
        "without": webdataset.anonymize(made, fields={"jpg": "image"}),
        "with": webdataset.anonymize(made, fields={"jpg": "image"}, client="acme", ledger=url, dataset_name="faces"),
    }
    taken: dict[str, list[float]] = {name: [] for name in stages}
    for turn in range(repeats + 1):  # the first one warms up
        for name in sorted(stages, reverse=bool(turn % 2)):
            began = time.perf_counter()
            given = sum(1 for _ in stages[name](iter(samples)))
            assert given == len(samples), f"{given} of {len(samples)} came"
            if turn:
                taken[name].append(time.perf_counter() - began)
    ratios = sorted(b / a for a, b in zip(taken["without"], taken["with"], strict=True))
    return {
        "images": len(samples),
        "repeats": repeats,
        "images_per_s": round(len(samples) / statistics.median(taken["without"]), 1),
        "with_over_without": round(statistics.median(ratios), 4),
        "spread": [round(ratios[0], 4), round(ratios[-1], 4)],
    }


@contextmanager
def databases(which: str) -> Iterator[dict[str, Any]]:
    """By name: what makes the URL of a fresh database."""
    with tempfile.TemporaryDirectory(prefix="ledger") as scratch:
        found: dict[str, Any] = {}
        if which != "postgresql":
            found["sqlite"] = lambda name: f"sqlite:///{scratch}/{name}.db"
        if which == "sqlite":
            yield found
            return
        with server() as folder:
            found["postgresql"] = lambda name: new_database(folder, name)
            yield found


def new_database(folder: Path, name: str) -> str:
    import psycopg

    with psycopg.connect(host=str(folder), user="ledger", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql://ledger@/{name}?host={folder}"


@contextmanager
def server() -> Iterator[Path]:
    """A PostgreSQL server on a unix socket; it refuses to run as root."""
    found = shutil.which("initdb") or sys.exit("PostgreSQL's server (initdb) is not installed; see --database")
    folder, programs = Path(tempfile.mkdtemp(prefix="ledger")), Path(found).parent
    whose: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
        whose = {"user": "nobody", "group": "nogroup", "extra_groups": []}

    def run(program: str, *args: str) -> None:
        command = [str(programs / program), "-D", str(folder / "data"), *args]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, **whose)

    try:
        run("initdb", "-U", "ledger", "-A", "trust")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        yield folder
        run("pg_ctl", "-w", "-m", "fast", "stop")
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--requests", type=int, default=2000, help="of each process")
    parser.add_argument("--samples", type=int, default=200_000, help="charged in blocks, each repeat")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--no-save", action="store_true", help="print only")
    parser.add_argument("--only", choices=["crowd", "charging", "streaming"], help="a part; others stay as saved")
    parser.add_argument("--repeats", type=int, default=9, help="of streaming")
    options = parser.parse_args()
    body: dict[str, list[dict[str, Any]]] = {}
    with databases(options.database) as found:
        for name, url in found.items():
            for part, row in measured(url, options):
                body.setdefault(part, []).append({"database": name, **row})
    tell(body)
    if not options.no_save:
        from anondata.tools.bench._common import RESULTS, save

        saved = RESULTS / "ledger.json"
        save("ledger", {**(json.loads(saved.read_text()) if options.only and saved.exists() else {}), **body})


def measured(url: Any, options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    if options.only in (None, "crowd"):
        for what in (together, killed):
            figures = what(url(what.__name__), options.processes, options.requests)
            yield "together", {"round": what.__name__, "processes": options.processes, **figures}
    if options.only in (None, "charging"):
        for batch in (1, 32):
            yield "charging", charging(url(f"blocks{batch}"), options.samples, batch)
    if options.only in (None, "streaming"):
        yield "streaming", streaming(url("streaming"), options.repeats)


_TITLES = {
    "together": "many processes, one limit",
    "charging": "Account.charge in blocks",
    "streaming": "a WebDataset stage with and without the ledger",
}
_LEFT_OUT = ("took_s", "held_blocks", "samples", "repeats")


def tell(body: dict[str, list[dict[str, Any]]]) -> None:
    from anondata.tools.bench._common import show

    for part, rows in body.items():
        columns = list(dict.fromkeys(name for row in rows for name in row if name not in _LEFT_OUT))
        show(_TITLES[part], columns, [[row.get(name, "") for name in columns] for row in rows])


if __name__ == "__main__":
    main()
