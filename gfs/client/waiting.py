"""Requests to the master that have no answer yet, and pauses between attempts."""

from __future__ import annotations

from collections.abc import Callable

import trio

from gfs.errors import GfsError, Retry, TimedOut, TooFewServers, TryAgain
from gfs.messages import Message, Mutate


class Waiting:
    """A request that has no answer yet.

    Attributes:
      sent: whether it was ever given to a connection.
      expired: whoever asked was told that there was no answer in time.
      on_late: gets the answer that comes after that.
    """

    __slots__ = ("answer", "deadline", "event", "expired", "message", "on_late", "sent")

    def __init__(self, message: Message, deadline: float) -> None:
        self.message = message
        self.deadline = deadline
        self.event = trio.Event()
        self.answer: Message | GfsError | None = None
        self.sent = False
        self.expired = False
        self.on_late: Callable[[Message | GfsError], None] | None = None

    def finish(self, answer: Message | GfsError) -> None:
        """The first answer counts."""
        if self.answer is None:
            self.answer = answer
            self.event.set()
        elif self.expired and self.on_late is not None:
            on_late, self.on_late = self.on_late, None
            on_late(answer)

    def expire(self) -> None:
        """Nobody waits any longer; an answer may still come."""
        if self.answer is None:
            self.answer = TimedOut(f"{name_of(self.message)}: no answer from the master")
            self.expired = True
            self.event.set()


def name_of(message: Message) -> str:
    """What is asked, for people."""
    if isinstance(message, Mutate):
        return type(message.operation).__name__
    return type(message).__name__


async def pause(error: TryAgain, pause_s: float, deadline: float) -> float:
    """Wait before the same request again; the error itself when that is not for us to do.

    Too few servers: the master has waited for them as long as anybody should.
    """
    if error.retry is not Retry.LATER or isinstance(error, TooFewServers):
        raise error
    if trio.current_time() + pause_s > deadline:
        raise TimedOut(str(error)) from error
    await trio.sleep(pause_s)
    return min(pause_s * 2, 0.5)
