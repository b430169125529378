"""Random reads of 4 KiB in a large file, one at a time and eight at a time."""

from __future__ import annotations

from bench.drivers import streaming
from bench.drivers.streaming import MIB
from bench.stage import Better, Figure, Stage, Workload

FILE_MIB = 1024
THREADS = 8
READS_EACH = 4000
ONE, EIGHT = "4 KiB random reads, 1 thread", "4 KiB random reads, 8 threads"


def run(stage: Stage) -> None:
    """Read distinct pages through a fresh mount, the servers' caches warm."""
    total = stage.scaled(FILE_MIB, 64) * MIB
    reads = stage.scaled(READS_EACH, 500)
    path = stage.make_place() / "large"
    stage.call(streaming.write, path, total, MIB)
    stage.target.remount()
    one, eight = stage.call(streaming.random_reads, path, total, [1, reads, THREADS, 2 * reads])
    stage.record(ONE, one)
    stage.record(EIGHT, eight)
    stage.call(streaming.discard, path)


RANDOM_READS = Workload(
    "random",
    "4 KiB reads at random offsets, fresh mount, servers warm",
    (Figure(ONE, "/s", Better.HIGHER), Figure(EIGHT, "/s", Better.HIGHER)),
    run,
)
