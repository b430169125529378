"""Many consumers of the change stream in one process, as cheap as they can be.

    python -m bench.drivers.consumers HOST:PORT TOKEN COUNT COMMIT_S

Each has a socket of its own, reads what comes under a name of its own and commits where it
is each COMMIT_S seconds. Prints "going" once all are connected. At a line "POSITION" on
standard input they read up to there; then a line of JSON says what they got.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import selectors
import socket
import sys
import time
from pathlib import Path

STEP_ASIDE = 15
PIECE = 1 << 18
TAIL_BYTES = 4096  # in which the last whole line's cursor stands
LIMIT_S = 120.0
_PLACE = re.compile(rb'"(?:cursor|scanned_to)":"(\d+-(\d+)(?:\.\d+)?)"')


class Consumer:
    """One reader."""

    def __init__(self, address: str, token: str, name: str) -> None:
        host, _, port = address.rpartition(":")
        self.name = name
        self.sock = socket.create_connection((host, int(port)))
        self.sock.sendall(
            f"GET /stream?consumer={name}&from=now HTTP/1.1\r\nHost: {host}\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        self.events = self.bytes = self.position = 0
        self.cursor = self.committed = ""
        self._tail = b""

    def take(self) -> None:
        """What has come."""
        piece = self.sock.recv(PIECE)
        if not piece:
            raise SystemExit(f"{self.name}: the stream ended: {self._tail[-200:]!r}")
        self.bytes += len(piece)
        seen = self._tail + piece
        # Every event has one; one that is cut by the end of a piece is counted with the next.
        self.events += seen.count(b'"previous":"') - self._tail.count(b'"previous":"')
        self._tail = seen[-TAIL_BYTES:]
        whole = seen[: seen.rfind(b"\n") + 1]
        for found in _PLACE.finditer(whole[-TAIL_BYTES:]):
            self.cursor, self.position = found[1].decode(), int(found[2])


def _commit(connection: http.client.HTTPConnection, token: str, one: Consumer) -> None:
    if one.cursor and one.cursor != one.committed:
        headers = {"Authorization": f"Bearer {token}"}
        body = json.dumps({"cursor": one.cursor})
        connection.request("POST", f"/consumers/{one.name}", body, headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"commit of {one.name}: {answer.status} {answer.read()!r}")
        answer.read()
        one.committed = one.cursor


def _step_aside() -> None:
    """Take what processor is left: elsewhere consumers run on machines of their own."""
    os.nice(STEP_ASIDE)  # counts within a session, where the kernel groups tasks by these
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(STEP_ASIDE))


def main() -> None:
    """Read until told where to end."""
    address, token, count, commit_s = sys.argv[1:]
    _step_aside()
    consumers = [Consumer(address, token, f"bench-{n}") for n in range(int(count))]
    for one in consumers:  # whoever has its first heartbeat gets all that comes now
        while not one.cursor:
            one.take()
    selector = selectors.DefaultSelector()
    for one in consumers:
        selector.register(one.sock, selectors.EVENT_READ, one)
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    commits = http.client.HTTPConnection(address)
    print("going", flush=True)
    end, told_at, turn, due = sys.maxsize, 0.0, 0, time.monotonic()
    while any(one.position < end for one in consumers):
        for key, _ in selector.select(0.05):
            if key.data is None:
                if not (line := sys.stdin.readline()):
                    raise SystemExit("whoever has started them has ended")
                end, told_at = int(line), time.monotonic()
                selector.unregister(sys.stdin)
            else:
                key.data.take()
        if time.monotonic() >= due and consumers:
            _commit(commits, token, consumers[turn % len(consumers)])
            turn, due = turn + 1, max(due, time.monotonic() - 1) + float(commit_s) / len(consumers)
        if told_at and time.monotonic() > told_at + LIMIT_S:
            raise SystemExit(f"not at {end} after {LIMIT_S} s")
    events = [one.events for one in consumers]
    found = {
        "behind_ms": round((time.monotonic() - told_at) * 1000),
        "events_min": min(events),
        "events_max": max(events),
        "bytes": sum(one.bytes for one in consumers),
        "commits": turn,
    }
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
