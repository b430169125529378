"""Content commits: batches of ranges that now lie in chunks, file by file.

A refusal concerns one file alone; the others of the batch go through.
"""

from __future__ import annotations

from msgspec.structs import replace

from gfs.errors import GfsError, NotPermitted, Refused, StaleInode
from gfs.items import Inode
from gfs.messages import Commit, Committed, Done, FileCommit
from master.core import extents, quotas
from master.core.attributes import check_time
from master.core.decision import Decision, NeedsSeal
from master.core.permissions import without_privileges


def commit(decision: Decision, op: Commit) -> Done:
    """Everything of the batch in one record.

    Raises:
      NeedsSeal: a file has an open tail; what was appended lies before.
    """
    committed = [_commit_file(decision, file) for file in op.files]
    return replace(decision.done(), committed=committed)


def _commit_file(decision: Decision, file: FileCommit) -> Committed:
    try:
        inode = decision.inode(file.ino)
        _check(decision, file, inode)
        chain = _require_room(decision, file, inode)
        changed = extents.commit(decision, file.ino, inode, file.ranges)
    except GfsError as error:
        return Committed(file.ino, error.code, None)
    mtime = inode.written_at(file.mtime_ns) if file.mtime_ns else inode.mtime_ns
    decision.put_inode(
        file.ino,
        replace(
            changed,
            mode=without_privileges(inode, decision.actor),
            mtime_ns=mtime,
            # The writer's own kernel shows this already; a later value would look to it
            # (and to git) as if somebody had touched the file after the close. A utimens
            # that came after the writes has moved it.
            ctime_ns=max(inode.ctime_ns, mtime) if file.mtime_ns else inode.ctime_ns,
            data_version=inode.data_version + 1,
            version=inode.version + 1,
        ),
    )
    return Committed(file.ino, "", decision.entry(file.ino), quotas.room_for(decision, chain))


def _require_room(decision: Decision, file: FileCommit, inode: Inode) -> quotas.Chain:
    """The quotas that count the file, which allow what is added.

    Raises:
      QuotaExceeded: one does not. What takes the place of stored bytes adds nothing, and
        what was promised is not refused: it may have been moved here since, or the quota be new.
    """
    if not decision.realms:
        return ()
    chain = decision.realms.of_inode(decision.tx.before, file.ino, inode)
    if not chain:
        return ()
    most = sum(laid_out.extent.length for laid_out in file.ranges)
    room = quotas.room_for(decision, chain)
    if room != quotas.NO_LIMIT and most > room:
        most = extents.growth(decision.tx, file.ino, file.ranges)
    if file.promised:
        quotas.allow(decision, chain, more_bytes=most)
    else:
        quotas.require_room(decision, chain, more_bytes=most)
    return chain


def _check(decision: Decision, file: FileCommit, inode: Inode) -> None:
    check_time(file.mtime_ns)
    if not inode.is_file:
        raise StaleInode("not a regular file")
    if decision.session not in decision.registry.writers.get(file.ino, ()):
        raise NotPermitted("the file is not open for writing in this session")
    if 0 <= file.data_version_seen != inode.data_version:
        raise Refused("the file changed while this session was lost")
    if inode.tail:
        raise NeedsSeal(inode.tail)
