"""find(1)'s tests: a word and its argument -> a predicate. No files, no clock.

Words and rounding are those of GNU find; what this does not know is refused by name
rather than guessed. Times are nanoseconds since 1970.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gfs import findregex
from gfs.errors import UsageError
from gfs.findmodes import permissions
from gfs.findtree import (
    TYPES,
    Age,
    Always,
    Empty,
    Name,
    Nameless,
    NewerThan,
    Number,
    Predicate,
    Regex,
    SameFile,
    Target,
    Type,
    Xattr,
)

SECOND_NS = 1_000_000_000
_SIZES = {"b": 512, "c": 1, "w": 2, "k": 1024, "M": 1 << 20, "G": 1 << 30}
_DAY_S, _MINUTE_S = 86400, 60


def _in_utc(moment: dt.datetime) -> dt.datetime:
    return moment.replace(tzinfo=dt.UTC)


@dataclass(frozen=True)
class Host:
    """What words mean where they were typed.

    Attributes:
      now_ns: what -mtime and the like count from.
      user, group: number of a name, or None; numbers need no lookup.
      local: a time without a zone, in the zone of whoever typed it.
    """

    now_ns: int
    user: Callable[[str], int | None] = lambda _: None
    group: Callable[[str], int | None] = lambda _: None
    local: Callable[[dt.datetime], dt.datetime] = _in_utc


class Tests:
    """Makes predicates of words; remembers -regextype, which holds for what comes after."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._syntax = findregex.DEFAULT

    def test(self, word: str, take: Callable[[str], str]) -> Predicate:
        """The predicate that `word` begins; `take` gives its argument.

        Raises: UsageError: names the word.
        """
        if word in ("-true", "-false"):
            return Always(word == "-true")
        if word == "-empty":
            return Empty()
        if word in ("-nouser", "-nogroup"):
            return Nameless("uid" if word == "-nouser" else "gid")
        if word.startswith("-newer"):
            return self._newer(word, take)
        handler = _TESTS.get(word)
        if handler is None:
            raise UsageError(f"find: unknown predicate {word!r}")
        found: Predicate = handler(self, word, take(word))
        return found

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
        user = word == "-user"
        number = (self._host.user if user else self._host.group)(argument)
        if number is None and argument.isascii() and argument.isdigit():
            number = int(argument)
        if number is None:
            raise UsageError(f"find: {argument!r} is no known {word[1:]}")
        return Number("uid" if user else "gid", "", number)

    def _age(self, word: str, argument: str) -> Age:
        sign, n = self._number(word, argument)
        which, now = word[1], self._host.now_ns
        if word.endswith("min"):  # n means (n - 1, n] minutes
            unit, more = _MINUTE_S * SECOND_NS, 0
        else:  # whole days, the fraction dropped: n means [n, n + 1) days
            unit, more = _DAY_S * SECOND_NS, 1
        if sign == "-":
            return Age(which, after_ns=now - n * unit)
        if sign == "+":
            return Age(which, upto_ns=now - (n + more) * unit - (more == 0))
        upto = now - (n + more - 1) * unit
        return Age(which, after_ns=upto - unit, upto_ns=upto)

    def _newer(self, word: str, take: Callable[[str], str]) -> Age | NewerThan:
        found = re.fullmatch(r"-newer(?:([aBcm])([aBcmt]))?", word)
        if found is None:
            raise UsageError(f"find: unknown predicate {word!r}")
        which, of = found[1] or "m", found[2] or "m"
        argument = take(word)
        if of == "t":
            return Age(which, after_ns=self._moment(argument))
        return NewerThan(which, argument, of)

    def _moment(self, text: str) -> int:
        """-newermt: ``@SECONDS`` or an ISO date, where the words were typed unless it says."""
        if re.fullmatch(r"@[0-9]{1,10}(\.[0-9]{1,9})?", text, re.ASCII):
            seconds, _, fraction = text[1:].partition(".")
            return int(seconds) * SECOND_NS + int(fraction.ljust(9, "0"))
        try:
            moment = dt.datetime.fromisoformat(text)
            if moment.tzinfo is None:
                moment = self._host.local(moment)
            since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        except (ValueError, OverflowError):
            raise UsageError(f"find: {text!r} is no date (ISO, or @seconds)") from None
        return (since.days * _DAY_S + since.seconds) * SECOND_NS + since.microseconds * 1000

    def _permissions(self, word: str, argument: str) -> Predicate:
        return permissions(argument)

    def _regex(self, word: str, argument: str) -> Regex:
        pattern = findregex.translated(argument, self._syntax)
        return Regex(pattern, fold=word == "-iregex")

    def _regextype(self, word: str, argument: str) -> Always:
        if argument not in findregex.SYNTAXES:
            known = ", ".join(findregex.SYNTAXES)
            raise UsageError(f"find: unknown -regextype {argument!r}; known are {known}")
        self._syntax = argument
        return Always(True)

    def _xattr(self, word: str, argument: str) -> Xattr:
        name, equals, value = argument.partition("=")
        return Xattr(name, value if equals else None)


_TESTS: dict[str, Callable[[Tests, str, str], Any]] = {
    "-name": lambda self, word, argument: Name(argument),
    "-iname": lambda self, word, argument: Name(argument, fold=True),
    "-path": lambda self, word, argument: Name(argument, whole=True),
    "-wholename": lambda self, word, argument: Name(argument, whole=True),
    "-ipath": lambda self, word, argument: Name(argument, fold=True, whole=True),
    "-iwholename": lambda self, word, argument: Name(argument, fold=True, whole=True),
    "-lname": lambda self, word, argument: Target(argument),
    "-ilname": lambda self, word, argument: Target(argument, fold=True),
    "-regex": Tests._regex,
    "-iregex": Tests._regex,
    "-regextype": Tests._regextype,
    "-type": Tests._type,
    "-size": Tests._size,
    "-links": Tests._count,
    "-inum": Tests._count,
    "-uid": Tests._count,
    "-gid": Tests._count,
    "-user": Tests._owner,
    "-group": Tests._owner,
    "-perm": Tests._permissions,
    "-xattr": Tests._xattr,
    "-anewer": lambda self, word, argument: NewerThan("a", argument),
    "-cnewer": lambda self, word, argument: NewerThan("c", argument),
    "-samefile": lambda self, word, argument: SameFile(argument),
    **{f"-{which}{unit}": Tests._age for which in "acm" for unit in ("time", "min")},
}
