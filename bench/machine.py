"""Facts about the machine and the code, so that a result can be judged later."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
import subprocess
from pathlib import Path

from bench.targets.commands import filesystem_of

ROOT = Path(__file__).resolve().parent.parent


def facts(directory: Path) -> dict[str, str | int | float]:
    """Cores, memory, kernel, disk, versions, commit and date.

    Args:
      directory: where the benchmark keeps its files.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": _first_line("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_gib": round(memory / (1 << 30), 1),
        "kernel": platform.release(),
        "system": _system(),
        "python": platform.python_version(),
        "disk": filesystem_of(directory),
        "load_before": os.getloadavg()[0],
    }


def _first_line(*argv: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10)
        if done.returncode == 0 and done.stdout:
            return done.stdout.splitlines()[0]
    return "unknown"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return platform.system()
