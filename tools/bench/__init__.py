"""Benchmarks: each prints a table and writes JSON to ``tools/bench/results``. No claim stands without one."""
