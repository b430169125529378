"""The link to the master: numbers, reconnections, the session's life."""

from __future__ import annotations

import errno
import os

import pytest
import trio
import trio.testing

from gfs import messages as m
from gfs.client.client import open_client
from gfs.client.metadata import MasterLink
from gfs.client.settings import Callbacks, ClientSettings
from gfs.errors import BadKey, DeadSession, NotFound, NotReady, TimedOut, TooFewServers
from gfs.messages import Message
from mount.errnos import ERRNOS
from tests.logcheck import ExpectLog
from tests.shell.client_fakes import World, world


def numbers(of: World, kind: type[Message]) -> list[int]:
    return [
        seen.number
        for seen in of.master.seen
        if isinstance(seen, m.Mutate) and isinstance(seen.operation, kind)
    ]


async def test_a_mutation_whose_reply_was_lost_is_sent_again_with_its_number() -> None:
    async with world() as w:
        w.master.faults.after.append(m.Create)
        done = await w.client.link.mutate(m.Create(1, b"a", 0o644, 0), w.client.actor)
        first, second = numbers(w, m.Create)
        assert first == second
        assert done.entry is not None
        assert len(w.master.files) == 1


async def test_unanswered_mutations_are_sent_again_in_order_after_the_session() -> None:
    async with world() as w:
        link, actor = w.client.link, w.client.actor
        w.master.faults.before.append((m.Create, None))
        async with trio.open_nursery() as nursery:
            for name in (b"a", b"b", b"c"):
                nursery.start_soon(link.mutate, m.Create(1, name, 0o644, 0), actor)
        again = w.master.seen[[type(seen) for seen in w.master.seen].index(m.OpenSession, 1) :]
        sent = [seen.number for seen in again if isinstance(seen, m.Mutate)]
        assert sent == sorted(sent)
        assert len(w.master.files) == 3
        assert w.master.sessions_opened[1].session == link.session


async def test_low_is_the_lowest_number_that_still_waits() -> None:
    async with world() as w:
        for name in (b"a", b"b", b"c"):
            await w.client.link.mutate(m.Create(1, name, 0o644, 0), w.client.actor)
        lows = [seen.low for seen in w.master.seen if isinstance(seen, m.Mutate)]
        assert lows == numbers(w, m.Create)


async def test_a_refusal_reaches_the_caller_and_is_not_repeated() -> None:
    async with world() as w:
        with pytest.raises(NotFound):
            await w.client.link.mutate(m.Unlink(1, b"x"), w.client.actor)
        assert len(numbers(w, m.Unlink)) == 1


async def test_not_ready_is_asked_again_under_a_new_number() -> None:
    async with world() as w:
        w.master.faults.before.append((m.Create, NotReady("not yet")))
        await w.client.link.mutate(m.Create(1, b"a", 0o644, 0), w.client.actor)
        first, second = numbers(w, m.Create)
        assert second > first


async def test_the_lease_is_void_from_a_suspension_to_the_next_renewal() -> None:
    async with world() as w:
        lease, resumed = w.client.link.lease, trio.Event()
        w.client.link.on_resumed = resumed.set
        assert lease.left() > 0
        w.master.hold = m.Renew
        slept = lease.suspended() + 1.0
        lease.suspended = lambda: slept
        with trio.fail_after(5):
            await resumed.wait()  # noticed without being asked
        assert lease.left() == 0
        w.master.let_go()
        with trio.fail_after(5):
            while not lease.left():
                await trio.lowlevel.checkpoint()


async def test_a_renewal_from_before_a_suspension_renews_nothing() -> None:
    async with world() as w:
        lease = w.client.link.lease
        w.master.hold = m.Renew
        for slept in (lease.suspended() + 1.0, lease.suspended() + 2.0):
            lease.suspended = lambda slept=slept: slept  # type: ignore[misc]
            lease.left()  # asks for a renewal the first time
        w.master.let_go()
        await w.client.link.read(m.Renew())
        assert lease.left() == 0


class Heard:
    """Doubts as a link tells of them."""

    def __init__(self, link: MasterLink) -> None:
        self.begun: list[object] = []
        self.ended: list[m.Done | None] = []
        self.known = trio.Event()
        link.doubts.on_doubt = self.begun.append
        link.doubts.on_outcome = self._outcome

    def _outcome(self, _: object, done: m.Done | None) -> None:
        self.ended.append(done)
        self.known.set()


async def timed_out(w: World, operation: m.Operation) -> Heard:
    """`operation` was sent, and its caller has gone without an answer."""
    heard = Heard(w.client.link)
    w.master.hold = type(operation)
    with pytest.raises(TimedOut):
        await w.client.link.mutate(operation, w.client.actor, timeout_s=0.0)
    assert heard.begun == [operation]
    return heard


