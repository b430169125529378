"""What the master tells counts before whatever it answers afterwards."""

from __future__ import annotations

import errno

import pyfuse3
import pytest
import trio

from gfs import messages as m
from gfs.errors import AlreadyExists
from gfs.messages import Message, NamePair
from tests.logcheck import ExpectLog
from tests.shell.client_fakes import world
from tests.shell.test_mount_requests import CTX, WRITE_ONLY, kernel

TURNS = 40  # what came in one piece is seen to by tasks that run in any order


async def test_who_is_told_that_a_name_exists_finds_it() -> None:
    """Another mount makes a name that this one knows to be absent, and tries to make too."""
    async with kernel() as k:
        directory = await k.make_directory()
        master = k.master

        def made_elsewhere(operation: Message) -> m.Done:
            assert isinstance(operation, m.Create)
            master.names[directory][operation.name] = master.new_file()
            master.position += 1
            told = m.Invalidate(master.position, [NamePair(directory, operation.name)], [], [])
            master.connections[-1].request(told, lambda *_: None)
            raise AlreadyExists

        master._mutate = made_elsewhere  # type: ignore[method-assign]
        for number in range(TURNS):
            name = b"%d" % number
            assert (await k.call.lookup(directory, name, CTX)).st_ino == 0
            with pytest.raises(pyfuse3.FUSEError) as refused:
                await k.call.create(directory, name, 0o644, WRITE_ONLY, CTX)
            assert refused.value.errno == errno.EEXIST
            assert (await k.call.lookup(directory, name, CTX)).st_ino == master.names[directory][
                name
            ]


async def test_a_cache_that_fails_is_told_and_the_link_goes_on(expect_log: ExpectLog) -> None:
    expect_log(r"obey\.failed", times=1)
    async with world() as w:
        answers: list[object] = []

        def fails(_: m.Invalidate) -> None:
            raise ValueError("a bug")

        w.client.link.orders.on_invalidate = fails  # type: ignore[assignment]
        w.master.connections[-1].request(
            m.Invalidate(1, [], [], []), lambda answer, _: answers.append(answer)
        )
        with trio.fail_after(5):
            while not answers:
                await trio.lowlevel.checkpoint()
        assert "failed to obey" in str(answers[0])
        await w.client.link.mutate(m.Create(1, b"a", 0o644, 0), w.client.actor)
        assert len(w.master.files) == 1
