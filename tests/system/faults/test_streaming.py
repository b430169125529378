"""Servers killed and stopped in the middle of a large write: the writer only pauses."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.faults.processes import FaultyCluster
from tests.system.faults.works import amount
from tests.system.faults.writer import Told, Writer

pytestmark = [pytest.mark.mount, pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(200)]

CONFIG = """
[master]
cache_lease_s = 3.0
"""
WRITE_MIB = amount(ci=160, full=512)
KILLED_GOAL_S, STOPPED_GOAL_S = 0.25, 2.0
# Wall-clock limits are for a quiet machine; here only that the writer is not left hanging.
STUCK_S = 20.0


def write_with_fault(path: Path, fault: Callable[[], None]) -> Told:
    """Write WRITE_MIB; `fault` happens when a third is written."""
    writer = Writer("stream", path, WRITE_MIB)
    writer.wait_third()
    fault()
    told = writer.end()
    assert told.errno == 0, os.strerror(told.errno)
    return told


def sum_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def report(what: str, told: Told, goal_s: float | None) -> None:
    goal = f" (goal {1000 * goal_s:.0f} ms)" if goal_s is not None else ""
    print(
        f"{what}: {WRITE_MIB} MiB, longest write call {1000 * told.longest_s:.0f} ms{goal}, "
        f"fsync {told.sync_s:.2f} s"
    )
    assert told.longest_s < STUCK_S


def test_undisturbed_write_for_comparison(here: Path, there: Path) -> None:
    told = write_with_fault(here / "f", lambda: None)
    report("nothing fails", told, None)
    assert sum_of(there / "f") == told.sha256


@pytest.mark.parametrize("name", ["chunkd1", "chunkd2"])
def test_killed_chunk_server_does_not_hold_up_a_write(
    cluster: FaultyCluster, here: Path, there: Path, name: str
) -> None:
    told = write_with_fault(here / "f", lambda: cluster.kill(name))
    report(f"{name} killed", told, KILLED_GOAL_S)
    assert sum_of(there / "f") == told.sha256


@pytest.mark.parametrize("name", ["chunkd1", "chunkd3"])
def test_stopped_chunk_server_does_not_hold_up_a_write(
    cluster: FaultyCluster, here: Path, there: Path, name: str
) -> None:
    pid = cluster.pid(name)
    try:
        told = write_with_fault(here / "f", lambda: os.kill(pid, signal.SIGSTOP))
        report(f"{name} stopped", told, STOPPED_GOAL_S)
        assert sum_of(there / "f") == told.sha256  # read while it is still stopped
    finally:
        os.kill(pid, signal.SIGCONT)
    assert sum_of(here / "f") == told.sha256


def test_restarted_master_does_not_hold_up_a_write(
    cluster: FaultyCluster, here: Path, there: Path
) -> None:
    told = write_with_fault(here / "f", lambda: cluster.restart("master"))
    report("the master killed and started", told, None)
    assert sum_of(there / "f") == told.sha256


def test_restarted_master_and_server_together_lose_nothing(
    cluster: FaultyCluster, here: Path, there: Path
) -> None:
    def fault() -> None:
        cluster.kill("master", "chunkd1")
        cluster.start("chunkd1", "master")

    told = write_with_fault(here / "f", fault)
    report("master and a chunk server killed and started", told, None)
    assert sum_of(there / "f") == told.sha256
    cluster.wait_ready()
    assert cluster.fsck(copies=2) == []
