"""The driver's end of the line to the runner: notes out, permission to go on in.

One JSON value a line each way. The real stdout is kept for it; whatever else
a driver prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

_out: TextIO | None = None


def open_channel() -> None:
    """Keep stdout for the runner and send stray prints to stderr."""
    global _out
    _out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)


def close_on_fork() -> None:
    """Forget the line in a forked child, which must not speak for its parent."""
    global _out
    _out = None


def send(kind: str, value: Any) -> None:
    """Send one value to the runner; does nothing when there is none."""
    if _out is not None:
        _out.write(json.dumps({kind: value}) + "\n")


def note(value: Any) -> None:
    """Tell the runner something without waiting."""
    send("note", value)


def pause(value: Any = None) -> None:
    """Tell the runner that all is ready and wait until it says go."""
    if _out is None:
        return
    send("note", value)
    if not sys.stdin.readline():
        raise EOFError("the runner has gone")
