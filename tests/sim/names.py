"""A second opinion on names: each request done by a few lines of POSIX, and compared.

The log says in which order; from the request alone follows which names it may change and
to what. What the master wrote down must be just that.
"""

from __future__ import annotations

from gfs.ids import TRASH_INO
from gfs.messages import (
    Create,
    MakeLink,
    MakeNode,
    MakeSymlink,
    Operation,
    RemoveDirectory,
    RemoveTree,
    Rename,
    Unlink,
)
from gfs.records import DirentChange, InodeChange, Record
from tests.sim.kernel import SimulationError

Name = tuple[int, bytes]
EXCHANGE = 2


class Names:
    """All directory entries, as of the records applied."""

    def __init__(self, operations: dict[tuple[int, int], Operation]) -> None:
        self.entries: dict[Name, int] = {}
        self._operations = operations

    def apply(self, record: Record) -> None:
        """Take the record's names over, if its request explains them.

        Raises:
          SimulationError: it does not.
        """
        changes: dict[Name, int] = {}
        made = 0
        for change in record.changes:
            if type(change) is DirentChange:
                before = change.old.ino if change.old is not None else 0
                if before != self.entries.get(change.key, 0):
                    raise SimulationError(f"record {record.position} mistakes {change.key}")
                if change.key[0] != TRASH_INO:
                    changes[change.key] = change.new.ino if change.new is not None else 0
            elif type(change) is InodeChange and change.old is None:
                made = change.key[0]
        operation = self._operations.get((record.session, record.number))
        if record.number and operation is not None:
            self._compare(record, operation, changes, made)
        for change in record.changes:
            if type(change) is DirentChange:
                if change.new is None:
                    del self.entries[change.key]
                else:
                    self.entries[change.key] = change.new.ino

    def _compare(
        self, record: Record, operation: Operation, changes: dict[Name, int], made: int
    ) -> None:
        expected = self._expected(operation, made)
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
        return {}
