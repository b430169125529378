"""One large file: written in large writes, small ones and by tee; read from cold, warm and hot."""

from __future__ import annotations

from bench import processes
from bench.drivers import shell, streaming
from bench.drivers.streaming import MIB
from bench.stage import Better, Figure, Stage, Workload

FILE_MIB = 1024
TEE_MIB = 256
GIB = 1024 * MIB
WRITE_1M, WRITE_128K, TEE = "write, 1 MiB writes", "write, 128 KiB writes", "cat | tee"
READ_COLD, READ_WARM, READ_AGAIN = "read, all cold", "read, servers warm", "read again"
LONGEST = "write: longest call"
CPU_WRITE, CPU_READ = "daemons' CPU, write", "daemons' CPU, read"


def run(stage: Stage) -> None:
    """Write and read one file; the first one written is the one that is read."""
    total = stage.scaled(FILE_MIB, 16) * MIB
    first = stage.make_place() / "large"
    _write(stage, total)
    _tee(stage)
    for name, cold in ((READ_COLD, True), (READ_WARM, False)):
        stage.target.remount()
        if cold:
            stage.target.drop_server_caches()
        before = processes.cpu_seconds(stage.target.pids().values())
        stage.record(name, total / MIB / stage.call(streaming.read, first, total))
    pids = stage.target.pids().values()
    if pids:
        stage.record(CPU_READ, (processes.cpu_seconds(pids) - before) * GIB / total)
    stage.record(READ_AGAIN, total / MIB / stage.call(streaming.read, first, total))
    stage.call(streaming.verify, first, total)
    stage.call(streaming.discard, first)


def _write(stage: Stage, total: int) -> None:
    stage.settle()
    pids = stage.target.pids().values()
    before = processes.cpu_seconds(pids)
    written = stage.call(streaming.write, stage.place() / "large", total, MIB)
    stage.record(WRITE_1M, total / MIB / written["seconds"])
    stage.record(LONGEST, written["longest_s"] * 1e3)
    if pids:
        stage.record(CPU_WRITE, (processes.cpu_seconds(pids) - before) * GIB / total)
    stage.settle()
    second = stage.place() / "second"
    written = stage.call(streaming.write, second, total, 128 * 1024)
    stage.record(WRITE_128K, total / MIB / written["seconds"])
    stage.call(streaming.discard, second)


def _tee(stage: Stage) -> None:
    """`cat` a local file into `tee`; the copy is then fsynced within the time."""
    total = stage.scaled(TEE_MIB, 8) * MIB
    source, copy = stage.scratch / "tee-source", stage.place() / "tee"
    stage.call(streaming.write, source, total, MIB)
    line = f"cat '{source}' | tee '{copy}' >/dev/null; sync '{copy}'"
    stage.settle()
    seconds = stage.call(shell.script, line, stage.scratch)
    stage.record(TEE, total / MIB / seconds)
    stage.call(streaming.verify, copy, total)
    stage.call(streaming.discard, copy)
    stage.call(streaming.discard, source)


STREAMING = Workload(
    "stream",
    "one file of 1 GiB, sequentially",
    (
        Figure(WRITE_1M, "MiB/s", Better.HIGHER),
        Figure(LONGEST, "ms", Better.LOWER),
        Figure(WRITE_128K, "MiB/s", Better.HIGHER),
        Figure(TEE, "MiB/s", Better.HIGHER),
        Figure(READ_COLD, "MiB/s", Better.HIGHER),
        Figure(READ_WARM, "MiB/s", Better.HIGHER),
        Figure(READ_AGAIN, "MiB/s", Better.HIGHER),
        Figure(CPU_WRITE, "s/GiB", Better.LOWER),
        Figure(CPU_READ, "s/GiB", Better.LOWER),
    ),
    run,
)
