"""Space is levelled between servers, gently: a copy is made on an emptier one, then one goes.

Only while nothing is endangered, one chunk at a time, at most so many bytes a second, and
until the free shares of all servers lie within a band. A new server is thus filled over
hours instead of being buried under copies (GFS §4.3).
"""

from __future__ import annotations

from itertools import islice

from gfs.items import CHUNKS, Chunk, ChunkState
from master.core import replication
from master.core.engine import Engine
from master.core.repair import Repair
from master.core.replication import Site

LOOKED_AT = 200  # chunks of a server in one round
PAIRS_MAX = 8


class Rebalancing:
    """`run` once a second, not in the first minute after a start."""

    def __init__(self, engine: Engine, repair: Repair) -> None:
        self._engine = engine
        self._repair = repair
        self._allowance_bytes = 0.0
        self._ran_s = engine.now_s
        self.moved_bytes_total = 0

    def run(self) -> None:
        """Move a chunk if that is allowed and wanted."""
        engine, policy = self._engine, self._engine.policy
        rate = policy.rebalance_bytes_per_s
        earned = rate * (engine.now_s - self._ran_s)
        self._ran_s = engine.now_s
        self._allowance_bytes = min(self._allowance_bytes + earned, float(rate))
        if self._allowance_bytes <= 0 or self._repair.copies or not self._repair.is_idle:
            return
        sites = self._repair.sites()
        for source, target in replication.moves(sites, band=policy.rebalance_band)[:PAIRS_MAX]:
            found = self._movable(source, target, sites)
            if found is not None:
                handle, chunk = found
                self._allowance_bytes -= chunk.length
                self.moved_bytes_total += chunk.length
                self._repair.moved_from[handle] = source
                self._repair.copy(handle, chunk, source, target, moving=True)
                return

    def _movable(
        self, source: int, target: int, sites: dict[int, Site]
    ) -> tuple[int, Chunk] | None:
        """The largest of some chunks that may leave `source` for `target`."""
        servers, best = self._engine.servers, None
        for handle in islice(servers.live[source].replicas, LOOKED_AT):
            chunk: Chunk | None = self._engine.tables.get(CHUNKS, (handle,))
            if chunk is None or chunk.state is not ChunkState.SEALED or not chunk.references:
                continue
            holders = servers.holders(handle)
            if len(holders) != chunk.goal or chunk.length > sites[target].free_bytes:
                continue
            if replication.may_move(holders, source, target, sites) and (
                best is None or chunk.length > best[1].length
            ):
                best = handle, chunk
        return best
