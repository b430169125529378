"""Who may begin an epoch: what a majority of the chunk servers must have said before.

A master's log is the newest if no chunk server of a majority has heard of a later
record: of a higher epoch, or of the same epoch at a higher position. Any two majorities
share a server, and a master answers mutations only while it is heard by one; so what
was answered is known to whoever asks a majority. The same rule as Raft's for votes, the
chunk servers being the voters. Source: GFS §5.1.3, §2.6.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SILENCE_S = 5.0  # without heartbeats of a majority a master answers no mutation
TAKEOVER_S = 6.0  # a new master waits for so long before it does: 1 s for clocks and queues


@dataclass(frozen=True)
class Heard:
    """What one chunk server knows of masters.

    Attributes:
      epoch: highest it has promised or obeyed.
      heard: (epoch, position) of the newest committed record it was told of.
    """

    epoch: int
    heard: tuple[int, int]


def majority(servers: int) -> int:
    """How many of so many are more than half; at least one."""
    return servers // 2 + 1


def missing(own: tuple[int, int], said: Iterable[Heard]) -> int:
    """How many committed positions a log that ends with `own` (epoch, position) lacks.

    A log of an older history lacks at least the record that began the newer epoch.
    """
    newest = max((one.heard for one in said), default=(0, 0))
    if newest <= own:
        return 0
    return max(1, newest[1] - own[1])


def epoch_to_begin(own_epoch: int, said: Iterable[Heard]) -> int:
    """One that no server of the majority has promised to anybody."""
    return max([own_epoch, *(one.epoch for one in said)]) + 1


def wait_s(led_epoch: int, said: Iterable[Heard]) -> float:
    """How long after the promises until mutations may be answered.

    None if the last master heard was this very one (it led `led_epoch`), which has ended.
    """
    return 0.0 if max((one.epoch for one in said), default=0) <= led_epoch else TAKEOVER_S


def hears_majority(known: Iterable[int], heard_s: Mapping[int, float], now_s: float) -> bool:
    """May a master that others could supersede still answer mutations?

    Args:
      known: chunk servers in the state; without any nobody could be promoted.
      heard_s: when each was last heard; absent ones never were.
    """
    servers = set(known)
    lately = sum(now_s - heard_s.get(server, float("-inf")) <= SILENCE_S for server in servers)
    return not servers or lately >= majority(len(servers))
