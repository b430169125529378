"""Many requests in flight on one stream, both ways: the shell around gfs.frames.

A `Connection` owns a non-blocking socket, TCP or Unix. Either side may ask:
`request` takes a callback (no task a request, for hot paths), `call` awaits,
`post` expects no answer. Incoming messages go to one synchronous callback,
which answers at once or later with `reply` / `refuse`. So nothing here starts
a task a message, and nothing a peer sends can make the loop wait.

Flushing: outside of a burst a frame is sent at once; while a burst of received
frames is worked on (or a caller holds `corked()`), frames gather and leave in
one system call.

A silent peer: both sides say `Ping` after 300 ms of silence. With
`silence_limit_s` a peer that says nothing for longer is given up and all that
waits for it fails with `Unreachable`; if this process itself was held up
meanwhile, the clock starts anew (a woken process must read first).

Limits: at most `PENDING_MAX` requests wait on one connection.
"""

from __future__ import annotations

import array
import contextlib
import logging
import socket
import struct
import typing
from collections import deque
from collections.abc import Callable, Iterator

import trio

from gfs.buffers import BufferPool
from gfs.envelope import ENCODER, Envelope, Failed, decode
from gfs.errors import GfsError, Overloaded, RemoteProtocolError, TimedOut, Unreachable, from_wire
from gfs.frames import FrameParser, encode
from gfs.messages import Message, Ping
from gfs.outgoing import Outgoing, Payload
from gfs.running import first_of

log = logging.getLogger(__name__)

PING_S = 0.3
PENDING_MAX = 65536
RECEIVE_BYTES = 64 * 1024  # more only copies payload bytes twice
SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
BURST_CHECKPOINT = 32  # receive calls without blocking before others get a turn
DESCRIPTORS_MAX = 8
_PEERCRED = struct.Struct("3i")

OnReply = Callable[["Message | GfsError", "memoryview | None"], None]
OnMessage = Callable[["Connection", int, Message, "memoryview | None"], None]


