"""Processes of a local cluster: start them detached, find them again, end them.

A pid alone may meanwhile be somebody else's, so each is kept with the start time of
its process and the boot it belongs to; only a process that still agrees in both is
ever signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

import gfs
from gfs.cluster.layout import Layout, replace_file

POLL_S = 0.02
TERM_S = 10.0  # from SIGTERM to SIGKILL
MOUNT_TERM_S = 25.0  # a mount flushes first


class Process(msgspec.Struct, frozen=True):
    """A started process."""

    name: str
    pid: int
    started: int  # clock ticks after boot, /proc/PID/stat field 22
    boot: str


def boot_id() -> str:
    """Id of the running boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Start time of a living process; None if there is none, or only a zombie.

    A zombie whose other threads have not ended yet still holds locks and ports: it lives.
    """
    try:
        # The name in brackets may contain anything, also ") ".
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    threads = int(fields[17])
    return None if fields[0] in (b"Z", b"X") and threads <= 1 else int(fields[19])


def is_alive(process: Process) -> bool:
    """Whether this very process still runs."""
    return start_time(process.pid) == process.started and boot_id() == process.boot


def state_of(process: Process) -> str:
    """ "running", "stopped" (by a signal) or "dead", for people."""
    if not is_alive(process):
        return "dead"
    fields = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()
    return "stopped" if fields[0] in (b"T", b"t") else "running"


class Registry:
    """The processes of one cluster directory, kept in two files."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def all(self) -> list[Process]:
        """Every process that was started and not taken off, dead or alive."""
        try:
            return msgspec.json.decode(self.layout.processes.read_bytes(), type=list[Process])
        except (OSError, msgspec.MsgspecError):
            return []

    def alive(self) -> dict[str, Process]:
        """Name -> process, the living ones."""
        return {process.name: process for process in self.all() if is_alive(process)}

    def put(self, process: Process) -> None:
        """Add it, in place of one of the same name; the dead ones are dropped."""
        self._write([*(p for n, p in self.alive().items() if n != process.name), process])

    def prune(self) -> None:
        """Drop the dead ones."""
        self._write(list(self.alive().values()))

    def _write(self, processes: list[Process]) -> None:
        replace_file(self.layout.processes, msgspec.json.encode(processes) + b"\n")
        lines = "".join(f"{process.pid} {process.name}\n" for process in processes)
        replace_file(self.layout.pids, lines.encode())


def program_command(program: str) -> tuple[list[str], dict[str, str]]:
    """Words and environment that run a program of ours, whatever the current directory holds."""
    environment = dict(os.environ)
    source = Path(gfs.__file__).parents[1]
    if source.name != "site-packages":  # run from a checkout
        paths = [str(source), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    # -P: else a directory `mount` where the user stands would be taken for ours.
    return [sys.executable, "-P", "-m", program], environment


def start(program: str, arguments: Sequence[str], *, name: str, log: Path) -> Process:
    """Start a program in a session of its own; it outlives this process."""
    words, environment = program_command(program)
    log.parent.mkdir(exist_ok=True)
    with open(log, "ab") as output:
        child = subprocess.Popen(
            [*words, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    child.returncode = 0  # nobody waits for it: it is meant to outlive us
    started = start_time(child.pid)
    return Process(name, child.pid, -1 if started is None else started, boot_id())


def stop(processes: Sequence[Process], *, term_s: float) -> list[Process]:
    """SIGTERM, then SIGKILL to those that still live after `term_s`; returns the killed."""
    for process in processes:
        _send(process, signal.SIGTERM)
        _send(process, signal.SIGCONT)  # a stopped one must wake to hear it
    left = wait_for_end(processes, term_s)
    for process in left:
        _send(process, signal.SIGKILL)
    wait_for_end(left, 5.0)
    return left


def wait_for_end(processes: Sequence[Process], limit_s: float) -> list[Process]:
    """Those that still live after at most `limit_s`."""
    deadline = time.monotonic() + limit_s
    left = [process for process in processes if is_alive(process)]
    while left and time.monotonic() < deadline:
        time.sleep(POLL_S)
        left = [process for process in left if is_alive(process)]
    return left


def _send(process: Process, number: signal.Signals) -> None:
    # A pidfd names the process itself, so it cannot be reused between check and signal.
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        if is_alive(process):
            signal.pidfd_send_signal(handle, number)
    except OSError:
        pass  # it has just ended
    finally:
        os.close(handle)


def last_lines(log: Path, count: int = 12) -> list[str]:
    """The end of a log file."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 16 * 1024))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []
