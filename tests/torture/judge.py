"""From what workers saw and what was injected: what no fault excuses, and the stalls.

A call may fail if its own mount was killed, hung or cut off near that time: a mount
that is dead answers nothing, and one that was silent beyond its lease has lost its session.
Failures of servers excuse no failed call: they are a pause.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from tests.torture.expected import Expected, Slow, Trouble, Written
from tests.torture.injector import Done, group
from tests.torture.schedule import CUTS, Kind

BEFORE_S = 15.0  # a mount that was broken may still be coming back, or take up its session
WAITING_S = 20.0  # bytes that were closed without fsync may wait so long while things break
AFTER_S = 4.0  # a fault is felt until everybody has noticed its end
NAMES = {Kind.KILL: "killed", Kind.HANG: "hung", Kind.FULL: "disk full", Kind.FLIP: "bit flipped"}


def name_of(done: Done) -> str:
    """A fault as figures name it."""
    what = "cut off" if done.kind in CUTS else NAMES[done.kind]
    return f"{group(done.target)} {what}"


def mount_was_broken(faults: Iterable[Done], mount: int, start: float, end: float) -> bool:
    """Whether that mount itself was broken within this time."""
    return any(
        fault.hits_mount(mount) and fault.start <= end and fault.end + BEFORE_S >= start
        for fault in faults
    )


def unexcused(known: Expected, faults: list[Done]) -> list[str]:
    """Failed calls and wrong answers that nothing done to their mount explains."""
    return [
        _text(trouble)
        for trouble in [*known.failed, *known.wrong]
        if not mount_was_broken(faults, trouble.mount, trouble.at, trouble.at + 1.0)
    ]


def excused_by_loss(written: Written, faults: list[Done]) -> bool:
    """Whether bytes that were only closed may be gone with their mount."""
    if written.mount == 0:
        return False
    until = written.closed_at + WAITING_S
    return mount_was_broken(faults, written.mount, written.closed_at, until)


def stalls(slow: Iterable[Slow], faults: list[Done]) -> dict[str, float]:
    """Longest call by the one kind of fault that was felt in it; of several: "several at once".

    Calls through a mount that was broken itself do not count: they wait for that mount.
    """
    longest: dict[str, float] = {}
    for call in slow:
        end = call.start + call.took_s
        felt = [one for one in faults if one.start <= end and one.end + AFTER_S >= call.start]
        if any(fault.hits_mount(call.mount) for fault in felt):
            continue
        kinds = {name_of(fault) for fault in felt}
        name = "several at once" if len(kinds) > 1 else next(iter(kinds), "nothing")
        longest[name] = max(longest.get(name, 0.0), call.took_s)
    return dict(sorted(longest.items()))


def _text(trouble: Trouble) -> str:
    number = trouble.errno
    why = "" if number == 0 else f": {errno.errorcode.get(number, number)} {os.strerror(number)}"
    return f"mount{trouble.mount} at {trouble.at:.2f}: {trouble.what}{why}"
