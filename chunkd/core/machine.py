"""All replicas of one chunk server: events in, work out, no I/O.

The shell tells what arrived and what got done; each method returns the work
that follows, to be done in the order of the list. A refusal is raised and
changes nothing. For an append the order is: `append` or `record_append` says
where the bytes land, the shell writes data and side log entry, `landed` then
counts them and says whom to forward to or answer. So a write that fails (full
disk) leaves a replica that is still right.

What is said about a chain that is no more (it was fenced meanwhile) is heard
and dropped: `Chain` objects are compared by identity.

Source: GFS §3.1-3.3.
"""

from __future__ import annotations

from msgspec import Struct

from chunkd.core.appends import Landing, decide_append, decide_records
from chunkd.core.chain import Chain, Waiting
from chunkd.core.replica import Replica, ReplicaState, Role
from gfs.errors import (
    Fenced,
    GfsError,
    MemberFailed,
    NoSpace,
    NoSuchReplica,
    NotPrimary,
    StaleVersion,
)
from gfs.messages import (
    END_NOT_BEGUN,
    END_UNKNOWN,
    Append,
    ChainMember,
    Fence,
    FencedAt,
    Join,
    Joined,
    Message,
    RecordAppend,
    Sync,
    TailGrowth,
)


class Reply(Struct):
    """Answer `asker`."""

    asker: object
    message: Message


class Refuse(Struct):
    """Tell `asker` that it failed."""

    asker: object
    error: GfsError


class Forward(Struct):
    """Send `message` (with the payload of `asker`, if any) to the next member.

    Its answer comes back by `chain_joined`, `acknowledged`, `round_part_done` or,
    whatever the message was, `chain_failed`.
    """

    replica: Replica
    chain: Chain
    member: ChainMember
    message: Message
    asker: object = None


class SyncFiles(Struct):
    """fdatasync data and side log; then `round_part_done` or `sync_failed`."""

    replica: Replica
    chain: Chain


Work = Reply | Refuse | Forward | SyncFiles


