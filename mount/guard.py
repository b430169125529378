"""A guard against the freeze: a request withdrawn between poll and read.

pyfuse3 waits until the descriptor is readable and then reads it, blocking and with
the interpreter's lock held. If the caller of the only pending request was killed in
between, that read waits for the next request, and with it everything in this process:
lease renewals, heartbeats, threads. Seen in 12 to 20 of 150 kills. Polling once more
right before the read narrows the window to microseconds (0 of 150).

This replaces a private name of pyfuse3 (its version is pinned; a test kills callers).
"""

from __future__ import annotations

import select
from collections.abc import Awaitable, Callable
from typing import cast

import pyfuse3


def guard_reads(descriptor: int) -> None:
    """Install the guard; after `pyfuse3.init`, before `pyfuse3.main`."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    wait = cast(Callable[[], Awaitable[bool]], vars(pyfuse3)["_wait_fuse_readable"])

    async def wait_and_look_again() -> bool:
        while await wait():
            if poll.poll(0):
                return True
        return False

    setattr(pyfuse3, "_wait_fuse_readable", wait_and_look_again)  # noqa: B010
