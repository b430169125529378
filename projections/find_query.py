"""A tree of find's predicates -> SQL over the search view, parameters apart.

No text of a caller ever becomes SQL: patterns, numbers and names are bound. Shell
patterns become GLOB where the two agree, else a regular expression in a function.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gfs import findexpr
from gfs.errors import UsageError

_BITS = {
    "f": 0o100000,
    "d": 0o040000,
    "l": 0o120000,
    "b": 0o060000,
    "c": 0o020000,
    "p": 0o010000,
    "s": 0o140000,
}
_COLUMNS = {"size": "i.size", "links": "i.nlink", "ino": "i.ino", "uid": "i.uid", "gid": "i.gid"}
_TIMES = {"a": "i.atime_ns", "c": "i.ctime_ns", "m": "i.mtime_ns"}
_SIGNS = {"": "=", "+": ">", "-": "<"}
_INT_MAX = (1 << 63) - 1
_CLASSES = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": r"\s",
    "punct": r"!-/:-@\[-`{-~",
    "xdigit": "0-9A-Fa-f",
    "blank": r" \t",
}
TRIGRAM = 3  # characters that the name index needs


@dataclass
class Where:
    """A condition and what is bound in it; `path` is the SQL of the path as shown."""

    reference: Callable[[str, str], int]  # time (a, c, m) of the file at a path
    path: str
    parameters: list[Any] = field(default_factory=list)

    def bind(self, value: Any) -> str:
        """A placeholder for `value`."""
        if isinstance(value, int) and not -_INT_MAX <= value <= _INT_MAX:
            value = _INT_MAX if value > 0 else -_INT_MAX
        self.parameters.append(value)
        return f"?{len(self.parameters)}"

    def sql(self, node: findexpr.Predicate) -> str:
        """The condition for `node`.

        Raises: UsageError; what `reference` raises.
        """
        match node:
            case findexpr.And(parts):
                return self._joined(parts, "AND", "1")
            case findexpr.Or(parts):
                return self._joined(parts, "OR", "0")
            case findexpr.Not(part):
                return f"(NOT {self.sql(part)})"
            case findexpr.Always(value):
                return "1" if value else "0"
            case findexpr.Name(pattern, fold, whole):
                return self._matches(self.path if whole else "e.name", pattern, fold)
            case findexpr.Type(kinds):
                bits = ", ".join(str(_BITS[kind]) for kind in kinds)
                return f"((i.mode & 61440) IN ({bits}))"
            case findexpr.Empty():
                return (
                    "(CASE i.mode & 61440 WHEN 32768 THEN i.size = 0 WHEN 16384 THEN NOT EXISTS"
                    " (SELECT 1 FROM dirents x WHERE x.parent = i.ino) ELSE 0 END)"
                )
        return self._measured(node)

    def _measured(self, node: findexpr.Predicate) -> str:
        match node:
            case findexpr.Number(attribute, sign, n, unit):
                column = _COLUMNS[attribute]
                if unit > 1:
                    column = f"(({column} + {self.bind(unit - 1)}) / {self.bind(unit)})"
                return f"({column} {_SIGNS[sign]} {self.bind(n)})"
            case findexpr.Age(which, after, upto):
                bounds = [] if after is None else [f"{_TIMES[which]} > {self.bind(after)}"]
                bounds += [] if upto is None else [f"{_TIMES[which]} <= {self.bind(upto)}"]
                return f"({' AND '.join(bounds) or '1'})"
            case findexpr.NewerThan(which, path, of):
                return f"({_TIMES[which]} > {self.bind(self.reference(path, of))})"
            case findexpr.Permissions(bits, how):
                mode, bits = "(i.mode & 4095)", bits & 0o7777
                if how == "/":
                    return f"({mode} & {bits} != 0)" if bits else "1"
                return f"({mode} & {bits} = {bits})" if how == "-" else f"({mode} = {bits})"
            case findexpr.Xattr(name, value):
                sql = f"x.ino = i.ino AND x.name = {self.bind(name)}"
                if value is not None:
                    sql += f" AND x.value = {self.bind(value)}"
                return f"EXISTS (SELECT 1 FROM xattrs x WHERE {sql})"
        raise UsageError(f"unknown predicate {type(node).__name__}")

    def _joined(self, parts: list[findexpr.Predicate], word: str, nothing: str) -> str:
        return f"({f' {word} '.join(self.sql(part) for part in parts) or nothing})"

    def _matches(self, column: str, pattern: str, fold: bool) -> str:
        glob = glob_of(pattern)
        if glob is None or (fold and not pattern.isascii()):
            return f"fnmatch({self.bind(pattern)}, {column}, {int(fold)})"
        if fold:
            return f"(lower({column}) GLOB {self.bind(glob.lower())})"
        return f"({column} GLOB {self.bind(glob)})"


def selective_name(node: findexpr.Predicate) -> str | None:
    """A LIKE pattern that every name found fits.

    None if the index of names cannot help. It may let more through: the predicate
    itself is checked as well.
    """
    if isinstance(node, findexpr.And):
        found = [word for part in node.parts if (word := selective_name(part))]
        return max(found, key=len, default=None)
    if not isinstance(node, findexpr.Name) or node.whole:
        return None
    if "[" in node.pattern or "\\" in node.pattern:
        return None
    longest = max(re.split(r"[*?]+", node.pattern), key=len)
    # LIKE folds ASCII letters only; what folds further is left to a scan.
    if len(longest) < TRIGRAM or (node.fold and not longest.isascii()):
        return None
    return like_of(longest)


def like_of(text: str) -> str:
    """A LIKE pattern for names that contain `text`; ``_`` and ``%`` in it let more through.

    Not escaped: the index of names takes no part in ``LIKE ... ESCAPE``.
    """
    return f"%{text}%"


def glob_of(pattern: str) -> str | None:
    """The GLOB pattern that means the same; None where GLOB cannot say it."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "\\":
            if at == len(pattern):
                return None
            out.append(_literal(pattern[at]))
            at += 1
        elif letter == "[":
            end = _bracket_end(pattern, at)
            if end is None:
                out.append("[[]")
                continue
            inner = pattern[at:end]
            if "\\" in inner or "[" in inner:
                return None
            if inner[0] in "!^":
                inner = "^" + inner[1:]
            out.append(f"[{inner}]")
            at = end + 1
        else:
            out.append(letter)
    return "".join(out)


