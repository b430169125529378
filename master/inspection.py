"""`gfs status` and the master's part of `gfs fsck`: looks, changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import trio

from gfs import messages as m
from gfs.errors import GfsError
from gfs.ids import ROOT_INO, TRASH_INO
from gfs.items import (
    CHUNKS,
    DIRENTS,
    EXTENTS,
    INODES,
    ORPHANS,
    SERVERS,
    Chunk,
    ChunkState,
    Inode,
)
from gfs.messages import Message
from master.core.draining import Drains
from master.core.master import Master
from master.core.tables import ReadTables
from master.ledger import Ledger

Order = Callable[[int, Message, float], Awaitable[Message]]
VERIFY_S = 3600.0
PAGE = 2000
PROBLEMS_MAX = 10_000


class Inspection:
    """Reads the core's volatile state in the loop, tables in pages or a thread."""

    def __init__(self, core: Master, ledger: Ledger, cluster: str) -> None:
        self._core = core
        self._ledger = ledger
        self._cluster = cluster

    async def answer(self, message: Message, order: Order) -> Message:
        """To `ClusterStatus` and `CheckFilesystem`."""
        if isinstance(message, m.CheckFilesystem):
            found = await self._check(message.deep, order)
        else:
            found = self.status()
            found["chunks"], found["drains"] = await self._count_chunks()
        return m.Status(msgspec.json.encode(found))

    def statistics(self) -> dict[str, object]:
        """Numbers for metrics."""
        engine = self._core.engine
        return {
            "epoch": engine.epoch,
            "position": engine.committed_position,
            "files": engine.inode_count,
            "sessions": len(engine.sessions.live),
            "chunk_servers": len(engine.servers.live),
            "seals_running": len(self._core.machine.seals),
            "repair": self._core.fleet.repair.statistics(),
            **engine.registry.statistics(),
            "log": msgspec.to_builtins(self._ledger.log.statistics()),
        }

    def status(self) -> dict[str, object]:
        """Facts for people; without what takes a walk over a table."""
        engine = self._core.engine
        return {
            "cluster": self._cluster,
            "epoch": engine.epoch,
            "position": engine.committed_position,
            "goal": engine.policy.goal,
            "files": engine.inode_count,
            "sessions": len(engine.sessions.live),
            "sessions_awaited": len(engine.sessions.awaited),
            "servers": self._servers(),
            "repair": self._core.fleet.repair.statistics(),
            "shadows": self._core.shadows.status(trio.current_time()),
            "in_charge": not engine.sessions.closed,
            "recovered": self._recovered(),
        }

    def _recovered(self) -> dict[str, object]:
        recovered = self._ledger.recovered
        return {
            "from_checkpoint": str(recovered.checkpoint.path) if recovered.checkpoint else None,
            "replayed_records": recovered.replayed,
            "torn_bytes": recovered.cut_bytes,
        }

    def _servers(self) -> list[dict[str, object]]:
        engine = self._core.engine
        known = [(int(key[0]), item) for key, item in engine.reader.scan(SERVERS, limit=10_000)]
        found: list[dict[str, object]] = []
        for server, item in known:
            live = engine.servers.live.get(server)
            found.append(
                {
                    "server": f"{server:016x}",
                    "address": live.member.address if live else item.address,
                    "http": live.http if live else "",
                    "rack": item.rack,
                    "alive": live is not None,
                    "draining": item.draining,
                    "reported": live is not None and live.reported,
                    "replicas": len(live.replicas) if live else 0,
                    "free_bytes": live.free_bytes if live else 0,
                    "total_bytes": live.total_bytes if live else 0,
                    "errors": live.errors if live else [],
                    "verified_ns": live.verified_ns if live else 0,
                }
            )
        return found

    def _copies(self, handle: int, chunk: Chunk) -> int:
        servers = self._core.engine.servers
        if chunk.state is ChunkState.OPEN:
            return len(servers.members_of(handle, chunk))
        return len(servers.holders(handle))

    async def _count_chunks(self) -> tuple[dict[str, int], list[dict[str, object]]]:
        """By state; sealed and referenced ones also by how many copies there are.

        And for each server being drained what there is still too little of elsewhere.
        """
        drains = Drains(self._core.engine.servers, self._core.engine.reader)
        counts: Counter[str] = Counter(open=0, sealed=0, under_replicated=0, missing=0)
        for handle, chunk in self._pages(CHUNKS):
            counts[chunk.state.name.lower()] += 1
            copies = self._copies(handle[0], chunk)
            drains.count(handle[0], chunk)
            if chunk.state is not ChunkState.CONDEMNED and chunk.references:
                counts["missing"] += not copies
                counts["under_replicated"] += 0 < copies < chunk.goal
            if not handle[0] % 64:
                await trio.lowlevel.checkpoint()
        return dict(counts), drains.report()

    def _pages(self, table: str) -> Iterator[tuple[Any, Any]]:
        yield from pages(self._core.engine.reader, table)

    async def _check(self, deep: bool, order: Order) -> dict[str, object]:
        """Namespace and chunk table in a thread of their own connection, replicas here."""
        problems: list[str] = []
        if deep:
            await self._verify_replicas(order, problems)
        reader = self._ledger.state.reader()
        try:
            checked = await trio.to_thread.run_sync(check_tables, reader, problems)
        finally:
            reader.close()
        for key, chunk in self._pages(CHUNKS):
            if chunk.references and chunk.state is not ChunkState.CONDEMNED:
                self._check_copies(key[0], chunk, problems)
            await trio.lowlevel.checkpoint()
        checked["servers"] = len(self._core.engine.servers.live)
        return {"ok": not problems, "checked": checked, "problems": problems[:PROBLEMS_MAX]}

    def _check_copies(self, handle: int, chunk: Chunk, problems: list[str]) -> None:
        copies = self._copies(handle, chunk)
        if copies >= min(chunk.goal, len(self._core.engine.servers.live)) and copies:
            return
        what = "has no replica" if not copies else f"has {copies} of {chunk.goal} replicas"
        problems.append(f"chunk {handle:016x} {what}{self._files_of(handle)}")

    def _files_of(self, handle: int) -> str:
        queries = self._core.engine.queries
        names = []
        for key in self._core.engine.reader.by_index("extents_by_handle", handle, limit=3):
            try:
                names.append(queries.path(int(key[0])).decode(errors="backslashreplace"))
            except GfsError:
                names.append(f"inode {key[0]}")
        return f": {', '.join(dict.fromkeys(names))}" if names else ""

    async def _verify_replicas(self, order: Order, problems: list[str]) -> None:
        for server in sorted(self._core.engine.servers.live):
            answer = await order(server, m.VerifyReplicas([]), VERIFY_S)
            if isinstance(answer, m.Verified):
                problems += [
                    f"chunk {handle:016x} is corrupt on server {server:016x}"
                    for handle in answer.bad
                ]


