"""A command that runs while something is held: none of its processes outlives that.

Whatever it starts is a descendant of this process, also what it leaves behind: as a
subreaper this process inherits it. If this process is killed, the kernel kills the command
itself; what that has started is then left to end by itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress

import trio

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # exit codes of a shell
BY_SIGNAL = 128
LOOK_S = 0.05
HEARD = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)

_prctl = ctypes.CDLL(None, use_errno=True).prctl


async def run(
    words: Sequence[bytes],
    environment: Mapping[str, str],
    left_s: Callable[[], float],
    signals: AsyncIterator[int],
) -> int:
    """Run a command to its end; its exit code, or 128 + the signal that ended it.

    Of `signals`, those of `HEARD` that this process gets, SIGTERM and SIGHUP are passed on;
    SIGINT and SIGQUIT a terminal gives to both. If this is cancelled all its processes get
    SIGTERM, and SIGKILL when `left_s` is 0.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = descendants()
    try:
        # By this very thread: the kernel takes the end of the thread for its parent's.
        process = subprocess.Popen(  # noqa: ASYNC220 - trio's own starts it in another
            list(words), env=environment, preexec_fn=_end_with(os.getpid())
        )
    except OSError as error:
        os.write(2, b"gfs: %s: %s\n" % (words[0], os.fsencode(error.strerror or "?")))
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pass_on, process, signals)
        try:
            code = await _wait(process)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await _end(before, left_s)
                await _wait(process)
            raise
        nursery.cancel_scope.cancel()
    return code if code >= 0 else BY_SIGNAL - code


async def _wait(process: subprocess.Popen[bytes]) -> int:
    """Its exit code, or the negative of its signal."""
    descriptor = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        trio.lowlevel.notify_closing(descriptor)
        os.close(descriptor)
    return process.wait()


def _end_with(parent: int) -> Callable[[], None]:
    """For the child before it executes: the kernel kills it when its parent is gone."""

    def prepare() -> None:
        _prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it went before we could say so
            os._exit(BY_SIGNAL + int(signal.SIGKILL))

    return prepare


async def _pass_on(process: subprocess.Popen[bytes], signals: AsyncIterator[int]) -> None:
    async for number in signals:
        if number in (signal.SIGTERM, signal.SIGHUP):
            with suppress(ProcessLookupError):
                process.send_signal(number)


async def _end(spared: set[int], left_s: Callable[[], float]) -> None:
    told: set[int] = set()
    while running := descendants() - spared:
        deadly = left_s() <= 0
        for pid in running if deadly else running - told:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if deadly else signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)  # who is stopped hears of SIGTERM only then
        told |= running
        await trio.sleep(LOOK_S)


def descendants() -> set[int]:
    """Processes that this one has started, directly or not, and that have not ended."""
    children: dict[int, list[int]] = {}
    ended = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b") ")[2].split()[:2]
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(int(parent), []).append(int(name))
        if state in b"ZX":
            ended.add(int(name))
    found: set[int] = set()
    line = [os.getpid()]
    while line:
        below = children.get(line.pop(), [])
        found.update(below)
        line += below
    return found - ended
