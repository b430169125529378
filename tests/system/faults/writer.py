"""A program that writes to a mount while a test breaks things; tells what it did.

    python -m tests.system.faults.writer stream PATH MIB
    python -m tests.system.faults.writer append PATH WRITER LINES SYNC_EVERY

A process of its own: whoever starts daemons must hold no file of the mount open,
since a forked child closes it and such a close may wait for these very daemons.

Prints "third" when a third is written, at the end a line of JSON (`Told`).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

MIB = 1 << 20
ROOT = Path(__file__).parents[3]
LIMIT_S = 150.0


@dataclass
class Told:
    """What a writer says at its end.

    Attributes:
      written: write calls that returned; `synced`: those before the last fsync that returned.
      errno: of the call that failed and ended it, or 0.
    """

    written: int = 0
    synced: int = 0
    longest_s: float = 0.0
    sync_s: float = 0.0
    sha256: str = ""
    errno: int = 0

    def write(self, fd: int, content: bytes) -> None:
        start = time.perf_counter()
        count = os.write(fd, content)
        self.longest_s = max(self.longest_s, time.perf_counter() - start)
        assert count == len(content)
        self.written += 1

    def sync(self, fd: int) -> None:
        start = time.perf_counter()
        os.fsync(fd)
        self.sync_s = max(self.sync_s, time.perf_counter() - start)
        self.synced = self.written


def line_of(writer: int, number: int) -> bytes:
    """The line that `writer` appends as its `number`th."""
    return b"%d %07d %s\n" % (writer, number, b"x" * (number * 7 % 120))


def stream(told: Told, path: str, mib: int) -> None:
    """Blocks of 1 MiB, then fsync."""
    block = random.Random(5).randbytes(MIB)
    digest = hashlib.sha256()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in range(mib):
        content = number.to_bytes(8, "big") + block[8:]
        digest.update(content)
        told.write(fd, content)
        if number == mib // 3:
            print("third", flush=True)
    told.sync(fd)
    os.close(fd)
    told.sha256 = digest.hexdigest()


def append(told: Told, path: str, writer: int, lines: int, sync_every: int) -> None:
    """A line a write(2); `sync_every` 0: close alone makes them certain."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(lines):
        told.write(fd, line_of(writer, number))
        if sync_every and number % sync_every == 0:
            told.sync(fd)
        if number == lines // 3:
            print("third", flush=True)
    os.close(fd)
    told.synced = told.written


class Writer:
    """This program, started by a test."""

    def __init__(self, *words: str | int | Path) -> None:
        self.words = [str(word) for word in words]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.faults.writer", *self.words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        self._third = threading.Event()
        self._lines: list[bytes] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.append(line)
                self._third.set()

    def wait_third(self) -> None:
        """Until a third is written."""
        assert self._third.wait(LIMIT_S), f"writer {self.words} does not get on"

    def end(self) -> Told:
        """Wait for its end; what it tells."""
        self._process.wait(LIMIT_S)
        self._reader.join(5.0)
        return Told(**json.loads(self._lines[-1]))


def main(words: list[str]) -> None:
    """See the module's text."""
    told = Told()
    try:
        if words[0] == "stream":
            stream(told, words[1], int(words[2]))
        else:
            append(told, words[1], *map(int, words[2:]))
    except OSError as error:
        told.errno = error.errno or -1
    print(json.dumps(asdict(told)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
