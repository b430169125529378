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


def longest_pause(beats: int, seconds: float) -> float:
    """Longest time without a beat during the next `seconds`."""
    end = time.monotonic() + seconds
    last, longest = time.monotonic(), 0.0
    while (now := time.monotonic()) < end:
        if select.select([beats], [], [], 0.01)[0]:
            os.read(beats, 65536)
            last = time.monotonic()
        longest = max(longest, now - last)
    return longest


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
        worst = max(worst, longest_pause(beats, 0.15))
    print(f"longest pause {worst * 1000:.0f} ms in {KILLS} rounds")
    assert worst < 0.14
