"""One replica of a chunk as its server knows it: what it has, and what it still takes.

    OPEN --fence(v+1)--> FENCED --condense--> SEALED

An OPEN replica takes appends of exactly its version. A FENCED one takes nothing
more of any version; a fence is the one thing that makes a seal safe, so it
holds also against messages that were sent before it and come after. A SEALED
one never changes again. After a restart of the server an open replica is
`recovered`: it stands where its side log ends, but who else of its chain has
how much is no longer known here, so it waits for the master's fence.

Source: GFS §3.1, §4.5. Departs: seal and fence instead of in-place mutation.
"""

from __future__ import annotations

import enum
import typing

from gfs.errors import Fenced, GfsError, StaleVersion
from gfs.messages import ChainMember

if typing.TYPE_CHECKING:
    from chunkd.core.chain import Chain


class ReplicaState(enum.IntEnum):
    """Where a replica is in its life; see the module's picture."""

    OPEN = 0
    FENCED = 1
    SEALED = 2


class Role(enum.IntEnum):
    """Whether this server orders the appends of an open chunk (GFS §3.1)."""

    NONE = 0
    PRIMARY = 1  # joined by a client: first of the chain
    SECONDARY = 2  # joined by the member before it


class Replica:
    """State of one replica. Offsets and ends are in bytes of the chunk.

    Invariant: acknowledged <= end, and end is the end of the last whole append.
    """

    __slots__ = (
        "acknowledged", "bad", "busy", "chain", "chunk_bytes", "end", "failed", "handle",
        "made_by_fence", "members", "mtime_ns", "recovered", "role", "state", "tail",
        "version", "writers",
    )  # fmt: skip

    def __init__(
        self,
        handle: int,
        version: int,
        *,
        tail: bool,
        chunk_bytes: int,
        end: int = 0,
        state: ReplicaState = ReplicaState.OPEN,
    ) -> None:
        self.handle = handle
        self.version = version
        self.tail = tail
        self.chunk_bytes = chunk_bytes
        self.end = end
        self.state = state
        self.acknowledged = end  # known to be at all members; meaningful at the primary
        self.role = Role.NONE
        self.writers: dict[int, int] = {}  # writer -> last sequence that landed here
        self.members: list[ChainMember] = []  # the chain after this member
        self.chain: Chain | None = None
        self.failed: GfsError | None = None  # why it takes no more at this version
        self.recovered = False
        self.made_by_fence = False
        self.bad = False  # a checksum of it did not hold
        self.busy = False  # a copy, condensation or deletion is under way
        self.mtime_ns = 0

    @property
    def readable_end(self) -> int:
        """Up to here a reader may see: a primary knows what all members have."""
        return self.acknowledged if self.role is Role.PRIMARY else self.end

    def refuse_unless_open(self, version: int) -> None:
        """Pass only what was sent for this version while it may still grow.

        Raises:
          StaleVersion: the caller, or this replica, missed a change of version.
          Fenced: no more appends of this version.
        """
        if self.state is not ReplicaState.OPEN and version <= self.version:
            raise Fenced(f"chunk {self.handle:016x}: {self.state.name.lower()} at {self.version}")
        if version != self.version:
            raise StaleVersion(f"chunk {self.handle:016x} is at {self.version}, not {version}")
        if self.recovered:
            raise Fenced(f"chunk {self.handle:016x} waits for the master since a restart")

    def fence(self, version: int) -> None:
        """Take no more appends; everything of an older version is refused from now.

        Raises:
          StaleVersion: it was fenced at a higher version before.
        """
        if version < self.version:
            raise StaleVersion(f"chunk {self.handle:016x} is at {self.version}, not {version}")
        if self.state is ReplicaState.SEALED:
            return
        self.version = version
        self.state = ReplicaState.FENCED
        self.role = Role.NONE
        self.chain = None
        self.members = []

    def seal(self, version: int, length: int) -> None:
        """Final: `length` bytes at `version`."""
        self.version, self.end, self.acknowledged = version, length, length
        self.state = ReplicaState.SEALED
        self.role = Role.NONE
        self.chain = None
        self.members = []
        self.failed = None
        self.recovered = False
        self.writers = {}
