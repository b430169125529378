"""What workers write, so that any reader can tell whether it is whole.

A file is a head that names its length and seed, then bytes that follow from the seed. A
record of a log is a line that names its writer, the writer's life and its number; a
new life begins whenever a handle has failed.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections import defaultdict

HEAD = struct.Struct("<4sQQ")
MAGIC = b"whol"


def file_of(seed: int, size: int) -> bytes:
    """The whole content of a file of `size` bytes, at least a head."""
    assert size >= HEAD.size
    return HEAD.pack(MAGIC, size, seed) + random.Random(seed).randbytes(size - HEAD.size)


def seed_of(content: bytes) -> int | None:
    """The seed of a file that is whole; None if it is not."""
    if len(content) < HEAD.size:
        return None
    magic, size, seed = HEAD.unpack_from(content)
    whole = magic == MAGIC and size == len(content) and content == file_of(seed, size)
    return int(seed) if whole else None


def line_of(worker: str, life: int, number: int) -> bytes:
    """A record; 30 to 2,000 bytes."""
    text = f"{worker} {life} {number} ".encode()
    mark = zlib.crc32(text)
    return text + b"%08x" % mark + b"." * (mark % (1900 if mark % 9 == 0 else 90)) + b"\n"


def landed(content: bytes) -> tuple[dict[tuple[str, int], int], list[str]]:
    """How many records of each life stand in a log, and what is wrong with them.

    Every line must be one that was written; those of a life are 0, 1, 2 ... without gap;
    those of a later life of a worker stand behind.
    """
    counts: defaultdict[tuple[str, int], int] = defaultdict(int)
    latest: dict[str, int] = {}
    problems: list[str] = []
    offset = 0
    for line in content.splitlines(keepends=True):
        parts = line.split(b" ", 3)
        try:
            worker, life, number = parts[0].decode(), int(parts[1]), int(parts[2])
            torn = line != line_of(worker, life, number)
        except (ValueError, IndexError):
            torn = True
        if torn:
            problems.append(f"at byte {offset}: no whole record: {line[:60]!r}")
        else:
            if number != counts[worker, life]:
                problems.append(
                    f"at byte {offset}: record {number} of {worker}'s life {life}, "
                    f"{counts[worker, life]} was due"
                )
            if life < latest.get(worker, 0):
                problems.append(f"at byte {offset}: {worker}'s life {life} after a later one")
            latest[worker] = max(life, latest.get(worker, 0))
            counts[worker, life] = number + 1
        offset += len(line)
    return dict(counts), problems
