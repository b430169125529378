"""The link to the master: numbers, reconnections, the session's life."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from gfs import messages as m
from gfs.client.client import open_client
from gfs.client.settings import Callbacks, ClientSettings
from gfs.errors import BadKey, DeadSession, NotFound, NotReady, TimedOut
from gfs.messages import Message
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
        assert before + 20.0 <= w.client.link.lease_until <= trio.current_time() + 20.0


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
