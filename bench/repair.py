"""Speed of re-replication beside a plain copy on the same disk: `python -m bench.repair`.

A cluster of four chunk servers holds some GiB at goal 3; one server is killed with -9 and its
directory removed. Timed is from the first copy that the master orders until every chunk is
whole again, durable as copies are; beside it `cp` and `sync` of the bytes that the server had.
Both read what lies in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.targets.commands import run
from gfs.cluster import down as downing
from gfs.cluster.asking import cluster_status
from gfs.cluster.layout import Layout
from gfs.cluster.processes import Registry
from gfs.cluster.up import Wishes, client_config, up
from gfs.errors import GfsError
from gfs.ids import GIB, MIB

VICTIM = "chunkd2"
FILE_BYTES = 256 * MIB
POLL_S = 0.02
LIMIT_S = 600.0
CONFIG = "[master]\nrepair_delay_s = 1.0\n"


def fill(layout: Layout, size: int) -> None:
    """Files of random bytes."""
    source = layout.directory / "source"
    for number, start in enumerate(range(0, size, FILE_BYTES)):
        source.write_bytes(os.urandom(min(FILE_BYTES, size - start)))
        gfs = (sys.executable, "-m", "gfs.cli.main", "--cluster", layout.directory)
        run(*gfs, "put", source, f"/file{number}", limit_s=LIMIT_S)
    source.unlink()


def copy_locally(layout: Layout) -> tuple[int, float]:
    """Bytes that the victim has, and seconds for `cp` of them with `sync`."""
    source, target = layout.data(VICTIM), layout.directory / "copied"
    size = sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
    os.sync()
    began = time.monotonic()
    run("cp", "-r", source, target, limit_s=LIMIT_S)
    run("sync", "-f", target, limit_s=LIMIT_S)
    took = time.monotonic() - began
    shutil.rmtree(target)
    os.sync()
    return size, took


def status_of(layout: Layout) -> dict[str, Any]:
    """The master's status; empty while it does not answer."""
    try:
        return cluster_status(client_config(layout))
    except GfsError:
        return {}


def repair(layout: Layout) -> tuple[int, float]:
    """Kill a server for good; bytes copied, and seconds from the first copy to the last."""
    before = status_of(layout)["repair"]["copied_bytes_total"]
    victim = Registry(layout).alive()[VICTIM]
    os.kill(victim.pid, signal.SIGKILL)
    shutil.rmtree(layout.data(VICTIM))
    began, deadline = 0.0, time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        found = status_of(layout)
        if not found:
            continue
        now, work = time.monotonic(), found["repair"]
        if not began and (work["copying"] or work["copied_bytes_total"] > before):
            began = now
        busy = work["waiting"] or work["copying"] or found["chunks"]["under_replicated"]
        if began and not busy:
            return work["copied_bytes_total"] - before, now - began
    raise TimeoutError(f"not whole after {LIMIT_S} s: {json.dumps(status_of(layout))}")


def measure(directory: Path, size: int) -> dict[str, float]:
    """All figures; the cluster is gone afterwards."""
    layout = Layout(directory)
    config = directory / "given.toml"
    config.write_text(CONFIG)
    wishes = Wishes(chunkservers=4, mounts=0, goal=3, projections=False, config=config)
    up(layout, wishes, lambda _: None)
    try:
        fill(layout, size)
        local_bytes, local_s = copy_locally(layout)
        repaired_bytes, repair_s = repair(layout)
    finally:
        downing.down(layout, lambda _: None)
    repair_rate, local_rate = repaired_bytes / repair_s, local_bytes / local_s
    return {
        "repaired_mib": round(repaired_bytes / MIB),
        "repair_s": round(repair_s, 2),
        "repair_mib_per_s": round(repair_rate / MIB),
        "cp_mib_per_s": round(local_rate / MIB),
        "share_percent": round(100 * repair_rate / local_rate),
    }


def main() -> None:
    """Print the figures as one JSON line."""
    parser = argparse.ArgumentParser("python -m bench.repair", description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0, help="bytes in files [2]")
    parser.add_argument("--dir", default="/var/tmp", help="disk to work on [/var/tmp]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gfs-repair-", dir=given.dir) as directory:
        print(json.dumps(measure(Path(directory), int(given.gib * GIB))))


if __name__ == "__main__":
    main()
