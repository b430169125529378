"""A chunk server killed for good: every chunk is whole again, and says so."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any, cast

import pytest

from tests.system.clusters import LocalCluster
from tests.system.faults.processes import FaultyCluster

pytestmark = [pytest.mark.mount, pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(120)]

WISHES = {"chunkservers": 4, "mounts": 1}
CONFIG = """
[master]
cache_lease_s = 3.0
chunk_bytes = 4194304
safe_start_s = 0.0
repair_delay_s = 1.0
"""
MIB = 1 << 20


def gfs(cluster: FaultyCluster, *words: str) -> bytes:
    """Standard output of a command."""
    return LocalCluster(cluster.layout.directory).out(*words)


def status(cluster: FaultyCluster) -> dict[str, Any]:
    """The master's status, as JSON gives it."""
    return cast("dict[str, Any]", cluster.status())


def is_whole(cluster: FaultyCluster) -> bool:
    found = status(cluster)
    if not found:
        return False
    chunks, repair = found["chunks"], found["repair"]
    return not (
        chunks["under_replicated"] or chunks["missing"] or repair["waiting"] or repair["copying"]
    )


def write(here: Path, sizes: list[int]) -> dict[str, str]:
    """Files of random bytes, synced; name -> digest."""
    digests = {}
    for number, size in enumerate(sizes):
        content = random.Random(number).randbytes(size)
        with open(here / f"f{number}", "wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        digests[f"f{number}"] = hashlib.sha256(content).hexdigest()
    return digests


def test_after_a_kill_every_chunk_is_whole_again_and_reads_right(
    cluster: FaultyCluster, here: Path
) -> None:
    digests = write(here, [5000] * 20 + [9 * MIB] * 4)
    with open(here / "log", "ab", buffering=0) as log:
        log.write(b"a line\n")  # its tail stays open: it has to be sealed for this
    victim = "chunkd2"
    began = time.monotonic()
    cluster.kill(victim)
    shutil.rmtree(cluster.layout.data(victim))
    cluster.wait("not noticed", lambda: not is_whole(cluster))
    cluster.wait("not whole", lambda: is_whole(cluster), 30.0)
    print(f"whole {time.monotonic() - began:.1f} s after the kill")
    assert status(cluster)["repair"]["copied_total"] > 0
    for name, digest in digests.items():
        assert hashlib.sha256((here / name).read_bytes()).hexdigest() == digest, name
    assert (here / "log").read_bytes() == b"a line\n"
    assert cluster.fsck() == []


def test_a_drained_server_is_empty_and_may_be_switched_off(
    cluster: FaultyCluster, here: Path
) -> None:
    cluster.wait("not whole", lambda: is_whole(cluster), 30.0)
    digests = write(here, [5000] * 5 + [9 * MIB])
    out = gfs(cluster, "chunkd", "drain", "chunkd1", "--json")
    report = json.loads(out)
    assert report["done"]
    assert report["chunks_left"] == 0
    drained = next(one for one in status(cluster)["servers"] if one["draining"])
    assert drained["server"] == report["server"]
    cluster.restart("master")
    cluster.kill("chunkd1")
    shutil.rmtree(cluster.layout.data("chunkd1"))
    for name, digest in digests.items():
        assert hashlib.sha256((here / name).read_bytes()).hexdigest() == digest, name
