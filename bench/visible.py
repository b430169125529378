"""How soon, and whether at all, a change on one mount is seen on another.

    python -m bench.visible [--targets local,ours] [--changes 200] [--alternating 100000]

First the time from the return of a call on one mount until another process, which looks all the
time, sees its effect on the other: 50th and 99th percentile. Then `tail` on one mount behind a
program that appends on the other. With --alternating, changes of all kinds in turn by two
mounts, each looked at by the very next call on the other: how many answers were stale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bench.drivers import alternating, files, following, visibility
from bench.driving import Driver, DriverFailed
from bench.randwrite import started
from bench.setting import directory_option, work_directory
from bench.targets.target import Target, TargetFailed
from gfs.cli.output import counting

LIMIT_S = 600.0
ALTERNATING_S = 24 * 3600.0
TAILS = {
    "tail -f": (["-f"], False),
    "tail -s 0.1 -f": (["-s", "0.1", "-f"], False),
    "tail -s 0.1 -F, rotated": (["-s", "0.1", "-F"], True),
}
LINES = 60


def percentiles(delays: list[float]) -> str:
    """The 50th, the 99th and the longest of sorted seconds, in milliseconds."""
    at = (delays[int((len(delays) - 1) * share)] * 1e3 for share in (0.5, 0.99, 1.0))
    return " / ".join(f"{value:8.2f}" for value in at)


def _places(target: Target, name: str) -> tuple[Path, Path]:
    first, second = (mount / name for mount in target.mounts())
    Driver(files.make_directory, first).result(LIMIT_S)
    return first, second


def _say(target: Target, what: str, words: str) -> None:
    click.echo(f"{target.name:<10} {what:<26} {words}")


def measure(target: Target, changes: int) -> None:
    """Each kind of change, then each tail."""
    here, there = _places(target, "visible")
    for kind, name in visibility.NAMES.items():
        words = (kind, here, there, changes)
        delays = Driver(visibility.measure, *words).result(LIMIT_S)
        _say(target, name, f"{percentiles(delays)} ms")
    for name, (options, rotate) in TAILS.items():
        here, there = _places(target, f"tail{len(name)}")
        delays = Driver(following.follow, here, there, options, LINES, rotate).result(LIMIT_S)
        _say(target, name, f"{percentiles(delays)} ms")


def alternate(target: Target, count: int, seed: int) -> None:
    """All kinds of changes by both mounts in turn."""
    first, second = _places(target, "alternating")
    words = (first, second, count, seed)
    done = 0
    with counting("changes", count) as advance:

        def on_note(number: int) -> None:
            nonlocal done
            advance(number - done)
            done = number

        driver = Driver(alternating.alternate, *words)
        told: dict[str, Any] = driver.result(ALTERNATING_S, on_note)
    kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(told["changes"].items()))
    rate = count / told["seconds"]
    _say(target, f"{count} changes", f"{told['looks']} looks, {told['stale']} stale, {rate:.0f}/s")
    _say(target, "", kinds)
    for sample in told["samples"]:
        _say(target, "stale", sample)


@click.command(help=__doc__)
@click.option("--targets", default="local,ours", show_default=True, help="As of python -m bench.")
@click.option("--changes", default=200, show_default=True, help="Of each kind; 0: none.")
@click.option("--alternating", default=0, show_default=True, help="Changes by two mounts in turn.")
@click.option("--seed", default=1, show_default=True, help="Of the alternating changes.")
@directory_option
def main(targets: str, changes: int, alternating: int, seed: int, directory: Path) -> None:
    failed = False
    with (
        work_directory(directory, 0.1, len(targets.split(","))) as work,
        started(targets, work) as up,
    ):
        if changes:
            click.echo(f"{'':<38}p50 / p99 / longest")
        for target in up:
            try:
                if changes:
                    measure(target, changes)
                if alternating:
                    alternate(target, alternating, seed)
            except (DriverFailed, TargetFailed) as error:
                failed = True
                _say(target, "failed", str(error))
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
