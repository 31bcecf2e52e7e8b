"""What ``import anondata`` costs beside ``import torch`` alone, in fresh interpreters that take turns.

python -m anondata.tools.bench.import_time
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from anondata.tools.bench._common import save, show

STATEMENTS = ("import torch", "import anondata", "import anondata; anondata.Anonymizer")
REPEATS = 7


def seconds(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def main() -> None:
    taken: dict[str, list[float]] = {s: [] for s in STATEMENTS}
    for _ in range(REPEATS):
        for statement in STATEMENTS:
            taken[statement].append(seconds(statement))
    base = statistics.median(taken["import torch"])
    rows = [
        {
            "statement": statement,
            "seconds": round(statistics.median(times), 2),
            "low": round(min(times), 2),
            "high": round(max(times), 2),
            "ratio_to_torch": round(statistics.median(times) / base, 2),
        }
        for statement, times in taken.items()
    ]
    show("import time", list(rows[0]), [list(row.values()) for row in rows])
    save("import_time", {"repeats": REPEATS, "rows": rows})


if __name__ == "__main__":
    main()
