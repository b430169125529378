"""What a view could not take: which record, why, and which inodes are suspect for it.

A record whose application fails again and again is put aside with its error, so that
one bad event neither stops a view for ever nor loses the events around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from gfs.changes import Line
from projections.core.following import Batch

EVENTS_KEPT = 100  # of one record
ERROR_CHARACTERS_MAX = 2000
PATHS_MAX = 20  # more suspect places than that are given as the root
EVERYWHERE = "/"


@dataclass(frozen=True)
class Letter:
    """A record that was put aside."""

    cursor: str
    time_ns: int  # of the record
    operation: str
    error: str
    suspect: list[str]  # paths of directories below which the view may be wrong
    events: str  # JSON list, as they came

    def row(self) -> tuple[object, ...]:
        """As it lies in the table `dead_letters`."""
        suspect = msgspec.json.encode(self.suspect).decode()
        return self.cursor, self.time_ns, self.operation, self.error, suspect, self.events

    @classmethod
    def of_row(cls, row: tuple[str, int, str, str, str, str]) -> Letter:
        """The inverse of `row`."""
        cursor, time_ns, operation, error, suspect, events = row
        return cls(cursor, time_ns, operation, error, msgspec.json.decode(suspect), events)


def letter_of(batch: Batch, error: Exception, suspect: list[str]) -> Letter:
    """Put aside the record of `batch`, which failed with `error`."""
    first = batch.lines[0] if batch.lines else Line("")
    return Letter(
        cursor=first.cursor or str(batch.cursor),
        time_ns=first.time_ns,
        operation=first.operation or first.kind,
        error=f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS_MAX],
        suspect=suspect,
        events=msgspec.json.encode(batch.lines[:EVENTS_KEPT]).decode(),
    )


def inodes_of(lines: list[Line]) -> list[int]:
    """Inodes that events are about: directories of names, else the inode itself."""
    found: dict[int, None] = {}
    named = {one.new.ino for one in lines if one.table == "dirents" and one.new is not None}
    for line in lines:
        if line.copy is not None:
            found[line.copy.parent] = None
        elif line.keys is not None and line.table == "dirents":
            found[line.keys.parent] = None
        elif line.keys is not None and line.keys.ino not in named:
            found[line.keys.ino] = None
    return list(found)


def suspects(letters: list[Letter]) -> list[str]:
    """Directories below which answers may be wrong; the root alone if there are many."""
    paths = sorted({path for letter in letters for path in letter.suspect})
    return [EVERYWHERE] if len(paths) > PATHS_MAX or EVERYWHERE in paths else paths
