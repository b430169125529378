"""When closes are told: writers that have nothing to commit at once, all else in batches."""

from __future__ import annotations

from typing import Any, cast

import trio

from gfs.client.closing import PROMPT_S, Closing
from gfs.client.metadata import MasterLink
from gfs.messages import CloseFiles, Message


class Told:
    """A link that keeps what it is told; without a session it takes nothing."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.is_open = True

    def tell(self, message: Message) -> bool:
        if self.is_open:
            self.messages.append(message)
        return self.is_open


def closing() -> tuple[Closing, Told]:
    told = Told()
    return Closing(cast(MasterLink, told)), told


def write_and_close(of: Closing, ino: int) -> None:
    of.opened(ino, writing=True)
    of.written(ino)
    of.closed(ino)


async def test_a_writer_with_nothing_to_commit_is_told_at_once_and_many_together(
    autojump_clock: Any,
) -> None:
    one, told = closing()
    write_and_close(one, 1)
    assert told.messages == [CloseFiles([1], [1])]
    await trio.sleep(PROMPT_S / 2)
    write_and_close(one, 2)
    write_and_close(one, 3)
    assert len(told.messages) == 1
    await trio.sleep(PROMPT_S)
    write_and_close(one, 4)
    assert told.messages[1:] == [CloseFiles([2, 3, 4], [2, 3, 4])]


async def test_readers_and_writers_that_still_commit_wait_for_a_batch(autojump_clock: Any) -> None:
    one, told = closing()
    one.closed(1)  # read, or with bytes on their way: said to be written when they are committed
    one.closed(2)
    one.written(2)
    assert told.messages == []
    one.send()
    assert told.messages == [CloseFiles([1, 2], [2])]


async def test_without_a_session_it_is_told_when_there_is_one(autojump_clock: Any) -> None:
    one, told = closing()
    told.is_open = False
    write_and_close(one, 1)
    told.is_open = True
    write_and_close(one, 2)
    assert told.messages == [CloseFiles([1, 2], [1, 2])]
