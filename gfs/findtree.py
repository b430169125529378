"""The predicates of find(1) as plain data, which one program parses and another evaluates."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from gfs.errors import UsageError

DEPTH_MAX = 1 << 30
TYPES = "fdlbcps"


class Node(Struct, frozen=True, tag_field="is"):
    """A predicate."""


class And(Node, frozen=True, tag="and"):
    parts: list[Predicate]


class Or(Node, frozen=True, tag="or"):
    parts: list[Predicate]


class Not(Node, frozen=True, tag="not"):
    part: Predicate


class Always(Node, frozen=True, tag="always"):
    value: bool


class Name(Node, frozen=True, tag="name"):
    """Shell pattern on the last component; `whole`: on the path as it is shown."""

    pattern: str
    fold: bool = False
    whole: bool = False


class Type(Node, frozen=True, tag="type"):
    kinds: str  # some of f d l b c p s


class Number(Node, frozen=True, tag="number"):
    """`attribute` in units, rounded up as find does, against n: sign "+" more, "-" less, "" equal.

    Attributes: size (bytes), links, ino, uid, gid.
    """

    attribute: str
    sign: str
    n: int
    unit: int = 1


class Age(Node, frozen=True, tag="age"):
    """Time `which` (a, c, m) lies in the open or half-open range (after_ns, upto_ns]."""

    which: str
    after_ns: int | None = None
    upto_ns: int | None = None


class NewerThan(Node, frozen=True, tag="newer"):
    """Time `which` is later than time `of` of the file at `path`."""

    which: str
    path: str
    of: str = "m"


class Permissions(Node, frozen=True, tag="perm"):
    """`how`: "" exactly these bits, "-" all of them, "/" any of them."""

    bits: int
    how: str = ""


class Empty(Node, frozen=True, tag="empty"):
    """Regular file of size 0 or directory without entries."""


class Xattr(Node, frozen=True, tag="xattr"):
    """Ours: an extended attribute is there, and has this value if one is given."""

    name: str
    value: str | None = None


Predicate = (
    And | Or | Not | Always | Name | Type | Number | Age | NewerThan | Permissions | Empty | Xattr
)


class Action(Struct, frozen=True):
    """What to do with what is found: print, print0, printf, ls, delete, exec."""

    name: str = "print"
    words: list[str] = []


class Expression(Struct, frozen=True):
    """All of a find command line. `predicate` holds where the action is reached."""

    paths: list[str]
    predicate: Predicate
    action: Action = Action()
    mindepth: int = 0
    maxdepth: int = DEPTH_MAX


def to_json(predicate: Predicate) -> bytes:
    """The tree as JSON, for a view's ``/find``."""
    return msgspec.json.encode(predicate)


def from_json(content: bytes) -> Predicate:
    """The tree again.

    Raises: UsageError.
    """
    try:
        return check(msgspec.json.decode(content, type=Predicate))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UsageError(f"predicate: {error}") from None


def check(predicate: Predicate) -> Predicate:
    """Refuse what `parse` would never make.

    Raises: UsageError.
    """
    match predicate:
        case And(parts) | Or(parts):
            for part in parts:
                check(part)
        case Not(part):
            check(part)
        case Type(kinds) if not kinds or set(kinds) - set(TYPES):
            raise UsageError(f"unknown type {kinds!r}")
        case Number(attribute, sign, _, unit) if (
            attribute not in ("size", "links", "ino", "uid", "gid")
            or sign not in ("", "+", "-")
            or unit < 1
        ):
            raise UsageError(f"unknown number test {attribute!r} {sign!r}")
        case Age(which) if which not in ("a", "c", "m"):
            raise UsageError(f"unknown time {which!r}")
        case NewerThan(which, _, of) if {which, of} - {"a", "c", "m"}:
            raise UsageError(f"unknown time {which!r} or {of!r}")
        case Permissions(_, how) if how not in ("", "-", "/"):
            raise UsageError(f"unknown permission test {how!r}")
    return predicate
