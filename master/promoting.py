"""A shadow, or a master that starts again, becomes the master in charge (GFS §5.1.3).

    1. ask a majority of the chunk servers what they know: nobody is disturbed in vain
    2. have the old master step down, if it is there, and follow it to its end
    3. have a majority promise a new epoch: from now on no older master can act
    4. compare what they have heard with the log; begin the epoch, or say what is missing

What is decided here is arithmetic in `master.core.promotion`; this asks and writes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import trio

from gfs import messages as m
from gfs.connection import Connection
from gfs.errors import GfsError, NotReady, Refused, TooFewServers
from gfs.items import SERVERS
from master.core import promotion
from master.core.promotion import Heard
from master.core.shadows import SERVERS_MAX
from master.follower import Follower
from master.opening import Opened

log = logging.getLogger(__name__)

PROMISE_S = 3.0
STEP_DOWN_S = 3.0
CATCH_UP_S = 10.0


class Missing(Refused):
    """Others have heard of records that this log does not have."""

    code = "log-behind"


@dataclass(frozen=True)
class Lead:
    """This directory leads from now on; its epoch is begun.

    `wait_s`: an older master may still answer mutations for so long.
    """

    wait_s: float


class Promotion:
    """See the module's text. `servers`: connections to chunk servers."""

    def __init__(
        self, opened: Opened, servers: Mapping[int, Connection], follower: Follower | None
    ) -> None:
        self._opened = opened
        self._servers = servers
        self._follower = follower
        self._running = trio.Lock()

    def known(self) -> list[int]:
        """Chunk servers in the state."""
        state = self._opened.ledger.state
        return [int(key[0]) for key, _ in state.scan(SERVERS, limit=SERVERS_MAX)]

    def has_majority(self) -> bool:
        """Are enough chunk servers connected to ask?"""
        known = self.known()
        there = sum(server in self._servers for server in known)
        return there >= promotion.majority(len(known)) or not known

    async def run(self, lose: int) -> Lead:
        """Begin an epoch; at most `lose` committed positions may be missing.

        Raises:
          TooFewServers: no majority answers. Missing: the log is behind.
          GfsError: our disk failed.
        """
        async with self._running:
            stepped_down = await self._prepare(lose)
            ledger, node = self._opened.ledger, self._opened.node
            known = await self._ask(0)
            epoch = promotion.epoch_to_begin(ledger.epoch, known)
            said = await self._ask(epoch, node)
            lost = self._check(said, lose)
            if self._follower is not None:
                await self._follower.stop()
            wait_s = promotion.wait_s(self._opened.led_epoch, known)
            self._opened.lead(epoch, loses=lost > 0)
            log.warning("master.promoted epoch=%d lost=%d", epoch, lost)
            return Lead(0.0 if stepped_down else wait_s)

    async def _prepare(self, lose: int) -> bool:
        """Before anybody is disturbed; whether the old master has stepped down."""
        said = await self._ask(0)
        follower = self._follower
        connection = follower.connection if follower else None
        if follower is None or connection is None:
            self._check(said, lose)
            return False
        try:
            ended = await connection.call(m.StepDown(), timeout_s=STEP_DOWN_S)
        except GfsError as error:
            log.warning("master.does-not-step-down %s", error)
            self._check(said, lose)
            return False
        if not isinstance(ended, m.SteppedDown):
            raise NotReady(f"SteppedDown expected, got {type(ended).__name__}")
        if not await follower.wait_for(ended.position, CATCH_UP_S):
            raise NotReady(f"the old master ends at {ended.position}, which did not come in time")
        return True

    def _check(self, said: Iterable[Heard], lose: int) -> int:
        """How many positions are missing.

        Raises:
          Missing: more than `lose`.
        """
        ledger = self._opened.ledger
        own = ledger.epoch, ledger.position
        lost = promotion.missing(own, said)
        if lost > lose:
            raise Missing(
                f"{lost} position(s) that chunk servers have heard of are missing: this log ends"
                f" at {own[1]} in epoch {own[0]} (--lose {lost} gives them up)"
            )
        return lost

    async def _ask(self, epoch: int, candidate: int = 0) -> list[Heard]:
        """What a majority answers.

        Raises:
          TooFewServers: it does not.
        """
        known = self.known()
        needed = promotion.majority(len(known)) if known else 0
        said: list[Heard] = []

        async def one(connection: Connection) -> None:
            try:
                answer = await connection.call(m.Promise(epoch, candidate), timeout_s=PROMISE_S)
            except GfsError as error:
                log.warning("promise.refused server=%s why=%s", connection.peer, error)
                return
            if isinstance(answer, m.Promised):
                said.append(Heard(answer.epoch, (answer.heard_epoch, answer.heard)))

        async with trio.open_nursery() as nursery:
            for server in known:
                if server in self._servers:
                    nursery.start_soon(one, self._servers[server])
        if len(said) < needed:
            raise TooFewServers(
                f"{len(said)} of {len(known)} chunk servers answer, {needed} are needed"
            )
        return said
