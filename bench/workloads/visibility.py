"""A change made on one mount, seen on the other."""

from __future__ import annotations

from bench.drivers import visibility
from bench.drivers.visibility import NAMES
from bench.stage import Better, Figure, Stage, Workload, median

CHANGES = 20


def run(stage: Stage) -> None:
    """Each kind of change several times; the median delay after the call has returned."""
    stage.make_place()
    count = stage.scaled(CHANGES, 5)
    for kind, name in NAMES.items():
        delays = stage.call(visibility.measure, kind, stage.place(0), stage.place(1), count)
        stage.record(name, median(delays) * 1e3)


VISIBILITY = Workload(
    "visibility",
    "delay from the return of a change on one mount to its sight on the other, p50",
    tuple(Figure(name, "ms", Better.LOWER) for name in NAMES.values()),
    run,
)