class Machine:
    """See the module's text.

    Attributes:
      epoch: highest master epoch obeyed; older requests are refused.
      boot: boot id of this machine: unsynced bytes live as long as it does.
      first_new_handle: chunks with lower ones are older than this process; None: not told yet.
    """

    def __init__(self, *, boot: str, epoch: int = 0) -> None:
        self.boot = boot
        self.epoch = epoch
        self.first_new_handle: int | None = None
        self.replicas: dict[int, Replica] = {}
        self._lost: set[int] = set()  # replicas that were here and are no more
        self._ordered: dict[int, Replica] = {}  # tails that this server is, or was, primary of

    def replica(self, handle: int) -> Replica:
        """Raises `NoSuchReplica`."""
        found = self.replicas.get(handle)
        if found is None:
            raise NoSuchReplica(f"no replica of chunk {handle:016x} here")
        return found

    def lose(self, handle: int) -> None:
        """The replica cannot be served any more, and must not begin anew.

        One that was sealed neither: a primary that was cut off meanwhile may still have it
        joined at the version of before the seal.
        """
        if self.replicas.pop(handle, None) is not None:
            self._lost.add(handle)

    def refuse_to_begin(self, handle: int) -> None:
        """Refuse an empty replica of a chunk that may have had one here before.

        A power loss takes files whose names were not synced, a failing disk all it has. Who
        then began anew at the version of old would hold other bytes than the rest of the
        chain, and with more of them than the rest might be believed in the next seal.

        Raises:
          NoSuchReplica: it is lost, or nobody can tell.
        """
        if not self._may_begin(handle):
            raise NoSuchReplica(f"the replica of chunk {handle:016x} here is lost")

    def _may_begin(self, handle: int) -> bool:
        first_new = self.first_new_handle
        return first_new is not None and handle >= first_new and handle not in self._lost

    def refuse_old_epoch(self, epoch: int) -> None:
        """Raises `StaleVersion`: a newer master has been obeyed."""
        if epoch < self.epoch:
            raise StaleVersion(f"epoch {epoch} is over, the master's is {self.epoch}")

    # --- chains

    def join(self, asker: object, message: Join, *, by_client: bool) -> list[Work]:
        """Take part in the chain of a known replica; answered when all after us have too.

        Raises:
          StaleVersion, Fenced, MemberFailed: it takes no appends of this version.
        """
        self.refuse_old_epoch(message.epoch)
        replica = self.replica(message.handle)
        replica.refuse_unless_open(message.version)
        if replica.failed is not None:
            raise replica.failed
        chain = replica.chain
        if chain is None:
            chain = replica.chain = Chain(is_last=not message.chain, boot=self.boot)
            replica.members = message.chain
            replica.role = Role.PRIMARY if by_client else Role.SECONDARY
            replica.tail = message.tail
            replica.chunk_bytes = message.chunk_bytes
        elif [member.server for member in replica.members] != [
            member.server for member in message.chain
        ]:
            raise StaleVersion(f"chunk {replica.handle:016x} has another chain at this version")
        elif by_client:
            replica.role = Role.PRIMARY
        if message.tail and by_client:
            self._ordered[replica.handle] = replica
        if chain.joined is not None:
            return [Reply(asker, Joined(chain.joined, replica.end))]
        chain.joiners.append(asker)
        if len(chain.joiners) > 1:
            return []
        rest = Join(
            message.handle, message.version, message.epoch,
            message.tail, message.chunk_bytes, message.chain[1:],
        )  # fmt: skip
        return [Forward(replica, chain, message.chain[0], rest)]

    def chain_joined(self, replica: Replica, chain: Chain, boots: list[str]) -> list[Work]:
        """All members after this one take part."""
        if replica.chain is not chain:
            return []
        chain.joined = [self.boot, *boots]
        askers, chain.joiners = chain.joiners, []
        return [Reply(asker, Joined(chain.joined, replica.end)) for asker in askers]

    def chain_failed(self, replica: Replica, chain: Chain, error: GfsError) -> list[Work]:
        """The next member refused or fell silent: nothing more at this version."""
        if replica.chain is not chain:
            return []
        if not isinstance(error, Fenced | StaleVersion | MemberFailed):
            error = MemberFailed(f"server {replica.members[0].server}: {error}")
        return self._fail(replica, error)

    def _fail(self, replica: Replica, error: GfsError) -> list[Work]:
        if replica.failed is None:
            replica.failed = error
        chain = replica.chain
        return [Refuse(asker, error) for asker in chain.abandon()] if chain else []

    # --- appends

    def append(self, asker: object, message: Append, length: int) -> Landing:
        """Where the bytes go; raises as `decide_append`."""
        replica = self.replica(message.handle)
        landing = decide_append(asker, replica, message, length)
        if replica.chain is None:
            raise NotPrimary(f"join chunk {replica.handle:016x} first")
        return landing

    def record_append(
        self, asker: object, message: RecordAppend, length: int
    ) -> Landing | list[Work]:
        """Where the records go, or the work when they landed before; raises as `decide_records`."""
        replica = self.replica(message.handle)
        landing = decide_records(asker, replica, message, length)
        if landing is not None:
            return landing
        chain = _chain_of(replica)
        waiting = Waiting(replica.end, asker, -1, records=True)
        if message.sync:
            return self._await_sync(replica, chain, waiting)
        if replica.acknowledged >= replica.end:
            return [Reply(asker, waiting.answer(replica.acknowledged))]
        chain.pending.append(waiting)
        return []

    def landed(self, landing: Landing, now_ns: int) -> list[Work]:
        """Data and entry are written: count them, forward or answer."""
        replica = landing.replica
        chain = _chain_of(replica)
        replica.end = end = landing.end
        replica.mtime_ns = now_ns
        if landing.sequence:
            replica.writers[landing.writer] = landing.sequence
        waiting = Waiting(end, landing.asker, landing.offset, landing.records)
        work: list[Work] = []
        if chain.is_last:
            replica.acknowledged = end
            if not landing.sync:
                return [Reply(landing.asker, waiting.answer(end))]
        else:
            onward = Append(
                replica.handle, replica.version, landing.offset,
                landing.checksum, landing.writer, landing.sequence,
            )  # fmt: skip
            work.append(Forward(replica, chain, replica.members[0], onward, landing.asker))
            if not landing.sync:
                chain.pending.append(waiting)
        if landing.sync:
            work += self._await_sync(replica, chain, waiting)
        return work

    def write_failed(self, landing: Landing, error: GfsError) -> list[Work]:
        """Nothing was counted, so the replica is right; a sick disk takes no more at all."""
        if isinstance(error, NoSpace):
            return [Refuse(landing.asker, error)]
        landing.replica.bad = True
        return [Refuse(landing.asker, error), *self._fail(landing.replica, error)]

    def acknowledged(self, replica: Replica, chain: Chain, end: int) -> list[Work]:
        """All members after this one have everything below `end`."""
        if replica.chain is not chain:
            return []
        if end > replica.acknowledged:
            replica.acknowledged = end
        work: list[Work] = [
            Reply(waiting.asker, waiting.answer(end)) for waiting in chain.acknowledge(end)
        ]
        if chain.unsynced:
            work += self._answer_synced(replica, chain)
        return work

    # --- syncs

    def sync(self, asker: object, message: Sync) -> list[Work]:
        """Everything appended so far onto every disk of the chain, then answer."""
        replica = self.replica(message.handle)
        replica.refuse_unless_open(message.version)
        if replica.failed is not None:
            raise replica.failed
        return self._await_sync(replica, _chain_of(replica), Waiting(replica.end, asker))

    def _await_sync(self, replica: Replica, chain: Chain, waiting: Waiting) -> list[Work]:
        chain.unsynced.append(waiting)
        if chain.synced >= waiting.end:
            return self._answer_synced(replica, chain)
        return self._begin_round(replica, chain)

    def _begin_round(self, replica: Replica, chain: Chain) -> list[Work]:
        if not chain.begin_round(replica.end):
            return []
        work: list[Work] = [SyncFiles(replica, chain)]
        if not chain.is_last:
            message = Sync(replica.handle, replica.version)
            work.insert(0, Forward(replica, chain, replica.members[0], message))
        return work

    def _answer_synced(self, replica: Replica, chain: Chain) -> list[Work]:
        return [
            Reply(waiting.asker, waiting.answer(replica.acknowledged))
            for waiting in chain.take_synced(replica.acknowledged)
        ]

    def round_part_done(self, replica: Replica, chain: Chain, *, local: bool) -> list[Work]:
        """This disk (`local`) or all members after us have synced."""
        if replica.chain is not chain or not chain.end_part(local=local):
            return []
        work = self._answer_synced(replica, chain)
        if any(waiting.end > chain.synced for waiting in chain.unsynced):
            work += self._begin_round(replica, chain)
        return work

    def sync_failed(self, replica: Replica, chain: Chain, error: GfsError) -> list[Work]:
        """What the page cache still holds proves nothing now: the replica is no longer intact."""
        replica.bad = True
        return self._fail(replica, error) if replica.chain is chain else []

    # --- the end of a replica

    def distrust(self, replica: Replica, error: GfsError) -> list[Work]:
        """A checksum of an open replica did not hold: no more appends, no longer intact."""
        replica.bad = True
        return self._fail(replica, error)

    def give_up(self, replica: Replica, error: GfsError) -> list[Work]:
        """Its disk does not work now: no more appends at this version. What it has is right."""
        return self._fail(replica, error)

    def drop(self, handle: int) -> list[Work]:
        """The replica is deleted; who waits for it is told."""
        replica = self.replicas.get(handle)
        self.lose(handle)
        if replica is None or replica.chain is None:
            return []
        error = NoSuchReplica(f"chunk {handle:016x} was deleted")
        return [Refuse(asker, error) for asker in replica.chain.abandon()]

    # --- the master's orders

    def fence(self, message: Fence) -> tuple[FencedAt, list[Work]]:
        """Stop at a higher version; to be persisted before the answer leaves.

        An empty boot in the answer: this replica's unsynced bytes are not to be trusted.

        Raises:
          StaleVersion: of an older epoch, or fenced higher before.
        """
        self.refuse_old_epoch(message.epoch)
        replica = self.replica(message.handle)
        chain = replica.chain
        replica.fence(message.version)
        error = Fenced(f"chunk {replica.handle:016x} was fenced at {message.version}")
        work: list[Work] = [Refuse(asker, error) for asker in chain.abandon()] if chain else []
        boot = "" if replica.bad else self.boot
        writers = dict(replica.writers)
        return FencedAt(replica.end, boot, writers, replica.made_by_fence, replica.mtime_ns), work

    def tail_end(self, handle: int) -> tuple[int, int]:
        """Length acknowledged by all and time of the last append, or (why not known, 0)."""
        replica = self.replicas.get(handle)
        if replica is None and self._may_begin(handle):
            return END_NOT_BEGUN, 0
        if replica is None or not _orders(replica):
            return END_UNKNOWN, 0
        return replica.acknowledged, replica.mtime_ns

    def growth(self, handles: list[int]) -> list[TailGrowth]:
        """Ends of the tails among `handles` (empty = all) that this server orders."""
        for handle, replica in list(self._ordered.items()):
            if not _orders(replica):
                del self._ordered[handle]
        wanted = handles or self._ordered
        return [
            TailGrowth(replica.handle, replica.version, replica.acknowledged, replica.mtime_ns)
            for handle in wanted
            if handle in self._ordered
            for replica in (self._ordered[handle],)
        ]


def _orders(replica: Replica) -> bool:
    open_tail = replica.tail and replica.state is ReplicaState.OPEN
    return open_tail and replica.role is Role.PRIMARY


def _chain_of(replica: Replica) -> Chain:
    if replica.chain is None:
        raise NotPrimary(f"join chunk {replica.handle:016x} first")
    return replica.chain
