"""A seeded network below `gfs.connection`: streams that are slow, silent, cut.

`SimConnection` is a `Connection` whose frames travel through the world's queue instead of
a socket, encoded as they would be. A stream keeps order and loses nothing but its end:
when it is cut, of what is on its way a prefix still arrives. Links may be blocked in one
direction: what is sent waits there, as in TCP, and the other side hears silence.

Instead of pings both ends are told when silence began; who set a limit gives up then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from gfs import errors
from gfs.buffers import BufferPool
from gfs.connection import Connection, OnMessage
from gfs.envelope import ENCODER, Envelope, Failed, decode
from gfs.messages import Message

if TYPE_CHECKING:
    from gfs.outgoing import Payload
    from tests.sim.kernel import Process, World

Handle = Callable[[Connection], Awaitable[None]]
Frame = tuple[bytes, bytes | None] | None  # None: the end of the stream
REFUSED_S = 0.0005


@dataclass
class NetworkOptions:
    """Delays in seconds; `spike` is the chance that a frame takes `spike_s`."""

    delay_s: float = 0.0002
    jitter_s: float = 0.0003
    spike: float = 0.002
    spike_s: float = 0.2


@dataclass
class Listener:
    """Who serves an address."""

    process: Process
    handle: Handle
    silence_limit_s: float | None
    pool: BufferPool | None
    nursery: trio.Nursery


class End:
    """One end of a stream, in the place of a socket."""

    def __init__(self, network: Network, process: Process, peer: str) -> None:
        self.network = network
        self.process = process
        self.peer_name = peer
        self.other: End = self
        self.connection: SimConnection | None = None
        self.unread: deque[Frame] = deque()
        self.in_flight: deque[Frame] = deque()  # towards this end
        self.arrives_at = 0.0
        self.broken = False

    def close(self) -> None:
        """As of a socket: the other side hears of it."""
        self.network.finish(self)


class SimConnection(Connection):
    """See the module's text. Everything but the transport is the production class's."""

    def __init__(
        self,
        sock: Any,
        *,
        peer: str,
        pool: BufferPool | None = None,
        silence_limit_s: float | None = None,
    ) -> None:
        end: End = sock
        self.end = end
        self.is_unix = False
        self.peer = peer
        self.host = ""  # nobody is restricted by where it is
        self.peer_uid = self.peer_gid = self.peer_pid = -1
        self._pool = pool or BufferPool(1024 * 1024)
        self._silence_limit_s = silence_limit_s
        self.closed = None
        self.peer_epoch = 0
        self.after_burst = None
        self.authorised_uid = None
        self._corks = 0
        self._pending = {}
        self._next_id = 1
        self._on_close = []
        self._waiter: trio.lowlevel.Task | None = None
        self.silent_since: float | None = None
        end.connection = self
        end.network.connected(self)

    @property
    def queued_bytes(self) -> int:
        return 0

    async def drain(self, limit_bytes: int = 0) -> None:
        await trio.lowlevel.checkpoint()

    def _flush(self) -> None:
        """Frames leave one by one."""

    def _send(
        self,
        identity: int,
        message: Message | Failed,
        payload: Payload | None,
        descriptors: list[int] | None,
    ) -> None:
        if self.closed is None and not self.end.process.dead:
            header = ENCODER.encode(Envelope(identity, message))
            network = self.end.network
            if network.tap is not None:
                network.tap(self, identity, message)
            if identity < 0 and type(message) in network.losing:
                network.losing.discard(type(message))
                network.cut(self.end)
                return
            network.send(self.end, (header, None if payload is None else bytes(payload)))

    # --- receiving

    async def _next(self) -> tuple[bytes, bytes | None]:
        while not self.end.unread:
            if self.closed is not None:
                raise errors.Unreachable(str(self.closed))
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._give_up_waiting)
        frame = self.end.unread.popleft()
        if frame is None:
            raise errors.Unreachable(f"{self.peer} closed the connection")
        return frame

    def _give_up_waiting(self, _: object) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

    def arrived(self) -> None:
        """Something is there to be read, or the connection is closed."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            trio.lowlevel.reschedule(waiter)

    async def receive_one(self) -> Message:
        header, _ = await self._next()
        body = decode(memoryview(header)).body
        if isinstance(body, Failed):
            raise errors.from_wire(body.code, body.text)
        return body

    async def run(self, on_message: OnMessage) -> None:
        unread = self.end.unread
        try:
            while self.closed is None:
                header, content = await self._next()
                while True:
                    payload = None
                    if content is not None:
                        payload = self._pool.take(len(content))
                        payload[:] = content
                    self._dispatch(decode(memoryview(header)), payload, on_message)
                    if not unread or unread[0] is None or self.closed is not None:
                        break
                    following = unread.popleft()
                    assert following is not None
                    header, content = following
                if self.after_burst is not None:
                    self.after_burst()
        except errors.GfsError as error:
            self.close(error)
        finally:
            self.close(errors.Unreachable(f"connection to {self.peer} ended"))

    def silent_for(self) -> float:
        return 0.0 if self.silent_since is None else self.end.network.world.now - self.silent_since

    def close(self, why: errors.GfsError | None = None) -> None:
        if self.closed is not None:
            return
        self.closed = why or errors.Unreachable(f"connection to {self.peer} closed here")
        if self.end.process.dead:
            return
        self.end.network.finish(self.end)
        self.arrived()
        pending, self._pending = self._pending, {}
        for on_reply in pending.values():
            on_reply(errors.Unreachable(str(self.closed)), None)
        callbacks, self._on_close = self._on_close, []
        for callback in callbacks:
            callback(self)


