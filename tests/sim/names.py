"""A second opinion on names: each request done by a few lines of POSIX, and compared.

The log says in which order; from the request alone follows which names it may change and
to what. What the master wrote down must be just that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from gfs.ids import ROOT_INO, TRASH_INO
from gfs.messages import (
    Clone,
    Create,
    EmptyTrash,
    MakeLink,
    MakeNode,
    MakeSymlink,
    Operation,
    RemoveDirectory,
    RemoveTree,
    Rename,
    Snapshot,
    Undelete,
    Unlink,
)
from gfs.records import Copy, DirentChange, InodeChange, Record, TrashChange
from tests.sim.kernel import SimulationError

Name = tuple[int, bytes]
History = dict[Name, list[tuple[int, int]]]
EXCHANGE = 2


class Names:
    """All directory entries, as of the records applied.

    Attributes:
      history: of each name the positions at which it came to mean another inode (0: none).
    """

    def __init__(self, operations: dict[tuple[int, int], Operation]) -> None:
        self.entries: dict[Name, int] = {}
        self.history: History = defaultdict(list)
        self._trash: dict[int, bytes] = {}  # inode -> path that it had
        self._operations = operations

    def apply(self, record: Record) -> None:
        """Take the record's names over, if its request explains them.

        Raises:
          SimulationError: it does not.
        """
        changes: dict[Name, int] = {}
        made: list[int] = []
        for change in record.changes:
            if type(change) is DirentChange:
                before = change.old.ino if change.old is not None else 0
                if before != self.entries.get(change.key, 0):
                    raise SimulationError(f"record {record.position} mistakes {change.key}")
                if change.key[0] != TRASH_INO:
                    changes[change.key] = change.new.ino if change.new is not None else 0
            elif type(change) is InodeChange and change.old is None:
                made.append(change.key[0])
        operation = self._operations.get((record.session, record.number))
        if record.number and operation is not None:
            self._compare(record, operation, changes, made)
        for change in record.changes:
            if type(change) is DirentChange:
                self._put(record, change.key, change.new.ino if change.new is not None else 0)
            elif type(change) is TrashChange and change.new is not None:
                self._trash[change.key[0]] = change.new.path
        if record.copy is not None:
            self._copy(record, record.copy)

    def _put(self, record: Record, key: Name, ino: int) -> None:
        if ino:
            self.entries[key] = ino
        else:
            del self.entries[key]
        self.history[key].append((record.position, ino))

    def _copy(self, record: Record, copy: Copy) -> None:
        """Names below a copy: as below its source, inodes numbered in the order of theirs."""
        below: dict[int, list[tuple[bytes, int]]] = defaultdict(list)
        for (parent, name), ino in self.entries.items():
            below[parent].append((name, ino))
        found = [copy.source]
        for here in found:  # grows meanwhile
            found += [ino for _, ino in below.get(here, ())]
        numbers = {ino: copy.first + rank for rank, ino in enumerate(sorted(set(found)))}
        if len(numbers) != copy.count or numbers[copy.source] != copy.root:
            raise SimulationError(f"record {record.position} copies {copy.count} inodes wrongly")
        for here in numbers:
            for name, ino in below.get(here, ()):
                self._put(record, (numbers[here], name), numbers[ino])

    def _compare(
        self, record: Record, operation: Operation, changes: dict[Name, int], made: list[int]
    ) -> None:
        if isinstance(operation, Snapshot | Clone):
            copied = record.copy.root if record.copy is not None else 0
            expected: dict[Name, int] | None = {(operation.parent, operation.name): copied}
        elif isinstance(operation, Undelete):
            expected = self._undeleted(operation, iter(made))
        else:
            expected = self._expected(operation, made[-1] if made else 0)
        if expected is None:
            return
        expected = {key: ino for key, ino in expected.items() if ino != self.entries.get(key, 0)}
        if changes != expected:
            raise SimulationError(
                f"record {record.position}, {operation}: changed {changes}, expected {expected}"
            )

    def _expected(self, operation: Operation, made: int) -> dict[Name, int] | None:
        """Names that an operation changes; None: this model does not know."""
        if isinstance(operation, Create | MakeNode | MakeSymlink):
            return {(operation.parent, operation.name): made} if made else {}
        if isinstance(operation, MakeLink):
            return {(operation.parent, operation.name): operation.ino}
        if isinstance(operation, Unlink | RemoveDirectory | RemoveTree):
            return {(operation.parent, operation.name): 0}
        if isinstance(operation, Rename):
            source = operation.parent, operation.name
            target = operation.new_parent, operation.new_name
            back = self.entries.get(target, 0) if operation.flags & EXCHANGE else 0
            if self.entries.get(source) == self.entries.get(target):
                return {}
            return {source: back, target: self.entries.get(source, 0)}
        return None if isinstance(operation, EmptyTrash) else {}

    def _undeleted(self, operation: Undelete, made: Iterator[int]) -> dict[Name, int]:
        """What is brought back, the directories made above it, and what it was taken from."""
        changes: dict[Name, int] = {}
        ino, below = operation.ino, [part for part in operation.part.split(b"/") if part]
        for part in below:
            held_as = ino, part
            ino = self.entries.get(held_as, 0)
        if below:
            changes[held_as] = 0
        path = operation.path or b"/".join((self._trash[operation.ino], *below))
        parts = [part for part in path.split(b"/") if part]
        if parts[0] == b"?":
            parts = parts[-1:]
        here = int(ROOT_INO)
        for part in parts[:-1]:
            key = here, part
            here = self.entries.get(key, 0) or next(made, 0)
            changes[key] = here
        target, taken = (here, parts[-1]), 0
        while self.entries.get(target):
            taken += 1
            target = here, parts[-1] + b".undeleted-%d" % taken
        changes[target] = ino
        return changes
