"""A tree of find's predicates -> SQL over the search view, parameters apart.

No text of a caller ever becomes SQL: patterns, numbers and names are bound. Shell
patterns become GLOB where the two agree, else a regular expression in a function.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gfs import findtree
from gfs.errors import UsageError
from projections import patterns

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
_TIMES = {"a": "i.atime_ns", "c": "i.ctime_ns", "m": "i.mtime_ns", "B": "i.created_ns"}
_SIGNS = {"": "=", "+": ">", "-": "<"}
_INT_MAX = (1 << 63) - 1
TRIGRAM = 3  # characters that the name index needs
TRIGRAMS_MAX = 32  # of a text, looked for in it
WORDS_MAX = 100  # looked for in it at once


@dataclass
class Where:
    """A condition and what is bound in it.

    Attributes:
      inode_at: inode number at a path.
      time_of: time (a, c, m, B) of the file at a path.
      path: SQL of the path as it is shown.
      name: SQL of the name.
    """

    inode_at: Callable[[str], int]
    time_of: Callable[[str, str], int]
    path: str
    name: str
    parameters: list[Any] = field(default_factory=list)

    def bind(self, value: Any) -> str:
        """A placeholder for `value`."""
        if isinstance(value, int) and not -_INT_MAX <= value <= _INT_MAX:
            value = _INT_MAX if value > 0 else -_INT_MAX
        self.parameters.append(value)
        return f"?{len(self.parameters)}"

    def sql(self, node: findtree.Predicate) -> str:
        """The condition for `node`.

        Raises: UsageError; what `inode_at` and `time_of` raise.
        """
        match node:
            case findtree.And(parts):
                return self._joined(parts, "AND", "1")
            case findtree.Or(parts):
                return self._joined(parts, "OR", "0")
            case findtree.Not(part):
                return f"(NOT {self.sql(part)})"
            case findtree.Always(value):
                return "1" if value else "0"
            case findtree.Name(pattern, fold, whole):
                return self._matches(self.path if whole else self.name, pattern, fold)
            case findtree.Contains(text, fold):
                held = f"lower({self.name})" if fold else self.name
                return f"(instr({held}, {self.bind(_lower(text) if fold else text)}) > 0)"
            case findtree.Target(pattern, fold):
                fits = self._matches("i.target", pattern, fold)
                return f"((i.mode & 61440) = 40960 AND {fits})"
            case findtree.Regex(pattern, fold, whole):
                patterns.compiled(pattern, fold)
                text = self.path if whole else self.name
                return f"regex({self.bind(pattern)}, {text}, {int(fold)}, {int(whole)})"
            case findtree.Type(kinds):
                bits = ", ".join(str(_BITS[kind]) for kind in kinds)
                return f"((i.mode & 61440) IN ({bits}))"
            case findtree.Empty():
                return (
                    "(CASE i.mode & 61440 WHEN 32768 THEN i.size = 0 WHEN 16384 THEN NOT EXISTS"
                    " (SELECT 1 FROM dirents x WHERE x.parent = i.ino) ELSE 0 END)"
                )
        return self._measured(node)

    def _measured(self, node: findtree.Predicate) -> str:
        match node:
            case findtree.Number(attribute, sign, n, unit):
                column = _COLUMNS[attribute]
                if unit > 1:
                    column = f"(({column} + {self.bind(unit - 1)}) / {self.bind(unit)})"
                return f"({column} {_SIGNS[sign]} {self.bind(n)})"
            case findtree.Age(which, after, upto):
                bounds = [] if after is None else [f"{_TIMES[which]} > {self.bind(after)}"]
                bounds += [] if upto is None else [f"{_TIMES[which]} <= {self.bind(upto)}"]
                return f"({' AND '.join(bounds) or '1'})"
            case findtree.NewerThan(which, path, of):
                return f"({_TIMES[which]} > {self.bind(self.time_of(path, of))})"
            case findtree.Permissions(bits, how):
                mode, bits = "(i.mode & 4095)", bits & 0o7777
                if how == "/":
                    return f"({mode} & {bits} != 0)" if bits else "1"
                return f"({mode} & {bits} = {bits})" if how == "-" else f"({mode} = {bits})"
            case findtree.Xattr(name, value):
                sql = f"x.ino = i.ino AND x.name = {self.bind(name)}"
                if value is not None:
                    sql += f" AND x.value = {self.bind(value)}"
                return f"EXISTS (SELECT 1 FROM xattrs x WHERE {sql})"
            case findtree.SameFile(path):
                return f"(i.ino = {self.bind(self.inode_at(path))})"
            case findtree.OneOf(attribute, values):
                listed = self.bind(json.dumps(values))
                return f"(i.{attribute} IN (SELECT value FROM json_each({listed})))"
        raise UsageError(f"unknown predicate {type(node).__name__}")

    def _joined(self, parts: list[findtree.Predicate], word: str, nothing: str) -> str:
        return f"({f' {word} '.join(self.sql(part) for part in parts) or nothing})"

    def _matches(self, column: str, pattern: str, fold: bool) -> str:
        glob = patterns.glob_of(pattern)
        if glob is None or (fold and not pattern.isascii()):
            patterns.expression_of(pattern, fold)
            return f"fnmatch({self.bind(pattern)}, {column}, {int(fold)})"
        if fold:
            return f"(lower({column}) GLOB {self.bind(glob.lower())})"
        return f"({column} GLOB {self.bind(glob)})"


def name_words(node: findtree.Predicate) -> list[str] | None:
    """Texts of which every name found has one, any case; None if the index of names cannot help.

    They may let more through: the predicate itself is checked as well.
    """
    match node:
        case findtree.And(parts):
            found = [words for part in parts if (words := name_words(part)) is not None]
            return max(found, key=_selectivity, default=None)
        case findtree.Or(parts):
            each = [name_words(part) for part in parts]
            if not each or None in each:
                return None
            words = list(dict.fromkeys(word for words in each for word in words or ()))
            return words if len(words) <= WORDS_MAX else None
        case findtree.Name(pattern, fold, False):
            word = _longest(patterns.literals(pattern))
        case findtree.Contains(text, fold):
            word = text
        case findtree.Regex(pattern, fold, False):
            word, fold = _longest(patterns.required(pattern)), fold
        case _:
            return None
    return [word] if _indexed(word, fold) else None


def path_word(node: findtree.Predicate) -> str | None:
    """Text without a slash that is in every path found, for an index of names; or None."""
    match node:
        case findtree.And(parts):
            found = [word for part in parts if (word := path_word(part)) is not None]
            return max(found, key=len, default=None)
        case findtree.Name(pattern, fold, True):
            pieces = patterns.literals(pattern)
        case findtree.Regex(pattern, fold, True):
            pieces = patterns.required(pattern)
        case _:
            return None
    word = _longest([part for piece in pieces for part in piece.split("/")])
    return word if _indexed(word, fold) else None


def inode_of(node: findtree.Predicate, where: Where) -> int | None:
    """The one inode that can be found, if there is no more than one."""
    match node:
        case findtree.And(parts):
            numbers = (inode_of(part, where) for part in parts)
            return next((number for number in numbers if number is not None), None)
        case findtree.Number("ino", "", n, 1):
            return min(n, _INT_MAX)
        case findtree.SameFile(path):
            return where.inode_at(path)
    return None


def attribute_of(node: findtree.Predicate) -> findtree.Xattr | None:
    """An extended attribute that everything found has."""
    if isinstance(node, findtree.And):
        return next((found for part in node.parts if (found := attribute_of(part))), None)
    return node if isinstance(node, findtree.Xattr) else None


def match_of(words: list[str]) -> str:
    """What the index of names is asked for names that have one of these texts.

    Trigrams stand in it without their places, so some more come through.
    """
    return " OR ".join(f"({' AND '.join(_trigrams(word))})" for word in words)


def _trigrams(word: str) -> list[str]:
    found = dict.fromkeys(word[at : at + TRIGRAM] for at in range(len(word) - TRIGRAM + 1))
    return [f'"{text.replace(chr(34), chr(34) * 2)}"' for text in list(found)[:TRIGRAMS_MAX]]


def _selectivity(words: list[str]) -> tuple[int, int]:
    return -len(words), min(map(len, words), default=0)


def _longest(pieces: list[str]) -> str:
    return max(pieces, key=len, default="")


def _indexed(word: str, fold: bool) -> bool:
    # Predicates and the index fold ASCII letters alike; what folds further is left to a scan,
    # and so is NUL, which no name has and no question to the index may have.
    return len(word) >= TRIGRAM and "\0" not in word and (word.isascii() or not fold)


def _lower(text: str) -> str:
    """As SQLite's lower(): ASCII letters only."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)
