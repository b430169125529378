"""Power is lost in every operation of log, state and checkpoint; nothing promised is.

Goal: after a power loss anywhere, the start finds exactly the acknowledged
records, perhaps followed by whole ones that were not acknowledged; the state
equals a fold over the log; and no torn tail is taken for damage.

Method: one run of a master's loop (log, fdatasync, COMMIT, WAL copied back,
checkpoints, retention) on a simulated disk that holds log, checkpoints *and*
SQLite's files. Before each operation that changes the disk, copies of it are
taken as they would be found after a power loss there, with several seeds, and
a master starts on each. Some of these starts lose power themselves.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from gfs.items import (
    DIRENTS,
    EXTENTS,
    EXTENTS_BY_HANDLE,
    INODES,
    TABLES,
    Dirent,
    Extent,
    Inode,
    Key,
)
from master.checkpoint import (
    iterate_items,
    list_checkpoints,
    log_floor,
    make_checkpoint,
    newest_whole,
    remove_old,
)
from master.core.tables import AnyItem, Tables
from master.log import OperationLog
from master.recovery import Recovered, open_state
from master.segments import HEADER_BYTES, LogDamaged, name_of
from tests.logcheck import ExpectLog
from tests.sim.disk import PowerLoss, SimDisk
from tests.sim.vfs import SimVFS

ROOT = Path("/data/master")
STATE, CHECKPOINTS = ROOT / "state", ROOT / "checkpoints"
GROUPS = 90
CRASH_EVERY = 2  # operations
TEAR_SEEDS = 6  # fates tried where a group of records is written but not synced
CRASH_POINTS_MIN = 500
CLUSTER = "power-loss"

Change = tuple[str, list[int | bytes], list[int] | None]


def _apply(tables: Tables, payload: bytes) -> None:
    for table, key, fields in msgspec.msgpack.decode(payload, type=list[Change]):
        if fields is None:
            tables.delete(table, tuple(key))
        else:
            tables.put(table, tuple(key), _item(table, fields))


def _item(table: str, fields: list[int]) -> AnyItem:
    if table == EXTENTS:
        return Extent(*fields)
    if table == DIRENTS:
        return Dirent(*fields)
    size = fields[0]
    return Inode(0o100644, 0, 0, 1, size, 0, 0, 0, attributes={b"user.a": b"x" * (size % 700)})


def _payload(chance: random.Random, position: int) -> bytes:
    changes: list[Change] = [(INODES, [1], [position])]
    for _ in range(chance.randint(1, 4)):
        ino = chance.randint(2, 40)
        if chance.random() < 0.3:
            changes.append((DIRENTS, [1, b"%d" % ino], None))
            changes.append((EXTENTS, [ino, 0], None))
        else:
            changes.append((INODES, [ino], [chance.randint(0, 5000)]))
            changes.append((DIRENTS, [1, b"%d" % ino], [ino, 0]))
            changes.append((EXTENTS, [ino, 0], [1, chance.randint(0, 5), 0]))
    return msgspec.msgpack.encode(changes)


def _open(disk: SimDisk, vfs: str) -> tuple[Recovered, OperationLog]:
    log = OperationLog(
        ROOT / "log", disk, CLUSTER, segment_bytes=HEADER_BYTES + 8192, step_bytes=4096
    )
    recovered = open_state(
        STATE, CLUSTER, log, _apply, disk=disk, checkpoints=CHECKPOINTS, vfs=vfs, exclusive=True
    )
    return recovered, log


@contextmanager
def _vfs(disk: SimDisk, name: str) -> Iterator[str]:
    vfs = SimVFS(name, disk)
    try:
        yield name
    finally:
        vfs.unregister()


Content = dict[str, list[tuple[Key, AnyItem]]]


def _content(tables: Tables) -> Content:
    return {table: tables.scan(table) for table in (INODES, DIRENTS, EXTENTS)}


class Model:
    """What the tables must be: dictionaries, changed by the same records."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[Key, AnyItem]] = {INODES: {}, DIRENTS: {}, EXTENTS: {}}

    def apply(self, payload: bytes) -> None:
        for table, key, fields in msgspec.msgpack.decode(payload, type=list[Change]):
            if fields is None:
                self._tables[table].pop(tuple(key), None)
            else:
                self._tables[table][tuple(key)] = _item(table, fields)

    def content(self) -> Content:
        return {table: sorted(items.items(), key=_key) for table, items in self._tables.items()}


