"""A mount without a kernel: the client library under the mount's own cache of names.

What the kernel would keep the cache keeps, for as long as the lease says; so a lookup here,
or an open, may be answered from memory, and must be right all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gfs.client.client import Client
from gfs.client.files import OpenFile
from gfs.client.settings import Callbacks
from gfs.errors import GfsError
from gfs.messages import Done, Entry, Invalidate, Lookup, Operation, Rename
from mount.core.caching import ABSENT, UNKNOWN, Cache
from tests.sim.kernel import World
from tests.sim.oracle import Call, Oracle

_T = TypeVar("_T")


class View:
    """One mount. `attach` the client once it is open."""

    def __init__(self, world: World, oracle: Oracle, name: str, high: Callable[[], int]) -> None:
        self.world = world
        self.oracle = oracle
        self.name = name
        self.cache = Cache()
        self._high = high
        self.appending: Counter[int] = Counter()
        self._client: Client | None = None
        self.callbacks = Callbacks(
            on_invalidate=self._invalidate,
            directories=self.cache.directories,
            groups_of=lambda _pid: (),
            on_doubt=lambda message: self.cache.doubt(message.names, message.inos),
            on_known=lambda message: self.cache.settle(message.names, message.inos),
            on_entry=self._committed,
            known=lambda ino: None if ino in self.appending else self.cache.known(ino),
            leads_to=self.cache.lookup,
            on_session_lost=self.cache.clear,
            on_new_epoch=self.cache.clear,
            on_resumed=self.cache.clear,
        )

    def attach(self, client: Client) -> None:
        """The client whose callbacks are ours."""
        self._client = client

    @property
    def client(self) -> Client:
        """The client, attached."""
        assert self._client is not None
        return self._client

    def _committed(self, entry: Entry) -> None:
        self.cache.learn(entry)

    async def _invalidate(self, message: Invalidate) -> None:
        self.cache.invalidate(message.position, message.names, message.inos)

    def opened(self, file: OpenFile) -> OpenFile:
        """A handle, of which the cache learns what its opening told."""
        if file.appending:
            self.appending[file.ino] += 1
        self.cache.learn(file.entry)
        return file

    def release(self, file: OpenFile) -> None:
        """Close a handle that was flushed. What has been appended the cache does not know."""
        file.release()
        if file.appending:
            self.appending -= Counter([file.ino])
            self.cache.forget_attributes(file.ino)

    # --- calls

    def begin(self, kind: str, *details: object) -> Call:
        """A call that begins now."""
        call = Call(kind, self.name, self.world.now, self.oracle.told, details)
        self.oracle.calls.append(call)
        return call

    def end(self, call: Call, outcome: int | str, found: object = None) -> None:
        """It has ended."""
        call.end, call.high, call.found = self.world.now, self._high(), found
        call.outcome = outcome
        self.oracle.ended(call)

    async def call(self, kind: str, work: Awaitable[_T], *details: object) -> _T | None:
        """Do a call without a position; None if it failed, which is noted."""
        call = self.begin(kind, *details)
        try:
            result = await work
        except GfsError as error:
            self.end(call, type(error).__name__)
            return None
        self.end(call, 0)
        return result

    async def mutate(self, kind: str, operation: Operation) -> Done | None:
        """A mutation of the namespace, known to the cache before this returns."""
        call = self.begin(kind, operation)
        replaced = UNKNOWN
        if isinstance(operation, Rename):
            replaced = self.cache.lookup(operation.new_parent, operation.new_name)
        try:
            done = await self.client.link.mutate(operation, self.client.actor)
        except GfsError as error:
            self.end(call, type(error).__name__)
            return None
        self._learn(operation, done)
        self.cache.forget_attributes(replaced)
        self.client.give_up(replaced)
        self.end(call, done.position)
        return done

    def _learn(self, operation: Operation, done: Done) -> None:
        parent, name = getattr(operation, "parent", 0), getattr(operation, "name", b"")
        if isinstance(operation, Rename):
            for where in ((parent, name), (operation.new_parent, operation.new_name)):
                self.cache.named(*where, UNKNOWN, done.position)
        elif type(operation).__name__ in ("Unlink", "RemoveDirectory", "RemoveTree"):
            self.cache.named(parent, name, ABSENT, done.position)
        elif name and done.entry is not None:
            self.cache.named(parent, name, done.entry.ino, done.position)
        for entry in (done.entry, *done.parents):
            if entry is not None and entry.ino:
                self.cache.learn(entry)

    def glance(self, parent: int, name: bytes) -> None:
        """A lookup that is answered from the cache, or not made: it goes on when all else waits."""
        if self.client.link.lease.left() > 0:
            known = self.cache.lookup(parent, name)
            if known != UNKNOWN:
                call = self.begin("lookup", parent, name)
                call.end, call.high, call.found, call.outcome = call.begin, self._high(), known, 0
                self.oracle.cache_hits += 1

    async def lookup(self, parent: int, name: bytes) -> int | None:
        """Inode number, 0 if there is no such name, None if nobody could tell."""
        call = self.begin("lookup", parent, name)
        if self.client.link.lease.left() > 0:
            known = self.cache.lookup(parent, name)
            if known != UNKNOWN:
                self.oracle.cache_hits += 1
                self.end(call, 0, known)
                return known
        directory = self.cache.directory(parent)
        question = Lookup(parent, name, self.client.actor)
        try:
            entry = await self.client.link.ask(question, Entry)
        except GfsError as error:
            self.end(call, type(error).__name__)
            return None
        self.cache.learn_name(directory, name, entry.ino or ABSENT, entry.position)
        if entry.ino:
            self.cache.learn(entry)
        self.end(call, 0, entry.ino)
        return entry.ino
