"""Own mutations that ran out of time: what they touch is in doubt until they are answered.

The master tells a session of every change but its own, so a mutation that lands after
its caller has given up would never be heard of here. Its number therefore stays
unanswered, it is asked again over a reconnection, and meanwhile nothing that it touches
is cached. The doubt ends with its answer, however late; with the session, which cannot
land anything any more; or with another master, for whose arrival all caches are dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from gfs.client.waiting import Waiting, name_of
from gfs.errors import GfsError
from gfs.messages import (
    Clone,
    Commit,
    Create,
    Done,
    Invalidate,
    MakeLink,
    MakeNode,
    MakeSymlink,
    Message,
    NamePair,
    OpenTail,
    Operation,
    RemoveDirectory,
    RemoveTree,
    RemoveXattr,
    Rename,
    ResolveTail,
    SetAttributes,
    SetXattr,
    Snapshot,
    Unlink,
)

log = logging.getLogger(__name__)

OneName = (
    Create
    | MakeNode
    | MakeSymlink
    | MakeLink
    | Unlink
    | RemoveDirectory
    | RemoveTree
    | Snapshot
    | Clone
)


class Late(NamedTuple):
    """A mutation in doubt."""

    waiting: Waiting
    operation: Operation
    free: Callable[[], None]


class Doubts:
    """Mutations whose callers have gone.

    Attributes:
      on_doubt: called when one begins to be in doubt.
      on_outcome: called when it is answered, with None if it has changed nothing (or if
        what it has changed is dropped from all caches anyway).
    """

    def __init__(self) -> None:
        self.on_doubt: Callable[[Operation], None] = _nothing
        self.on_outcome: Callable[[Operation, Done | None], None] = _no_outcome
        self._late: dict[int, Late] = {}

    def __contains__(self, number: int) -> bool:
        return number in self._late

    def __len__(self) -> int:
        return len(self._late)

    def waiting(self) -> list[Waiting]:
        """In the order of their numbers."""
        return [late.waiting for _, late in sorted(self._late.items())]

    def begin(
        self, number: int, waiting: Waiting, operation: Operation, free: Callable[[], None]
    ) -> None:
        """Nobody waits for this answer any more; `free` is called when it need not come."""
        log.info("mutation.unknown %s number=%d", name_of(waiting.message), number)
        self._late[number] = Late(waiting, operation, free)
        waiting.on_late = lambda answer: self._end(number, answer)
        self.on_doubt(operation)

    def _end(self, number: int, answer: Message | GfsError | None) -> None:
        late = self._late.pop(number)
        late.waiting.on_late = None
        log.info("mutation.known number=%d %s", number, type(answer).__name__)
        late.free()
        self.on_outcome(late.operation, answer if isinstance(answer, Done) else None)

    def end_all(self) -> None:
        """None of them can land any more, and all caches are about to be dropped."""
        for number in list(self._late):
            self._end(number, None)


def touched(operation: Operation, position: int = 0) -> Invalidate:
    """What other sessions are told to drop when `operation` lands."""
    names: list[NamePair] = []
    inos: list[int] = []
    contents: list[int] = []
    if isinstance(operation, OneName):
        names, inos = [NamePair(operation.parent, operation.name)], [operation.parent]
        if isinstance(operation, MakeLink):
            inos.append(operation.ino)
    elif isinstance(operation, Rename):
        pairs = (operation.parent, operation.name), (operation.new_parent, operation.new_name)
        names = [NamePair(parent, name) for parent, name in pairs]
        inos = [operation.parent, operation.new_parent]
    elif isinstance(operation, SetAttributes | SetXattr | RemoveXattr):
        inos = [operation.ino]
        if isinstance(operation, SetAttributes) and operation.size is not None:
            contents = [operation.ino]
    elif isinstance(operation, OpenTail | ResolveTail):
        inos = contents = [operation.ino]
    elif isinstance(operation, Commit):
        inos = contents = [file.ino for file in operation.files]
    return Invalidate(position, names, list(inos), list(contents))


def _nothing(_: Operation) -> None:
    return None


def _no_outcome(_operation: Operation, _done: Done | None) -> None:
    return None
