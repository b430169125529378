"""What travels to chunks: frames of bytes, the parts they are cut into, where they landed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import trio

from gfs.checksum import Buffer
from gfs.errors import GfsError


class Placed(NamedTuple):
    """Where bytes of a frame landed: [start, start + length) of its payload."""

    start: int
    length: int
    handle: int
    chunk_offset: int


OnPlaced = Callable[["Frame", Placed], None]
OnFailed = Callable[["Frame", GfsError], None]


class Frame:
    """Bytes for one append. A divisible one may be cut where a chunk ends."""

    __slots__ = (
        "born",
        "divisible",
        "failed",
        "missing",
        "on_failed",
        "on_placed",
        "payload",
        "serial",
    )

    def __init__(
        self, payload: Buffer, on_placed: OnPlaced, on_failed: OnFailed, *, divisible: bool
    ) -> None:
        self.payload = payload
        self.missing = len(payload)
        self.on_placed = on_placed
        self.on_failed = on_failed
        self.divisible = divisible
        self.serial = 0
        self.failed = False
        self.born = trio.current_time()


class Part:
    """What of a frame goes into one chunk."""

    __slots__ = ("buffer", "frame", "length", "offset", "sent_at", "start")

    def __init__(self, frame: Frame, start: int, buffer: Buffer) -> None:
        self.frame = frame
        self.start = start
        self.buffer = buffer
        self.length = len(buffer)
        self.offset = 0
        self.sent_at = 0.0
