"""Ordinary programs (cp, tar, git, ...) run and timed, their output thrown away."""

from __future__ import annotations

import os
import subprocess
import time


def run(argv: list[str], directory: str) -> float:
    """Seconds of one program started in `directory`.

    Raises:
      OSError: it did not exit with 0; the message holds the end of its stderr.
    """
    os.chdir(directory)
    start = time.perf_counter()
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise OSError(f"{argv[0]} exited with {done.returncode}: {' '.join(words)}")
    return seconds


def script(text: str, directory: str) -> float:
    """Seconds of one line of shell; any part of a pipe that fails, fails it."""
    return run(["bash", "-o", "pipefail", "-ec", text], directory)
