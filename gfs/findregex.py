r"""Regular expressions as find(1) knows them -> the syntax of RE2, which takes linear time.

Syntaxes: emacs (find's default), findutils-default (the same, but "." may be a
newline), posix-basic (also called ed, sed), posix-extended. RE2 cannot do
back-references, \< and \>, collating symbols: these are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gfs.errors import UsageError

DEFAULT = "emacs"
SYNTAXES = (DEFAULT, "findutils-default", "posix-basic", "ed", "sed", "posix-extended")
_NO_CHARACTER = r"\x{10fe00}-\x{10feff}"  # bytes that are no UTF-8, as names hold them
NOTHING = r"[^\x00-\x{10ffff}]"
_SPECIAL = frozenset("\\.+*?()|[]{}^$-")
_SHORT = {"w": r"[\pL\pN_]", "W": r"[^\pL\pN_]", "s": r"\s", "S": r"\S", "b": r"\b", "B": r"\B"}
_CLASS_NAMES = frozenset(
    [
        "alpha",
        "digit",
        "alnum",
        "upper",
        "lower",
        "space",
        "punct",
        "xdigit",
        "blank",
        "cntrl",
        "graph",
        "print",
    ]
)


def translated(pattern: str, syntax: str) -> str:
    """The expression in RE2's syntax.

    Raises: UsageError: it is malformed, or beyond RE2.
    """
    return _Translation(pattern, syntax).run()


def quoted(text: str) -> str:
    """`text` as an expression that means itself."""
    return "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in text)


@dataclass
class _Group:
    """What stands between two parentheses; the last piece is what ``*`` would repeat."""

    pieces: list[str] = field(default_factory=list)
    repeatable: bool = False  # whether something stands before that can be repeated

    def add(self, piece: str, *, repeatable: bool = True) -> None:
        self.pieces.append(piece)
        self.repeatable = repeatable


class _Translation:
    def __init__(self, pattern: str, syntax: str) -> None:
        self.pattern = pattern
        self.extended = syntax == "posix-extended"
        self.emacs = syntax in SYNTAXES[:2]
        self.dot = f"[^\n{_NO_CHARACTER}]" if syntax == "emacs" else f"[^{_NO_CHARACTER}]"
        self.at = 0
        self.groups = [_Group()]

    def fail(self, why: str) -> UsageError:
        return UsageError(f"find: -regex {self.pattern!r}: {why}")

    def run(self) -> str:
        while self.at < len(self.pattern):
            letter = self.pattern[self.at]
            self.at += 1
            if letter == "\\":
                self._escaped()
            elif letter == "[":
                self.groups[-1].add(self._set())
            elif letter == ".":
                self.groups[-1].add(self.dot)
            elif letter in "^$":
                self._anchor(letter)
            else:
                self._operator_or_letter(letter)
        if len(self.groups) > 1:
            raise self.fail("a group is not closed")
        return "".join(self.groups[0].pieces)

    def _operator_or_letter(self, letter: str) -> None:
        bare = "*+?{|()" if self.extended else ("*+?" if self.emacs else "*")
        if letter in bare:
            self._operator(letter)
        else:
            self.groups[-1].add(quoted(letter))

    def _escaped(self) -> None:
        if self.at == len(self.pattern):
            raise self.fail("it ends with a backslash")
        letter = self.pattern[self.at]
        self.at += 1
        if letter in "123456789":
            raise self.fail("back-references are not supported")
        if letter in "<>":
            raise self.fail(f"\\{letter} is not supported")
        operators = "" if self.extended else ("|()" if self.emacs else "+?{|()")
        if letter in operators:
            self._operator(letter)
        elif letter in "`'":
            self.groups[-1].add(r"\A" if letter == "`" else r"\z", repeatable=False)
        elif letter in _SHORT:
            self.groups[-1].add(_SHORT[letter], repeatable=letter not in "bB")
        elif letter.isascii() and letter.isalnum():
            raise self.fail(f"\\{letter} is not supported")
        else:
            self.groups[-1].add(quoted(letter))

    def _operator(self, letter: str) -> None:
        group = self.groups[-1]
        if letter == "(":
            self.groups.append(_Group())
        elif letter == ")":
            self._close()
        elif letter == "|":
            group.add("|", repeatable=False)
        elif group.repeatable:
            repeat = self._interval() if letter == "{" else letter
            group.pieces[-1] = f"(?:{group.pieces[-1]}){repeat}"
        elif self.extended or letter == "{":
            raise self.fail(f"nothing to repeat before {letter!r}")
        else:
            group.add(quoted(letter))

    def _close(self) -> None:
        if len(self.groups) > 1:
            inner = self.groups.pop()
            self.groups[-1].add(f"(?:{''.join(inner.pieces)})")
        elif self.extended:
            self.groups[-1].add(r"\)")
        else:
            raise self.fail("a group is closed that was not opened")

    def _interval(self) -> str:
        end = "}" if self.extended else r"\\}"
        found = re.compile(r"([0-9]{0,4})(,?)([0-9]{0,4})" + end).match(self.pattern, self.at)
        if found is None or not (found[1] or found[2]):
            raise self.fail("a bad {n,m}")
        self.at = found.end()
        low, high = int(found[1] or 0), found[3]
        if high and int(high) < low:
            raise self.fail("a bad {n,m}")
        return f"{{{low}{found[2]}{high}}}"

    def _anchor(self, letter: str) -> None:
        group = self.groups[-1]
        if letter == "^":
            anchor = self.extended or not group.pieces or group.pieces[-1] == "|"
        else:
            rest = self.pattern[self.at :]
            anchor = self.extended or rest == "" or rest.startswith((r"\|", r"\)"))
        if anchor:
            group.add(r"\A" if letter == "^" else r"\z", repeatable=False)
        else:
            group.add(quoted(letter))

    def _set(self) -> str:
        """From behind ``[``; a backslash in it is itself."""
        start = self.at
        negated = self.pattern.startswith("^", self.at)
        self.at += negated
        body = ""
        first = True
        while True:
            if self.at >= len(self.pattern):
                raise self.fail(f"[ at {start - 1} is not closed")
            if self.pattern[self.at] == "]" and not first:
                self.at += 1
                break
            body += self._set_item()
            first = False
        # Bytes that are no character are in no set, whether negated or not.
        if negated:
            return f"[^{body}{_NO_CHARACTER}]"
        return f"[{body}]" if body else NOTHING

    def _set_item(self) -> str:
        pattern, at = self.pattern, self.at
        if pattern.startswith(("[.", "[="), at):
            raise self.fail("collating symbols are not supported")
        if pattern.startswith("[:", at) and not self.emacs:
            end = pattern.find(":]", at + 2)
            if end < 0 or pattern[at + 2 : end] not in _CLASS_NAMES:
                raise self.fail("an unknown class of characters")
            self.at = end + 2
            return pattern[at : self.at]
        low = pattern[at]
        self.at += 1
        dash, after = pattern[self.at : self.at + 1], pattern[self.at + 1 : self.at + 2]
        if dash == "-" and after not in ("", "]"):
            high = after
            self.at += 2
            if high < low:
                if self.emacs:
                    return ""
                raise self.fail(f"range {low}-{high} runs backwards")
            return f"{_in_set(low)}-{_in_set(high)}"
        return _in_set(low)


def _in_set(letter: str) -> str:
    return f"\\{letter}" if letter in "\\]^-[" else letter
