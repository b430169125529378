"""What a workload is given: directories on both mounts, drivers, the scale, a place for figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from bench import driving
from bench.drivers import files, shell
from bench.targets.commands import run
from bench.targets.target import Target

LIMIT_MIN_S = 120.0
LIMIT_PER_SCALE_S = 900.0
SYNC_LIMIT_S = 300.0


class Better(Enum):
    """Which way a figure is better."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    name: str
    unit: str
    better: Better


@dataclass
class Stage:
    """One workload on one target in one round."""

    target: Target
    workload: str
    round: int
    scale: float
    scratch: Path  # on the local disk
    values: dict[str, float] = field(default_factory=dict)

    @property
    def limit_s(self) -> float:
        """Time that any one step may take; a slow peer needs minutes, a hung one all."""
        return max(LIMIT_MIN_S, LIMIT_PER_SCALE_S * self.scale)

    def scaled(self, amount: int, least: int) -> int:
        """`amount` at this scale, but never so small that it means nothing."""
        return max(least, round(amount * self.scale))

    def place(self, mount: int = 0) -> Path:
        """This stage's directory as the given mount shows it."""
        return self.target.mounts()[mount] / f"{self.workload}-{self.round}"

    def make_place(self) -> Path:
        """Make this stage's directory."""
        self.call(files.make_directory, self.place())
        return self.place()

    def record(self, name: str, value: float) -> None:
        """Report a figure of this round."""
        self.values[name] = value

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a driver to its end. Raises DriverFailed."""
        return driving.call(function, *arguments, limit_s=self.limit_s)

    def run(self, *argv: str | Path, directory: Path) -> float:
        """Seconds of a program started in `directory`."""
        return float(self.call(shell.run, [str(word) for word in argv], directory))

    def settle(self) -> None:
        """Write back what earlier work left dirty, so that nobody pays for another."""
        run("sync", "-f", self.scratch, limit_s=SYNC_LIMIT_S)


@dataclass(frozen=True)
class Workload:
    """A kind of work and the figures that it records."""

    name: str
    summary: str
    figures: tuple[Figure, ...]
    run: Callable[[Stage], None]
    once: bool = False  # the same in every round, or too slow to repeat


def median(samples: Iterable[float]) -> float:
    """Median of the rounds."""
    return statistics.median(samples)
