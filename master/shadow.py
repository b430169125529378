"""`gfs master --follow`: a shadow master, until it is promoted or stopped (GFS §5.1.3).

It follows the log, serves reads that may be old and say so, and hears chunk servers as the
master does. The same process, with nothing to follow, is a *candidate*: a master that
starts, and that others could have superseded, asks a majority of the chunk servers
before it begins an epoch.
"""

from __future__ import annotations

import logging
from functools import partial

import msgspec
import trio

from gfs import messages as m
from gfs import readiness
from gfs.connection import Connection
from gfs.errors import DeadSession, GfsError, NotReady, RemoteProtocolError
from gfs.handshake import accept, listen, serve
from gfs.items import LANDED
from gfs.messages import Message
from gfs.serving import common_application, serve_http
from master.connections import Peer, Peers
from master.core.exports import OPERATORS
from master.core.fleet import HEARTBEAT_S
from master.core.servers import LiveServer
from master.follower import BeginAnew, Follower
from master.housekeeping import Housekeeping
from master.opening import Opened
from master.promoting import Lead, Missing, Promotion
from master.shadow_reads import Reported, ShadowReads

log = logging.getLogger(__name__)

SILENCE_S = 1.5
CANDIDATE_PAUSE_S = 0.05
ANSWER_S = 0.2  # for the answer to whoever promoted us, before we begin to lead


class Superseded(Missing):
    """This master's log is not the newest: another has been promoted since."""


