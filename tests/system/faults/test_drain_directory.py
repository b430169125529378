"""A disk is taken out of a running cluster of three servers: drained first, nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.system.clusters import LocalCluster
from tests.system.faults.processes import FaultyCluster
from tests.system.faults.test_repair import is_whole, write

pytestmark = [pytest.mark.mount, pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(90)]

WISHES = {"mounts": 1}
CONFIG = """
[master]
chunk_bytes = 4194304
safe_start_s = 0.0
"""
MIB = 1 << 20
VICTIM = "chunkd1"


def test_a_drained_directory_is_empty_and_its_disk_may_go(
    cluster: FaultyCluster, here: Path
) -> None:
    """The other two servers have a copy each already: it is the server itself that takes it."""
    kept = cluster.layout.data(VICTIM)
    drained = kept.with_name("second-disk")
    # Of two on one filesystem the first named takes all that is new.
    cluster.replaced[VICTIM] = [f"--data-dirs={drained}", f"--data-dirs={kept}"]
    cluster.restart(VICTIM)
    digests = write(here, [5000] * 5 + [9 * MIB])
    before = os.urandom(MIB)
    with open(here / "log", "ab", buffering=0) as log:
        log.write(before)
        os.fsync(log.fileno())
        assert list((drained / "chunks").glob("*/*.side")), "a chunk is open there"
        commands = LocalCluster(cluster.layout.directory)
        refused = commands.gfs("chunkd", "drain", VICTIM, "--dir", f"{drained}x", code=1)
        assert str(drained) in refused.stderr.decode()
        commands.gfs("chunkd", "drain", VICTIM, "--dir", str(drained), "--no-wait")
        cluster.kill("master", VICTIM)
        cluster.start("master", VICTIM)
        cluster.wait_ready("master", VICTIM)
        report = json.loads(
            commands.out("chunkd", "drain", VICTIM, "--dir", str(drained), "--json")
        )
        assert (report["done"], report["replicas_left"], report["nowhere"]) == (True, 0, 0)
        assert b"its disk may be taken out" in commands.out("status")
        assert list((drained / "chunks").glob("*/*")) == []
        log.write(b"and on")
        os.fsync(log.fileno())
    del cluster.replaced[VICTIM]
    cluster.kill(VICTIM)
    shutil.rmtree(drained)
    cluster.start(VICTIM)
    cluster.wait_ready(VICTIM)
    cluster.wait("not whole", lambda: is_whole(cluster), 30.0)
    for name, digest in digests.items():
        assert hashlib.sha256((here / name).read_bytes()).hexdigest() == digest, name
    assert (here / "log").read_bytes() == before + b"and on"
    assert cluster.fsck() == []
