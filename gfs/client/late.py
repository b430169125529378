"""Answers that come after their askers have gone: what they say still has happened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

import trio

from gfs.client.doubt import touched
from gfs.client.metadata import MasterLink
from gfs.client.settings import Callbacks
from gfs.errors import GfsError
from gfs.messages import Create, Done, Invalidate, Message, Open, Opened, Operation


class LateAnswers:
    """Hears of them from the link, and tells the rest of the client.

    Args:
      invalidated: forgets what is kept of these files.
      invalidate: what another session's change would do here.
      unopened: told of each file that was opened for an asker who has gone.
    """

    def __init__(
        self,
        link: MasterLink,
        nursery: trio.Nursery,
        callbacks: Callbacks,
        *,
        invalidated: Callable[[Iterable[int]], None],
        invalidate: Callable[[Invalidate], Awaitable[None]],
        unopened: Callable[[int], None],
    ) -> None:
        self._nursery = nursery
        self._callbacks = callbacks
        self._invalidated = invalidated
        self._invalidate = invalidate
        self._unopened = unopened
        link.doubts.on_doubt = self._in_doubt
        link.doubts.on_outcome = self._known
        link.on_unheard = self._unheard

    def _in_doubt(self, operation: Operation) -> None:
        """An own mutation ran out of time; it may land whenever it likes."""
        message = touched(operation)
        self._invalidated({*message.inos, *message.contents})
        self._callbacks.on_doubt(message)

    def _known(self, operation: Operation, done: Done | None) -> None:
        if done is None:  # nothing has changed, or all caches are dropped
            self._callbacks.on_known(touched(operation))
        else:
            self._nursery.start_soon(self._landed, operation, done)

    async def _landed(self, operation: Operation, done: Done) -> None:
        """What any other session was told before this answer left."""
        message = touched(operation, done.position)
        if done.entry is not None and done.entry.ino:
            message.inos.append(done.entry.ino)
            if isinstance(operation, Create):
                self._unopened(done.entry.ino)
        await self._invalidate(message)
        self._callbacks.on_known(touched(operation))

    def _unheard(self, question: Message, answer: Message | GfsError) -> None:
        if isinstance(question, Open) and isinstance(answer, Opened):
            self._unopened(question.ino)
