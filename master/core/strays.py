"""Replicas of chunks that are not in the table: garbage if this history has deleted them.

A server that was away when a chunk was deleted still has its replica (GFS §4.4). But an
unknown handle may also be one that a lost tail of the log gave out: such a replica may be all
that is left of somebody's data and is never touched. Handles of an epoch are drawn in
ascending order, so a handle was given out by this very history if a chunk of its epoch with a
higher one is in the table, or if the highest deleted one of its epoch, which the log keeps, is
not below it. Whatever else is unknown stays.
"""

from __future__ import annotations

from gfs import messages as m
from gfs.ids import EPOCH_SHIFT
from gfs.items import CHUNKS, META, Meta
from master.core.decision import Decision
from master.core.engine import Answer, Engine

BATCH = 500  # of one server in one order
STRAYS_MAX = 100_000  # of one server; more are found again by its next report


def note_deleted(decision: Decision, handles: list[int]) -> None:
    """Keep the highest handle of each epoch whose chunk is deleted."""
    for handle in sorted(handles):
        key = _key(handle)
        known: Meta | None = decision.tx.get(META, key)
        if known is None or int(known.value) < handle:
            decision.tx.put(META, key, Meta(handle))


def _key(handle: int) -> tuple[bytes]:
    return (b"deleted-%d" % (handle >> EPOCH_SHIFT),)


class Strays:
    """Told by the fleet what servers have that nobody knows."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._found: dict[int, list[int]] = {}

    def found(self, server: int, handle: int) -> None:
        """A server has reported a replica of an unknown chunk."""
        handles = self._found.setdefault(server, [])
        if len(handles) < STRAYS_MAX:
            handles.append(handle)

    def forget(self, server: int) -> None:
        """It is down, or reports anew."""
        self._found.pop(server, None)

    def run(self) -> None:
        """Order some to be deleted; not in the first minute after a start."""
        for server, handles in list(self._found.items()):
            some, self._found[server] = handles[:BATCH], handles[BATCH:]
            if not self._found[server]:
                del self._found[server]
            garbage = [handle for handle in some if self.is_garbage(handle)]
            if garbage:
                order = m.DeleteReplicas(garbage, self._engine.epoch)
                self._engine.order_server(server, order, _ignore)

    def is_garbage(self, handle: int) -> bool:
        """Was it given out by this history, and is it no more in the table?"""
        tables, epoch = self._engine.tables, handle >> EPOCH_SHIFT
        if tables.get(CHUNKS, (handle,)) is not None or epoch > self._engine.epoch:
            return False
        deleted: Meta | None = tables.get(META, _key(handle))
        if deleted is not None and handle <= int(deleted.value):
            return True
        above = tables.scan(CHUNKS, after=(handle,), limit=1)
        return bool(above) and int(above[0][0][0]) >> EPOCH_SHIFT == epoch


def _ignore(_: Answer) -> None:
    """A server that misses the order reports the replica again."""
