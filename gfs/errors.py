"""Every error that may cross a boundary of ours, and what a caller may retry.

    GfsError
    ├ Refused         cannot succeed as asked; never retried
    │  NotFound · AlreadyExists · NotADirectory · IsADirectory · NotEmpty · NameTooLong
    │  PermissionDenied · NotPermitted · InvalidArgument · Unsupported · NoSpace · ReadOnly
    │  QuotaExceeded
    │  StaleInode · TooManyLinks · LinkLoop · CrossesDevice · NoAttribute · TooLarge
    │  Misplaced · DeadSession · WrongCluster · BadKey · NoSuchHandle · LockHeld · LockLost
    ├ TryAgain        right request, wrong moment or place
    │  NotPrimary · StaleVersion · Fenced · ChunkFull · NoReplica · Overloaded · NotReady
    │  MemberFailed · TooFewServers
    ├ Unreachable     the network; the outcome is unknown; retried only if idempotent
    ├ StorageFailed   a disk of this host refused to read or write
    ├ Corrupt         checksum or format; another replica may serve
    └ ProtocolError   LocalProtocolError (our bug) · RemoteProtocolError (theirs)
    UsageError        not a GfsError: a mistake of the caller, one line, exit code 2

Errors travel in frames as (code, text); `from_wire` makes them again. Foreign
exceptions are translated once, where they arise.
"""

from __future__ import annotations

import enum
import errno
from typing import ClassVar


class Retry(enum.Enum):
    """What a caller may do with the same request."""

    NEVER = "never"
    LATER = "later"  # same place, after a pause
    ASK_MASTER = "ask-master"  # fetch the lease or location anew, then again
    OTHER_REPLICA = "other-replica"
    IF_IDEMPOTENT = "if-idempotent"


class GfsError(Exception):
    """Base of all errors that a request can end with."""

    code: ClassVar[str] = "error"
    retry: ClassVar[Retry] = Retry.NEVER
    errno: ClassVar[int] = errno.EIO


class Refused(GfsError):
    """The request cannot succeed as asked, now or on a second try."""

    code = "refused"


class NotFound(Refused):
    code, errno = "not-found", errno.ENOENT


class AlreadyExists(Refused):
    code, errno = "already-exists", errno.EEXIST


class NotADirectory(Refused):
    code, errno = "not-a-directory", errno.ENOTDIR


class IsADirectory(Refused):
    code, errno = "is-a-directory", errno.EISDIR


class NotEmpty(Refused):
    code, errno = "not-empty", errno.ENOTEMPTY


class NameTooLong(Refused):
    code, errno = "name-too-long", errno.ENAMETOOLONG


class PermissionDenied(Refused):
    """The mode bits do not allow it (EACCES)."""

    code, errno = "permission-denied", errno.EACCES


class NotPermitted(Refused):
    """Only the owner or root may do it, whatever the mode bits (EPERM)."""

    code, errno = "not-permitted", errno.EPERM


class InvalidArgument(Refused):
    code, errno = "invalid-argument", errno.EINVAL


class Unsupported(Refused):
    code, errno = "unsupported", errno.ENOTSUP


class NoSpace(Refused):
    code, errno = "no-space", errno.ENOSPC


class QuotaExceeded(Refused):
    """A directory above has a quota, and it is used up (EDQUOT)."""

    code, errno = "quota-exceeded", errno.EDQUOT


class ReadOnly(Refused):
    code, errno = "read-only", errno.EROFS


class StaleInode(Refused):
    """The inode number names nothing any more."""

    code, errno = "stale-inode", errno.ESTALE


class TooManyLinks(Refused):
    code, errno = "too-many-links", errno.EMLINK


class LinkLoop(Refused):
    code, errno = "link-loop", errno.ELOOP


class CrossesDevice(Refused):
    code, errno = "crosses-device", errno.EXDEV


class NoAttribute(Refused):
    code, errno = "no-attribute", errno.ENODATA


class TooLarge(Refused):
    code, errno = "too-large", errno.EFBIG


class Misplaced(Refused):
    """Content was written where the file may not refer to: write it elsewhere."""

    code = "misplaced"


