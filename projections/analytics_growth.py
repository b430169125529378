"""Reports from the history: growth, what grew most, where most happens, who deleted what.

Growth of everything by hour and owner is kept as sums. Growth of a tree is added up from
the events of files, for any directory one asks: nothing more has to be kept, and no
event costs more for it. There a file counts in the tree in which it is now, or was when
it went; a tree in the trash counts as what it was part of, until it is reclaimed. So
moving files is no growth.
"""

from __future__ import annotations

from projections.analytics_tree import LINEAGE, NOTHING, ONCE_BELOW, Words, climbing

_OWNER = "($uid < 0 OR {} = $uid)"
# What changed sizes, and copies, which come as one. `ino` is the inode that it happened to.
_DELTAS = f""", deltas AS (
  SELECT ino, time_ns, owner AS uid, size - size_before AS bytes,
    (event = 'made')::INTEGER AS created, (event = 'removed')::INTEGER AS removed
  FROM history.events WHERE event IN ('made', 'written', 'removed')
    AND time_ns >= $since AND {_OWNER.format("owner")}
  UNION ALL SELECT root, time_ns, uid, bytes, inodes, 0
  FROM history.copies WHERE time_ns >= $since AND {_OWNER.format("uid")}
)"""


# CTE `home` (ino, parent): inodes that lie in the tree, or lay there when they went.
_HOME_IN_TREE = """, leavers AS (
  SELECT DISTINCT ino FROM (SELECT * FROM history.events WHERE from_parent NOT IN (0, 2)) e
  SEMI JOIN once ON e.from_parent = once.ino
), lain AS (
  SELECT ino, arg_max(from_parent, position) AS parent FROM history.events
  SEMI JOIN leavers USING (ino)
  ANTI JOIN (SELECT ino FROM dirents SEMI JOIN leavers USING (ino) WHERE parent <> 2) USING (ino)
  WHERE from_parent NOT IN (0, 2) GROUP BY ino
), home AS (
  SELECT ino, min(parent) AS parent FROM dirents SEMI JOIN once ON parent = once.ino
  WHERE parent <> 2 AND ino <> $top GROUP BY ino
  UNION ALL SELECT ino, parent FROM lain SEMI JOIN once ON parent = once.ino
  UNION ALL SELECT $top::BIGINT, $top::BIGINT
)"""


def _homes(rows: str) -> str:
    """CTE `home` (ino, parent): where inodes of `rows` are, or were before they went."""
    return f""", lying AS (
  SELECT ino, min(parent) AS parent FROM dirents SEMI JOIN {rows} USING (ino)
  WHERE parent <> 2 GROUP BY ino
), lain AS (
  SELECT ino, arg_max(from_parent, position) AS parent FROM history.events
  SEMI JOIN {rows} USING (ino) ANTI JOIN lying USING (ino)
  WHERE from_parent NOT IN (0, 2) GROUP BY ino
), home AS (SELECT * FROM lying UNION ALL SELECT * FROM lain)"""


def _counted(words: Words) -> str:
    """Statement's begin, and CTE `counted`: deltas with the directory they count at."""
    if words.in_tree:
        join = ", counted AS (SELECT d.*, h.parent FROM deltas d JOIN home h USING (ino))"
        return f"{ONCE_BELOW}{_HOME_IN_TREE}{_DELTAS}{join}"
    if words.by in ("directory", "tree"):
        join = ", counted AS (SELECT d.*, h.parent FROM deltas d LEFT JOIN home h USING (ino))"
        return f"{LINEAGE}{_DELTAS}{_homes('deltas')}{join}"
    return f"{NOTHING}{_DELTAS}, counted AS (SELECT * FROM deltas)"


def over_time(words: Words) -> str:
    """Inodes and bytes that came and went."""
    hour = "hour" if not words.in_tree else "make_timestamp_ns(time_ns)::TIMESTAMP"
    by = "uid" if words.by == "owner" else f"date_trunc('{words.by}', {hour}) AS since"
    if words.per_owner and words.by != "owner":
        by += ", uid"
    order = by.partition(" AS ")[2] or by
    if words.in_tree:
        return (
            f"{_counted(words)} SELECT {by}, sum(created)::BIGINT AS created,"
            " sum(removed)::BIGINT AS removed, sum(greatest(bytes, 0))::BIGINT AS bytes_added,"
            " sum(greatest(-bytes, 0))::BIGINT AS bytes_removed"
            f" FROM counted GROUP BY ALL ORDER BY {order}"
        )
    return (
        f"SELECT {by}, sum(created)::BIGINT AS created, sum(removed)::BIGINT AS removed,"
        " sum(bytes_added)::BIGINT AS bytes_added, sum(bytes_removed)::BIGINT AS bytes_removed"
        " FROM history.growth WHERE hour >= make_timestamp_ns($since)::TIMESTAMP"
        f" AND {_OWNER.format('uid')} GROUP BY ALL ORDER BY {order}"
    )


_NET = (
    "sum(bytes)::BIGINT AS bytes, sum(created)::BIGINT AS created, sum(removed)::BIGINT AS removed"
)
# A directory's path in words; of `places` p and rows b with `parent`.
_DIRECTORY = "CASE p.path WHEN '' THEN '/' ELSE coalesce(p.path, '<gone ' || b.parent || '>') END"
_BEST = "HAVING sum(bytes) > 0 ORDER BY bytes DESC, 1 LIMIT $n"


