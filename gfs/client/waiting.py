"""Requests to the master that have no answer yet, and pauses between attempts."""

from __future__ import annotations

import trio

from gfs.errors import GfsError, Retry, TimedOut, TryAgain
from gfs.messages import Message, Mutate


class Waiting:
    """A request that has no answer yet."""

    __slots__ = ("answer", "deadline", "event", "message")

    def __init__(self, message: Message, deadline: float) -> None:
        self.message = message
        self.deadline = deadline
        self.event = trio.Event()
        self.answer: Message | GfsError | None = None

    def finish(self, answer: Message | GfsError) -> None:
        """The first answer counts."""
        if self.answer is None:
            self.answer = answer
            self.event.set()


def name_of(message: Message) -> str:
    """What is asked, for people."""
    if isinstance(message, Mutate):
        return type(message.operation).__name__
    return type(message).__name__


async def pause(error: TryAgain, pause_s: float, deadline: float) -> float:
    """Wait before the same request again; the error itself when that is not for us to do."""
    if error.retry is not Retry.LATER:
        raise error
    if trio.current_time() + pause_s > deadline:
        raise TimedOut(str(error)) from error
    await trio.sleep(pause_s)
    return min(pause_s * 2, 0.5)
