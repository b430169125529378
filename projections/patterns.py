"""Shell patterns and regular expressions in SQL, in time that is linear in the text.

RE2 matches by automata: no pattern makes it go back and try again, and its memory is
bounded. Python's own engine would hold up the whole process on a bad pattern.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import re2

from gfs.errors import UsageError
from gfs.findregex import NOTHING, quoted

_MEANING = frozenset("\\.+*?()|[]{}^$")
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


def glob_of(pattern: str) -> str | None:
    """The GLOB pattern that means the same; None where GLOB cannot say it."""
    out: list[str] = []
    closes = True  # a set that never ends is looked for once
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
            end = _bracket_end(pattern, at) if closes else None
            if end is None:
                closes = False
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


def literals(pattern: str) -> list[str]:
    """Text that everything which fits the shell pattern contains, in pieces."""
    if "[" in pattern or "\\" in pattern:
        return []
    return re.split(r"[*?]+", pattern)


def required(expression: str) -> list[str]:
    """Text that everything which the regular expression matches contains, in pieces.

    Only what stands plainly at the top of the expression counts, and nothing if there
    is an alternative.
    """
    pieces, piece = [], ""
    depth = at = 0
    while at < len(expression):
        letter = expression[at]
        at += 1
        plain = depth == 0 and letter not in _MEANING
        if letter == "\\":
            letter = expression[at : at + 1]
            at += 1
            plain = depth == 0 and not letter.isalnum()
            if letter in ("x", "p", "P", "Q", "C"):
                return []  # of more than one letter; not worth following
        elif letter == "[" and (end := _set_end(expression, at)) is not None:
            at = end
        elif letter == "|" and depth == 0:
            return []
        elif letter == "(" and re.compile(r"\?(?!:)").match(expression, at):
            return []  # perhaps a flag that changes what letters mean
        elif letter == "{" and (repeat := re.compile(r"[0-9,]*\}").match(expression, at)):
            at = repeat.end()
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        if plain and expression[at : at + 1] not in ("*", "?", "{"):
            piece += letter
        else:
            pieces.append(piece)
            piece = ""
    return [*pieces, piece]


def _set_end(expression: str, at: int) -> int | None:
    """Behind the set that begins before `at`."""
    start = at + (expression[at : at + 1] == "^")
    at = start
    while at < len(expression):
        if expression[at] == "\\":
            at += 1
        elif expression.startswith("[:", at) and (end := expression.find(":]", at)) >= 0:
            at = end + 1
        elif expression[at] == "]" and at > start:
            return at + 1
        at += 1
    return None


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


@functools.lru_cache(maxsize=256)
def expression_of(pattern: str, fold: bool) -> Any:
    """The compiled expression that means what fnmatch(3) means by `pattern`.

    Raises: UsageError: it is too large for RE2.
    """
    parts: list[str] = []
    closes = True  # a set that never ends is looked for once
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*":
            parts.append(".*")
        elif letter == "?":
            parts.append(".")
        elif letter == "\\" and at < len(pattern):
            parts.append(quoted(pattern[at]))
            at += 1
        elif letter == "[" and closes and (end := _bracket_end(pattern, at)) is not None:
            parts.append(_set(pattern[at:end]))
            at = end + 1
        else:
            closes = closes and letter != "["
            parts.append(quoted(letter))
    return compiled("".join(parts), fold)


@functools.lru_cache(maxsize=256)
def compiled(expression: str, fold: bool) -> Any:
    """A regular expression in RE2's syntax, ready for use.

    Raises: UsageError: it is malformed or too large.
    """
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    options.case_sensitive = not fold
    try:
        return re2.compile(expression, options)
    except (re2.error, UnicodeEncodeError) as error:
        said = error.args[0] if error.args else error
        why = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise UsageError(f"regular expression: {why[:200]}") from None


def _set(inner: str) -> str:
    negated = inner[:1] in ("!", "^")
    rest = inner[1:] if negated else inner
    body = ""
    at = 0
    while at < len(rest):
        if rest.startswith("[:", at) and (end := rest.find(":]", at + 2)) >= 0:
            body += _CLASSES.get(rest[at + 2 : end], "")
            at = end + 2
            continue
        low, at = _member(rest, at)
        if rest[at : at + 1] == "-" and at + 1 < len(rest):
            high, at = _member(rest, at + 1)
            body += f"{quoted(low)}-{quoted(high)}" if low <= high else ""
        else:
            body += quoted(low)
    if not body:
        return "." if negated else NOTHING
    return f"[{'^' if negated else ''}{body}]"


def _member(text: str, at: int) -> tuple[str, int]:
    """The character of a set at `at`, and where the next begins."""
    if text[at] == "\\" and at + 1 < len(text):
        at += 1
    return text[at], at + 1


def fnmatch(pattern: str, text: str, fold: int) -> int:
    """SQL function of this name: whether all of `text` matches."""
    return int(expression_of(pattern, bool(fold)).fullmatch(text.encode()) is not None)


def regex(expression: str, text: str, fold: int, whole: int) -> int:
    """SQL function of this name: whether `text` matches, all of it if `whole`."""
    ready, raw = compiled(expression, bool(fold)), text.encode()  # of bytes it takes a third
    return int((ready.fullmatch(raw) if whole else ready.search(raw)) is not None)