class DeadSession(Refused):
    """The session ended; what it had not committed is lost to it."""

    code = "dead-session"


class LockHeld(Refused):
    """Somebody else has the lock, and one did not want to wait."""

    code, errno = "lock-held", errno.EBUSY


class LockLost(Refused):
    """The lock's lease may be over: another may have the lock, or get it any moment."""

    code, errno = "lock-lost", errno.ENOLCK


class WrongCluster(Refused):
    """The peer, directory or file belongs to another cluster."""

    code = "wrong-cluster"


class BadKey(Refused):
    """The caller did not prove that it has the cluster's key."""

    code, errno = "bad-key", errno.EACCES


class NewerFormat(Refused):
    """A file was written by a newer release than this one."""

    code = "newer-format"


class DirectoryInUse(Refused):
    """Another process holds the data directory."""

    code = "directory-in-use"


class TryAgain(GfsError):
    """The request is right, but not here or not now; must not reach a user."""

    code, retry = "try-again", Retry.LATER


class NotPrimary(TryAgain):
    code, retry = "not-primary", Retry.ASK_MASTER


class StaleVersion(TryAgain):
    """The caller's chunk version or master epoch is older than the replica's."""

    code, retry = "stale-version", Retry.ASK_MASTER


class Fenced(TryAgain):
    """The replica was fenced for a seal; it takes no more of this version."""

    code, retry = "fenced", Retry.ASK_MASTER


class ChunkFull(TryAgain):
    code, retry = "chunk-full", Retry.ASK_MASTER


class SequenceGap(TryAgain):
    """A record came whose predecessor this primary never saw."""

    code, retry = "sequence-gap", Retry.ASK_MASTER


class MemberFailed(TryAgain):
    """A member of the chain did not answer; the text names its server id."""

    code, retry = "member-failed", Retry.ASK_MASTER


class NoReplica(TryAgain):
    """No live server has reported a good replica of the chunk."""

    code = "no-replica"


class NoSuchReplica(TryAgain):
    """This server has no such replica."""

    code, retry = "no-such-replica", Retry.OTHER_REPLICA


class Overloaded(TryAgain):
    code = "overloaded"


class NotReady(TryAgain):
    """The daemon has started but does not serve this kind of request yet."""

    code = "not-ready"


class TooFewServers(TryAgain):
    """Fewer chunk servers are up than a new chunk needs."""

    code = "too-few-servers"


class Unreachable(GfsError):
    """The network failed before the answer came: the outcome is unknown."""

    code, retry = "unreachable", Retry.IF_IDEMPOTENT


class TimedOut(Unreachable):
    code, errno = "timed-out", errno.ETIMEDOUT


class StorageFailed(GfsError):
    """A disk of this host failed to read or write."""

    code, retry = "storage-failed", Retry.OTHER_REPLICA


class Corrupt(GfsError):
    """Stored or received bytes do not match their checksum or format."""

    code, retry = "corrupt", Retry.OTHER_REPLICA


class ProtocolError(GfsError):
    """A frame or message breaks the rules."""

    code = "protocol-error"


class LocalProtocolError(ProtocolError):
    code = "local-protocol-error"


class RemoteProtocolError(ProtocolError):
    code = "remote-protocol-error"


class UsageError(Exception):
    """A mistake in arguments or configuration: one line for a person, exit code 2."""


def _tree(base: type[GfsError]) -> dict[str, type[GfsError]]:
    found = {base.code: base}
    for child in base.__subclasses__():
        found |= _tree(child)
    return found


BY_CODE = _tree(GfsError)


def from_wire(code: str, text: str) -> GfsError:
    """The error that a peer named; an unknown code (newer peer) is a GfsError."""
    return BY_CODE.get(code, GfsError)(text or code)


def from_os_error(error: OSError, doing: str) -> GfsError:
    """Translate a failed system call on this host's disk.

    Full disks and quotas become `NoSpace`, everything else `StorageFailed`.
    """
    kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageFailed
    return kind(f"{doing}: {error.strerror or error}")
