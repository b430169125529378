"""Sealed chunks are kept at their goal: copies that are missing are made, surplus ones given up.

    holders changed, a server away too long, found by the walk
        -> judged -> endangered (queue by rank) -> copying -> holders changed ...
                  -> stuck (no server could take one): again when a server comes
                  -> surplus: given up, but not in the first minute after a start

Everything here is memory: a master that starts judges the whole chunk table anew, once
all servers have reported or have been away for the policy's delay. A copy is ordered from the
server that gets it, and counts when that one says that it has it (GFS §4.3). A server that is
away is expected back for the delay: what it held is not copied until then.

replication.py chooses; finishing.py gives members that missed a seal what they lack.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from itertools import islice

from sortedcontainers import SortedSet

from gfs import messages as m
from gfs.items import CHUNKS, CHUNKS_BY_STATE, SERVERS, Chunk, ChunkState, Key
from master.core import replication
from master.core.engine import Answer, Engine, OnAnswer, scan_all
from master.core.replication import Rank, Site
from master.core.seals import Seals

JUDGED_AT_ONCE = 500  # chunks in one tick
LOOKED_AT_ONCE = 200  # of the most endangered, when a stream is free
SWEPT_AT_ONCE = 500  # chunks in one slow round, whatever is known of them
GIVEN_UP_AT_ONCE = 500
RETRY_S, RETRY_MAX_S = 1.0, 30.0
STUCK_S = 10.0
NS = 1_000_000_000


@dataclass(frozen=True)
class _Away:
    """A server that is expected back, with what it held."""

    since_s: float
    replicas: frozenset[int]


@dataclass(frozen=True)
class Copy:
    """A copy under way."""

    handle: int
    length: int
    source: int
    target: int
    moving: bool  # to balance space, not for safety


class Repair:
    """See the module's text. `hidden`: handles of chunks that are just being built elsewhere."""

    def __init__(self, engine: Engine, seals: Seals) -> None:
        self._engine = engine
        self._seals = seals
        known = [int(key[0]) for key, _ in scan_all(engine.tables, SERVERS)]
        self._away = {server: _Away(engine.now_s, frozenset()) for server in known}
        self._begun = False
        self._walk: Key | None = None
        self._walked = False  # the whole table, once since the start
        self._queue: SortedSet[tuple[Rank, int]] = SortedSet()
        self._ranks: dict[int, Rank] = {}
        self._surplus: set[int] = set()
        self._stuck: set[int] = set()
        self._later: list[tuple[float, int]] = []  # heap: judge anew when
        self._failures: dict[int, Counter[int]] = {}
        self._deleting: set[tuple[int, int]] = set()  # (server, handle)
        self.copies: dict[tuple[int, int], Copy] = {}  # (handle, target)
        self.moved_from: dict[int, int] = {}  # handle -> server that is to lose its copy
        self.hidden: set[int] = set()
        self.copied_total = self.copied_bytes_total = self.failed_total = self.given_up_total = 0

    # --- what the fleet tells

    def lost(self, server: int) -> None:
        """Its connection has ended; call before its replicas are forgotten."""
        live = self._engine.servers.live.get(server)
        if live is not None:
            self._away[server] = _Away(live.heard_s, frozenset(live.replicas))

    def back(self, server: int) -> None:
        """It has reported all it has: there may be room again, and copies that went missing."""
        away = self._away.pop(server, None)
        changed = self._engine.servers.changed
        changed |= self._stuck
        if away is not None:
            changed |= away.replicas

    def judge_all(self) -> None:
        """Look at every chunk anew: what counts has changed."""
        self._walk, self._walked = None, False

    # --- time

    def has_due_work(self, now_s: float) -> bool:
        """Is `tick` worth a step now?"""
        if not self._begun:
            return self._may_begin(now_s)
        delay_s = self._engine.policy.repair_delay_s
        return bool(
            not self._walked
            or self._engine.servers.changed
            or (self._later and self._later[0][0] <= now_s)
            or any(now_s - away.since_s >= delay_s for away in self._away.values())
        )

    def _may_begin(self, now_s: float) -> bool:
        engine = self._engine
        waited = now_s - engine.started_s >= engine.policy.repair_delay_s
        return waited or not self._away

    def tick(self) -> None:
        """Judge a bounded number of chunks and start what can be started."""
        engine, changed = self._engine, self._engine.servers.changed
        if not self._begun:
            if not self._may_begin(engine.now_s):
                return
            self._begun = True
            changed.clear()  # the walk sees it all
        self._stop_expecting()
        while self._later and self._later[0][0] <= engine.now_s:
            changed.add(heapq.heappop(self._later)[1])
        if not self._walked:
            self._walked = self._judge_page(JUDGED_AT_ONCE)
        for handle in list(islice(changed, JUDGED_AT_ONCE)):
            changed.discard(handle)
            self._judge(handle)
        self.plan()

    def slow_round(self, *, may_destroy: bool) -> None:
        """Once a second: a page of the table that nobody has said anything about, and surplus."""
        if self._begun and self._walked:
            self._judge_page(SWEPT_AT_ONCE)
            self.plan()
        if self._begun and may_destroy:
            for handle in list(islice(self._surplus, GIVEN_UP_AT_ONCE)):
                self._surplus.discard(handle)
                self._give_up(handle)

    def _stop_expecting(self) -> None:
        now_s, delay_s = self._engine.now_s, self._engine.policy.repair_delay_s
        for server, away in list(self._away.items()):
            if now_s - away.since_s >= delay_s:
                del self._away[server]
                self._engine.servers.changed |= away.replicas
                self.seal_open_chunks_of(server)

    def seal_open_chunks_of(self, server: int) -> None:
        """Only sealed chunks can be copied; whoever writes one goes on in another."""
        tables = self._engine.tables
        for key in tables.by_index(CHUNKS_BY_STATE, ChunkState.OPEN):
            chunk: Chunk | None = tables.get(CHUNKS, key)
            if chunk is not None and any(member.server == server for member in chunk.members):
                self._seals.begin(int(key[0]))

    # --- judging

    def _judge_page(self, limit: int) -> bool:
        """Judge the next page of the chunk table; True at its end."""
        page = self._engine.tables.scan(CHUNKS, after=self._walk, limit=limit)
        self._walk = page[-1][0] if len(page) == limit else None
        for key, chunk in page:
            if chunk.state is ChunkState.SEALED:
                self._judge(int(key[0]), chunk)
        return self._walk is None

    def _judge(self, handle: int, known: Chunk | None = None) -> None:
        self._forget(handle)
        servers = self._engine.servers
        chunk: Chunk | None = known or self._engine.tables.get(CHUNKS, (handle,))
        if chunk is None or chunk.state is not ChunkState.SEALED or handle in self.hidden:
            servers.wanted.discard(handle)
            self._failures.pop(handle, None)
            return
        holders = servers.holders(handle)
        counted = len(servers.staying(handle))
        if counted >= chunk.goal:
            servers.wanted.discard(handle)
            self._failures.pop(handle, None)
            if len(holders) > chunk.goal or self._useless(handle):
                self._surplus.add(handle)
        elif servers.sources(handle) and counted + self._expected(handle, chunk) < chunk.goal:
            rank = replication.rank(len(holders), chunk.references, asked=handle in servers.wanted)
            self._ranks[handle] = rank
            self._queue.add((rank, handle))

    def _forget(self, handle: int) -> None:
        rank = self._ranks.pop(handle, None)
        if rank is not None:
            self._queue.discard((rank, handle))
        self._surplus.discard(handle)
        self._stuck.discard(handle)

    def _expected(self, handle: int, chunk: Chunk) -> int:
        """Copies that will count before long without our doing."""
        coming = {copy.target for copy in self.copies.values() if copy.handle == handle}
        coming |= self._seals.finishing.under_way(handle)
        holding = [server for server, away in self._away.items() if handle in away.replicas]
        engine = self._engine
        sealed_s = (engine.now_ns - chunk.sealed_ns) / NS
        wait_s = engine.policy.repair_delay_s - sealed_s
        if self._away and wait_s > 0 and len(holding) < len(self._away):
            # Sealed without a member that is away: it comes back for the end it lacks.
            heapq.heappush(self._later, (engine.now_s + wait_s, handle))
            return chunk.goal
        return len(coming) + len(holding)

    def _useless(self, handle: int) -> list[int]:
        """Servers with a replica that does not count and is not just being made whole."""
        coming = self._seals.finishing.under_way(handle)
        return [s for s in self._engine.servers.spares(handle) if s not in coming]

    # --- copying

    def sites(self) -> dict[int, Site]:
        """Live servers as the choices need them."""
        sites = {
            server: Site(server, live.member.rack, live.free_bytes, live.total_bytes, live.draining)
            for server, live in self._engine.servers.live.items()
            if live.reported
        }
        for copy in self.copies.values():
            if copy.source in sites:
                sites[copy.source].reading += 1
            if copy.target in sites:
                sites[copy.target].writing += 1
                sites[copy.target].free_bytes -= copy.length
        return sites

    def plan(self) -> None:
        """Start copies, most endangered chunk first, while servers have streams free."""
        if not self._queue:
            return
        sites = self.sites()
        streams = self._engine.policy.repair_streams
        for _, handle in list(islice(self._queue, LOOKED_AT_ONCE)):
            if not any(site.writing < streams for site in sites.values()):
                return
            self._plan_one(handle, sites, streams)

    def _plan_one(self, handle: int, sites: dict[int, Site], streams: int) -> None:
        chunk: Chunk | None = self._engine.tables.get(CHUNKS, (handle,))
        if chunk is None or chunk.state is not ChunkState.SEALED:
            self._forget(handle)
            return
        holders = self._engine.servers.holders(handle)
        sources = self._engine.servers.sources(handle)
        coming = {copy.target for copy in self.copies.values() if copy.handle == handle}
        coming |= self._seals.finishing.under_way(handle)
        taken = {*holders, *coming}
        leaving = self._engine.servers.outgoing(handle)
        missing = chunk.goal - len(replication.staying(taken.difference(leaving), sites))
        failures = self._failures.get(handle, replication.NO_FAILURES)
        going = {server for server, gone in self._deleting if gone == handle}
        while missing > 0:
            able = replication.targets(taken, sites, length=chunk.length, without=going)
            if not able:
                self._set_aside(handle)
                return
            target = replication.choose_target(
                able, taken, sites, streams=streams, failures=failures,
                shunned=self._useless(handle),
            )  # fmt: skip
            source = replication.choose_source(sources, sites, streams=streams, failures=failures)
            if target is None or source is None:
                return
            self.copy(handle, chunk, source, target)
            sites[source].reading += 1
            sites[target].writing += 1
            sites[target].free_bytes -= chunk.length
            taken.add(target)
            missing -= 1
        self._forget(handle)  # judged again when one of the copies ends

    def _set_aside(self, handle: int) -> None:
        self._forget(handle)
        self._stuck.add(handle)
        heapq.heappush(self._later, (self._engine.now_s + STUCK_S, handle))

    def copy(
        self, handle: int, chunk: Chunk, source: int, target: int, *, moving: bool = False
    ) -> None:
        """Order one copy of a sealed chunk."""
        engine = self._engine
        copy = Copy(handle, chunk.length, source, target, moving)
        member = engine.servers.live[source].member
        self.copies[handle, target] = copy
        order = m.CopyReplica(handle, chunk.version, chunk.length, member, engine.epoch)
        engine.order_server(target, order, self._on_copied(copy))

    def _on_copied(self, copy: Copy) -> OnAnswer:
        def copied(answer: Answer) -> None:
            del self.copies[copy.handle, copy.target]
            if isinstance(answer, m.Condensed) and self._is_right(copy, answer):
                self._engine.servers.add_replica(copy.target, copy.handle)
                self.copied_total += 1
                self.copied_bytes_total += copy.length
            else:
                self._failed(copy)
            self.plan()

        return copied

    def _is_right(self, copy: Copy, answer: m.Condensed) -> bool:
        """Does the chunk still exist, and is this it?"""
        chunk: Chunk | None = self._engine.tables.get(CHUNKS, (copy.handle,))
        if chunk is None or (chunk.checksum and chunk.checksum != answer.checksum):
            self._delete(copy.target, copy.handle)
            return False
        if not chunk.checksum:
            self._seals.finishing.condensed[copy.handle] = answer.checksum
        return True

    def _failed(self, copy: Copy) -> None:
        """Leave the chunk alone for a while, what else it lacks too: it may fail at once again."""
        self.failed_total += 1
        self._forget(copy.handle)
        self.moved_from.pop(copy.handle, None)
        failures = self._failures.setdefault(copy.handle, Counter())
        failures[copy.source] += 1
        failures[copy.target] += 1
        pause_s = min(RETRY_S * failures.total() / 2, RETRY_MAX_S)
        heapq.heappush(self._later, (self._engine.now_s + pause_s, copy.handle))

    # --- surplus

    def _give_up(self, handle: int) -> None:
        engine = self._engine
        chunk: Chunk | None = engine.tables.get(CHUNKS, (handle,))
        if chunk is None or chunk.state is not ChunkState.SEALED:
            return
        sites, leaving = self.sites(), self.moved_from.pop(handle, 0)
        while True:
            holders = [s for s in engine.servers.holders(handle) if s in sites]
            surplus = replication.choose_surplus(
                holders, sites, goal=chunk.goal, leaving=leaving,
                outgoing=engine.servers.outgoing(handle),
            )  # fmt: skip
            if surplus is None:
                break
            self.given_up_total += 1
            self._delete(surplus, handle)
        if len(engine.servers.holders(handle)) >= chunk.goal:
            for server in self._useless(handle):
                self._delete(server, handle)

    def _delete(self, server: int, handle: int) -> None:
        engine, key = self._engine, (server, handle)
        if key in self._deleting:
            return
        engine.servers.drop_replica(server, handle)
        self._deleting.add(key)

        def deleted(_: Answer) -> None:
            self._deleting.discard(key)
            engine.servers.changed.add(handle)

        engine.order_server(server, m.DeleteReplicas([handle], engine.epoch), deleted)

    # --- figures

    @property
    def is_idle(self) -> bool:
        """Is nothing endangered, as far as is known, and nothing copied for safety?"""
        copying = any(not copy.moving for copy in self.copies.values())
        return self._begun and self._walked and not self._queue and not copying

    def count_stuck(self, handles: set[int]) -> int:
        """Of how many of these no server can take a copy that is missing."""
        return len(handles & self._stuck)

    def statistics(self) -> dict[str, object]:
        """For `gfs status` and metrics: chunks, but for the bytes."""
        moving = sum(copy.moving for copy in self.copies.values())
        return {
            "waiting": len(self._queue),
            "stuck": len(self._stuck),
            "copying": len(self.copies) - moving,
            "moving": moving,
            "surplus": len(self._surplus),
            "servers_expected": len(self._away),
            "copied_total": self.copied_total,
            "copied_bytes_total": self.copied_bytes_total,
            "failed_total": self.failed_total,
            "given_up_total": self.given_up_total,
        }
