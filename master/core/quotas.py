"""Limits on what lies below a directory: what may still be added, and who sets them.

Bytes are those that `st_blocks` shows (`Inode.stored`): holes are free, a copy that shares its
content counts as if it had its own. Files are inodes of every kind, the directory itself not.
Nested quotas all count. The hard limit is never passed by what is decided here; above the soft
one is room for the grace period, then it is as hard. What only makes less is never refused.

This says no before anything is written; what was allowed is counted by `charging` from
the changes of the record, and by nothing else.
"""

from __future__ import annotations

from msgspec.structs import replace

from gfs.errors import CrossesDevice, InvalidArgument, NotFound, QuotaExceeded
from gfs.ids import ROOT_INO
from gfs.items import LINKS_BY_INO, QUOTAS, Inode, Quota
from gfs.messages import ClearQuota, Done, SetQuota
from master.core import removal
from master.core.decision import Decision
from master.core.permissions import require_root
from master.core.quota_counting import amount_below, judged, let_orphans_go, recounted
from master.core.tables import Readable

NO_LIMIT = -1
LIMIT_MAX = 1 << 62
Chain = tuple[int, ...]


def limits_now(quota: Quota, now_ns: int, grace_ns: int) -> tuple[int, int]:
    """Bytes and files that may be used at this time; `NO_LIMIT` for none."""
    return (
        _limit(quota.bytes_max, quota.bytes_soft, quota.bytes_over_ns, now_ns - grace_ns),
        _limit(quota.files_max, quota.files_soft, quota.files_over_ns, now_ns - grace_ns),
    )


def _limit(hard: int, soft: int, over_ns: int, ends_ns: int) -> int:
    if over_ns and over_ns <= ends_ns:
        return min(soft, hard or soft)
    return hard or NO_LIMIT


def room_in(tables: Readable, chain: Chain, now_ns: int, grace_ns: int) -> tuple[int, int]:
    """Bytes and files that fit below all of these; `NO_LIMIT` where nothing limits them."""
    bytes_left = files_left = NO_LIMIT
    for ino in chain:
        quota: Quota | None = tables.get(QUOTAS, (ino,))
        if quota is None:
            continue
        most_bytes, most_files = limits_now(quota, now_ns, grace_ns)
        bytes_left = _least(bytes_left, most_bytes, quota.bytes)
        files_left = _least(files_left, most_files, quota.files)
    return bytes_left, files_left


def _least(left: int, limit: int, used: int) -> int:
    if limit == NO_LIMIT:
        return left
    here = max(0, limit - used)
    return here if left == NO_LIMIT else min(left, here)


def room_for(decision: Decision, chain: Chain) -> int:
    """Bytes that fit, less what this decision has been allowed already; `NO_LIMIT`."""
    if not chain:
        return NO_LIMIT
    left, _ = room_in(decision.tx, chain, decision.now_ns, decision.policy.quota_grace_ns)
    taken = max((decision.charged[ino][0] for ino in chain if ino in decision.charged), default=0)
    return left if left == NO_LIMIT else max(0, left - taken)


def require_room(decision: Decision, chain: Chain, *, more_bytes: int = 0, files: int = 0) -> None:
    """Note that so much is about to be added below these quotas.

    Raises:
      QuotaExceeded: one of them does not allow it.
    """
    for ino in chain:
        quota: Quota | None = decision.tx.get(QUOTAS, (ino,))
        if quota is None:
            continue
        had_bytes, had_files = decision.charged.get(ino, (0, 0))
        check(decision, ino, quota, had_bytes + more_bytes, had_files + files)
    allow(decision, chain, more_bytes=more_bytes, files=files)


def allow(decision: Decision, chain: Chain, *, more_bytes: int = 0, files: int = 0) -> None:
    """Note that so much is about to be added below these quotas, whether or not it fits."""
    for ino in chain:
        charged = decision.charged.setdefault(ino, [0, 0])
        charged[0] += more_bytes
        charged[1] += files


