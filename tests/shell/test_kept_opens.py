"""Opening again what was read: what the master is asked and told, whatever comes between.

Handlers are called directly, on a real client that talks to a made-up master.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pyfuse3
import pytest
import trio
import trio.testing

from gfs import messages as m
from gfs.client import keeping
from gfs.errors import PermissionDenied, Unreachable
from tests.shell.test_mount_requests import CTX, READ_ONLY, READ_WRITE, ROOT, Kernel, kernel


async def read(k: Kernel, ino: int) -> bytes:
    """open, read, close."""
    info = await k.call.open(ino, READ_ONLY, CTX)
    data = bytes(await k.call.read(info.fh, 0, 100))
    await k.call.flush(info.fh)
    await k.call.release(info.fh)
    return data


async def known(k: Kernel, name: bytes = b"f", data: bytes = b"x") -> int:
    """A file that the mount has looked up and read; the master has been told all else."""
    ino = await k.write_file(ROOT, name, data)
    await k.tables.client.flush_all(durable=False)
    await told(k)
    k.master.names[ROOT][name] = ino
    await k.call.lookup(ROOT, name, CTX)
    assert await read(k, ino) == data
    await told(k)
    return ino


async def told(k: Kernel) -> list[m.CloseFiles]:
    """Closes that the master has been told since it was asked last."""
    k.tables.client._closing.send()
    await k.tables.client.link.read(m.Renew())
    closes = [message for message in k.master.seen if isinstance(message, m.CloseFiles)]
    k.master.seen.clear()
    return closes


def order(k: Kernel, message: m.Message) -> tuple[list[m.Message], Callable[[], bool]]:
    """The master asks something; what it hears until the answer, and whether that is there."""
    heard: list[m.Message] = []
    before = len(k.master.seen)

    def on_answer(answer: object, _: object) -> None:
        assert isinstance(answer, m.Ok)
        heard.extend(k.master.seen[before:])
        heard.append(answer)

    k.master.connections[-1].request(message, on_answer)
    return heard, lambda: bool(heard)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.001)


async def recalled(k: Kernel, ino: int) -> list[m.Message]:
    """What the master hears when it wants to know whether a file is open."""
    heard, is_answered = order(k, m.Recall([ino], kept=True))
    await until(is_answered)
    return heard


async def changed(k: Kernel, ino: int, *, content: bool) -> None:
    """Another session changes the file."""
    k.master.position += 1
    k.master.files[ino].version += content
    _, is_answered = order(k, m.Invalidate(k.master.position, [], [ino], [ino] if content else []))
    await until(is_answered)


async def test_what_was_read_is_opened_and_read_again_without_a_word() -> None:
    async with kernel() as k:
        ino = await known(k)
        for _ in range(3):
            assert await read(k, ino) == b"x"
        assert k.master.seen == []
        assert await told(k) == []


async def test_two_handles_are_one_open() -> None:
    async with kernel() as k:
        ino = await known(k)
        first = await k.call.open(ino, READ_ONLY, CTX)
        second = await k.call.open(ino, READ_ONLY, CTX)
        await k.call.release(first.fh)
        assert await recalled(k, ino) == [m.Ok()]  # one is left
        assert bytes(await k.call.read(second.fh, 0, 10)) == b"x"
        await k.call.release(second.fh)
        assert await recalled(k, ino) == [m.CloseFiles([ino], []), m.Ok()]
        assert await recalled(k, ino) == [m.Ok()]


@pytest.mark.parametrize("content", [True, False])
async def test_after_any_change_elsewhere_it_is_closed_and_asked_for_anew(content: bool) -> None:
    async with kernel() as k:
        ino = await known(k)
        await changed(k, ino, content=content)
        assert await told(k) == [m.CloseFiles([ino], [])]
        await read(k, ino)
        assert m.Open in k.master.asked()


async def test_a_change_while_it_is_open_makes_the_next_open_ask() -> None:
    async with kernel() as k:
        ino = await known(k)
        info = await k.call.open(ino, READ_ONLY, CTX)
        await changed(k, ino, content=True)
        other = await k.call.open(ino, READ_ONLY, CTX)
        assert k.master.asked() == [m.Open]
        for one in (info, other):
            await k.call.release(one.fh)


async def test_a_master_that_asks_hears_of_the_close_before_the_answer() -> None:
    async with kernel() as k:
        ino = await known(k)
        assert await recalled(k, ino) == [m.CloseFiles([ino], []), m.Ok()]
        k.master.seen.clear()
        await read(k, ino)
        assert k.master.asked() == [m.Open]  # and so it is kept again
        await read(k, ino)
        assert k.master.asked() == []


async def test_an_open_that_is_being_asked_for_counts_when_the_master_asks() -> None:
    async with kernel() as k:
        ino = await known(k)
        await changed(k, ino, content=True)
        await told(k)
        k.master.hold = m.Open
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, k, ino)
            await until(lambda: bool(k.master._held))
            assert await recalled(k, ino) == [m.Ok()]
            k.master.let_go()
        assert await told(k) == []


async def test_an_open_behind_a_close_on_its_way_comes_after_it() -> None:
    async with kernel() as k:
        ino = await known(k)
        k.tables.client._keeping.give_up([ino])
        k.tables.client._closing.send()
        await read(k, ino)
        await trio.testing.wait_all_tasks_blocked()
        kinds = [type(message) for message in k.master.seen]
        assert kinds == [m.CloseFiles, m.Open]
        k.master.seen.clear()
        k.tables.client._keeping.give_up([ino])  # not told yet: it is simply open again
        await read(k, ino)
        assert await told(k) == []


async def test_writing_is_asked_for_and_then_its_own_change_is_read() -> None:
    async with kernel() as k:
        ino = await known(k)
        info = await k.call.open(ino, READ_WRITE, CTX)
        assert k.master.asked() == [m.Open]
        await k.call.write(info.fh, 0, b"y")
        await k.call.flush(info.fh)
        assert await read(k, ino) == b"y"
        await k.call.release(info.fh)
        await k.tables.client.flush_all(durable=False)
        assert await read(k, ino) == b"y"


async def test_a_refused_open_ends_what_was_kept() -> None:
    async with kernel() as k:
        ino = await known(k)
        k.master.faults.before.append((m.Open, PermissionDenied()))
        with pytest.raises(pyfuse3.FUSEError, match="Permission denied"):
            await k.call.open(ino, READ_WRITE, CTX)
        assert await told(k) == [m.CloseFiles([ino], [ino])]
        await read(k, ino)
        assert m.Open in k.master.asked()


@pytest.mark.parametrize("way", ["unlink", "rename over", "rename over what is not known"])
async def test_a_name_that_goes_takes_along_what_is_kept_of_it(way: str) -> None:
    """Told before the request, on the same connection: else the file would count as open."""
    async with kernel() as k:
        ino, other = await known(k), await known(k, b"g")
        k.master.seen.clear()
        if way == "unlink":
            await k.call.unlink(ROOT, b"f", CTX)
        else:
            if way.endswith("known"):
                k.tables.cache.invalidate(k.master.position, [m.NamePair(ROOT, b"f")], [])
            await k.call.rename(ROOT, b"g", ROOT, b"f", 0, CTX)
        close, *_ = k.master.seen
        assert isinstance(close, m.CloseFiles)
        assert close.inos == ([ino, other] if way.endswith("known") else [ino])


async def test_who_reads_it_while_its_name_goes_does_not_keep_it() -> None:
    async with kernel() as k:
        ino = await known(k)
        await known(k, b"g")
        k.master.hold = m.Rename
        async with trio.open_nursery() as nursery:
            nursery.start_soon(k.call.rename, ROOT, b"g", ROOT, b"f", 0, CTX)
            await until(lambda: bool(k.master._held))
            await read(k, ino)
            await told(k)
            k.master.let_go()
        assert await told(k) == [m.CloseFiles([ino], [])]


async def test_a_file_that_loses_its_name_while_open_is_closed_for_good() -> None:
    async with kernel() as k:
        ino = await known(k)
        info = await k.call.open(ino, READ_ONLY, CTX)
        await k.call.unlink(ROOT, b"f", CTX)
        await told(k)
        await k.call.release(info.fh)
        assert await told(k) == [m.CloseFiles([ino], [])]


async def test_a_session_that_is_taken_up_declares_what_has_handles_alone() -> None:
    async with kernel() as k:
        ino, other = await known(k), await known(k, b"g")
        info = await k.call.open(other, READ_ONLY, CTX)
        k.master.cut()
        await until(lambda: len(k.master.sessions_opened) == 2)
        assert k.master.sessions_opened[-1].opens == [other]
        await k.tables.client.link.read(m.Renew())
        k.master.seen.clear()
        await k.call.lookup(ROOT, b"f", CTX)
        assert await read(k, ino) == b"x"
        assert m.Open in k.master.asked()
        await k.call.release(info.fh)


async def test_while_the_connection_is_away_what_is_known_is_opened_for_the_lease() -> None:
    async with kernel() as k:
        ino = await known(k)
        k.master.hold = m.OpenSession
        k.master.cut()
        await until(lambda: bool(k.master._held))
        k.master.let_go()
        link = k.tables.client.link
        await until(lambda: link._connection is not None)
        await read(k, ino)
        link._connection.close(Unreachable("cut"))  # type: ignore[union-attr]
        assert await read(k, ino) == b"x"
        link.lease.end()
        opening = trio.CancelScope(deadline=trio.current_time() + 0.01)
        with opening:
            k.master.hold = m.OpenSession
            await k.call.open(ino, READ_ONLY, CTX)
        assert opening.cancelled_caught
        k.master.let_go()


async def test_what_is_not_used_for_a_minute_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with kernel() as k:
        ino = await known(k)
        monkeypatch.setattr(keeping, "IDLE_S", 0.0)
        k.master.seen.clear()
        await until(lambda: bool(k.master.seen))
        assert k.master.seen[0] == m.CloseFiles([ino], [])


async def test_what_another_writes_or_may_change_here_is_not_kept() -> None:
    async with kernel() as k:
        ino = await known(k)
        await changed(k, ino, content=True)
        await told(k)
        info = await k.call.open(ino, READ_ONLY, CTX)
        await changed(k, ino, content=False)  # somebody writes it
        await k.call.release(info.fh)
        assert await told(k) == [m.CloseFiles([ino], [])]


async def test_a_mutation_without_an_outcome_makes_every_open_ask() -> None:
    async with kernel() as k:
        ino = await known(k)
        k.master.hold = m.MakeNode
        with trio.move_on_after(0.02):
            await k.call.mkdir(ROOT, b"d", 0o755, CTX)
        await read(k, ino)
        assert m.Open in k.master.asked()
        k.master.let_go()
        await until(lambda: not len(k.tables.client.link.doubts))


async def test_flags_that_only_say_how_it_is_read_change_nothing() -> None:
    async with kernel() as k:
        ino = await known(k)
        for flags in (os.O_DIRECT, os.O_NOATIME, os.O_NONBLOCK):
            info = await k.call.open(ino, READ_ONLY | flags, CTX)
            await k.call.release(info.fh)
        assert k.master.asked() == []
