"""A cluster around the master's core, without sockets, files or clocks: a step at a time.

`Cluster` plays log, state and network: it runs steps, keeps every record as the log
would (encoded), hands answers and orders out after the commit and feeds answers in
again. `Client` is a scripted session, `ChunkServer` the part of a chunk server that
the master can see. Everything happens in the order it was queued; time stands still
unless a test moves it.

    c = Cluster(servers=3)
    a, b = c.client("/a"), c.client("/b")
    f = a.create(b"log")
    call = b.start(SetAttributes(f, size=0))      # not answered yet
    assert c.server(1).fence_silent ...

`check` compares the tables with a replay of the records and with themselves.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, TypeVar

from gfs import messages as m
from gfs.errors import GfsError, NoSuchReplica, Unreachable
from gfs.items import CHUNKS, INODES, TABLES, Chunk, Extent, Inode
from gfs.messages import Actor, Done, Message
from gfs.operations import OPERATIONS
from gfs.records import DECODER, ENCODER, TABLE_OF, Record
from master.checking import Problem, check_tables
from master.core import start
from master.core.decision import Policy
from master.core.engine import Answer, Ready, Send
from master.core.master import Master
from master.core.transaction import apply
from master.segments import PAYLOAD_BYTES_MAX
from master.state import MemoryTables
from tests.unit.master.core.folding import check_fold

ROOT = Actor(0, 0, groups=())
USER = Actor(1000, 1000, groups=(1000,))
OTHER = Actor(2000, 2000, groups=(2000,))
MIB = 1 << 20
NS = 1_000_000_000
CHUNK = 64 * MIB
WALL_NS = 1_700_000_000 * NS  # the clock on the wall when the monotonic one shows 0

POLICY = Policy(
    chunk_bytes=CHUNK,
    goal=3,
    write_min=2,
    trash_min_age_ns=600 * NS,
    reclaim_delay_ns=600 * NS,
    trash_keep_ns=259_200 * NS,
)

_M = TypeVar("_M", bound=Message)


@dataclass
class Call:
    """A request under way; `answer` is there once it was answered."""

    client: Client
    number: int
    message: Message
    answers: list[Answer] = field(default_factory=list)

    @property
    def is_answered(self) -> bool:
        return bool(self.answers)

    @property
    def answer(self) -> Message:
        assert len(self.answers) == 1, f"{len(self.answers)} answers"
        found = self.answers[0]
        if isinstance(found, GfsError):
            raise found
        return found

    @property
    def done(self) -> Done:
        answer = self.answer
        assert isinstance(answer, Done)
        return answer


@dataclass
class Replica:
    """What a chunk server has of a chunk; `acknowledged` by all, if it is the primary's."""

    version: int
    end: int = 0
    sealed: bool = False
    primary: bool = False
    acknowledged: int = 0
    recovered: bool = False
    checksum: int = 0  # of a sealed one; 0: not known
    writers: dict[int, int] = field(default_factory=dict)


