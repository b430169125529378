"""Tables of the search view, in SQLite. Names are text as `gfs.changes.text_of` makes it.

Read them with any SQLite tool. What is kept, and what each column means, is the
contract of `/sql` and of docs/views.md.
"""

from __future__ import annotations

from projections.core.naming import suffix_of

ORPHANS, ROOT, TRASH = 0, 1, 2  # rows of `directories` that hang on nothing
NOWHERE = -1  # home of the roots themselves: counted nowhere

LARGE_BYTES = 4096  # the largest files are looked for among those from here on
INDEXES = {  # a load into an empty view makes them last
    "inodes_name": "CREATE INDEX inodes_name ON inodes (home, name)",
    "inodes_size": f"CREATE INDEX inodes_size ON inodes (size) WHERE size >= {LARGE_BYTES}",
    "links_name": "CREATE UNIQUE INDEX links_name ON links (parent, name)",
    "links_ino": "CREATE INDEX links_ino ON links (ino)",
    "directories_path": "CREATE INDEX directories_path ON directories (path)",
    "directories_parent": "CREATE INDEX directories_parent ON directories (parent)",
}
# Columns of `inodes` as they are stored, behind `ino`.
STORED = (
    "home, name, extension, mode, uid, gid, nlink, size, stored, atime_after, mtime_ns,"
    " ctime_after, created_after, data_version, rdev, target, xattrs"
)
SCHEMA = f"""
CREATE TABLE inodes (            -- one row a file, directory, link, ..., with its least name
  ino INTEGER PRIMARY KEY,
  home INTEGER NOT NULL,         -- directory at which it counts: of the least (parent, name)
  name TEXT NOT NULL,            -- that name; '' if home is {ORPHANS} or {NOWHERE}, where none is
  extension TEXT NOT NULL,       -- of the name, lower case, without the dot; of regular files
  mode INTEGER NOT NULL,         -- st_mode, type bits included
  uid INTEGER NOT NULL,
  gid INTEGER NOT NULL,
  nlink INTEGER NOT NULL,
  size INTEGER NOT NULL,         -- bytes, as stat says
  stored INTEGER NOT NULL,       -- bytes that extents cover
  atime_after INTEGER NOT NULL,  -- since mtime; times are mostly alike, and 0 takes no byte
  mtime_ns INTEGER NOT NULL,
  ctime_after INTEGER NOT NULL,  -- since mtime
  created_after INTEGER NOT NULL,-- since ctime
  data_version INTEGER NOT NULL,
  rdev INTEGER NOT NULL,
  target TEXT NOT NULL,          -- symbolic links
  xattrs INTEGER NOT NULL,       -- how many
  atime_ns INTEGER AS (mtime_ns + atime_after),
  ctime_ns INTEGER AS (mtime_ns + ctime_after),
  created_ns INTEGER AS (mtime_ns + ctime_after + created_after)
);

CREATE TABLE links (             -- all other names: of hard links, and without an inode
  id INTEGER PRIMARY KEY,        -- below 0, so that it is no inode's number
  parent INTEGER NOT NULL,       -- inode of the directory
  name TEXT NOT NULL,
  ino INTEGER NOT NULL
);

CREATE VIEW dirents AS           -- one row a name; id means nothing outside this file
  SELECT ino AS id, home AS parent, name, ino FROM inodes WHERE home > 0
  UNION ALL SELECT id, parent, name, ino FROM links;

CREATE TABLE xattrs (
  ino INTEGER NOT NULL,
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (ino, name)
) WITHOUT ROWID;

CREATE TABLE directories (       -- sums are of everything below, at any depth
  ino INTEGER PRIMARY KEY,
  parent INTEGER NOT NULL,       -- {NOWHERE} for the three that hang on nothing
  name TEXT NOT NULL,
  path TEXT NOT NULL,            -- '' is the root; '<trash>/...', '<orphans>/...'
  files INTEGER NOT NULL,        -- what is no directory, each inode once
  directories INTEGER NOT NULL,
  bytes INTEGER NOT NULL,        -- sum of sizes
  disk_bytes INTEGER NOT NULL    -- sum of stored, each rounded up to 512
);
INSERT INTO directories VALUES
  ({ORPHANS}, {NOWHERE}, '', '<orphans>', 0, 0, 0, 0),
  ({ROOT}, {NOWHERE}, '', '', 0, 0, 0, 0),
  ({TRASH}, {NOWHERE}, '', '<trash>', 0, 0, 0, 0);

CREATE TABLE owners (            -- sums over all inodes, trash included
  uid INTEGER PRIMARY KEY,
  files INTEGER NOT NULL,
  directories INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  disk_bytes INTEGER NOT NULL
);
CREATE TABLE extensions (        -- sums over all regular files, trash included
  extension TEXT PRIMARY KEY,
  files INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  disk_bytes INTEGER NOT NULL
) WITHOUT ROWID;

CREATE VIRTUAL TABLE names USING fts5 (
  name, content = 'dirents', content_rowid = 'id', tokenize = 'trigram', detail = 'none',
  columnsize = 0
);
{"; ".join(INDEXES.values())};
"""

HISTORY = """
CREATE TABLE deletions (
  cursor TEXT PRIMARY KEY,       -- of the event
  time_ns INTEGER NOT NULL,
  directory TEXT NOT NULL,       -- path of the directory when it was noted
  parent INTEGER NOT NULL,
  name TEXT NOT NULL,
  ino INTEGER NOT NULL,
  kind INTEGER NOT NULL,         -- type bits of st_mode
  size INTEGER NOT NULL,         -- bytes of the inode, when it changed with its name
  to_trash INTEGER NOT NULL,
  uid INTEGER NOT NULL,          -- who did it
  pid INTEGER NOT NULL,
  host TEXT NOT NULL,
  mount TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX deletions_time ON deletions (time_ns);
CREATE TABLE growth (
  hour INTEGER NOT NULL,         -- hours since 1970
  uid INTEGER NOT NULL,
  created INTEGER NOT NULL,      -- inodes
  removed INTEGER NOT NULL,
  bytes_added INTEGER NOT NULL,
  bytes_removed INTEGER NOT NULL,
  PRIMARY KEY (hour, uid)
) WITHOUT ROWID;
"""


def extension_of(name: str) -> str:
    """What follows the last dot, in lower case; "" for none, hidden names and long ones."""
    return suffix_of(name).lower()
