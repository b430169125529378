"""The master is killed for good and its shadow takes over, while programs write (GFS §5.1.3)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.system.faults.processes import SHORT_LEASES, FaultyCluster
from tests.system.faults.works import Background
from tests.system.faults.writer import Writer, line_of

pytestmark = [pytest.mark.mount, pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(120)]

CONFIG = SHORT_LEASES
WISHES = {"mounts": 1, "shadow": True}
LINES = 4000
FILES = 300
STALL_S = 15.0  # 6 s that an old master could still answer, and a start


def gfs(cluster: FaultyCluster, *words: str) -> bytes:
    """Output of a command."""
    directory = str(cluster.layout.directory)
    command = [sys.executable, "-P", "-m", "gfs.cli.main", "--cluster", directory]
    done = subprocess.run(
        [*command, *words], capture_output=True, timeout=60, check=False, cwd="/",
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def make_files(here: Path, made: list[str]) -> None:
    """One after the other; a name is in the list once its call has returned."""
    for number in range(FILES):
        (here / f"file{number}").write_bytes(b"%d" % number)
        made.append(f"file{number}")
        time.sleep(0.01)


def shadows_keep_up(cluster: FaultyCluster) -> bool:
    shadows = cluster.status().get("shadows", [])
    assert isinstance(shadows, list)
    return any(one["keeps_up"] for one in shadows)


def test_a_promoted_shadow_has_all_that_was_acknowledged(
    cluster: FaultyCluster, here: Path
) -> None:
    cluster.wait("shadow", partial(shadows_keep_up, cluster))
    made: list[str] = []
    appender = Writer("append", here / "log", 1, LINES, 1)
    files = Background(partial(make_files, here, made))
    appender.wait_third()
    cluster.kill("master")
    known = list(made)
    listed = gfs(cluster, "ls", "--shadow", f"/{here.name}").split()
    assert set(known) <= {name.decode() for name in listed}
    began = time.monotonic()
    gfs(cluster, "master", "promote")
    print(f"promoted in {time.monotonic() - began:.1f} s")
    files.join()
    print(f"changes went on {time.monotonic() - began:.1f} s after that")
    told = appender.end()
    assert told.errno == 0
    assert told.longest_s < STALL_S
    assert (here / "log").read_bytes() == b"".join(line_of(1, number) for number in range(LINES))
    assert sorted(os.listdir(here)) == sorted([*made, "log"])
    for name in made:
        assert (here / name).read_bytes() == name.removeprefix("file").encode()
    cluster.up()  # the old master, which now follows
    cluster.wait("old master", partial(shadows_keep_up, cluster))
    assert cluster.fsck(copies=2) == []
