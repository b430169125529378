"""Whose a copy is, in SQL: the rule of `master.core.copying.owned`, for rows of a view.

The expressions read an inode's row by the name `i`; SQLite and DuckDB both take them.
"""

from __future__ import annotations

from dataclasses import dataclass

from gfs.changes import Copied

_SETUID, _SETGID = 0o4000, 0o2000


@dataclass(frozen=True)
class Owning:
    """SQL for the columns of a copied inode; `kept` says which attributes it has."""

    mode: str
    uid: str
    gid: str
    kept: str


def owning(copy: Copied) -> Owning:
    """Numbers alone go into the text."""
    if copy.uid < 0:
        return Owning("i.mode", "i.uid", "i.gid", "true")
    groups = ", ".join(str(int(gid)) for gid in copy.groups)
    gid = f"(CASE WHEN i.gid IN ({groups}) THEN i.gid ELSE {int(copy.gid)} END)"
    lost_user = f"(CASE WHEN i.uid <> {int(copy.uid)} THEN {_SETUID} ELSE 0 END)"
    lost_group = f"(CASE WHEN i.gid <> {gid} THEN {_SETGID} ELSE 0 END)"
    return Owning(
        f"(i.mode & ~{lost_user} & ~{lost_group})",
        str(int(copy.uid)),
        gid,
        "substr(x.name, 1, 8) <> 'trusted.' AND substr(x.name, 1, 9) <> 'security.'",
    )