class Network:
    """All streams and links of the world.

    Attributes:
      losing: the next answer of each such kind is lost, and its connection with it.
      tap: sees every message sent: (connection, identity, message).
    """

    def __init__(self, world: World, options: NetworkOptions) -> None:
        self.world = world
        self.options = options
        self.listeners: dict[str, Listener] = {}
        self.off: set[str] = set()  # hosts without power answer nothing at all
        self.ends: dict[End, None] = {}
        self.tap: Callable[[SimConnection, int, Message | Failed], None] | None = None
        self.losing: set[type] = set()
        self.frames_total = 0
        self._blocked: set[tuple[str, str]] = set()
        self._random = world.random("network")

    # --- making streams

    async def connect(self, address: str, _unix: str, timeout_s: float) -> End:
        """In place of `gfs.handshake._connect`."""
        process = self.world.current
        assert process is not None
        name = host_of(address)
        deadline = trio.current_time() + timeout_s
        await trio.sleep(self._delay())
        while name in self.off or not self._open(process.name, name):
            if trio.current_time() >= deadline:
                raise errors.Unreachable(f"{address}: no connection within {timeout_s} s")
            await trio.sleep(min(0.1, timeout_s))
        listener = self.listeners.get(address)
        if listener is None or listener.process.dead:
            await trio.sleep(REFUSED_S)
            raise errors.Unreachable(f"{address}: Connection refused")
        near, far = End(self, process, address), End(self, listener.process, process.name)
        near.other, far.other = far, near
        self.ends[near] = self.ends[far] = None
        listener.process.call(lambda: listener.nursery.start_soon(_serve_one, listener, far))
        return near

    async def serve(
        self,
        address: str,
        handle: Handle,
        *,
        pool: BufferPool | None = None,
        silence_limit_s: float | None = None,
    ) -> None:
        """In place of `gfs.handshake.serve`."""
        process = self.world.current
        assert process is not None
        async with trio.open_nursery() as nursery:
            self.listeners[address] = Listener(process, handle, silence_limit_s, pool, nursery)
            await trio.sleep_forever()

    # --- moving frames

    def send(self, end: End, frame: Frame) -> None:
        """Put a frame on its way to the other end."""
        other = end.other
        if end.broken or other.broken:
            return
        self.frames_total += 1
        other.in_flight.append(frame)
        if self._open(end.process.name, other.process.name):
            self._schedule(other)

    def _schedule(self, end: End) -> None:
        when = max(self.world.now + self._delay(), end.arrives_at)
        end.arrives_at = when
        self.world.at(when, lambda: self._arrive(end))

    def _arrive(self, end: End) -> None:
        if not end.in_flight or not self._open(end.other.process.name, end.process.name):
            return  # cut, or held back until the link opens
        frame = end.in_flight.popleft()
        if frame is None:
            self.ends.pop(end, None)
        end.process.call(lambda: self._hand_over(end, frame))

    def _hand_over(self, end: End, frame: Frame) -> None:
        end.unread.append(frame)
        if end.connection is not None:
            end.connection.arrived()

    def _delay(self) -> float:
        options, chance = self.options, self._random
        if chance.random() < options.spike:
            return options.spike_s * chance.random()
        return options.delay_s + options.jitter_s * chance.random()

    # --- ends of streams

    def finish(self, end: End) -> None:
        """This end closes: what it has sent still arrives, then the end of the stream."""
        self.ends.pop(end, None)
        if not end.broken:
            self.send(end, None)
            end.broken = True

    def cut(self, end: End, *, tell_both: bool = True) -> None:
        """The connection breaks; of what is on its way a prefix arrives, each way.

        An end that a blocked link keeps from being told stays among `ends`: it hears
        silence until the link works again.
        """
        if end.broken:
            if not end.in_flight:
                self.ends.pop(end, None)
            return
        for one in (end, end.other):
            keep = self._random.randint(0, len(one.in_flight))
            while len(one.in_flight) > keep:
                one.in_flight.pop()
        for one in (end, end.other):
            if not one.broken and (tell_both or one is not end):
                one.in_flight.append(None)
                if self._open(one.other.process.name, one.process.name):
                    self._schedule(one)
        for one in (end, end.other):
            one.broken = True
            if not one.in_flight or (one is end and not tell_both):
                self.ends.pop(one, None)
        self.listen_again()

    def process_died(self, process: Process, *, silently: bool) -> None:
        """Its streams end: with a word of its kernel, or (power loss) without any."""
        for address, listener in list(self.listeners.items()):
            if listener.process is process:
                del self.listeners[address]
        for end in [one for one in self.ends if one.process is process]:
            if silently:
                self._cut_silently(end)
            else:
                self.cut(end, tell_both=False)

    def _cut_silently(self, end: End) -> None:
        self.ends.pop(end, None)
        if end.broken:
            return
        other = end.other
        keep = self._random.randint(0, len(other.in_flight))
        while len(other.in_flight) > keep:
            other.in_flight.pop()
        end.broken = True
        if other.connection is not None and not other.process.dead:
            self._hear(other.connection)

    def back(self, name: str) -> None:
        """A machine has power again: to the streams of its past it answers with a reset."""
        for end in [one for one in self.ends if host_of(one.peer_name) == name]:
            if end.other.broken and not end.broken:
                end.in_flight.append(None)
                end.broken = True
                if self._open(end.other.process.name, end.process.name):
                    self._schedule(end)

    # --- links

    def _open(self, source: str, target: str) -> bool:
        return (source, target) not in self._blocked

    def block(self, source: str, target: str) -> None:
        """Nothing gets from `source` to `target`; what is sent waits."""
        self._blocked.add((source, target))
        self.listen_again()

    def unblock(self, source: str, target: str) -> None:
        """The link works again: what waited goes on."""
        self._blocked.discard((source, target))
        for end in list(self.ends):
            if (end.other.process.name, end.process.name) == (source, target):
                for _ in end.in_flight:
                    self._schedule(end)
        self.listen_again()

    @property
    def blocked(self) -> list[tuple[str, str]]:
        """Links that carry nothing now."""
        return sorted(self._blocked)

    def _silent(self, connection: SimConnection) -> bool:
        """Does nothing, not even a ping, come from the peer now?"""
        end, other = connection.end, connection.end.other
        return (
            (other.broken and not end.in_flight)
            or other.process.suspended
            or not self._open(other.process.name, end.process.name)
        )

    def connected(self, connection: SimConnection) -> None:
        """A connection stands on its end."""
        self._hear(connection)

    def listen_again(self) -> None:
        """Links or processes have changed: who hears nothing now?"""
        for end in list(self.ends):
            if end.connection is not None:
                self._hear(end.connection)

    def woke(self, process: Process) -> None:
        """It was held up itself: to it all silences begin now."""
        for end in self.ends:
            if end.process is process and end.connection is not None:
                end.connection.silent_since = None
        self.listen_again()

    def _hear(self, connection: SimConnection) -> None:
        if connection.closed is not None or connection.end.process.dead:
            return
        if not self._silent(connection):
            connection.silent_since = None
        elif connection.silent_since is None:
            since = connection.silent_since = self.world.now
            limit = connection._silence_limit_s
            if limit is not None:
                at = self.world.now + limit + 0.3 * self._random.random()
                self.world.at(at, lambda: self._give_up(connection, since))

    def _give_up(self, connection: SimConnection, since: float) -> None:
        if connection.silent_since == since and not connection.end.process.suspended:
            why = errors.Unreachable(f"{connection.peer} has been silent")
            connection.end.process.call(lambda: connection.close(why))


async def _serve_one(listener: Listener, end: End) -> None:
    connection = SimConnection(
        end, peer=end.peer_name, pool=listener.pool, silence_limit_s=listener.silence_limit_s
    )
    try:
        with suppress(errors.GfsError, OSError):
            await listener.handle(connection)
    finally:
        connection.close()


def host_of(address: str) -> str:
    """The host's name, which is that of the process, too."""
    return address.rpartition(":")[0] or address
