"""Bugs to be found: each a small change of the product that breaks one rule of its own.

A simulation that finds nothing proves little unless it finds these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from msgspec.structs import replace

import master.core.renaming as renaming
import master.core.sealing as sealing
from chunkd.scrub import Scrubber
from gfs.client.cache_lease import CacheLease
from gfs.client.client import Client
from gfs.client.keeping import Keeping
from gfs.client.locks import HeldLock
from gfs.items import CHUNKS, DIRENTS, Chunk
from gfs.messages import Actor, Entry, Invalidate, Mutate
from gfs.open_flags import writes
from gfs.records import Copy
from master import housekeeping
from master.core import copying, extents, transaction
from master.core.decision import Decision
from master.core.machine import Machine
from master.core.sealing import Seal
from master.housekeeping import Housekeeping
from master.ledger import Ledger
from master.log import OperationLog
from projections.core.following import Batch, Follower

LATE_S = 0.5
EVER_S = 60.0


def answers_before_fdatasync() -> None:
    """The operation log is not on the disk when its records are answered."""
    OperationLog._sync_file = lambda self, file: None  # type: ignore[method-assign]


def seals_at_the_least_end() -> None:
    """`min` instead of the greatest: what a member has lost is lost at all."""
    Seal.length = (  # type: ignore[method-assign]
        lambda self: min(answer.end for answer in self.answers.values())
    )


def honours_the_lease_too_long() -> None:
    """A mount that hears nothing of its master goes on to trust what it has cached."""
    left = CacheLease.left
    CacheLease.left = (  # type: ignore[method-assign]
        lambda self: max(left(self), EVER_S if self.until > float("-inf") else 0.0)
    )


def does_not_log_the_version() -> None:
    """Members are fenced and sealed at a version that the log never hears of."""
    finish = sealing.finish

    def begin_unlogged(decision: Decision, handle: int, chunk: Chunk, now_s: float) -> Seal:
        members = {member.server: member.boot for member in chunk.members}
        decision.tx.put(CHUNKS, (handle,), replace(chunk))
        return Seal(handle, chunk.version + 1, members, now_s, referenced=chunk.references)

    def finish_unlogged(decision: Decision, seal: Seal) -> Chunk:
        chunk: Chunk = decision.tx.get(CHUNKS, (seal.handle,))
        decision.tx.put(CHUNKS, (seal.handle,), replace(chunk, version=seal.version))
        sealed = finish(decision, seal)
        after: Chunk = decision.tx.get(CHUNKS, (seal.handle,))
        decision.tx.put(CHUNKS, (seal.handle,), replace(after, version=chunk.version))
        return sealed

    sealing.begin = begin_unlogged
    sealing.finish = finish_unlogged


def loses_dedup_facts_at_the_seal() -> None:
    """Nobody knows any more which records of a writer have landed."""
    Seal.writers = lambda self: {}  # type: ignore[method-assign]


def decides_a_request_twice() -> None:
    """A mutation that is sent again is not found and done again."""
    record = Machine._record

    def forgetful(
        self: Machine,
        decision: Decision,
        changes: list[Any],
        pending: Any,
        message: Mutate,
        live: Any,
        done: Any,
    ) -> None:
        record(self, decision, changes, pending, message, live, done)
        live.landed.pop(message.number, None)

    Machine._record = forgetful  # type: ignore[method-assign]


def commits_an_absolute_size() -> None:
    """A commit sets the size to the end of its last range."""
    commit = extents.commit

    def absolute(decision: Decision, ino: int, inode: Any, ranges: list[Any]) -> Any:
        found = commit(decision, ino, inode, ranges)
        last = ranges[-1] if ranges else None
        end = last.file_offset + last.extent.length if last is not None else found.size
        return replace(found, size=end)

    extents.commit = absolute


def renames_by_half() -> None:
    """The new name is made and the old one stays."""
    move = renaming._move

    def half(decision: Decision, op: Any, source: Any, moved: Any, *, replaced: Any) -> None:
        move(decision, op, source, moved, replaced=replaced)
        decision.tx.put(DIRENTS, (op.parent, op.name), source)

    renaming._move = half


def acknowledges_invalidations_too_early() -> None:
    """A mount says that it has dropped what it drops a while later."""
    invalidate = Client._invalidate

    async def early(self: Client, message: Invalidate) -> None:
        async def later() -> None:
            await trio.sleep(LATE_S)
            await invalidate(self, message)

        self.nursery.start_soon(later)

    Client._invalidate = early  # type: ignore[method-assign]


def moves_the_cursor_too_far() -> None:
    """A view that begins again leaves out the record after its last batch."""
    batch = Follower.batch

    def too_far(self: Follower, limit: int) -> Batch | None:
        found = batch(self, limit)
        if found is not None:
            found.cursor = found.cursor._replace(position=found.cursor.position + 1)
        return found

    Follower.batch = too_far  # type: ignore[method-assign]


def never_verifies_blocks() -> None:
    """The scrubber counts what it should read."""

    async def nothing(self: Scrubber, replica: Any, files: Any) -> None:
        self.progress.blocks += 1

    Scrubber._blocks = nothing  # type: ignore[method-assign]


def forgets_the_share_of_a_copy() -> None:
    """A clone's chunks go when the original does."""
    apply_copy = copying.apply_copy

    def uncounted(copy: Copy, time_ns: int, tables: Any) -> None:
        apply_copy(copy, time_ns, _Uncounted(tables))

    transaction.apply_copy = uncounted  # type: ignore[attr-defined]


