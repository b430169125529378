"""Whether any of the processes grows with the operations that it has served.

    python -m bench.soak [--operations N] [--minutes M]

Starts a local cluster with two mounts and views, and drives both mounts with a mix of calls
(create, write, read, stat, rename, unlink, append, list, mkdir, link, attributes, truncate) on a
number of files that stays the same. After every tenth of the operations both drivers pause, and the
memory of each process is printed: what it has of its own (anonymous pages), in MiB; mapped files
are the page cache's. The first three tenths are warm-up, in which caches fill. The verdict is the
slope of the rest (Theil and Sen: the median of the slopes between all pairs, which one odd sample
does not move). The databases of the views keep pages up to a bound that so few operations do not
reach; below it they are said to fill, not to grow.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import click

from bench.drivers import soak
from bench.driving import Driver
from bench.setting import directory_option, local_cluster
from gfs.cluster.layout import Layout
from gfs.cluster.processes import Registry
from gfs.cluster.up import Wishes, up
from projections.storage import CACHE_BYTES

SAMPLES = 10
WARM_SAMPLES = 3
LIMIT_S = 24 * 3600.0
SETTLE_S = 2.0  # what a flush or a garbage collection still has to do
GROWS_BYTES = 64.0  # an operation: 64 MB in a million
NOISE_BYTES = 4 << 20  # pages that an allocator keeps differ by so much anyway
MIB = 1 << 20
DUCKDB_BYTES = 128 * MIB  # the bound of analytics here
ROOM_BYTES = {  # what a database may keep in memory, and an allocator a quarter more
    "projections-analytics": DUCKDB_BYTES * 5 // 4,
    "projections-search": CACHE_BYTES * 5 // 4,
}

Samples = list[tuple[int, dict[str, int]]]  # operations done, and bytes by process


def memory(layout: Layout) -> dict[str, int]:
    """Anonymous bytes of each process of the cluster, and of each that it has started."""
    found: dict[str, int] = {}
    for name, process in sorted(Registry(layout).alive().items()):
        found[name] = _anonymous(process.pid)
        for child in _children(process.pid):
            found[f"{name}'s {_role(child)}"] = _anonymous(child)
    return found


def _anonymous(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for one in threads for child in (one / "children").read_text().split()]


def _role(pid: int) -> str:
    """The module that a child runs."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    modules = [after for word, after in itertools.pairwise(words) if word == "-m"]
    return modules[0].rpartition(".")[2] if modules else Path(words[0]).name


def slope(points: Sequence[tuple[int, int]]) -> float:
    """Bytes an operation: the median of the slopes between all pairs of points."""
    pairs = itertools.combinations(points, 2)
    slopes = [(second[1] - first[1]) / (second[0] - first[0]) for first, second in pairs]
    return statistics.median(slopes) if slopes else 0.0


def verdict(samples: Samples) -> tuple[list[str], bool]:
    """A line for each process, and whether none of them grows."""
    lines, sound = [], True
    warm = samples[WARM_SAMPLES:] if len(samples) > WARM_SAMPLES + 1 else samples
    for name in samples[-1][1]:
        points = [(done, found[name]) for done, found in warm if name in found]
        each = slope(points)
        more = points[-1][1] - points[0][1]
        what = ""
        if each > GROWS_BYTES and more > NOISE_BYTES:
            room = samples[0][1].get(name, 0) + ROOM_BYTES.get(name, 0)
            what = ": fills its cache" if points[-1][1] < room else ": GROWS"
        sound = sound and "GROWS" not in what
        lines.append(
            f"{name:<24} {more / MIB:+8.1f} MiB after warm-up, {each:+8.1f} bytes a call{what}"
        )
    return lines, sound


@click.command(help=__doc__)
@click.option("--operations", default=1_000_000, show_default=True, type=click.IntRange(1000))
@click.option("--minutes", type=click.FloatRange(0.1), help="End after so many, done or not.")
@directory_option
@click.option("--seed", default=1, show_default=True)
def main(operations: int, minutes: float | None, directory: Path, seed: int) -> None:
    with local_cluster(directory) as layout:
        config = layout.directory.with_suffix(".toml")
        config.write_text(f"[projections]\nquery_memory_bytes = {DUCKDB_BYTES}\n")
        up(layout, Wishes(chunkservers=3, mounts=2, goal=3, config=config), click.echo)
        until_s = time.monotonic() + (minutes * 60 if minutes else LIMIT_S)
        samples = _drive(layout, operations, until_s, seed)
    lines, sound = verdict(samples)
    for line in lines:
        click.echo(line)
    click.echo(f"{samples[-1][0]} operations: " + ("nothing grows" if sound else "something grows"))
    raise SystemExit(0 if sound else 1)


def _drive(layout: Layout, operations: int, until_s: float, seed: int) -> Samples:
    """Both drivers to their end, or until it is `until_s`; what was sampled at each pause."""
    places = [[layout.mountpoint(at) / f"soak{n}" for n in (1, 2)] for at in (1, 2)]
    for one in (1, 2):
        (layout.mountpoint(1) / f"soak{one}").mkdir()
        _keep_no_trash(layout.mountpoint(1) / f"soak{one}")
    each = operations // 2
    drivers = [
        Driver(soak.work, places[0][0], places[0][1], each, SAMPLES, seed),
        Driver(soak.work, places[1][1], places[1][0], each, SAMPLES, seed + 1),
    ]
    samples: Samples = []
    began = time.monotonic()
    try:
        while True:
            done = sum(driver.wait_note(LIMIT_S) for driver in drivers)
            seconds = time.monotonic() - began
            time.sleep(SETTLE_S)
            before = samples[-1][0] if samples else 0
            samples.append((done, memory(layout)))
            _print(samples, (done - before) / seconds)
            began = time.monotonic()
            if len(samples) > SAMPLES:
                break
            if began > until_s:
                click.echo("the time is over")
                break
            for driver in drivers:
                driver.go()
    finally:
        for driver in drivers:
            driver.close()
    return samples


def _keep_no_trash(place: Path) -> None:
    """Else files older than ten minutes would stay, and the state grow as it should."""
    os.setxattr(place, "user.gfs.trash", b"0")


def _print(samples: Samples, rate: float) -> None:
    done, found = samples[-1]
    words = ", ".join(f"{name} {size / MIB:.1f}" for name, size in found.items())
    click.echo(f"{done:>9} operations, {rate:.0f} a second: {words}")


if __name__ == "__main__":
    main()
