"""-printf and -ls of find(1): a row of the search view -> bytes, as GNU find prints them.

Names come out byte for byte with -printf; -ls escapes what is not plain ASCII.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec import Struct

from gfs.changes import bytes_of
from gfs.errors import UsageError
from gfs.findprogram import relative
from gfs.mounts import TYPE

BLOCK = 512
RECENT_S = 6 * 30 * 86400  # -ls shows the time of day of what changed since then
_KINDS = {0o100: "f", 0o040: "d", 0o120: "l", 0o060: "b", 0o020: "c", 0o010: "p", 0o140: "s"}
_DIRECTIVE = re.compile(r"%([-+ #0]*)([0-9]{0,6})(?:\.([0-9]{0,6}))?(.?)", re.DOTALL)
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_MOMENTS = {"a": "atime_ns", "c": "ctime_ns", "t": "mtime_ns"}
_TIMES = {"A": "atime_ns", "C": "ctime_ns", "T": "mtime_ns", "B": "created_ns"}
_STRFTIME = frozenset("aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ")
_LS_ESCAPES = {ord(" "): b"\\ ", ord('"'): b'\\"', **{v: b"\\" + k.encode()
               for k, v in _ESCAPES.items()}}  # fmt: skip


class Row(Struct, frozen=True):
    """A file, as ``/find`` tells it; texts as `gfs.changes.text_of` makes them."""

    path: str
    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    stored: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    created_ns: int
    target: str
    rdev: int = 0
    tests: list[int | None] = []

    @property
    def blocks(self) -> int:
        """As st_blocks."""
        return -(-self.stored // BLOCK)


@dataclass(frozen=True)
class Found:
    """A row and where it was found: below which start point, as that was typed."""

    row: Row
    start: str

    @property
    def below(self) -> str:
        """The path from the start point; "" is the start point itself."""
        return "" if self.row.path == self.start else relative(self.row.path, self.start)


@dataclass(frozen=True)
class Names:
    """Names of users and groups on this host; None for numbers that have none."""

    user: Callable[[int], str | None]
    group: Callable[[int], str | None]


@dataclass(frozen=True)
class Shown:
    """What a mount shows on this host, and no view knows.

    Attributes:
      device: st_dev of the mount that a start point lies in; 0: of none.
      leads_to: letter of what a symbolic link leads to, N: nothing, L: in a circle, ?: unknown;
        None: there is no mount in which to look.
    """

    device: Callable[[str], int] = lambda _: 0
    leads_to: Callable[[str], str] | None = None


Part = bytes | Callable[[Found], bytes]


class Format:
    """A format of -printf, read once."""

    def __init__(self, text: str, names: Names, shown: Shown) -> None:
        """Raises: UsageError: names the directive that is not known."""
        self._names = names
        self._shown = shown
        self._parts: list[Part] = []
        self._read(text)

    def render(self, found: Found) -> bytes:
        """What is printed for one file."""
        return b"".join(part if isinstance(part, bytes) else part(found) for part in self._parts)

    def _read(self, text: str) -> None:
        at = 0
        while at < len(text):
            special = re.compile(r"[\\%]").search(text, at)
            end = special.start() if special else len(text)
            self._parts.append(bytes_of(text[at:end]))
            if special is None:
                return
            if text[end] == "\\":
                if text.startswith("\\c", end):
                    return
                at = self._escape(text, end + 1)
            else:
                at = self._directive(text, end)

    def _escape(self, text: str, at: int) -> int:
        if octal := re.compile(r"[0-7]{1,3}").match(text, at):
            self._parts.append(bytes((int(octal[0], 8) & 255,)))
            return octal.end()
        letter = text[at : at + 1]
        if letter in _ESCAPES:
            self._parts.append(bytes((_ESCAPES[letter],)))
        else:
            self._parts.append(b"\\" + bytes_of(letter))
        return at + 1

    def _directive(self, text: str, at: int) -> int:
        found = _DIRECTIVE.match(text, at)
        assert found is not None
        flags, width, precision, letter = found.groups()
        at = found.end()
        if letter == "%":
            self._parts.append(b"%")
            return at
        more = ""
        if letter in _TIMES:
            more = text[at : at + 1]
            at += 1
        value = _value(letter, more, self._names, self._shown)
        if value is None:
            raise UsageError(f"find: -printf {text!r}: %{letter}{more} is not known")
        style = _Style(flags, int(width or 0), None if precision is None else int(precision or 0))
        self._parts.append(_part(letter, value, style))
        return at


def _part(
    letter: str, value: Callable[[Found], bytes | int], style: _Style
) -> Callable[[Found], bytes]:
    if letter in "md":
        return lambda found: style.number(value(found), octal=letter == "m")
    return lambda found: style.text(value(found))


@dataclass(frozen=True)
class _Style:
    """Flags, width and precision, as printf(3) reads them."""

    flags: str
    width: int
    precision: int | None

    def text(self, value: bytes | int) -> bytes:
        raw = value if isinstance(value, bytes) else str(value).encode()
        if self.precision is not None:
            raw = raw[: self.precision]
        return raw.ljust(self.width) if "-" in self.flags else raw.rjust(self.width)

    def number(self, value: bytes | int, *, octal: bool) -> bytes:
        assert isinstance(value, int)
        digits = f"{value:o}" if octal else str(value)
        digits = digits.rjust(self.precision or 0, "0")
        if octal and "#" in self.flags and not digits.startswith("0"):
            digits = "0" + digits
        sign = ""
        if not octal:
            sign = "+" if "+" in self.flags else (" " if " " in self.flags else "")
        if "-" in self.flags:
            return (sign + digits).ljust(self.width).encode()
        if "0" in self.flags and self.precision is None:
            return (sign + digits.rjust(self.width - len(sign), "0")).encode()
        return (sign + digits).rjust(self.width).encode()


def _value(
    letter: str, more: str, names: Names, shown: Shown
) -> Callable[[Found], bytes | int] | None:
    """What a directive shows; None if there is none such."""
    if letter in _MOMENTS:
        attribute = _MOMENTS[letter]
        return lambda found: _moment(getattr(found.row, attribute))
    if letter in _TIMES:
        attribute = _TIMES[letter]
        if not more or (more not in _STRFTIME and more not in "@+"):
            return None
        return lambda found: _time(getattr(found.row, attribute), more)
    if letter in ("u", "g"):
        return _name_of(letter, names)
    if letter == "D":
        return lambda found: shown.device(found.start)
    return _target_kind(shown) if letter == "Y" else _VALUES.get(letter)


def _target_kind(shown: Shown) -> Callable[[Found], bytes]:
    if shown.leads_to is None:
        raise UsageError("find: %Y needs a mount of the cluster on this host")
    leads_to = shown.leads_to

    def kind(found: Found) -> bytes:
        row = found.row
        return (leads_to(row.path) if stat.S_ISLNK(row.mode) else kind_of(row.mode)).encode()

    return kind


def kind_of(mode: int) -> str:
    """The letter of a kind of file; U: there is none such."""
    return _KINDS.get(mode >> 9 & 0o170, "U")


def _name_of(letter: str, names: Names) -> Callable[[Found], bytes]:
    def name(found: Found) -> bytes:
        number = found.row.uid if letter == "u" else found.row.gid
        text = (names.user if letter == "u" else names.group)(number)
        return str(number).encode() if text is None else bytes_of(text)

    return name


def _base(path: str) -> str:
    stem = path.rstrip("/")
    if not stem:
        return "/"
    return stem.rpartition("/")[2] + ("/" if path.endswith("/") else "")


def _above(path: str) -> str:
    directory, slash, _ = path.rpartition("/")
    return directory if slash else "."


def _sparseness(row: Row) -> bytes:
    """Blocks over size."""
    if row.size:
        return f"{row.blocks * BLOCK / row.size:g}".encode()
    return b"inf" if row.blocks else b"1"


_VALUES: dict[str, Callable[[Found], bytes | int]] = {
    "p": lambda found: bytes_of(found.row.path),
    "P": lambda found: bytes_of(found.below),
    "H": lambda found: bytes_of(found.start),
    "f": lambda found: bytes_of(_base(found.row.path)),
    "h": lambda found: bytes_of(_above(found.row.path)),
    "d": lambda found: found.below.count("/") + 1 if found.below else 0,
    "s": lambda found: found.row.size,
    "b": lambda found: found.row.blocks,
    "k": lambda found: (found.row.blocks + 1) // 2,
    "S": lambda found: _sparseness(found.row),
    "m": lambda found: found.row.mode & 0o7777,
    "M": lambda found: stat.filemode(found.row.mode).encode(),
    "U": lambda found: found.row.uid,
    "G": lambda found: found.row.gid,
    "i": lambda found: found.row.ino,
    "n": lambda found: found.row.nlink,
    "l": lambda found: bytes_of(found.row.target),
    "y": lambda found: kind_of(found.row.mode).encode(),
    "F": lambda _: TYPE.encode(),
    "Z": lambda _: b"",  # no context of SELinux is kept
}


def _moment(time_ns: int) -> bytes:
    """As ctime(3), with the fraction."""
    seconds, fraction = divmod(time_ns, 10**9)
    when = time.localtime(seconds)
    return time.strftime(f"%a %b %e %H:%M:%S.{fraction:09d}0 %Y", when).encode()


def _time(time_ns: int, letter: str) -> bytes:
    seconds, fraction = divmod(time_ns, 10**9)
    when = time.localtime(seconds)
    match letter:
        case "@":
            return f"{seconds}.{fraction:09d}0".encode()
        case "s":
            return str(seconds).encode()
        case "+":
            return time.strftime(f"%Y-%m-%d+%H:%M:%S.{fraction:09d}0", when).encode()
        case "S":
            return time.strftime(f"%S.{fraction:09d}0", when).encode()
        case "T" | "X":
            return time.strftime(f"%H:%M:%S.{fraction:09d}0", when).encode()
    return time.strftime(f"%{letter}", when).encode()


@dataclass
class Listing:
    """-ls; columns grow with what was printed, as find's do."""

    names: Names
    now_s: float
    widths: dict[str, int] = field(
        default_factory=lambda: dict(zip("ibnugsMm", (9, 6, 3, 8, 8, 8, 3, 3), strict=True))
    )

    def line(self, found: Found) -> bytes:
        """One file, newline included."""
        row = found.row
        user, group = self.names.user(row.uid), self.names.group(row.gid)
        columns = [
            self._column("i", str(row.ino)),
            self._column("b", str((row.blocks + 1) // 2)),
            stat.filemode(row.mode),
            self._column("n", str(row.nlink)),
            self._column("u", str(row.uid) if user is None else user, left=True),
            self._column("g", str(row.gid) if group is None else group, left=True),
            self._size(row),
            self._time(row.mtime_ns // 10**9),
        ]
        line = " ".join(columns).encode("utf-8", "surrogateescape") + b" " + _escaped(row.path)
        return line + (b" -> " + _escaped(row.target) if row.target else b"") + b"\n"

    def _size(self, row: Row) -> str:
        if not (stat.S_ISCHR(row.mode) or stat.S_ISBLK(row.mode)):
            return self._column("s", str(row.size))
        major, minor = str(os.major(row.rdev)), str(os.minor(row.rdev))
        return self._column("M", major) + ", " + self._column("m", minor)

    def _column(self, name: str, text: str, *, left: bool = False) -> str:
        self.widths[name] = width = max(self.widths[name], len(text))
        return text.ljust(width) if left else text.rjust(width)

    def _time(self, seconds: int) -> str:
        recent = self.now_s - RECENT_S <= seconds <= self.now_s + 3600
        return time.strftime("%b %e %H:%M" if recent else "%b %e  %Y", time.localtime(seconds))


def _escaped(text: str) -> bytes:
    out = bytearray()
    for byte in bytes_of(text):
        if byte in _LS_ESCAPES:
            out += _LS_ESCAPES[byte]
        elif 0x20 < byte < 0x7F:
            out.append(byte)
        else:
            out += b"\\%03o" % byte
    return bytes(out)
