"""A call returns on one mount, and the next call on the other must see what it did.

One process changes a small directory through two mounts in turn, at random, and after each
change asks the other mount about the names concerned: what is there, of which kind, with which
size, mode, links, times, attributes and content. It knows itself what must be answered; what
differs is a stale answer. Both mounts have been asked before, so whatever may be cached is.
"""

from __future__ import annotations

import ctypes
import os
import random
import stat
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench import channel

NAMES = [f"n{number}" for number in range(12)]
CONTENT_MAX = 6000
NOTE_S = 5.0
SAMPLES = 10  # stale answers that are told in full
RENAME_EXCHANGE = 2
AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(eq=False)
class Thing:
    """One inode as it must be."""

    kind: int  # stat.S_IFREG, S_IFDIR or S_IFLNK
    mode: int = 0
    content: bytes = b""  # of a symbolic link its target
    attribute: bytes = b""
    mtime_ns: int = 0  # 0: whatever the clock said
    links: int = 1


def exchange(first: str, second: str) -> None:
    """renameat2(2) with RENAME_EXCHANGE. Raises OSError."""
    words = (AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE)
    if _libc.renameat2(*words):
        raise OSError(ctypes.get_errno(), "renameat2", first)


class Alternator:
    """Changes and looks; `stale` holds what was answered wrongly, in words."""

    def __init__(self, first: str, second: str, seed: int) -> None:
        self._sides = [first, second]
        self._random = random.Random(seed)
        self._things: dict[str, Thing] = {}
        self.done: Counter[str] = Counter()
        self.stale: list[str] = []
        self.looks = 0

    def run(self, count: int) -> None:
        """`count` changes, each followed by looks from the other side and then its own.

        Raises:
          OSError: a call failed that must not, which is what a stale name leads to.
        """
        noted = time.monotonic()
        for number in range(count):
            here, there = self._sides = self._random.sample(self._sides, 2)
            name = self._random.choice(NAMES)
            change = self._random.choice(self._fitting(name))
            try:
                concerned = change(here, name)
                for one in concerned:
                    self._look(there, one)
                if number % 10 == 0:
                    self._list(there)
                for one in concerned:
                    self._look(here, one)
            except OSError as error:
                error.add_note(f"change {number}, {change.__name__} of {name} in {here}")
                raise
            self.done[change.__name__] += 1
            if time.monotonic() - noted > NOTE_S:
                noted = time.monotonic()
                channel.note(number)

    # --- looks

    def _look(self, side: str, name: str) -> None:
        """Every answer about a name that a kernel or a mount may have kept."""
        thing, path = self._things.get(name), f"{side}/{name}"
        self.looks += 1
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            if thing is not None:
                self._say(f"{path} is not there")
            return
        if thing is None:
            self._say(f"{path} is still there")
            return
        told: list[tuple[str, Any, Any]] = [("kind", stat.S_IFMT(found.st_mode), thing.kind)]
        if thing.kind == stat.S_IFLNK:
            told.append(("target", os.readlink(path).encode(), thing.content))
        else:
            told.append(("mode", stat.S_IMODE(found.st_mode), thing.mode))
        if thing.kind == stat.S_IFREG:
            told += self._of_file(path, found, thing)
        for what, answer, right in told:
            if answer != right:
                self._say(f"{what} of {path}: {answer!r:.60} instead of {right!r:.60}")

    def _of_file(
        self, path: str, found: os.stat_result, thing: Thing
    ) -> list[tuple[str, Any, Any]]:
        with open(path, "rb", buffering=0) as file:
            content = file.read(CONTENT_MAX * 4)
        told: list[tuple[str, Any, Any]] = [
            ("size", found.st_size, len(thing.content)),
            ("links", found.st_nlink, thing.links),
            ("content", content, thing.content),
        ]
        if thing.mtime_ns:
            told.append(("mtime", found.st_mtime_ns, thing.mtime_ns))
        if thing.attribute:
            told.append(("attribute", os.getxattr(path, "user.a"), thing.attribute))
        return told

    def _list(self, side: str) -> None:
        self.looks += 1
        if (found := sorted(os.listdir(side))) != sorted(self._things):
            self._say(f"{side} lists {found} instead of {sorted(self._things)}")

    def _say(self, words: str) -> None:
        self.stale.append(words)

    # --- changes: each returns the names to look at

    def _fitting(self, name: str) -> list[Callable[[str, str], list[str]]]:
        thing = self._things.get(name)
        if thing is None:
            return [self.create, self.mkdir, self.symlink, self.rename_here, self.link_here]
        common = [self.rename_over, self.exchange]
        if thing.kind == stat.S_IFDIR:
            return [self.rmdir, self.chmod, self.exchange]
        if thing.kind == stat.S_IFLNK:
            return [self.unlink, *common]
        return [
            self.unlink, self.chmod, self.utimens, self.setxattr, self.append_and_sync,
            self.truncate, self.rewrite_unnoticeably, self.truncate_at_open, *common,
        ]  # fmt: skip

    def _bytes(self, most: int = CONTENT_MAX) -> bytes:
        return self._random.randbytes(self._random.randrange(1, most))

    def create(self, here: str, name: str) -> list[str]:
        content = self._bytes()
        fd = os.open(f"{here}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.fchmod(fd, 0o644)  # whatever the umask is
        os.write(fd, content)
        os.close(fd)
        self._things[name] = Thing(stat.S_IFREG, 0o644, content)
        return [name]

    def mkdir(self, here: str, name: str) -> list[str]:
        os.mkdir(f"{here}/{name}")
        os.chmod(f"{here}/{name}", 0o755)
        self._things[name] = Thing(stat.S_IFDIR, 0o755)
        return [name]

    def rmdir(self, here: str, name: str) -> list[str]:
        os.rmdir(f"{here}/{name}")
        del self._things[name]
        return [name]

    def symlink(self, here: str, name: str) -> list[str]:
        target = f"target{self._random.randrange(1000)}"
        os.symlink(target, f"{here}/{name}")
        self._things[name] = Thing(stat.S_IFLNK, content=target.encode())
        return [name]

    def unlink(self, here: str, name: str) -> list[str]:
        os.unlink(f"{here}/{name}")
        return [name, *self._let_go(name)]

    def _let_go(self, name: str) -> list[str]:
        """The name leads there no more; other names of the same file."""
        thing = self._things.pop(name)
        thing.links -= 1
        return [other for other, one in self._things.items() if one is thing]

    def _of_kind(self, *kinds: int) -> list[str]:
        return [name for name, thing in self._things.items() if thing.kind in kinds]

    def rename_here(self, here: str, name: str) -> list[str]:
        """To a name that is free."""
        if not self._things:
            return self.create(here, name)
        source = self._random.choice(list(self._things))
        os.rename(f"{here}/{source}", f"{here}/{name}")
        self._things[name] = self._things.pop(source)
        return [source, name]

    def link_here(self, here: str, name: str) -> list[str]:
        files = self._of_kind(stat.S_IFREG)
        if not files:
            return self.create(here, name)
        source = self._random.choice(files)
        os.link(f"{here}/{source}", f"{here}/{name}")
        thing = self._things[name] = self._things[source]
        thing.links += 1
        return [name, source]

    def rename_over(self, here: str, name: str) -> list[str]:
        """As editors save: new content under another name, then over this one."""
        content = self._bytes()
        with open(f"{here}/.new", "wb", buffering=0) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
        os.rename(f"{here}/.new", f"{here}/{name}")
        others = self._let_go(name)
        self._things[name] = Thing(stat.S_IFREG, 0o600, content)
        return [name, ".new", *others]

    def exchange(self, here: str, name: str) -> list[str]:
        other = self._random.choice(list(self._things))
        if self._things[other] is self._things[name]:
            return [name]
        exchange(f"{here}/{name}", f"{here}/{other}")
        self._things[name], self._things[other] = self._things[other], self._things[name]
        return [name, other]

    def chmod(self, here: str, name: str) -> list[str]:
        self._things[name].mode = self._random.choice([0o600, 0o640, 0o644, 0o755])
        os.chmod(f"{here}/{name}", self._things[name].mode)
        return [name]

    def utimens(self, here: str, name: str) -> list[str]:
        self._things[name].mtime_ns = self._random.randrange(1, 1 << 60)
        os.utime(f"{here}/{name}", ns=(0, self._things[name].mtime_ns))
        return [name]

    def setxattr(self, here: str, name: str) -> list[str]:
        self._things[name].attribute = b"%d" % self._random.randrange(1 << 30)
        os.setxattr(f"{here}/{name}", "user.a", self._things[name].attribute)
        return [name]

    def append_and_sync(self, here: str, name: str) -> list[str]:
        thing, more = self._things[name], self._bytes(300)
        with open(f"{here}/{name}", "ab", buffering=0) as file:
            file.write(more)
            os.fsync(file.fileno())
        thing.content, thing.mtime_ns = (thing.content + more)[:], 0
        return [name] if len(thing.content) < 2 * CONTENT_MAX else self.truncate(here, name)

    def truncate(self, here: str, name: str) -> list[str]:
        thing, size = self._things[name], self._random.randrange(CONTENT_MAX)
        os.truncate(f"{here}/{name}", size)
        thing.content, thing.mtime_ns = thing.content[:size].ljust(size, b"\0"), 0
        return [name]

    def truncate_at_open(self, here: str, name: str) -> list[str]:
        os.close(os.open(f"{here}/{name}", os.O_WRONLY | os.O_TRUNC))
        self._things[name].content, self._things[name].mtime_ns = b"", 0
        return [name]

    def rewrite_unnoticeably(self, here: str, name: str) -> list[str]:
        """Other bytes, the same size, and the time put back."""
        thing, path = self._things[name], f"{here}/{name}"
        before = os.stat(path)
        thing.content = self._random.randbytes(len(thing.content))
        with open(path, "r+b", buffering=0) as file:
            file.write(thing.content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        thing.mtime_ns = before.st_mtime_ns
        return [name]


def alternate(first: str, second: str, count: int, seed: int) -> dict[str, Any]:
    """Run an `Alternator`; what it did, in numbers, and the first stale answers in words."""
    began = time.perf_counter()
    one = Alternator(first, second, seed)
    one.run(count)
    return {
        "seconds": time.perf_counter() - began,
        "changes": dict(one.done),
        "looks": one.looks,
        "stale": len(one.stale),
        "samples": one.stale[:SAMPLES],
    }