async def test_a_mutation_that_timed_out_is_in_doubt_until_its_answer() -> None:
    async with world() as w:
        heard = await timed_out(w, m.Create(1, b"a", 0o644, 0))
        await w.client.link.mutate(m.Allocate(), w.client.actor)
        assert w.master.seen[-1].low == numbers(w, m.Create)[0]  # type: ignore[attr-defined]
        assert heard.ended == []
        w.master.let_go()
        with trio.fail_after(5):
            await heard.known.wait()
        assert heard.ended[0] is not None
        await w.client.link.mutate(m.Allocate(), w.client.actor)
        assert w.master.seen[-1].low > numbers(w, m.Create)[0]  # type: ignore[attr-defined]


async def test_a_mutation_in_doubt_is_asked_for_again_on_the_next_connection() -> None:
    async with world() as w:
        heard = await timed_out(w, m.Create(1, b"a", 0o644, 0))
        w.master.hold = None
        w.master.cut()
        with trio.fail_after(5):
            await heard.known.wait()
        first, second = numbers(w, m.Create)
        assert first == second
        assert heard.ended[0] is not None


async def test_a_caller_who_was_cancelled_leaves_his_mutation_in_doubt() -> None:
    async with world() as w:
        heard = Heard(w.client.link)
        w.master.hold = m.Create
        with trio.move_on_after(0.1):
            await w.client.link.mutate(m.Create(1, b"a", 0o644, 0), w.client.actor)
        assert len(heard.begun) == 1
        w.master.let_go()
        with trio.fail_after(5):
            await heard.known.wait()


async def test_doubt_ends_with_the_session(expect_log: ExpectLog) -> None:
    expect_log("session.dead", times=1)
    async with world() as w:
        heard = await timed_out(w, m.Create(1, b"a", 0o644, 0))
        w.master.hold = None
        w.master.faults.before.append((m.Renew, DeadSession("ended")))
        with pytest.raises(DeadSession):
            await w.client.link.read(m.Renew())
        assert heard.ended == [None]


async def test_a_mutation_in_doubt_does_not_hold_up_a_thousand_others() -> None:
    async with world() as w:
        await timed_out(w, m.Create(1, b"a", 0o644, 0))
        with trio.fail_after(20):
            for _ in range(1010):
                with pytest.raises(NotFound):
                    await w.client.link.mutate(m.Unlink(1, b"x"), w.client.actor)


async def test_what_was_never_sent_is_not_in_doubt() -> None:
    async with world() as w:
        heard = Heard(w.client.link)
        w.master.hold = m.OpenSession  # reconnected, and kept waiting
        w.master.cut()
        while w.client.link._connection is not None:
            await trio.lowlevel.checkpoint()
        with pytest.raises(TimedOut):
            await w.client.link.mutate(m.Unlink(1, b"x"), w.client.actor, timeout_s=-1.0)
        assert heard.begun == []


