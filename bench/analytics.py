"""The analytics view over a million files, in one process: what questions and events cost.

    python -m bench.analytics [--files 1000000] [--directory DIR] [--mutations 60000]

The view is filled through its own code with the tree of `bench.views.tree`; events are those
of `bench.events`, read, put into batches and written as the view's process does it. There is no
cluster, stream or HTTP. Shown is processor time of all threads, which a busy machine moves
least: of questions the best and the median, of events the best of some runs, each into a view
of its own: an empty one, and a copy of the full one.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import stat
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from starlette.requests import Request

from bench.events import Workload
from bench.views.tree import nodes
from gfs import changes, items
from gfs.changes import START, Cursor
from gfs.config import ProjectionsConfig
from gfs.running import GC_THRESHOLDS
from projections.analytics_places import Places
from projections.analytics_queries import report_of
from projections.analytics_reports import asked_report
from projections.analytics_view import AnalyticsView
from projections.core.following import Batch, Follower
from projections.storage import DuckStore
from projections.writer import Writer

TIMES = 9  # each question
RUNS = 5  # of the events
LINES = 20_000  # of a batch of the load
PIECE_BYTES = 1 << 16  # of the stream, as it comes over HTTP
FIRST_INO = 1 << 50  # above those of the events
NOW_NS = 1_790_000_000 * 10**9
QUESTIONS = {
    "20 largest": ("largest", "n=20"),
    "20 largest of the top directory": ("largest", "n=20&path=/data"),
    "20 newest": ("newest", "n=20"),
    "histogram of sizes": ("sizes", ""),
    "histogram of ages": ("ages", "of=used"),
    "histogram of extensions": ("extensions", ""),
    "the same of the top directory": ("extensions", "path=/data"),
    "inodes and bytes by extension": ("sums", "by=extension"),
    "inodes and bytes by owner": ("sums", "by=owner"),
}


def tree(files: int) -> Iterator[changes.Event]:
    """Items of root, trash and the tree, directories before what they hold."""
    root = items.Inode(stat.S_IFDIR | 0o755, 0, 0, 2, 0, NOW_NS, NOW_NS, NOW_NS)
    for number in (1, 2):
        yield changes.snapshot_event(items.INODES, (number,), root, "1-1")
    directories: list[int] = []
    for number, node in enumerate(nodes(files)):
        ino = FIRST_INO + number
        parent = directories[node.parent] if node.parent >= 0 else 1
        if node.is_directory:
            directories.append(ino)
        when = NOW_NS - node.age_s * 10**9
        mode = stat.S_IFDIR | 0o755 if node.is_directory else stat.S_IFREG | 0o644
        size, links = max(node.size, 0), 2 if node.is_directory else 1
        inode = items.Inode(mode, node.uid, node.uid, links, size, when, when, NOW_NS)
        inode.stored, inode.created_ns, inode.parent = size, NOW_NS, parent
        dirent = items.Dirent(ino, stat.S_IFMT(mode))
        yield changes.snapshot_event(items.DIRENTS, (parent, node.name), dirent, "1-1")
        yield changes.snapshot_event(items.INODES, (ino,), inode, "1-1")


def fill(path: Path, files: int) -> float:
    """Make a view of the tree at `path`; microseconds of processor time an item."""
    view = AnalyticsView(ProjectionsConfig(data_dir=str(path.parent)))
    spent, count = 0.0, 0
    some: list[changes.Event] = []
    with closing(view.open_store(path, None)) as store:

        def write(cursor: Cursor) -> None:
            nonlocal spent
            text = changes.encode(some)
            some.clear()
            began = time.process_time()
            batch = Batch(changes.decode_lines(text), cursor, snapshot=True)
            store.write(lambda connection: view.apply(batch, connection), cursor)
            spent += time.process_time() - began

        for event in tree(files):
            some.append(event)
            count += 1
            if len(some) >= LINES:
                write(START)
        write(START)
        write(Cursor(1, 0))
    return spent / count * 1e6


def answers(path: Path) -> Iterator[tuple[str, int, list[float]]]:
    """Of each question its name, the rows of its answer and milliseconds, each time it was put."""
    view = AnalyticsView(ProjectionsConfig(data_dir=str(path.parent)))
    with closing(view.open_store(path, None)) as store:
        assert isinstance(store, DuckStore)
        places = Places()
        for name, (report, query) in QUESTIONS.items():
            scope = {"type": "http", "query_string": query.encode(), "headers": []}
            asked = asked_report(Request(scope), report)
            took = []
            for _ in range(TIMES):
                began = time.process_time()
                with store.reader() as connection:
                    connection.execute("BEGIN TRANSACTION READ ONLY")
                    found = report_of(connection, asked, 10_000, places)
                    connection.execute("ROLLBACK")
                took.append((time.process_time() - began) * 1e3)
            yield name, len(found.rows), took


def stream_of(mutations: int) -> tuple[bytes, int]:
    """What the stream would send for so many, and how many events that are."""
    workload = Workload()
    text, previous, count = bytearray(), "1-0", 0
    for record in (workload.step() for _ in range(mutations)):
        found = changes.events_of(record)
        previous = changes.chain(found, previous)
        text += changes.encode(found)
        count += len(found)
    return bytes(text), count


def follow(text: bytes, path: Path, *, history: bool) -> float:
    """Seconds of processor time to bring the view at `path` to the end of the stream."""
    config = ProjectionsConfig(data_dir=str(path.parent))
    view = AnalyticsView(config)
    past = path.with_name("analytics-history.duckdb") if history else None
    with closing(view.open_store(path, past)) as store:
        writer = Writer(view, config, store)
        follower = Follower(Cursor(1, 0))
        began = time.process_time()
        at = 0
        while at < len(text):
            end = text.find(b"\n", at + PIECE_BYTES) + 1 or len(text)
            follower.take(changes.decode_lines(text[at:end]))
            at = end
            if follower.pending >= config.batch_events or at == len(text):
                while (batch := follower.batch(config.batch_events)) is not None:
                    writer.write(batch)
        if history:
            writer.write_history()
        return time.process_time() - began


def events(full: Path | None, text: bytes, *, history: bool) -> float:
    """The least of several runs of `follow`, each into a view of its own."""
    took = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
            path = Path(scratch) / "analytics.duckdb"
            if full is not None:
                shutil.copy(full, path)
            took.append(follow(text, path, history=history))
    return min(took)


def main() -> None:
    """Fill, ask, follow, print."""
    parser = argparse.ArgumentParser("python -m bench.analytics", description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, help="keeps the view; one is used that is there")
    parser.add_argument("--mutations", type=int, default=60_000)
    given = parser.parse_args()
    gc.set_threshold(*GC_THRESHOLDS)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        directory = given.directory or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "analytics.duckdb"
        if not path.exists():
            print(f"filled: {fill(path, given.files):.1f} us an item")
        print(f"{given.files:,} files, {path.stat().st_size / given.files:.1f} bytes a file")
        print(f"{'question':34} {'rows':>6} {'best ms':>9} {'median ms':>9}")
        for name, rows, took in answers(path):
            print(f"{name:34} {rows:>6} {min(took):>9.2f} {statistics.median(took):>9.2f}")
        text, count = stream_of(given.mutations)
        for history in (False, True):
            for full in (None, path):
                spent = events(full, text, history=history)
                into, more = "full" if full else "empty", "with" if history else "without"
                print(
                    f"{count:,} events, {into} view, {more} history: {spent / count * 1e6:.1f} us"
                )


if __name__ == "__main__":
    main()
