"""Tables of the analytics view, in DuckDB: current rows, and what to ask them through.

`inodes` and `dirents` hold the namespace as it is: views of `main_` tables, and of `fresh` for
what is not in those yet. `files` and `directories` have paths and times one can read. `history`
is another database, attached: growth by hour and owner, who deleted what, and what happened to
each file. What is kept besides is `projections.analytics_kept`. The contract of
`gfs sql --view analytics`.
"""

from __future__ import annotations

from projections import analytics_fresh_schema as fresh
from projections.analytics_kept import KEPT

INODE_COLUMNS = {
    "ino": "BIGINT",
    "mode": "INTEGER",
    "uid": "BIGINT",
    "gid": "BIGINT",
    "nlink": "BIGINT",
    "size": "BIGINT",
    "stored_apart": "BIGINT",  # NULL: as large as `size`
    "atime_xor": "BIGINT",  # with mtime_ns: mostly 0, and of any two times a BIGINT
    "mtime_ns": "BIGINT",
    "ctime_ns": "BIGINT",
    "created_ns": "BIGINT",
    "data_version": "BIGINT",
    "rdev": "BIGINT",
    "target": "VARCHAR",
    "digest": "BIGINT",
}
# What is kept as a difference from another column: two times and two sizes that mostly are the
# same took more bytes than anything else of a file but its name.
INODE_MADE = {"stored": "coalesce(stored_apart, size)", "atime_ns": "xor(atime_xor, mtime_ns)"}
DIRENT_COLUMNS = {"parent": "BIGINT", "name": "VARCHAR", "ino": "BIGINT", "kind": "INTEGER"}


def _columns(columns: dict[str, str]) -> str:
    null = {"stored_apart"}
    return ", ".join(
        f"{name} {kind}{'' if name in null else ' NOT NULL'}" for name, kind in columns.items()
    )


_MADE = ", ".join(f"{name} BIGINT GENERATED ALWAYS AS ({sql})" for name, sql in INODE_MADE.items())
_FRESH = ", ".join(f"{name} {kind}" for name, kind in (fresh.COLUMNS | INODE_COLUMNS).items())
_SHOWN = "".join(f"CREATE VIEW {name} AS {sql};" for name, sql in fresh.PLAIN.items())
# No primary keys: DuckDB keeps them in an index, which takes a third of the room that a file
# has here, and saves scans of a column only where a batch is small.
SCHEMA = f"""
CREATE TABLE main_inodes ({_columns(INODE_COLUMNS)}, {_MADE});
CREATE TABLE main_dirents (
  {_columns(DIRENT_COLUMNS)},
  extension VARCHAR NOT NULL  -- of a regular file's name, kept: to compute it takes longer
);
CREATE TABLE main_xattrs (ino BIGINT NOT NULL, name VARCHAR NOT NULL, value VARCHAR NOT NULL);
{KEPT}
{fresh.TABLES.format(columns=_FRESH)}
{_SHOWN}
CREATE MACRO kind_of(mode) AS CASE mode & 61440
  WHEN 32768 THEN 'f' WHEN 16384 THEN 'd' WHEN 40960 THEN 'l' WHEN 8192 THEN 'c'
  WHEN 24576 THEN 'b' WHEN 4096 THEN 'p' WHEN 49152 THEN 's' ELSE '?' END;
CREATE MACRO extension_of(name) AS CASE
  WHEN regexp_matches(name, '[^.].*\\.[^.]{{0,16}}$')
  THEN lower(regexp_extract(name, '\\.([^.]*)$', 1)) ELSE '' END;

-- Each inode that has a name once, at its least (parent, name).
CREATE VIEW homes AS
WITH several AS (SELECT ino FROM inodes WHERE nlink > 1 AND mode & 61440 <> 16384)
SELECT d.ino, d.parent, d.name, d.extension FROM dirents d ANTI JOIN several USING (ino)
UNION ALL
SELECT ino, least.parent, least.name, least.extension FROM (
  SELECT ino, min({{'parent': parent, 'name': name, 'extension': extension}}) AS least
  FROM dirents SEMI JOIN several USING (ino) GROUP BY ino
);

CREATE VIEW directories AS
WITH RECURSIVE tree (ino, parent, depth, path) AS (
  SELECT * FROM (VALUES (1::BIGINT, 0::BIGINT, 0, ''), (2::BIGINT, 0::BIGINT, 0, '<trash>'))
  UNION ALL
  SELECT d.ino, d.parent, t.depth + 1, t.path || '/' || d.name
  FROM directory_names d JOIN tree t ON d.parent = t.ino
)
SELECT * FROM tree;

CREATE VIEW files AS
SELECT i.ino, coalesce(h.parent, 0) AS parent, coalesce(h.name, '') AS name,
  coalesce(h.extension, '') AS extension, kind_of(i.mode) AS kind,
  i.mode & 4095 AS permissions, i.uid, i.gid, i.nlink, i.size,
  (i.stored + 511) // 512 * 512 AS disk_bytes,
  make_timestamp_ns(i.atime_ns) AS atime, make_timestamp_ns(i.mtime_ns) AS mtime,
  make_timestamp_ns(i.ctime_ns) AS ctime, make_timestamp_ns(i.created_ns) AS created, i.target
FROM inodes i LEFT JOIN homes h ON h.ino = i.ino;
"""