def _key(row: tuple[Key, AnyItem]) -> Key:
    return row[0]


@dataclass
class Totals:
    """What the run has seen; printed at its end."""

    operations: int = 0
    crash_points: int = 0
    starts: int = 0
    crashed_starts: int = 0
    restored: int = 0
    replayed: int = 0
    torn_tails: int = 0
    unacknowledged_kept: int = 0
    by_operation: dict[str, int] = field(default_factory=dict)


class Run:
    """A master's loop on one disk, and what it has promised so far."""

    def __init__(self, seed: int) -> None:
        self.disk = SimDisk(seed)
        self.chance = random.Random(f"{seed}/workload")
        self.payloads: dict[int, bytes] = {}
        self.acknowledged = 0
        self.model = Model()
        self.expected = {0: self.model.content()}
        self.totals = Totals()

    def work(self, groups: int) -> None:
        """Log, sync, COMMIT, acknowledge; now and then what a server does beside it."""
        with _vfs(self.disk, "running") as vfs:
            recovered, log = _open(self.disk, vfs)
            state = recovered.state
            for number in range(groups):
                if log.needs_preparation and self.chance.random() < 0.5:
                    log.prepare()
                state.begin()
                records = []
                for position in self._group(log.last_position):
                    payload = _payload(self.chance, position)
                    self.payloads[position] = payload
                    records.append((position, payload))
                    _apply(state, payload)
                    self.model.apply(payload)
                    self.expected[position] = self.model.content()
                log.append(1, records)
                log.sync()
                state.set_position(log.last_position, 1)
                state.commit()
                self.acknowledged = log.last_position
                if number % 7 == 6:
                    state.checkpoint_wal()
                if number % 20 == 19:
                    make_checkpoint(state._connection, CHECKPOINTS, self.disk, vfs=vfs)
                    remove_old(self.disk, CHECKPOINTS)
                    log.truncate_before(log_floor(self.disk, CHECKPOINTS))
            state.close()

    def _group(self, last: int) -> range:
        return range(last + 1, last + 2 + self.chance.randint(0, 9))

    def check(self, disk: SimDisk, name: str) -> None:
        """A master starts on a disk that lost power: what was promised must be there."""
        with _vfs(disk, name) as vfs:
            recovered, log = _open(disk, vfs)
            state = recovered.state
            last = log.last_position
            assert self.acknowledged <= last <= max(self.payloads, default=0)
            for record in log.scan(log.first_position):
                assert record.payload == self.payloads[record.position]
            assert state.position == last
            assert _content(state) == self.expected[last]
            assert state.verify() == []
            for checkpoint in list_checkpoints(disk, CHECKPOINTS):
                assert log.first_position <= checkpoint.position + 1
            self._go_on(recovered, log)
            state.close()
        totals = self.totals
        totals.starts += 1
        totals.replayed += recovered.replayed
        totals.torn_tails += recovered.cut_bytes > 0
        totals.unacknowledged_kept += last - self.acknowledged

    def _go_on(self, recovered: Recovered, log: OperationLog) -> None:
        """The state and log found can be written to."""
        position = log.last_position + 1
        log.append(2, [(position, b"\x90")])
        log.sync()
        recovered.state.begin()
        recovered.state.set_position(position, 2)
        recovered.state.commit()

    def lose_power(self, operation: str, path: Path) -> None:
        """Before each operation: what would be found if power went now."""
        self.totals.operations += 1
        tearing = operation == "fdatasync" and path.suffix == ".log"
        if self.totals.operations % CRASH_EVERY and not tearing:
            return
        self.totals.crash_points += 1
        kind = f"{operation} {path.suffix or path.name}"
        self.totals.by_operation[kind] = self.totals.by_operation.get(kind, 0) + 1
        seed = self.totals.operations
        for fate in range(TEAR_SEEDS if tearing else 1):
            self.check(self.disk.after_power_loss(seed * 1000 + fate), "after")
        if self.totals.crash_points % 4 == 0:
            self.check(self._crashed_start(seed), "again")
        if self.totals.crash_points % 4 == 2:
            self.check(self._without_state(seed), "restored")

    def _without_state(self, seed: int) -> SimDisk:
        """A disk that lost its state with the power: checkpoint and log must do."""
        disk = self.disk.after_power_loss(seed * 1000 + 998)
        if disk.exists(STATE):
            disk.unlink(STATE)
            self.totals.restored += 1
        return disk

    def _crashed_start(self, seed: int) -> SimDisk:
        """A disk on which a start, too, lost power after some operations."""
        disk = self.disk.after_power_loss(seed * 1000 + 999)
        disk.crash_after(1 + seed % 23)
        try:
            with _vfs(disk, "crashing") as vfs:
                recovered, _ = _open(disk, vfs)
                recovered.state.close()
        except PowerLoss:
            self.totals.crashed_starts += 1
        disk.crash()
        return disk


