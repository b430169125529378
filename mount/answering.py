"""What every handler shares: the tables of this mount, and the one wrapper around all.

Only FUSEError may leave a handler, anything else would end the mount; the wrapper
turns errors into errno by the one table, keeps the time limit (a caller of a stuck
handler cannot even be killed), and counts which directories the kernel holds locked
for a request of ours. Invalidation needs to know that, see mount.invalidation.
"""

from __future__ import annotations

import errno
import functools
import logging
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import pyfuse3
import trio

from gfs.errors import DeadSession, ReadOnly, StaleInode, TimedOut
from gfs.items import Inode
from gfs.messages import Actor, Done, Entries, Entry, GetAttributes, Message, Operation
from gfs.squashing import Layers
from mount.attributes import entry_attributes
from mount.core.access import AccessTimes
from mount.core.caching import Cache
from mount.core.hidden import is_hidden
from mount.core.inodes import Handles, Inodes
from mount.errnos import errno_of

if TYPE_CHECKING:
    from gfs.client.client import Client
    from gfs.client.files import OpenFile

log = logging.getLogger(__name__)

LIMIT_S = 90.0  # above every limit below it: mutation 80 s, session 20 s, hang 1.5 s
LATE_S = 1.0  # the kernel counts a timeout from when the reply arrives

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=Message)


class Watcher(Protocol):
    """Is told of each request (mount.tracing)."""

    def begin(self, calls: Answering, operation: str, args: Sequence[object]) -> tuple[int, object]:
        """A request begins; what it gives is given to `end`."""
        ...

    def end(
        self,
        about: tuple[int, object],
        operation: str,
        args: Sequence[object],
        result: object,
        seconds: float,
        code: int,
    ) -> None:
        """It was answered with `result`, or with errno `code`."""
        ...


class Opened(Protocol):
    """An open file or directory: what it is of, and who opened it."""

    ino: int
    actor: Actor


class Tables:
    """State of one mount. Everything runs in one trio loop; nothing here awaits.

    Attributes:
      client: set once connected, before the kernel's first request.
      names_recallable: the kernel can be made to look up every name again without
        a lock (FUSE_NOTIFY_INC_EPOCH); without it no name is given a timeout.
      accesses: access times that the master has not been told, or not answered.
      busy: directory -> requests of this mount under way that hold its lock.
      appending: inode -> open append handles; its size is asked each time.
      forget_kernel_names: the kernel looks up every name again; never blocks.
      trace: told of each request while somebody watches.
      hidden: handlers, by their names, of what is in `.gfs` (mount.hidden).
      dot_gfs_is_ours: the root has nothing of its own that is called so, and never will.
      users: as whom the master takes the users of this host.
      is_subtree: a part of the filesystem is shown, and directories may move out of it.
    """

    client: Client

    def __init__(self) -> None:
        self.cache = Cache()
        self.inodes = Inodes()
        self.files: Handles[OpenFile] = Handles()
        self.accesses = AccessTimes()
        self.busy: dict[int, int] = {}
        self.appending: dict[int, int] = {}
        self.names_recallable = False
        self.forget_kernel_names: Callable[[], None] = _nothing_kept
        self.trace: Watcher | None = None
        self.hidden: object = None
        self.dot_gfs_is_ours = False
        self.users = Layers(())
        self.is_subtree = False
        self.unforeseen = 0  # errors nobody foresaw; each is in the log

    def known(self, ino: int) -> Entry | None:
        """What may be trusted of a file with a name, its size and content included."""
        return None if ino in self.appending else self.cache.known(ino)

    def lease_left(self) -> float:
        """Seconds for which what is cached may be trusted; 0 once the lease is over."""
        return self.client.link.lease.left()

    def hold(self, directory: int) -> None:
        """A request that makes the kernel hold this directory's lock begins."""
        self.busy[directory] = self.busy.get(directory, 0) + 1

    def let_go(self, directory: int) -> None:
        """It has ended."""
        count = self.busy[directory] - 1
        if count:
            self.busy[directory] = count
        else:
            del self.busy[directory]


def _nothing_kept() -> None:
    """Not mounted: the kernel keeps nothing of ours."""


def actor_of(ctx: pyfuse3.RequestContext) -> Actor:
    """Who asks; groups are looked up only if the master finds that they matter."""
    return Actor(ctx.uid, ctx.gid, ctx.pid)


