"""Which faults happen when: drawn from a seed before anything starts.

The schedule keeps to what the cluster is built to survive: at most two chunk servers are
away at a time, and of what can lose bytes (flipped bits) never two copies of one chunk.
Everything else may coincide: a master killed while a mount hangs and a link is cut.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

FIRST_S, GAP_S = 3.0, (2.5, 7.5)  # of one fault to the next
AWAY_MAX = 2  # chunk servers at a time
SHORT_S = 20.0  # a run so short has each kind that its time allows, in order


class Kind(StrEnum):
    """What is done to a process, its link, its disk or its files."""

    KILL = "kill"  # SIGKILL; started again later
    HANG = "hang"  # SIGSTOP, then SIGCONT
    CUT = "cut"  # off the net
    DEAF = "deaf"  # what others send it is lost
    MUTE = "mute"  # what it sends is lost
    APART = "apart"  # what it sends to one other chunk server is lost
    FULL = "full"  # its disk takes nothing more
    FLIP = "flip"  # a byte of a sealed replica changes


CUTS = (Kind.CUT, Kind.DEAF, Kind.MUTE, Kind.APART)
WEIGHTS = {
    Kind.KILL: 58, Kind.HANG: 18, Kind.CUT: 5, Kind.DEAF: 3, Kind.MUTE: 3, Kind.APART: 5,
    Kind.FULL: 3, Kind.FLIP: 5,
}  # fmt: skip
# How long it lasts; a killed process is started again after this.
LASTS_S = {
    Kind.KILL: (0.1, 4.0), Kind.HANG: (0.5, 6.0), Kind.CUT: (1.0, 8.0), Kind.DEAF: (1.0, 8.0),
    Kind.MUTE: (1.0, 8.0), Kind.APART: (2.0, 10.0), Kind.FULL: (5.0, 12.0), Kind.FLIP: (0.0, 0.0),
}  # fmt: skip
LONG_S = (14.0, 22.0)  # now and then a server stays away for so long that its chunks are copied


@dataclass(frozen=True)
class Fault:
    """One fault; times in seconds from the start of the run.

    Attributes:
      other: the chunk server that no longer hears `target`, for APART.
    """

    at_s: float
    kind: Kind
    target: str
    lasts_s: float
    other: str = ""

    @property
    def until_s(self) -> float:
        return self.at_s + self.lasts_s


@dataclass(frozen=True)
class Field:
    """What there is to break.

    Attributes:
      beside: processes that follow and nobody waits for: views, a shadow master.
      small_disk: the chunk server whose disk can be filled, or "".
      links: whether links can be cut.
    """

    chunkservers: int
    mounts: int
    beside: tuple[str, ...] = ()
    small_disk: str = ""
    links: bool = True

    def servers(self) -> list[str]:
        return [f"chunkd{number}" for number in range(1, self.chunkservers + 1)]

    def kinds(self) -> list[Kind]:
        left_out = (() if self.links else CUTS) + (() if self.small_disk else (Kind.FULL,))
        return [kind for kind in Kind if kind not in left_out]


def draw(seed: int, length_s: float, field: Field) -> list[Fault]:
    """The faults of a run, by time; the same for the same arguments.

    Runs of a minute and more have a full disk at least once.
    """
    rng = random.Random(seed)
    drawn: list[Fault] = []
    at_s = FIRST_S
    for kind in _first_kinds(field, length_s):
        drawn.append(_fault(rng, kind, at_s, drawn, field))
        at_s += rng.uniform(*GAP_S)
    weights = [WEIGHTS[kind] for kind in field.kinds()]
    while at_s < length_s:
        kind = rng.choices(field.kinds(), weights)[0]
        drawn.append(_fault(rng, kind, at_s, drawn, field))
        at_s += rng.uniform(*GAP_S)
    return [fault for fault in drawn if fault.at_s < length_s]


def _first_kinds(field: Field, length_s: float) -> list[Kind]:
    """Kinds that are rare, so that they surely happen."""
    wanted = [Kind.KILL, Kind.HANG, Kind.APART]
    if length_s >= SHORT_S:
        wanted += [Kind.FULL, Kind.FLIP, Kind.CUT]
    return [kind for kind in wanted if kind in field.kinds()]


def _fault(rng: random.Random, kind: Kind, at_s: float, before: list[Fault], field: Field) -> Fault:
    lasts_s = rng.uniform(*LASTS_S[kind])
    target = _target(rng, kind, field)
    away = {f.target for f in before if f.until_s + 3.0 > at_s and f.target.startswith("chunkd")}
    if target.startswith("chunkd") and target not in away and len(away) >= AWAY_MAX:
        target = rng.choice(sorted(away))
    if kind is Kind.FULL:
        target = field.small_disk
    if kind is Kind.KILL and target.startswith("chunkd") and rng.random() < 0.1:
        lasts_s = rng.uniform(*LONG_S)
    other = ""
    if kind is Kind.APART:
        other = rng.choice([name for name in field.servers() if name != target])
    return Fault(round(at_s, 2), kind, target, round(lasts_s, 2), other)


def _target(rng: random.Random, kind: Kind, field: Field) -> str:
    if kind in (Kind.APART, Kind.FLIP):
        return rng.choice(field.servers())
    roll = rng.random()
    if kind in (Kind.KILL, Kind.HANG) and roll < 0.1 and field.beside:
        return rng.choice(field.beside)
    if roll < 0.28:
        return "master"
    if roll < 0.43:
        return f"mount{rng.randint(1, field.mounts)}"
    return rng.choice(field.servers())
