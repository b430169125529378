"""Random writes within a large file, and what they cost those who read it afterwards.

    python -m bench.randwrite [--minutes 10] [--targets local,ours] [--patterns plain,sync,...]

One process overwrites random blocks through a mount and reads as many back at once, comparing
each with what it wrote; it calls fsync once in a thousand writes. Afterwards every block is
compared, and the file is read from begin to end through a fresh mount, beside a file of the
same size that was written in one go: right after the writes, and again when nothing is being
brought together any more. All targets are up at the same time and take turns.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from bench.drivers import files, scattering, streaming
from bench.drivers.streaming import MIB
from bench.driving import Driver, DriverFailed
from bench.setting import (
    choose_targets,
    directory_option,
    end_on_signals,
    end_without_interruption,
    work_directory,
)
from bench.stage import SYNC_LIMIT_S
from bench.targets.commands import run
from bench.targets.ours import Ours
from bench.targets.target import Target, TargetFailed, Unavailable
from gfs.cluster.asking import cluster_status
from gfs.cluster.layout import Layout
from gfs.cluster.up import client_config

BLOCKS = {"plain": 8192, "sync": 4096, "direct": 4096, "mapped": 4096, "truncate": 8192}
LIMIT_S = 600.0  # of one step that should take seconds
LOOK_S = 10.0  # between looks at extents and space
GATHERED_S = 120.0  # waited for at most until the file is in few pieces
READS = 3


@dataclass
class Look:
    """What a target keeps of one file at a time."""

    at_s: float
    extents: int
    stored_mib: float  # by all chunk servers, of everything
    moved_mib: float  # written by relocation since the start, once each


@dataclass
class Outcome:
    """One pattern on one target."""

    target: str
    pattern: str
    told: dict[str, Any] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)
    read_mib_per_s: dict[str, float] = field(default_factory=dict)
    failed: str = ""


def look(target: Target, path: Path, since: float) -> Look | None:
    """Extents, space, relocation; None where a target has no such things."""
    if not isinstance(target, Ours):
        return None
    row = json.loads(target.command("stat", "--json", "--chunks", path))
    status = cluster_status(client_config(Layout(target.directory)))
    stored = sum(
        entry.stat().st_blocks * 512
        for entry in target.directory.rglob("chunkd*/**/*")
        if entry.is_file()
    )
    moved = status["relocation"]["moved_bytes_total"]
    return Look(time.monotonic() - since, len(row["chunks"]), stored / MIB, moved / MIB)


class Bench:
    """All patterns on all targets."""

    def __init__(self, targets: list[Target], size: int, seconds: float, scratch: Path) -> None:
        self._targets = targets
        self._size, self._seconds = size, seconds
        self._scratch = scratch

    def outcomes(self, patterns: list[str]) -> Iterator[Outcome]:
        """Each as it is there; one that fails says why."""
        for number, pattern in enumerate(patterns):
            turn = number % len(self._targets)
            for target in self._targets[turn:] + self._targets[:turn]:
                outcome = Outcome(target.name, pattern)
                try:
                    self._one(target, outcome)
                except (DriverFailed, TargetFailed, OSError) as error:
                    outcome.failed = str(error) or type(error).__name__
                yield outcome

    def _one(self, target: Target, outcome: Outcome) -> None:
        place = target.mounts()[0] / outcome.pattern
        self._call(files.make_directory, place)
        block = BLOCKS[outcome.pattern]
        for name in ("fresh", "written"):
            self._call(scattering.fill, place / name, self._size, block)
        run("sync", "-f", self._scratch, limit_s=SYNC_LIMIT_S)
        path = place / "written"
        began = time.monotonic()
        words = (path, self._size, block, self._seconds, outcome.pattern, 5)
        driver = Driver(scattering.work, *words)
        try:
            outcome.told = self._watch(driver, target, path, outcome.looks, began)
        finally:
            driver.close()
        self._read(target, place, outcome, "at once")
        self._wait_until_gathered(target, path, outcome.looks, began)
        self._read(target, place, outcome, "later")
        for name in ("fresh", "written"):
            self._call(streaming.discard, place / name)

    def _call(self, function: Any, *words: Any) -> Any:
        return Driver(function, *words).result(LIMIT_S)

    def _watch(
        self, driver: Driver, target: Target, path: Path, looks: list[Look], began: float
    ) -> dict[str, Any]:
        """The driver's result; looks while it works."""
        end = time.monotonic() + self._seconds
        while (left := end - time.monotonic()) > LOOK_S:
            time.sleep(min(LOOK_S, left))
            if (found := look(target, path, began)) is not None:
                looks.append(found)
        told: dict[str, Any] = driver.result(LIMIT_S)
        if (found := look(target, path, began)) is not None:
            looks.append(found)
        return told

    def _wait_until_gathered(
        self, target: Target, path: Path, looks: list[Look], began: float
    ) -> None:
        """Until two looks show the same."""
        deadline = time.monotonic() + GATHERED_S
        while looks and time.monotonic() < deadline:
            time.sleep(LOOK_S)
            found = look(target, path, began)
            assert found is not None
            looks.append(found)
            if (looks[-2].extents, looks[-2].moved_mib) == (found.extents, found.moved_mib):
                return

    def _read(self, target: Target, place: Path, outcome: Outcome, when: str) -> None:
        """MiB a second of both files, each time through a fresh mount; the best of some."""
        best: dict[str, float] = {}
        for number in range(READS):
            for name in ("fresh", "written") if number % 2 else ("written", "fresh"):
                target.remount()
                seconds = self._call(streaming.read, place / name, self._size)
                best[name] = min(seconds, best.get(name, seconds))
        for name, seconds in best.items():
            outcome.read_mib_per_s[f"{name}, {when}"] = self._size / MIB / seconds


