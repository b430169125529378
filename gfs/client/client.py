"""The client of one cluster: link, servers, reader, write-back, appenders. (signatures; being filled)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gfs.client.files import OpenFile
from gfs.client.settings import Callbacks, ClientSettings
from gfs.messages import Actor, BarrierDone, Done, Entry


class Client:
    """Attributes: `link` (gfs.client.metadata.MasterLink: read, mutate, lease_until, epoch, session, dead)."""

    async def open(self, ino: int | Entry, flags: int, actor: Actor) -> OpenFile:
        """Open a regular file that exists; O_TRUNC is acted on."""
        raise NotImplementedError

    async def create(
        self, parent: int, name: bytes, mode: int, flags: int, actor: Actor
    ) -> tuple[OpenFile, Done]:
        """Create (or, without O_EXCL, open) a file; `Done.entry` and `Done.parents` for caches."""
        raise NotImplementedError

    def pending(self, ino: int) -> tuple[int, int] | None:
        """(end, mtime_ns) of this client's uncommitted writes to the file."""
        raise NotImplementedError

    def utimens(self, ino: int) -> None:
        """A utimens is about to be sent: later commits of earlier writes leave mtime alone."""
        raise NotImplementedError

    async def settle(self, ino: int) -> None:
        """Flush and commit one file and wait for its appends (before SETATTR, link, rename over)."""
        raise NotImplementedError

    async def sizes(self, entries: Sequence[Entry]) -> list[int]:
        """Size of each file as a reader must see it now (tails asked, batched; pending added)."""
        raise NotImplementedError

    async def truncate(self, ino: int, size: int, actor: Actor, *, opened: bool = False) -> Done:
        """truncate(2) of a path (`opened`: ftruncate)."""
        raise NotImplementedError

    def discard(self, ino: int) -> None:
        """The file has no name and no handle any more: drop its uncommitted bytes."""
        raise NotImplementedError

    def invalidated(self, inos: Sequence[int]) -> None:
        """Forget layouts and attributes kept for open files."""
        raise NotImplementedError

    async def recall(self, inos: Sequence[int]) -> None:
        """Flush + commit + wait for appends (empty = everything)."""
        raise NotImplementedError

    async def flush_all(self, durable: bool) -> None:
        """Everything pending is committed (durable: and synced)."""
        raise NotImplementedError

    async def barrier(self) -> BarrierDone:
        """What anybody was told before now lies at or below the position returned."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Flush everything (bounded), close the session."""
        raise NotImplementedError


@asynccontextmanager
async def open_client(
    settings: ClientSettings, *, callbacks: Callbacks | None = None
) -> AsyncIterator[Client]:
    """A connected client; leaving the block flushes (at most 20 s) and closes the session."""
    raise NotImplementedError
    yield