def pages(tables: ReadTables, table: str) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Every item of a table, a page at a time."""
    after = None
    while True:
        page = tables.scan(table, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1][0]


def check_tables(tables: ReadTables, problems: list[str]) -> dict[str, int]:
    """Do the tables agree with each other? Adds what does not; returns what was looked at."""
    links: Counter[int] = Counter()
    subdirectories: Counter[int] = Counter()
    checked = {"inodes": 0, "names": 0, "extents": 0, "chunks": 0}
    for (parent, _name), dirent in pages(tables, DIRENTS):
        checked["names"] += 1
        links[dirent.ino] += 1
        child: Inode | None = tables.get(INODES, (dirent.ino,))
        if child is None:
            problems.append(f"a name in directory {parent} leads to inode {dirent.ino}, not there")
        elif child.is_directory:
            subdirectories[parent] += 1
            if child.parent != parent:
                problems.append(f"directory {dirent.ino} names {child.parent} as its parent")
    references: Counter[int] = Counter()
    stored: Counter[int] = Counter()
    for (ino, _offset), extent in pages(tables, EXTENTS):
        checked["extents"] += 1
        references[extent.handle] += extent.length
        stored[ino] += extent.length
    for (ino,), inode in pages(tables, INODES):
        checked["inodes"] += 1
        _check_inode(tables, ino, inode, links[ino], subdirectories[ino], stored[ino], problems)
    for (handle,), chunk in pages(tables, CHUNKS):
        checked["chunks"] += 1
        if chunk.references != references.pop(handle, 0):
            problems.append(f"chunk {handle:016x} counts {chunk.references} referenced bytes")
    problems += [f"extents lead to chunk {handle:016x}, not there" for handle in references]
    return checked


def _check_inode(
    tables: ReadTables,
    ino: int,
    inode: Inode,
    links: int,
    subdirectories: int,
    stored: int,
    problems: list[str],
) -> None:
    if inode.stored != stored:
        problems.append(f"inode {ino} counts {inode.stored} stored bytes, extents hold {stored}")
    if ino in (ROOT_INO, TRASH_INO):
        return
    expected = 2 + subdirectories if inode.is_directory else links
    if inode.nlink != expected:
        problems.append(f"inode {ino} counts {inode.nlink} links, {expected} lead to it")
    if not links and tables.get(ORPHANS, (ino,)) is None:
        problems.append(f"inode {ino} has no name and is not open")
