"""What the views' queries are compared with: find and du, plocate, an index of databases.

All of them on a local tree of the same names, sizes, owners and times, made for them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.views.directory_index import Index, build
from bench.views.timing import timed
from bench.views.tree import directory_paths, nodes

SLOW_QUERIES = 5  # of those that walk everything
NS = 1_000_000_000


class LocalTree:
    """The tree on the local disk, sparse files."""

    def __init__(self, directory: Path, files: int) -> None:
        self.path = directory
        began = time.monotonic()
        paths = [directory / one for one in directory_paths(files)]
        now_ns = time.time_ns()
        for path in paths:
            path.mkdir(parents=True, exist_ok=True)
        for node in nodes(files):
            if node.is_directory:
                continue
            name = os.fsencode(paths[node.parent]) + b"/" + node.name
            file = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644)
            os.ftruncate(file, node.size)
            if os.geteuid() == 0:
                os.fchown(file, node.uid, node.uid)
            at = now_ns - node.age_s * NS
            os.utime(file, ns=(at, at))
            os.close(file)
        self.made_s = time.monotonic() - began


def run(*words: str) -> None:
    """A program to its end; find and plocate end with 1 where nothing was found.

    Raises: RuntimeError: it failed.
    """
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode > 1 or done.stderr:
        raise RuntimeError(f"{words[0]}: {done.stderr.decode(errors='replace')[:300]}")


def find_and_du(top: Path, rare: Sequence[str], below: Sequence[str]) -> dict[str, Any]:
    """Milliseconds of find and du below `top`; the caches are warm from a first round."""
    run("find", str(top), "-name", "nothing")
    return {
        "find_rare": timed(rare[:SLOW_QUERIES], lambda name: run("find", str(top), "-name", name)),
        "du": timed(below, lambda path: run("du", "-s", "--apparent-size", str(top / path))),
        "du_root": timed([""], lambda _: run("du", "-s", "--apparent-size", str(top))),
    }


def plocate(top: Path, scratch: Path, rare: Sequence[str], parts: Sequence[str]) -> dict[str, Any]:
    """Debian's plocate on the tree; an empty answer if it is not installed."""
    updatedb = shutil.which("updatedb.plocate") or shutil.which("updatedb")
    if updatedb is None or shutil.which("plocate") is None:
        return {"missing": "apt-get install plocate"}
    database = str(scratch / "plocate.db")
    words = ("--require-visibility", "0", "--prunepaths", "", "--prunefs", "", "--prunenames", "")
    began = time.monotonic()
    run(updatedb, "--database-root", str(top), "--output", database, *words)
    built_s = time.monotonic() - began
    ask = ("plocate", "--database", database, "--basename", "--ignore-case")
    return {
        "build_s": round(built_s, 1),
        "find_rare": timed(rare, lambda name: run(*ask, name)),
        "substring": timed(parts, lambda part: run(*ask, "--limit", "100", part)),
    }


def databases(
    top: Path, scratch: Path, rare: Sequence[str], parts: Sequence[str], below: Sequence[str]
) -> dict[str, Any]:
    """The index of a database a directory."""
    workers = len(os.sched_getaffinity(0))
    began = time.monotonic()
    build(top, scratch / "databases", workers)
    built_s = time.monotonic() - began
    index = Index(scratch / "databases", workers)
    index.names("nothing")  # workers and caches are warm from here on
    asked: dict[str, tuple[Sequence[str], Callable[[str], object]]] = {
        "find_rare": (rare[:SLOW_QUERIES], index.names),
        "substring": (parts[:SLOW_QUERIES], lambda part: index.names(f"%{part}%")),
        "du": (below, index.du),
        "du_root": ([""], index.du),
        "top_20": ([""] * SLOW_QUERIES, lambda _: index.top(20)),
        "histogram": ([""] * SLOW_QUERIES, lambda _: index.sizes()),
    }
    try:
        found = {name: timed(arguments, ask) for name, (arguments, ask) in asked.items()}
    finally:
        index.close()
    return {"build_s": round(built_s, 1), **found}
