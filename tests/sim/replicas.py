"""Sealed replicas as they lie on the disks: what rots there, and whether it was mended.

A bit is flipped only where every other replica of the chunk is right and there are two of
them at least: that is what three copies are for. Nobody is told; the scrubber, or whoever
reads, has to find it, and the cluster to replace it.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from chunkd.core.replica import Replica, ReplicaState
from chunkd.sums import BlockSums
from gfs.items import CHUNKS, Chunk, ChunkState

if TYPE_CHECKING:
    from tests.sim.nodes import ChunkMachine
    from tests.sim.parts import Parts

OTHERS_MIN = 2  # right replicas that are left
TRIES = 8


def current(machine: ChunkMachine, handle: int, chunk: Chunk) -> Replica | None:
    """A server's sealed replica of the chunk's version that it does not know to be bad."""
    if machine.server is None or not machine.alive:
        return None
    replica = machine.server.machine.replicas.get(handle)
    if replica is None or replica.version != chunk.version or replica.bad:
        return None
    return replica if replica.state is ReplicaState.SEALED else None


def on_disk(machine: ChunkMachine, replica: Replica) -> tuple[int, int]:
    """Length and checksum of what is in the replica's file, whatever its server believes."""
    assert machine.server is not None
    handle = replica.handle
    path = machine.server.store.places[handle].file(handle, "data")
    content = machine.disk.content(path)[: replica.end]
    sums = BlockSums()
    sums.extend(content)
    return len(content), sums.checksum


def is_right(machine: ChunkMachine, handle: int, chunk: Chunk) -> bool:
    """Has it a current replica, and is every bit of that as it was sealed?"""
    replica = current(machine, handle, chunk)
    return replica is not None and on_disk(machine, replica) == (chunk.length, chunk.checksum)


@dataclass
class Flip:
    """One bit that went wrong."""

    machine: ChunkMachine
    handle: int


class BitRot:
    """Flips bits, and remembers where."""

    def __init__(self, parts: Parts, chance: Random) -> None:
        self._parts = parts
        self._chance = chance
        self._flips: list[Flip] = []

    def flip(self) -> bool:
        """Flip a bit of some sealed replica; False: none was found that may rot."""
        for _ in range(TRIES):
            machine = self._chance.choice(self._parts.servers)
            if machine.server is None or not machine.alive:
                continue
            handles = sorted(machine.server.store.checksums)
            if handles and self._flip(machine, self._chance.choice(handles)):
                return True
        return False

    def _flip(self, machine: ChunkMachine, handle: int) -> bool:
        chunk = self._chunk(handle)
        if chunk is None or not is_right(machine, handle, chunk):
            return False
        others = [
            other
            for other in self._parts.servers
            if other is not machine and current(other, handle, chunk) is not None
        ]
        if len(others) < OTHERS_MIN or not all(is_right(one, handle, chunk) for one in others):
            return False
        assert machine.server is not None
        path = machine.server.store.places[handle].file(handle, "data")
        machine.disk.flip_bit(path, self._chance.randrange(chunk.length))
        self._flips.append(Flip(machine, handle))
        self._parts.say(f"{machine.name}: a bit of chunk {handle:x} has flipped")
        return True

    def unnoticed(self) -> Flip | None:
        """A flipped bit that its server still takes for right; None: there is none."""
        for flip in self._flips:
            chunk = self._chunk(flip.handle)
            if chunk is None:
                continue
            replica = current(flip.machine, flip.handle, chunk)
            if replica is not None and not is_right(flip.machine, flip.handle, chunk):
                return flip
        return None

    def _chunk(self, handle: int) -> Chunk | None:
        """A sealed chunk with content that files refer to."""
        core = self._parts.master.core
        if core is None or not self._parts.master.alive:
            return None
        chunk: Chunk | None = core.engine.reader.get(CHUNKS, (handle,))
        if chunk is None or chunk.state is not ChunkState.SEALED:
            return None
        return chunk if chunk.references and chunk.length and chunk.checksum else None
