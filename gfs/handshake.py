"""Who is there: cluster id, protocol revision and proof of the key, both ways.

The server speaks first with a nonce; each side proves the key by an HMAC over
both nonces and its role, so a recorded handshake is worthless and neither
side gives the key away. On a Unix socket a caller without the key is let in
as the user the kernel says it is, and as nobody else.

Also here: dialling an address and listening, since both end in a handshake.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import trio

from gfs.buffers import BufferPool
from gfs.connection import Connection
from gfs.envelope import Failed
from gfs.errors import (
    BadKey,
    GfsError,
    RemoteProtocolError,
    Unreachable,
    UsageError,
    WrongCluster,
)
from gfs.messages import REVISION, Challenge, Hello, Welcome

_M = TypeVar("_M")

NONCE_BYTES = 16
KEY_BYTES = 32
HANDSHAKE_S = 5.0
BACKLOG = 256


def load_key(path: Path) -> bytes:
    """The cluster's key.

    Raises:
      UsageError: missing, too short, or readable by others than its owner.
    """
    try:
        mode = path.stat().st_mode
        key = path.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"cannot read the cluster key {path}: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise UsageError(f"{path} is open to others: chmod 600 {path}")
    if len(key) < KEY_BYTES:
        raise UsageError(f"{path} holds no cluster key (shorter than {KEY_BYTES} bytes)")
    return key


def create_key(path: Path) -> bytes:
    """A new random key in a file that only its owner can read; an existing one is kept."""
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(KEY_BYTES).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    return load_key(path)


def host_id() -> str:
    """Equal for processes that can reach each other's Unix sockets by path.

    Boot id and the mount namespace: two containers on one host may see
    different files at the same path.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.stat('/proc/self/ns/mnt').st_ino}"


def _proof(key: bytes, role: bytes, server_nonce: bytes, client_nonce: bytes) -> bytes:
    return hmac.digest(key, role + server_nonce + client_nonce, hashlib.sha256)


async def accept(
    connection: Connection,
    *,
    key: bytes,
    cluster: str,
    epoch: int,
    keyless: bool,
    leads: bool = True,
) -> str:
    """Server's side; returns the peer's role.

    `keyless` allows callers without the key on a Unix socket; then
    `connection.authorised_uid` is set. `leads` False says that a shadow master speaks.

    Raises:
      GfsError: the stranger was refused and told why.
    """
    nonce = secrets.token_bytes(NONCE_BYTES)
    connection.post(Challenge(REVISION, cluster, nonce))
    try:
        hello = await _receive(connection, Hello)
        _check(hello.revision, cluster, hello.cluster)
        if hello.proof:
            expected = _proof(key, b"client" + hello.role.encode(), nonce, hello.nonce)
            if not hmac.compare_digest(expected, hello.proof):
                raise BadKey("the caller does not have this cluster's key")
        elif keyless and connection.is_unix:
            connection.authorised_uid = connection.peer_uid
        else:
            raise BadKey("this cluster's key is needed")
    except GfsError as error:
        connection.post(Failed(error.code, str(error)))
        raise
    connection.post(Welcome(_proof(key, b"server", nonce, hello.nonce), epoch, leads))
    return hello.role


async def introduce(
    connection: Connection, *, key: bytes | None, cluster: str, role: str
) -> Welcome:
    """Client's side. `cluster` "" accepts any; `key` None relies on the Unix socket.

    Raises:
      BadKey, WrongCluster, RemoteProtocolError, Unreachable
    """
    challenge = await _receive(connection, Challenge)
    _check(challenge.revision, cluster or challenge.cluster, challenge.cluster)
    nonce = secrets.token_bytes(NONCE_BYTES)
    proof = _proof(key, b"client" + role.encode(), challenge.nonce, nonce) if key else b""
    connection.post(Hello(REVISION, cluster, proof, nonce, role))
    welcome = await _receive(connection, Welcome)
    if key and not hmac.compare_digest(
        welcome.proof, _proof(key, b"server", challenge.nonce, nonce)
    ):
        raise BadKey(f"{connection.peer} does not have this cluster's key")
    return welcome


async def _receive(connection: Connection, kind: type[_M]) -> _M:
    with trio.move_on_after(HANDSHAKE_S):
        message = await connection.receive_one()
        if not isinstance(message, kind):
            raise RemoteProtocolError(f"{kind.__name__} expected, {type(message).__name__} came")
        return message
    raise Unreachable(f"{connection.peer}: no handshake within {HANDSHAKE_S} s")


