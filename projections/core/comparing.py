"""View and master compared: inodes in a range of numbers, with their names and attributes.

The master's side is exact for one position, the view's for another. What the log says
changed between the two is left out: it is not known to differ, and the next pass looks
at it again. So a difference is never an effect of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gfs.changes import Image, Line

LAST_INO = (1 << 63) - 1
Link = tuple[int, str]  # parent, name as text


@dataclass(frozen=True)
class Compared:
    """Which rows of a view are items of the master: columns, and SQL that gives them.

    Each statement takes two numbers and gives the rows of inodes above the first, up to
    the second. Empty: the view does not keep that.

    Attributes:
      columns: attributes of inodes, by the names that the stream gives them.
      inodes: SQL of ino and these columns.
      links: SQL of ino, parent, name.
      xattrs: SQL of ino, name, value.
    """

    columns: tuple[str, ...]
    inodes: str
    links: str = ""
    xattrs: str = ""


@dataclass(frozen=True)
class Difference:
    """Something that the view has other than it should be."""

    kind: str  # missing, surplus, attributes, links, xattrs, or a view's own word
    ino: int
    text: str


@dataclass
class Held:
    """An inode as one side has it; columns None: names of an inode that is not there."""

    columns: tuple[Any, ...] | None = None
    links: set[Link] = field(default_factory=set)
    xattrs: dict[str, str] = field(default_factory=dict)


@dataclass
class Touched:
    """Inodes that some events are about."""

    inodes: set[int] = field(default_factory=set)
    ranges: list[tuple[int, int]] = field(default_factory=list)  # of copies

    def take(self, line: Line) -> None:
        """Add what an event is about."""
        if line.copy is not None:
            self.ranges.append((line.copy.first, line.copy.first + line.copy.count))
        elif line.keys is not None and line.table == "inodes":
            self.inodes.add(line.keys.ino)
        elif line.table == "dirents":
            self.inodes.update(one.ino for one in (line.old, line.new) if one is not None)

    def __contains__(self, ino: int) -> bool:
        return ino in self.inodes or any(first <= ino < end for first, end in self.ranges)


def held_by_master(lines: Iterable[Line], compared: Compared) -> dict[int, Held]:
    """The master's side, of insert lines as `GET /items` gives them."""
    found: dict[int, Held] = {}
    for line in lines:
        keys, new = line.keys, line.new
        if keys is None or new is None:
            continue
        if line.table == "inodes":
            one = found.setdefault(keys.ino, Held())
            one.columns = tuple(getattr(new, name) for name in compared.columns)
            one.xattrs = _xattrs(new) if compared.xattrs else {}
        elif compared.links:
            found.setdefault(new.ino, Held()).links.add((keys.parent, keys.name))
    return found


def _xattrs(image: Image) -> dict[str, str]:
    return dict(image.attributes)


Rows = Callable[[str, Sequence[int]], Iterable[Sequence[Any]]]


def held_by_view(compared: Compared, after: int, last: int, rows: Rows) -> dict[int, Held]:
    """The view's side; `rows` runs a statement."""
    found: dict[int, Held] = {}
    for ino, *columns in rows(compared.inodes, (after, last)):
        found.setdefault(ino, Held()).columns = tuple(columns)
    if compared.links:
        for ino, parent, name in rows(compared.links, (after, last)):
            found.setdefault(ino, Held()).links.add((parent, name))
    if compared.xattrs:
        for ino, name, value in rows(compared.xattrs, (after, last)):
            found.setdefault(ino, Held()).xattrs[name] = value
    return found


def differences(
    compared: Compared, master: Mapping[int, Held], view: Mapping[int, Held], touched: Touched
) -> Iterator[Difference]:
    """What differs, but for what `touched` leaves open."""
    nothing = Held()
    for ino in sorted(master.keys() | view.keys()):
        theirs, ours = master.get(ino, nothing), view.get(ino, nothing)
        if theirs == ours or ino in touched:
            continue
        if ours.columns is None and theirs.columns is not None:
            yield Difference("missing", ino, "an inode that the view does not have")
        elif theirs.columns is None and ours.columns is not None:
            yield Difference("surplus", ino, "an inode that the master does not have")
        elif theirs.columns != ours.columns:
            yield Difference("attributes", ino, _columns(compared, theirs, ours))
        if theirs.links != ours.links:
            yield Difference("links", ino, _sets("name", theirs.links, ours.links))
        if theirs.xattrs != ours.xattrs:
            names = _sets("xattr", set(theirs.xattrs.items()), set(ours.xattrs.items()))
            yield Difference("xattrs", ino, names)


def _columns(compared: Compared, theirs: Held, ours: Held) -> str:
    pairs = zip(compared.columns, theirs.columns or (), ours.columns or (), strict=True)
    return ", ".join(f"{name} is {b!r}, not {a!r}" for name, a, b in pairs if a != b)


def _sets(what: str, theirs: set[Any], ours: set[Any]) -> str:
    parts = [f"{what} {one!r} is missing" for one in sorted(theirs - ours)[:3]]
    parts += [f"{what} {one!r} is too many" for one in sorted(ours - theirs)[:3]]
    return ", ".join(parts)
