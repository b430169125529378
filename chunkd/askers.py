"""Who asks a chunk server for something, and how much it has done for them."""

from __future__ import annotations

from gfs.connection import Connection


class Peer:
    """What the service knows about the other end of a connection."""

    __slots__ = ("by_client", "in_flight")

    def __init__(self, role: str) -> None:
        self.by_client = role != "chunkd"
        self.in_flight = 0


class Asker:
    """Whom to answer, and the bytes that came with the question."""

    __slots__ = ("connection", "payload", "peer", "request")

    def __init__(
        self, peer: Peer, connection: Connection, request: int, payload: memoryview | None
    ) -> None:
        self.peer = peer
        self.connection = connection
        self.request = request
        self.payload = payload

    def count(self) -> None:
        """Its bytes are taken, and not answered yet."""
        if self.payload is not None:
            self.peer.in_flight += len(self.payload)


class Counters:
    """Totals since the start, for /statistics and /metrics."""

    __slots__ = (
        "appends_total", "bytes_read_total", "bytes_written_total", "corrupt_total",
        "reads_total", "refused_total", "syncs_total",
    )  # fmt: skip

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)
