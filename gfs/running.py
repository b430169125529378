"""How a daemon runs: trio, one line and exit code 2 for a mistake, 1 for a failure."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable

import trio

from gfs.errors import (
    BadKey,
    DirectoryInUse,
    GfsError,
    NewerFormat,
    UsageError,
    WrongCluster,
)
from gfs.stacks import show_stacks_on_sigusr1

# What the person who starts a daemon can mend: the wrong directory, key, cluster, release.
MISTAKES = (UsageError, DirectoryInUse, WrongCluster, BadKey, NewerFormat)
# Messages and items are outside the collector's care (they form no cycles), so the
# default of 700 would look at everything else far too often.
GC_THRESHOLDS = (50_000, 20, 20)


def prepare_process() -> None:
    """What every process that lives long wants; in its main thread, before the loop starts."""
    gc.set_threshold(*GC_THRESHOLDS)
    show_stacks_on_sigusr1()


def run_daemon(name: str, serve: Callable[[], Awaitable[None]]) -> int:
    """Run `serve` to its end; returns the exit code.

    The first expected error inside any group of errors is what is told. A bug
    propagates with its traceback.
    """
    prepare_process()
    code = 0
    try:
        trio.run(serve)
    except* (UsageError, GfsError, OSError) as group:
        code = complain(name, first_of(group))
    return code


def first_of(group: BaseException) -> BaseException:
    """The first exception in it that is no group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def only_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The caller's own error, as it was raised, if it is the only one in there."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def complain(name: str, error: BaseException) -> int:
    """One line for a person; 2 if that person can mend it, else 1."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    print(f"{name}: {text}", file=sys.stderr)
    return 2 if isinstance(error, MISTAKES) else 1


async def until_one_ends(*parts: Callable[[], Awaitable[None]]) -> None:
    """Run all at the same time; when one returns or fails, the others are cancelled.

    Raises: what the first of them that failed raised, as it was raised.
    """
    failures: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def run(part: Callable[[], Awaitable[None]]) -> None:
            try:
                await part()
            except Exception as error:
                failures.append(error)
            nursery.cancel_scope.cancel()

        for part in parts:
            nursery.start_soon(run, part)
    if failures:
        raise failures[0]
