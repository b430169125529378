"""What the simulated programs do: names, appends and private files, all at once.

Each user is one task of a mount. It chooses, calls, checks what it is given and tells the
oracle what it was promised. Errors are part of life; broken promises are not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING

import trio

from gfs.client.files import OpenFile
from gfs.errors import GfsError
from gfs.ids import ROOT_INO
from gfs.messages import (
    CloseFiles,
    Create,
    Entries,
    GetAttributes,
    Listing,
    MakeLink,
    MakeNode,
    Operation,
    ReadDirectory,
    RemoveDirectory,
    RemoveTree,
    Rename,
    SetAttributes,
    Unlink,
)
from tests.sim.kernel import SimulationError
from tests.sim.oracle import AppendHandle, Change, PrivateFile

if TYPE_CHECKING:
    from tests.sim.view import View

DIRECTORIES = tuple(b"dir%d" % number for number in range(4))
NAMES = tuple(b"n%d" % number for number in range(8))
LOGS = tuple(b"log%d" % number for number in range(3))
PAUSE_S = 0.45
GLANCE_S = 0.1
READ_BYTES = 1 << 22
READINGS = 3
RENAME_EXCHANGE = 2


class User:
    """One task. `until` says when to stop; `number` is its own in the whole world."""

    def __init__(self, view: View, chance: Random, number: int, until: Callable[[], bool]) -> None:
        self.view = view
        self.chance = chance
        self.number = number
        self.until = until
        self._files = 0

    async def run(self) -> None:
        """Do one thing after another."""
        things: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (30, self.names), (25, self.append), (18, self.write_privately),
            (8, self.read_log), (8, self.read_private), (8, self.look), (3, self.list),
            (6, self.write_again),
        ]  # fmt: skip
        weights = [weight for weight, _ in things]
        while not self.until():
            (_, thing) = self.chance.choices(things, weights)[0]
            await thing()
            await trio.sleep(self.chance.random() * PAUSE_S)

    async def watch(self) -> None:
        """Look again and again at what is cached."""
        while not self.until():
            parent = self.chance.choice(self.view.cache.directories() or [ROOT_INO])
            choice = DIRECTORIES if parent == ROOT_INO else NAMES
            self.view.glance(parent, self.chance.choice(choice))
            await trio.sleep(self.chance.random() * GLANCE_S)

    # --- names

    async def _directory(self) -> int:
        name = self.chance.choice(DIRECTORIES)
        found = await self.view.lookup(ROOT_INO, name)
        if found == 0:
            done = await self.view.mutate("mkdir", MakeNode(ROOT_INO, name, stat.S_IFDIR | 0o755))
            found = done.entry.ino if done is not None and done.entry is not None else None
        return found or 0

    async def names(self) -> None:
        """One mutation of the namespace."""
        parent = await self._directory()
        if not parent:
            return
        chance, name = self.chance, self.chance.choice(NAMES)
        kind = chance.choice(
            ("create", "create", "mkdir", "unlink", "unlink", "rmdir", "rename", "rename",
             "exchange", "link", "chmod", "rm -r")
        )  # fmt: skip
        operation: Operation
        if kind == "create":
            operation = Create(parent, name, stat.S_IFREG | 0o644, os.O_WRONLY | os.O_EXCL)
            done = await self.view.mutate(kind, operation)
            if done is not None and done.entry is not None:
                self.view.client.link.tell(CloseFiles([done.entry.ino], [done.entry.ino]))
            return
        if kind == "mkdir":
            operation = MakeNode(parent, name, stat.S_IFDIR | 0o755)
        elif kind == "unlink":
            operation = Unlink(parent, name)
        elif kind == "rmdir":
            operation = RemoveDirectory(parent, name)
        elif kind == "rm -r":
            if chance.random() < 0.5:
                parent, name = ROOT_INO, chance.choice(DIRECTORIES)
            operation = RemoveTree(parent, name)
        elif kind in ("rename", "exchange"):
            other = await self._directory()
            flags = RENAME_EXCHANGE if kind == "exchange" else 0
            operation = Rename(parent, name, other or parent, chance.choice(NAMES), flags)
        else:
            ino = await self.view.lookup(parent, name)
            if not ino:
                return
            if kind == "link":
                operation = MakeLink(ino, parent, chance.choice(NAMES))
            else:
                operation = SetAttributes(ino, mode=chance.choice((0o600, 0o755)))
        await self.view.mutate(kind, operation)

    async def look(self) -> None:
        """lookup and stat."""
        parent = await self._directory()
        if not parent:
            return
        ino = await self.view.lookup(parent, self.chance.choice(NAMES))
        if ino:
            client = self.view.client
            question = GetAttributes([ino], client.actor)
            await self.view.call("stat", client.link.ask(question, Entries))

    async def list(self) -> None:
        """readdir."""
        parent = await self._directory()
        if not parent:
            return
        view, client = self.view, self.view.client
        call = view.begin("readdir", parent)
        question = ReadDirectory(parent, b"", 1000, False, client.actor)
        try:
            page = await client.link.ask(question, Listing)
        except GfsError as error:
            view.end(call, type(error).__name__)
            return
        view.end(call, 0, {found.name: found.ino for found in page.entries})

    # --- appends

    async def _open(self, path: bytes, flags: int) -> OpenFile | None:
        view, client = self.view, self.view.client
        parent = ROOT_INO
        found = await view.lookup(parent, path)
        if found is None or (not found and not flags & os.O_CREAT):
            return None
        if found:
            asked = client.link.requests_total
            opening = client.open(found, flags & ~os.O_CREAT, client.actor)
            file = await view.call("open", opening)
            view.oracle.local_opens += file is not None and client.link.requests_total == asked
            return file and view.opened(file)
        call = view.begin("create", Create(parent, path, stat.S_IFREG | 0o644, flags))
        try:
            file, done = await client.create(
                parent, path, stat.S_IFREG | 0o644, flags, client.actor
            )
        except GfsError as error:
            view.end(call, type(error).__name__)
            return None
        if done.entry is not None:
            view.cache.named(parent, path, done.entry.ino, done.position)
        view.end(call, done.position)
        return view.opened(file)

    async def append(self) -> None:
        """A handle with O_APPEND, some records, fsync now and then, close."""
        chance, oracle = self.chance, self.view.oracle
        path = chance.choice(LOGS)
        synchronous = chance.random() < 0.3
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | (os.O_SYNC if synchronous else 0)
        file = await self._open(path, flags)
        if file is None:
            return
        handle = oracle.open_append(path)
        try:
            if await self._append_some(file, handle, synchronous=synchronous):
                sent = handle.sent
                call = self.view.begin("close")
                try:
                    await file.flush()
                except GfsError as error:
                    self.view.end(call, type(error).__name__)
                    return
                self.view.end(call, 0)
                handle.closed, handle.closed_at = sent, self.view.world.now
        finally:
            self.view.release(file)

    async def _append_some(
        self, file: OpenFile, handle: AppendHandle, *, synchronous: bool
    ) -> bool:
        chance, view = self.chance, self.view
        for _ in range(chance.choice((1, 1, 2, 5, 12))):
            record = handle.record(chance.choice((10, 100, 100, 700, 5000)))
            if await view.call("append", file.write(0, record)) is None:
                return False
            if synchronous:
                handle.synced = handle.sent
            elif chance.random() < 0.25:
                sent = handle.sent
                call = view.begin("fsync")
                try:
                    await file.sync()
                except GfsError as error:
                    view.end(call, type(error).__name__)
                    return False
                handle.synced = sent
                view.end(call, 0)
            if chance.random() < 0.2:
                await trio.sleep(chance.random())
        return True

    async def read_log(self) -> None:
        """Read a whole log and check it."""
        path = self.chance.choice(LOGS)
        log = self.view.oracle.append_file(path)
        file = await self._open(path, os.O_RDONLY)
        if file is None:
            return
        promised = log.promised(closed_counts=self.view.oracle.closed_counts())
        found = await self.view.call("read", file.read(0, READ_BYTES))
        self.view.release(file)
        if found is not None:
            log.check(bytes(found), promised, f"{self.view.name} at {self.view.world.now:.3f} s")

    # --- private files

    async def write_privately(self) -> None:
        """A new file of our own: writes, truncations, fsync; what we read is what we wrote."""
        view = self.view
        self._files += 1
        name = b"p%d.%d.%d" % (self.number, self.view.world.events_total, self._files)
        file = await self._open(name, os.O_RDWR | os.O_CREAT)
        if file is None:
            return
        known = view.oracle.privates[name] = PrivateFile(name, view.name)
        await self._write_and_close(file, known)

    async def write_again(self) -> None:
        """Write more to a file of our own of which all is certain: others have it open, or had."""
        view = self.view
        ours = b"p%d." % self.number
        done = [
            known
            for name, known in list(view.oracle.privates.items())[-40:]
            if name.startswith(ours) and not known.frozen and known.certain == len(known.changes)
        ]
        if not done:
            return
        known = self.chance.choice(done)
        file = await self._open(known.path, os.O_RDWR)
        if file is not None:
            await self._write_and_close(file, known)

    async def _write_and_close(self, file: OpenFile, known: PrivateFile) -> None:
        view = self.view
        known.frozen = True  # until we know better: this process may die any time
        try:
            if await self._write_some(file, known):
                count = len(known.changes)
                if await view.call("close", self._closed(file)) is not None:
                    known.visible = count
                    known.frozen = False
        finally:
            self.view.release(file)

    async def _closed(self, file: OpenFile) -> bool:
        await file.flush()
        return True

    async def _write_some(self, file: OpenFile, known: PrivateFile) -> bool:
        chance, view = self.chance, self.view
        for _ in range(chance.choice((1, 1, 3, 6))):
            if known.changes and chance.random() < 0.15:
                size = chance.randrange(12000)
                known.changes.append(Change(size, None))
                entry = await view.call("truncate", file.truncate(size))
                if entry is None:
                    return False
                view.cache.learn(entry)
            else:
                offset = chance.choice((0, 0, chance.randrange(9000)))
                tag = b"%s/%d;" % (known.path, len(known.changes))
                length = chance.choice((50, 500, 4000, 9000, 60000))
                content = (tag * (length // len(tag) + 1))[:length]
                known.changes.append(Change(offset, content))
                if await view.call("write", file.write(offset, content)) is None:
                    return False
            if chance.random() < 0.35 and not await self._sync(file, known):
                return False
            if chance.random() < 0.2:
                await trio.sleep(chance.random() * 2)
            if chance.random() < 0.4 and not await self._read_own(file, known):
                return False
        return True

    async def _sync(self, file: OpenFile, known: PrivateFile) -> bool:
        count = len(known.changes)
        call = self.view.begin("fsync")
        try:
            await file.sync()
        except GfsError as error:
            self.view.end(call, type(error).__name__)
            return False
        known.certain = count
        self.view.end(call, 0)
        return True

    async def _read_own(self, file: OpenFile, known: PrivateFile) -> bool:
        found = await self.view.call("read", file.read(0, READ_BYTES))
        if found is None:
            return False
        expected = known.content(len(known.changes))
        if bytes(found) != expected:
            if not await self._sync(file, known):
                return False  # some of it was lost with the session, and the handle says so
            raise SimulationError(
                f"{self.view.name} at {self.view.world.now:.3f} s: {known.path.decode()}:"
                f" a writer reads back something else ({len(found)}, {len(expected)} bytes)"
            )
        return True

    async def read_private(self) -> None:
        """Somebody's file, as another mount sees it, a few times over."""
        oracle = self.view.oracle
        if not oracle.privates:
            return
        name = self.chance.choice(list(oracle.privates)[-40:])
        for _ in range(READINGS):
            await self._read_private(name, oracle.privates[name])
            await trio.sleep(self.chance.random() * PAUSE_S)

    async def _read_private(self, name: bytes, known: PrivateFile) -> None:
        least = known.certain
        file = await self._open(name, os.O_RDONLY)
        if file is None:
            return
        found = await self.view.call("read", file.read(0, READ_BYTES))
        self.view.release(file)
        if found is not None:
            known.check(bytes(found), least, f"{self.view.name} at {self.view.world.now:.3f} s")
