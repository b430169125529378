"""What a session is given when it opens: its exports and its wish become `Confines`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gfs.errors import DeadSession, InvalidArgument, NotADirectory, NotFound, UsageError
from gfs.ids import ROOT_INO
from gfs.messages import Access, Actor, OpenSession, Walk
from master.core.ancestry import Ancestry
from master.core.confining import Confines
from master.core.queries import Queries
from master.core.registry import Registry
from master.core.tables import ReadTables

_ANYBODY = Actor(0, 0, groups=())  # where an export lies is not its client's to be allowed


@dataclass(frozen=True)
class Sight:
    """What there is to be looked at: committed state, and that of the step.

    `..._moves` rise whenever a directory there may have got another parent.
    """

    queries: Queries
    registry: Registry
    committed: ReadTables
    committed_moves: Callable[[], int]
    decided: ReadTables
    decided_moves: Callable[[], int]


def confine(ask: OpenSession, granted: Access | None, sight: Sight) -> Confines | None:
    """The restrictions of a session that opens; None: it has none.

    Raises:
      NotFound, NotADirectory: there is no such subtree.
      DeadSession: the root of a session that is taken up has gone, or is exported no more.
      InvalidArgument: its map of numbers is none.
    """
    limits = [access for access in (granted, ask.wish) if access not in (None, Access())]
    if not limits:
        return None
    outer = _directory(sight, granted.subtree if granted else b"/", ROOT_INO)
    if ask.session and ask.root:
        root = ask.root
        below = Ancestry(sight.decided, outer, ROOT_INO, sight.decided_moves)
        if not below.holds_directory(root):
            raise DeadSession("the root of the session has gone, or is exported no more")
    else:
        root = _directory(sight, ask.wish.subtree if ask.wish else b"/", outer)
    try:
        return Confines(
            limits,
            root,
            outer,
            sight.registry,
            sight.queries.path,
            (sight.committed, sight.committed_moves),
            (sight.decided, sight.decided_moves),
        )
    except UsageError as error:
        raise InvalidArgument(str(error)) from None


def _directory(sight: Sight, path: bytes, top: int) -> int:
    """The directory at a path below another."""
    if not path.strip(b"/"):
        return top
    asked = b"/" + path.lstrip(b"/")
    entry = sight.queries.walk(0, 0, Walk(asked, True, _ANYBODY, top, top)).entry
    shown = path.decode(errors="replace")
    if entry.inode is None:
        raise NotFound(f"subtree {shown}: no such directory")
    if not entry.inode.is_directory:
        raise NotADirectory(f"subtree {shown}: not a directory")
    return entry.ino
