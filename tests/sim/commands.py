"""`gfs clone`, `snapshot`, `rm -r` and `undelete` in the simulation, and what they must leave.

Each command is a session of its own, as on the command line. A clone has a name that
nothing else ever has and that nobody renames or writes to; so wherever that name is found,
in snapshots of its directory too and after it was brought back from the trash, its content
is the one that was read there first, and no worse than its source was when it was asked for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable
from random import Random

import trio

from gfs.client.client import open_client
from gfs.client.copying import clone, snapshot
from gfs.client.filesystem import Filesystem
from gfs.client.settings import Callbacks, ClientSettings
from gfs.errors import GfsError
from gfs.ids import ROOT_INO
from tests.sim.interpose import KEY
from tests.sim.nodes import CLUSTER, MASTER
from tests.sim.oracle import AppendFile, ClonedFile, PrivateFile
from tests.sim.view import View
from tests.sim.workload import DIRECTORIES, LOGS, NAMES

PAUSE_S = 3.0
CONNECT_S = 5.0
DEPTH_MAX = 5
READ_BYTES = 1 << 22


class Commander:
    """Whoever types commands at one host. `view`: the mount through which copies are read."""

    def __init__(self, view: View, chance: Random, until: Callable[[], bool]) -> None:
        self._view = view
        self._oracle = view.oracle
        self._chance = chance
        self._until = until

    async def run(self) -> None:
        """One command after another."""
        things: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (6, self._clone), (4, self._snapshot), (3, self._remove), (4, self._undelete),
            (8, self._look_around),
        ]  # fmt: skip
        weights = [weight for weight, _ in things]
        while not self._until():
            await trio.sleep(self._chance.random() * PAUSE_S)
            (_, thing) = self._chance.choices(things, weights)[0]
            await thing()

    async def _command(self, kind: str, work: Callable[[Filesystem], Awaitable[None]]) -> None:
        """Do `work` in a session of its own; an error ends it and is counted."""
        settings = ClientSettings(
            master=MASTER, key=KEY, cluster=CLUSTER, connect_timeout_s=CONNECT_S
        )

        async def typed() -> bool:
            async with open_client(settings, callbacks=Callbacks(groups_of=lambda _: ())) as client:
                await work(Filesystem(client, client.actor))
            return True

        await self._view.call(kind, typed())

    def _place(self) -> bytes:
        """A directory, with a slash behind it."""
        return self._chance.choice((b"/", *(b"/%s/" % name for name in DIRECTORIES)))

    async def _clone(self) -> None:
        oracle, chance = self._oracle, self._chance
        source: AppendFile | PrivateFile = oracle.append_file(chance.choice(LOGS))
        if oracle.privates and chance.random() < 0.5:
            source = oracle.privates[chance.choice(list(oracle.privates)[-10:])]

        async def work(files: Filesystem) -> None:
            path = self._place() + oracle.cloned(source).name
            await clone(files, b"/" + source.path, path)
            oracle.copies.append(path)

        await self._command("clone", work)

    async def _snapshot(self) -> None:
        oracle = self._oracle
        oracle.snapshots += 1
        source, name = b"/" + self._chance.choice(DIRECTORIES), b"s%d" % oracle.snapshots
        if oracle.copies and self._chance.random() < 0.3:
            source = self._chance.choice(oracle.copies)
            last = source.rpartition(b"/")[2]
            if oracle.clone_called(last) is not None:  # it is that clone once more
                name = b"%s.%d" % (last, oracle.snapshots)

        async def work(files: Filesystem) -> None:
            path = self._place() + name
            await snapshot(files, source, path)
            oracle.copies.append(path)

        await self._command("snapshot", work)

    async def _remove(self) -> None:
        """A clone or a whole snapshot."""
        if not self._oracle.copies:
            return
        path = self._chance.choice(self._oracle.copies)
        await self._command("remove", lambda files: files.remove(path, recursive=True))

    async def _undelete(self) -> None:
        """Anything in the trash, back to where it was or elsewhere; now and then a part of it."""
        chance = self._chance

        async def work(files: Filesystem) -> None:
            entries = [entry async for entry in files.list_trash()]
            if not entries:
                return
            entry, path, part = chance.choice(entries), b"", b""
            if stat.S_ISDIR(entry.kind) and chance.random() < 0.3:
                part = chance.choice(NAMES)
            elif chance.random() < 0.3:
                path = self._place() + b"back/" + entry.path.rpartition(b"/")[2]
            self._oracle.copies.append(await files.undelete(entry.ino, path, part))

        await self._command("undelete", work)

    async def _look_around(self) -> None:
        """From the root downwards; the clone that is met is read."""
        files = Filesystem(self._view.client, self._view.client.actor)
        here = int(ROOT_INO)
        for _ in range(DEPTH_MAX):
            call = self._view.begin("look around")
            try:
                listed = [one async for one in files.list_directory(here)]
            except GfsError as error:
                self._view.end(call, type(error).__name__)
                return
            self._view.end(call, 0)
            wanted = [
                one
                for one in listed
                if stat.S_ISDIR(one.kind) or self._oracle.clone_called(one.name) is not None
            ]
            if not wanted:
                return
            chosen = self._chance.choice(wanted)
            if not stat.S_ISDIR(chosen.kind):
                found = self._oracle.clone_called(chosen.name)
                assert found is not None
                await self._view.call("read", check_clone(self._view, chosen.ino, found))
                return
            here = chosen.ino


async def check_clone(view: View, ino: int, expected: ClonedFile) -> None:
    """Read a clone, or a snapshot of one, and compare."""
    client = view.client
    file = await client.open(ino, os.O_RDONLY, client.actor)
    try:
        content = bytes(await file.read(0, READ_BYTES))
    finally:
        file.release()
    expected.check(content, f"{view.name} at {view.world.now:.3f} s")


async def check_all_clones(view: View) -> int:
    """All that can be reached from the root, once nothing fails any more; returns how many."""
    files = Filesystem(view.client, view.client.actor)
    directories, count = [int(ROOT_INO)], 0
    for here in directories:  # grows meanwhile
        async for listed in files.list_directory(here):
            expected = view.oracle.clone_called(listed.name)
            if stat.S_ISDIR(listed.kind):
                directories.append(listed.ino)
            elif expected is not None:
                await check_clone(view, listed.ino, expected)
                count += 1
    return count
