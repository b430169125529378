"""A proxy of frames on a Unix socket that loses replies, holds back, and cuts.

It understands frames and envelopes, so that a test can say which message is to
suffer. Plain threads: the code under test must not share a loop with it.
Passed descriptors do not get through; the master passes none.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from gfs.envelope import Envelope, decode
from gfs.errors import RemoteProtocolError
from gfs.frames import FrameParser, encode
from gfs.messages import Message

Match = Callable[[Message], bool]
ACCEPT_S = 0.1


def nothing(_: Message) -> bool:
    """The rule that matches no message."""
    return False


class FrameProxy:
    """Listens on `path`, forwards each connection to `upstream`; use as a context manager.

    Attributes:
      lose_reply: the reply of the next request it matches never arrives; `lost` is then set,
        and every later frame of that connection is held back, as in a network that failed.
      lost: a reply has been lost.
      forwarded: how many frames went through, both ways.
    """

    def __init__(self, path: Path, upstream: str) -> None:
        self.path = path
        self.lose_reply: Match = nothing
        self.lost = threading.Event()
        self.lost_of: Message | None = None
        self.forwarded = 0
        self._upstream = upstream
        self._stopping = False
        self._pairs: list[_Pair] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(ACCEPT_S)
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()
        self._listener.close()
        self.cut()

    def lose(self, match: Match) -> None:
        """Lose the reply of the next request that `match`es."""
        self.lost.clear()
        self.lose_reply = match

    def cut(self) -> None:
        """Close every connection, both ends."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.close()

    def _accept(self) -> None:
        while not self._stopping:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            client.setblocking(True)
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                server.connect(self._upstream)
            except OSError:
                client.close()
                server.close()
                continue
            self._pairs.append(_Pair(self, client, server))


class _Pair:
    """One connection through the proxy."""

    def __init__(self, proxy: FrameProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._sockets = (client, server)
        self._victims: dict[int, Message] = {}
        self._silent = False  # the network has failed: nothing more gets to the client
        for source, target, from_client in ((client, server, True), (server, client, False)):
            arguments = (source, target, from_client)
            threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def close(self) -> None:
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _pump(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        parser = FrameParser()
        try:
            while True:
                while (frame := parser.next_header()) is not None:
                    header = bytes(frame[0])
                    payload = _payload(parser, source, frame[1])
                    if self._passes(decode(memoryview(header)), from_client):
                        target.sendall(encode(header, len(payload)) + payload)
                        self._proxy.forwarded += 1
                count = source.recv_into(parser.space())
                if not count:
                    break
                parser.received(count)
        except (OSError, RemoteProtocolError):
            pass
        self.close()

    def _passes(self, envelope: Envelope, from_client: bool) -> bool:
        proxy = self._proxy
        if from_client:
            if envelope.id > 0 and proxy.lose_reply(envelope.body):
                self._victims[envelope.id] = envelope.body
                proxy.lose_reply = nothing
            return True
        victim = self._victims.pop(-envelope.id, None)
        if victim is not None:
            self._silent = True
            proxy.lost_of = victim
            proxy.lost.set()
        return not self._silent


def _payload(parser: FrameParser, source: socket.socket, length: int) -> bytes:
    content = bytearray(length)
    view = memoryview(content)
    have = parser.take_payload(view)
    while have < length:
        count = source.recv_into(view[have:])
        if not count:
            raise OSError("ended inside a frame")
        have += count
    return bytes(content)
