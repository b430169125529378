"""tail(1) on one mount, a program that appends on another: how late each line comes."""

from __future__ import annotations

import os
import selectors
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence

GAP_S = 0.05
LIMIT_S = 10.0  # for one line


class Tail:
    """A running tail and the lines that come out of it."""

    def __init__(self, options: Sequence[str], path: str) -> None:
        self._process = subprocess.Popen(
            ["tail", *options, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self._fd = self._process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._fd, selectors.EVENT_READ)
        self._pending = b""

    def lines(self, count: int) -> Iterator[tuple[bytes, float]]:
        """The next lines and when each came; fewer if one does not."""
        while count and self._selector.select(LIMIT_S):
            self._pending += os.read(self._fd, 1 << 16)
            now = time.monotonic()
            *whole, self._pending = self._pending.split(b"\n")
            for line in whole[:count]:
                yield line, now
            count -= min(count, len(whole))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._selector.close()
        assert self._process.stdout is not None
        self._process.stdout.close()


def follow(here: str, there: str, options: list[str], count: int, rotate: bool) -> list[float]:
    """Append lines in `here`, a write and a close each, and follow in `there`.

    Args:
      rotate: halfway the file is renamed and made anew, as logrotate does.

    Returns:
      Seconds from the return of each append to the line, sorted.

    Raises:
      OSError: a line did not come, or another one came.
    """
    path = f"{here}/log"
    _append(path, b"begin")
    tail = Tail([*options, "-n", "+1"], f"{there}/log")
    came: list[tuple[bytes, float]] = []
    reader = threading.Thread(target=lambda: came.extend(tail.lines(count)))
    try:
        if next(tail.lines(1))[0] != b"begin":
            raise OSError("tail began with something else")
        reader.start()
        returned: dict[bytes, float] = {}
        for number in range(count):
            if rotate and number == count // 2:
                os.rename(path, f"{path}.1")
            line = b"line %d" % number
            _append(path, line)
            returned[line] = time.monotonic()
            time.sleep(GAP_S)
        reader.join()
    finally:
        tail.close()
    if [line for line, _ in came] != list(returned):
        raise OSError(f"{[line for line, _ in came]} came instead of {list(returned)}")
    return sorted(max(0.0, at - returned[line]) for line, at in came)


def _append(path: str, line: bytes) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(line + b"\n")