@pytest.mark.power_loss
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_power_loss_anywhere_loses_nothing_that_was_acknowledged(
    seed: int, capsys: pytest.CaptureFixture[str], expect_log: ExpectLog
) -> None:
    expect_log("^state[.]restored")
    run = Run(seed)
    run.disk.before_operation = run.lose_power
    run.work(GROUPS)
    run.disk.before_operation = None
    run.check(run.disk.after_power_loss(0), "end")
    with capsys.disabled():
        print(f"\nseed {seed}: {run.totals}")
    assert run.totals.crash_points >= CRASH_POINTS_MIN
    assert run.totals.torn_tails > 10
    assert run.totals.replayed > 100
    assert run.totals.crashed_starts > 50
    assert run.totals.restored > 100


@pytest.mark.power_loss
def test_a_flipped_bit_in_any_durable_record_is_reported_and_not_cut() -> None:
    """Every record but those of the last group, of which only the state may know."""
    run = Run(3)
    run.work(12)
    with _vfs(run.disk, "first") as vfs:
        recovered, log = _open(run.disk, vfs)
        recovered.state.close()
    reported = 0
    for position in range(1, log.last_position + 1):
        disk = run.disk.after_power_loss(position)
        segment = next(s for s in log._kept.segments[::-1] if s.first <= position)
        offset = segment.offset_of(position)
        disk.flip_bit(ROOT / "log" / name_of(segment.first), offset + position % 40)
        with _vfs(disk, "flipped") as vfs, pytest.raises(LogDamaged, match=f"record {position} "):
            recovered, found = _open(disk, vfs)
            try:
                list(found.scan(1))
            finally:
                recovered.state.close()
        reported += 1
    assert reported == run.acknowledged


@pytest.mark.power_loss
def test_a_state_lost_with_the_power_comes_back_from_a_checkpoint(expect_log: ExpectLog) -> None:
    expect_log("^state[.]restored")
    run = Run(4)
    run.work(45)
    for seed in range(20):
        disk = run.disk.after_power_loss(seed)
        disk.unlink(STATE)
        run.check(disk, "restored")
    assert run.totals.replayed > 20


@pytest.mark.power_loss
def test_a_checkpoint_on_the_simulated_disk_holds_the_items_of_its_position() -> None:
    run = Run(5)
    run.work(45)
    with _vfs(run.disk, "reading") as vfs:
        (checkpoint,) = newest_whole(run.disk, CHECKPOINTS)
        items = list(iterate_items(checkpoint, vfs=vfs))
    expected = run.expected[checkpoint.position]
    assert items == [
        (table, key, item) for table in TABLES for key, item in expected.get(table, [])
    ]


@pytest.mark.power_loss
def test_the_state_alone_never_comes_back_damaged_or_ahead() -> None:
    """SQLite with synchronous=NORMAL on this disk: older perhaps, never broken."""
    run = Run(6)
    older = 0

    def look(operation: str, path: Path) -> None:
        nonlocal older
        run.totals.operations += 1
        if run.totals.operations % 5 or not run.disk.exists(STATE):
            return
        disk = run.disk.after_power_loss(run.totals.operations)
        with _vfs(disk, "alone") as vfs:
            recovered, _ = _open(disk, vfs)
            older += recovered.replayed > 0
            assert recovered.state.verify() == []
            assert recovered.state.by_index(EXTENTS_BY_HANDLE, 99) == []
            recovered.state.close()

    run.disk.before_operation = look
    run.work(25)
    assert older > 10
