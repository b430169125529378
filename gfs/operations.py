"""What the master writes into its log: the names of all operations.

A record says which one made it, and a reader of the stream may ask for some of them. For
each stand the tables whose items it may change; what that looks like in the stream is
told in docs/stream.md.
"""

from __future__ import annotations

from gfs import items

# Quotas above count what is made, removed, moved, grows or shrinks.
_SPACE = (items.EXTENTS, items.CHUNKS, items.QUOTAS)
_NAMES = (items.DIRENTS, items.INODES, items.QUOTAS)
_GONE = (*_NAMES, *_SPACE, items.ORPHANS)

# What mounts and clients ask for.
_ASKED: dict[str, tuple[str, ...]] = {
    "create": _NAMES,
    "make": _NAMES,
    "symlink": _NAMES,
    "link": (items.DIRENTS, items.INODES),
    "unlink": (*_GONE, items.TRASH),
    "rmdir": (*_NAMES, items.ORPHANS),
    "rename": _GONE,
    "setattr": (items.INODES, *_SPACE),
    "setxattr": (items.INODES,),
    "removexattr": (items.INODES,),
    "commit": (items.INODES, *_SPACE),
    "allocate": (items.CHUNKS,),
    "seal-chunk": (items.CHUNKS,),
    "open-tail": (items.INODES, items.CHUNKS),
    "resolve-tail": (items.INODES, items.CHUNKS),
    "snapshot": (*_NAMES, items.META),
    "clone": _NAMES,
    "remove-tree": (*_GONE, items.TRASH),
    "undelete": (*_NAMES, items.TRASH),
    "empty-trash": (*_GONE, items.TRASH),
    "quota": (items.QUOTAS, items.ORPHANS),
    "lock": (items.LOCKS,),
    "unlock": (items.LOCKS,),
    "atime": (items.INODES,),
}
# What the master does of itself, or for its operator.
_OWN: dict[str, tuple[str, ...]] = {
    "start": (items.INODES, items.META),
    "session-open": (items.SESSIONS,),
    "session-end": (items.SESSIONS, items.LOCKS),
    "server": (items.SERVERS,),
    "drain": (items.SERVERS,),
    "shadows": (items.META,),
    "growth": (items.INODES, *_SPACE),
    "truncate-some": (items.INODES, *_SPACE),
    "seal-begin": (items.CHUNKS,),
    "seal": (items.INODES, *_SPACE, items.WRITERS),
    "condensed": (items.CHUNKS,),
    "relocate-begin": (items.CHUNKS,),
    "relocate": (items.INODES, items.EXTENTS, items.CHUNKS),
    "reclaim": (items.INODES, *_SPACE, items.ORPHANS),
    "purge-trash": (*_GONE, items.TRASH),
    "condemn": (items.CHUNKS,),
    "delete-chunks": (items.CHUNKS, items.META),
    "forget-writers": (items.WRITERS,),
    "fsck": (items.INODES, items.CHUNKS, items.QUOTAS),
}
OPERATIONS = {name: frozenset(tables) for name, tables in (_ASKED | _OWN).items()}
