"""Sequential writes and reads of one large file, and random reads in it.

The content is a fixed pseudo-random MiB with the index of the MiB in its first
eight bytes, so that a misplaced, lost or doubled block is found by `verify`.
"""

from __future__ import annotations

import os
import random
import threading
import time
from typing import TypedDict

from bench import channel

MIB = 1 << 20
PAGE = 4096


class Written(TypedDict):
    """Times of one sequential write, in seconds."""

    seconds: float  # first write to the return of fsync
    longest_s: float  # longest write(2)
    fsync_s: float


def _pattern() -> bytearray:
    return bytearray(random.Random(7).randbytes(MIB))


def write(path: str, total: int, block: int, note_at: int = -1) -> Written:
    """Write `total` bytes (whole MiB) in writes of `block`, fsync, close.

    Args:
      note_at: tell the runner after this many bytes, so that it may break something.
    """
    pattern = _pattern()
    view = memoryview(pattern)
    longest = 0.0
    clock = time.perf_counter
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        start = clock()
        for index in range(total // MIB):
            pattern[:8] = index.to_bytes(8, "little")
            for offset in range(0, MIB, block):
                before = clock()
                written = os.write(fd, view[offset : offset + block])
                longest = max(longest, clock() - before)
                if written != block:
                    raise OSError(f"short write: {written} of {block} bytes")
            if index * MIB == note_at:
                channel.note(index)
        before = clock()
        os.fsync(fd)
        end = clock()
    finally:
        os.close(fd)
    return {"seconds": end - start, "longest_s": longest, "fsync_s": end - before}


def read(path: str, total: int, block: int = MIB) -> float:
    """Seconds to read the file from its beginning to its end."""
    buffer = bytearray(block)
    fd = os.open(path, os.O_RDONLY)
    try:
        start, seen = time.perf_counter(), 0
        while count := os.readv(fd, [buffer]):
            seen += count
        seconds = time.perf_counter() - start
    finally:
        os.close(fd)
    if seen != total:
        raise OSError(f"read {seen} bytes of {total}")
    return seconds


def verify(path: str, total: int) -> None:
    """Compare the whole file with what `write` wrote."""
    pattern = _pattern()
    with open(path, "rb", buffering=0) as file:
        for index in range(total // MIB):
            pattern[:8] = index.to_bytes(8, "little")
            block = b""
            while len(block) < MIB and (more := file.read(MIB - len(block))):
                block += more
            if block != pattern:
                raise OSError(f"content differs in MiB {index} of {total // MIB}")
        if file.read(1):
            raise OSError("file is longer than what was written")


def random_reads(path: str, total: int, counts: list[int]) -> list[float]:
    """Reads of 4 KiB a second, one figure for each (threads, reads) of `counts`.

    Args:
      counts: threads and number of reads, flattened: [1, 4000, 8, 16000]. No page is read twice.
    """
    pages = random.Random(11).sample(range(total // PAGE), sum(counts[1::2]))
    rates = []
    fd = os.open(path, os.O_RDONLY)
    try:
        for threads, count in zip(counts[::2], counts[1::2], strict=True):
            mine, pages = pages[:count], pages[count:]
            rates.append(count / _read_pages(fd, mine, threads))
    finally:
        os.close(fd)
    return rates


def _read_pages(fd: int, pages: list[int], threads: int) -> float:
    failures: list[int] = []

    def work(part: list[int]) -> None:
        short = [page for page in part if len(os.pread(fd, PAGE, page * PAGE)) != PAGE]
        failures.extend(short)

    workers = [threading.Thread(target=work, args=(pages[i::threads],)) for i in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - start
    if failures:
        raise OSError(f"short read at page {failures[0]}")
    return seconds


def discard(path: str) -> None:
    """Truncate, then unlink: a trash then holds a name but no bytes."""
    os.truncate(path, 0)
    os.unlink(path)
