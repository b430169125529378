"""Killing callers at unlucky moments does not freeze the process that serves them."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfs import mounts

pytestmark = [pytest.mark.timeout(60), pytest.mark.kill]

KILLS = 60
BEATS = 5
CALLERS = 4  # on two cores requests then queue, and are withdrawn from the queue
PROGRAM = "import os, sys\nwhile True:\n try: os.stat(sys.argv[1])\n except OSError: pass"


@pytest.fixture
def served(tmp_path: Path, require_fuse: None) -> Iterator[tuple[Path, int]]:
    """A mounted heartbeat filesystem and the descriptor of its beats."""
    point = tmp_path / "m"
    point.mkdir()
    words = [sys.executable, "-m", "tests.fuse.heartbeat", str(point)]
    root = Path(__file__).parents[2]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=root)
    assert server.stdout is not None
    try:
        assert server.stdout.read(1) == b"."
        while not os.path.ismount(point):
            time.sleep(0.01)
        yield point, server.stdout.fileno()
        subprocess.run(["fusermount3", "-u", point], check=True, timeout=10)
        assert server.wait(10) == 0
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
        mounts.detach(os.fsencode(point))


def until_beats(beats: int, limit_s: float) -> float:
    """Seconds until `BEATS` beats have come, one read each; infinite if they do not."""
    began, left = time.monotonic(), BEATS
    while time.monotonic() < began + limit_s:
        if select.select([beats], [], [], 0.1)[0]:
            left -= len(os.read(beats, 1))
            if not left:
                return time.monotonic() - began
    return float("inf")


def test_withdrawn_request_does_not_freeze_the_loop(served: tuple[Path, int]) -> None:
    """Method: callers are killed while they ask, then nobody asks: a frozen loop stays so."""
    point, beats = served
    rng = random.Random(3)
    worst = 0.0
    for _ in range(KILLS):
        words = [sys.executable, "-S", "-c", PROGRAM, str(point / "none")]
        callers = [subprocess.Popen(words) for _ in range(CALLERS)]
        time.sleep(0.05 + rng.random() * 0.02)
        for caller in callers:
            caller.kill()
        for caller in callers:
            caller.wait()
        while select.select([beats], [], [], 0)[0]:
            os.read(beats, 65536)  # from before
        worst = max(worst, until_beats(beats, 3.0))
    print(f"{BEATS} beats took at most {worst * 1000:.0f} ms in {KILLS} rounds")
    assert worst < 3.0, "frozen: it beats again only when somebody asks"
