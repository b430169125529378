"""Appended lines: by one process, each fsynced, and by four processes into one file."""

from __future__ import annotations

from pathlib import Path

from bench.drivers import appending, files
from bench.driving import Driver, DriverFailed
from bench.stage import Better, Figure, Stage, Workload

LINES = 50_000
SYNCED = 400
WRITERS = 4
LINES_EACH = 5_000
ALONE, SYNC, SHARED = "append 100-byte lines", "append + fsync, p50", "4 appenders, 2 mounts"
UNSEEN = "4 appenders: wrong at once"  # a stale cache shows too little, though all is there
WRONG = "4 appenders: wrong lines"


def run(stage: Stage) -> None:
    """One appender, then one that fsyncs each line."""
    place = stage.make_place()
    stage.settle()
    count = stage.scaled(LINES, 2_000)
    [rate] = _append(stage, [place / "alone"], count)
    stage.record(ALONE, rate)
    faults = stage.call(appending.check_lines, place / "alone", 1, count)
    if any(faults.values()):
        raise DriverFailed(f"one appender: {faults}")
    seconds = stage.call(appending.append_synced, place / "synced", stage.scaled(SYNCED, 50))
    stage.record(SYNC, seconds * 1e3)


def run_shared(stage: Stage) -> None:
    """Four processes, two on each mount; then every line is looked for, twice."""
    stage.make_place()
    stage.settle()
    count = stage.scaled(LINES_EACH, 500)
    paths = [stage.place(mount) / "shared" for mount in (0, 1)]
    # Made first: when two mounts create one name at once, MooseFS answers EEXIST to one
    # of them although neither asked for O_EXCL, and this is about appending.
    stage.call(files.make_file, paths[0])
    rate = sum(_append(stage, [paths[w % 2] for w in range(WRITERS)], count))
    stage.record(SHARED, rate)
    stage.record(UNSEEN, _wrong_lines(stage, paths, count))
    stage.target.remount()
    stage.record(WRONG, _wrong_lines(stage, paths, count))


def _wrong_lines(stage: Stage, paths: list[Path], count: int) -> int:
    """Lines lost, torn, doubled or out of order, on the mount that shows more of them."""
    worst = 0
    for path in paths:
        faults: dict[str, int] = stage.call(appending.check_lines, path, WRITERS, count)
        worst = max(worst, sum(faults.values()))
    return worst


def _append(stage: Stage, paths: list[Path], count: int) -> list[float]:
    """Lines a second of all writers together, from the first start to the last close."""
    drivers = [
        Driver(appending.append_lines, path, writer, count) for writer, path in enumerate(paths)
    ]
    try:
        for driver in drivers:
            driver.wait_note(stage.limit_s)
        for driver in drivers:
            driver.go()
        spans = [driver.result(stage.limit_s) for driver in drivers]
    finally:
        for driver in drivers:
            driver.close()
    seconds = max(span["end"] for span in spans) - min(span["start"] for span in spans)
    return [count * len(spans) / seconds]


APPENDING = Workload(
    "append",
    "lines appended by one process, one write(2) each",
    (Figure(ALONE, "lines/s", Better.HIGHER), Figure(SYNC, "ms", Better.LOWER)),
    run,
)
APPENDERS = Workload(
    "appenders",
    "four processes on two mounts append to one file; every line is checked",
    (
        Figure(SHARED, "lines/s", Better.HIGHER),
        Figure(UNSEEN, "lines", Better.LOWER),
        Figure(WRONG, "lines", Better.LOWER),
    ),
    run_shared,
)
