"""Access times: mounts say what was read, many inodes in one record.

A mount tells it some time after the read, so somebody may have set the time meanwhile:
then what is told comes too late and is left out. No change of content, no change time.
"""

from __future__ import annotations

from msgspec.structs import replace

from gfs.errors import InvalidArgument
from gfs.items import INODES, Inode
from gfs.messages import AccessTime, Entries, NoteAccess
from gfs.permissions import READ, allowed
from master.core.attributes import check_time
from master.core.engine import Engine

TIMES_MAX = 1000  # of one request


def note(engine: Engine, session: int, ask: NoteAccess) -> Entries:
    """Set the times of what was read; the answer has what is another now.

    Raises:
      InvalidArgument: too many at once, or no time. NeedGroups
    """
    if len(ask.times) > TIMES_MAX:
        raise InvalidArgument(f"{len(ask.times)} access times, at most {TIMES_MAX}")
    decision = engine.decision(session, ask.actor)
    changed = []
    for one in ask.times:
        check_time(one.atime_ns)
        inode: Inode | None = decision.tx.get(INODES, (one.ino,))
        if inode is None or not allowed(inode, decision.actor, READ):
            continue
        atime_ns = min(one.atime_ns, decision.now_ns)
        if atime_ns != inode.atime_ns and _is_as_seen(one, inode):
            image = replace(inode, atime_ns=atime_ns, version=inode.version + 1)
            decision.put_inode(one.ino, image)
            changed.append(one.ino)
    engine.on_behalf("atime", decision)
    return Entries(engine.position, [decision.entry(ino) for ino in changed])


def _is_as_seen(one: AccessTime, inode: Inode) -> bool:
    if one.seen_ns is None:
        return inode.atime_ns < one.atime_ns
    return inode.atime_ns == one.seen_ns
