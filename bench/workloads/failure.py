"""A server killed, then one stopped, in the middle of a write; and the daemons' memory."""

from __future__ import annotations

from collections.abc import Callable

from bench import processes
from bench.drivers import streaming
from bench.drivers.streaming import MIB
from bench.driving import Driver
from bench.stage import Better, Figure, Stage, Workload
from bench.targets.target import NotApplicable

FILE_MIB = 512
FILE_MIB_MIN = 128  # less fits into write-behind buffers and shows nothing
MEMORY = "memory of all daemons"
KINDS = ("killed", "stopped")


def run(stage: Stage) -> None:
    """Break one server at half of a write, check the content, heal, twice."""
    stage.make_place()
    for kind in KINDS:
        if kind == "killed":
            _break(stage, kind, stage.target.kill_server)
        else:
            _break(stage, kind, stage.target.stop_server)


def _break(stage: Stage, kind: str, breaks: Callable[[], None]) -> None:
    """Record the longest write call and the fsync; heal whatever happens."""
    total = stage.scaled(FILE_MIB, FILE_MIB_MIN) * MIB
    path = stage.place() / kind
    stage.settle()
    driver = Driver(streaming.write, path, total, MIB, total // MIB // 2 * MIB)
    try:
        driver.wait_note(stage.limit_s)
        breaks()
        written = driver.result(stage.limit_s)
        stage.record(f"server {kind}: longest write", written["longest_s"] * 1e3)
        stage.record(f"server {kind}: fsync", written["fsync_s"] * 1e3)
        stage.call(streaming.verify, stage.place(1) / kind, total)
    finally:
        driver.close()
        stage.target.heal()
    stage.call(streaming.discard, path)


def run_memory(stage: Stage) -> None:
    """Memory of daemons and mounts as the workloads before have left them."""
    pids = stage.target.pids().values()
    if not pids:
        raise NotApplicable("no daemon")
    stage.record(MEMORY, processes.memory_bytes(pids) / MIB)


FAILURE = Workload(
    "failure",
    "a server killed, then one stopped, at half of a write of 512 MiB",
    tuple(
        Figure(f"server {kind}: {what}", "ms", Better.LOWER)
        for kind in KINDS
        for what in ("longest write", "fsync")
    ),
    run,
    once=True,
)
MEMORY_USE = Workload(
    "memory",
    "memory (PSS) of all daemons and mounts after the workloads before it",
    (Figure(MEMORY, "MiB", Better.LOWER),),
    run_memory,
    once=True,
)
