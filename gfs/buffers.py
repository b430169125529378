"""Payload buffers for reuse."""

from __future__ import annotations

import mmap


class BufferPool:
    """Payload buffers for reuse: a fresh MiB costs as much as sending it.

    `give` is optional: a buffer not given back is garbage like any other. Large ones
    begin at a page, so that a disk can take them as they are.
    """

    def __init__(self, buffer_bytes: int, limit: int = 64) -> None:
        self.buffer_bytes = buffer_bytes
        self._free: list[mmap.mmap] = []
        self._limit = limit

    def take(self, length: int) -> memoryview:
        if length > self.buffer_bytes or length * 8 < self.buffer_bytes:
            return memoryview(bytearray(length))
        buffer = self._free.pop() if self._free else mmap.mmap(-1, self.buffer_bytes)
        return memoryview(buffer)[:length]

    def give(self, payload: memoryview) -> None:
        """The payload is no longer looked at by anybody."""
        buffer = payload.obj
        if not isinstance(buffer, mmap.mmap) or len(buffer) != self.buffer_bytes:
            return
        if len(self._free) < self._limit:
            self._free.append(buffer)
