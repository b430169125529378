"""What is fresh in the analytics view, and the views that show it with the rest.

Rows that the `main_` tables do not have yet lie in one table, so that a batch is one statement:
`inodes`, `dirents` and so on are views of both (a differential file: Severance and Lohman 1976).
While nothing is fresh they are the main tables as they are, so that no question pays for it.
"""

from __future__ import annotations

from collections.abc import Mapping

INODE, GONE, NAME, NAMELESS, XATTR, COUNT, RESIZED = (
    "inode", "gone", "name", "nameless", "xattr", "count", "resized",
)  # fmt: skip
# Columns before those of an inode.
COLUMNS = {
    "what": "VARCHAR",
    "ino": "BIGINT",
    "parent": "BIGINT",
    "name": "VARCHAR",
    "extension": "VARCHAR",
    "moved": "BIGINT",
}
TABLES = """
CREATE TABLE fresh (
  -- inode: as it is, with its least name if it is one of the largest; gone: it is no more.
  -- name: one of all names of an inode, whose kind is in `mode`; nameless: it has none.
  -- xattr: `name` and, in `target`, value of one of all of an inode.
  -- count: a row of `counts`: of `name`, key `ino`, files in `nlink`, bytes in `size` and, of those
  -- on disk, in `stored_apart`. resized: the same of an inode, at the extension that it has.
  {columns}
);
CREATE TABLE fresh_since (epoch BIGINT NOT NULL, position BIGINT NOT NULL);  -- of main tables
"""
PLAIN = {
    name: f"FROM main_{name}"
    for name in ("inodes", "dirents", "xattrs", "counts", "large", "directory_names")
}


def _hidden(table: str, *what: str) -> str:
    """Rows of a main table that nothing fresh hides, and then others."""
    words = ", ".join(f"'{one}'" for one in what)
    hides = f"(SELECT ino FROM fresh WHERE what IN ({words}))"
    return f"FROM main_{table} ANTI JOIN {hides} USING (ino) UNION ALL "


def mixed(columns: Mapping[str, str], made: Mapping[str, str]) -> dict[str, str]:
    """By name, the SQL of each view while something is fresh.

    `columns` are those of main_inodes, `made` those that it makes of them.
    """
    own = ", ".join([*columns, *(f"{sql} AS {name}" for name, sql in made.items())])
    bytes_of = "size AS bytes, stored_apart AS disk_bytes FROM fresh WHERE what ="
    return {
        "inodes": f"{_hidden('inodes', INODE, GONE)}SELECT {own} FROM fresh WHERE what = '{INODE}'",
        "dirents": f"{_hidden('dirents', NAME, NAMELESS)}"
        f"SELECT parent, name, ino, mode AS kind, extension FROM fresh WHERE what = '{NAME}'",
        "xattrs": f"{_hidden('xattrs', INODE, GONE)}"
        f"SELECT ino, name, target AS value FROM fresh WHERE what = '{XATTR}'",
        "counts": "FROM main_counts UNION ALL"
        f" SELECT name AS of, ino AS key, extension, nlink AS files, {bytes_of} '{COUNT}' UNION ALL"
        " SELECT 'extension', 0, coalesce(d.extension, ''), 0, r.bytes, r.disk_bytes FROM ("
        "SELECT ino, sum(bytes)::BIGINT AS bytes, sum(disk_bytes)::BIGINT AS disk_bytes"
        f" FROM (SELECT ino, {bytes_of} '{RESIZED}') GROUP BY ino) r"
        " LEFT JOIN dirents d USING (ino)",
        "large": f"{_hidden('large', INODE, GONE)}"
        f"SELECT ino, size, uid, mtime_ns, {made['atime_ns']} AS atime_ns, nlink, parent, name"
        f" FROM fresh WHERE what = '{INODE}' AND mode & 61440 <> 16384"
        " AND size >= (SELECT least FROM large_from)",
        "directory_names": f"{_hidden('directory_names', NAME, NAMELESS)}"
        f"SELECT ino, parent, name, moved FROM fresh WHERE what = '{NAME}' AND mode = 16384",
    }
