"""Servers being drained: their copies count no more, so repair makes others elsewhere.

That a server is drained stands in its item and so outlives the master. It gets no new
chunks; its open ones are sealed; when each chunk has its goal on other servers, its own
copies are surplus and go. Until then they are read, and copied from, like any other.
"""

from __future__ import annotations

from msgspec.structs import replace

from gfs import messages as m
from gfs.errors import NotFound
from gfs.items import SERVERS, Chunk, ChunkState, Server
from master.core.decision import Decision
from master.core.engine import Caller, Engine, Pending
from master.core.repair import Repair
from master.core.servers import Servers
from master.core.tables import ReadTables


class Draining:
    """Told by people; `run` once a second."""

    def __init__(self, engine: Engine, repair: Repair) -> None:
        self._engine = engine
        self._repair = repair

    def order(self, caller: Caller, ask: m.Drain) -> None:
        """Begin or stop draining a server; answered when that is durable."""
        engine, key = self._engine, (ask.server,)
        pending = Pending(0, caller, ask, engine.now_s)
        known: Server | None = engine.tables.get(SERVERS, key)
        if known is None:
            engine.answer(pending, NotFound(f"there is no chunk server {ask.server:016x}"))
            return
        wanted = replace(known, draining=not ask.stop)

        def put(decision: Decision) -> None:
            decision.tx.put(SERVERS, key, wanted)

        engine.system("drain", put)
        live = engine.servers.live.get(ask.server)
        if live is not None:
            live.draining = wanted.draining
        self._repair.judge_all()
        engine.answer(pending, m.Ok())

    def run(self) -> None:
        """Seal what is open on them: only sealed chunks can be copied."""
        for server, live in self._engine.servers.live.items():
            if live.draining:
                self._repair.seal_open_chunks_of(server)


class Drains:
    """How far drains have come: `count` every chunk, then `report`."""

    def __init__(self, servers: Servers, tables: ReadTables) -> None:
        self._servers = servers
        known = tables.scan(SERVERS, limit=10_000)
        self._left = {int(key[0]): [0, 0] for key, server in known if server.draining}

    def count(self, handle: int, chunk: Chunk) -> None:
        """A chunk counts as left on each drained server that has it, while others are short."""
        if not self._left or chunk.state is ChunkState.CONDEMNED:
            return
        if chunk.state is ChunkState.OPEN:
            having = [member.server for member in chunk.members]
        else:
            having = self._servers.holders(handle)
            if len(self._servers.staying(handle)) >= chunk.goal:
                return
        for server in having:
            if server in self._left:
                self._left[server][0] += 1
                self._left[server][1] += chunk.length

    def report(self) -> list[dict[str, object]]:
        """Chunks and bytes of which too few copies are elsewhere; replicas still there.

        `done`: the server may be switched off. One that is away holds nothing that counts.
        """
        found: list[dict[str, object]] = []
        for server, (chunks, size) in sorted(self._left.items()):
            live = self._servers.live.get(server)
            found.append(
                {
                    "server": f"{server:016x}",
                    "chunks_left": chunks,
                    "bytes_left": size,
                    "replicas": len(live.replicas) if live else 0,
                    "done": not chunks and (live is None or live.reported),
                }
            )
        return found