class Connection:
    """One peer. Create it, then keep `run` going in a nursery; see the module's text.

    Attributes:
      closed: why the connection ended, or None.
      peer: for people and logs; host: the peer's address, "" on a Unix socket or not known.
      peer_uid, peer_gid: from the kernel on a Unix socket, else -1.
      peer_epoch: the master's epoch that the server named in the handshake.
      peer_leads: False when it said that it is a shadow master.
      after_burst: called when all frames that had arrived were given to `on_message`;
        what it sends leaves together with what they sent.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        peer: str,
        pool: BufferPool | None = None,
        silence_limit_s: float | None = None,
    ) -> None:
        sock.setblocking(False)
        self._socket = sock
        self.is_unix = sock.family == socket.AF_UNIX
        self.peer = peer
        self.host = ""
        self.peer_uid = self.peer_gid = self.peer_pid = -1
        self._tune()
        self._pool = pool or BufferPool(1024 * 1024)
        self._silence_limit_s = silence_limit_s
        self.closed: GfsError | None = None
        self.peer_epoch = 0
        self.peer_leads = True
        self.after_burst: Callable[[], None] | None = None
        self.authorised_uid: int | None = None  # bound to this uid (no key was proved)
        self._parser = FrameParser()
        self._outgoing = Outgoing(sock)
        self._corks = 0
        self._wake_sender = trio.Event()
        self._drained = trio.Event()
        self._pending: dict[int, OnReply] = {}
        self._next_id = 1
        self._last_sent = self._last_heard = trio.current_time()
        self._descriptors: deque[int] = deque()
        self._on_close: list[Callable[[Connection], None]] = []

    def _tune(self) -> None:
        if self.is_unix:
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                self._socket.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
            credentials = self._socket.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size
            )
            self.peer_pid, self.peer_uid, self.peer_gid = _PEERCRED.unpack(credentials)
        else:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    # --- sending

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for the socket."""
        return self._outgoing.queued_bytes

    def post(self, message: Message, payload: Payload | None = None) -> None:
        """Send without expecting an answer. Lost silently if the connection ends."""
        self._send(0, message, payload, None)

    def reply(
        self,
        request: int,
        message: Message,
        payload: Payload | None = None,
        descriptors: list[int] | None = None,
    ) -> None:
        """Answer a request; `descriptors` (Unix only) stay the caller's to close, after `drain`."""
        if request:
            self._send(-request, message, payload, descriptors)

    def refuse(self, request: int, error: GfsError) -> None:
        self.reply(request, Failed(error.code, str(error)))

    def request(self, message: Message, on_reply: OnReply, payload: Payload | None = None) -> None:
        """Ask; `on_reply` gets the answer and its payload, or the error, exactly once.

        It may be called before this returns when the connection is already closed.
        """
        if self.closed is not None:
            on_reply(Unreachable(str(self.closed)), None)
            return
        if len(self._pending) >= PENDING_MAX:
            on_reply(Overloaded(f"{PENDING_MAX} requests wait for {self.peer}"), None)
            return
        request = self._next_id
        self._next_id += 1
        self._pending[request] = on_reply
        self._send(request, message, payload, None)

    async def call(
        self, message: Message, payload: Payload | None = None, *, timeout_s: float = 60.0
    ) -> Message:
        """Ask and wait for the answer.

        Raises:
          GfsError: the peer's refusal, `Unreachable`, or `TimedOut` (outcome unknown).
        """
        answer, _ = await self.call_for_payload(message, payload, timeout_s=timeout_s)
        return answer

    async def call_for_payload(
        self, message: Message, payload: Payload | None = None, *, timeout_s: float = 60.0
    ) -> tuple[Message, memoryview | None]:
        """`call` for answers that carry bytes."""
        return await answer_of(
            lambda on_reply: self.request(message, on_reply, payload),
            f"{type(message).__name__} to {self.peer}",
            timeout_s,
        )

    @contextlib.contextmanager
    def corked(self) -> Iterator[None]:
        """Gather frames sent inside and send them together."""
        self._corks += 1
        try:
            yield
        finally:
            self._corks -= 1
            if not self._corks:
                self._flush()

    async def drain(self, limit_bytes: int = 0) -> None:
        """Wait until at most `limit_bytes` wait to be sent, or the connection ended."""
        while self.queued_bytes > limit_bytes and self.closed is None:
            self._drained = trio.Event()
            await self._drained.wait()

    def _send(
        self,
        identity: int,
        message: Message,
        payload: Payload | None,
        descriptors: list[int] | None,
    ) -> None:
        if self.closed is not None:
            return
        payload_bytes = 0 if payload is None else len(payload)
        head = encode(ENCODER.encode(Envelope(identity, message)), payload_bytes)
        self._outgoing.add(head, payload, descriptors)
        if not self._corks:
            self._flush()

    def _flush(self) -> None:
        """Send what the socket takes now; the sender task does the rest."""
        if self.closed is not None or self._wake_sender.is_set() or not self._outgoing:
            return
        try:
            self._outgoing.flush()
            self._last_sent = trio.current_time()
        except BlockingIOError:
            pass
        except OSError as error:
            self.close(Unreachable(f"{self.peer}: {error.strerror or error}"))
            return
        if self._outgoing:
            self._wake_sender.set()

    async def _sender(self) -> None:
        while True:
            await self._wake_sender.wait()
            try:
                self._outgoing.flush()
            except BlockingIOError:
                self._last_sent = trio.current_time()
                await trio.lowlevel.wait_writable(self._socket)
                continue
            self._last_sent = trio.current_time()
            self._wake_sender = trio.Event()
            self._drained.set()

    # --- receiving

    async def run(self, on_message: OnMessage) -> None:
        """Receive and send until the connection ends; never raises but `Cancelled`.

        `on_message(connection, request, message, payload)`: `request` 0 wants no
        answer. An exception of it other than GfsError is a bug and propagates.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sender)
                nursery.start_soon(self._keep_alive)
                await self._receiver(on_message)
        except* GfsError as errors:
            self.close(typing.cast(GfsError, first_of(errors)))
        except* OSError as errors:
            self.close(Unreachable(f"{self.peer}: {first_of(errors)}"))
        except* trio.ClosedResourceError:
            pass
        finally:
            self.close(Unreachable(f"connection to {self.peer} ended"))

    async def receive_one(self) -> Message:
        """Next message, before `run`: for the handshake alone."""
        while (frame := self._parser.next_header()) is None:
            await self._fill()
        header, payload_bytes = frame
        if payload_bytes:
            raise RemoteProtocolError("payload in the handshake")
        envelope = decode(header)
        if isinstance(envelope.body, Failed):
            raise from_wire(envelope.body.code, envelope.body.text)
        return envelope.body

    async def _receiver(self, on_message: OnMessage) -> None:
        turns = 0
        while True:
            self._corks += 1
            try:
                while (frame := self._parser.next_header()) is not None:
                    header, payload_bytes = frame
                    envelope = decode(header)
                    payload = None
                    if payload_bytes:
                        payload = await self._receive_payload(payload_bytes)
                    self._dispatch(envelope, payload, on_message)
            finally:
                if self.after_burst is not None:
                    self.after_burst()
                self._corks -= 1
            self._flush()
            turns += 1
            if turns % BURST_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
            await self._fill()

    def _dispatch(
        self, envelope: Envelope, payload: memoryview | None, on_message: OnMessage
    ) -> None:
        body = envelope.body
        if envelope.id >= 0:
            if type(body) is Ping:
                return
            try:
                on_message(self, envelope.id, body, payload)
            except GfsError as error:
                self.refuse(envelope.id, error)
            return
        on_reply = self._pending.pop(-envelope.id, None)
        if on_reply is None:
            raise RemoteProtocolError(f"{self.peer} answered a question nobody asked")
        if type(body) is Failed:
            on_reply(from_wire(body.code, body.text), payload)
        else:
            on_reply(body, payload)

    async def _receive_payload(self, length: int) -> memoryview:
        payload = self._pool.take(length)
        done = self._parser.take_payload(payload)
        while done < length:
            done += await self._receive_into(payload[done:])
        return payload

    async def _fill(self) -> None:
        space = self._parser.space()
        self._parser.received(await self._receive_into(space[:RECEIVE_BYTES]))

    async def _receive_into(self, view: memoryview) -> int:
        while True:
            try:
                count = self._receive_nowait(view)
            except BlockingIOError:
                # What others send while we wait must not wait with us.
                held, self._corks = self._corks, 0
                if held and self.after_burst is not None:
                    self.after_burst()  # in the middle of one, for a payload
                self._flush()
                await trio.lowlevel.wait_readable(self._socket)
                self._corks = held
                continue
            if not count:
                raise Unreachable(f"{self.peer} closed the connection")
            self._last_heard = trio.current_time()
            return count

    def _receive_nowait(self, view: memoryview) -> int:
        if not self.is_unix:
            return self._socket.recv_into(view)
        space = socket.CMSG_SPACE(DESCRIPTORS_MAX * 4)
        count, ancillary, _, _ = self._socket.recvmsg_into([view], space)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors = array.array("i")
                descriptors.frombytes(data[: len(data) - len(data) % 4])
                self._descriptors.extend(descriptors)
        return count

    def take_descriptor(self) -> int | None:
        """The next descriptor the peer passed, in order; the caller closes it."""
        return self._descriptors.popleft() if self._descriptors else None

    # --- life and death

    async def _keep_alive(self) -> None:
        while True:
            before = trio.current_time()
            await trio.sleep(PING_S)
            now = trio.current_time()
            if now - before > 2 * PING_S:  # we were held up, not the peer
                self._last_heard = now
            if now - self._last_sent >= PING_S * 0.9:
                self.post(Ping())
            limit = self._silence_limit_s
            if limit is not None and now - self._last_heard > limit:
                raise Unreachable(f"{self.peer} has been silent for {limit} s")

    def silent_for(self) -> float:
        """Seconds since the peer last said anything."""
        return trio.current_time() - self._last_heard

    def on_close(self, callback: Callable[[Connection], None]) -> None:
        """Call back once when the connection ends (at once if it has)."""
        if self.closed is not None:
            callback(self)
        else:
            self._on_close.append(callback)

    def close(self, why: GfsError | None = None) -> None:
        """End it; everything that waits fails with `Unreachable`. Idempotent."""
        if self.closed is not None:
            return
        self.closed = why or Unreachable(f"connection to {self.peer} closed here")
        # Readers and writers that wait on this descriptor number must let go of it
        # before the kernel gives the number to someone else.
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        self._outgoing.clear()
        self._drained.set()
        for descriptor in self._descriptors:
            socket.close(descriptor)
        self._descriptors.clear()
        pending, self._pending = self._pending, {}
        for on_reply in pending.values():
            on_reply(Unreachable(str(self.closed)), None)
        callbacks, self._on_close = self._on_close, []
        for callback in callbacks:
            callback(self)


async def answer_of(
    ask: Callable[[OnReply], None], what: str, timeout_s: float
) -> tuple[Message, memoryview | None]:
    """Ask by callback and wait for the answer and its payload.

    Raises:
      GfsError: the peer's refusal, or `TimedOut`, naming `what` was asked.
    """
    done = trio.Event()
    box: list[tuple[Message | GfsError, memoryview | None]] = []

    def on_reply(answer: Message | GfsError, payload: memoryview | None) -> None:
        box.append((answer, payload))
        done.set()

    ask(on_reply)
    with trio.move_on_after(timeout_s):
        await done.wait()
    if not box:
        raise TimedOut(f"{what}: no answer in {timeout_s} s")
    answer, received = box[0]
    if isinstance(answer, GfsError):
        raise answer
    return answer, received
