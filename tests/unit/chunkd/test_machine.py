"""The pure core: a chain of machines that talk through a list, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from chunkd.core.appends import Landing
from chunkd.core.machine import Forward, Machine, Refuse, Reply, SyncFiles, Work
from chunkd.core.replica import Replica, ReplicaState
from gfs.errors import (
    ChunkFull,
    Fenced,
    GfsError,
    InvalidArgument,
    MemberFailed,
    NoSpace,
    NoSuchReplica,
    NotPrimary,
    SequenceGap,
    StaleVersion,
    StorageFailed,
)
from gfs.ids import WRITERS_MAX
from gfs.messages import (
    END_NOT_BEGUN,
    END_UNKNOWN,
    Append,
    Appended,
    ChainMember,
    Fence,
    Join,
    Joined,
    Message,
    RecordAppend,
    RecordsAppended,
    Sync,
)

H = 77
CHUNK = 1000


@dataclass(eq=False)
class Sent:
    """A message to the next member: on its way, or waiting for its answer."""

    forward: Forward
    delivered: bool = False


@dataclass
class Node:
    """A machine, with what it has been told to do and has not yet done."""

    machine: Machine
    outbox: list[Sent] = field(default_factory=list)
    syncs: list[SyncFiles] = field(default_factory=list)
    answers: dict[object, Message | GfsError] = field(default_factory=dict)

    def perform(self, work: list[Work]) -> None:
        for item in work:
            if isinstance(item, Forward):
                self.outbox.append(Sent(item))
            elif isinstance(item, SyncFiles):
                self.syncs.append(item)
            elif isinstance(item, Reply):
                assert item.asker not in self.answers, "answered twice"
                self.answers[item.asker] = item.message
            else:
                assert isinstance(item, Refuse)
                assert item.asker not in self.answers, "answered twice"
                self.answers[item.asker] = item.error

    def records(self, asker: object, first: int, length: int = 10, **more: object) -> None:
        values: dict[str, object] = {"version": 1, "writer": 9, "count": 1, "sync": False}
        values |= more
        message = RecordAppend(handle=H, first=first, checksum=0, **values)  # type: ignore[arg-type]
        found = self.machine.record_append(asker, message, length)
        if isinstance(found, Landing):
            found_work = self.machine.landed(found, 1)
        else:
            found_work = found
        self.perform(found_work)


class ChainOf:
    """Machines in a row; each message moves when the test says so."""

    def __init__(self, count: int, *, tail: bool = True, chunk_bytes: int = CHUNK) -> None:
        self.nodes = [Node(Machine(boot=f"boot{number}")) for number in range(count)]
        self.members = [ChainMember(number, f"h:{number}") for number in range(count)]
        self.tail = tail
        for node in self.nodes:
            node.machine.replicas[H] = Replica(H, 1, tail=tail, chunk_bytes=chunk_bytes)
        join = Join(H, 1, 0, tail, chunk_bytes, self.members[1:])
        self.nodes[0].perform(self.nodes[0].machine.join("join", join, by_client=True))
        self.settle()

    @property
    def first(self) -> Node:
        return self.nodes[0]

    def step(self) -> bool:
        """Deliver one message, or one answer, or finish one sync."""
        for number, node in enumerate(self.nodes):
            if node.syncs:
                sync = node.syncs.pop(0)
                node.perform(node.machine.round_part_done(sync.replica, sync.chain, local=True))
                return True
            for sent in node.outbox:
                answers = self.nodes[number + 1].answers
                if sent in answers:
                    node.outbox.remove(sent)
                    self._answer(node, sent.forward, answers[sent])
                    return True
                if not sent.delivered:
                    sent.delivered = True
                    self._deliver(self.nodes[number + 1], sent, sent.forward.message)
                    return True
        return False

    def settle(self) -> None:
        while self.step():
            pass

    def _deliver(self, node: Node, asker: object, message: Message) -> None:
        try:
            if isinstance(message, Join):
                node.perform(node.machine.join(asker, message, by_client=False))
            elif isinstance(message, Append):
                landing = node.machine.append(asker, message, 10)
                node.perform(node.machine.landed(landing, 1))
            else:
                assert isinstance(message, Sync)
                node.perform(node.machine.sync(asker, message))
        except GfsError as error:
            node.answers[asker] = error

    def _answer(self, node: Node, forward: Forward, answer: Message | GfsError) -> None:
        machine, replica, chain = node.machine, forward.replica, forward.chain
        if isinstance(answer, GfsError):
            node.perform(machine.chain_failed(replica, chain, answer))
        elif isinstance(answer, Joined):
            node.perform(machine.chain_joined(replica, chain, answer.boots))
        elif isinstance(forward.message, Sync):
            node.perform(machine.round_part_done(replica, chain, local=False))
        else:
            assert isinstance(answer, Appended)
            node.perform(machine.acknowledged(replica, chain, answer.end))


def test_join_is_answered_when_all_have_joined_with_their_boots_in_order() -> None:
    chain = ChainOf(3)
    assert chain.first.answers["join"] == Joined(["boot0", "boot1", "boot2"], 0)


def test_nothing_is_acknowledged_before_the_last_member_has_it() -> None:
    chain = ChainOf(3)
    chain.first.records("a", 1)
    assert "a" not in chain.first.answers
    assert chain.first.machine.tail_end(H) == (0, 1)
    chain.step()  # the second has it
    assert "a" not in chain.first.answers
    chain.settle()
    assert chain.first.answers["a"] == RecordsAppended(0, 10)
    assert chain.first.machine.tail_end(H) == (10, 1)
    assert chain.nodes[1].machine.tail_end(H) == (-1, 0)


def test_repeated_record_in_flight_is_answered_only_once_the_first_has_landed_everywhere() -> None:
    chain = ChainOf(2)
    chain.first.records("a", 1)
    chain.first.records("again", 1)
    assert chain.first.answers.keys() == {"join"}
    chain.settle()
    assert chain.first.answers["a"] == RecordsAppended(0, 10)
    assert chain.first.answers["again"] == RecordsAppended(-1, 10)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"first": 3}, SequenceGap),
        ({"first": 1, "count": 2}, SequenceGap),
        ({"first": 2, "length": CHUNK}, ChunkFull),
        ({"first": 2, "version": 2}, StaleVersion),
        ({"first": 0}, InvalidArgument),
        ({"first": 2, "count": 0}, InvalidArgument),
    ],
)
def test_refused_records_change_nothing(change: dict[str, int], error: type[GfsError]) -> None:
    chain = ChainOf(1)
    chain.first.records("a", 1)
    with pytest.raises(error):
        chain.first.records("b", **change)
    replica = chain.first.machine.replicas[H]
    assert (replica.end, replica.writers) == (10, {9: 1})


def test_secondary_and_private_chunk_take_no_records() -> None:
    chain = ChainOf(2)
    with pytest.raises(NotPrimary):
        chain.nodes[1].records("a", 1)
    with pytest.raises(NotPrimary):
        ChainOf(1, tail=False).first.records("a", 1)


def test_too_many_writers_fill_the_chunk() -> None:
    chain = ChainOf(1)
    chain.first.machine.replicas[H].writers = dict.fromkeys(range(100, 100 + WRITERS_MAX), 1)
    with pytest.raises(ChunkFull):
        chain.first.records("a", 1)
    chain.first.records("b", 2, writer=100)


def test_failed_member_refuses_all_that_waits_and_all_that_comes() -> None:
    chain = ChainOf(2)
    chain.first.records("a", 1)
    chain.first.records("b", 2, sync=True)
    forward = chain.first.outbox[0].forward
    machine = chain.first.machine
    chain.first.perform(machine.chain_failed(forward.replica, forward.chain, StorageFailed("disk")))
    for asker in ("a", "b"):
        assert isinstance(chain.first.answers[asker], MemberFailed)
        assert "server 1" in str(chain.first.answers[asker])
    with pytest.raises(MemberFailed):
        chain.first.records("c", 3)
    with pytest.raises(MemberFailed):
        machine.join("again", Join(H, 1, 0, True, CHUNK, chain.members[1:]), by_client=True)
    assert machine.acknowledged(forward.replica, forward.chain, 10) == []


def test_fence_of_one_member_stops_acknowledgements_of_that_version() -> None:
    chain = ChainOf(3)
    chain.first.records("a", 1)
    chain.settle()
    answer, work = chain.nodes[2].machine.fence(Fence(H, 2, 0))
    chain.nodes[2].perform(work)
    assert (answer.end, answer.boot, answer.writers) == (10, "boot2", {9: 1})
    chain.first.records("b", 2)
    chain.settle()
    assert isinstance(chain.first.answers["b"], Fenced)
    assert chain.first.machine.replicas[H].end == 20  # unacknowledged, and harmless


def test_fence_refuses_what_waits_and_late_acknowledgements_are_dropped() -> None:
    chain = ChainOf(2)
    chain.first.records("a", 1)
    forward = chain.first.outbox[0].forward
    _, work = chain.first.machine.fence(Fence(H, 2, 0))
    chain.first.perform(work)
    assert isinstance(chain.first.answers["a"], Fenced)
    assert chain.first.machine.acknowledged(forward.replica, forward.chain, 10) == []
    with pytest.raises(Fenced):
        chain.first.records("b", 2)
    with pytest.raises(StaleVersion):
        chain.first.machine.fence(Fence(H, 1, 0))


def test_recovered_replica_waits_for_the_master() -> None:
    chain = ChainOf(1)
    replica = chain.first.machine.replicas[H]
    replica.recovered = True
    with pytest.raises(Fenced):
        chain.first.records("a", 1)
    answer, _ = chain.first.machine.fence(Fence(H, 2, 0))
    assert answer.end == 0
    assert replica.state is ReplicaState.FENCED


def test_synced_records_share_rounds_and_wait_for_every_disk() -> None:
    chain = ChainOf(2)
    for number in range(1, 6):
        chain.first.records(number, number, sync=True)
    assert len(chain.first.syncs) == 1  # the first's round; the others wait for the next
    rounds = 0
    while True:
        rounds += len(chain.first.syncs)
        if chain.first.syncs:
            sync = chain.first.syncs.pop()
            done = chain.first.machine.round_part_done(sync.replica, sync.chain, local=True)
            chain.first.perform(done)
        elif not chain.step():
            break
    assert rounds == 2
    for number in range(1, 6):
        answer = chain.first.answers[number]
        assert isinstance(answer, RecordsAppended)
        assert answer.offset == (number - 1) * 10


def test_local_sync_alone_answers_nothing() -> None:
    chain = ChainOf(2)
    chain.first.records("a", 1, sync=True)
    sync = chain.first.syncs.pop()
    chain.first.perform(chain.first.machine.round_part_done(sync.replica, sync.chain, local=True))
    assert "a" not in chain.first.answers
    chain.settle()
    assert chain.first.answers["a"] == RecordsAppended(0, 10)


def test_failed_sync_makes_the_replica_no_longer_intact() -> None:
    chain = ChainOf(1)
    chain.first.records("a", 1, sync=True)
    sync = chain.first.syncs.pop()
    machine = chain.first.machine
    chain.first.perform(machine.sync_failed(sync.replica, sync.chain, StorageFailed("EIO")))
    assert isinstance(chain.first.answers["a"], StorageFailed)
    answer, _ = machine.fence(Fence(H, 2, 0))
    assert answer.boot == ""


def test_full_disk_refuses_one_append_and_leaves_the_replica_right() -> None:
    chain = ChainOf(1)
    machine = chain.first.machine
    message = RecordAppend(H, 1, 9, 1, 1, 0)
    landing = machine.record_append("a", message, 10)
    assert isinstance(landing, Landing)
    chain.first.perform(machine.write_failed(landing, NoSpace("full")))
    assert isinstance(chain.first.answers["a"], NoSpace)
    chain.first.records("b", 1)  # space came back
    assert chain.first.answers["b"] == RecordsAppended(0, 10)
    landing = machine.record_append("c", RecordAppend(H, 1, 9, 2, 1, 0), 10)
    assert isinstance(landing, Landing)
    chain.first.perform(machine.write_failed(landing, StorageFailed("EIO")))
    with pytest.raises(StorageFailed):
        chain.first.records("d", 2)


def test_another_chain_at_the_same_version_is_refused() -> None:
    chain = ChainOf(3)
    other = Join(H, 1, 0, True, CHUNK, [chain.members[2], chain.members[1]])
    with pytest.raises(StaleVersion):
        chain.first.machine.join("x", other, by_client=True)
    same = Join(H, 1, 0, True, CHUNK, chain.members[1:])
    chain.first.perform(chain.first.machine.join("second mount", same, by_client=True))
    assert isinstance(chain.first.answers["second mount"], Joined)


def test_growth_tells_only_tails_that_it_orders() -> None:
    chain = ChainOf(2)
    chain.first.records("a", 1)
    chain.settle()
    assert [(one.handle, one.end) for one in chain.first.machine.growth([])] == [(H, 10)]
    assert chain.first.machine.growth([H + 1]) == []
    assert chain.nodes[1].machine.growth([]) == []
    chain.first.machine.fence(Fence(H, 2, 0))
    assert chain.first.machine.growth([]) == []


def test_older_epoch_is_refused_by_join_and_fence() -> None:
    chain = ChainOf(1)
    chain.first.machine.epoch = 5
    with pytest.raises(StaleVersion):
        chain.first.machine.join("x", Join(H, 1, 4, True, CHUNK, []), by_client=True)
    with pytest.raises(StaleVersion):
        chain.first.machine.fence(Fence(H, 2, 4))


def test_a_replica_that_was_here_or_may_have_been_does_not_begin_anew() -> None:
    machine = Machine(boot="b")
    with pytest.raises(NoSuchReplica):  # the master has not said yet what is older than us
        machine.refuse_to_begin(7)
    machine.first_new_handle = 5
    with pytest.raises(NoSuchReplica):  # its file may have gone in a power loss
        machine.refuse_to_begin(4)
    machine.refuse_to_begin(5)
    machine.replicas[5] = Replica(5, 1, tail=True, chunk_bytes=CHUNK)
    machine.drop(5)
    with pytest.raises(NoSuchReplica):  # its disk failed, or it was deleted
        machine.refuse_to_begin(5)


def test_a_sealed_replica_that_was_deleted_does_not_begin_anew() -> None:
    """A primary that heard of no seal had it joined again, and acknowledged a record to nobody."""
    machine = Machine(boot="b")
    machine.first_new_handle = 5
    machine.replicas[5] = replica = Replica(5, 1, tail=True, chunk_bytes=CHUNK)
    replica.seal(2, 0)
    machine.drop(5)
    with pytest.raises(NoSuchReplica):
        machine.refuse_to_begin(5)


def test_a_tail_is_empty_for_certain_only_where_it_may_still_begin() -> None:
    """A replica whose role is not known any more, or that is lost, may have had records."""
    machine = Machine(boot="b")
    machine.first_new_handle = 5
    assert machine.tail_end(5) == (END_NOT_BEGUN, 0)
    assert machine.tail_end(4) == (END_UNKNOWN, 0)
    machine.replicas[5] = Replica(5, 1, tail=True, chunk_bytes=CHUNK)
    assert machine.tail_end(5) == (END_UNKNOWN, 0)
    machine.drop(5)
    assert machine.tail_end(5) == (END_UNKNOWN, 0)
