"""Where masters may be, and the way to the one in charge.

A setting names one address, or several with commas between them: the master and its
shadows, in any order. Unix sockets stand in the same order, none where there is none. Of
those that answer, the one with the highest epoch that leads is in charge (GFS §5.1.3).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import trio

from gfs.connection import Connection
from gfs.errors import GfsError, NotReady, Unreachable
from gfs.handshake import dial

OTHERS_S = 0.25  # waited for those of a perhaps higher epoch, once one in charge has answered
DIAL_S = 2.0  # for each, when there are others


@dataclass(frozen=True)
class MasterPlace:
    """One master: HOST:PORT and, on its own host, a Unix socket."""

    address: str
    unix: str = ""

    def ways(self, *, by_tcp: bool) -> list[str]:
        """Unix sockets to try in turn, "" being TCP."""
        local = [self.unix] if self.unix and (os.path.exists(self.unix) or not by_tcp) else []
        return [*local, ""] if self.address and (by_tcp or not local) else local or [""]


def places(addresses: str, unix: str = "") -> list[MasterPlace]:
    """The places that two settings name; never empty."""
    tcp, local = addresses.split(","), unix.split(",")
    count = max(len(tcp), len(local))
    tcp += [""] * (count - len(tcp))
    local += [""] * (count - len(local))
    found = [MasterPlace(one.strip(), path.strip()) for one, path in zip(tcp, local, strict=True)]
    return [place for place in found if place.address or place.unix] or [MasterPlace("")]


@dataclass(frozen=True)
class Caller:
    """Who dials, and what it proves."""

    key: bytes | None
    cluster: str
    role: str
    silence_limit_s: float | None = None
    timeout_s: float = 5.0


async def dial_place(place: MasterPlace, caller: Caller) -> Connection:
    """A connection whose handshake is done; by the Unix socket where there is one.

    Raises:
      Unreachable: nobody answers. GfsError: we are refused.
    """
    error: GfsError = Unreachable("no address of a master is known")
    for unix in place.ways(by_tcp=caller.key is not None):
        try:
            return await dial(
                place.address,
                unix=unix,
                key=caller.key,
                cluster=caller.cluster,
                role=caller.role,
                silence_limit_s=caller.silence_limit_s,
                timeout_s=caller.timeout_s,
            )
        except Unreachable as failed:
            error = failed
    raise error


async def dial_leader(
    known: list[MasterPlace], caller: Caller, *, epoch: int = 0, shadow: bool = False
) -> Connection:
    """A connection to the master in charge.

    Args:
      epoch: of a master heard before: one of a lower epoch is not in charge any more.
      shadow: a shadow will do, and is preferred.

    Raises:
      Unreachable: none answers. NotReady: only shadows, or old masters, do.
      GfsError: we are refused.
    """
    if len(known) == 1:
        connection = await dial_place(known[0], caller)
        return _chosen([connection], [], epoch=epoch, shadow=shadow)
    connections, failures = await _dial_all(known, caller, epoch=epoch, shadow=shadow)
    return _chosen(connections, failures, epoch=epoch, shadow=shadow)


async def _dial_all(
    known: list[MasterPlace], caller: Caller, *, epoch: int, shadow: bool
) -> tuple[list[Connection], list[GfsError]]:
    connections: list[Connection] = []
    failures: list[GfsError] = []

    async def one(place: MasterPlace, scope: trio.CancelScope) -> None:
        try:
            connection = await dial_place(place, caller)
        except GfsError as error:
            failures.append(error)
            return
        connections.append(connection)
        if connection.peer_leads != shadow and connection.peer_epoch >= epoch:
            scope.deadline = min(scope.deadline, trio.current_time() + OTHERS_S)

    with trio.move_on_after(DIAL_S) as scope:
        async with trio.open_nursery() as nursery:
            for place in known:
                nursery.start_soon(one, place, scope)
    return connections, failures


def _not_in_charge(connection: Connection) -> NotReady:
    if connection.peer_leads:
        return NotReady(f"the master at {connection.peer} has been superseded")
    return NotReady(f"no master answers, only the shadow at {connection.peer} (--shadow asks it)")


def _chosen(
    connections: list[Connection], failures: list[GfsError], *, epoch: int, shadow: bool
) -> Connection:
    """The best of those that answered; the others are closed."""

    def rank(connection: Connection) -> tuple[bool, int]:
        return connection.peer_leads != shadow, connection.peer_epoch

    ranked = sorted(connections, key=rank, reverse=True)
    best = ranked[0] if ranked else None
    if best is not None and not shadow and (not best.peer_leads or best.peer_epoch < epoch):
        failures = [_not_in_charge(best), *failures]
        best = None
    for connection in connections:
        if connection is not best:
            connection.close()
    if best is None:
        if not failures:
            raise Unreachable("no master answers")
        raise next((one for one in failures if not isinstance(one, Unreachable)), failures[0])
    return best
