"""Questions to the search view over a million files: the milliseconds each takes.

    python -m bench.search [--files 1000000] [--directory DIR]

The view's tables are filled directly, without a cluster or stream, through the view's
own code. Each question is asked as the HTTP handlers ask it, without HTTP around, seven
times on an open connection; shown are the best and the median.
"""

from __future__ import annotations

import argparse
import random
import stat
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
from starlette.requests import Request

from gfs import changes, findexpr, items
from gfs.changes import Cursor
from gfs.config import ProjectionsConfig
from gfs.findprogram import compiled
from gfs.findtests import Host
from projections.core.following import Batch
from projections.find_run import Question, Start, find
from projections.name_search import page_of, search_of
from projections.search_queries import largest, sums_at
from projections.search_view import SearchView
from projections.sql_guard import Readers

TIMES = 7
FAN = 50  # files of a directory
LINES = 20_000  # of a batch
WORDS = ("alpha", "beta", "gamma", "delta", "report", "capture", "naïve", "Σίσυφος", "invoice")
SUFFIXES = ("log", "txt", "py", "tar.gz", "JPG", "data", "parquet")
NOW_NS = 1_790_000_000 * 10**9


def events(files: int, rng: random.Random) -> Iterator[changes.Event]:
    """A tree like a home of many: directories of fifty files, three levels deep."""
    ino = 10

    def entry(parent: int, name: str, kind: int, **values: Any) -> list[changes.Event]:
        when = NOW_NS - rng.randrange(10**17)
        owner = rng.randrange(1000, 1040)
        inode = items.Inode(kind | 0o644, owner, 100, 1, 0, when, when, when, **values)
        if kind == stat.S_IFREG:
            inode.size = inode.stored = int(rng.lognormvariate(9, 3))
        dirent = items.Dirent(ino, kind)
        return [
            changes.snapshot_event(items.DIRENTS, (parent, name.encode()), dirent, "1-1"),
            changes.snapshot_event(items.INODES, (ino,), inode, "1-1"),
        ]

    root = items.Inode(stat.S_IFDIR | 0o755, 0, 0, 2, 0, NOW_NS, NOW_NS, NOW_NS)
    for number in (1, 2):
        yield changes.snapshot_event(items.INODES, (number,), root, "1-1")
    parents = [1]
    for number in range(files // FAN):
        ino += 1
        parent = parents[number // FAN]
        parents.append(ino)
        yield from entry(parent, f"{rng.choice(WORDS)}-{number:05}", stat.S_IFDIR)
        directory = ino
        for at in range(FAN):
            ino += 1
            name = f"{rng.choice(WORDS)}-{number}-{at}.{rng.choice(SUFFIXES)}"
            yield from entry(directory, name, stat.S_IFREG)
    ino += 1
    yield from entry(parents[-1], "needle-in-the-hay.bin", stat.S_IFREG)


def fill(directory: Path, files: int) -> Path:
    """A view's file with so many files."""
    view = SearchView(ProjectionsConfig(data_dir=str(directory)))
    path = directory / "search.db"
    store = view.open_store(path, None)
    some: list[changes.Event] = []

    def write() -> None:
        batch = Batch(changes.decode_lines(changes.encode(some)), Cursor(1, 1), snapshot=True)
        store.write(lambda connection: view.apply(batch, connection), batch.cursor)
        some.clear()

    for event in events(files, random.Random(1)):
        some.append(event)
        if len(some) >= LINES:
            write()
    write()
    store.close()
    return path


def questions(deep: str) -> dict[str, Callable[[apsw.Connection], Any]]:
    """What is asked, by name."""

    def words(text: str) -> Callable[[apsw.Connection], Any]:
        told = findexpr.parse(text.split(), Host(NOW_NS))
        program = compiled(told)
        question = Question(program.where, program.prune, mindepth=told.mindepth)
        return lambda connection: list(find(connection, [Start(told.paths[0])], question))

    def search(query: str) -> Callable[[apsw.Connection], Any]:
        asked = search_of(Request({"type": "http", "query_string": query.encode(), "headers": []}))
        return lambda connection: page_of(connection, asked, 1)[0]

    return {
        "search, first page of a common text": search("q=report"),
        "search, first page of a rare text": search("q=needle"),
        "search, two letters, common": search("q=re"),
        "search --glob, rare": search("q=*n-the-h*.bin&glob=1"),
        "search --regex, rare": search("regex=need.e-in-the-(hay|straw)"),
        "search --ext, common": search("ext=parquet"),
        "search --ext, rare": search("ext=bin"),
        "search, text and owner and size": search("q=capture&uid=1003&size_min=100000000"),
        "find of a rare name": words("/ -name needle*"),
        "find of either of two names": words("/ -name needle* -o -iname *-19999-4?.JPG"),
        "find -path, rare": words("/ -path *needle-in*"),
        "find -path, a directory": words("/ -path */alpha-00777/*"),
        "find -regex, rare": words("/ -regex .*/needle-[a-z-]*\\.bin"),
        "find -inum": words("/ -inum 4711"),
        "find in a small tree": words(f"{deep} -type f -size +1k"),
        "find, everything by size": words("/ -size +1G"),
        "top 20": lambda connection: largest(connection, "/", 20),
        "top 20 of a tree": lambda connection: largest(connection, deep, 20),
        "du of the root": lambda connection: sums_at(connection, "/", 0, 1000),
        "du of a deep directory": lambda connection: sums_at(connection, deep, 0, 1000),
        "du -d 1 of the root": lambda connection: sums_at(connection, "/", 1, 1000),
    }


def main() -> None:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, help="keeps the view; one is used that is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.directory or Path(scratch)
        path = directory / "search.db"
        began = time.monotonic()
        if not path.exists():
            directory.mkdir(parents=True, exist_ok=True)
            fill(directory, options.files)
        print(f"{options.files:,} files, {path.stat().st_size / 1e6:,.0f} MB,"
              f" filled in {time.monotonic() - began:.0f} s\n")  # fmt: skip
        with Readers(path).reading(0, 600) as connection:
            deepest = "SELECT path FROM directories ORDER BY length(path) DESC, ino LIMIT 1"
            deep = connection.execute(deepest).get
            print(f"{'question':38} {'rows':>7} {'best ms':>9} {'median ms':>9}")
            for name, ask in questions(deep).items():
                took = []
                for _ in range(TIMES):
                    start = time.perf_counter()
                    rows = ask(connection)
                    took.append((time.perf_counter() - start) * 1000)
                median = statistics.median(took)
                print(f"{name:38} {len(rows):>7} {min(took):>9.2f} {median:>9.2f}")


if __name__ == "__main__":
    main()
