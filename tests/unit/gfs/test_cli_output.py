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


def test_long_work_shows_a_bar_on_a_terminal_and_nothing_in_a_pipe() -> None:
    command = [sys.executable, "-c", PROGRAM]
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
    assert b"put big" in seen
    assert b"64.0 MiB" in seen
    piped = subprocess.run(command, stderr=subprocess.PIPE, env=environment, timeout=60)
    assert piped.stderr == b""
