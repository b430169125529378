"""Power is lost in every operation of a chunk server's disk; what was certain is still there.

A small workload appends to several replicas, syncs, fences, condenses,
copies and deletes, and notes what each step promised once it returned. It is run
once for each of its operations with the power lost in that one; then a new store is
loaded from what the disk kept and compared with the notes:

- an open replica holds a prefix of what was appended, at least up to the last sync,
  its block checksums and writers being those of exactly that prefix;
- a fence that was answered still refuses;
- a sealed replica that was answered is whole; a deleted one is not half there;
- and the recovered replica can be fenced, grown and recovered again.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from chunkd.core.machine import Machine
from chunkd.core.replica import ReplicaState
from chunkd.directory import DataDirectory
from chunkd.files import OpenFiles
from chunkd.formats import Obeyed
from chunkd.obeyed import ObeyedFile
from chunkd.store import Store, delete
from chunkd.sums import BlockSums
from gfs.checksum import crc32c
from gfs.errors import NoSpace, StorageFailed
from gfs.ids import BLOCK_BYTES, MIB
from tests.sim.disk import PowerLoss, SimDisk

ROOT = Path("/data")
CLUSTER = "sim"
HANDLES = [1, 2, 257, 3, 4]  # two of them share a folder
CHUNK_BYTES = 4 * MIB
STEPS = 60
SEEDS = 5
CRASHES_MIN = 500


@dataclass
class Promised:
    """What a handle's answers have promised so far."""

    content: bytearray = field(default_factory=bytearray)
    ends: list[int] = field(default_factory=lambda: [0])
    sequences: list[int] = field(default_factory=lambda: [0])  # last one at each end
    synced: int = 0
    exists: bool = False  # its names are durable
    version: int = 1
    fenced: bool = False
    fencing: bool = False  # asked, not yet answered
    sealed: int | None = None
    sealing: bool = False
    deleting: bool = False


def open_store(disk: SimDisk) -> Store:
    directory = DataDirectory.open(ROOT, disk, cluster=CLUSTER, server=9, index=0)
    directory.reserve(0)
    store = Store([directory], Machine(boot="boot"))
    store.load()
    return store


