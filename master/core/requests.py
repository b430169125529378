"""What a request says of itself: who asked, in whose terms, and what its answer shows."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from gfs import messages as m
from gfs.messages import Actor, Done
from gfs.records import RecordActor
from master.core.coherence import Stale
from master.core.engine import Pending
from master.core.sessions import LiveSession


def translate(pending: Pending, live: LiveSession | None) -> None:
    """What a restricted session asks, in the master's terms. Raises its refusal."""
    if live is not None and live.confines is not None:
        pending.said = getattr(pending.message, "actor", None)
        pending.message = live.confines.inward(pending.message)
        pending.confines = live.confines


def record_actor(actor: Actor, live: LiveSession, said: Actor | None) -> RecordActor:
    """Who the log says it was."""
    found = RecordActor(actor.uid, actor.gid, actor.pid, live.host, live.mount)
    if said is None or (said.uid, said.gid) == (actor.uid, actor.gid):
        return found
    return replace(found, said_uid=said.uid, said_gid=said.gid)


def parents_of(operation: Any) -> tuple[int, ...]:
    """Directories whose entries the answer will tell the session about."""
    parent = getattr(operation, "parent", 0)
    other = getattr(operation, "new_parent", 0)
    return tuple(ino for ino in (parent, other) if ino)


def shown(operation: Any, done: Done) -> Stale:
    """What an answer tells its session about."""
    names = {
        (parent, name)
        for parent, name in (
            (getattr(operation, "parent", 0), getattr(operation, "name", b"")),
            (getattr(operation, "new_parent", 0), getattr(operation, "new_name", b"")),
        )
        if parent
    }
    if isinstance(operation, m.MakeNode) and done.entry is not None:
        names.add((done.entry.ino, b""))  # that it is empty: others may have used it since
    entries = [done.entry, *done.parents, *(file.entry for file in done.committed)]
    return Stale(names, {entry.ino for entry in entries if entry is not None and entry.ino})


def as_of(done: Done, position: int) -> Done:
    """The answer of a decision that changed nothing, dated by what it had read."""
    entry = done.entry
    return replace(
        done,
        position=position,
        entry=None if entry is None else replace(entry, position=position),
        parents=[replace(parent, position=position) for parent in done.parents],
    )