def lines(outcome: Outcome) -> Iterator[str]:
    """The outcome for people."""
    head = f"{outcome.target:<10}{outcome.pattern:<9}"
    if outcome.failed:
        yield f"{head}failed: {outcome.failed}"
        return
    told = outcome.told
    yield (
        f"{head}{told['writes'] / told['seconds']:,.0f} writes/s with as many reads, "
        f"{told['mib_per_s']:.1f} MiB/s; ms p50/p99/longest: "
        + ", ".join(
            f"{name} {told[f'{name}_p50_ms']:.3g}/{told[f'{name}_p99_ms']:.3g}"
            f"/{told[f'{name}_p100_ms']:.3g}"
            for name in ("write", "read", "fsync")
        )
    )
    read = outcome.read_mib_per_s
    for when in ("at once", "later"):
        fresh, written = read[f"fresh, {when}"], read[f"written, {when}"]
        yield (
            f"{head}read {when}: {written:,.0f} MiB/s, a fresh file {fresh:,.0f} "
            f"({fresh / written:.2f} times as fast)"
        )
    if outcome.looks:
        yield f"{head}s: extents, MiB stored, MiB moved: " + "; ".join(
            f"{one.at_s:.0f}: {one.extents}, {one.stored_mib:.0f}, {one.moved_mib:.0f}"
            for one in outcome.looks
        )


@contextmanager
def started(names: str, work: Path) -> Iterator[list[Target]]:
    """Targets that can run here, up; down at the end, also of a run that is told to end."""
    end_on_signals()
    targets: list[Target] = []
    try:
        for kind in choose_targets(names):
            target = kind(work / kind.name)
            try:
                target.check()
                targets.append(target)
                target.start()
            except (Unavailable, TargetFailed) as error:
                raise click.ClickException(f"{kind.name}: {error}") from None
        yield targets
    finally:
        end_without_interruption()
        for target in targets:
            target.stop()


@click.command(help=__doc__)
@click.option("--minutes", default=10.0, show_default=True, help="Of each pattern and target.")
@click.option("--mib", default=256, show_default=True, help="Size of the file.")
@click.option("--targets", default="local,ours", show_default=True, help="As of python -m bench.")
@click.option("--patterns", default="plain", show_default=True, help=f"Of {', '.join(BLOCKS)}.")
@directory_option
def main(minutes: float, mib: int, targets: str, patterns: str, directory: Path) -> None:
    wanted = patterns.split(",")
    if unknown := set(wanted) - BLOCKS.keys():
        raise click.UsageError(f"no pattern {', '.join(sorted(unknown))}")
    with (
        work_directory(directory, 1.0, len(targets.split(","))) as work,
        started(targets, work) as up,
    ):
        for outcome in Bench(up, mib * MIB, minutes * 60, work).outcomes(wanted):
            for line in lines(outcome):
                click.echo(line)


if __name__ == "__main__":
    main()
