"""The file of exports: TOML, one ``[[exports]]`` a rule, the first that fits counts.

    [[exports]]
    clients = ["10.1.0.0/16", "fd00::/8"]   # also "unix" and "*"
    mounts = ["backup-*"]                   # names of mounts; without it all, and commands
    access = "read-only"                    # read-write (as without it), read-only, none
    subtree = "/data"
    map_uid = ["1000:5000:100"]             # FROM:TO[:COUNT], from the client's to the stored
    map_gid = ["1000:5000:100"]
    squash = "root"                         # none (as without it), root, all
    anon_uid = 65534
    anon_gid = 65534

`master.core.exports` says what a rule does. A rule is added to, never reinterpreted: what
this release does not know is refused, so that no restriction is silently left out.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from gfs.errors import UsageError
from gfs.identities import NOBODY, parse_range
from gfs.messages import Access
from gfs.squashing import ALL, ROOT, Identities
from master.core.exports import Export

_SQUASH = {"none": "", "root": ROOT, "all": ALL}


class _Rule(Struct, kw_only=True, forbid_unknown_fields=True):
    clients: list[str] = field(default_factory=lambda: ["*"])
    mounts: list[str] = field(default_factory=lambda: ["*"])
    access: Literal["read-write", "read-only", "none"] = "read-write"
    subtree: str = "/"
    map_uid: list[str] = field(default_factory=list)
    map_gid: list[str] = field(default_factory=list)
    squash: Literal["none", "root", "all"] = "none"
    anon_uid: int = NOBODY
    anon_gid: int = NOBODY


class _File(Struct, forbid_unknown_fields=True):
    exports: list[_Rule] = field(default_factory=list)


def rules_of(path: str) -> list[Export]:
    """The rules of a file; "" is no file and no rule.

    Raises:
      UsageError: it cannot be read, or a rule is none; the text names file and rule.
    """
    if not path:
        return []
    try:
        found = msgspec.convert(tomllib.loads(Path(path).read_text()), _File)
    except OSError as error:
        raise UsageError(f"cannot read the exports {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"{path}: {error}") from None
    rules = []
    for number, rule in enumerate(found.exports, 1):
        try:
            rules.append(_export(rule))
        except UsageError as error:
            raise UsageError(f"{path}: rule {number}: {error}") from None
    return rules


def _export(rule: _Rule) -> Export:
    if not rule.subtree.startswith("/"):
        raise UsageError(f"subtree {rule.subtree!r} does not begin with /")
    access = Access(
        rule.access == "read-only",
        rule.subtree.encode(),
        [parse_range(text) for text in rule.map_uid],
        [parse_range(text) for text in rule.map_gid],
        _SQUASH[rule.squash],
        rule.anon_uid,
        rule.anon_gid,
    )
    Identities(access)
    return Export(rule.clients, rule.mounts, None if rule.access == "none" else access)
