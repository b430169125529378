"""-perm of find(1): octal and symbolic modes -> predicates, as chmod reads them."""

from __future__ import annotations

import re

from gfs.errors import UsageError
from gfs.findtree import And, Not, Or, Permissions, Predicate, Type

_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}
_WHAT = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_STEP = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFT = {"u": 6, "g": 3, "o": 0}


def permissions(argument: str) -> Predicate:
    """``644``, ``-u=rw,g+r``, ``/111``: exactly these bits, all of them, any of them.

    Raises: UsageError: it is no mode.
    """
    how = argument[:1] if argument[:1] in ("-", "/") else ""
    text = argument[len(how) :]
    if re.fullmatch(r"[0-7]{1,5}", text, re.ASCII) and int(text, 8) <= 0o7777:
        return Permissions(int(text, 8), how)
    file, directory = (_bits(text, argument, directory=kind) for kind in (False, True))
    if file == directory:
        return Permissions(file, how)
    # X asks for a directory's x only.
    return Or(
        [
            And([Type("d"), Permissions(directory, how)]),
            And([Not(Type("d")), Permissions(file, how)]),
        ]
    )


def _bits(text: str, shown: str, *, directory: bool) -> int:
    """The mode that chmod makes of 0."""
    bits = 0
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause)
        if found is None:
            raise UsageError(f"find: {shown!r} is no mode")
        who = 0
        for letter in found[1] or "a":
            who |= _WHO[letter]
        for sign, letters in _STEP.findall(found[2]):
            what = _what(letters, bits, directory=directory) & who
            if sign == "=":
                bits = bits & ~who | what
            else:
                bits = bits | what if sign == "+" else bits & ~what
    return bits


def _what(letters: str, bits: int, *, directory: bool) -> int:
    if letters in _SHIFT and letters:  # what another class has
        copied = bits >> _SHIFT[letters] & 7
        return copied << 6 | copied << 3 | copied
    what = 0
    for letter in letters:
        if letter == "X":
            what |= 0o111 if directory or bits & 0o111 else 0
        else:
            what |= _WHAT[letter]
    return what