def _literal(letter: str) -> str:
    return f"[{letter}]" if letter in "*?[" else letter


def _bracket_end(pattern: str, start: int) -> int | None:
    """Where the ``]`` of a set that begins before `start` is."""
    at = start
    if pattern[at : at + 1] in ("!", "^"):
        at += 1
    if pattern[at : at + 1] == "]":
        at += 1
    while at < len(pattern):
        if pattern.startswith("[:", at) and (end := pattern.find(":]", at + 2)) >= 0:
            at = end + 2
        elif pattern[at] == "\\":
            at += 2
        elif pattern[at] == "]":
            return at
        else:
            at += 1
    return None


@functools.lru_cache(maxsize=64)
def expression_of(pattern: str, fold: bool) -> re.Pattern[str]:
    """The regular expression that means what fnmatch(3) means by `pattern`.

    What stands between two stars is matched at the first place and never tried again
    (an atomic group): no pattern takes more than length times length steps.
    """
    parts: list[list[str]] = [[]]  # between the stars
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*":
            parts.append([])
        elif letter == "?":
            parts[-1].append(".")
        elif letter == "\\" and at < len(pattern):
            parts[-1].append(re.escape(pattern[at]))
            at += 1
        elif letter == "[" and (end := _bracket_end(pattern, at)) is not None:
            parts[-1].append(_set(pattern[at:end]))
            at = end + 1
        else:
            parts[-1].append(re.escape(letter))
    first, *others = ("".join(part) for part in parts)
    middle = "".join(f"(?>.*?{part})" for part in others[:-1] if part)
    text = first + middle + (f".*{others[-1]}" if others else "")
    flags = re.DOTALL | (re.IGNORECASE if fold else 0)
    try:
        return re.compile(text, flags)
    except re.error:
        return re.compile(r"(?!)")  # a range that runs backwards matches nothing


def _set(inner: str) -> str:
    negated = inner[:1] in ("!", "^")
    rest = inner[1:] if negated else inner
    out = []
    at = 0
    while at < len(rest):
        if rest.startswith("[:", at) and (end := rest.find(":]", at + 2)) >= 0:
            out.append(_CLASSES.get(rest[at + 2 : end], ""))
            at = end + 2
            continue
        if rest[at] == "\\" and at + 1 < len(rest):
            at += 1
        letter = rest[at]
        is_range = letter == "-" and 0 < at < len(rest) - 1
        out.append("-" if is_range else re.escape(letter))
        at += 1
    body = "".join(out)
    if not body:
        return r"(?!)"
    return f"[{'^' if negated else ''}{body}]"


def fnmatch(pattern: str, text: str, fold: int) -> int:
    """SQL function of this name: whether all of `text` matches."""
    return int(expression_of(pattern, bool(fold)).fullmatch(text) is not None)
