"""`gfs lock`: run a command while holding a lock of the cluster."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import click
import trio

from gfs.changes import text_of
from gfs.cli.finding import Place, about, cluster_option, connected, lock_variables, reach
from gfs.cli.output import complain, out, shown, time_text, umask
from gfs.errors import LockHeld, LockLost, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gfs.client.filesystem import Filesystem
    from gfs.messages import LockState

_PATH = click.Path(path_type=bytes)
NOT_HAD, LOST = 124, 125  # exit codes, as timeout(1) has them
KILL_SHARE = 0.05  # of the lease, left when what runs on is killed


@click.command(context_settings={"allow_interspersed_args": False})
@cluster_option
@click.option("--shared", "-s", is_flag=True, help="Many may hold it at once, but no other.")
@click.option("--exclusive", "-x", is_flag=True, help="Nobody else may hold it (the default).")
@click.option("--no-wait", "-n", is_flag=True, help="Fail at once if it is held.")
@click.option(
    "--timeout", "-w", type=click.FloatRange(min=0), metavar="S", help="Wait at most S seconds."
)
@click.option(
    "--conflict-exit-code", "-E", "conflict", default=NOT_HAD, show_default=True, metavar="N",
    type=click.IntRange(0, 255), help="Exit code when the lock was not to be had.",
)  # fmt: skip
@click.option("--no-create", is_flag=True, help="Do not make a file if there is none.")
@click.option("--command", "-c", "line", metavar="STRING", help="Run STRING by a shell.")
@click.option("--list", "as_list", is_flag=True, help="Show who holds and who waits.")
@click.option(
    "--check", type=int, metavar="NUMBER",
    help="Exit with 0 if NUMBER is a grant of PATH's lock that still stands, else with 1.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="With --list: one JSON object a line.")
@click.argument("path", type=_PATH, required=False)
@click.argument("words", type=click.UNPROCESSED, nargs=-1, metavar="[-- COMMAND...]")
@click.pass_context
def lock(context: click.Context, /, **given: Any) -> int:
    """Hold the lock of PATH, a file or directory, while COMMAND runs.

    The lock holds in the whole cluster, unlike flock(1) in a mount. It belongs to PATH's
    inode, and ends with COMMAND, with this process, or when the master cannot be reached
    for so long that it may have given the lock to another: then COMMAND and all that it
    has started get SIGTERM, SIGKILL after some seconds, and the exit code is 125.

    COMMAND finds $GFS_LOCK_FENCE, a number that is higher for each later grant, and
    $GFS_LOCK_PATH. Its exit code is passed on. What `gfs` commands change that it starts
    is refused once the lock is held no more ($GFS_LOCK_ID tells them); what is written
    through a mount is not.
    """
    path: bytes | None = given["path"]
    words = [os.fsencode(word) for word in given["words"]]
    if given["line"] is not None:
        words = [b"/bin/sh", b"-c", os.fsencode(given["line"]), *words]
    elif words[:1] == [b"--"]:
        del words[0]
    elif words and words[0].startswith(b"-"):
        raise UsageError(f"{given['words'][0]}: options come before PATH, -- before COMMAND")
    place = reach(context.obj, [] if path is None else [path])
    if given["as_list"]:
        trio.run(_list, place, path, given["as_json"])
        return 0
    if path is None:
        raise UsageError("the lock of what? Give PATH")
    if given["check"] is not None:
        return 0 if trio.run(_stands, place, path, given["check"]) else 1
    if given["shared"] and given["exclusive"]:
        raise UsageError("--shared or --exclusive?")
    if not words:
        raise UsageError("no COMMAND: gfs lock PATH -- COMMAND...")
    return trio.run(_hold, place, path, words, given)


# --- holding ---------------------------------------------------------------------------


async def _hold(place: Place, path: bytes, words: list[bytes], given: dict[str, Any]) -> int:
    inside = place.path(path)
    create_mode = None if given["no_create"] or path.endswith(b"/") else 0o666 & ~umask()
    timeout = given["timeout"]
    try:
        async with connected(place) as files:
            with about(inside):
                return await _run(
                    files, place, inside, words,
                    shared=given["shared"],
                    wait=not given["no_wait"],
                    timeout_s=math.inf if timeout is None else timeout,
                    create_mode=create_mode,
                )  # fmt: skip
    except LockHeld as error:
        complain(str(error))
        conflict: int = given["conflict"]
        return conflict
    except LockLost as error:
        complain(str(error))
        return LOST


async def _run(files: Filesystem, place: Place, path: bytes, words: list[bytes], **how: Any) -> int:
    from gfs.cli import commanded

    code = 0
    stopped = _Stopped()
    # From before the lock is asked for: a signal that comes as it is granted is for the command.
    with trio.open_signal_receiver(*commanded.HEARD) as signals, stopped.waiting:
        files.client.nursery.start_soon(stopped.watch, signals)
        async with files.lock(path, **how) as held:
            await stopped.listen_no_more()
            environment = os.environ | {"GFS_LOCK_PATH": os.fsdecode(path)}
            environment |= lock_variables(files.client.link.cluster, held.ino, held.fence)
            environment.setdefault("GFS_CLUSTER", place.name)
            code = await commanded.run(
                words, environment, lambda: held.left_s() - held.lease_s * KILL_SHARE, signals
            )
    return commanded.BY_SIGNAL + stopped.signal if stopped.signal else code


class _Stopped:
    """Ends the waiting for a lock when somebody says so: the queue is left in good order."""

    def __init__(self) -> None:
        self.signal = 0
        self.waiting = trio.CancelScope()
        self._listening = trio.CancelScope()
        self._over = trio.Event()

    async def watch(self, signals: AsyncIterator[int]) -> None:
        """Until the lock is there."""
        with self._listening:
            async for number in signals:
                self.signal = number
                self.waiting.cancel()
                break
        self._over.set()

    async def listen_no_more(self) -> None:
        """What comes from now on is for somebody else."""
        self._listening.cancel()
        await self._over.wait()


# --- looking ---------------------------------------------------------------------------


async def _list(place: Place, path: bytes | None, as_json: bool) -> None:
    async with connected(place) as files:
        ino = 0
        if path is not None:
            with about(place.path(path)):
                ino = (await files.walk(place.path(path))).entry.ino
        async for one in files.list_locks(ino):
            _print(one, as_json)


async def _stands(place: Place, path: bytes, number: int) -> bool:
    async with connected(place) as files:
        with about(place.path(path)):
            ino = (await files.walk(place.path(path))).entry.ino
        return any([one.fence == number and number > 0 async for one in files.list_locks(ino)])


def _print(one: LockState, as_json: bool) -> None:
    state, mode = "held" if one.fence else "waits", "shared" if one.shared else "exclusive"
    if as_json:
        fields = {name: getattr(one, name) for name in ("fence", "since_ns", "session")}
        who = {name: getattr(one, name) for name in ("host", "mount", "pid", "uid")}
        line = {"path": text_of(one.path), "ino": one.ino, "state": state, "mode": mode}
        out(json.dumps(line | fields | who))
    else:
        out(
            f"{state:5}  {mode:9}  {one.fence or '-':>14}  {time_text(one.since_ns)}  "
            f"{one.host} pid {one.pid} uid {one.uid}  {shown(one.path) or one.ino}"
        )
