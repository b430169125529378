"""The turning parts of the master's machine: time, numbers, records, orders, answers.

What must leave only after COMMIT is gathered here during a step and handed out
by `committed`: answers, the master's own requests, and, computed at that
moment, the invalidations that answers have to wait for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gfs import ids
from gfs.errors import GfsError, Unreachable
from gfs.items import ORPHANS, SESSIONS
from gfs.messages import Actor, Message
from gfs.records import InodeChange, OrphanChange, Record, RecordActor, TrashChange
from master.core.charging import charge
from master.core.chunks import Chunks
from master.core.coherence import Stale, inode_holders, stale_for
from master.core.confining import Confines
from master.core.decision import Decision, Policy
from master.core.queries import Queries
from master.core.realms import Realms, all_quotas
from master.core.registry import Registry
from master.core.servers import Servers
from master.core.sessions import Sessions
from master.core.tables import ReadTables, Tables
from master.core.transaction import Transaction, apply

if TYPE_CHECKING:
    from random import Random

SYSTEM = Actor(0, 0)

Caller = tuple[int, int]  # connection, request: opaque here
Answer = Message | GfsError
OnAnswer = Callable[[Answer], None]


@dataclass(frozen=True)
class Send:
    """A request of the master's own; its answer comes back through `answered`."""

    to_session: int  # one of these two is set
    to_server: int
    message: Message
    token: int


@dataclass
class Ready:
    """What may leave now that everything before it is durable.

    replies: answers to callers.
    sends: may be lost; the machine hears of that as an error answer.
    ended: sessions that are dead: their connections are to be closed.
    """

    replies: list[tuple[Caller, Answer]] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)


@dataclass
class Pending:
    """A request under way.

    `positions`: its answer waits until everybody has dropped what these records
    changed; `tokens`: and until these orders are obeyed; `uncache`: inodes whose
    attributes nobody may cache any more; `turn` of the session when it was asked.
    """

    session: int
    caller: Caller | None
    message: Message
    asked_s: float
    positions: set[int] = field(default_factory=set)
    uncache: list[int] = field(default_factory=list)
    recalled: set[tuple[int, int]] = field(default_factory=set)  # (session, inode)
    number: int = 0  # of a mutation; it is in flight until its answer has left
    tokens: set[int] = field(default_factory=set)
    turn: int = 0
    confines: Confines | None = None  # of its session: `message` is in the master's terms
    said: Actor | None = None  # by whom, in the session's own terms


@dataclass
class _Waiting:
    """An answer that waits for acknowledgements of invalidations."""

    pending: Pending
    answer: Answer
    tokens: set[int]


@dataclass(frozen=True)
class _Order:
    """One of ours that has not been answered."""

    session: int
    server: int
    message: Message
    on_answer: OnAnswer


