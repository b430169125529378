"""Bits that flip on a disk where nobody reads: found, replaced from another replica, all said."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any, cast

import pytest

from tests.system.faults.processes import FaultyCluster

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(90)]

WISHES = {"chunkservers": 3, "mounts": 1}
CONFIG = """
[master]
cache_lease_s = 3.0
chunk_bytes = 1048576
safe_start_s = 0.0
repair_delay_s = 1.0

[chunkd]
scrub_period_s = 1.0
"""
MIB = 1 << 20
ALLOWED = (r"scrub\.(bad|behind)", r"replica\.corrupt")


def sealed_files(cluster: FaultyCluster, name: str) -> list[Path]:
    """Data of sealed replicas of a server."""
    found = cluster.layout.data(name).glob("chunks/*/*.data")
    return sorted(path for path in found if path.with_suffix(".meta").exists())


def test_flipped_bits_are_found_and_the_replicas_replaced(
    cluster: FaultyCluster, here: Path
) -> None:
    content = os.urandom(8 * MIB)
    with open(here / "f", "wb", buffering=0) as file:
        file.write(content)
        os.fsync(file.fileno())
    cluster.wait("nothing sealed", lambda: len(sealed_files(cluster, "chunkd1")) >= 3)
    spoiled = sealed_files(cluster, "chunkd1")[:3]
    digests = {path: hashlib.sha256(path.read_bytes()).digest() for path in spoiled}
    began = time.monotonic()
    for path in spoiled:
        with path.open("r+b") as data:
            data.seek(path.stat().st_size // 2)
            byte = data.read(1)[0]
            data.seek(path.stat().st_size // 2)
            data.write(bytes([byte ^ 16]))

    def replaced() -> bool:
        return all(
            path.exists() and hashlib.sha256(path.read_bytes()).digest() == digest
            for path, digest in digests.items()
        )

    cluster.wait("the replicas are not replaced", replaced)
    print(f"\n3 spoiled replicas replaced after {time.monotonic() - began:.1f} s")
    assert (here / "f").read_bytes() == content
    cluster.wait("not whole", lambda: cluster.fsck() == [])
    servers = cast("list[dict[str, Any]]", cluster.status()["servers"])
    assert all(server["verified_ns"] for server in servers)
    aside = list((cluster.layout.data("chunkd1") / "quarantine").glob("*.data"))
    assert len(aside) == 3, "kept until it is certain that nobody needs them"
    assert cluster.faults(ALLOWED) == []
