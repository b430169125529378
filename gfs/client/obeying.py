"""What the master asks of a client: to drop what has changed elsewhere, to commit what waits.

To drop is begun where the message is read, so before any answer is heard of that came after it.
The master tells of a change before it answers anything that depends on it; a caller who learns
of the change from an answer must not then find a cache that does not know it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from gfs.client.waiting import name_of
from gfs.connection import Connection
from gfs.errors import GfsError, RemoteProtocolError
from gfs.messages import Invalidate, Message, Ok, Recall

log = logging.getLogger(__name__)


async def _obey_nothing(*_: object) -> None:
    return None


class Orders:
    """Those of one link, whatever connection they come over.

    Attributes:
      on_invalidate: called at once; what it returns is awaited before it is acknowledged.
      on_recall: with inodes, and whether it is about files kept open.
      nursery: where they are obeyed; the link's.
    """

    def __init__(self) -> None:
        self.on_invalidate: Callable[[Invalidate], Awaitable[None]] = _obey_nothing
        self.on_recall: Callable[[Sequence[int], bool], Awaitable[None]] = _obey_nothing
        self.nursery: trio.Nursery | None = None

    def on_message(
        self, connection: Connection, request: int, message: Message, _: memoryview | None
    ) -> None:
        """A request of the master's.

        Raises:
          RemoteProtocolError: it is none that one asks of a client.
        """
        if not isinstance(message, Invalidate | Recall):
            raise RemoteProtocolError(f"a client does not answer {type(message).__name__}")
        assert self.nursery is not None
        self.nursery.start_soon(self._obey, connection, request, message, self._begin(message))

    def _begin(self, message: Invalidate | Recall) -> Awaitable[None]:
        if isinstance(message, Recall):
            return self.on_recall(message.inos, message.kept)
        try:
            return self.on_invalidate(message)
        except Exception as error:
            return _failing(error)

    async def _obey(
        self, connection: Connection, request: int, message: Message, rest: Awaitable[None]
    ) -> None:
        try:
            await rest
        except GfsError as error:
            connection.refuse(request, error)
        except Exception:
            # A bug in a cache must neither end the mount nor leave the master waiting.
            log.exception("obey.failed message=%s", name_of(message))
            connection.refuse(request, GfsError("the client failed to obey"))
        else:
            connection.reply(request, Ok())


async def _failing(error: Exception) -> None:
    raise error