class Engine:
    """See the module's text; `Machine` decides on top of it.

    Args:
      tables: the writing side, inside an open transaction during a step.
      reader: sees exactly what is committed.
      position: last position in the log.
      epoch: of this start; counters of inodes and handles begin anew in it.
      last_time_ns: of the last record: times of records only ever rise.
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
        now_s: float,
    ) -> None:
        self.tables = tables
        self.reader = reader
        self.policy = policy
        self.epoch = epoch
        self.position = self.committed_position = self.first_position = position
        self.random = random
        self.registry = Registry()
        self.servers = Servers()
        self.chunks = Chunks(self.servers, random)
        self.realms = Realms(all_quotas(tables))
        awaited = {int(key[0]) for key, _ in scan_all(tables, SESSIONS)}
        self.sessions = Sessions(awaited, lease_s=lease_s, now_s=now_s)
        self.queries = Queries(reader, self.registry, self.chunks, self.sessions)
        self.orphans = {int(key[0]) for key, _ in scan_all(tables, ORPHANS)}
        self.closed_orphans: set[int] = set()  # nobody holds them any more: upkeep reclaims
        self.doomed: dict[int, None] = {}  # trash on its way out, in the order it came up
        self.inode_count = 0
        self.moves = self.committed_moves = 0  # directories that got another parent
        self.now_s = self.started_s = now_s
        self.now_ns = last_time_ns
        self._inos = self._handles = self._tokens = 0
        self._records: list[Record] = []  # of this step
        self._decided: list[Record] = []  # being made durable
        self._sends: list[Send] = []
        self._ended: list[int] = []
        self._undelivered: list[tuple[Pending, Answer]] = []
        self._waiting: list[_Waiting] = []
        self._orders: dict[int, _Order] = {}
        self.in_flight: dict[tuple[int, int], Pending] = {}  # mutations by session and number

    # --- time, numbers, records

    def advance(self, now_s: float, now_ns: int) -> None:
        """Clocks never run backwards in here, whatever the host's do."""
        self.now_s = max(self.now_s, now_s)
        self.now_ns = max(now_ns, self.now_ns + 1)

    def draw_ino(self, count: int) -> int:
        """The first of `count` consecutive numbers."""
        self._inos += count
        return ids.draw(self.epoch, self._inos) - count + 1

    @property
    def next_handle(self) -> int:
        """Every chunk there is has a lower handle."""
        return ids.draw(self.epoch, self._handles + 1)

    def draw_handle(self) -> int:
        self._handles += 1
        return ids.draw(self.epoch, self._handles)

    def decision(self, session: int, actor: Actor) -> Decision:
        """A fresh view of the tables for one mutation."""
        return Decision(
            Transaction(self.tables),
            self.now_ns,
            self.now_s,
            self.position + 1,
            self.epoch,
            session,
            actor,
            self.registry,
            self.policy,
            self.draw_ino,
            self.draw_handle,
            self.realms,
        )

    def append(self, record: Record) -> None:
        """Apply the record; the caller of the step makes it durable."""
        apply(record, self.tables)
        self.realms.note(record)
        self.position = record.position
        self._records.append(record)
        self.now_ns += 1
        if record.copy is not None:
            self.inode_count += record.copy.count
        for change in record.changes:
            if isinstance(change, OrphanChange):
                self._note_orphan(change.key[0], is_one=change.new is not None)
            elif isinstance(change, TrashChange):
                self._note_trash(change)
            elif isinstance(change, InodeChange):
                if change.old is None or change.new is None:
                    self.inode_count += 1 if change.old is None else -1
                elif change.old.parent != change.new.parent:
                    self.moves += 1

    def _note_orphan(self, ino: int, *, is_one: bool) -> None:
        if not is_one:
            self.orphans.discard(ino)
            return
        self.orphans.add(ino)
        if not self.registry.is_open(ino):
            self.closed_orphans.add(ino)

    def _note_trash(self, change: TrashChange) -> None:
        if change.new is None:
            self.doomed.pop(change.key[0], None)
        elif not change.new.deleted_ns:
            self.doomed[change.key[0]] = None

    def let_go(self, inos: Iterable[int]) -> None:
        """A session holds these no more: what has no name is reclaimed if nobody else does."""
        orphans, registry = self.orphans, self.registry
        self.closed_orphans.update(
            ino for ino in inos if ino in orphans and not registry.is_open(ino)
        )

    def system(self, operation: str, decide: Callable[[Decision], Any]) -> Any:
        """A mutation of the master's own: a record if it changes anything."""
        decision = self.decision(0, SYSTEM)
        result = decide(decision)
        changes = charge(decision)
        if changes:
            actor = RecordActor()
            self.append(
                Record(decision.position, self.epoch, self.now_ns, operation, actor, changes)
            )
        return result

    def on_behalf(self, operation: str, decision: Decision) -> None:
        """A record of what a session asked for without a number, if it changes anything."""
        changes = decision.tx.changes()
        if not changes:
            return
        actor, live = decision.actor, self.sessions.live.get(decision.session)
        who = RecordActor(
            actor.uid, actor.gid, actor.pid, live.host if live else "", live.mount if live else ""
        )
        self.append(
            Record(
                decision.position, self.epoch, self.now_ns, operation, who, changes,
                decision.session,
            )
        )  # fmt: skip

    def has_undurable(self) -> bool:
        """Has something been decided that readers of committed state do not see yet?"""
        return bool(self._records or self._decided)

    def take_records(self) -> list[Record]:
        """What the step decided, to be made durable before `committed`."""
        records, self._records = self._records, []
        self._decided = records
        return records

    # --- orders and their answers

    def order_server(self, server: int, message: Message, on_answer: OnAnswer) -> int:
        """Ask a chunk server, after COMMIT; the callback runs inside a later step."""
        return self._order(0, server, message, on_answer)

    def order_session(self, session: int, message: Message, on_answer: OnAnswer) -> int:
        """Ask a mount. A dead session answers with an error at its end."""
        return self._order(session, 0, message, on_answer)

    def _order(self, session: int, server: int, message: Message, on_answer: OnAnswer) -> int:
        self._tokens += 1
        live = self.sessions.live.get(session) if session else None
        if live is not None and live.confines is not None:
            message = live.confines.outward(message)
        self._orders[self._tokens] = _Order(session, server, message, on_answer)
        self._sends.append(Send(session, server, message, self._tokens))
        return self._tokens

    def acknowledged(self, token: int) -> list[tuple[Caller, Answer]] | None:
        """A session has dropped what it was told to: the answers that waited for that.

        Needs no step, since nothing is decided. None: `answered` is to be called in one.
        """
        order = self._orders.get(token)
        if order is not None and order.on_answer is not _ignore:
            return None
        self._orders.pop(token, None)
        return self._acknowledged()

    def answered(self, token: int, answer: Answer) -> None:
        """An order's answer arrived, or can no longer arrive."""
        order = self._orders.pop(token, None)
        if order is not None:
            order.on_answer(answer)

    def give_up_orders(self, *, session: int = 0, server: int = 0) -> None:
        """Nobody is there any more to answer."""
        for token, order in list(self._orders.items()):
            if (session and order.session == session) or (server and order.server == server):
                self.answered(token, Unreachable("gone"))

    def unanswered(self, session: int) -> list[Send]:
        """A session is back on a new connection: what to send it again."""
        return [
            Send(session, 0, order.message, token)
            for token, order in self._orders.items()
            if order.session == session
        ]

    # --- answers

    def answer(self, pending: Pending, answer: Answer) -> None:
        """Answer once this step is durable and whoever must has acknowledged."""
        self._undelivered.append((pending, answer))

    def end_connection(self, session: int) -> None:
        self._ended.append(session)

    def committed(self) -> Ready:
        """The step's records are durable and the tables committed: what may leave."""
        self.committed_position, self.committed_moves = self.position, self.moves
        tokens_of = self._invalidate(self._decided)
        self._decided = []
        ready = Ready(sends=self._sends, ended=self._ended)
        self._sends, self._ended = [], []
        undelivered, self._undelivered = self._undelivered, []
        for pending, answer in undelivered:
            tokens = {token for p in pending.positions for token in tokens_of.get(p, ())}
            tokens |= pending.tokens
            tokens |= self._uncache(pending, ready)
            tokens &= self._orders.keys()
            if tokens:
                self._waiting.append(_Waiting(pending, answer, tokens))
            else:
                self._deliver(pending, answer, ready.replies)
        ready.replies += self._acknowledged()
        return ready

    def _acknowledged(self) -> list[tuple[Caller, Answer]]:
        """Answers whose last acknowledgement has come."""
        replies: list[tuple[Caller, Answer]] = []
        still = []
        for waiting in self._waiting:
            waiting.tokens &= self._orders.keys()
            if waiting.tokens:
                still.append(waiting)
            else:
                self._deliver(waiting.pending, waiting.answer, replies)
        self._waiting = still
        return replies

    def _deliver(
        self, pending: Pending, answer: Answer, replies: list[tuple[Caller, Answer]]
    ) -> None:
        """Only now is a mutation over: one that comes again meanwhile waits with the first."""
        if pending.number:
            self.in_flight.pop((pending.session, pending.number), None)
        if pending.caller is not None:
            replies.append((pending.caller, answer))

    def _invalidate(self, records: list[Record]) -> dict[int, list[int]]:
        """Tell the holders; returns the tokens by position of the record.

        Reads the writer's tables: they are committed by now, and warm.
        """
        by_position: dict[int, list[int]] = {}
        merged: defaultdict[int, Stale] = defaultdict(Stale)
        sessions_of: dict[int, list[int]] = {}
        for record in records:
            found = stale_for(record, self.registry, self.tables)
            sessions_of[record.position] = list(found)
            for session, stale in found.items():
                merged[session].add(stale)
        for session, stale in merged.items():
            if stale:
                stale.tokens.add(self.tell(session, stale, self.committed_position))
        for position, sessions in sessions_of.items():
            by_position[position] = [
                token for session in sessions for token in merged[session].tokens
            ]
        return by_position

    def tell(self, session: int, stale: Stale, position: int) -> int:
        """Have a session drop what it knows as of before `position`; returns the token."""
        token = self.order_session(session, stale.message(position), _ignore)
        for ino in stale.inos:
            self.registry.told(session, ino, token)
        return token

    def _uncache(self, pending: Pending, ready: Ready) -> set[int]:
        """Somebody became a writer: the others stop caching the attributes.

        Also what this very step still answers as of the position committed, hence + 1.
        """
        tokens = set()
        for ino in pending.uncache:
            for session in inode_holders(ino, self.registry, self.tables):
                if session != pending.session:
                    stale, position = Stale(inos={ino}), self.committed_position + 1
                    tokens.add(self.tell(session, stale, position))
        ready.sends += self._sends
        self._sends = []
        return tokens


def _ignore(_: Answer) -> None:
    """An invalidation's answer: what matters is that the order is gone."""


def scan_all(tables: ReadTables, table: str) -> list[tuple[Any, Any]]:
    """Every item of a small table."""
    found: list[tuple[Any, Any]] = []
    while True:
        page = tables.scan(table, after=found[-1][0] if found else None, limit=1000)
        found += page
        if len(page) < 1000:
            return found
