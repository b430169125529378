"""Locks on inodes: one holder or many readers, in order of arrival, over every restart."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from gfs import messages as m
from gfs.errors import (
    DeadSession,
    LockHeld,
    LockLost,
    NoSpace,
    NotReady,
    PermissionDenied,
    Refused,
    StaleInode,
)
from gfs.items import LOCKS
from master.core import locks
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import OTHER, ROOT, USER, Call, Client, Cluster

SEEDS = range(30)
STEPS = 120


def take(
    client: Client, ino: int, ticket: int = 1, *, shared: bool = False, wait: bool = True
) -> Call:
    """Ask for a lock; the answer may be missing."""
    return change(client, m.TakeLock(ino, ticket, shared, wait, client.actor))


def drop(client: Client, ticket: int = 1) -> None:
    assert change(client, m.DropLock(ticket, client.actor)).answer == m.Ok()


def change(client: Client, message: m.TakeLock | m.DropLock, *, has_room: bool = True) -> Call:
    cluster = client.cluster
    call = Call(client, 0, message)
    caller = cluster.caller(call)
    machine, session = cluster.core.machine, client.session
    cluster.queue(lambda: machine.change(session, caller, message, has_room=has_room))
    cluster.settle()
    return call


def fence(call: Call) -> int:
    answer = call.answer
    assert isinstance(answer, m.LockTaken)
    return answer.fence


def listed(client: Client, ino: int = 0) -> list[tuple[int, bool]]:
    """(session, is held) of each lock."""
    listing = client.get(m.ListLocks(client.actor, ino), m.LockListing)
    return [(one.session, bool(one.fence)) for one in listing.locks]


def test_one_has_it_and_the_next_in_line_gets_it_then(c: Cluster, a: Client, b: Client) -> None:
    ino, third = a.create(b"f"), c.client("/c")
    first = take(a, ino)
    second, last = take(b, ino), take(third, ino)
    assert not second.is_answered
    assert not last.is_answered
    drop(a)
    assert fence(second) > fence(first)
    assert not last.is_answered
    drop(b)
    assert fence(last) > fence(second)
    drop(third)
    assert c.tables.count(LOCKS) == 0


def test_readers_share_it_and_come_after_a_writer_that_waits(
    c: Cluster, a: Client, b: Client
) -> None:
    ino, third = a.create(b"f"), c.client("/c")
    assert take(a, ino, shared=True).is_answered
    assert take(b, ino, shared=True).is_answered
    writer = take(third, ino)
    late = take(a, ino, 2, shared=True)
    assert not late.is_answered, "else readers could keep a writer out for ever"
    drop(a)
    assert not writer.is_answered
    drop(b)
    assert fence(writer)
    assert not late.is_answered
    drop(third)
    assert late.is_answered


def test_who_stood_behind_one_that_gave_up_shares_at_once(c: Cluster, a: Client, b: Client) -> None:
    ino, third = a.create(b"f"), c.client("/c")
    take(a, ino, shared=True)
    writer, reader = take(b, ino), take(third, ino, shared=True)
    drop(b)
    with pytest.raises(LockHeld):
        _ = writer.answer
    assert reader.is_answered


def test_who_does_not_want_to_wait_is_told(a: Client, b: Client) -> None:
    ino = a.create(b"f")
    take(a, ino)
    with pytest.raises(LockHeld):
        _ = take(b, ino, wait=False).answer


def test_asking_twice_by_one_ticket_gives_one_lock(c: Cluster, a: Client, b: Client) -> None:
    ino = a.create(b"f")
    assert fence(take(a, ino)) == fence(take(a, ino))
    waits = take(b, ino)
    again = take(b, ino)
    with pytest.raises(NotReady):
        _ = waits.answer
    drop(a)
    assert again.is_answered
    assert c.tables.count(LOCKS) == 1


def test_a_session_that_dies_has_no_lock_and_no_place_in_line(
    c: Cluster, a: Client, b: Client
) -> None:
    ino, third = a.create(b"f"), c.client("/c")
    take(a, ino)
    gone, last = take(b, ino), take(third, ino)
    b.connected = False
    c.pass_time(c.lease_s + 1)
    with pytest.raises(LockHeld):
        _ = gone.answer
    assert not last.is_answered
    a.connected = False
    c.pass_time(c.lease_s + 1)
    assert fence(last)
    assert "unlock" not in c.operations()


def test_locks_outlive_the_master_and_numbers_rise(c: Cluster, a: Client, b: Client) -> None:
    ino = a.create(b"f")
    first = take(a, ino)
    take(b, ino)
    c.restart(resume=False)
    a.open(locks=[1])
    early = take(a, ino)
    assert not early.is_answered, "not all sessions are back"
    b.open(locks=[1])
    assert fence(early) == fence(first)
    waits = take(b, ino)
    assert not waits.is_answered
    drop(a)
    assert fence(waits) > fence(first)


def test_a_session_that_did_not_come_back_loses_its_lock(c: Cluster, a: Client, b: Client) -> None:
    ino = a.create(b"f")
    take(a, ino)
    c.restart(resume=False)
    b.open()
    waits = take(b, ino)
    c.pass_time(c.lease_s - 1)
    assert not waits.is_answered
    c.pass_time(2)
    assert waits.is_answered


def test_what_is_not_named_when_the_session_is_taken_up_is_let_go(
    c: Cluster, a: Client, b: Client
) -> None:
    """The client gave up while it was cut off: nobody may hold the lock for it."""
    ino, other = a.create(b"f"), a.create(b"g")
    take(a, ino)
    take(b, other)
    place = take(a, other, 2)
    waits = take(b, ino, 2)
    a.open(locks=[])
    assert waits.is_answered
    drop(b, 1)
    with pytest.raises(LockHeld):
        _ = place.answer


def test_a_place_in_line_is_kept_over_a_new_connection(c: Cluster, a: Client, b: Client) -> None:
    ino, third = a.create(b"f"), c.client("/c")
    take(a, ino)
    take(b, ino)
    last = take(third, ino)
    b.open(locks=[1])
    drop(a)
    assert not last.is_answered, "it is the other's turn, which has not asked again yet"
    assert take(b, ino).is_answered


def test_a_lock_needs_the_permission_of_an_open(c: Cluster, a: Client) -> None:
    ino = a.create(b"f", mode=0o640)
    a.do(m.SetAttributes(ino, uid=USER.uid, gid=USER.gid))
    stranger = c.client("/s", OTHER)
    for shared in (False, True):
        with pytest.raises(PermissionDenied):
            _ = take(stranger, ino, shared=shared).answer
    a.do(m.SetAttributes(ino, mode=0o644))
    assert take(stranger, ino, shared=True).is_answered
    with pytest.raises(PermissionDenied):
        _ = take(stranger, ino, 2).answer
    with pytest.raises(StaleInode):
        _ = take(a, 12345).answer


def test_a_lock_hangs_on_the_inode(c: Cluster, a: Client, b: Client) -> None:
    ino = a.create(b"f")
    a.close_file(ino)
    take(a, ino)
    waits = take(b, ino)
    a.do(m.Rename(1, b"f", 1, b"g"))
    assert not waits.is_answered
    a.do(m.Unlink(1, b"g"))
    drop(a)
    with pytest.raises(StaleInode):
        _ = waits.answer
    assert c.tables.count(LOCKS) == 0


def test_a_dead_session_gets_no_lock(c: Cluster, a: Client, b: Client) -> None:
    ino = a.create(b"f")
    b.close()
    with pytest.raises(DeadSession):
        _ = take(b, ino).answer


def test_a_session_has_a_bounded_number(a: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LOCKS_MAX", 2)
    ino = a.create(b"f")
    take(a, ino, 1)
    take(a, ino, 2)
    with pytest.raises(Refused):
        _ = take(a, ino, 3).answer
    drop(a, 2)
    assert not take(a, ino, 4).is_answered


def test_a_full_disk_refuses_locks_and_lets_them_go(c: Cluster, a: Client) -> None:
    ino = a.create(b"f")
    take(a, ino)
    with pytest.raises(NoSpace):
        _ = change(a, m.TakeLock(ino, 2, False, True, ROOT), has_room=False).answer
    assert change(a, m.DropLock(1, ROOT), has_room=False).answer == m.Ok()


def test_a_mutation_that_depends_on_a_lock_is_refused_once_it_is_held_no_more(
    c: Cluster, a: Client, b: Client
) -> None:
    """Whoever asks: the number came from the holder."""
    ino = a.create(b"f")
    held = fence(take(a, ino))

    def make(name: bytes, number: int) -> Call:
        call = Call(b, number, m.Ok())
        operation = m.MakeNode(1, name, 0o40755)
        ask = m.Mutate(number, 1, ROOT, operation, [(ino, held)])
        machine, caller = c.core.machine, c.caller(call)
        c.queue(lambda: machine.mutate(b.session, caller, ask))
        c.settle()
        return call

    assert make(b"early", 1).done.entry is not None
    drop(a)
    take(a, ino, 2)
    with pytest.raises(LockLost):
        _ = make(b"late", 2).answer
    assert make(b"early", 1).done.entry is not None, "its first outcome"
    assert b"late" not in b.names()


def test_the_list_shows_who_holds_and_who_waits(c: Cluster, a: Client, b: Client) -> None:
    ino, other = a.create(b"f"), a.create(b"g", mode=0o666)
    user = c.client("/u", USER)
    take(a, ino)
    take(b, ino)
    take(user, other)
    assert listed(a) == [(a.session, True), (b.session, False), (user.session, True)]
    assert listed(user) == [(user.session, True)]
    assert listed(user, ino) == [(a.session, True), (b.session, False)]
    held = a.get(m.ListLocks(ROOT, ino), m.LockListing).locks[0]
    assert (held.path, held.mount, held.shared) == (b"/f", "/a", False)


def test_a_long_list_comes_in_pages(a: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LISTED_MAX", 2)
    ino = a.create(b"f")
    for ticket in range(1, 6):
        take(a, ino, ticket, shared=True)
    found, ask = [], m.ListLocks(ROOT)
    while True:
        page = a.get(ask, m.LockListing)
        found += [one.fence for one in page.locks]
        if not page.more:
            break
        ask = m.ListLocks(ROOT, 0, page.after_ino, page.after_fence)
    assert found == sorted(found)
    assert len(found) == 5


# --- against a model -------------------------------------------------------------------


@dataclass
class Line:
    """What is known of one inode's lock: holders and a line, as a person would do it."""

    holders: dict[tuple[str, int], bool] = field(default_factory=dict)  # -> shared
    line: list[tuple[str, int, bool]] = field(default_factory=list)

    def may(self, shared: bool) -> bool:
        return not self.holders or (shared and all(self.holders.values()))

    def move_up(self) -> None:
        while self.line and self.may(self.line[0][2]):
            name, ticket, shared = self.line.pop(0)
            self.holders[name, ticket] = shared

    def ask(self, name: str, ticket: int, shared: bool) -> None:
        self.line.append((name, ticket, shared))
        self.move_up()

    def leave(self, name: str, ticket: int | None = None) -> None:
        """With one ticket, or all."""
        self.holders = {
            key: shared
            for key, shared in self.holders.items()
            if key[0] != name or ticket not in (None, key[1])
        }
        self.line = [one for one in self.line if one[0] != name or ticket not in (None, one[1])]
        self.move_up()


