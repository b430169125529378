"""Random operations on one file by every way there is to read and write it, after fsx.

What is read is compared with a copy in memory at once; every now and then the whole
file is, also through the other mount after an fsync. Usage: FILE OTHER_PATH STEPS SEED.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
from collections.abc import Callable

SIZE_MAX = 256 * 1024
LENGTH_MAX = 64 * 1024
PAGE = mmap.PAGESIZE
WAYS = {"rw": os.O_RDWR, "w": os.O_WRONLY, "a": os.O_WRONLY | os.O_APPEND}


class Different(Exception):
    """The file is not what was written; the message says where."""


class Exerciser:
    """The file, its descriptors and what must be in it."""

    def __init__(self, path: str, other: str, seed: int) -> None:
        self._path, self._other = path, other
        self._rng = random.Random(seed)
        self._content = bytearray()
        self._descriptors: dict[str, int] = {}
        self._done: list[str] = []
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o644))

    def run(self, steps: int) -> None:
        """Take so many random steps.

        Raises:
          Different: with the last steps.
        """
        names = [
            "write",
            "write",
            "append",
            "read",
            "read",
            "truncate",
            "store",
            "load",
            "copy",
            "send",
            "sync",
            "reopen",
            "forget",
            "compare",
            "compare_there",
            "empty",
            "replace",
        ]
        for _ in range(steps):
            name = self._rng.choice(names)
            step: Callable[[], str] = getattr(self, name)
            try:
                self._done.append(f"{name} {step()}")
            except (Different, OSError) as error:
                raise Different("; ".join([*self._done[-8:], f"{name}: {error}"])) from None
        self.compare()
        self.reopen()
        self.compare()

    def write(self) -> str:
        """pwrite(2), buffered or past the page cache."""
        way = self._rng.choice(("rw", "w"))
        start, data = self._rng.randrange(SIZE_MAX), self._data()
        data = data[: SIZE_MAX - start]
        os.pwrite(self._open(way), data, start)
        self._put(start, data)
        return f"{way} {start}+{len(data)}"

    def append(self) -> str:
        """write(2) of a handle opened O_APPEND."""
        data = self._data()[:5000]
        if len(self._content) + len(data) > SIZE_MAX:
            return "-"
        os.write(self._open("a"), data)
        self._put(len(self._content), data)
        return f"{len(data)} -> {len(self._content)}"

    def read(self) -> str:
        """pread(2)."""
        start, length = self._rng.randrange(SIZE_MAX), self._rng.randrange(LENGTH_MAX)
        self._same(start, os.pread(self._open("rw"), length, start), length)
        return f"{start}+{length}"

    def truncate(self) -> str:
        """ftruncate(2), by a descriptor or by the path."""
        size = self._rng.randrange(SIZE_MAX)
        os.truncate(self._rng.choice((self._path, self._open("rw"), self._open("w"))), size)
        del self._content[size:]
        self._content += bytes(size - len(self._content))
        return str(size)

    def store(self) -> str:
        """Store through a shared mapping, synchronously or not."""
        if not self._content:
            return "-"
        start = self._rng.randrange(len(self._content))
        data = self._data()[: len(self._content) - start]
        with self._mapping(mmap.ACCESS_WRITE) as mapped:
            mapped[start : start + len(data)] = data
            if self._rng.random() < 0.5:
                mapped.flush()
        self._put(start, data)
        return f"{start}+{len(data)}"

    def load(self) -> str:
        """Load through a mapping."""
        if not self._content:
            return "-"
        start, length = self._rng.randrange(len(self._content)), self._rng.randrange(LENGTH_MAX)
        with self._mapping(mmap.ACCESS_READ) as mapped:
            self._same(start, mapped[start : start + length], length)
        return f"{start}+{length}"

    def copy(self) -> str:
        """copy_file_range(2) within the file, ranges apart."""
        half = len(self._content) // 2
        length = min(self._rng.randrange(LENGTH_MAX), half)
        fd = self._open("rw")
        source = self._rng.randrange(half - length + 1)
        target = half + self._rng.randrange(half - length + 1)
        if length:
            done = os.copy_file_range(fd, fd, length, source, target)
            self._put(target, bytes(self._content[source : source + done]))
        return f"{source}+{length} -> {target}"

    def send(self) -> str:
        """sendfile(2) from the file into a pipe."""
        start, length = self._rng.randrange(SIZE_MAX), self._rng.randrange(PAGE * 4)
        reader, writer = os.pipe()
        try:
            sent = os.sendfile(writer, self._open("rw"), start, length)
            got = b""
            while len(got) < sent:
                got += os.read(reader, sent - len(got))
        finally:
            os.close(reader)
            os.close(writer)
        self._same(start, got, min(length, len(got)))
        return f"{start}+{length}"

    def sync(self) -> str:
        """fsync(2) or fdatasync(2) by any descriptor."""
        self._rng.choice((os.fsync, os.fdatasync))(self._open(self._rng.choice(list(WAYS))))
        return ""

    def reopen(self) -> str:
        """close(2) of all."""
        for fd in self._descriptors.values():
            os.close(fd)
        self._descriptors.clear()
        return ""

    def forget(self) -> str:
        """posix_fadvise(2): clean pages are dropped."""
        os.posix_fadvise(self._open("rw"), 0, 0, os.POSIX_FADV_DONTNEED)
        return ""

    def compare(self) -> str:
        """The size, and the whole file by a descriptor of its own."""
        self._check(self._path)
        return ""

    def compare_there(self) -> str:
        """The same through the other mount, after an fsync."""
        os.fsync(self._open("rw"))
        self._check(self._other)
        return ""

    def empty(self) -> str:
        """O_TRUNC, at times."""
        if self._rng.random() < 0.8:
            return "-"
        os.close(os.open(self._path, os.O_WRONLY | os.O_TRUNC))
        self._content.clear()
        return ""

    def replace(self) -> str:
        """A new file renamed over; the old one goes on in no descriptor."""
        if self._rng.random() < 0.8:
            return "-"
        self.reopen()
        self._content = bytearray(self._data())
        with open(f"{self._path}.new", "wb") as file:
            file.write(self._content)
        os.rename(f"{self._path}.new", self._path)
        return str(len(self._content))

    def _open(self, way: str) -> int:
        if way not in self._descriptors:
            self._descriptors[way] = os.open(self._path, WAYS[way])
        return self._descriptors[way]

    def _mapping(self, access: int) -> mmap.mmap:
        return mmap.mmap(self._open("rw"), len(self._content), access=access)

    def _data(self) -> bytes:
        return self._rng.randbytes(
            self._rng.choice((1, 100, PAGE, self._rng.randrange(LENGTH_MAX)))
        )

    def _put(self, start: int, data: bytes) -> None:
        if not data:
            return
        self._content += bytes(max(0, start + len(data) - len(self._content)))
        self._content[start : start + len(data)] = data

    def _check(self, path: str) -> None:
        if (size := os.stat(path).st_size) != len(self._content):
            raise Different(f"{path} has {size} bytes instead of {len(self._content)}")
        with open(path, "rb") as file:
            self._same(0, file.read(), SIZE_MAX)

    def _same(self, start: int, found: bytes, length: int) -> None:
        expected = bytes(self._content[start : start + length])
        if found == expected:
            return
        pairs = enumerate(zip(found, expected, strict=False))
        at = next((number for number, (a, b) in pairs if a != b), min(len(found), len(expected)))
        about = f"{found[at : at + 8]!r} instead of {expected[at : at + 8]!r}"
        raise Different(f"{len(found)} bytes for {len(expected)}; at {start + at} {about}")


def main(path: str, other: str, steps: str, seed: str) -> int:
    """Print where it went wrong, if it did."""
    try:
        Exerciser(path, other, int(seed)).run(int(steps))
    except Different as error:
        print(f"seed {seed}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
