"""Find, and end, processes and mounts that tests have left behind.

A process is ours if this run's mark is in its environment (every child inherits
it) or the run's temporary directory in its command line; a mount is ours if it lies
below that directory. Nothing else is ever touched.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MARK = "GFS_TEST_RUN"  # environment variable; nested runs add "/..." to the outer one's
MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW = 1, 2, 8
# Helpers, of Python and ours, that live until their parent ends.
HARMLESS = (b"multiprocessing.resource_tracker", b"tests.system.forking")


def new_mark() -> str:
    """A mark for this run; it begins with the mark of the run around it."""
    own = f"{os.getpid()}-{time.monotonic_ns()}"
    outer = os.environ.get(MARK)
    return f"{outer}/{own}" if outer else own


def _ancestors() -> set[int]:
    """This process and all above it: their command lines may name our directory."""
    pids, pid = set(), os.getpid()
    while pid > 0:
        pids.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
        except OSError:
            break
    return pids


def _names(text: bytes, what: bytes) -> bool:
    """Whether `what` stands in `text` as a whole path (or mark), not as a prefix of another."""
    start = text.find(what)
    while start >= 0:
        end = start + len(what)
        if not text[end : end + 1].isalnum():
            return True
        start = text.find(what, end)
    return False


def processes(mark: str, directory: Path) -> Iterator[tuple[int, str]]:
    """Pid and command line of each living process of this run."""
    skip = _ancestors()
    wanted = f"{MARK}={mark}".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in skip:
            continue
        try:
            command = Path(f"/proc/{entry}/cmdline").read_bytes()
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:  # gone, or another user's
            continue
        if not command or any(word in command for word in HARMLESS):
            continue
        if _names(environment, wanted) or _names(command, os.fsencode(directory)):
            yield int(entry), command.replace(b"\0", b" ").decode(errors="replace").strip()


def mounts(directory: Path) -> list[str]:
    """Mountpoints at or below `directory`, innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4].encode().decode("unicode_escape")
        if Path(point).is_relative_to(directory):
            found.append(point)
    return found[::-1]


def unmount(point: str) -> None:
    """Detach a mount without asking it anything: its server may hang or be dead."""
    flags = MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW
    if ctypes.CDLL(None).umount2(os.fsencode(point), flags) != 0:
        subprocess.run(["fusermount3", "-u", "-z", "-q", point], timeout=10, check=False)


def end(mark: str, directory: Path) -> None:
    """Kill the processes and detach the mounts of this run; wait until they are gone."""
    for pid, _ in processes(mark, directory):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for point in mounts(directory):
        unmount(point)
    _wait_until(lambda: not any(True for _ in processes(mark, directory)), limit_s=5)


def found(mark: str, directory: Path, *, grace_s: float) -> list[str]:
    """A line for each thing of this run that is still there after `grace_s` seconds."""

    def lines() -> list[str]:
        return [
            *(f"process {pid}: {command}" for pid, command in processes(mark, directory)),
            *(f"mount {point}" for point in mounts(directory)),
        ]

    _wait_until(lambda: not lines(), limit_s=grace_s)  # what is ending may end
    return lines()


def _wait_until(done: Callable[[], bool], *, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)
