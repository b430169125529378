"""What people see while a command works."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import time
from gfs.cli.output import progress
with progress("put big", 64 << 20) as step:
    for _ in range(4):
        step(16 << 20)
        time.sleep(0.15)  # longer than a bar takes to be drawn anew
"""

WAITING = """
import time
from gfs.cli.output import waiting
with waiting("snapshot tree"):
    time.sleep(SECONDS)
"""


def _on_a_terminal(program: str) -> bytes:
    """What it writes to standard error there."""
    command = [sys.executable, "-c", program]
    leader, follower = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, stderr=follower, env=environment) as process:
        os.close(follower)
        seen = b""
        try:
            while part := os.read(leader, 4096):
                seen += part
        except OSError:  # EIO: the other end is closed
            pass
    os.close(leader)
    assert process.returncode == 0
    return seen


def _in_a_pipe(program: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, timeout=60, check=True
    )
    return done.stderr


def test_long_work_shows_a_bar_on_a_terminal_and_nothing_in_a_pipe() -> None:
    seen = _on_a_terminal(PROGRAM)
    assert b"put big" in seen
    assert b"64.0 MiB" in seen
    assert _in_a_pipe(PROGRAM) == b""


def test_a_long_wait_for_one_answer_shows_the_time_gone_a_short_one_nothing() -> None:
    seen = _on_a_terminal(WAITING.replace("SECONDS", "1.0"))
    assert b"snapshot tree" in seen
    assert b"0:00:0" in seen
    assert _on_a_terminal(WAITING.replace("SECONDS", "0.01")) == b""
    assert _in_a_pipe(WAITING.replace("SECONDS", "0.01")) == b""
