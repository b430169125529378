"""Servers killed and stopped, the master restarted, in the middle of a write; daemons' memory."""

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
KINDS = ("server killed", "server stopped", "master restarted")


def run(stage: Stage) -> None:
    """Break something at half of a write, check the content, heal; one write for each kind."""
    stage.make_place()
    target = stage.target
    ways = (target.kill_server, target.stop_server, target.restart_master)
    for kind, breaks in zip(KINDS, ways, strict=True):
        try:
            _break(stage, kind, breaks)
        except NotApplicable:
            if kind != KINDS[-1]:  # some have servers and no master
                raise


def _break(stage: Stage, kind: str, breaks: Callable[[], None]) -> None:
    """Record the longest write call and the fsync; heal whatever happens."""
    total = stage.scaled(FILE_MIB, FILE_MIB_MIN) * MIB
    name = kind.replace(" ", "-")
    path = stage.place() / name
    stage.settle()
    driver = Driver(streaming.write, path, total, MIB, total // MIB // 2 * MIB)
    try:
        driver.wait_note(stage.limit_s)
        breaks()
        written = driver.result(stage.limit_s)
        stage.record(f"{kind}: longest write", written["longest_s"] * 1e3)
        stage.record(f"{kind}: fsync", written["fsync_s"] * 1e3)
        stage.call(streaming.verify, stage.place(1) / name, total)
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
    "a server killed, one stopped, the master restarted, at half of a write of 512 MiB",
    tuple(
        Figure(f"{kind}: {what}", "ms", Better.LOWER)
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
