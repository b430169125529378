"""`gfs status`: looks, changes nothing."""

from __future__ import annotations

from collections import Counter

import msgspec
import trio

from gfs import messages as m
from gfs.access import described
from gfs.changes import text_of
from gfs.items import CHUNKS, SERVERS, Chunk, ChunkState
from master import directory_drains
from master.checking import pages
from master.core.draining import Drains
from master.core.master import Master
from master.ledger import Ledger


class Inspection:
    """Reads the core's volatile state in the loop, tables in pages or a thread."""

    def __init__(self, core: Master, ledger: Ledger, cluster: str) -> None:
        self._core = core
        self._ledger = ledger
        self._cluster = cluster

    async def answer(self) -> m.Status:
        """To `ClusterStatus`."""
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
            "relocation": self._core.fleet.relocation.statistics(),
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
            "mounts": self._mounts(),
            "sessions_awaited": len(engine.sessions.awaited),
            "servers": self._servers(),
            "repair": self._core.fleet.repair.statistics(),
            "relocation": self._core.fleet.relocation.statistics(),
            "directory_drains": directory_drains.report(engine, self._core.fleet.repair),
            "quotas_exceeded": self._quotas_exceeded(),
            "shadows": self._core.shadows.status(trio.current_time()),
            "in_charge": not engine.sessions.closed,
            "recovered": self._recovered(),
            "log_damage": self._ledger.log_damage,
        }

    def _mounts(self) -> list[dict[str, object]]:
        """Without the numbers of sessions: who knows one could take it up."""
        live = list(self._core.engine.sessions.live.values())
        return [
            {
                "host": one.host,
                "mount": one.mount,
                "may": described([] if one.confines is None else one.confines.limits),
            }
            for one in live
            if one.mount
        ]

    def _quotas_exceeded(self) -> list[dict[str, object]]:
        """At a limit, or above a soft one."""
        engine = self._core.engine
        return [
            {name: getattr(one, name) for name in one.__struct_fields__}
            | {"path": text_of(one.path)}
            for one in self._core.machine.reading.quotas.exceeded(engine.now_ns)
        ]

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
        for handle, chunk in pages(self._core.engine.reader, CHUNKS):
            counts[chunk.state.name.lower()] += 1
            copies = self._copies(handle[0], chunk)
            drains.count(handle[0], chunk)
            if chunk.state is not ChunkState.CONDEMNED and chunk.references:
                counts["missing"] += not copies
                counts["under_replicated"] += 0 < copies < chunk.goal
            if not handle[0] % 64:
                await trio.lowlevel.checkpoint()
        return dict(counts), drains.report()