class Answering(pyfuse3.Operations):
    """Base of the handlers: the tables, and the steps that several of them take."""

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self.tables = tables
        self.cache = tables.cache
        self.inodes = tables.inodes

    @property
    def client(self) -> Client:
        return self.tables.client

    def opened(self, operation: str, handle: int) -> Opened | None:
        """What the handle of a request of this kind is of."""
        return self.tables.files.get(handle)

    async def ask(self, question: Message, kind: type[M]) -> M:
        """Ask what changes nothing; a lost session is not the caller's business.

        Raises:
          GfsError: the master's refusal, or no answer in time.
        """
        try:
            return await self.client.link.ask(question, kind)
        except DeadSession:
            return await self.client.link.ask(question, kind)  # of the session after it

    async def mutate(self, operation: Operation, ctx: pyfuse3.RequestContext) -> Done:
        """Send a mutation; names first, then `learn_done`, before its caller hears of it."""
        return await self.client.link.mutate(operation, actor_of(ctx))

    def learn_done(self, done: Done) -> None:
        """Attributes of what a mutation made or changed, parents included."""
        if done.entry is not None and done.entry.ino:
            self.cache.learn(done.entry)
        for parent in done.parents:
            self.cache.learn(parent)

    async def ask_attributes(self, inos: Sequence[int], actor: Actor) -> list[Entry]:
        """Attributes from the master, in the order asked."""
        reply = await self.ask(GetAttributes(list(inos), actor), Entries)
        for entry in reply.entries:
            if entry.ino:
                self.cache.learn(entry)
        return reply.entries

    def cached(self, ino: int) -> Inode | None:
        """The image of an inode if it may be trusted now, size and times perhaps not."""
        known = self.cache.attributes(ino)
        if known is None or not self.tables.lease_left():
            return None
        return known.inode

    async def image(self, ino: int, ctx: pyfuse3.RequestContext) -> Inode:
        """An inode for what does not change with its content (type, target, xattrs).

        Raises:
          StaleInode: it is gone.
        """
        inode = self.cached(ino)
        if inode is not None:
            return inode
        (entry,) = await self.ask_attributes([ino], actor_of(ctx))
        return entry.inode or self.left_of(ino)

    def left_of(self, ino: int) -> Inode:
        """The image of an inode that the master has no more.

        Raises:
          StaleInode: it was no directory, or the kernel has forgotten it.
        """
        directory = self.inodes.removed_directory(ino)
        if directory is None:
            raise StaleInode(f"inode {ino} is gone")
        return directory

    def show(self, ino: int, inode: Inode, *, named: bool = False) -> pyfuse3.EntryAttributes:
        """Attributes for the kernel; `named`: it may keep the name that led to them."""
        tables = self.tables
        left = tables.lease_left()
        if inode.is_directory and inode.nlink:
            tables.inodes.shown(ino, inode)
        trusted = left > 0 and tables.cache.trusted(ino) and ino not in tables.appending
        if trusted:
            tables.inodes.trusts(ino, trio.current_time() + left + LATE_S)
        entry = entry_attributes(
            ino,
            inode,
            entry_timeout=left if named and tables.names_recallable else 0.0,
            attr_timeout=left if trusted else 0.0,
            pending=tables.client.pending(ino) if inode.is_file else None,
        )
        if tables.accesses.waiting:
            entry.st_atime_ns = tables.accesses.shown(ino, inode)
        return entry

    def note_access(self, ino: int) -> None:
        """Somebody reads it. The kernel drops the access time that it keeps by itself."""
        known, pending = self.cache.attributes(ino), self.client.pending(ino)
        inode, written_ns = (None, 0) if known is None else (known.inode, known.grown_ns)
        if pending is not None:
            written_ns = max(written_ns, pending.mtime_ns)
        self.tables.accesses.read(ino, inode, time.time_ns(), written_ns=written_ns)

    def entry(self, ino: int, inode: Inode, *, named: bool) -> pyfuse3.EntryAttributes:
        """`show` for replies that give the kernel one more reference to the inode."""
        self.inodes.looked_up(ino)
        return self.show(ino, inode, named=named)


S = TypeVar("S", bound=Answering)
Handler = Callable[Concatenate[S, P], Coroutine[Any, Any, R]]