class _Uncounted:
    """Tables that take everything but chunks."""

    def __init__(self, tables: Any) -> None:
        self._tables = tables

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tables, name)

    def put_many(self, table: str, items: Any) -> None:
        if table != CHUNKS:
            self._tables.put_many(table, items)


def drops_log_that_is_needed() -> None:
    """The log is cut when a checkpoint was due, whether or not one was made."""

    async def cut(self: Housekeeping, last: int) -> int:
        position = self._ledger.position
        if position - last < self._checkpoint_records:
            return last
        await trio.to_thread.run_sync(self._truncate)
        return position

    housekeeping.log_floor = lambda disk, directory: 1 << 60  # type: ignore[attr-defined]
    Housekeeping._checkpoint_if_due = cut  # type: ignore[method-assign]


def confirms_before_it_is_on_disk() -> None:
    """A shadow says that it has what its disk has not."""

    def unsynced(self: Ledger, records: Any) -> None:
        position = self.position
        for epoch, payload in records:
            position += 1
            self.log.append(epoch, [(position, payload)])

    Ledger.write = unsynced  # type: ignore[method-assign]


def holds_a_lock_past_its_lease() -> None:
    """Who hears nothing of the master goes on as if the lock could not be another's."""
    HeldLock.left_s = lambda self: EVER_S  # type: ignore[method-assign]


def opens_by_what_it_was_told_to_drop() -> None:
    """A file that was once opened without the master is opened so for ever."""
    entry = Keeping.entry
    known: dict[tuple[Keeping, int], Entry] = {}

    def stale(self: Keeping, ino: int, flags: int, actor: Actor, *, is_open: bool) -> Entry | None:
        found = entry(self, ino, flags, actor, is_open=is_open)
        if found is not None:
            known[self, ino] = found
        return None if writes(flags) else known.get((self, ino))

    Keeping.entry = stale  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        answers_before_fdatasync,
        seals_at_the_least_end,
        honours_the_lease_too_long,
        does_not_log_the_version,
        loses_dedup_facts_at_the_seal,
        decides_a_request_twice,
        commits_an_absolute_size,
        renames_by_half,
        acknowledges_invalidations_too_early,
        moves_the_cursor_too_far,
        never_verifies_blocks,
        forgets_the_share_of_a_copy,
        drops_log_that_is_needed,
        confirms_before_it_is_on_disk,
        holds_a_lock_past_its_lease,
        opens_by_what_it_was_told_to_drop,
    )
}


def plant(name: str) -> None:
    """Break the product, for the rest of this process."""
    PLANTS[name]()