@pytest.mark.parametrize("seed", SEEDS)
def test_any_order_of_things_is_as_a_line_of_people_would_have_it(
    seed: int, make_cluster: MakeCluster
) -> None:
    random, c = Random(seed), make_cluster()
    clients = {name: c.client(name) for name in "abc"}
    inos = [clients["a"].create(b"f%d" % number) for number in range(2)]
    model = {ino: Line() for ino in inos}
    asked: dict[tuple[str, int], Call] = {}
    seen: dict[int, set[int]] = {ino: set() for ino in inos}  # fences
    tickets = 0
    for _ in range(STEPS):
        name, ino = random.choice(list(clients)), random.choice(inos)
        client = clients[name]
        mine = [ticket for (whose, ticket) in asked if whose == name]
        thing = random.choice(("take", "take", "take", "drop", "drop", "die", "back", "restart"))
        if thing == "take":
            tickets += 1
            shared = random.random() < 0.4
            asked[name, tickets] = take(client, ino, tickets, shared=shared)
            model[ino].ask(name, tickets, shared)
        elif thing == "drop" and mine:
            ticket = random.choice(mine)
            drop(client, ticket)
            del asked[name, ticket]
            for line in model.values():
                line.leave(name, ticket)
        elif thing == "back":
            client.open(locks=mine)
            again(asked, name, client)
        elif thing == "die" and random.random() < 0.3:
            client.close()
            for line in model.values():
                line.leave(name)
            asked = {key: call for key, call in asked.items() if key[0] != name}
            clients[name] = c.client(name)
        elif thing == "restart" and random.random() < 0.3:
            c.restart(resume=False)
            for whose, one in clients.items():
                one.open(locks=[ticket for (who, ticket) in asked if who == whose])
            for whose, one in clients.items():
                again(asked, whose, one)
            for line in model.values():  # who waited asks in this order
                line.line.sort(key=lambda one: (list(clients).index(one[0]), one[1]))
                line.move_up()
        agree(c, clients, model, asked, seen)


def again(asked: dict[tuple[str, int], Call], name: str, client: Client) -> None:
    """Whatever is not answered is asked anew."""
    for (whose, ticket), call in asked.items():
        if whose == name and not call.is_answered:
            message = call.message
            assert isinstance(message, m.TakeLock)
            asked[name, ticket] = change(client, message)


def agree(
    c: Cluster,
    clients: dict[str, Client],
    model: dict[int, Line],
    asked: dict[tuple[str, int], Call],
    seen: dict[int, set[int]],
) -> None:
    names = {client.session: name for name, client in clients.items()}
    for ino, line in model.items():
        rows = c.tables.range(LOCKS, ino)
        held = {(names[lock.session], lock.ticket): lock.shared for _, lock in rows}
        assert held == line.holders
        assert len(held) == 1 or all(held.values()) or not held
        for (_, number), _ in rows:
            if number not in seen[ino]:
                assert number > max(seen[ino], default=0)
                seen[ino].add(int(number))
    holding = {key for line in model.values() for key in line.holders}
    for key, call in asked.items():
        assert (key in holding) == call.is_answered, key