def _check(revision: int, cluster: str, theirs: str) -> None:
    if revision != REVISION:
        raise RemoteProtocolError(f"protocol revision {revision}, this program speaks {REVISION}")
    if cluster and theirs and cluster != theirs:
        raise WrongCluster(f"cluster {theirs}, not {cluster}")


# --- sockets -------------------------------------------------------------------------


def parse_address(address: str) -> tuple[str, int]:
    """ "host:port" or "[v6]:port".

    Raises:
      UsageError: it is neither.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{address!r} is no address of the form HOST:PORT")
    return host.strip("[]"), int(port)


async def dial(
    address: str,
    *,
    unix: str = "",
    key: bytes | None,
    cluster: str,
    role: str,
    pool: BufferPool | None = None,
    silence_limit_s: float | None = None,
    timeout_s: float = HANDSHAKE_S,
) -> Connection:
    """Connect and introduce ourselves; the caller keeps `run` going.

    Raises:
      Unreachable: nobody listens there, or not in time.
      GfsError: the handshake was refused.
    """
    sock = await _connect(address, unix, timeout_s)
    connection = Connection(sock, peer=unix or address, pool=pool, silence_limit_s=silence_limit_s)
    try:
        welcome = await introduce(connection, key=key, cluster=cluster, role=role)
        connection.peer_epoch, connection.peer_leads = welcome.epoch, welcome.leads
    except BaseException as error:
        connection.close(error if isinstance(error, GfsError) else None)
        if isinstance(error, OSError):
            raise Unreachable(f"{connection.peer}: {error.strerror or error}") from None
        raise
    return connection


async def _connect(address: str, unix: str, timeout_s: float) -> socket.socket:
    where = unix or address
    try:
        with trio.fail_after(timeout_s):
            if unix:
                stream = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                target: str | tuple[str, int] = unix
            else:
                found = await trio.socket.getaddrinfo(
                    *parse_address(address), type=socket.SOCK_STREAM
                )
                family, kind, _, _, target = found[0]  # type: ignore[assignment]
                stream = trio.socket.socket(family, kind)
            try:
                await stream.connect(target)
            except BaseException:
                stream.close()
                raise
    except trio.TooSlowError:
        raise Unreachable(f"{where}: no connection within {timeout_s} s") from None
    except OSError as error:
        raise Unreachable(f"{where}: {error.strerror or error}") from None
    return socket.socket(stream.family, stream.type, fileno=stream.detach())


def listen(address: str, unix: str = "") -> list[socket.socket]:
    """Listening sockets; port 0 takes a free one (`getsockname` tells).

    Raises:
      UsageError: the port is in use or the address is not this host's.
    """
    host, port = parse_address(address)
    found: list[socket.socket] = []
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        tcp = socket.socket(family, socket.SOCK_STREAM)
        found.append(tcp)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((host, port))
        if unix:
            local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            found.append(local)
            with suppress(FileNotFoundError):  # the data directory's lock is ours already
                os.unlink(unix)
            local.bind(unix)
            os.chmod(unix, 0o666)  # who may do what is decided by credentials, not by the path
        for sock in found:
            sock.listen(BACKLOG)
            sock.setblocking(False)
    except OSError as error:
        for sock in found:
            sock.close()
        raise UsageError(f"cannot listen on {address} {unix}: {error.strerror or error}") from None
    return found


async def serve(
    listeners: list[socket.socket],
    handle: Callable[[Connection], Awaitable[None]],
    *,
    pool: BufferPool | None = None,
    silence_limit_s: float | None = None,
) -> None:
    """Accept for ever; one task a connection. `handle` does the handshake and `run`.

    An error of one connection is its own; running out of descriptors makes a pause.
    """
    async with trio.open_nursery() as nursery:

        async def one(sock: socket.socket) -> None:
            host, peer = "", "unix"
            if sock.family != socket.AF_UNIX:
                host, port = sock.getpeername()[:2]
                peer = f"{host}:{port}"
            connection = Connection(sock, peer=peer, pool=pool, silence_limit_s=silence_limit_s)
            connection.host = host
            try:
                await handle(connection)
            except (GfsError, OSError) as error:
                connection.close(error if isinstance(error, GfsError) else None)
            finally:
                connection.close()

        async def accept_from(listener: socket.socket) -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(listener)
                    continue
                except OSError:
                    await trio.sleep(0.1)
                    continue
                nursery.start_soon(one, sock)

        for listener in listeners:
            nursery.start_soon(accept_from, listener)
