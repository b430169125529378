"""What a session may do, in words: of the configuration, and for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gfs.errors import UsageError
from gfs.identities import IdMap, parse_range
from gfs.messages import Access
from gfs.sections import MountConfig

_SQUASHED = {"root": "root is {uid}:{gid}", "all": "everybody is {uid}:{gid}"}


def wish_of(config: MountConfig) -> Access | None:
    """What a mount asks for; None: whatever it is granted.

    Raises:
      UsageError: a map or the subtree is none.
    """
    squash = "all" if config.all_squash else "root" if config.root_squash else ""
    if not config.subtree.startswith("/"):
        raise UsageError(f"subtree {config.subtree!r} does not begin with /")
    wish = Access(
        config.read_only,
        config.subtree.encode("utf-8", "surrogateescape"),
        _ranges(config.map_uid),
        _ranges(config.map_gid),
        squash,
        config.anon_uid,
        config.anon_gid,
    )
    return None if wish == Access(anon_uid=wish.anon_uid, anon_gid=wish.anon_gid) else wish


def _ranges(texts: Iterable[str]) -> list[tuple[int, int, int]]:
    return list(IdMap([parse_range(text) for text in texts]).ranges)


def described(limits: Sequence[Access]) -> str:
    """What is left of all rights, in a line.

    >>> described([])
    'everything'
    >>> described([Access(subtree=b"/a"), Access(True, b"/b", squash="root")])
    'read-only, below /a/b, root is 65534:65534'
    """
    parts = ["read-only"] if any(access.read_only for access in limits) else []
    below = b"".join(
        b"/" + access.subtree.strip(b"/") for access in limits if access.subtree != b"/"
    )
    if below:
        parts.append("below " + below.decode(errors="replace"))
    for access in limits:
        if access.map_uid:
            parts.append(f"users {IdMap(access.map_uid)}")
        if access.map_gid:
            parts.append(f"groups {IdMap(access.map_gid)}")
        if access.squash in _SQUASHED:
            text = _SQUASHED[access.squash]
            parts.append(text.format(uid=access.anon_uid, gid=access.anon_gid))
    return ", ".join(parts) or "everything"
