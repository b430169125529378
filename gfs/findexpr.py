"""find(1)'s own words -> an expression, and nothing else: no files, no clock.

The tree is plain data. Words and precedence are those of GNU find; what this does not
know is refused by name. `gfs.findprogram` parts it into what a view answers and what is
left to the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gfs.errors import UsageError
from gfs.findtests import Host, Tests
from gfs.findtree import (
    DEPTH_MAX,
    Action,
    Always,
    And,
    Each,
    Expression,
    Not,
    Or,
    Prune,
    Quit,
)

NESTING_MAX = 100
PRINT: Any = Action()
_IGNORED = {"-noleaf", "-xdev", "-mount", "-ignore_readdir_race", "-noignore_readdir_race",
            "-warn", "-nowarn", "-P"}  # fmt: skip
_BARE_ACTIONS = ("-print", "-print0", "-ls", "-delete")
_COMMANDS = ("-exec", "-execdir", "-ok")
_ENDS = ("-o", "-or", ")", ",")


def parse(words: Sequence[str], host: Host) -> Expression:
    """The expression in find's words: paths first, then predicates and actions.

    Raises: UsageError: names the word.
    """
    return _Parser(list(words), host).run()


class _Parser:
    def __init__(self, words: list[str], host: Host) -> None:
        self.words = words
        self.tests = Tests(host)
        self.at = 0
        self.nesting = 0
        self.mindepth, self.maxdepth = 0, DEPTH_MAX
        self.depth_first = self.deletes = self.prunes = self.acts = False

    def run(self) -> Expression:
        while self.words[self.at : self.at + 1] == ["-P"]:
            self.at += 1
        start = self.at
        while self.at < len(self.words) and not _begins_expression(self.words[self.at]):
            self.at += 1
        paths = self.words[start : self.at] or ["."]
        tree: Any = Always(True)
        if self.at < len(self.words):
            tree = self._list()
        if self.at < len(self.words):
            raise UsageError(f"find: unexpected {self.words[self.at]!r}")
        if not self.acts:
            tree = And([tree, PRINT])
        if self.deletes and self.prunes and not self.depth_first:
            raise UsageError("find: -delete means -depth, with which -prune does nothing")
        first = self.depth_first or self.deletes
        return Expression(paths, tree, self.mindepth, self.maxdepth, first)

    def _peek(self) -> str | None:
        return self.words[self.at] if self.at < len(self.words) else None

    def _take(self, of: str) -> str:
        word = self._peek()
        if word is None:
            raise UsageError(f"find: {of} needs an argument")
        self.at += 1
        return word

    def _list(self) -> Any:
        parts = [self._or()]
        while self._peek() == ",":
            self.at += 1
            parts.append(self._or())
        return parts[0] if len(parts) == 1 else Each(parts)

    def _or(self) -> Any:
        parts = [self._and()]
        while self._peek() in ("-o", "-or"):
            self.at += 1
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(parts)

    def _and(self) -> Any:
        parts = [self._not()]
        while (word := self._peek()) is not None and word not in _ENDS:
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
                inner = self._list()
                if self._peek() != ")":
                    raise UsageError("find: missing )")
                self.at += 1
                return inner
            return self._primary(word)
        finally:
            self.nesting -= 1

    def _primary(self, word: str) -> Any:
        if word in _IGNORED:
            return Always(True)
        if word in ("-depth", "-d"):
            self.depth_first = True
            return Always(True)
        if word in ("-mindepth", "-maxdepth"):
            return self._depth(word, self._take(word))
        if word == "-prune":
            self.prunes = True
            return Prune()
        if word == "-quit":
            return Quit()
        if word in _BARE_ACTIONS or word == "-printf" or word in _COMMANDS:
            return self._action(word)
        return self.tests.test(word, self._take)

    def _action(self, word: str) -> Action:
        self.acts = True
        self.deletes = self.deletes or word == "-delete"
        words: list[str] = []
        if word == "-printf":
            words = [self._take(word)]
        elif word in _COMMANDS:
            words = self._command(word)
        return Action(word[1:], words)

    def _command(self, word: str) -> list[str]:
        """Up to ``;`` or ``{} +``, which is the last word."""
        words: list[str] = []
        while (part := self._take(f"{word} ... ;")) != ";":
            if part == "+" and words[-1:] == ["{}"] and word != "-ok":
                if words.count("{}") > 1:
                    raise UsageError(f"find: {word} ... {{}} + takes one {{}}")
                break
            words.append(part)
        if not words or (part == "+" and len(words) < 2):
            raise UsageError(f"find: {word} needs a command")
        return [*words, part]

    def _depth(self, word: str, argument: str) -> Always:
        if not (argument.isascii() and argument.isdigit()):
            raise UsageError(f"find: {word} needs a number, not {argument!r}")
        depth = min(int(argument[:20]), DEPTH_MAX)
        if word == "-mindepth":
            self.mindepth = depth
        else:
            self.maxdepth = depth
        return Always(True)


def _begins_expression(word: str) -> bool:
    return word in ("(", "!", ")", ",") or (word.startswith("-") and word != "-")


def acts(tree: Any) -> bool:
    """Whether the tree does more than print paths."""
    match tree:
        case And(parts) | Or(parts) | Each(parts):
            return any(map(acts, parts))
        case Not(part):
            return acts(part)
        case Action(name):
            return name not in ("print", "print0")
    return isinstance(tree, Quit)