class Workload:
    """The same steps for the same seed, whenever it is interrupted."""

    def __init__(self, disk: SimDisk, seed: int) -> None:
        self.disk = disk
        self.random = random.Random(f"{seed}/workload")
        self.promised = {handle: Promised() for handle in HANDLES}
        self.store = open_store(disk)
        self.obeyed = ObeyedFile.open(self.store.directories[0])
        self.committed = 0

    def run(self) -> None:
        actions: list[Callable[[int, Promised], None]] = [
            self.append, self.append, self.append, self.append, self.sync, self.sync, self.fence,
            self.condense, self.seal, self.copy, self.remove, self.obey,
        ]  # fmt: skip
        for _ in range(STEPS):
            handle = self.random.choice(HANDLES)
            action = self.random.choice(actions)
            action(handle, self.promised[handle])

    def files(self, handle: int, promised: Promised) -> OpenFiles | None:
        if promised.sealed is not None or promised.deleting:
            return None
        if handle not in self.store.machine.replicas:
            tail = self.random.random() < 0.5
            self.store.create(handle, promised.version, tail=tail, chunk_bytes=CHUNK_BYTES)
        return self.store.open[handle]

    def append(self, handle: int, promised: Promised) -> None:
        files = self.files(handle, promised)
        replica = self.store.machine.replicas.get(handle)
        if files is None or replica is None or replica.state is not ReplicaState.OPEN:
            return
        length = self.random.choice([1, 100, 5000, BLOCK_BYTES, BLOCK_BYTES + 9, 200_000])
        piece = self.random.randbytes(length)
        if replica.end + length > CHUNK_BYTES:
            return
        promised.content += piece
        promised.ends.append(replica.end + length)
        promised.sequences.append(promised.sequences[-1] + 1)
        checksum, sums = files.checksums(memoryview(piece))
        files.append(
            piece, end=replica.end + length, checksum=checksum, writer=5,
            sequence=promised.sequences[-1], sums=sums,
        )  # fmt: skip
        replica.end += length
        replica.writers[5] = promised.sequences[-1]

    def sync(self, handle: int, promised: Promised) -> None:
        files = self.store.open.get(handle)
        if files is not None:
            for part in self.random.sample([files.sync_data, files.sync_side], 2):
                part()
            promised.synced, promised.exists = files.sums.end, True

    def fence(self, handle: int, promised: Promised) -> None:
        files = self.files(handle, promised)
        if files is None:
            return
        replica = self.store.machine.replica(handle)
        version = replica.version + 1
        promised.fencing = True
        replica.fence(version)
        files.persist_fence(version)
        promised.version, promised.fenced, promised.fencing = version, True, False
        promised.exists = True

    def condense(self, handle: int, promised: Promised) -> None:
        replica = self.store.machine.replicas.get(handle)
        if replica is None or replica.state is not ReplicaState.FENCED or not promised.ends:
            return
        shorter = [end for end in promised.ends if end >= promised.synced]
        length = self.random.choice([replica.end, shorter[0]])
        promised.sealing = True
        sums = self.store.open[handle].condense(replica.version, length, dict(replica.writers))
        self.store.sealed_now(replica, replica.version, sums)
        promised.sealed = length

    def seal(self, handle: int, promised: Promised) -> None:
        """All of it in a row, so that nothing but the seal itself syncs the last bytes."""
        self.append(handle, promised)
        self.fence(handle, promised)
        self.random.choice([self.condense, self.copy])(handle, promised)

    def copy(self, handle: int, promised: Promised) -> None:
        """What a member does that is short: own beginning, the rest from another."""
        files = self.store.open.get(handle)
        replica = self.store.machine.replicas.get(handle)
        if files is None or replica is None or replica.state is not ReplicaState.FENCED:
            return
        rest = self.random.randbytes(70_000)
        promised.sealing = True
        copy = self.store.begin_copy(handle, replica.end + len(rest))
        copy.take_from(files, replica.end)
        promised.content += rest
        promised.ends.append(replica.end + len(rest))
        promised.sequences.append(promised.sequences[-1])
        copy.write(rest)
        self.store.open.pop(handle).retire()
        sums = copy.finish(replica.version, {})
        self.store.finish_copy(copy, replica.version, sums)
        promised.sealed = sums.end

    def remove(self, handle: int, promised: Promised) -> None:
        gone = promised.sealed is None or promised.deleting
        if gone or self.random.random() < 0.7:
            return
        promised.deleting = True
        directory = self.store.forget(handle)
        assert directory is not None
        delete(directory, handle, bad=False)

    def obey(self, handle: int, promised: Promised) -> None:
        position = self.committed + self.random.randint(0, 3)
        self.obeyed.save(Obeyed(1 + position // 10, position, 1 + position // 10))
        self.committed = position


def check(workload: Workload, disk: SimDisk, crash: str) -> None:
    store = open_store(disk)
    obeyed = ObeyedFile.open(store.directories[0]).saved
    assert workload.committed <= obeyed.committed <= workload.committed + 3, crash
    for handle, promised in workload.promised.items():
        replica = store.machine.replicas.get(handle)
        where = f"{crash}, chunk {handle}"
        if replica is None:
            may_lack = promised.deleting or (promised.sealing and promised.sealed is None)
            assert may_lack or not promised.exists, where
            continue
        files = store.files(replica) or store.open_sealed(store.directories[0], handle)
        end = replica.end
        content = bytes(promised.content[:end])
        assert len(content) == end, where
        found = b"".join(
            bytes(files.sums.read(files.data, offset, MIB)[0]) for offset in range(0, end, MIB)
        )
        assert found == content, where
        assert end in promised.ends, where
        if replica.state is ReplicaState.SEALED:
            assert promised.sealing, where
            if promised.sealed is not None:
                assert end == promised.sealed, where
            continue
        assert promised.sealed is None or promised.deleting, where
        check_open(store, handle, promised, where)


def check_open(store: Store, handle: int, promised: Promised, where: str) -> None:
    replica, files = store.machine.replicas[handle], store.open[handle]
    assert replica.recovered, where
    assert replica.end >= promised.synced, f"{where}: {replica.end} < {promised.synced}"
    assert replica.version >= promised.version, where
    if promised.fenced:
        assert replica.state is ReplicaState.FENCED, where
    if replica.state is ReplicaState.FENCED:
        assert promised.fenced or promised.fencing or promised.version > 1, where
    sequence = promised.sequences[promised.ends.index(replica.end)]
    assert replica.writers == ({5: sequence} if sequence else {}), where
    # It can be used again, and what is added now survives the next loss of power.
    files.persist_fence(replica.version + 1)
    content = promised.content[: replica.end] + b"after the crash"
    files.append(
        b"after the crash", end=len(content), checksum=crc32c(b"after the crash"), writer=6,
        sequence=1,
    )  # fmt: skip
    files.sync()
    recovered, slot, writers = OpenFiles.recover(store.directories[0], handle)
    assert recovered.sums.end == len(content), where
    assert slot.version == replica.version + 1, where
    assert writers[6] == 1, where
    whole = BlockSums()
    whole.extend(bytes(content))
    assert recovered.sums.sums == whole.sums, where


@pytest.mark.power_loss
@pytest.mark.slow
@pytest.mark.timeout(120)
def test_power_loss_in_every_operation_keeps_what_was_certain() -> None:
    formatted = SimDisk(0)
    open_store(formatted).close()
    crashes = 0
    for seed in range(SEEDS):
        calm = Workload(formatted.after_power_loss(seed), seed)
        before = calm.disk.operations_total
        calm.run()
        for operation in range(1, calm.disk.operations_total - before + 1):
            disk = formatted.after_power_loss(seed << 32 | operation)
            workload = Workload(disk, seed)
            disk.crash_after(operation)
            with pytest.raises(PowerLoss):
                workload.run()
                raise AssertionError("the workload has become shorter")
            disk.crash()
            check(workload, disk, f"seed {seed}, operation {operation}")
            crashes += 1
    print(f"\n{crashes} losses of power in {SEEDS} workloads of {STEPS} steps")
    assert crashes >= CRASHES_MIN


@pytest.mark.power_loss
def test_format_of_a_directory_survives_power_loss_in_each_operation() -> None:
    calm = SimDisk(0)
    open_store(calm).close()
    for operation in range(1, calm.operations_total + 1):
        disk = SimDisk(operation)
        disk.crash_after(operation)
        with pytest.raises(PowerLoss):
            open_store(disk)
        disk.crash()
        open_store(disk).close()


def test_flipped_bit_in_synced_data_cuts_the_open_replica_there_and_no_further() -> None:
    disk = SimDisk(1)
    store = open_store(disk)
    store.create(7, 1, tail=True, chunk_bytes=CHUNK_BYTES)
    files = store.open[7]
    for number in range(10):
        piece = bytes([number]) * 1000
        files.append(
            piece, end=1000 * (number + 1), checksum=crc32c(piece), writer=1, sequence=number + 1
        )
    files.sync()
    store.close()
    disk.flip_bit(store.directories[0].file(7, "data"), 4500)
    again = open_store(disk)
    assert again.machine.replicas[7].end == 4000
    assert again.machine.replicas[7].writers == {1: 4}
    assert again.open[7].data.size() == 4000


def test_full_disk_and_sick_disk_leave_the_replica_right() -> None:
    disk = SimDisk(1)
    store = open_store(disk)
    store.create(7, 1, tail=True, chunk_bytes=CHUNK_BYTES)
    files = store.open[7]

    def append(length: int, sequence: int) -> None:
        piece = bytes([sequence]) * length
        files.append(
            piece, end=files.sums.end + length, checksum=crc32c(piece), writer=1,
            sequence=sequence,
        )  # fmt: skip

    append(1000, 1)
    free, _ = disk.free_bytes(ROOT)
    disk.capacity_bytes = (1 << 40) - free + 10_000
    with pytest.raises(NoSpace):
        append(2 * MIB, 2)
    append(5000, 2)
    for pattern in ("*.data", "*.side"):
        disk.fail("pwrite", pattern, errno.ENOSPC)
        with pytest.raises(NoSpace):
            append(50, 3)
        disk.fail("pwrite", pattern, errno.EIO)
        with pytest.raises(StorageFailed):
            append(60, 3)
    append(70, 3)
    files.sync()
    store.close()
    disk.crash()
    again = open_store(disk)
    replica = again.machine.replicas[7]
    assert (replica.end, replica.writers) == (6070, {1: 3})
    found, _ = again.open[7].sums.read(again.open[7].data, 0, 10_000)
    assert bytes(found) == b"\1" * 1000 + b"\2" * 5000 + b"\3" * 70
