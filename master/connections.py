"""Who is connected to the master, and what each may say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count

from gfs.connection import Connection
from gfs.errors import GfsError
from gfs.messages import Message
from master.core.confining import Confines
from master.core.engine import Answer, Caller


@dataclass
class Peer:
    """A connection after its handshake. `session` or `server` once it said which it is.

    `confines`: of a client of a shadow, which has no sessions to hang them on.
    """

    number: int
    connection: Connection
    role: str
    session: int = 0
    server: int = 0
    confines: Confines | None = None


class Peers:
    """Connections by number, session and chunk server; the newest of each counts."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._by_number: dict[int, Peer] = {}
        self._sessions: dict[int, Peer] = {}
        self._servers: dict[int, Peer] = {}

    def add(self, connection: Connection, role: str) -> Peer:
        peer = Peer(next(self._numbers), connection, role)
        self._by_number[peer.number] = peer
        return peer

    def remove(self, peer: Peer) -> None:
        """It ended; a newer one of the same session or server stays."""
        del self._by_number[peer.number]
        if self._sessions.get(peer.session) is peer:
            del self._sessions[peer.session]
        if self._servers.get(peer.server) is peer:
            del self._servers[peer.server]

    def bind_session(self, peer: Peer, session: int) -> None:
        """The session speaks through this connection from now on."""
        old = self._sessions.get(session)
        if old is not None and old is not peer:
            old.session = 0
            old.connection.close()
        peer.session = session
        self._sessions[session] = peer

    def bind_server(self, peer: Peer, server: int) -> None:
        """The chunk server speaks through this connection from now on."""
        old = self._servers.get(server)
        if old is not None and old is not peer:
            old.server = 0
            old.connection.close()
        peer.server = server
        self._servers[server] = peer

    def of_session(self, session: int) -> Connection | None:
        peer = self._sessions.get(session)
        return peer.connection if peer else None

    def of_server(self, server: int) -> Connection | None:
        peer = self._servers.get(server)
        return peer.connection if peer else None

    def reply(self, caller: Caller, answer: Answer) -> None:
        """To the connection that asked, if it is still there."""
        peer = self._by_number.get(caller[0])
        if peer is None:
            return
        if isinstance(answer, GfsError):
            peer.connection.refuse(caller[1], answer)
        else:
            peer.connection.reply(caller[1], answer)

    def close_session(self, session: int) -> None:
        """It is dead: its next request shall find out."""
        peer = self._sessions.pop(session, None)
        if peer is not None:
            peer.session = 0

    def all(self) -> list[Connection]:
        return [peer.connection for peer in self._by_number.values()]

    def silent_for(self) -> float:
        """Seconds since any session or chunk server was heard; infinite if none is connected."""
        peers = (*self._sessions.values(), *self._servers.values())
        return min((peer.connection.silent_for() for peer in peers), default=math.inf)

    def close_clients(self, why: GfsError) -> None:
        """Mounts and commands: they dial anew and take their sessions up again."""
        for peer in list(self._by_number.values()):
            if peer.role == "client":
                peer.connection.close(why)

    def post_all(self, message: Message) -> None:
        """One way, to every chunk server."""
        for peer in self._servers.values():
            peer.connection.post(message)