def answer(*holds: int, bounded: bool = False) -> Callable[[Handler[S, P, R]], Handler[S, P, R]]:
    """Make a handler of a method.

    Args:
      holds: which arguments are directories (or inodes) that the kernel locks for it.
      bounded: all that it waits for has a time limit of its own (requests to the master
        do); another one here would cost as much as answering from a cache.
    """

    def wrap(method: Handler[S, P, R]) -> Handler[S, P, R]:
        plain = _translated(method.__name__, method if bounded else limited(method))
        if not holds:
            return plain

        @functools.wraps(method)
        async def holding(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
            directories = [cast(int, args[index]) for index in holds]
            for directory in directories:
                self.tables.hold(directory)
            try:
                return await plain(self, *args, **kwargs)
            finally:
                for directory in directories:
                    self.tables.let_go(directory)

        return cast("Handler[S, P, R]", holding)

    return wrap


def limited(method: Handler[S, P, R]) -> Handler[S, P, R]:
    """The method, ended after `LIMIT_S`."""

    @functools.wraps(method)
    async def in_time(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        with trio.CancelScope(deadline=trio.current_time() + LIMIT_S):
            return await method(self, *args, **kwargs)
        raise TimedOut(f"no answer in {LIMIT_S:.0f} s")

    return cast("Handler[S, P, R]", in_time)


def _hidden(name: str) -> Handler[S, P, R]:
    """The handler of this name for what is in `.gfs`; there nothing else can be done."""

    async def handler(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        method = getattr(self.tables.hidden, name, None)
        if method is None:
            raise ReadOnly(f"no {name} in .gfs")
        return cast(R, await method(*args, **kwargs))

    return limited(handler)


def _translated(name: str, method: Handler[S, P, R]) -> Handler[S, P, R]:
    """The method, its errors as errno; traced if somebody listens."""
    hidden: Handler[S, P, R] = _hidden(name)

    @functools.wraps(method)
    async def translated(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.tables.trace is not None:
            return await traced(self, *args, **kwargs)
        try:
            if args and is_hidden(args[0]):
                return await hidden(self, *args, **kwargs)
            return await method(self, *args, **kwargs)
        except BaseException as error:
            code = _code_of(self.tables, name, args, error)
        raise pyfuse3.FUSEError(code)

    async def traced(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        watcher = self.tables.trace
        assert watcher is not None
        start, code, result = perf_counter(), 0, None
        about = watcher.begin(self, name, args)
        try:
            handler = hidden if args and is_hidden(args[0]) else method
            result = await handler(self, *args, **kwargs)
            return result
        except BaseException as error:
            code = _code_of(self.tables, name, args, error)
        finally:
            watcher.end(about, name, args, result, perf_counter() - start, code)
        raise pyfuse3.FUSEError(code)

    return cast("Handler[S, P, R]", translated)


def is_the_end(error: BaseException) -> bool:
    """Whether it is not for a handler to answer.

    `Cancelled` that comes to a task which nobody cancels was meant for another, of which this
    one awaited a result: to the kernel's request it is an error like others.
    """
    if isinstance(error, KeyboardInterrupt | GeneratorExit):
        return True
    group = error if isinstance(error, BaseExceptionGroup) else BaseExceptionGroup("", [error])
    if group.split(trio.Cancelled)[0] is None:
        return False
    return trio.current_effective_deadline() == -math.inf


def _code_of(tables: Tables, name: str, args: tuple[object, ...], error: BaseException) -> int:
    """The errno to answer; raises `error` if it is this task, or the program, that ends."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if not isinstance(error, Exception) and is_the_end(error):
        raise error
    if isinstance(error, pyfuse3.FUSEError):
        return error.errno
    if isinstance(error, StaleInode) and args and isinstance(args[0], int):
        # The kernel looks the name up once more: not in what we knew, which others have
        # just changed and we have not heard of.
        tables.cache.forget_attributes(args[0])
    code = errno_of(error)
    if code is None:
        tables.unforeseen += 1
        log.error("call.failed %s%r", name, args[:2], exc_info=error)
        return errno.EIO
    if code in (errno.EIO, errno.ETIMEDOUT):
        log.warning("call.error %s%r: %s: %s", name, args[:2], type(error).__name__, error)
    return code