def growing(words: Words) -> str:
    """What has most bytes more than at the time given."""
    begin = _counted(words)
    if words.by == "owner":
        return f"{begin} SELECT uid, {_NET} FROM counted GROUP BY uid {_BEST}"
    if words.by == "file":
        return (
            f"{begin}, best AS (SELECT ino, {_NET} FROM counted"
            f" WHERE ino IN (SELECT ino FROM inodes) GROUP BY ino {_BEST}), least AS ("
            "SELECT ino, home.parent AS parent, home.name AS name FROM ("
            "SELECT ino, min({'parent': parent, 'name': name}) AS home"
            f" FROM dirents SEMI JOIN best USING (ino) GROUP BY ino)){climbing('least')}"
            " SELECT coalesce(p.path, '<orphans>') || '/' || coalesce(l.name, b.ino::VARCHAR)"
            " AS path, b.* FROM best b LEFT JOIN least l USING (ino)"
            " LEFT JOIN places p ON p.ino = l.parent ORDER BY bytes DESC, b.ino"
        )
    if words.by == "tree":
        begin, parent = _branches(begin, words), "b.branch"
        counted = "counted c JOIN branches b ON b.ino = coalesce(c.parent, 1)"
    else:
        counted, parent = "counted c", "coalesce(c.parent, 0)"
    return (
        f"{begin}, best AS (SELECT {parent} AS parent, {_NET} FROM {counted}"
        f" GROUP BY 1 {_BEST}){climbing('best')}"
        f" SELECT {_DIRECTORY} AS path, b.parent AS ino, b.* EXCLUDE (parent)"
        " FROM best b LEFT JOIN places p ON p.ino = b.parent ORDER BY bytes DESC, b.parent"
    )


def _branches(begin: str, words: Words) -> str:
    """CTE `branches`: of each directory, which one right below the top it lies in (or the top)."""
    top = "$top::BIGINT" if words.in_tree else "1::BIGINT"
    return f"""{begin}, branches (ino, branch, depth) AS (
  SELECT {top}, {top}, 0
  UNION ALL SELECT d.ino, CASE WHEN b.depth = 0 THEN d.ino ELSE b.branch END, b.depth + 1
  FROM branches b JOIN lineage d ON d.parent = b.ino
)"""


def active(words: Words) -> str:
    """Directories by what happened to the files in them, where they were at the time."""
    begin = ONCE_BELOW if words.in_tree else NOTHING
    here = " WHERE parent IN (FROM once)" if words.in_tree else ""
    return (
        f"{begin}, recent AS (SELECT ino, event, size - size_before AS bytes,"
        " CASE WHEN parent NOT IN (0, 2) THEN parent WHEN from_parent NOT IN (0, 2)"
        " THEN from_parent END AS place FROM history.events WHERE time_ns >= $since"
        f" AND {_OWNER.format('uid')}), nameless AS (SELECT DISTINCT ino FROM recent"
        f" WHERE place IS NULL){_homes('nameless')}, placed AS (SELECT r.event, r.bytes,"
        " coalesce(r.place, h.parent) AS parent FROM recent r LEFT JOIN home h USING (ino)),"
        " best AS (SELECT coalesce(parent, 0) AS parent, count(*) AS events,"
        " count(*) FILTER (event = 'made') AS made, count(*) FILTER (event = 'written') AS written,"
        " count(*) FILTER (event IN ('removed', 'unlinked', 'trashed')) AS removed,"
        " coalesce(sum(bytes) FILTER (event = 'written'), 0)::BIGINT AS bytes"
        f" FROM placed{here} GROUP BY 1 ORDER BY events DESC, 1 LIMIT $n){climbing('best')}"
        f" SELECT {_DIRECTORY} AS path, b.parent AS ino, b.* EXCLUDE (parent)"
        " FROM best b LEFT JOIN places p ON p.ino = b.parent ORDER BY events DESC, b.parent"
    )


def deleted(words: Words) -> str:
    """Names that went, newest first."""
    begin = ONCE_BELOW if words.in_tree else NOTHING
    here = " AND x.parent IN (FROM once)" if words.in_tree else ""
    return (
        f"{begin}, gone AS (SELECT x.* FROM history.deletions x WHERE x.time_ns >= $since"
        f" AND {_OWNER.format('x.uid')} AND x.name GLOB $name{here}"
        f" ORDER BY x.time_ns DESC, x.cursor DESC LIMIT $n){climbing('gone')}"
        " SELECT make_timestamp_ns(x.time_ns) AS deleted, x.uid AS by_uid, x.host, x.mount,"
        " coalesce(p.path, '<gone ' || x.parent || '>') || '/' || x.name AS path, x.ino,"
        " kind_of(x.kind) AS kind, x.size, x.ino IN (SELECT ino FROM dirents WHERE parent = 2)"
        " AS in_trash FROM gone x LEFT JOIN places p ON p.ino = x.parent"
        " ORDER BY x.time_ns DESC, x.cursor DESC"
    )
