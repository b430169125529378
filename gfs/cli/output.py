"""What commands print: names byte for byte, sizes and times for people, progress bars.

Standard output carries the answer and nothing else; what is about the answer (progress,
position and lag of a view) goes to standard error.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_CONTROL = bytes(range(32)) + b"\x7f"
_VISIBLE = bytes.maketrans(_CONTROL, b"?" * len(_CONTROL))
PROGRESS_BYTES_MIN = 8 * 1024 * 1024  # less is over before a bar is drawn
WAITING_S = 0.5  # less needs no sign of life


class CommandFailed(Exception):
    """A command could not do its work; the text is for the user. Exit code 1."""


def complain(text: str) -> None:
    """A line on standard error in the form of all our errors."""
    flush()
    sys.stderr.buffer.write(b"gfs: " + os.fsencode(text.rstrip("\n")) + b"\n")
    sys.stderr.flush()


def remark(text: str) -> None:
    """A line about the answer, on standard error."""
    flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def flush() -> None:
    """Let out what is buffered, so that answer and remarks come in their order."""
    with contextlib.suppress(ValueError):  # closed
        sys.stdout.flush()


def out(text: str | bytes, end: bytes = b"\n") -> None:
    """Print to standard output; undecodable bytes come out as they went in.

    Raises:
      BrokenPipeError: nobody reads.
    """
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    sys.stdout.buffer.write(raw + end)


def out_name(name: bytes, end: bytes = b"\n") -> None:
    """Print a name; to a terminal control characters are shown as ``?``."""
    out(name.translate(_VISIBLE) if sys.stdout.isatty() else name, end)


def shown(name: bytes) -> str:
    """A name within a message."""
    return name.translate(_VISIBLE).decode("utf-8", "surrogateescape")


def size_text(size: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in _UNITS:
        if abs(size) < 1024 or unit == _UNITS[-1]:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def time_text(time_ns: int) -> str:
    """Local time to the second."""
    seconds = time_ns // 1_000_000_000
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal for long work: call what this gives with each count of bytes."""
    if not sys.stderr.isatty() or (total is not None and total < PROGRESS_BYTES_MIN):
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


@contextlib.contextmanager
def counting(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal for work that is counted in things instead of bytes."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """A bar without an end, and the time gone, on a terminal while one answer takes long.

    For what the master does as one change: nobody can tell how much of it is done.
    """
    if not sys.stderr.isatty():
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_show_waiting, args=(what, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _show_waiting(what: str, over: threading.Event) -> None:
    if over.wait(WAITING_S):
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(what, total=None)
        over.wait()


def umask() -> int:
    """This process's umask."""
    for line in Path("/proc/self/status").read_bytes().splitlines():
        if line.startswith(b"Umask:"):
            return int(line.split()[1], 8)
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