def check(decision: Decision, ino: int, quota: Quota, more_bytes: int, files: int) -> None:
    """Raises QuotaExceeded if this quota does not allow so much more."""
    grace_ns = decision.policy.quota_grace_ns
    most_bytes, most_files = limits_now(quota, decision.now_ns, grace_ns)
    if more_bytes > 0 and most_bytes != NO_LIMIT and quota.bytes + more_bytes > most_bytes:
        text = f"quota of {_path(decision, ino)}: {quota.bytes} of {most_bytes} bytes are used"
        raise QuotaExceeded(f"{text}, {more_bytes} more do not fit")
    if files > 0 and most_files != NO_LIMIT and quota.files + files > most_files:
        raise QuotaExceeded(
            f"quota of {_path(decision, ino)}: {quota.files} of {most_files} files are there"
        )


def _path(decision: Decision, ino: int) -> str:
    if ino == ROOT_INO:
        return "/"
    keys = decision.tx.by_index(LINKS_BY_INO, ino, limit=1)
    path = removal.path_of(decision.tx, *keys[0]) if keys else b"?"
    return path.decode(errors="backslashreplace")


def require_same_realm(decision: Decision, ino: int, inode: Inode, directory: int) -> None:
    """A file with several names has them all below the same quotas.

    Raises:
      CrossesDevice: `directory` is below others than the file is counted by.
    """
    realms, tables = decision.realms, decision.tx.before
    if realms and realms.of_inode(tables, ino, inode) != realms.chain(tables, directory):
        raise CrossesDevice("another name of a file may not lie below another quota")


def require_same_realms(decision: Decision, directory: int, other: int) -> None:
    """Raises CrossesDevice unless the same quotas count what lies in these directories."""
    realms, tables = decision.realms, decision.tx.before
    if realms and realms.chain(tables, directory) != realms.chain(tables, other):
        raise CrossesDevice("another name of a file may not lie below another quota")


def set_quota(decision: Decision, op: SetQuota) -> Done:
    """Set limits of a directory; of a new quota what lies below is counted, now or soon.

    Raises:
      NotPermitted: who asks is not root.
      NotADirectory, StaleInode, InvalidArgument: a soft limit above the hard one.
    """
    require_root(decision.actor, "sets quotas")
    decision.directory(op.ino)
    quota: Quota | None = decision.tx.get(QUOTAS, (op.ino,))
    if quota is None:
        amount = amount_below(decision.tx.before, decision.realms, op.ino)
        if amount is None:
            quota = recounted(decision, Quota())
        else:
            quota = Quota(used_bytes=amount.stored, used_files=amount.files)
    given = {
        "bytes_max": op.bytes_max,
        "bytes_soft": op.bytes_soft,
        "files_max": op.files_max,
        "files_soft": op.files_soft,
    }
    changed = replace(quota, **{name: one for name, one in given.items() if one is not None})
    _check_limits("bytes", changed.bytes_max, changed.bytes_soft)
    _check_limits("files", changed.files_max, changed.files_soft)
    decision.tx.put(QUOTAS, (op.ino,), judged(changed, decision.now_ns))
    return decision.done(op.ino)


def _check_limits(what: str, hard: int, soft: int) -> None:
    if not (0 <= hard <= LIMIT_MAX and 0 <= soft <= LIMIT_MAX):
        raise InvalidArgument(f"a limit on {what} lies between 0 (none) and {LIMIT_MAX}")
    if hard and soft > hard:
        raise InvalidArgument(f"the soft limit on {what}, {soft}, is above the hard one, {hard}")


def clear_quota(decision: Decision, op: ClearQuota) -> Done:
    """Take the limits away; quotas above go on counting what lies here.

    Raises:
      NotPermitted: who asks is not root. NotFound: there is no quota.
    """
    require_root(decision.actor, "sets quotas")
    decision.directory(op.ino)
    if decision.tx.get(QUOTAS, (op.ino,)) is None:
        raise NotFound("the directory has no quota")
    above = decision.realms.above(decision.tx.before, op.ino)
    let_orphans_go(decision, op.ino, above[0] if above else 0)
    decision.tx.delete(QUOTAS, (op.ino,))
    return decision.done(op.ino)
