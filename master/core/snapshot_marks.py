"""Which trees are snapshots: a fact about the cluster for each, so that they can be listed.

A snapshot is an ordinary tree and stays one, wherever it is moved. Its mark stays behind when the
tree is gone, until the next snapshot is made.
"""

from __future__ import annotations

from collections.abc import Iterator

from gfs.items import INODES, META, Key, Meta
from master.core.decision import Decision
from master.core.tables import ReadTables

MARKS_MAX = 10_000  # more are not listed
SWEPT_MAX = 1000  # in one record
_PREFIX = b"snapshot-"


def note(decision: Decision, root: int, source: int) -> None:
    """`root` will be a copy of `source`; marks of what is no more there go."""
    gone = [
        key
        for key, ino in _marks(decision.tx.before)
        if decision.tx.before.get(INODES, (ino,)) is None
    ]
    for key in gone[:SWEPT_MAX]:
        decision.tx.delete(META, key)
    decision.tx.put(META, (_PREFIX + b"%016x" % root,), Meta(source))


def marked(tables: ReadTables) -> list[int]:
    """Inodes that were made by a snapshot, in the order of their numbers; some may be gone."""
    return [ino for _, ino in _marks(tables)]


def _marks(tables: ReadTables) -> Iterator[tuple[Key, int]]:
    for key, _ in tables.scan(META, after=(_PREFIX,), limit=MARKS_MAX):
        name = bytes(key[0])
        if not name.startswith(_PREFIX):
            return
        yield key, int(name.removeprefix(_PREFIX), 16)
