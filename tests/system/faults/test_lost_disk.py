"""The filesystem below a chunk server is gone while files are written: a pause, and made good."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.conftest import fuse_missing
from tests.system.clusters import LocalCluster
from tests.system.faults.processes import FaultyCluster

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(90)]

MIB = 1 << 20
CONFIG = """
[master]
cache_lease_s = 3.0
chunk_bytes = 4194304
safe_start_s = 0.0
repair_delay_s = 1.0

[chunkd]
disk_hung_s = 2.0
"""
ALLOWED = (r"disk\.failed", r"append\.failed", r"sync\.failed", r"chain\.failed")
VICTIM = "chunkd1"
SECONDS = 4.0
STALL_MAX_S = 3.0


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyCluster]:
    """Four servers, one of them on a filesystem that can be taken away."""
    if os.geteuid() != 0:
        pytest.skip("a filesystem of its own needs root")
    if reason := fuse_missing():
        pytest.skip(reason)
    found = FaultyCluster(tmp_path_factory.mktemp("c"))
    found.layout.create()
    path = found.layout.data(VICTIM)
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=512m,mode=700", "gfs-test", str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        found.up(config=CONFIG, chunkservers=4, mounts=1, goal=3, projections=False)
        yield found
    finally:
        found.end()
        subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)
    lines = found.faults(ALLOWED)
    if lines:
        pytest.fail("unexpected in the logs:\n" + "\n".join(lines[:20]), pytrace=False)


def status(cluster: FaultyCluster) -> dict[str, Any]:
    return cast("dict[str, Any]", cluster.status())


def is_whole(cluster: FaultyCluster) -> bool:
    found = status(cluster)
    chunks, repair = found["chunks"], found["repair"]
    short = chunks["under_replicated"] or chunks["missing"]
    return not (short or repair["waiting"] or repair["copying"])


@pytest.mark.alone
def test_a_lost_disk_is_a_pause_and_all_is_copied_elsewhere(cluster: FaultyCluster) -> None:
    here = cluster.mnt(1)
    path = cluster.layout.data(VICTIM)
    before = os.urandom(9 * MIB)
    (here / "before").write_bytes(before)
    cluster.wait("not whole", lambda: is_whole(cluster))
    digest, longest_s, written = hashlib.sha256(), 0.0, 0
    began = time.monotonic()
    with open(here / "during", "wb", buffering=0) as file:
        while (now := time.monotonic()) - began < SECONDS:
            if written and path.is_mount() and now - began > 1.0:
                subprocess.run(["umount", "-l", str(path)], check=True)
            content = os.urandom(MIB // 4)
            file.write(content)
            os.fsync(file.fileno())
            digest.update(content)
            written += len(content)
            longest_s = max(longest_s, time.monotonic() - now)
    print(f"\n{written / MIB:.0f} MiB written, the longest call {longest_s:.2f} s")
    assert longest_s < STALL_MAX_S
    cluster.wait("not said", lambda: any(one["errors"] for one in status(cluster)["servers"]))
    LocalCluster(cluster.layout.directory).gfs("status", code=1)
    cluster.wait("not whole", lambda: is_whole(cluster), 30.0)
    assert hashlib.sha256((here / "during").read_bytes()).digest() == digest.digest()
    assert (here / "before").read_bytes() == before
    assert not list(path.glob("*")), "nothing is written below the mountpoint"
    assert cluster.fsck() == []