class ChunkServer:
    """`hung`: connected, but answers nothing; down: not connected."""

    def __init__(self, cluster: Cluster, server: int, rack: str, boot: str) -> None:
        self.cluster = cluster
        self.server = server
        self.rack = rack
        self.boot = boot
        self.free_bytes = 1 << 40
        self.up = False
        self.hung = False
        self.replicas: dict[int, Replica] = {}
        self.deleted: list[int] = []
        self.quarantine: set[int] = set()
        self.first_new_handle = 0
        self.orders: list[Message] = []
        self.waiting: list[Send] = []  # came while it was hung

    @property
    def member(self) -> m.ChainMember:
        return m.ChainMember(self.server, f"10.0.0.{self.server}:1", rack=self.rack)

    def register(self) -> None:
        """Connect and send the block report."""
        self.up = True
        core, caller = self.cluster.core, (-self.server, 1)
        ask = m.RegisterServer(
            self.member, self.boot, "", 1 << 41, self.free_bytes, 0, 0,
            first_new_handle=self.first_new_handle,
        )  # fmt: skip
        reports = [
            m.ReplicaReport(
                handle,
                replica.version,
                replica.sealed,
                replica.end,
                replica.checksum,
                replica.recovered,
            )
            for handle, replica in sorted(self.replicas.items())
        ]

        def work() -> None:
            core.fleet.register(caller, ask)
            self.first_new_handle = core.engine.servers.live[self.server].first_new_handle
            core.machine.resume_waiting()
            core.fleet.report(self.server, caller, m.ReportReplicas(reports, True))

        self.cluster.queue(work)
        self.cluster.settle()

    def stop(self) -> None:
        """The connection ends."""
        self.up = False
        self.cluster.queue(partial(self.cluster.core.fleet.lost, self.server))
        self.cluster.settle()

    def restart(self) -> None:
        """The process ends and begins anew: what it knew of chains is gone."""
        self.stop()
        self.first_new_handle = 0
        for replica in self.replicas.values():
            replica.primary, replica.recovered = False, not replica.sealed

    def lose_power(self, *, keep: int | None = None) -> None:
        """Down, and up with another boot id; open replicas keep `keep` bytes at most."""
        self.restart()
        self.boot += "'"
        for replica in self.replicas.values():
            if not replica.sealed and keep is not None:
                replica.end = min(replica.end, keep)

    def answer_all(self) -> None:
        """It hangs no more: what it was asked meanwhile is done."""
        self.hung = False
        waiting, self.waiting = self.waiting, []
        for send in waiting:
            self.cluster.deliver_send(send)
        self.cluster.settle()

    def obey(self, order: Message) -> Answer | None:
        """The answer, or None: none yet."""
        self.orders.append(order)
        if self.hung:
            return None
        return self.act(order)

    def act(self, order: Message) -> Answer:
        if isinstance(order, m.Fence):
            replica = self.replicas.setdefault(order.handle, Replica(0))
            assert order.version >= replica.version
            replica.version = order.version
            replica.primary = False
            return m.FencedAt(replica.end, self.boot, dict(replica.writers))
        if isinstance(order, m.CopyReplica):
            source = self.cluster.servers[order.source.server]
            if not source.up or source.replicas[order.handle].end < order.length:
                return NoSuchReplica("the source does not have it")
            self.replicas[order.handle] = Replica(order.version, order.length, sealed=True)
            return m.Condensed(order.handle & 0xFFFFFFFF)
        if isinstance(order, m.BuildReplica):
            return self.build(order)
        if isinstance(order, m.Condense):
            found = self.replicas.get(order.handle)
            if found is None or found.version != order.version or found.end < order.length:
                return NoSuchReplica("unknown or too short")
            found.end, found.sealed = order.length, True
            return m.Condensed(order.handle & 0xFFFFFFFF)
        if isinstance(order, m.DeleteReplicas):
            self.deleted += order.handles
            for handle in order.handles:
                self.replicas.pop(handle, None)
            return m.Ok()
        if isinstance(order, m.ListQuarantine):
            return m.Quarantined(sorted(self.quarantine))
        if isinstance(order, m.EmptyQuarantine):
            self.quarantine -= set(order.handles)
            return m.Ok()
        assert isinstance(order, m.ReportGrowth)
        return m.Growth(
            [
                m.TailGrowth(handle, replica.version, replica.acknowledged, 0)
                for handle, replica in self.replicas.items()
                if replica.primary
            ]
        )

    def build(self, order: m.BuildReplica) -> Answer:
        """A chunk out of ranges of others."""
        for piece in order.pieces:
            source = self.cluster.servers[piece.source.server]
            had = source.replicas.get(piece.handle)
            if not source.up or had is None or had.end < piece.offset + piece.length:
                return NoSuchReplica("a source does not have it")
        length = sum(piece.length for piece in order.pieces)
        self.replicas[order.handle] = Replica(order.version, length, sealed=True)
        return m.Condensed(order.handle & 0xFFFFFFFF)


