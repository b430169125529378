"""Mutations by a client of the real master: a mix as of a busy filesystem, or one at a time.

As many clients as `OUTSTANDING` each wait for one answer, so the master has groups to log. Of
a hundred mutations 40 make files, 28 set sizes and times, 12 rename, 10 remove, 4 change modes
and owners, 2 set attributes, 2 make directories, 1 renames one, 1 makes a link.
"""

from __future__ import annotations

import random
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from bench.views.stage import Stage
from bench.views.state import DIRECTORY, FILE, Made
from bench.views.tree import EXTENSIONS, TOP, WORDS
from gfs import messages as m
from gfs.client.metadata import MasterLink
from gfs.client.settings import ClientSettings
from gfs.handshake import load_key
from gfs.ids import ROOT_INO

OUTSTANDING = 64
PAUSE_MAX_S = 0.02  # of a steady load
_ACTOR = m.Actor(0, 0, groups=())

Mutate = Callable[[m.Operation], Awaitable[m.Done]]


@asynccontextmanager
async def linked(stage: Stage) -> AsyncIterator[Mutate]:
    """A session at the master."""
    facts, layout = stage.facts, stage.layout
    settings = ClientSettings(
        master=facts.addresses["master"],
        master_unix=layout.socket(facts, "master"),
        key=load_key(layout.key),
        cluster=facts.id,
    )
    link = MasterLink(settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(link.run)
        yield partial(_mutate, link)
        await link.close()
        nursery.cancel_scope.cancel()


async def _mutate(link: MasterLink, operation: m.Operation) -> m.Done:
    return await link.mutate(operation, _ACTOR)


@dataclass
class Client:
    """One who changes things: files and directories that nobody else touches."""

    mutate: Mutate
    rng: random.Random
    directories: list[int]  # of all; any may be made in
    files: list[tuple[int, bytes, int]]  # parent, name, inode: ours
    label: str
    own: list[tuple[int, bytes, int]] = field(default_factory=list)  # directories made here
    number: int = 0
    position: int = 0  # of the last record

    async def step(self) -> None:
        """One mutation."""
        roll = self.rng.random() * 100
        if roll < 40 or len(self.files) < 10:
            await self._make(FILE, self.files)
        elif roll < 42:
            await self._make(DIRECTORY, self.own)
        elif roll < 43 and self.own:
            await self._rename(self.own)
        else:
            await self._change(roll)

    async def _change(self, roll: float) -> None:
        rng = self.rng
        at = rng.randrange(len(self.files))
        parent, name, ino = self.files[at]
        if roll < 71:
            size = int(rng.lognormvariate(9, 2.5))
            await self._do(m.SetAttributes(ino, size=size, mtime_now=True))
        elif roll < 83:
            await self._rename(self.files)
        elif roll < 93:
            self.files[at] = self.files[-1]
            self.files.pop()
            await self._do(m.Unlink(parent, name))
        elif roll < 97:
            await self._do(m.SetAttributes(ino, mode=0o600, uid=1000 + rng.randrange(20)))
        elif roll < 99:
            await self._do(m.SetXattr(ino, b"user.tag", rng.choice(WORDS).encode()))
        else:
            to, fresh = rng.choice(self.directories), self._name()
            await self._do(m.MakeLink(ino, to, fresh))

    def _name(self) -> bytes:
        self.number += 1
        word, extension = self.rng.choice(WORDS), self.rng.choice(EXTENSIONS[:-1])
        return f"{word}-{self.label}-{self.number}.{extension}".encode()

    async def _make(self, mode: int, into: list[tuple[int, bytes, int]]) -> None:
        made = self.own and stat.S_ISREG(mode) and self.rng.random() < 0.5
        parent = self.own[-1][2] if made else self.rng.choice(self.directories)
        name = self._name()
        done = await self._do(m.MakeNode(parent, name, mode))
        assert done.entry is not None
        into.append((parent, name, done.entry.ino))

    async def _rename(self, among: list[tuple[int, bytes, int]]) -> None:
        """A directory goes where none of those made here is, so never into itself."""
        at = self.rng.randrange(len(among))
        parent, name, ino = among[at]
        to, fresh = self.rng.choice(self.directories), self._name()
        among[at] = to, fresh, ino
        await self._do(m.Rename(parent, name, to, fresh))

    async def _do(self, operation: m.Operation) -> m.Done:
        done = await self.mutate(operation)
        self.position = max(self.position, done.position)
        return done


class Load:
    """All clients; what they have made is there for the next call."""

    def __init__(self, made: Made, seed: int = 1) -> None:
        self._made = made
        share = max(1, len(made.files) // OUTSTANDING)
        self.clients = [
            Client(
                _unbound,
                random.Random(f"{seed}/{number}"),
                made.directories,
                made.files[number * share : (number + 1) * share],
                f"{seed}x{number}",
            )
            for number in range(OUTSTANDING)
        ]

    @property
    def position(self) -> int:
        """Of the last record."""
        return max(client.position for client in self.clients)

    async def fill(self, stage: Stage, count: int) -> float:
        """Make `count` mutations as fast as the master takes them; seconds."""
        began = time.monotonic()

        async def run(client: Client) -> None:
            for _ in range(count // OUTSTANDING):
                await client.step()

        async with linked(stage) as mutate, trio.open_nursery() as nursery:
            for client in self.clients:
                client.mutate = mutate
                nursery.start_soon(run, client)
        return time.monotonic() - began

    async def steady(self, stage: Stage, rate: float, seconds: float) -> float:
        """`rate` mutations a second; the rate that it was."""
        done = 0

        async def run(client: Client) -> None:
            nonlocal done
            while time.monotonic() - began < seconds:
                if done >= (time.monotonic() - began) * rate:
                    await trio.sleep(client.rng.random() * PAUSE_MAX_S)
                    continue
                done += 1
                await client.step()

        async with linked(stage) as mutate:
            began = time.monotonic()
            async with trio.open_nursery() as nursery:
                for client in self.clients:
                    client.mutate = mutate
                    nursery.start_soon(run, client)
            took = time.monotonic() - began
        return done / took


async def rename_top(stage: Stage, old: bytes, new: bytes) -> int:
    """Rename the directory that holds everything; the record's position."""
    async with linked(stage) as mutate:
        done = await mutate(m.Rename(int(ROOT_INO), old or TOP, int(ROOT_INO), new or TOP))
    return done.position


async def _unbound(_: m.Operation) -> m.Done:
    raise RuntimeError("not connected")
