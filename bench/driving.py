"""The runner's end: start driver processes, hear from them, bound their time.

The runner itself never touches a mount: a call there may hang for ever. A
driver that overruns is killed with its whole session; one that the kernel
will not let die is left behind and named.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import drive

ROOT = Path(__file__).resolve().parent.parent
KILL_GRACE_S = 5.0  # a process still there after SIGKILL is stuck in the kernel


class DriverFailed(Exception):
    """The driver reported an error, died, or ran out of time."""


class Driver:
    """One call in a process of its own, with JSON arguments and result."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._name = f"{function.__module__}:{function.__qualname__}"
        # A file, not a pipe: nobody reads it until the end, and a full pipe blocks.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", drive.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        self._pending = b""
        self._send({"function": self._name, "arguments": [_plain(a) for a in arguments]})

    @property
    def pid(self) -> int:
        """Process id of the driver."""
        return self._process.pid

    def wait_note(self, limit_s: float) -> Any:
        """Wait for the next `channel.note` or `channel.pause` and return its value."""
        return self._receive("note", limit_s)

    def go(self) -> None:
        """Let a driver go on that waits in `channel.pause`."""
        self._send("go")

    def result(self, limit_s: float, on_note: Callable[[Any], None] | None = None) -> Any:
        """Wait for the result of the call; `on_note` gets what it notes until then.

        Raises:
          DriverFailed: the call raised, the process died, or `limit_s` has passed.
        """
        try:
            return self._receive("result", limit_s, on_note)
        finally:
            self.close()

    def close(self) -> None:
        """End the process and all it started; safe to call twice."""
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_GRACE_S)
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _send(self, value: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise DriverFailed(f"{self._name}: {self._last_words()}") from None

    def _receive(
        self, kind: str, limit_s: float, on_note: Callable[[Any], None] | None = None
    ) -> Any:
        """Next value of `kind`; values of other kinds before it are dropped, or noted."""
        deadline = time.monotonic() + limit_s
        while True:
            message = json.loads(self._line(deadline, limit_s))
            if "error" in message:
                raise DriverFailed(message["error"])
            if kind in message:
                return message[kind]
            if on_note is not None and "note" in message:
                on_note(message["note"])

    def _line(self, deadline: float, limit_s: float) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    self.close()
                    raise DriverFailed(f"{self._name}: not done after {limit_s:.0f} s")
                data = os.read(stdout.fileno(), 1 << 20)
                if not data:
                    raise DriverFailed(f"{self._name}: {self._last_words()}")
                self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "died without a word"


def call(function: Callable[..., Any], *arguments: Any, limit_s: float) -> Any:
    """Run `function` in a process of its own and return its result.

    Raises:
      DriverFailed: see `Driver.result`.
    """
    return Driver(function, *arguments).result(limit_s)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
