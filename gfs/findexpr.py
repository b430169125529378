"""find(1)'s own words -> a tree of predicates, and nothing else: no files, no clock.

The tree is plain data (`to_json`, `from_json`), so that the command line parses and a
view evaluates, in SQL. Words, precedence and rounding are those of GNU find; what this
does not know is refused by name rather than guessed. Times are nanoseconds since 1970.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from gfs.errors import UsageError
from gfs.findtree import (
    DEPTH_MAX,
    TYPES,
    Action,
    Age,
    Always,
    And,
    Empty,
    Expression,
    Name,
    NewerThan,
    Not,
    Number,
    Or,
    Permissions,
    Predicate,
    Type,
    Xattr,
    check,
    from_json,
    to_json,
)

__all__ = [
    "DEPTH_MAX",
    "TYPES",
    "Action",
    "Age",
    "Always",
    "And",
    "Empty",
    "Expression",
    "Name",
    "NewerThan",
    "Not",
    "Number",
    "Or",
    "Permissions",
    "Predicate",
    "Type",
    "Xattr",
    "check",
    "from_json",
    "parse",
    "to_json",
]

NESTING_MAX = 100
SECOND_NS = 1_000_000_000


def parse(
    words: Sequence[str],
    *,
    now_ns: int,
    user: Callable[[str], int | None] = lambda _: None,
    group: Callable[[str], int | None] = lambda _: None,
) -> Expression:
    """The expression in find's words: paths first, then predicates and one action.

    Args:
      now_ns: what -mtime and the like count from.
      user, group: number of a name, or None; numbers need no lookup.

    Raises: UsageError: names the word.
    """
    return _Parser(list(words), now_ns, user, group).run()


class _Did(Struct, frozen=True):
    """Marks in the tree where the action stands."""

    action: Action


_SIZES = {"b": 512, "c": 1, "w": 2, "k": 1024, "M": 1 << 20, "G": 1 << 30}
_IGNORED = {"-noleaf", "-xdev", "-mount", "-depth", "-d", "-ignore_readdir_race", "-P"}
_DAY_S, _MINUTE_S = 86400, 60


class _Parser:
    def __init__(
        self,
        words: list[str],
        now_ns: int,
        user: Callable[[str], int | None],
        group: Callable[[str], int | None],
    ) -> None:
        self.words = words
        self.now_ns = now_ns
        self.lookup = {"uid": user, "gid": group}
        self.at = 0
        self.nesting = 0
        self.mindepth, self.maxdepth = 0, DEPTH_MAX
        self.actions: list[Action] = []

    def run(self) -> Expression:
        while self.words[self.at : self.at + 1] == ["-P"]:
            self.at += 1
        start = self.at
        while self.at < len(self.words) and not _begins_expression(self.words[self.at]):
            self.at += 1
        paths = self.words[start : self.at] or ["."]
        tree: Any = Always(True)
        if self.at < len(self.words):
            tree = self._or()
        if self.at < len(self.words):
            raise UsageError(f"find: unexpected {self.words[self.at]!r}")
        if len(self.actions) > 1:
            raise UsageError("find: only one of -print, -print0, -printf, -ls, -delete, -exec")
        if self.actions:
            tree = _reached(tree)
        action = self.actions[0] if self.actions else Action()
        return Expression(paths, tree, action, self.mindepth, self.maxdepth)

    def _peek(self) -> str | None:
        return self.words[self.at] if self.at < len(self.words) else None

    def _take(self, of: str) -> str:
        word = self._peek()
        if word is None:
            raise UsageError(f"find: {of} needs an argument")
        self.at += 1
        return word

    def _or(self) -> Any:
        parts = [self._and()]
        while self._peek() in ("-o", "-or"):
            self.at += 1
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(parts)

    def _and(self) -> Any:
        parts = [self._not()]
        while (word := self._peek()) is not None and word not in ("-o", "-or", ")", ","):
            if word in ("-a", "-and"):
                self.at += 1
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else And(parts)

    def _not(self) -> Any:
        self.nesting += 1
        try:
            if self.nesting > NESTING_MAX:
                raise UsageError("find: expression nested too deeply")
            word = self._take("an expression")
            if word in ("!", "-not"):
                return Not(self._not())
            if word == "(":
                inner = self._or()
                if self._peek() != ")":
                    raise UsageError("find: missing )")
                self.at += 1
                return inner
            return self._test(word)
        finally:
            self.nesting -= 1

    def _test(self, word: str) -> Any:
        if word in _IGNORED:
            return Always(True)
        if word in ("-true", "-false"):
            return Always(word == "-true")
        if word == "-empty":
            return Empty()
        if word in ("-print", "-print0", "-ls", "-delete", "-printf", "-exec"):
            return self._action(word)
        if word.startswith("-newer"):
            return self._newer(word)
        handler = _TESTS.get(word)
        if handler is None:
            raise UsageError(f"find: unknown predicate {word!r}")
        return handler(self, word, self._take(word))

    def _action(self, word: str) -> _Did:
        words: list[str] = []
        if word == "-printf":
            words = [self._take(word)]
        elif word == "-exec":
            while (part := self._take("-exec ... ;")) != ";":
                words.append(part)
                if part == "+" and words[-2:-1] == ["{}"]:
                    break
        action = Action(word[1:], words)
        self.actions.append(action)
        return _Did(action)

    # Tests with one argument.

    def _depth(self, word: str, argument: str) -> Always:
        if not (argument.isascii() and argument.isdigit()):
            raise UsageError(f"find: {word} needs a number, not {argument!r}")
        depth = min(int(argument), DEPTH_MAX)
        if word == "-mindepth":
            self.mindepth = depth
        else:
            self.maxdepth = depth
        return Always(True)

    def _type(self, word: str, argument: str) -> Type:
        kinds = argument.split(",")
        if any(len(kind) != 1 or kind not in TYPES for kind in kinds):
            raise UsageError(f"find: unknown type {argument!r}")
        return Type("".join(kinds))

    def _number(self, word: str, argument: str) -> tuple[str, int]:
        found = re.fullmatch(r"([+-]?)([0-9]{1,18})", argument, re.ASCII)
        if found is None:
            raise UsageError(f"find: {word} needs a number, not {argument!r}")
        return found[1], int(found[2])

    def _count(self, word: str, argument: str) -> Number:
        attribute = {"-links": "links", "-inum": "ino", "-uid": "uid", "-gid": "gid"}[word]
        return Number(attribute, *self._number(word, argument))

    def _size(self, word: str, argument: str) -> Number:
        unit = argument[-1:] if argument[-1:] in _SIZES else ""
        sign, n = self._number(word, argument.removesuffix(unit) if unit else argument)
        return Number("size", sign, n, _SIZES[unit or "b"])

    def _owner(self, word: str, argument: str) -> Number:
        attribute = "uid" if word == "-user" else "gid"
        number = self.lookup[attribute](argument)
        if number is None and argument.isascii() and argument.isdigit():
            number = int(argument)
        if number is None:
            raise UsageError(f"find: {argument!r} is no known {word[1:]}")
        return Number(attribute, "", number)

    def _age(self, word: str, argument: str) -> Age:
        sign, n = self._number(word, argument)
        which = word[1]
        if word.endswith("min"):  # n means (n - 1, n] minutes
            unit, more = _MINUTE_S * SECOND_NS, 0
        else:  # whole days, the fraction dropped: n means [n, n + 1) days
            unit, more = _DAY_S * SECOND_NS, 1
        if sign == "-":
            return Age(which, after_ns=self.now_ns - n * unit)
        if sign == "+":
            return Age(which, upto_ns=self.now_ns - (n + more) * unit - (more == 0))
        upto = self.now_ns - (n + more - 1) * unit
        return Age(which, after_ns=upto - unit, upto_ns=upto)

    def _newer(self, word: str) -> Age | NewerThan:
        found = re.fullmatch(r"-newer(?:([acm])([acmt]))?", word)
        if found is None:
            raise UsageError(f"find: unknown predicate {word!r}")
        which, of = found[1] or "m", found[2] or "m"
        argument = self._take(word)
        if of == "t":
            return Age(which, after_ns=_moment(argument))
        return NewerThan(which, argument, of)

    def _other_newer(self, word: str, argument: str) -> NewerThan:
        return NewerThan(word[1], argument)

    def _perm(self, word: str, argument: str) -> Permissions:
        how = argument[:1] if argument[:1] in ("-", "/") else ""
        text = argument[len(how) :]
        if re.fullmatch(r"[0-7]{1,5}", text, re.ASCII) and int(text, 8) <= 0o7777:
            return Permissions(int(text, 8), how)
        return Permissions(_symbolic(text, argument), how)

    def _xattr(self, word: str, argument: str) -> Xattr:
        name, equals, value = argument.partition("=")
        return Xattr(name, value if equals else None)


_TESTS: dict[str, Callable[[_Parser, str, str], Any]] = {
    "-mindepth": _Parser._depth,
    "-maxdepth": _Parser._depth,
    "-name": lambda self, word, argument: Name(argument),
    "-iname": lambda self, word, argument: Name(argument, fold=True),
    "-path": lambda self, word, argument: Name(argument, whole=True),
    "-wholename": lambda self, word, argument: Name(argument, whole=True),
    "-ipath": lambda self, word, argument: Name(argument, fold=True, whole=True),
    "-iwholename": lambda self, word, argument: Name(argument, fold=True, whole=True),
    "-type": _Parser._type,
    "-size": _Parser._size,
    "-links": _Parser._count,
    "-inum": _Parser._count,
    "-uid": _Parser._count,
    "-gid": _Parser._count,
    "-user": _Parser._owner,
    "-group": _Parser._owner,
    "-perm": _Parser._perm,
    "-xattr": _Parser._xattr,
    "-anewer": _Parser._other_newer,
    "-cnewer": _Parser._other_newer,
    **{f"-{which}{unit}": _Parser._age for which in "acm" for unit in ("time", "min")},
}


def _begins_expression(word: str) -> bool:
    return word in ("(", "!", ")", ",") or (word.startswith("-") and word != "-")


def _reached(tree: Any) -> Any:
    """The condition under which the one action in `tree` is reached."""
    found = _reach(tree)
    assert found is not None
    return found


def _reach(tree: Any) -> Any | None:
    match tree:
        case _Did():
            return Always(True)
        case Not(part):
            return _reach(part)
        case And(parts):
            return _reach_in(parts, lambda part: part, And)
        case Or(parts):
            return _reach_in(parts, Not, And)
    return None


def _reach_in(parts: Sequence[Any], passed: Callable[[Any], Any], join: type[And]) -> Any | None:
    for at, part in enumerate(parts):
        inner = _reach(part)
        if inner is not None:
            return join([*(passed(one) for one in parts[:at]), inner])
    return None


def _moment(text: str) -> int:
    """-newermt: ``@SECONDS`` or an ISO date, in UTC unless it says otherwise."""
    if re.fullmatch(r"@[0-9]{1,10}(\.[0-9]{1,9})?", text, re.ASCII):
        seconds, _, fraction = text[1:].partition(".")
        return int(seconds) * SECOND_NS + int(fraction.ljust(9, "0"))
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"find: {text!r} is no date (ISO, or @seconds)") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (since.days * 86400 + since.seconds) * SECOND_NS + since.microseconds * 1000


_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}
_WHAT = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}


def _symbolic(text: str, shown: str) -> int:
    """``u=rw,g+r``: bits as chmod would set them on a mode of 0."""
    bits = 0
    for clause in text.split(","):
        found = re.fullmatch(r"([ugoa]*)([=+])([rwxst]*)", clause)
        if found is None:
            raise UsageError(f"find: {shown!r} is no mode")
        who = 0
        for letter in found[1] or "a":
            who |= _WHO[letter]
        what = 0
        for letter in found[3]:
            what |= _WHAT[letter]
        if found[2] == "=":
            bits &= ~who
        bits |= who & what
    return bits
