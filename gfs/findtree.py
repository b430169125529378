"""The predicates of find(1) as plain data, which one program parses and another evaluates."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from gfs.errors import UsageError

DEPTH_MAX = 1 << 30
TYPES = "fdlbcps"
TIMES = "acmB"  # read, changed, content changed, born
NESTING_MAX = 200  # of a predicate from outside
NODES_MAX = 2000
REGEXES_MAX = 100  # each is made ready before the question begins
TEXT_MAX = 4096  # characters of a pattern for paths
NAME_MAX = 1024  # of one for names
VALUES_MAX = 10_000


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


class Contains(Node, frozen=True, tag="contains"):
    """Ours: the last component contains `text`; `fold`: whatever the case of ASCII letters."""

    text: str
    fold: bool = True


class Target(Node, frozen=True, tag="target"):
    """A symbolic link whose content fits the shell pattern."""

    pattern: str
    fold: bool = False


class Regex(Node, frozen=True, tag="regex"):
    """A regular expression in the syntax of RE2.

    `whole`: all of the path as it is shown; else anywhere in the last component.
    """

    pattern: str
    fold: bool = False
    whole: bool = True


class SameFile(Node, frozen=True, tag="same"):
    """The inode at `path`, under whatever name."""

    path: str


class OneOf(Node, frozen=True, tag="oneof"):
    """`attribute` (uid, gid) is one of `values`."""

    attribute: str
    values: list[int]


class Nameless(Node, frozen=True, tag="nameless"):
    """`attribute` (uid, gid) is no user or group of the host that asks, who makes it `OneOf`."""

    attribute: str


Predicate = (
    And
    | Or
    | Not
    | Always
    | Name
    | Type
    | Number
    | Age
    | NewerThan
    | Permissions
    | Empty
    | Xattr
    | Contains
    | Target
    | Regex
    | SameFile
    | OneOf
    | Nameless
)

# What only the caller of a view can do; no part of a predicate, so it never goes there.


class Action(Struct, frozen=True):
    """What to do with what is found: print, print0, printf, ls, delete, exec, execdir, ok.

    `words`: the format of printf; the command of the others, with the last word ";" or "+".
    """

    name: str = "print"
    words: list[str] = []


class Prune(Struct, frozen=True):
    """True; nothing below this directory is looked at."""


class Quit(Struct, frozen=True):
    """The end of everything."""


class Each(Struct, frozen=True):
    """The comma: all parts, one after the other; true if the last is."""

    parts: list[Any]


class Expression(Struct, frozen=True):
    """All of a find command line.

    `tree` is of predicates, And, Or, Not, Each and of what only the caller can do.
    """

    paths: list[str]
    tree: Any
    mindepth: int = 0
    maxdepth: int = DEPTH_MAX
    depth_first: bool = False  # what a directory holds comes before it


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
    """Refuse what `parse` would never make, and what would take long to answer.

    Raises: UsageError.
    """
    todo: list[tuple[Predicate, int]] = [(predicate, 1)]
    nodes = regexes = 0
    while todo:
        node, depth = todo.pop()
        nodes += 1
        regexes += isinstance(node, Regex)
        if regexes > REGEXES_MAX:
            raise UsageError(f"more than {REGEXES_MAX} regular expressions")
        if depth > NESTING_MAX or nodes > NODES_MAX:
            raise UsageError("the expression is too long or nested too deeply")
        match node:
            case And(parts) | Or(parts):
                todo += [(part, depth + 1) for part in parts]
            case Not(part):
                todo.append((part, depth + 1))
            case _:
                _check_test(node)
    return predicate


def _check_test(node: Predicate) -> None:
    match node:
        case Type(kinds) if not kinds or set(kinds) - set(TYPES):
            raise UsageError(f"unknown type {kinds!r}")
        case Number(attribute, sign, _, unit) if (
            attribute not in ("size", "links", "ino", "uid", "gid")
            or sign not in ("", "+", "-")
            or unit < 1
        ):
            raise UsageError(f"unknown number test {attribute!r} {sign!r}")
        case Age(which) if which not in tuple(TIMES):
            raise UsageError(f"unknown time {which!r}")
        case NewerThan(which, _, of) if {which, of} - set(TIMES):
            raise UsageError(f"unknown time {which!r} or {of!r}")
        case Permissions(_, how) if how not in ("", "-", "/"):
            raise UsageError(f"unknown permission test {how!r}")
        case OneOf(attribute, values) if attribute not in ("uid", "gid"):
            raise UsageError(f"unknown attribute {attribute!r}")
        case OneOf(_, values) if len(values) > VALUES_MAX:
            raise UsageError(f"more than {VALUES_MAX} numbers in one test")
        case Nameless():
            raise UsageError("-nouser and -nogroup need the names of the host that asks")
        case Name(pattern, _, False) if len(pattern) > NAME_MAX:
            raise UsageError(f"a pattern for names may have {NAME_MAX} characters")
        case (
            Name(pattern=text)
            | Target(pattern=text)
            | Regex(pattern=text)
            | Contains(text=text)
            | Xattr(name=text)
        ) if len(text) > TEXT_MAX:
            raise UsageError(f"a pattern may have {TEXT_MAX} characters")
        case _:
            pass