EVENT_COLUMNS = {
    "epoch": "BIGINT",
    "position": "BIGINT",
    "time_ns": "BIGINT",
    "ino": "BIGINT",
    "event": "VARCHAR",
    "kind": "INTEGER",
    "parent": "BIGINT",
    "name": "VARCHAR",
    "from_parent": "BIGINT",
    "from_name": "VARCHAR",
    "size": "BIGINT",
    "size_before": "BIGINT",
    "owner": "BIGINT",
    "detail": "VARCHAR",
    "uid": "BIGINT",
    "pid": "BIGINT",
    "host": "VARCHAR",
    "mount": "VARCHAR",
}
COPY_COLUMNS = {
    "epoch": "BIGINT",
    "position": "BIGINT",
    "time_ns": "BIGINT",
    "operation": "VARCHAR",
    "source": "BIGINT",
    "root": "BIGINT",
    "first": "BIGINT",
    "inodes": "BIGINT",
    "bytes": "BIGINT",
    "parent": "BIGINT",
    "name": "VARCHAR",
    "uid": "BIGINT",
    "pid": "BIGINT",
    "host": "VARCHAR",
    "mount": "VARCHAR",
}
DELETION_COLUMNS = {
    "cursor": "VARCHAR",
    "time_ns": "BIGINT",
    "parent": "BIGINT",
    "name": "VARCHAR",
    "ino": "BIGINT",
    "kind": "INTEGER",
    "size": "BIGINT",
    "to_trash": "BOOLEAN",
    "uid": "BIGINT",
    "pid": "BIGINT",
    "host": "VARCHAR",
    "mount": "VARCHAR",
}

# Every statement may run again on a history that is there: what a later release adds is added.
HISTORY = f"""
CREATE TABLE IF NOT EXISTS growth (
  hour TIMESTAMP NOT NULL,      -- its beginning, UTC
  uid BIGINT NOT NULL,
  created BIGINT NOT NULL,      -- inodes
  removed BIGINT NOT NULL,
  bytes_added BIGINT NOT NULL,
  bytes_removed BIGINT NOT NULL -- several rows may have one hour and owner: sum them
);
CREATE TABLE IF NOT EXISTS deletions ({_columns(DELETION_COLUMNS)});
-- As `projections.core.happenings` tells it; rows lie in the order of their positions.
CREATE TABLE IF NOT EXISTS events ({_columns(EVENT_COLUMNS)});
CREATE TABLE IF NOT EXISTS copies ({_columns(COPY_COLUMNS)});
"""
