"""`python -m master.check STATE`: compares the tables of a state as of one position.

A process of its own, so that the master answers meanwhile. It copies the state in one read
transaction and looks at the copy, whose pages are verified first: so it sees one moment, and the
WAL need not wait for it. Prints one JSON object (`Findings`); exit code 1: it could not look.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import apsw
import msgspec
from msgspec import Struct, field

from gfs import errors
from gfs.disk import PosixDisk
from master.checking import Problem, check_tables
from master.checkpoint import copy_state, remove_database
from master.sqlite_tables import SqliteReadTables, translate

PROBLEMS_MAX = 10_000


class Findings(Struct):
    """What was found; `total` counts also the problems beyond `PROBLEMS_MAX`."""

    position: int = 0
    total: int = 0
    checked: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, problem: Problem) -> None:
        """Count it, and keep it unless there are too many."""
        self.total += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)


def check_state(state: Path) -> Findings:
    """Raises `NoSpace`, `StorageFailed`, `Overloaded`: there is no copy to look at."""
    disk, copy = PosixDisk(), state.with_name(f"check-{os.getpid()}.copy")
    found = Findings()
    try:
        source = apsw.Connection(str(state), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            source.set_busy_timeout(2000)
            disk.open(copy, exclusive=True).close()  # readable by nobody else
            found.position, _ = copy_state(source, copy, None)
        finally:
            source.close()
        connection = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            found.checked = check_tables(SqliteReadTables(connection), found.add)
        finally:
            connection.close()
    except errors.Corrupt as error:
        found.add(Problem("state", f"the master's state is damaged: {error}"))
    except apsw.Error as error:
        raise translate(error, f"check {state}") from error
    finally:
        remove_database(disk, copy)
    return found


def main(arguments: list[str]) -> int:
    """See the module's text."""
    if len(arguments) != 1:
        print("usage: python -m master.check STATE", file=sys.stderr)
        return 2
    os.nice(10)  # the master answers first
    try:
        found = check_state(Path(arguments[0]))
    except (errors.GfsError, apsw.Error) as error:
        print(f"check: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
