"""Who watches this mount: `gfs trace` and `gfs mount-stats`, over a socket of this host.

The socket is abstract and bears the device number of the mount, which the kernel's table
of mounts tells, so whoever asks need not touch the mount, and nothing is left behind. Only root
and the user of this process are answered. While nobody listens a request costs one comparison
more; a listener that reads too slowly misses lines and is told how many.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from math import inf

import msgspec
import pyfuse3
import trio
from trio import socket

from gfs.mounts import control_address
from gfs.texts import text_of
from mount.answering import Answering, Tables
from mount.core.caching import ABSENT
from mount.core.calls import Call, Counts, Places

log = logging.getLogger(__name__)

LINES_MAX = 10_000  # that one listener may be behind
LOOK_S = 1.0  # between two walks over the names that the mount knows
ASK_BYTES_MAX = 4096
ASK_S = 5.0
INTERVAL_MIN_S, INTERVAL_MAX_S = 0.1, 3600.0
_PEER = struct.Struct("3i")
_HANDLE_FIRST = frozenset(
    ("read", "write", "flush", "fsync", "release", "releasedir", "fsyncdir", "readdir")
)
_NAMED = frozenset(("lookup", "mkdir", "mknod", "symlink", "unlink", "rmdir", "rename", "create"))
_MAKES = frozenset(("lookup", "mkdir", "mknod", "symlink", "create", "link"))
_ATTRIBUTE = frozenset(("getxattr", "setxattr", "removexattr"))


class Ask(msgspec.Struct):
    """First line of a listener. `interval_s` 0: every request; else counts so often."""

    interval_s: float = 0.0


class Told(msgspec.Struct):
    """Counts of an interval, by kind of request."""

    interval_s: float
    operations: dict[str, object]
    mount: dict[str, object]


class Missed(msgspec.Struct):
    """So many lines were dropped here."""

    missed: int


class Refused(msgspec.Struct):
    """Why nothing follows."""

    error: str


class _Listener:
    def __init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[Call](LINES_MAX)
        self.missed = 0


class Tracing:
    """See the module's text. `statistics`: what else is told of the mount with counts."""

    def __init__(self, tables: Tables, statistics: Callable[[], dict[str, object]]) -> None:
        self._tables = tables
        self._statistics = statistics
        self._places = Places()
        self._looked_s = -inf
        self._listeners: list[_Listener] = []
        self._counters: list[Counts] = []

    # --- requests

    def begin(self, calls: Answering, operation: str, args: Sequence[object]) -> tuple[int, object]:
        """Inode that a request is about, and who asks: a handle may be gone when it ends."""
        first = args[0] if args else 0
        if operation in _HANDLE_FIRST:
            opened = calls.opened(operation, int(str(first)))
            return (opened.ino, opened.actor) if opened is not None else (0, None)
        context = args[-1] if args else None
        asker = context if isinstance(context, pyfuse3.RequestContext) else None
        return first if isinstance(first, int) else 0, asker

    def end(
        self,
        about: tuple[int, object],
        operation: str,
        args: Sequence[object],
        result: object,
        seconds: float,
        code: int,
    ) -> None:
        """A request was answered with `result`, or the errno `code`."""
        us = round(seconds * 1e6)
        size = -1
        if operation == "read" and isinstance(result, bytes | bytearray | memoryview):
            size = len(result)
        elif operation == "write" and isinstance(result, int):
            size = result
        for counts in self._counters:
            counts.add(operation, us, size, failed=code != 0)
        if self._listeners:
            self._tell(self._call(about, operation, args, result, size, us, code))

    def _call(
        self,
        about: tuple[int, object],
        operation: str,
        args: Sequence[object],
        result: object,
        size: int,
        us: int,
        code: int,
    ) -> Call:
        ino, asker = about
        name, to = b"", b""
        if operation in _NAMED:
            name = args[1] if isinstance(args[1], bytes) else b""
        if operation == "rename" and isinstance(args[2], int) and isinstance(args[3], bytes):
            to = self._path(args[2], args[3])
        elif operation == "link" and isinstance(args[1], int) and isinstance(args[2], bytes):
            to = self._path(args[1], args[2])
        elif operation in _ATTRIBUTE and isinstance(args[1], bytes):
            to = args[1]
        path = self._path(ino, name)
        if operation in _MAKES and not code:
            self._learn(operation, args, result)
        elif operation == "rename" and not code:
            self._learn_moved(args)
        offset = args[1] if operation in ("read", "write") else -1
        return Call(
            time.time(), operation, text_of(path), us, text_of(to), size,
            offset if isinstance(offset, int) else -1,
            errno.errorcode.get(code, str(code)) if code else "",
            getattr(asker, "pid", 0), getattr(asker, "uid", -1),
        )  # fmt: skip

    def _learn(self, operation: str, args: Sequence[object], result: object) -> None:
        at = 1 if operation == "link" else 0
        entry = result[1] if isinstance(result, tuple) else result
        parent, name = args[at], args[at + 1]
        if isinstance(entry, pyfuse3.EntryAttributes) and isinstance(name, bytes) and entry.st_ino:
            self._places.learn(int(str(parent)), name, entry.st_ino)

    def _learn_moved(self, args: Sequence[object]) -> None:
        """Both names: they may have been exchanged. What the mount knows is as after it."""
        for parent, name in ((args[0], args[1]), (args[2], args[3])):
            if isinstance(parent, int) and isinstance(name, bytes):
                ino = self._tables.cache.lookup(parent, name)
                if ino > ABSENT:
                    self._places.learn(parent, name, ino)

    def _path(self, ino: int, name: bytes) -> bytes:
        if not self._places.knows(ino) and trio.current_time() - self._looked_s > LOOK_S:
            self._places.learn_all(self._names())
            self._looked_s = trio.current_time()
        return self._places.path(ino, name)

    def _names(self) -> Iterator[tuple[int, bytes, int]]:
        cache = self._tables.cache
        for directory in cache.directories():
            for name, ino in cache.names(directory):
                yield directory, name, ino

    def _tell(self, call: Call) -> None:
        for listener in self._listeners:
            try:
                listener.send.send_nowait(call)
            except trio.WouldBlock:
                listener.missed += 1

    # --- listeners

    async def run(self, device: str) -> None:
        """Answer listeners for ever; `device` is the number of the mount."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with listener:
            try:
                await listener.bind(control_address(device))
            except OSError as error:
                log.warning("trace.unavailable %s", error)
                return
            listener.listen(8)
            async with trio.open_nursery() as nursery:
                while True:
                    connection, _ = await listener.accept()
                    nursery.start_soon(self._answer, trio.SocketStream(connection))

    async def _answer(self, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                ask = await _question(stream)
                if isinstance(ask, Refused):
                    await _say(stream, ask)
                elif ask.interval_s:
                    await self._count(stream, ask.interval_s)
                else:
                    await self._trace(stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # whoever listened has gone

    async def _trace(self, stream: trio.SocketStream) -> None:
        listener = _Listener()
        self._listeners.append(listener)
        self._watch()
        try:
            await _say(stream, Missed(0))  # from now on
            async for call in listener.receive:
                if listener.missed:
                    missed, listener.missed = listener.missed, 0
                    await _say(stream, Missed(missed))
                await _say(stream, call)
        finally:
            self._listeners.remove(listener)
            self._watch()
            if not self._listeners:  # renames are not heard of from now on
                self._places, self._looked_s = Places(), -inf

    async def _count(self, stream: trio.SocketStream, interval_s: float) -> None:
        interval_s = min(max(interval_s, INTERVAL_MIN_S), INTERVAL_MAX_S)
        counts = Counts()
        self._counters.append(counts)
        self._watch()
        began = trio.current_time()
        try:
            while True:
                await trio.sleep(max(0.0, began + interval_s - trio.current_time()))
                now = trio.current_time()
                found: dict[str, object] = dict(counts.take())
                await _say(stream, Told(round(now - began, 6), found, self._statistics()))
                began = now
        finally:
            self._counters.remove(counts)
            self._watch()

    def _watch(self) -> None:
        """Have requests told while anybody listens."""
        self._tables.trace = self if self._listeners or self._counters else None


async def _say(stream: trio.SocketStream, line: msgspec.Struct) -> None:
    await stream.send_all(msgspec.json.encode(line) + b"\n")


async def _question(stream: trio.SocketStream) -> Ask | Refused:
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _, uid, _ = _PEER.unpack(raw)
    if uid not in (0, os.geteuid()):
        return Refused("only root and the user who mounted it may watch a mount")
    line = b""
    with trio.move_on_after(ASK_S):
        while not line.endswith(b"\n") and len(line) < ASK_BYTES_MAX:
            some = await stream.receive_some(ASK_BYTES_MAX)
            if not some:
                break
            line += some
    try:
        return msgspec.json.decode(line, type=Ask)
    except msgspec.DecodeError as error:
        return Refused(f"no question that a mount understands: {error}")
