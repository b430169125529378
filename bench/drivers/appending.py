"""Lines appended with O_APPEND, one write(2) each, and the check of every line."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from typing import TypedDict

from bench import channel

LINE_BYTES = 100
LETTERS = b"abcdefghijklmnopqrstuvwxyz"
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class Span(TypedDict):
    """Start and end on the machine's monotonic clock, seconds."""

    start: float
    end: float


class Faults(TypedDict):
    """What is wrong with a file that several writers appended to, in lines."""

    lost: int
    torn: int
    doubled: int
    disordered: int


def line(writer: int, sequence: int) -> bytes:
    """The one right text of a line: a torn or mixed one cannot equal it."""
    head = b"%02d %08d " % (writer, sequence)
    letter = LETTERS[(writer * 7 + sequence) % 26]
    return head + bytes([letter]) * (LINE_BYTES - len(head) - 1) + b"\n"


def append_lines(path: str, writer: int, count: int) -> Span:
    """Append `count` lines, a write(2) each, and close. Waits for the runner's go."""
    lines = [line(writer, sequence) for sequence in range(count)]
    fd = os.open(path, APPEND, 0o644)
    channel.pause()
    start = time.monotonic()
    try:
        for text in lines:
            if os.write(fd, text) != LINE_BYTES:
                raise OSError("short append")
    finally:
        os.close(fd)  # counts: an append handle may still hold lines until here
    return {"start": start, "end": time.monotonic()}


def append_synced(path: str, count: int) -> float:
    """Median seconds of one append of a line followed by fsync."""
    times = []
    fd = os.open(path, APPEND, 0o644)
    try:
        for sequence in range(count):
            before = time.perf_counter()
            os.write(fd, line(0, sequence))
            os.fsync(fd)
            times.append(time.perf_counter() - before)
    finally:
        os.close(fd)
    return statistics.median(times)


def check_lines(path: str, writers: int, count: int) -> Faults:
    """Read the file and account for every line of every writer."""
    with open(path, "rb") as file:
        return account(file.read(), writers, count)


def account(content: bytes, writers: int, count: int) -> Faults:
    """Compare `content` with `count` lines of each writer in the order of its writer."""
    wanted = {line(w, s): (w, s) for w in range(writers) for s in range(count)}
    seen: Counter[tuple[int, int]] = Counter()
    last = [-1] * writers
    torn = disordered = 0
    for text in content.splitlines(keepends=True):
        key = wanted.get(text)
        if key is None:
            torn += 1
            continue
        writer, sequence = key
        if not seen[key]:
            disordered += sequence < last[writer]
            last[writer] = max(last[writer], sequence)
        seen[key] += 1
    doubled = sum(times - 1 for times in seen.values())
    lost = len(wanted) - len(seen)
    return {"lost": lost, "torn": torn, "doubled": doubled, "disordered": disordered}
