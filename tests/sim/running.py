"""Seeds in processes of their own, a few at a time; what each reports."""

from __future__ import annotations

import gc
import logging
import os
import selectors
import sys
import time
import traceback
from collections.abc import Iterable, Iterator

import msgspec

from tests.sim import planted
from tests.sim.cluster import Cluster, Report

TRACE_FRAMES = 12


def run_seeds(
    seeds: Iterable[int],
    *,
    jobs: int = 1,
    trace: bool = False,
    plant: str = "",
    operations: int = 1000,
) -> Iterator[Report]:
    """Run each seed; reports in the order of their ends."""
    waiting = iter(seeds)
    with selectors.DefaultSelector() as selector:
        running: dict[int, tuple[int, int, bytearray]] = {}

        def start() -> None:
            seed = next(waiting, None)
            if seed is None:
                return
            reading, process = _fork(seed, trace, plant, operations)
            running[reading] = seed, process, bytearray()
            selector.register(reading, selectors.EVENT_READ)

        for _ in range(jobs):
            start()
        try:
            while running:
                for key, _ in selector.select():
                    seed, process, content = running[key.fd]
                    more = os.read(key.fd, 1 << 16)
                    content += more
                    if not more:
                        selector.unregister(key.fd)
                        os.close(key.fd)
                        del running[key.fd]
                        os.waitpid(process, 0)
                        yield _report(seed, bytes(content))
                        start()
        finally:
            for reading, (_, process, _) in running.items():
                os.kill(process, 9)
                os.waitpid(process, 0)
                os.close(reading)


def _report(seed: int, content: bytes) -> Report:
    if not content:
        return Report(seed, failure="the process of the simulation died")
    return msgspec.json.decode(content, type=Report)


def _fork(seed: int, trace: bool, plant: str, operations: int) -> tuple[int, int]:
    """A child that runs the seed; returns the pipe of its report, and its number."""
    sys.stdout.flush()
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return reading, process
    code = 1
    try:
        os.close(reading)
        report = run_seed(seed, trace=trace, plant=plant, operations=operations)
        os.write(writing, msgspec.json.encode(report))
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)  # no cleaning up: half-run tasks must not run on


def run_seed(seed: int, *, trace: bool, plant: str, operations: int) -> Report:
    """Run one seed here and now; this process can do nothing else afterwards."""
    gc.disable()
    if trace:
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(message)s")
    else:
        logging.disable(logging.CRITICAL)
    began = time.process_time()
    cluster = Cluster(seed, trace=trace, operations=operations)
    if plant:
        planted.plant(plant)
    failure = ""
    try:
        cluster.run()
    except BaseException as error:
        failure = "".join(traceback.format_exception(error, limit=-TRACE_FRAMES))
    report = cluster.report()
    report.failure = failure
    report.cpu_s = time.process_time() - began
    return report
