"""Reads as a session asks them: interest registered first, writers elsewhere recalled.

Most are answered at once from committed state. One that must first recall what
another session holds back, or stop others from caching, raises `Suspend`
outside of a step and is asked again inside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gfs import messages as m
from gfs.errors import RemoteProtocolError, StaleInode
from gfs.ids import TRASH_INO
from gfs.items import INODES, LINKS_BY_INO
from gfs.messages import Message
from gfs.open_flags import writes
from master.core.coherence import inode_holders
from master.core.decision import Recalled, Suspend, require_recalled
from master.core.engine import Engine
from master.core.locks import Locks
from master.core.quota_reports import QuotaReports

_Uncache = list[int]


class NeedsStep(Suspend):
    """Not to be answered outside of a step."""


class Reading:
    """Answers for all sessions."""

    def __init__(self, engine: Engine, locks: Locks) -> None:
        self._engine = engine
        self._held = locks
        self._queries = engine.queries
        self.quotas = QuotaReports(engine.reader, engine.realms, engine.queries, engine.policy)
        self._recalled: Recalled = frozenset()  # by the request being answered

    def answer(
        self,
        session: int,
        message: Message,
        *,
        in_step: bool,
        uncache: _Uncache | None = None,
        recalled: Recalled = frozenset(),
    ) -> Message:
        """The answer to a read message; `recalled` as of `require_recalled`.

        Raises:
          Suspend: something must happen first.
          GfsError: the refusal.
        """
        handler = _HANDLERS.get(type(message))
        if handler is None:
            raise RemoteProtocolError(f"{type(message).__name__} is not asked of a master")
        if not in_step and type(message) in _GATED and not self._engine.sessions.gate_open():
            raise NeedsStep
        self._recalled = recalled
        return handler(self, session, message, in_step, uncache)

    @property
    def _position(self) -> int:
        return self._engine.committed_position

    def _has_cache(self, session: int) -> bool:
        live = self._engine.sessions.live.get(session)
        return live is not None and bool(live.mount)

    def _interest(self, session: int, directory: int) -> None:
        if self._has_cache(session):
            self._engine.registry.add_interest(session, directory)

    def _recall(self, session: int, *inos: int) -> None:
        require_recalled(self._engine.registry, session, inos, self._recalled)

    def _others_hold(self, session: int, ino: int) -> bool:
        registry = self._engine.registry
        return bool(inode_holders(ino, registry, self._engine.reader) - {session})

    # --- one method a message; `step` says whether we are in one

    def _lookup(self, session: int, ask: m.Lookup, step: bool, _: _Uncache | None) -> Message:
        self._interest(session, ask.parent)
        return self._queries.lookup(self._position, session, ask)

    def _attributes(
        self, session: int, ask: m.GetAttributes, step: bool, _: _Uncache | None
    ) -> Message:
        cached = self._has_cache(session)
        self._recall(session, *ask.inos)
        if cached:
            for ino in ask.inos:
                for key in self._engine.reader.by_index(LINKS_BY_INO, ino):
                    if key[0] != TRASH_INO:  # else each removal anywhere would be told
                        self._engine.registry.add_interest(session, int(key[0]))
        return self._queries.attributes(self._position, session, ask.inos)

    def _directory(
        self, session: int, ask: m.ReadDirectory, step: bool, _: _Uncache | None
    ) -> Message:
        self._interest(session, ask.ino)
        return self._queries.listing(self._position, session, ask)

    def _open(self, session: int, ask: m.Open, step: bool, uncache: _Uncache | None) -> Message:
        if not step and self._engine.has_undurable():
            raise NeedsStep  # its last name may be about to go
        self._queries.check_open(ask)
        if step and self._engine.tables.get(INODES, (ask.ino,)) is None:
            raise StaleInode(f"inode {ask.ino} does not exist")
        self._recall(session, ask.ino)
        writing = writes(ask.flags)
        registry = self._engine.registry
        becomes_writer = writing and session not in registry.writers.get(ask.ino, ())
        if becomes_writer and not step and self._others_hold(session, ask.ino):
            raise NeedsStep  # the others stop caching its attributes first
        newly = registry.add_open(session, ask.ino, writing=writing)
        if newly and uncache is not None:
            uncache.append(ask.ino)
        opened = self._queries.opened(self._position, session, ask)
        if writing and self._engine.realms:
            tables = self._engine.tables if step else self._engine.reader
            opened.room = self.quotas.room(tables, ask.ino, self._engine.now_ns)
        return opened

    def _close(self, session: int, ask: m.CloseFiles, step: bool, _: _Uncache | None) -> Message:
        registry = self._engine.registry
        for ino in ask.inos:
            registry.close(session, ino)
        for ino in ask.written:
            registry.written(session, ino)
        self._engine.let_go((*ask.inos, *ask.written))
        return m.Ok()

    def _layout(self, session: int, ask: m.GetLayout, step: bool, _: _Uncache | None) -> Message:
        return self._queries.layout(self._position, session, ask)

    def _locate(self, session: int, ask: m.Locate, step: bool, _: _Uncache | None) -> Message:
        found = self._queries.locations(ask.handles)
        self._engine.servers.want(located.handle for located in found)
        return m.Locations(found)

    def _walk(self, session: int, ask: m.Walk, step: bool, _: _Uncache | None) -> Message:
        walked = self._queries.walk(self._position, session, ask)
        if walked.entry.ino:
            self._recall(session, walked.entry.ino)
        return walked

    def _path(self, session: int, ask: m.PathOf, step: bool, _: _Uncache | None) -> Message:
        return m.PathIs(self._queries.path(ask.ino, ask.top))

    def _drop_interest(
        self, session: int, ask: m.DropInterest, step: bool, _: _Uncache | None
    ) -> Message:
        for directory in ask.directories:
            self._engine.registry.drop_interest(session, directory)
        return m.Ok()

    def _renew(self, session: int, ask: m.Renew, step: bool, _: _Uncache | None) -> Message:
        return m.Renewed(self._engine.epoch, self._position)

    def _trash(self, session: int, ask: m.ListTrash, step: bool, _: _Uncache | None) -> Message:
        return self._queries.trash(ask)

    def _in_trash(
        self, session: int, ask: m.LookInTrash, step: bool, _: _Uncache | None
    ) -> Message:
        return self._queries.look_in_trash(self._position, ask)

    def _snapshots(
        self, session: int, ask: m.ListSnapshots, step: bool, _: _Uncache | None
    ) -> Message:
        return self._queries.snapshots(ask)

    def _locks(self, session: int, ask: m.ListLocks, step: bool, _: _Uncache | None) -> Message:
        return self._held.listing(ask)

    def _filesystem(
        self, session: int, ask: m.StatFilesystem, step: bool, _: _Uncache | None
    ) -> Message:
        self._queries.inode(ask.ino)
        total, free = self._engine.servers.space()
        policy = self._engine.policy
        goal = max(1, min(policy.goal, len(self._engine.servers.live)))
        found = m.FilesystemStat(
            total // goal, free // goal, self._engine.inode_count, policy.chunk_bytes
        )
        if self._engine.realms:
            found = self.quotas.limited(found, ask.ino, self._engine.now_ns)
        return found

    def _quota(self, session: int, ask: m.GetQuota, step: bool, _: _Uncache | None) -> Message:
        return self.quotas.above(ask, self._engine.now_ns)

    def _list_quotas(
        self, session: int, ask: m.ListQuotas, step: bool, _: _Uncache | None
    ) -> Message:
        return self.quotas.listed(ask, self._engine.now_ns)


_HANDLERS: dict[type[Message], Callable[[Reading, int, Any, bool, _Uncache | None], Message]] = {
    m.Lookup: Reading._lookup,
    m.GetAttributes: Reading._attributes,
    m.ReadDirectory: Reading._directory,
    m.Open: Reading._open,
    m.CloseFiles: Reading._close,
    m.GetLayout: Reading._layout,
    m.Locate: Reading._locate,
    m.Walk: Reading._walk,
    m.PathOf: Reading._path,
    m.DropInterest: Reading._drop_interest,
    m.Renew: Reading._renew,
    m.ListTrash: Reading._trash,
    m.LookInTrash: Reading._in_trash,
    m.ListSnapshots: Reading._snapshots,
    m.StatFilesystem: Reading._filesystem,
    m.GetQuota: Reading._quota,
    m.ListQuotas: Reading._list_quotas,
    m.ListLocks: Reading._locks,
}
# What another session holds back may concern these: not before all are back after a restart.
_GATED = {m.GetAttributes, m.Open, m.Walk}
