"""A view that follows the log through crashes of its own, and must equal a fold from zero.

Lines are made of committed records as the stream makes them, and go through the follower,
the batches and the store of the product. Its process dies now and then, between any two
batches, and begins again at the cursor in its store.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from gfs import changes
from gfs.changes import Cursor
from gfs.config import ProjectionsConfig
from gfs.records import DECODER, Record
from projections.core.following import Follower
from projections.search_view import SearchView
from projections.storage import Store
from tests.sim.kernel import SimulationError
from tests.unit.projections.views import SEARCH_DUMPS

if TYPE_CHECKING:
    from tests.sim.parts import Parts

PAUSE_S = (0.1, 2.0)
RECORDS = (1, 3, 20, 200)  # that one response gives


class FollowingView:
    """The search view, behind by a random while.

    Attributes:
      crashes: how often it has begun anew.
    """

    def __init__(self, parts: Parts, directory: Path, chance: Random) -> None:
        self.crashes = 0
        self._parts = parts
        self._chance = chance
        self._path = directory / "search.db"
        self._view = SearchView(ProjectionsConfig())
        self._open()

    def _open(self) -> None:
        self._store: Store = self._view.open_store(self._path, None)
        self._follower = Follower(self._store.cursor)
        self._asked = self._store.cursor
        self._last = str(self._asked)  # what the next event says came before it

    def start(self) -> None:
        """Follow from now on."""
        self._parts.world.after(self._chance.uniform(*PAUSE_S), self._turn)

    def _turn(self) -> None:
        if self._chance.random() < 0.1:
            self.crashes += 1
            self._store.close()
            self._open()
        self.follow(self._chance.choice(RECORDS))
        self.start()

    def follow(self, count: int) -> bool:
        """Take some records in; False: there were none."""
        machine = self._parts.master
        if machine.ledger is None or machine.core is None or not machine.alive:
            return False
        committed = machine.core.engine.committed_position
        records: list[Record] = []
        after = self._asked.position + 1
        for position, payload in machine.witness.scan(machine.ledger, after):
            if position > committed or len(records) == count:
                break
            records.append(DECODER.decode(payload))
        if not records:
            return False
        events, previous = [], self._last
        for record in records:
            some = changes.events_of(record)
            previous = changes.chain(some, previous)
            events += some
        self._follower.take(changes.decode_lines(changes.encode(events)))
        self._asked = Cursor(records[-1].epoch, records[-1].position)
        self._last = previous
        self._write()
        return True

    def _write(self) -> None:
        while (batch := self._follower.batch(self._chance.choice((1, 10, 1000)))) is not None:
            self._store.write(partial(self._view.apply, batch), batch.cursor)
            if self._chance.random() < 0.05:  # dies between two batches
                self.crashes += 1
                self._store.close()
                self._open()
                return

    def check(self, records: list[Record]) -> None:
        """Catch up, then compare with a view that was built at once."""
        while self.follow(1000):
            pass
        fresh = self._view.open_store(self._path.with_name("fresh.db"), None)
        follower = Follower(fresh.cursor)
        events, previous = [], str(fresh.cursor)
        for record in records:
            some = changes.events_of(record)
            previous = changes.chain(some, previous)
            events += some
        follower.take(changes.decode_lines(changes.encode(events)))
        while (batch := follower.batch(1 << 30)) is not None:
            fresh.write(partial(self._view.apply, batch), batch.cursor)
        for name, sql in SEARCH_DUMPS.items():
            ours, theirs = _rows(self._store, sql), _rows(fresh, sql)
            if ours != theirs:
                raise SimulationError(f"the view differs from a fold in {name}: {ours ^ theirs}")
        fresh.close()


def _rows(store: Store, sql: str) -> set[Any]:
    found: list[Any] = []
    store.write(lambda connection: found.extend(connection.execute(sql)), store.cursor)
    return set(found)
