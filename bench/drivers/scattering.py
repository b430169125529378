"""Random writes within one file, each block known by its number and by how often it was written.

What is read back is compared with what was written last, at once and at the end, by the same
process; half of the reads go past the kernel's pages. A block that differs is no figure but
an error.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
import time
from collections.abc import Callable
from typing import Any

from bench import channel
from bench.drivers.streaming import MIB

LATENCIES_MAX = 400_000  # kept of each kind; later ones replace random earlier ones
NOTE_S = 5.0
STAMP = struct.Struct("<QQ")
FLAGS = {"sync": os.O_SYNC, "direct": os.O_DIRECT}


class Blocks:
    """What each block of the file must be: its generation, 0 for a block of zeros."""

    def __init__(self, block: int, count: int) -> None:
        self.block = block
        self.generations = [0] * count

    def content(self, number: int) -> bytes:
        """The block as it was written last."""
        generation = self.generations[number]
        if not generation:
            return bytes(self.block)
        return STAMP.pack(number, generation) * (self.block // STAMP.size)

    def check(self, number: int, found: bytes) -> None:
        """Raises OSError if that is not the block."""
        if found != self.content(number):
            told = STAMP.unpack(found[: STAMP.size]) if len(found) >= STAMP.size else len(found)
            generation = self.generations[number]
            raise OSError(f"block {number} of generation {generation} reads as {told}")


class Latencies:
    """A bounded sample of times, in seconds."""

    def __init__(self) -> None:
        self.count = 0
        self.total_s = 0.0
        self._kept: list[float] = []
        self._random = random.Random(1)

    def add(self, seconds: float) -> None:
        self.count += 1
        self.total_s += seconds
        if len(self._kept) < LATENCIES_MAX:
            self._kept.append(seconds)
        else:
            self._kept[self._random.randrange(LATENCIES_MAX)] = seconds

    def percentile_ms(self, percent: float) -> float:
        """0 when nothing was timed."""
        if not self._kept:
            return 0.0
        ordered = sorted(self._kept)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1e3


def fill(path: str, size: int, block: int) -> float:
    """Make the file, every block of generation 1, fsync; seconds."""
    blocks = Blocks(block, size // block)
    blocks.generations = [1] * len(blocks.generations)
    each = max(1, MIB // block)
    began = time.perf_counter()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for first in range(0, len(blocks.generations), each):
            last = min(first + each, len(blocks.generations))
            os.write(fd, b"".join(map(blocks.content, range(first, last))))
        os.fsync(fd)
    finally:
        os.close(fd)
    return time.perf_counter() - began


def work(
    path: str, size: int, block: int, seconds: float, pattern: str, seed: int
) -> dict[str, Any]:
    """Overwrite random blocks of a file that `fill` made, for `seconds`; then read all of it.

    Args:
      pattern: "plain" (fsync now and then), "sync" (O_SYNC), "direct" (O_DIRECT), "mapped"
        (a shared mapping, msync), "truncate" (plain, cut and extended again and again).

    Returns:
      writes, seconds, MiB a second; milliseconds of writes, reads, fsyncs: p50, p99, longest.

    Raises:
      OSError: a block was not what had been written.
    """
    return Scatterer(path, size, block, pattern, seed).run(seconds)


class Scatterer:
    """One file being written at random by one process; see `work`.

    Attributes:
      blocks: what the file must hold.
    """

    def __init__(self, path: str, size: int, block: int, pattern: str, seed: int) -> None:
        self.blocks = Blocks(block, size // block)
        self.blocks.generations = [1] * len(self.blocks.generations)
        self._path, self._block, self._pattern = path, block, pattern
        self._random = random.Random(seed)
        self._fd = os.open(path, os.O_RDWR | FLAGS.get(pattern, 0))
        self._direct = mmap.mmap(-1, block)  # aligned, as O_DIRECT wants it
        self._writes, self._reads, self._syncs = Latencies(), Latencies(), Latencies()
        self._put: Callable[[int], None] = self._pwrite
        if pattern == "mapped":
            self._map = mmap.mmap(self._fd, size)
            self._put = self._store

    def run(self, seconds: float) -> dict[str, Any]:
        """See `work`."""
        clock = time.perf_counter
        began = noted = clock()
        while clock() - began < seconds:
            number = self._random.randrange(len(self.blocks.generations))
            self.blocks.generations[number] += 1
            before = clock()
            self._put(number)
            self._writes.add(clock() - before)
            count = self._writes.count
            self._check_one(number if count % 2 else self._any(), fresh=count % 4 < 2)
            if count % 1000 == 0:
                self._sync()
            if self._pattern == "truncate" and count % 500 == 0:
                self._cut()
            if clock() - noted > NOTE_S:
                noted = clock()
                channel.note(count)
        self._sync()
        took = clock() - began
        self._check_all()
        os.close(self._fd)
        return self._figures(took)

    def _any(self) -> int:
        return self._random.randrange(len(self.blocks.generations))

    def _pwrite(self, number: int) -> None:
        content = self.blocks.content(number)
        if self._pattern == "direct":
            self._direct[:] = content
            written = os.pwrite(self._fd, self._direct, number * self._block)
        else:
            written = os.pwrite(self._fd, content, number * self._block)
        if written != len(content):
            raise OSError(f"short write: {written} of {len(content)} bytes")

    def _store(self, number: int) -> None:
        start = number * self._block
        self._map[start : start + self._block] = self.blocks.content(number)

    def _sync(self) -> None:
        before = time.perf_counter()
        if self._pattern == "mapped":
            self._map.flush()
        os.fsync(self._fd)
        self._syncs.add(time.perf_counter() - before)

    def _check_one(self, number: int, *, fresh: bool) -> None:
        """`fresh`: past the pages that the kernel has of it, as far as it lets go of them."""
        start = number * self._block
        if fresh and self._pattern != "mapped":
            os.posix_fadvise(self._fd, start, self._block, os.POSIX_FADV_DONTNEED)
        before = time.perf_counter()
        found = self._read(start)
        self._reads.add(time.perf_counter() - before)
        self.blocks.check(number, found)

    def _read(self, start: int) -> bytes:
        if self._pattern != "direct":
            return os.pread(self._fd, self._block, start)
        count = os.preadv(self._fd, [self._direct], start)
        return self._direct[:count]

    def _cut(self) -> None:
        """Cut somewhere in the last quarter, extend again: what was there is zeros now."""
        count = len(self.blocks.generations)
        kept = self._random.randrange(3 * count // 4, count)
        os.ftruncate(self._fd, kept * self._block)
        os.ftruncate(self._fd, count * self._block)
        self.blocks.generations[kept:] = [0] * (count - kept)

    def _check_all(self) -> None:
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for number in range(len(self.blocks.generations)):
            self.blocks.check(number, self._read(number * self._block))

    def _figures(self, took: float) -> dict[str, Any]:
        told = {
            "writes": self._writes.count,
            "seconds": took,
            "mib_per_s": self._writes.count * self._block / MIB / took,
        }
        for name, times in (
            ("write", self._writes),
            ("read", self._reads),
            ("fsync", self._syncs),
        ):
            for percent in (50, 99, 100):
                told[f"{name}_p{percent}_ms"] = times.percentile_ms(percent)
        return told
