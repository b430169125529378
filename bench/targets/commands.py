"""Programs run, pages dropped and mounts taken down on behalf of targets, all with limits."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.targets.target import TargetFailed

DROP_CACHES = Path("/proc/sys/vm/drop_caches")
POLL_S = 0.05
UNMOUNT_LIMIT_S = 10.0
LAST_LINES = 3  # of a failed program's output, in the message
KILL_GRACE_S = 5.0  # a process still there after SIGKILL is stuck in the kernel


def run(*argv: str | Path, limit_s: float = 60.0, environment: dict[str, str] | None = None) -> str:
    """Run a program to its end and return its output.

    Output goes to a file: daemons that a program leaves behind keep the
    descriptor, and a pipe would then be waited on for ever.

    Raises:
      TargetFailed: it failed or took more than `limit_s`; the message holds its last lines.
    """
    words = [str(word) for word in argv]
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise TargetFailed(f"{words[0]}: {error.strerror}") from None
        code = wait_at_most(process, limit_s)
        if code is None:
            raise TargetFailed(f"{' '.join(words[:4])}: not done after {limit_s:.0f} s")
        output.seek(0)
        text = output.read().decode(errors="replace")
    if code:
        last = " / ".join(line.strip() for line in text.strip().splitlines()[-LAST_LINES:])
        raise TargetFailed(f"{' '.join(words[:4])}: exit code {code}: {last}")
    return text


def wait_at_most(process: subprocess.Popen[bytes], limit_s: float) -> int | None:
    """Exit code of the leader of a process group, which is killed if we wait no more.

    None: it was not done after `limit_s`.
    """
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(KILL_GRACE_S)


def wait_until(true: Callable[[], bool], what: str, limit_s: float) -> None:
    """Poll `true` until it is.

    Raises:
      TargetFailed: it was not within `limit_s`.
    """
    deadline = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > deadline:
            raise TargetFailed(f"{what}: not so after {limit_s:.0f} s")
        time.sleep(POLL_S)


def drop_caches(directories: Iterable[Path]) -> None:
    """Write back and drop cached pages, names and inodes.

    As root of the whole machine; else of the files below `directories`, whose
    names and inodes then stay cached.
    """
    for directory in directories:
        run("sync", "-f", directory, limit_s=300)
    try:
        DROP_CACHES.write_text("3\n")
    except OSError:
        for directory in directories:
            _drop_pages_below(directory)


def _drop_pages_below(directory: Path) -> None:
    for root, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                fd = os.open(f"{root}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(fd)


def mount_device(point: Path) -> str | None:
    """ "major:minor" of what is mounted at `point`, None if nothing is."""
    return _mounts().get(point)


def mounted_below(directory: Path) -> list[Path]:
    """Mountpoints below `directory`."""
    return [point for point in _mounts() if directory in point.parents]


def filesystem_of(path: Path) -> str:
    """Type of the filesystem on which `path` lies or would lie."""
    rows = _mount_rows()
    places = [place for place in (path, *path.parents) if place in rows]
    return rows[places[0]][-3] if places else "unknown"


def _mounts() -> dict[Path, str]:
    return {point: row[2] for point, row in _mount_rows().items()}


def _mount_rows() -> dict[Path, list[str]]:
    """Mountpoint -> fields, from the kernel's table: a stat of a dead mount may hang."""
    rows = (row.split() for row in Path("/proc/self/mountinfo").read_text().splitlines())
    return {Path(row[4].encode().decode("unicode_escape")): row for row in rows}


def unmount(point: Path) -> None:
    """Unmount; a mount that does not answer is aborted, so that nobody hangs in it.

    Raises:
      TargetFailed: it is still mounted.
    """
    device = mount_device(point)
    if device is None:
        return
    with contextlib.suppress(TargetFailed):
        run("umount", point, limit_s=UNMOUNT_LIMIT_S)
    while (device := mount_device(point)) is not None:
        abort = Path(f"/sys/fs/fuse/connections/{device.partition(':')[2]}/abort")
        with contextlib.suppress(OSError):
            abort.write_text("1")
        run("umount", "-l", point, limit_s=UNMOUNT_LIMIT_S)


def alive(pid: int) -> bool:
    """True if the process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def signal_process(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
