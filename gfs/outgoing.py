"""What waits to be sent on a socket: frames in order, gathered into few system calls."""

from __future__ import annotations

import array
import socket
from collections import deque

Payload = memoryview | bytes | bytearray

IOVEC_MAX = 512  # below the kernel's 1024


class Outgoing:
    """A queue of buffers; `flush` sends what the socket takes.

    Attributes:
      queued_bytes: how much waits.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._queue: deque[Payload | tuple[bytes, list[int]]] = deque()
        self.queued_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._queue)

    def add(
        self, head: bytes, payload: Payload | None, descriptors: list[int] | None = None
    ) -> None:
        """One frame; descriptors travel with its head."""
        self._queue.append((head, descriptors) if descriptors else head)
        self.queued_bytes += len(head)
        if payload is not None and len(payload):
            self._queue.append(payload)
            self.queued_bytes += len(payload)

    def flush(self) -> None:
        """Send as much as can be sent now.

        Raises:
          BlockingIOError: the socket is full; the rest stays.
          OSError: the connection is broken.
        """
        while self._queue:
            first = self._queue[0]
            if isinstance(first, tuple):
                head, descriptors = first
                rights = array.array("i", descriptors)
                sent = self._socket.sendmsg(
                    [head], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
                )
                self._queue[0] = head
            else:
                sent = self._socket.sendmsg(self._gather())
            self._drop(sent)

    def _gather(self) -> list[Payload]:
        gathered: list[Payload] = []
        for item in self._queue:
            if isinstance(item, tuple) or len(gathered) == IOVEC_MAX:
                break
            gathered.append(item)
        return gathered

    def _drop(self, count: int) -> None:
        self.queued_bytes -= count
        while count:
            first = self._queue[0]
            assert not isinstance(first, tuple)
            if count < len(first):
                self._queue[0] = memoryview(first)[count:]
                return
            count -= len(first)
            self._queue.popleft()

    def clear(self) -> None:
        self._queue.clear()
        self.queued_bytes = 0