class Client:
    """One session. With `automatic` it acknowledges whatever the master asks at once."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        mount: str,
        actor: Actor,
        granted: m.Access | None = None,
        wish: m.Access | None = None,
    ) -> None:
        self.cluster = cluster
        self.name = name
        self.mount = mount
        self.actor = actor
        self.granted, self.wish, self.root = granted, wish, 0
        self.automatic = True
        self.connected = True
        self.asked: list[Send] = []  # of the master, not answered
        self.heard: list[Message] = []  # all it has asked or told
        self.on_recall: Callable[[m.Recall], None] | None = None
        self.number = 0
        self.unanswered: set[int] = set()
        self.session = 0
        self.opened = self.open()

    def open(self, **declared: list[int]) -> m.SessionOpened:
        """Begin, or take up again on a new connection."""
        cluster = self.cluster
        self.connected = True
        call = Call(self, 0, m.Ok())
        caller = cluster.caller(call)
        ask = m.OpenSession(
            self.session, "host", self.mount, 1, self.actor.uid,
            **declared, wish=self.wish, root=self.root,
        )  # fmt: skip
        again: list[Send] = []

        def work() -> None:
            session, sends = cluster.core.joining.open(caller, ask, "c", self.granted)
            if session:
                self.session = session
                cluster.sessions[session] = self
                again.extend(sends)

        self.asked.clear()
        cluster.queue(work)
        cluster.settle()
        for send in again:
            cluster.deliver_send(send)
        cluster.settle()
        answer = call.answer
        assert isinstance(answer, m.SessionOpened)
        self.root = answer.root
        return answer

    def close(self) -> None:
        call = Call(self, 0, m.Ok())
        caller = self.cluster.caller(call)
        work = partial(self.cluster.core.joining.close, self.session, caller, m.CloseSession())
        self.cluster.queue(work)
        self.cluster.settle()

    # --- requests

    def low(self) -> int:
        return min(self.unanswered, default=self.number + 1)

    def start(
        self, operation: Message, actor: Actor | None = None, *, number: int = 0, low: int = 0
    ) -> Call:
        """Send a mutation and let everything run that can; the answer may be missing."""
        call = self.send(operation, actor, number=number, low=low)
        self.cluster.settle()
        return call

    def send(
        self, operation: Any, actor: Actor | None = None, *, number: int = 0, low: int = 0
    ) -> Call:
        """Queue a mutation for the next step."""
        if not number:
            number = self.number + 1
        self.number = max(self.number, number)
        self.unanswered.add(number)
        call = Call(self, number, operation)
        mutate = m.Mutate(number, low or self.low(), actor or self.actor, operation)
        core, caller = self.cluster.core, self.cluster.caller(call)
        self.cluster.queue(lambda: core.machine.mutate(self.session, caller, mutate))
        return call

    def do(self, operation: Message, actor: Actor | None = None) -> Done:
        """A mutation that is answered at once; raises its refusal."""
        return self.start(operation, actor).done

    def ask(self, message: Message) -> Call:
        """A read, as the server treats it: at once, or in a step."""
        call = Call(self, 0, message)
        try:
            answer = self.cluster.core.machine.try_read(self.session, message)
        except GfsError as error:
            call.answers.append(error)
            return call
        if answer is not None:
            call.answers.append(answer)
            return call
        core, caller = self.cluster.core, self.cluster.caller(call)
        self.cluster.queue(lambda: core.machine.read(self.session, caller, message))
        self.cluster.settle()
        return call

    def get(self, message: Message, kind: type[_M]) -> _M:
        """A read that is answered now with `kind`; raises its refusal."""
        answer = self.ask(message).answer
        assert isinstance(answer, kind), answer
        return answer

    # --- what the master asks of the session

    def receive(self, send: Send) -> None:
        self.heard.append(send.message)
        self.asked.append(send)
        if self.automatic:
            self.acknowledge()

    def acknowledge(self) -> None:
        """Answer everything the master has asked."""
        asked, self.asked = self.asked, []
        for send in asked:
            if isinstance(send.message, m.Recall) and self.on_recall is not None:
                self.on_recall(send.message)
            replies = self.cluster.core.engine.acknowledged(send.token)
            if replies is None:
                self.cluster.queue(partial(self.cluster.core.engine.answered, send.token, m.Ok()))
            else:
                self.cluster.deliver(Ready(replies))

    def told(self) -> list[m.Invalidate]:
        """Invalidations heard since the last call."""
        found = [message for message in self.heard if isinstance(message, m.Invalidate)]
        self.heard = [message for message in self.heard if not isinstance(message, m.Invalidate)]
        return found

    # --- shorthand

    def create(
        self, name: bytes, parent: int = 1, *, mode: int = 0o644, flags: int = os.O_RDWR
    ) -> int:
        done = self.do(m.Create(parent, name, mode, flags))
        assert done.entry is not None
        return done.entry.ino

    def mkdir(self, name: bytes, parent: int = 1, *, mode: int = 0o755) -> int:
        done = self.do(m.MakeNode(parent, name, stat.S_IFDIR | mode))
        assert done.entry is not None
        return done.entry.ino

    def lookup(self, name: bytes, parent: int = 1, actor: Actor | None = None) -> m.Entry:
        return self.get(m.Lookup(parent, name, actor or self.actor), m.Entry)

    def inode(self, ino: int) -> Inode:
        """As GetAttributes gives it."""
        entries = self.get(m.GetAttributes([ino], self.actor), m.Entries).entries
        assert entries[0].inode is not None
        return entries[0].inode

    def names(self, ino: int = 1) -> list[bytes]:
        listing = self.get(m.ReadDirectory(ino, b"", 10_000, False, self.actor), m.Listing)
        return [item.name for item in listing.entries]

    def open_file(self, ino: int, flags: int = os.O_RDWR) -> m.Opened:
        return self.get(m.Open(ino, flags, self.actor), m.Opened)

    def close_file(self, ino: int, *, written: bool = True) -> None:
        self.get(m.CloseFiles([ino], [ino] if written else []), m.Ok)

    def allocate(self) -> m.Lease:
        lease = self.do(m.Allocate()).lease
        assert lease is not None
        return lease

    def commit(self, ino: int, *ranges: tuple[int, ...], seen: int = -1) -> m.Committed:
        """Ranges are (file offset, length, handle, chunk offset), perhaps with a digest."""
        done = self.do(m.Commit([file_commit(ino, *ranges, seen=seen)]))
        return done.committed[0]

    def write(self, name: bytes, length: int = 100, *, sealed: bool = True) -> tuple[int, m.Lease]:
        """A new file, open, of one chunk of its own."""
        ino, lease = self.create(name), self.allocate()
        self.cluster.append(lease, length)
        self.commit(ino, (0, length, lease.handle, 0))
        if sealed:
            self.do(m.SealChunk(lease.handle, lease.version))
        return ino, lease

    def open_tail(self, ino: int, writer: int = 7) -> m.Tail:
        tail = self.do(m.OpenTail(ino, writer)).tail
        assert tail is not None
        return tail

    def close_after(self, ino: int) -> None:
        """No writer any more, but still open."""
        self.get(m.CloseFiles([], [ino]), m.Ok)


def file_commit(
    ino: int, *ranges: tuple[int, ...], seen: int = -1, mtime_ns: int = 0
) -> m.FileCommit:
    """Ranges are (file offset, length, handle, chunk offset), perhaps with a digest behind."""
    laid_out = [m.LaidOut(offset, Extent(*extent)) for offset, *extent in ranges]
    return m.FileCommit(ino, laid_out, mtime_ns, seen)


class Cluster:
    """See the module's text."""

    def __init__(
        self,
        *,
        servers: int = 3,
        seed: int = 1,
        policy: Policy = POLICY,
        lease_s: float = 20.0,
        safe_start_s: float = 60.0,
        racks: tuple[str, ...] = (),
    ) -> None:
        self.tables = MemoryTables()
        self.log: list[bytes] = []
        self.policy = policy
        self.lease_s = lease_s
        self.safe_start_s = safe_start_s
        self.now_s = 1000.0
        self.random = Random(seed)
        self.sessions: dict[int, Client] = {}
        self.clients: list[Client] = []
        self._works: list[Callable[[], None]] = []
        self._calls: dict[int, Call] = {}
        self.steps = 0
        self.core = self._start()
        self.servers = {
            number: ChunkServer(self, number, racks[number - 1] if racks else "", f"boot{number}")
            for number in range(1, servers + 1)
        }
        for server in self.servers.values():
            server.register()

    # --- time, log, steps

    def now_ns(self) -> int:
        return WALL_NS + int(self.now_s * NS)

    def _start(self) -> Master:
        tables, position = self.tables, len(self.log) + 1
        last_time_ns = DECODER.decode(self.log[-1]).time_ns if self.log else 0
        epoch = start.next_epoch(tables)
        now_ns = max(self.now_ns(), last_time_ns + 1)
        record = start.first_record(tables, position=position, now_ns=now_ns, uid=0, gid=0)
        tables.begin()
        apply(record, tables)
        tables.commit()
        self.log.append(ENCODER.encode(record))
        return Master(
            tables,
            tables.reader(),
            policy=self.policy,
            epoch=epoch,
            position=position,
            last_time_ns=now_ns,
            random=self.random,
            lease_s=self.lease_s,
            safe_start_s=self.safe_start_s,
            now_s=self.now_s,
            record_at=lambda at: DECODER.decode(self.log[at - 1]),
        )

    def queue(self, work: Callable[[], None]) -> None:
        self._works.append(work)

    def caller(self, call: Call) -> tuple[int, int]:
        number = len(self._calls) + 1
        self._calls[number] = call
        return (1, number)

    def step(self, *works: Callable[[], None]) -> Ready:
        """One group: decide, log, commit; what may leave is not delivered yet."""
        self.steps += 1
        self.tables.begin()
        self.core.begin(self.now_s, self.now_ns())
        for work in works:
            work()
        records = self.core.take_records()
        if records:
            for record in records:
                assert record.position == len(self.log) + 1
                self.log.append(ENCODER.encode(record))
                assert len(self.log[-1]) <= PAYLOAD_BYTES_MAX, record.operation
            self.tables.commit()
        else:
            self.tables.rollback()
        return self.core.committed()

    def step_queued(self) -> Ready:
        """One step of everything queued so far."""
        works, self._works = self._works, []
        return self.step(*works)

    def settle(self) -> None:
        """Steps until nothing is queued any more; time stands still."""
        for _ in range(10_000):
            if not self._works:
                return
            self.deliver(self.step_queued())
        raise AssertionError("the cluster does not come to rest")

    def deliver(self, ready: Ready) -> None:
        for session in ready.ended:
            client = self.sessions.pop(session, None)
            if client is not None:
                client.connected = False
        for send in ready.sends:
            self.deliver_send(send)
        for caller, answer in ready.replies:
            if caller[0] == 1:
                call = self._calls[caller[1]]
                call.answers.append(answer)
                call.client.unanswered.discard(call.number)

    def deliver_send(self, send: Send) -> None:
        engine = self.core.engine
        if send.to_session:
            client = self.sessions.get(send.to_session)
            if client is not None and client.connected:
                client.receive(send)
            return
        server = self.servers[send.to_server]
        answer: Answer | None = Unreachable("down")
        if server.up:
            answer = server.obey(send.message)
            if server.hung:
                server.waiting.append(send)
        if answer is not None:
            self.queue(partial(engine.answered, send.token, answer))

    def pass_time(self, seconds: float, *, renewing: bool = True) -> None:
        """Let time pass with ticks; connected sessions renew their leases."""
        until = self.now_s + seconds
        while self.now_s < until:
            idle = not self.core.has_due_work(self.now_s + 0.05)
            self.now_s = min(until, self.now_s + (0.25 if idle else 0.05))
            self.core.notice(self.now_s)
            if renewing:
                for session, client in list(self.sessions.items()):
                    if client.connected:
                        self.core.engine.sessions.renew(session, self.now_s)
            if self.core.has_due_work(self.now_s):
                self.queue(self.core.tick)
                self.settle()

    def restart(self, *, resume: bool = True) -> None:
        """kill -9 of the master and a new one; what was on its way is lost."""
        self._works.clear()
        if self.tables._connection.in_transaction:
            self.tables.rollback()
        for client in self.sessions.values():
            client.connected = False
            client.asked.clear()
        self.core = self._start()
        for server in self.servers.values():
            if server.up:
                server.register()
        if resume:
            for client in list(self.sessions.values()):
                client.open()

    # --- who is there

    def client(
        self,
        mount: str = "/m",
        actor: Actor = ROOT,
        *,
        granted: m.Access | None = None,
        wish: m.Access | None = None,
    ) -> Client:
        client = Client(self, mount, mount, actor, granted, wish)
        self.clients.append(client)
        return client

    def server(self, number: int) -> ChunkServer:
        return self.servers[number]

    def append(
        self, lease: m.Lease, length: int, *, writer: int = 0, sequence: int = 0, upto: int = 99
    ) -> int:
        """Bytes along the chain, to the first `upto` members; returns the end."""
        end = 0
        for member in lease.members[:upto]:
            server = self.servers[member.server]
            replica = server.replicas.setdefault(lease.handle, Replica(lease.version))
            assert replica.version == lease.version, "fenced"
            replica.end += length
            if writer:
                assert replica.writers.get(writer, 0) == sequence - 1
                replica.writers[writer] = sequence
            end = replica.end
        primary = self.servers[lease.members[0].server].replicas[lease.handle]
        primary.primary = bool(writer)
        if upto >= len(lease.members):
            primary.acknowledged = end
        return end

    # --- looking

    def chunk(self, handle: int) -> Chunk:
        found: Chunk | None = self.tables.get(CHUNKS, (handle,))
        assert found is not None
        return found

    def item(self, ino: int) -> Inode | None:
        found: Inode | None = self.tables.get(INODES, (ino,))
        return found

    def records(self) -> list[Record]:
        return [DECODER.decode(payload) for payload in self.log]

    def operations(self) -> list[str]:
        return [record.operation for record in self.records()]

    def check(self) -> None:
        """Replay gives the same tables, so do the stream's events; they agree with each other."""
        replayed = MemoryTables()
        last = None
        for record in self.records():
            if last is not None:
                assert record.position == last.position + 1
                assert record.time_ns > last.time_ns
                assert record.epoch >= last.epoch
            touched = {TABLE_OF[type(change)] for change in record.changes}
            assert touched <= OPERATIONS[record.operation], record.operation
            apply(record, replayed)
            last = record
        for table in TABLES:
            assert everything(replayed, table) == everything(self.tables, table), table
        check_fold(self.records(), self.tables)
        problems: list[Problem] = []
        check_tables(self.tables, problems.append)
        assert problems == []
        replayed.close()


def everything(tables: MemoryTables, table: str) -> list[Any]:
    return tables.scan(table, limit=10_000_000)
