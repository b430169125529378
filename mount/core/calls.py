"""What is told of the kernel's requests to whoever watches a mount: lines and counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

PLACES_MAX = 500_000
DEPTH_MAX = 4096  # a path has no more names
ROOT = 1


class Call(Struct):
    """One request and its answer. What is not known of it is empty or -1.

    Attributes:
      time: seconds since 1970, when it was answered.
      path: of the inode, or of the name in its directory; `<N>`: inode N, name unknown.
      to: new path of rename and link; name of an extended attribute.
      bytes: read or written. offset: in the file.
      us: microseconds from taking the request to its answer.
      errno: name of the error, or empty.
    """

    time: float
    operation: str
    path: str
    us: int
    to: str = ""
    bytes: int = -1
    offset: int = -1
    errno: str = ""
    pid: int = 0
    uid: int = -1


class Places:
    """Paths of inodes, by what has been heard of names; one of several names may be told."""

    def __init__(self) -> None:
        self._above: dict[int, tuple[int, bytes]] = {}

    def learn(self, parent: int, name: bytes, ino: int) -> None:
        """`name` in `parent` leads to `ino`."""
        if len(self._above) >= PLACES_MAX:
            self._above.clear()
        if ino != ROOT:
            self._above[ino] = parent, name

    def learn_all(self, names: Iterable[tuple[int, bytes, int]]) -> None:
        """Triples of directory, name, inode."""
        for parent, name, ino in names:
            self.learn(parent, name, ino)

    def knows(self, ino: int) -> bool:
        """Can `path` tell all of it?"""
        return not self.path(ino).startswith(b"<")

    def path(self, ino: int, name: bytes = b"") -> bytes:
        """Of `ino`, or of `name` in it, from the root of the mount: b"/a/b", b"<17>/b"."""
        parts = [name] if name else []
        for _ in range(DEPTH_MAX):
            if ino == ROOT:
                return b"/" + b"/".join(reversed(parts))
            above = self._above.get(ino)
            if above is None:
                break
            ino, part = above
            parts.append(part)
        parts.append(b"<%d>" % ino)
        return b"/".join(reversed(parts))


class Count(Struct):
    """Requests of one kind. Times in microseconds."""

    calls: int = 0
    errors: int = 0
    bytes: int = 0
    us: int = 0
    us_max: int = 0


class Counts:
    """Requests by kind since the last `take`."""

    def __init__(self) -> None:
        self._of: dict[str, Count] = {}

    def add(self, operation: str, us: int, size: int, *, failed: bool) -> None:
        """One has been answered; `size`: bytes read or written, else -1."""
        count = self._of.get(operation)
        if count is None:
            count = self._of[operation] = Count()
        count.calls += 1
        count.errors += failed
        count.us += us
        if size > 0:
            count.bytes += size
        if us > count.us_max:
            count.us_max = us

    def take(self) -> dict[str, Count]:
        """What was counted; begins anew."""
        found, self._of = self._of, {}
        return found
