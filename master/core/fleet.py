"""Chunk servers' conversation with the master: registration, reports, heartbeats (GFS §2.6.2)."""

from __future__ import annotations

from functools import partial

from msgspec.structs import replace

from gfs import messages as m
from gfs.items import CHUNKS, INODES, SERVERS, Chunk, ChunkState, Inode, Server
from master.core import sealing, tails
from master.core.abandoned import Abandoned
from master.core.barriers import Barriers
from master.core.decision import Decision
from master.core.draining import Draining
from master.core.engine import Caller, Engine, Pending
from master.core.quarantine import Quarantine
from master.core.quotas import room_in
from master.core.rebalancing import Rebalancing
from master.core.relocation import Relocation
from master.core.repair import Repair
from master.core.seals import Seals
from master.core.servers import LiveServer, agrees
from master.core.strays import Strays

HEARTBEAT_S = 0.3
GROWTH_BATCH = 100  # files, perhaps with the largest attributes


class Fleet:
    """Everything a chunk server tells."""

    def __init__(self, engine: Engine, seals: Seals) -> None:
        self._engine = engine
        self._seals, self._finishing = seals, seals.finishing
        self.abandoned = Abandoned(engine, seals)
        self.barriers = Barriers(
            engine, seals, self.abandoned, grown=self._grown, log_growth=self.log_growth
        )
        self.strays = Strays(engine)
        self.quarantine = Quarantine(engine, self.strays.is_garbage)
        self.repair = Repair(engine, seals)
        self.draining = Draining(engine, self.repair)
        self.rebalancing = Rebalancing(engine, self.repair)
        self.relocation = Relocation(engine, self.repair)
        self._growth: dict[int, m.TailGrowth] = {}

    def register(self, caller: Caller, ask: m.RegisterServer) -> None:
        """A server is up; its replicas count as its report comes in."""
        member = ask.member
        live = LiveServer(
            member,
            ask.boot,
            ask.free_bytes,
            ask.total_bytes,
            ask.http,
            registered_position=self._engine.position,
            heard_s=self._engine.now_s,
            first_new_handle=ask.first_new_handle or self._engine.next_handle,
        )
        self._engine.servers.register(live)
        self.strays.forget(member.server)
        self._engine.system("server", lambda decision: self._remember(decision, member))
        engine = self._engine
        registered = m.ServerRegistered(
            engine.epoch,
            HEARTBEAT_S,
            engine.policy.chunk_bytes,
            committed=engine.first_position,
            first_new_handle=live.first_new_handle,
        )
        self._engine.answer(Pending(0, caller, ask, self._engine.now_s), registered)

    def _remember(self, decision: Decision, member: m.ChainMember) -> None:
        known: Server | None = decision.tx.get(SERVERS, (member.server,))
        server = known or Server(member.address, member.rack, decision.now_ns)
        server = replace(server, address=member.address, rack=member.rack)
        decision.tx.put(SERVERS, (member.server,), server)
        self._engine.servers.live[member.server].draining = server.draining

    def report(self, server: int, caller: Caller, report: m.ReportReplicas) -> None:
        """A batch of the block report."""
        live = self._engine.servers.live.get(server)
        for replica in report.replicas:
            self._reported(server, replica)
            if live is not None and not live.reported and not replica.sealed:
                live.reported_handles.add(replica.handle)
        for handle in report.gone:
            self._engine.servers.drop_replica(server, handle)
        if live is not None and report.complete:
            live.reported = True
            self.abandoned.back(live)
            live.reported_handles.clear()
            self.repair.back(server)
        self._engine.answer(Pending(0, caller, report, self._engine.now_s), m.Ok())

    def _reported(self, server: int, replica: m.ReplicaReport) -> None:
        """Does it count, or what is to be done that it may?"""
        servers = self._engine.servers
        chunk: Chunk | None = self._engine.reader.get(CHUNKS, (replica.handle,))
        if chunk is None:
            self.strays.found(server, replica.handle)
        elif chunk.state is ChunkState.OPEN:
            if replica.recovered or sealing.is_begun(chunk):  # by a master that died in it
                self.abandoned.broken(replica.handle, outgoing=replica.outgoing)
            elif replica.outgoing:
                self._seals.begin(replica.handle)  # only what is sealed can be moved
        elif chunk.state is ChunkState.CONDEMNED:
            servers.add_replica(server, replica.handle)
            fenced = chunk.sealed_ns and replica.version == chunk.version and not replica.sealed
            if replica.outgoing and fenced:  # the order was lost; only what is sealed can be moved
                self._finishing.condense(server, replica.handle, chunk.version, chunk.length)
        elif agrees(replica, chunk):
            add = servers.add_replica if replica.sound else servers.add_spare
            add(server, replica.handle)
            servers.set_outgoing(server, replica.handle, outgoing=replica.outgoing)
            if replica.sound and not chunk.checksum:
                self._finishing.learned(replica.handle, replica.checksum)
        elif replica.version == chunk.version and not replica.sealed:
            # Fenced in time, but the order that should have followed was lost.
            servers.add_spare(server, replica.handle)
            if replica.sound and replica.length >= chunk.length:
                self._finishing.condense(server, replica.handle, chunk.version, chunk.length)
            else:
                self._finishing.copy(server, replica.handle, chunk.version, chunk.length)
        elif replica.version < chunk.version:
            # Stale (GFS §4.5): it missed the seal. It gets a fresh copy, or goes if none is needed.
            servers.add_spare(server, replica.handle)
            if len(servers.holders(replica.handle)) < chunk.goal:
                self._finishing.copy(server, replica.handle, chunk.version, chunk.length)

    def heartbeat(self, server: int, beat: m.Heartbeat, now_s: float = 0.0) -> None:
        """Free space, and growth of tails to be logged with the next batch."""
        live = self._engine.servers.live.get(server)
        if live is None:
            return
        live.heard_s = max(live.heard_s, now_s)
        live.free_bytes, live.total_bytes = beat.free_bytes, beat.total_bytes
        live.errors, live.verified_ns = beat.errors, beat.verified_ns
        live.drains = beat.drains
        for handle in beat.bad:
            if handle in live.replicas:
                self._engine.servers.add_spare(server, handle)
        self._grown(beat.growth)

    def _grown(self, growth: list[m.TailGrowth]) -> None:
        for report in growth:
            self._growth[report.handle] = report

    def log_growth(self) -> None:
        """Many files in one record."""
        growth = list(self._growth.values())
        self._growth = {}
        for start in range(0, len(growth), GROWTH_BATCH):
            some = growth[start : start + GROWTH_BATCH]
            self._engine.system("growth", partial(tails.grow, growth=some))
            self._seal_beyond_quotas(some)

    def _seal_beyond_quotas(self, growth: list[m.TailGrowth]) -> None:
        """Tails of files that may not grow: whoever goes on must ask the master, who refuses."""
        engine = self._engine
        if not engine.realms:
            return
        for report in growth:
            chunk: Chunk | None = engine.tables.get(CHUNKS, (report.handle,))
            if chunk is None or chunk.state is not ChunkState.OPEN:
                continue
            inode: Inode | None = engine.tables.get(INODES, (chunk.ino,))
            if inode is not None and not self._room(chunk.ino, inode):
                self._seals.begin(report.handle)

    def _room(self, ino: int, inode: Inode) -> int:
        engine = self._engine
        chain = engine.realms.of_inode(engine.tables, ino, inode)
        return room_in(engine.tables, chain, engine.now_ns, engine.policy.quota_grace_ns)[0]

    def look_after_copies(self, *, may_destroy: bool) -> None:
        """Once a second: what is slow about repair, drains, balance."""
        self.draining.run()
        self.repair.slow_round(may_destroy=may_destroy)
        if may_destroy:
            self.rebalancing.run()
            self.relocation.run()

    def lost(self, server: int) -> None:
        """Its connection ended: it cannot be asked, and its replicas do not count."""
        self.repair.lost(server)
        self._engine.servers.remove(server)
        self._engine.give_up_orders(server=server)
        self.strays.forget(server)
        self.abandoned.lost(server)
