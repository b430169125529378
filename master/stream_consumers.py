"""Named consumers of the stream: whoever reads under a name may leave and go on later.

A position is what its consumer has said it has done with. It is no mutation, makes no
event, keeps no record of the log from being removed and no writer waiting. Commits that
come together are written down together; each is answered once it is in the file.
"""

from __future__ import annotations

import re
import time
from collections import Counter

import trio

from gfs.changes import Cursor
from gfs.errors import GfsError, InvalidArgument, NotFound, Refused
from master.consumer_file import Consumer, ConsumerFile

CONSUMERS_MAX = 1000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", re.ASCII)


def check_name(name: str) -> str:
    """Raises: InvalidArgument."""
    if _NAME.fullmatch(name) is None:
        raise InvalidArgument(
            f"{name[:80]!r} is no name of a consumer: 1 to 64 letters, digits, '.', '_', '-'"
        )
    return name


class _Group:
    """Changes that are written together, and who waits for that."""

    def __init__(self) -> None:
        self.changed: dict[str, Consumer | None] = {}
        self.over = trio.Event()
        self.error: GfsError | None = None


class Consumers:
    """All of them, in memory; what is committed is in the file as well."""

    def __init__(self, file: ConsumerFile) -> None:
        self._file = file
        self._known = {one.name: one for one in file.loaded}
        self._group = _Group()
        self._wanted = trio.Event()
        self.reading: Counter[str] = Counter()  # responses under way, by name
        self.commits_total = 0

    async def run(self) -> None:
        """Write down what was committed, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            group, self._group = self._group, _Group()
            try:
                await trio.to_thread.run_sync(self._file.write, list(group.changed.items()))
            except GfsError as error:
                group.error = error
            group.over.set()

    def all(self) -> list[Consumer]:
        """By name."""
        return sorted(self._known.values(), key=lambda one: one.name)

    def get(self, name: str) -> Consumer | None:
        """The consumer, if there is one; raises InvalidArgument for a bad name."""
        return self._known.get(check_name(name))

    async def begin(self, name: str, cursor: Cursor) -> None:
        """A first reading from `cursor`: until the first commit it would begin there again.

        Raises: Refused: there are too many. NoSpace, StorageFailed.
        """
        if self.get(name) is None:
            await self._put(Consumer(name, str(cursor), time.time_ns(), 0))

    async def commit(self, name: str, cursor: Cursor) -> Consumer:
        """The consumer has done with everything up to `cursor`; it may go back as well.

        Raises: as `begin`.
        """
        now = time.time_ns()
        known = self.get(name)
        created = known.created_ns if known is not None else now
        self.commits_total += 1
        return await self._put(Consumer(name, str(cursor), created, now))

    async def _put(self, consumer: Consumer) -> Consumer:
        name = consumer.name
        if name not in self._known and len(self._known) >= CONSUMERS_MAX:
            raise Refused(f"there are {CONSUMERS_MAX} consumers already; remove one first")
        old = self._known.get(name)
        self._known[name] = consumer
        try:
            await self._written(name, consumer)
        except GfsError:
            if self._known.get(name) is consumer:
                self._restore(name, old)
            raise
        return consumer

    def _restore(self, name: str, old: Consumer | None) -> None:
        if old is None:
            del self._known[name]
        else:
            self._known[name] = old

    async def remove(self, name: str) -> None:
        """Forget a consumer.

        Raises: NotFound. NoSpace, StorageFailed.
        """
        if self.get(name) is None:
            raise NotFound(f"there is no consumer {name}")
        del self._known[name]
        await self._written(name, None)

    async def _written(self, name: str, consumer: Consumer | None) -> None:
        group = self._group
        group.changed[name] = consumer
        self._wanted.set()
        await group.over.wait()
        if group.error is not None:
            raise group.error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
