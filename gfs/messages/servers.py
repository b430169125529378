"""Chunk server <-> master: registration, reports, heartbeats and orders."""

from __future__ import annotations

from msgspec import field

from gfs.messages.base import ChainMember, Message, Number


class ReplicaReport(Message):
    """What a server says of one replica."""

    handle: Number
    version: Number
    sealed: bool
    length: Number
    checksum: int  # CRC32C over block checksums, sealed only
    recovered: bool = False  # open, and its server has restarted: it takes no appends
    sound: bool = True  # False: a block is bad or its directory fails; it does not count
    outgoing: bool = False  # its directory is being emptied, and the server has no other place


class RegisterServer(Message):
    """Who I am; followed by `ReportReplicas` until `last` -> `ServerRegistered`."""

    member: ChainMember
    boot: str
    http: str
    total_bytes: int
    free_bytes: int  # what new chunks may still take
    highest_committed: int
    epoch: int  # highest master epoch this server has obeyed
    directories: list[str] = field(default_factory=list)
    heard_epoch: int = 0  # of the master that told `highest_committed`
    first_new_handle: int = 0  # what a master told this process first; 0: none has


class ServerRegistered(Message):
    """`leads` False: a shadow, which gives no orders and is told of replicas alone.

    `first_new_handle`: chunks with lower ones may have had a replica on this server before.
    """

    epoch: int
    heartbeat_s: float
    chunk_bytes: int
    leads: bool = True
    committed: int = 0
    first_new_handle: int = 0


class ReportReplicas(Message):
    """A batch of the block report (GFS §2.6.2) -> `Ok`. `complete` ends it."""

    replicas: list[ReplicaReport]
    complete: bool
    gone: list[Number] = field(default_factory=list)


class TailGrowth(Message):
    handle: Number
    version: Number
    end: Number
    mtime_ns: Number


class DirectoryDrain(Message):
    """A data directory that is being emptied; nothing left: the disk may be taken out.

    `homeless`: replicas that the server has no other place for; others are to copy them.
    """

    path: str
    replicas_left: int
    bytes_left: int
    homeless: int = 0


class Heartbeat(Message):
    """Each 300 ms, one way: free space, growth of tails (each at most once in 5 s)."""

    free_bytes: int
    total_bytes: int
    growth: list[TailGrowth]
    bad: list[Number] = field(default_factory=list)  # replicas found corrupt
    errors: list[str] = field(default_factory=list)  # data directories that are out
    verified_ns: int = 0  # since then every block has been verified (wall clock); 0: not yet
    drains: list[DirectoryDrain] = field(default_factory=list)


class HeartbeatAnswer(Message):
    """One way: the position committed, which the server keeps for promotions; leases renewed."""

    epoch: int
    committed: int


class Fence(Message):
    """Persist `version`; from then refuse appends, forwards, acknowledgements below -> `Fenced`.

    An unknown replica is created empty and fenced.
    """

    handle: int
    version: int
    epoch: int


class FencedAt(Message):
    """`end` = last whole entry; `boot` = the machine's boot id now; writer -> last sequence.

    `boot` is empty when the replica is known to have lost something. `created`: there
    was no replica, the fence made an empty one; it never joined, or was lost. `mtime_ns`: of
    the last append, 0 = unknown.
    """

    end: Number
    boot: str
    writers: dict[int, int]
    created: bool = False
    mtime_ns: Number = 0


class Condense(Message):
    """Seal the fenced replica at `length`, which it must have -> `Condensed`.

    The side log becomes block checksums + writer table.
    """

    handle: int
    version: int
    length: int
    epoch: int = 0


class Condensed(Message):
    """CRC32C over the block checksums."""

    checksum: int


class Piece(Message):
    """Bytes [offset, offset + length) of a replica that `source` has, of at least `version`."""

    source: ChainMember
    handle: int
    version: int
    offset: int
    length: int


class CopyReplica(Message):
    """Fetch [own end, length) of a sealed chunk from `source`, then condense -> `Condensed`."""

    handle: int
    version: int
    length: int
    source: ChainMember
    epoch: int = 0


class BuildReplica(Message):
    """Make a sealed replica of a new chunk out of these pieces, in order -> `Condensed`."""

    handle: int
    version: int
    pieces: list[Piece]
    epoch: int = 0


class Drain(Message):
    """From people: make copies elsewhere of all that a chunk server has -> `Ok`; `stop` ends it.

    Not an order to the server. How far it has come stands in `Status`.
    """

    server: int
    stop: bool = False


class DrainDirectory(Message):
    """From people, by way of the master: empty one data directory -> `DirectoriesDraining`.

    `path` as the server has it, absolute; `stop` ends it, and what was moved stays moved.
    """

    server: int
    path: str
    stop: bool = False
    epoch: int = 0


class DirectoriesDraining(Message):
    """All directories of the server that are being emptied, as in its heartbeats."""

    drains: list[DirectoryDrain]


class DeleteReplicas(Message):
    """Garbage (GFS §4.4): the chunk is condemned, or the replica stale -> `Ok`."""

    handles: list[int]
    epoch: int = 0


class ListQuarantine(Message):
    """What has been put aside because it could not be trusted -> `Quarantined`."""


class Quarantined(Message):
    handles: list[int]


class EmptyQuarantine(Message):
    """Nobody needs these copies that were put aside -> `Ok`."""

    handles: list[int]
    epoch: int = 0


class VerifyReplicas(Message):
    """Check every block of these replicas (empty = all) -> `Verified`, the bad ones."""

    handles: list[int]


class Verified(Message):
    bad: list[int]
    blocks: int


class ReportGrowth(Message):
    """Ends of these tails, now, for the log (`--wait`; empty = all) -> `Growth`."""

    handles: list[int]


class Growth(Message):
    growth: list[TailGrowth]
