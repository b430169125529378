"""What many runs came to: printed, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from time import perf_counter

from tests.sim.cluster import Report

FAILURES_SHOWN = 10


def print_totals(reports: Iterable[Report], *, stop: bool = False) -> list[int]:
    """Print failures as they come and figures at the end; returns the seeds that failed.

    `stop`: at the first of them.
    """
    began = perf_counter()
    operations: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    points: Counter[str] = Counter()
    upkeep: Counter[str] = Counter()
    failed: list[int] = []
    seeds = records = hits = opens = events = 0
    virtual_s = cpu_s = 0.0
    for report in reports:
        seeds += 1
        records += report.records
        hits += report.cache_hits
        opens += report.local_opens
        virtual_s += report.virtual_s
        events += report.events
        cpu_s += report.cpu_s
        operations.update(report.operations)
        errors.update(report.errors)
        faults.update(report.faults)
        points.update(report.crash_points)
        upkeep.update(report.upkeep)
        if report.failure:
            failed.append(report.seed)
            if len(failed) <= FAILURES_SHOWN:
                print(f"seed {report.seed} failed:\n{report.failure}", flush=True)
            if stop:
                break
    minutes = (perf_counter() - began) / 60
    _table("operations", operations)
    _table("errors told to callers", errors)
    _table("faults", faults)
    _table("power lost in", points)
    _table("log and state", upkeep)
    print(
        f"{seeds} seeds, {operations.total()} operations ({hits} lookups and {opens} opens"
        f" from the cache),"
        f" {records} records, {faults.total()} faults, {virtual_s / 3600:.1f} virtual hours,"
        f" {events} events, {cpu_s / max(1, seeds):.1f} s of CPU a seed,"
        f" {seeds / minutes:.0f} seeds a minute"
    )
    for seed in sorted(failed):
        print(f"failed: make sim SEED={seed}")
    return failed


def _table(title: str, counts: Counter[str]) -> None:
    parts = (f"{name} {count}" for name, count in counts.most_common())
    print(f"{title}: {', '.join(parts)}")
