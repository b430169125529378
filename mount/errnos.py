"""The one table from errors of ours to errno; every error of gfs.errors stands in it.

What may be retried has been retried below; if it still arrives here, time ran out
(ETIMEDOUT) or nobody can serve (EIO). EAGAIN is never told: programs take it for a
non-blocking descriptor.
"""

from __future__ import annotations

import errno

import trio

from gfs import errors
from gfs.errors import GfsError

ERRNOS: dict[type[GfsError], int] = {
    errors.GfsError: errno.EIO,
    # refused
    errors.Refused: errno.EIO,
    errors.NotFound: errno.ENOENT,
    errors.AlreadyExists: errno.EEXIST,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.NotEmpty: errno.ENOTEMPTY,
    errors.NameTooLong: errno.ENAMETOOLONG,
    errors.PermissionDenied: errno.EACCES,
    errors.NotPermitted: errno.EPERM,
    errors.InvalidArgument: errno.EINVAL,
    errors.Unsupported: errno.ENOTSUP,
    errors.NoSpace: errno.ENOSPC,
    errors.QuotaExceeded: errno.EDQUOT,
    errors.ReadOnly: errno.EROFS,
    errors.StaleInode: errno.ESTALE,
    errors.TooManyLinks: errno.EMLINK,
    errors.LinkLoop: errno.ELOOP,
    errors.CrossesDevice: errno.EXDEV,
    errors.NoAttribute: errno.ENODATA,
    errors.TooLarge: errno.EFBIG,
    errors.Misplaced: errno.EIO,
    errors.DeadSession: errno.EIO,
    errors.LockHeld: errno.EBUSY,
    errors.LockLost: errno.ENOLCK,
    errors.WrongCluster: errno.EIO,
    errors.BadKey: errno.EACCES,
    errors.NewerFormat: errno.EIO,
    errors.DirectoryInUse: errno.EIO,
    # out of time
    errors.TryAgain: errno.ETIMEDOUT,
    errors.NotPrimary: errno.ETIMEDOUT,
    errors.StaleVersion: errno.ETIMEDOUT,
    errors.Fenced: errno.ETIMEDOUT,
    errors.ChunkFull: errno.ETIMEDOUT,
    errors.SequenceGap: errno.ETIMEDOUT,
    errors.Overloaded: errno.ETIMEDOUT,
    errors.NotReady: errno.ETIMEDOUT,
    errors.TimedOut: errno.ETIMEDOUT,
    # nobody who could serve
    errors.MemberFailed: errno.EIO,
    errors.NoReplica: errno.EIO,
    errors.NoSuchReplica: errno.EIO,
    errors.TooFewServers: errno.EIO,
    errors.Unreachable: errno.EIO,
    # broken
    errors.StorageFailed: errno.EIO,
    errors.Corrupt: errno.EIO,
    errors.ProtocolError: errno.EIO,
    errors.LocalProtocolError: errno.EIO,
    errors.RemoteProtocolError: errno.EIO,
}


def errno_of(error: BaseException) -> int | None:
    """The errno for an error that left a handler; None: nobody foresaw it (a bug, EIO)."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, GfsError):
        return ERRNOS.get(type(error), errno.EIO)
    if isinstance(error, trio.TooSlowError):
        return errno.ETIMEDOUT
    if isinstance(error, OSError) and error.errno:
        return error.errno
    return None