async def test_what_is_never_answered_ends_in_time(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    async with world() as w:
        w.master.faults.before += [(m.Renew, NotReady("later"))] * 200
        with pytest.raises(TimedOut):
            await w.client.link.read(m.Renew(), timeout_s=0.5)


async def test_groups_are_looked_up_only_when_the_master_asks() -> None:
    asked: list[int] = []

    def groups_of(pid: int) -> tuple[int, ...]:
        asked.append(pid)
        return (7, 8)

    async with world(callbacks=Callbacks(groups_of=groups_of)) as w:
        answers = iter([m.GroupsNeeded(), m.Entry(1, 0, None)])
        w.master.answer = lambda message, payload: next(answers, m.Ok())  # type: ignore[method-assign]
        await w.client.link.read(m.Lookup(1, b"a", m.Actor(1, 2, 33)))
        assert asked == [33]
        second = w.master.seen[-1]
        assert isinstance(second, m.Lookup)
        assert second.actor.groups == (7, 8)


async def test_the_lease_counts_from_before_the_renewal_was_sent() -> None:
    before = trio.current_time()
    async with world() as w:
        assert before + 20.0 <= w.client.link.lease.until <= trio.current_time() + 20.0


async def test_a_dead_session_fails_what_waits_and_a_new_one_is_opened(
    expect_log: ExpectLog,
) -> None:
    expect_log("session.dead")
    lost: list[bool] = []
    async with world(callbacks=Callbacks(on_session_lost=lambda: lost.append(True))) as w:
        w.master.faults.before.append((m.Renew, DeadSession("gone")))
        with pytest.raises(DeadSession):
            await w.client.link.read(m.Renew())
        assert lost == [True]
        await w.client.link.read(m.Renew())
        assert [opened.session for opened in w.master.sessions_opened] == [0, 0]


async def test_a_reconnection_declares_what_is_open() -> None:
    async with world(callbacks=Callbacks(directories=lambda: [1, 5])) as w:
        ino = w.master.new_file()
        file = await w.client.open(ino, 1, w.client.actor)
        w.master.cut()
        await w.client.link.read(m.Renew())
        declared = w.master.sessions_opened[-1]
        assert (declared.directories, declared.opens, declared.writers) == ([1, 5], [ino], [ino])
        file.release()


async def test_a_wrong_key_is_told_at_once() -> None:
    async with world() as w:
        settings = ClientSettings(master=w.master.address, key=b"x" * 64)
        with pytest.raises(BadKey):
            async with open_client(settings):
                pass


def closes(of: World) -> list[m.CloseFiles]:
    return [seen for seen in of.master.seen if isinstance(seen, m.CloseFiles)]


async def test_an_open_answered_after_its_asker_gave_up_is_closed_again() -> None:
    async with world() as w:
        ino = w.master.new_file()
        w.master.hold = m.Open
        with trio.move_on_after(0.05):
            await w.client.open(ino, os.O_RDWR, w.client.actor)
        with trio.fail_after(5):
            while not closes(w):  # noqa: ASYNC110 - the first, sent before the answer
                await trio.sleep(0.01)
            sent = len(closes(w))
            w.master.let_go()
            while len(closes(w)) == sent:  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert closes(w)[-1] == m.CloseFiles([ino], [ino])


async def test_an_open_answered_late_leaves_another_handle_alone() -> None:
    async with world() as w:
        ino = w.master.new_file()
        file = await w.client.open(ino, os.O_RDWR, w.client.actor)
        w.master.hold = m.Open
        with trio.move_on_after(0.05):
            await w.client.open(ino, os.O_RDONLY, w.client.actor)
        w.master.let_go()
        await w.client.link.read(m.Renew())
        w.client._closing.send()
        await w.client.link.read(m.Renew())
        assert closes(w) == []
        file.release()


async def test_what_is_closed_while_the_session_is_taken_up_is_told_behind() -> None:
    """It stands in the declaration that is on its way."""
    async with world() as w:
        ino = w.master.new_file()
        file = await w.client.open(ino, os.O_RDONLY, w.client.actor)
        w.master.hold = m.OpenSession
        w.master.cut()
        with trio.fail_after(5):
            while not w.master._held:  # noqa: ASYNC110
                await trio.sleep(0.01)
            file.release()
            w.client._closing.send()
            w.master.let_go()
            while not closes(w):  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert w.master.sessions_opened[-1].opens == [ino]
        assert closes(w)[-1] == m.CloseFiles([ino], [])


async def test_a_reconnection_tells_which_mutations_come_again() -> None:
    async with world() as w:
        link, actor = w.client.link, w.client.actor
        await link.mutate(m.Create(1, b"a", 0o644, 0), actor)
        w.master.faults.after.append(m.Create)
        await link.mutate(m.Create(1, b"b", 0o644, 0), actor)
        assert w.master.sessions_opened[-1].unanswered == [2]


async def test_a_renewal_says_what_has_been_answered() -> None:
    async with world() as w:
        for name in (b"a", b"b"):
            await w.client.link.mutate(m.Create(1, name, 0o644, 0), w.client.actor)
        connection = w.client.link._connection
        assert connection is not None
        w.client.link._renew(connection)
        await w.client.link.read(m.Renew())
        first = next(seen for seen in w.master.seen if isinstance(seen, m.Renew))
        assert first.low == 3


async def test_too_few_servers_is_told_once_the_master_has_waited_for_them() -> None:
    async with world() as w:
        w.master.faults.before.append((m.Allocate, TooFewServers("too few chunk servers are up")))
        with trio.fail_after(5), pytest.raises(TooFewServers):
            await w.client.link.mutate(m.Allocate(), w.client.actor)


async def test_writes_without_servers_fail_with_what_becomes_eio(expect_log: ExpectLog) -> None:
    expect_log("write.lost|append.failed", times=2)
    async with world() as w:
        appended, written = w.master.new_file(), w.master.new_file()
        for kind in (m.OpenTail, m.Allocate):
            w.master.faults.before.append((kind, TooFewServers("too few chunk servers are up")))
        log = await w.client.open(appended, os.O_WRONLY | os.O_APPEND, w.client.actor)
        plain = await w.client.open(written, os.O_WRONLY, w.client.actor)
        with trio.fail_after(5):
            with pytest.raises(TooFewServers):
                await log.append(b"a")
                await log.flush()
            await plain.write(0, b"a")
            with pytest.raises(TooFewServers):
                await plain.sync()
        for file in (log, plain):
            file.release()
        assert ERRNOS[TooFewServers] == errno.EIO
