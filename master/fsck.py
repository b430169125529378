"""`gfs fsck`: the tables as of one position, the replicas as they are now, and what is put right.

    tables    python -m master.check, a process of its own, on a copy of the state
    replicas  what the core knows of each chunk; with `deep` every block is verified before
    repair    counts (core/recount.py), copies asked for at once, needless ones in quarantine

What the copy says of a chunk may be old by the time it is told, so replicas are judged by the
chunk table as it is then. Nothing that might be the last of somebody's bytes is ever deleted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import msgspec
import trio

from gfs import messages as m
from gfs.errors import GfsError, StorageFailed
from gfs.items import CHUNKS, EXTENTS_BY_HANDLE, SERVERS, Chunk, ChunkKind, ChunkState
from gfs.messages import Message
from master.check import PROBLEMS_MAX, Findings
from master.checking import QUOTA, Problem, pages
from master.core import recount
from master.core.decision import Decision
from master.core.master import Master
from master.ledger import Ledger

log = logging.getLogger(__name__)

Order = Callable[[int, Message, float], Awaitable[Message]]
Do = Callable[[Callable[[], None]], None]
VERIFY_S = 3600.0
FILES_NAMED = 100  # of one chunk
LOOKED_AT_ONCE = 64  # chunks, before others get their turn
RECOUNTED_AT_ONCE = 50
_CHUNK_COUNTS = ("references", "condemned")
_INODE_COUNTS = ("stored", "links")


class Fsck:
    """See the module's text. `do` runs something in the master's next step."""

    def __init__(self, core: Master, ledger: Ledger, order: Order, do: Do) -> None:
        self._core = core
        self._engine = core.engine
        self._ledger = ledger
        self._order = order
        self._do = do

    async def answer(self, ask: m.CheckFilesystem) -> m.Status:
        """One JSON object, for `gfs fsck`."""
        problems: list[Problem] = []
        if ask.deep:
            await self._verify_replicas(problems)
        tables = await self._check_tables()
        problems += tables.problems
        endangered = await self._check_replicas(problems)
        repaired = await self._repair(tables.problems, endangered) if ask.repair else []
        total = len(problems) + max(0, tables.total - len(tables.problems))
        found: dict[str, object] = {
            "ok": not problems,
            "position": tables.position,
            "checked": tables.checked | {"servers": len(self._engine.servers.live)},
            "problems": [self._line(problem) for problem in problems[:PROBLEMS_MAX]],
            "problems_total": total,
            "details": [msgspec.to_builtins(problem) for problem in problems[:PROBLEMS_MAX]],
            "repaired": repaired,
        }
        return m.Status(msgspec.json.encode(found))

    def _line(self, problem: Problem) -> str:
        """The problem with the first files that it touches."""
        if not problem.files:
            problem.files = self._files(problem)
        shown = ", ".join(problem.files[:3])
        more = len(problem.files) - 3
        if more > 0:
            shown += f" and {more}{'+' if len(problem.files) == FILES_NAMED else ''} more"
        return f"{problem.text}: {shown}" if shown else problem.text

    def _files(self, problem: Problem) -> list[str]:
        if problem.handle:
            chunk: Chunk | None = self._engine.reader.get(CHUNKS, (problem.handle,))
            keys = self._engine.reader.by_index(
                EXTENTS_BY_HANDLE, problem.handle, limit=FILES_NAMED
            )
            inos = [int(key[0]) for key in keys]
            inos += [chunk.ino] if chunk is not None and chunk.ino else []
        else:
            inos = [problem.ino] if problem.ino else []
        return [self._path(ino) for ino in dict.fromkeys(inos)]

    def _path(self, ino: int) -> str:
        try:
            return self._engine.queries.path(ino).decode(errors="backslashreplace")
        except GfsError:
            return f"inode {ino}"

    # --- tables

    async def _check_tables(self) -> Findings:
        command = [sys.executable, "-m", "master.check", str(self._ledger.state.path)]
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False
        )
        if done.returncode:
            raise StorageFailed(done.stderr.decode(errors="replace").strip())
        return msgspec.json.decode(done.stdout, type=Findings)

    # --- replicas

    async def _verify_replicas(self, problems: list[Problem]) -> None:
        """All servers at once: each has disks of its own."""

        async def verify(server: int) -> None:
            try:
                answer = await self._order(server, m.VerifyReplicas([]), VERIFY_S)
            except GfsError as error:
                text = f"server {server:016x} could not be asked: {error}"
                problems.append(Problem("server", text))
                return
            if isinstance(answer, m.Verified):
                problems.extend(
                    Problem(
                        "corrupt",
                        f"chunk {handle:016x} is corrupt on server {server:016x}",
                        handle=handle,
                    )
                    for handle in answer.bad
                )

        async with trio.open_nursery() as nursery:
            for server in sorted(self._engine.servers.live):
                nursery.start_soon(verify, server)

    async def _check_replicas(self, problems: list[Problem]) -> list[int]:
        """Chunks with too few replicas; a cluster smaller than the goal has all it can have."""
        servers, endangered = self._engine.servers, []
        known = len(self._engine.reader.scan(SERVERS, limit=1000))
        for number, (key, chunk) in enumerate(pages(self._engine.reader, CHUNKS)):
            if not number % LOOKED_AT_ONCE:
                await trio.lowlevel.checkpoint()
            growing = chunk.state is ChunkState.OPEN and chunk.kind is ChunkKind.TAIL
            if not chunk.references and not growing:  # what a tail holds is logged later
                continue
            if chunk.state is ChunkState.CONDEMNED:
                continue
            handle = int(key[0])
            if chunk.state is ChunkState.OPEN:
                copies = len(servers.members_of(handle, chunk))
            else:
                copies = len(servers.holders(handle))
            if copies >= max(1, min(chunk.goal, known)):
                continue
            endangered.append(handle)
            problems.append(_too_few(handle, copies, chunk.goal, len(servers.spares(handle))))
        return endangered

    # --- repair

    async def _repair(self, found: list[Problem], endangered: list[int]) -> list[str]:
        """Returns what was done, a line each."""
        said: list[str] = []
        handles = [one.handle for one in found if one.kind in _CHUNK_COUNTS]
        inos = [one.ino for one in found if one.kind in _INODE_COUNTS]
        await self._recount(recount.recount_chunk, handles, said)
        await self._recount(recount.recount_inode, inos, said)
        quotas = [one.ino for one in found if one.kind == QUOTA]
        await self._recount(recount.recount_quota, quotas, said)
        if endangered:
            await self._in_step(partial(self._copy_now, endangered))
            said.append(f"copies of {len(endangered)} chunks asked for")
        said += await self._empty_quarantine()
        for line in said:
            log.info("fsck.repaired %s", line)
        return said

    async def _recount(
        self, count: Callable[[Decision, int], str], keys: Iterable[int], said: list[str]
    ) -> None:
        left = list(dict.fromkeys(keys))

        def some(decision: Decision) -> None:
            said.extend(filter(None, (count(decision, key) for key in left[:RECOUNTED_AT_ONCE])))

        while left:
            await self._in_step(partial(self._engine.system, "fsck", some))
            del left[:RECOUNTED_AT_ONCE]

    def _copy_now(self, handles: list[int]) -> None:
        for handle in handles:
            chunk: Chunk | None = self._engine.tables.get(CHUNKS, (handle,))
            if chunk is not None and chunk.state is ChunkState.OPEN:
                self._core.machine.seals.begin(handle)  # copied once it is sealed
        self._engine.servers.want(handles)

    async def _empty_quarantine(self) -> list[str]:
        """Of all servers; not in the first minute after a start, as all that deletes."""
        said: list[str] = []
        if not self._core.upkeep.may_destroy():
            return said
        for server in sorted(self._engine.servers.live):
            done = trio.Event()

            def told(handles: list[int], server: int = server, done: trio.Event = done) -> None:
                if handles:
                    text = f"{len(handles)} needless copies in quarantine of server {server:016x}"
                    said.append(f"deleted {text}")
                done.set()

            ask = partial(self._core.fleet.quarantine.ask, server, keep_s=0.0, told=told)
            await self._in_step(ask)
            await done.wait()
        return said

    async def _in_step(self, work: Callable[[], Any]) -> None:
        """Have it done in the master's next step, and wait until that is durable."""
        done = trio.Event()
        position = 0

        def in_step() -> None:
            nonlocal position
            work()
            position = self._engine.position
            done.set()

        self._do(in_step)
        await done.wait()
        while self._engine.committed_position < position:  # noqa: ASYNC110
            await trio.sleep(0.01)


def _too_few(handle: int, copies: int, goal: int, spares: int) -> Problem:
    if copies:
        text = f"chunk {handle:016x} has {copies} of {goal} replicas"
        return Problem("under-replicated", text, handle=handle)
    text = f"chunk {handle:016x} has no replica"
    if spares:
        text += f" that is whole; {spares} may still be read in parts"
    return Problem("missing", text, handle=handle)
