"""All small machines of the master joined: the one object that a shell or a simulation drives.

One step: `begin`, then any of the calls of the parts, then `take_records`; once
these are durable and the tables committed, `committed` gives what may leave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gfs.items import INODES
from master.core.decision import Policy
from master.core.engine import Engine, Ready
from master.core.fleet import Fleet
from master.core.joining import Joining
from master.core.machine import Machine
from master.core.shadows import Shadows
from master.core.tables import ReadTables, Tables
from master.core.upkeep import Upkeep

if TYPE_CHECKING:
    from random import Random

    from gfs.records import Record

STALL_S = 1.0  # without a look at the clock: this process did not run
SLOW_ROUND_S = 1.0  # growth, checksums, garbage: at most this often


class Master:
    """See the module's text. Arguments as of `Engine` and `Machine`.

    Args:
      not_before_s: no mutation is decided earlier: an older master may still answer some.
    """

    def __init__(
        self,
        tables: Tables,
        reader: ReadTables,
        *,
        policy: Policy,
        epoch: int,
        position: int,
        last_time_ns: int,
        random: Random,
        lease_s: float,
        safe_start_s: float,
        now_s: float,
        record_at: Callable[[int], Record],
        not_before_s: float = 0.0,
    ) -> None:
        self.engine = Engine(
            tables,
            reader,
            policy=policy,
            epoch=epoch,
            position=position,
            last_time_ns=last_time_ns,
            random=random,
            lease_s=lease_s,
            now_s=now_s,
        )
        self.engine.inode_count = tables.count(INODES)
        self.machine = Machine(self.engine, record_at=record_at)
        self.fleet = Fleet(self.engine, self.machine.seals)
        self.upkeep = Upkeep(
            self.engine, self.machine.seals, self.machine.locks, safe_start_s=safe_start_s
        )
        self.joining = Joining(self.engine, self.machine, self.upkeep)
        self._slow_round_at_s = self._noticed_s = now_s
        self._alone = False
        self.shadows = Shadows(self.engine)
        self._not_before_s = not_before_s
        self.engine.sessions.closed = not self.in_charge(now_s)
        if self.engine.sessions.gate_open():
            self.upkeep.adopt_orphans()

    def notice(self, now_s: float, silent_s: float = 0.0) -> None:
        """Say what time it is; call at least every 100 ms, in a step or not.

        A master that was stopped, or held up by its disk, must not hold against its sessions
        that it has not read their renewals yet. Nor must one that hears nobody at all: not
        everybody is gone, it is cut off itself.

        Args:
          silent_s: for so long no session and no chunk server was heard; infinite if there is none.
        """
        self._alone = silent_s > STALL_S
        self._pass_time(now_s)

    def _pass_time(self, now_s: float) -> None:
        gap_s = now_s - self._noticed_s
        if gap_s > STALL_S or (self._alone and gap_s > 0):
            self.engine.sessions.extend(gap_s)
        self._noticed_s = max(now_s, self._noticed_s)

    def in_charge(self, now_s: float) -> bool:
        """May anything be answered that changes something? (GFS §5.1.3)"""
        return now_s >= self._not_before_s and self.shadows.hears_majority(now_s)

    def may_answer(self, position: int, changed: bool, now_s: float) -> bool:
        """May what depends on records up to `position` leave? `changed`: some are new."""
        known = self.shadows.may_leave(position, now_s)
        return known and (not changed or self.shadows.hears_majority(now_s))

    def step_down(self) -> None:
        """Decide nothing any more: a shadow takes over."""
        self._not_before_s = float("inf")
        self.engine.sessions.closed = True

    def begin(self, now_s: float, now_ns: int) -> None:
        """A step starts."""
        self._pass_time(now_s)
        if not self.in_charge(now_s):
            self.engine.sessions.closed = True
        self.engine.advance(now_s, now_ns)

    def tick(self) -> None:
        """Time has passed; call at least every 100 ms, inside a step."""
        engine = self.engine
        if engine.sessions.closed and self.in_charge(engine.now_s):
            engine.sessions.closed = False
            self.joining.after_end()
        if engine.sessions.expired(engine.now_s):
            self.upkeep.expire_sessions()
            self.joining.after_end()
        self.fleet.abandoned.tick()
        self.machine.seals.tick()
        self.fleet.barriers.tick()
        self.fleet.repair.tick()
        self.machine.resume_waiting()
        self.upkeep.reclaim_orphans()
        self.upkeep.count_quotas()
        if engine.now_s - self._slow_round_at_s >= SLOW_ROUND_S:
            self._slow_round_at_s = engine.now_s
            self.fleet.log_growth()
            self.fleet.abandoned.slow_round()
            self.upkeep.log_condensed()
            self.upkeep.run()
            if self.upkeep.may_destroy():
                self.fleet.strays.run()
                self.fleet.quarantine.run()
            self.fleet.look_after_copies(may_destroy=self.upkeep.may_destroy())

    def has_due_work(self, now_s: float) -> bool:
        """Is a tick worth a step now?"""
        engine = self.engine
        return bool(
            self.machine.seals.has_due_work(now_s)
            or self.machine.has_due_work()
            or engine.closed_orphans
            or self.upkeep.has_to_count()
            or self.fleet.abandoned.is_due(now_s)
            or self.fleet.barriers.is_due()
            or self.fleet.repair.has_due_work(now_s)
            or engine.sessions.expired(now_s)
            or (engine.sessions.closed and self.in_charge(now_s))
            or now_s - self._slow_round_at_s >= SLOW_ROUND_S
        )

    def take_records(self) -> list[Record]:
        return self.engine.take_records()

    def committed(self) -> Ready:
        return self.engine.committed()
