"""Paths of directories for answers that name a few files: parents and names are remembered.

Most of a climb to the root is the planning of its query. So what was climbed is kept, here, and
holds as long as the view's file says that no directory was renamed (`moves`); then those that
were are read again. A new one changes no path of another, and the number of one that is gone
does not come again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import duckdb

from gfs.ids import ROOT_INO, TRASH_INO

KNOWN_MAX = 50_000  # directories; about 10 MB
_CLIMB = """
WITH RECURSIVE up (ino, parent, name) AS (
  SELECT 0::BIGINT, unnest($1::BIGINT[]), ''
  UNION ALL SELECT d.ino, d.parent, d.name FROM up JOIN directory_names d ON d.ino = up.parent
)
SELECT * FROM up WHERE ino <> 0
"""
_MOVED = "SELECT ino, parent, name FROM directory_names WHERE moved > $1"
_ROOTS = {int(ROOT_INO): "", int(TRASH_INO): "<trash>"}
_Known = dict[int, tuple[int, str]]  # parent and name by inode


class Places:
    """What several threads have climbed."""

    def __init__(self) -> None:
        self._known: tuple[tuple[str, int], _Known] = (("", 0), {})

    def paths(
        self, connection: duckdb.DuckDBPyConnection, directories: Iterable[int]
    ) -> dict[int, str]:
        """Paths by inode, as the transaction of `connection` has them.

        Those that hang on nothing are not among them.
        """
        wanted = set(directories)
        known = self._known_in(connection)
        if unknown := {_end(known, ino) for ino in wanted} - _ROOTS.keys():
            for ino, parent, name in connection.execute(_CLIMB, [list(unknown)]).fetchall():
                known[ino] = parent, name
        paths = {ino: _path(known, ino) for ino in wanted}
        return {ino: path for ino, path in paths.items() if path is not None}

    def _known_in(self, connection: duckdb.DuckDBPyConnection) -> _Known:
        """What is known for the state that the transaction sees; another file's is dropped.

        A later state gets a copy: who has an earlier one goes on with that.
        """
        (now,) = connection.execute("SELECT file, moves FROM moves").fetchall()
        state, known = self._known
        if state[0] != now[0] or state[1] > now[1] or len(known) > KNOWN_MAX:
            known = {}
        elif state != now:
            moved = connection.execute(_MOVED, [state[1]]).fetchall()
            known = known | {ino: (parent, name) for ino, parent, name in moved if ino in known}
        if known is not self._known[1]:
            self._known = now, known
        return known


def _end(known: Mapping[int, tuple[int, str]], ino: int) -> int:
    """The first directory above, or this one, that is not known: a root at best."""
    while ino in known:
        ino, _ = known[ino]
    return ino


def _path(known: Mapping[int, tuple[int, str]], ino: int) -> str | None:
    names: list[str] = []
    while ino not in _ROOTS:
        above = known.get(ino)
        if above is None:
            return None
        ino, name = above
        names.append(f"/{name}")
    return _ROOTS[ino] + "".join(reversed(names))
