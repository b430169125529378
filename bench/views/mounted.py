"""find and du on a mount of the same master, on a part of the tree that is small enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.views.peers import run
from bench.views.timing import timed
from bench.views.tree import directory_paths, nodes

FILES_WANTED = 20_000  # in the part; find asks the mount for each directory of it


def part_of(files: int) -> tuple[str, int]:
    """A directory below the top with at most about FILES_WANTED files, and how many."""
    paths = directory_paths(files)
    above: list[int] = []
    inside: list[int] = []
    for node in nodes(files):
        if node.is_directory:
            above.append(node.parent)
            inside.append(0)
        else:
            inside[node.parent] += 1
    for number in range(len(above) - 1, 0, -1):  # a parent comes before its children
        inside[above[number]] += inside[number]
    fitting = [number for number, count in enumerate(inside) if count <= FILES_WANTED]
    best = max(fitting, key=lambda number: inside[number], default=0)
    return paths[best], inside[best]


def find_and_du(mountpoint: Path, files: int, names: list[str]) -> dict[str, Any]:
    """Milliseconds, and the number of files it was done with."""
    part, count = part_of(files)
    top = str(mountpoint / part)
    return {
        "files": count,
        "find_first": timed(names[:1], lambda name: run("find", top, "-name", name)),
        "find": timed(names[:3], lambda name: run("find", top, "-name", name)),
        "du_first": timed([""], lambda _: run("du", "-s", "--apparent-size", top)),
        "du": timed([""] * 3, lambda _: run("du", "-s", "--apparent-size", top)),
    }
