"""A mount in which what a handler calls fails when a test says so.

    python -m tests.fuse.faulty CONTROL ARGUMENTS-OF-MOUNT...

CONTROL is a directory. While `order` stands there, the next call of the handler that it names meets
the error that it names, raised in place of the answer of the so-many-th thing that the handler
calls; `told` then says whether there were so many. Everything else is the ordinary program: this is
put around its handlers, and what they call, before they are made.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import trio

from gfs import errors
from gfs.client.client import Client
from gfs.client.files import OpenFile
from gfs.client.metadata import MasterLink
from mount import answering
from mount.core.caching import UNKNOWN, Cache
from mount.core.inodes import Handles, Inodes

BELOW = {  # what goes to the master or to chunk servers, or may
    MasterLink: ("ask", "mutate", "read"),
    Client: ("create", "open", "truncate", "settle", "flush_all", "grown", "pending", "discard"),
    OpenFile: ("read", "write", "write_nowait", "flush", "sync", "truncate", "release"),
}
OWN = (Cache, Inodes, Handles)  # every public method
NOTHING_KNOWN = {"lookup": UNKNOWN, "attributes": None, "is_complete": False}  # of Cache


class Order(msgspec.Struct):
    """`site`: how many calls are answered first.

    `below`: of those in `BELOW` only, and what the mount remembers counts for nothing.
    """

    number: int
    handler: str
    error: str
    site: int
    below: bool


class Told(msgspec.Struct):
    """To order `number`: whether the handler called so much."""

    number: int
    struck: bool


class Faults:
    """The order that stands, and the errors that can be asked for by name."""

    stray: ClassVar[trio.Cancelled]

    def __init__(self, control: Path) -> None:
        self._control = control
        self._done = 0

    def order(self, handler: str) -> Order | None:
        """What stands for this handler, once."""
        try:
            found = msgspec.json.decode((self._control / "order").read_bytes(), type=Order)
        except FileNotFoundError:
            return None
        if found.handler != handler or found.number == self._done:
            return None
        self._done = found.number
        return found

    def tell(self, told: Told) -> None:
        new = self._control / "new"
        new.write_bytes(msgspec.json.encode(told))
        os.replace(new, self._control / "told")

    @classmethod
    def make(cls, name: str) -> BaseException:
        """A new error of the kind that is called so."""
        if name in errors.BY_CODE:
            return errors.BY_CODE[name]("it was asked for")
        if name == "ExceptionGroup":
            return ExceptionGroup("two", [ValueError("asked for"), KeyError("asked for")])
        if name == "Cancelled":
            return cls.stray
        kinds: dict[str, type[BaseException]] = {
            "ValueError": ValueError, "MemoryError": MemoryError, "SystemExit": SystemExit
        }  # fmt: skip
        return kinds[name]("it was asked for")


class Call:
    """One call of a handler for which an order stands."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.left = order.site
        self.struck = False

    def strike(self, *, below: bool) -> None:
        """Raise what was ordered, if this is the place."""
        if self.struck or (self.order.below and not below):
            return
        self.left -= 1
        if self.left < 0:
            self.struck = True
            raise Faults.make(self.order.error)


CALL: ContextVar[Call | None] = ContextVar("CALL", default=None)


def around(name: str, method: Callable[..., Any], faults: Faults) -> Callable[..., Any]:
    """The handler; what it calls knows for which order, if any."""

    @functools.wraps(method)
    async def handler(*args: object, **kwargs: object) -> object:
        order = faults.order(name)
        if order is None:
            return await method(*args, **kwargs)
        await _let_one_be_cancelled()
        call = Call(order)
        token = CALL.set(call)
        try:
            return await method(*args, **kwargs)
        finally:
            CALL.reset(token)
            faults.tell(Told(order.number, call.struck))

    return handler


async def _let_one_be_cancelled() -> None:
    """Keep a `Cancelled` that was meant for somebody else."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            Faults.stray = error
            raise


def spoil(kind: type, name: str, *, below: bool) -> None:
    """Let this method of a class fail where an order says so."""
    method = inspect.getattr_static(kind, name)

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def asked(*args: object, **kwargs: object) -> object:
            if (call := CALL.get()) is not None:
                call.strike(below=below)
            return await method(*args, **kwargs)

        setattr(kind, name, asked)
        return

    @functools.wraps(method)
    def called(*args: object, **kwargs: object) -> object:
        if (call := CALL.get()) is not None:
            call.strike(below=below)
            if kind is Cache and name in NOTHING_KNOWN and call.order.below:
                return NOTHING_KNOWN[name]
        return method(*args, **kwargs)

    setattr(kind, name, called)


def main() -> int:
    """Put it around everything, then be a mount."""
    faults = Faults(Path(sys.argv[1]))
    for kind, names in BELOW.items():
        for name in names:
            spoil(kind, name, below=True)
    for kind in OWN:
        for name, method in vars(kind).items():
            if not name.startswith("_") and inspect.isfunction(method):
                spoil(kind, name, below=False)
    translated, hidden = answering._translated, answering._hidden
    answering._translated = lambda name, method: translated(name, around(name, method, faults))
    answering._hidden = lambda name: around(name, hidden(name), faults)
    from mount import inode_calls
    from mount.__main__ import main as mount_main
    from mount.names import NameCalls

    inode_calls.STATFS_S = -1.0  # asked each time
    NameCalls.forget = around("forget", NameCalls.forget, faults)  # type: ignore[method-assign]
    return mount_main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