class Shadow:
    """One life as a shadow or candidate. `run` once."""

    def __init__(self, opened: Opened, key: bytes, *, candidate: bool) -> None:
        self._opened = opened
        self._key = key
        self._candidate = candidate
        self._config = opened.config
        self._exports = opened.exports
        self._peers = Peers()
        changed = NotReady("the exports have changed")
        self._exports.on_change = partial(self._peers.close_clients, changed)
        self._connections: dict[int, Connection] = {}  # chunk servers
        self._servers = Reported()
        self._reads = ShadowReads(
            opened.ledger.state.reader(),
            self._servers,
            chunk_bytes=self._config.chunk_bytes,
            goal=self._config.goal,
            applied=self._applied,
        )
        self._follower: Follower | None = None
        self._promotion = Promotion(opened, self._connections, None)
        self._nursery: trio.Nursery | None = None
        self._outcome: Lead | BeginAnew | Superseded | None = None

    async def run(self) -> Lead | BeginAnew:
        """Serve until this directory leads, or is to be filled anew.

        Raises:
          Superseded: a candidate's log is not the newest.
          GfsError: the disk failed. UsageError: an address cannot be bound.
        """
        config, ledger = self._config, self._opened.ledger
        if self._candidate and not self._promotion.known():
            return await self._promotion.run(0)  # nobody could have promoted anybody
        listeners = listen(config.address, config.unix)
        bound = config.advertise or "{}:{}".format(*listeners[0].getsockname()[:2])
        keeping = Housekeeping(
            ledger,
            self._marks,
            checkpoint_records=config.checkpoint_records,
            retain_bytes=config.log_retain_bytes,
            retain_s=config.log_retain_s,
        )
        app = common_application(
            daemon="master", key=self._key, health=self._health, statistics=self._health
        )
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(
                    partial(serve, listeners, self._handle, silence_limit_s=SILENCE_S)
                )
                nursery.start_soon(keeping.run)
                http = await nursery.start(serve_http, app, config.http, config.http_unix)
                if self._candidate:
                    nursery.start_soon(self._stand)
                else:
                    self._follow(nursery, bound)
                    readiness.announce(config.ready_file, address=bound, http=http)
                log.info(
                    "%s.serving address=%s position=%d",
                    "candidate" if self._candidate else "shadow", bound, ledger.position,
                )  # fmt: skip
        finally:
            for listener in listeners:
                listener.close()
        assert self._outcome is not None
        if isinstance(self._outcome, Superseded):
            raise self._outcome
        return self._outcome

    def _follow(self, nursery: trio.Nursery, address: str) -> None:
        self._follower = Follower(self._opened, address, self._key)
        self._promotion = Promotion(self._opened, self._connections, self._follower)
        nursery.start_soon(self._run_follower, self._follower)

    async def _run_follower(self, follower: Follower) -> None:
        try:
            await follower.run()
        except BeginAnew as anew:
            self._end(anew)

    def _end(self, outcome: Lead | BeginAnew | Superseded) -> None:
        self._outcome = outcome
        assert self._nursery is not None
        self._nursery.cancel_scope.cancel()

    async def _stand(self) -> None:
        """A candidate asks again until a majority answers."""
        log.info("candidate.waits servers=%d", len(self._promotion.known()))
        while True:
            if self._promotion.has_majority():
                try:
                    self._end(await self._promotion.run(0))
                    return
                except Missing as error:
                    self._end(Superseded(f"another master has been promoted: {error}"))
                    return
                except GfsError as error:
                    log.warning("candidate.refused %s", error)
            await trio.sleep(CANDIDATE_PAUSE_S)

    # --- connections

    async def _handle(self, connection: Connection) -> None:
        role = await accept(
            connection,
            key=self._key,
            cluster=self._opened.cluster,
            epoch=self._opened.ledger.epoch,
            keyless=False,
            leads=False,
        )
        peer = self._peers.add(connection, role)
        on_message = self._on_server if role == "chunkd" else self._on_client
        try:
            await connection.run(partial(on_message, peer))
        finally:
            self._peers.remove(peer)
            if peer.server and self._connections.get(peer.server) is connection:
                del self._connections[peer.server]
                self._servers.remove(peer.server)

    def _on_server(
        self, peer: Peer, connection: Connection, request: int, message: Message,
        _: memoryview | None,
    ) -> None:  # fmt: skip
        if isinstance(message, m.RegisterServer):
            server = message.member.server
            self._servers.register(
                LiveServer(
                    message.member, message.boot, message.free_bytes, message.total_bytes,
                    message.http,
                )
            )  # fmt: skip
            self._peers.bind_server(peer, server)
            self._connections[server] = connection
            epoch, chunk_bytes = self._opened.ledger.epoch, self._config.chunk_bytes
            answer = m.ServerRegistered(epoch, HEARTBEAT_S, chunk_bytes, leads=False)
            connection.reply(request, answer)
        elif isinstance(message, m.ReportReplicas):
            self._servers.take(peer.server, message)
            connection.reply(request, m.Ok())
        elif isinstance(message, m.Heartbeat):
            live = self._servers.live.get(peer.server)
            if live is not None:
                live.free_bytes, live.total_bytes = message.free_bytes, message.total_bytes
        else:
            raise RemoteProtocolError(f"{type(message).__name__} from a chunk server")

    def _on_client(
        self, peer: Peer, connection: Connection, request: int, message: Message,
        _: memoryview | None,
    ) -> None:  # fmt: skip
        if peer.role == "shadow":
            raise NotReady("a shadow has no log to follow")
        if type(message) in OPERATORS:
            self._exports.require_operator(connection.host)
        if isinstance(message, m.OpenSession):
            connection.reply(request, self._opened_session(peer, message))
        elif isinstance(message, m.ClusterStatus):
            connection.reply(request, m.Status(msgspec.json.encode(self.status())))
        elif isinstance(message, m.Promote):
            assert self._nursery is not None
            self._nursery.start_soon(self._promote, connection, request, message)
        elif self._exports.rules and not peer.session:
            raise DeadSession("no session is open on this connection")
        else:
            connection.reply(request, self._reads.answer(message, peer.confines))

    def _opened_session(self, peer: Peer, ask: m.OpenSession) -> Message:
        if self._candidate or ask.mount:
            raise NotReady("a shadow has no sessions of mounts")
        granted = self._exports.access_of(peer.connection.host, ask.mount)
        confines = peer.confines = self._reads.confine(ask, granted)
        peer.session = 1
        epoch, position = self._applied()
        return m.SessionOpened(
            1, epoch, 0.0, self._config.chunk_bytes, self._opened.cluster, position,
            self._config.goal, notice=self._notice(),
            limits=[] if confines is None else confines.limits,
        )  # fmt: skip

    async def _promote(self, connection: Connection, request: int, ask: m.Promote) -> None:
        if self._candidate:
            connection.refuse(request, NotReady("it becomes the master by itself, if it may"))
            return
        try:
            lead = await self._promotion.run(ask.lose)
        except GfsError as error:
            connection.refuse(request, error)
            return
        connection.reply(request, m.Promoted(*self._applied()))
        with trio.move_on_after(ANSWER_S):
            await connection.drain()
        self._end(lead)

    # --- what it says of itself

    def _applied(self) -> tuple[int, int]:
        state = self._opened.ledger.state
        return int(state.epoch), int(state.position)

    def _behind(self) -> tuple[int, float | None]:
        """Positions and seconds since the master was last heard."""
        follower = self._follower
        if follower is None or follower.heard_s is None:
            return 0, None
        behind = max(0, follower.master_position - self._applied()[1])
        return behind, round(trio.current_time() - follower.heard_s, 1)

    def _notice(self) -> str:
        behind, heard_s = self._behind()
        heard = "not heard yet" if heard_s is None else f"last heard {heard_s} s ago"
        return (
            f"a shadow master answers, as of position {self._applied()[1]}:"
            f" {behind} behind the master, {heard}"
        )

    def _health(self) -> dict[str, object]:
        behind, heard_s = self._behind()
        epoch, position = self._applied()
        return {
            "ok": self._candidate or heard_s is not None,
            "role": "candidate" if self._candidate else "shadow",
            "epoch": epoch,
            "position": position,
            "behind": behind,
            "master_heard_s": heard_s,
        }

    def status(self) -> dict[str, object]:
        """What `gfs status` shows of it."""
        live = self._servers.live
        return {
            "cluster": self._opened.cluster,
            **self._health(),
            "follows": self._config.follow,
            "notice": self._notice(),
            "goal": self._config.goal,
            "servers": [
                {
                    "server": f"{server:016x}",
                    "address": one.member.address,
                    "rack": one.member.rack,
                    "alive": True,
                    "reported": True,
                    "replicas": len(self._servers.reports[server]),
                    "free_bytes": one.free_bytes,
                    "total_bytes": one.total_bytes,
                }
                for server, one in live.items()
            ],
        }

    def _marks(self) -> list[int] | None:
        """Records that sessions may ask for again, should this become the master."""
        found = self._opened.ledger.state.scan(LANDED, limit=100_000)
        return [item.position for key, item in found if key[1]]
