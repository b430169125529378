"""The analytics view over a million files, in one process: what questions and events cost.

    python -m bench.analytics [--files 1000000] [--mutations 60000] [--dir DIR]

The view is filled through its own code with the tree of `bench.views.tree`; events are those
of `bench.events`, read, put into batches and written as the view's process does it. There is no
cluster, stream or HTTP. Shown is processor time of all threads, which a busy machine moves
least: of questions the best and the median, also right after a directory was renamed, of small
batches the same, of events the best of some runs, each into a view of its own: an empty one,
and a copy of the full one.
"""

from __future__ import annotations

import gc
import shutil
import stat
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import click
from starlette.requests import Request

from bench.events import Workload
from bench.setting import PREFIX, directory_option
from bench.views.tree import TOP, nodes
from gfs import changes, items
from gfs.changes import START, Cursor
from gfs.config import ProjectionsConfig
from gfs.records import DirentChange, Record, RecordActor
from gfs.running import GC_THRESHOLDS
from projections.analytics_largest import Largest
from projections.analytics_places import Places
from projections.analytics_queries import report_of
from projections.analytics_reports import asked_report
from projections.analytics_view import AnalyticsView
from projections.core.following import Batch, Follower
from projections.storage import DuckStore
from projections.writer import Writer

TIMES = 9  # each question
RUNS = 5  # of the events
SMALL_EVENTS, SMALL_BATCHES = 50, 100
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


def asked_ms(
    store: DuckStore, places: Places, largest: Largest, report: str, query: str
) -> tuple[float, int]:
    """Milliseconds that an answer takes, and its rows."""
    scope = {"type": "http", "query_string": query.encode(), "headers": []}
    asked = asked_report(Request(scope), report)
    began = time.process_time()
    with store.reader() as connection:
        connection.execute("BEGIN TRANSACTION READ ONLY")
        found = report_of(connection, asked, 10_000, places, largest)
        connection.execute("ROLLBACK")
    return (time.process_time() - began) * 1e3, len(found.rows)


def answers(path: Path) -> Iterator[tuple[str, int, list[float]]]:
    """Of each question its name, the rows of its answer and milliseconds, each time it was put."""
    view = AnalyticsView(ProjectionsConfig(data_dir=str(path.parent)))
    with closing(view.open_store(path, None)) as store:
        assert isinstance(store, DuckStore)
        places, largest, told = Places(), Largest(), list[tuple[float, int]]()
        for name, (report, query) in QUESTIONS.items():
            told = [asked_ms(store, places, largest, report, query) for _ in range(TIMES)]
            yield name, told[0][1], [took for took, _ in told]
        for number in range(TIMES):
            batch = renaming(number)
            store.write(partial(view.apply, batch), batch.cursor)
            told.append(asked_ms(store, places, largest, "largest", "n=20"))
        yield "20 largest after a rename", told[-1][1], [took for took, _ in told[-TIMES:]]
        told = [asked_ms(store, Places(), Largest(), "largest", "n=20") for _ in range(TIMES)]
        yield "20 largest, nothing remembered", told[0][1], [took for took, _ in told]


def renaming(number: int) -> Batch:
    """The directory that holds everything gets another name, the next one each time."""
    dirent = items.Dirent(FIRST_INO, stat.S_IFDIR)
    names = [TOP if one == 0 else b"%s-%d" % (TOP, one) for one in (number, number + 1)]
    moved = [
        DirentChange((1, names[0]), dirent, None),
        DirentChange((1, names[1]), None, dirent),
    ]
    record = Record(number + 1, 1, NOW_NS, "rename", RecordActor(0, 0), [*moved])
    found = changes.events_of(record)
    changes.chain(found, "1-0")
    return Batch(changes.decode_lines(changes.encode(found)), Cursor(1, number + 1))


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


def small_batches(text: bytes, full: Path) -> list[float]:
    """Milliseconds that each of some small batches takes, into a copy of the full view."""
    with copied(full.parent, full) as path:
        config = ProjectionsConfig(data_dir=str(path.parent))
        view = AnalyticsView(config)
        with closing(view.open_store(path, None)) as store:
            writer = Writer(view, config, store)
            follower = Follower(Cursor(1, 0))
            follower.take(changes.decode_lines(text))
            limit, took = min(config.batch_events, follower.pending // 2), list[float]()
            while len(took) <= SMALL_BATCHES and (batch := follower.batch(limit)) is not None:
                limit = SMALL_EVENTS
                began = time.process_time()
                writer.write(batch)
                took.append((time.process_time() - began) * 1e3)
    return took[1:]


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


@contextmanager
def copied(directory: Path, full: Path | None) -> Iterator[Path]:
    """Path below `directory` of a view of one's own: a copy, or nothing yet."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        path = Path(scratch) / "analytics.duckdb"
        if full is not None:
            shutil.copy(full, path)
        yield path


def events(directory: Path, full: Path | None, text: bytes, *, history: bool) -> float:
    """The least of several runs of `follow`, each into a view of its own."""
    took = []
    for _ in range(RUNS):
        with copied(directory, full) as path:
            took.append(follow(text, path, history=history))
    return min(took)


def row(name: str, rows: int | str, took: list[float]) -> None:
    click.echo(f"{name:34} {rows:>6} {min(took):>9.2f} {statistics.median(took):>9.2f}")


@click.command(help=__doc__)
@click.option("--files", default=1_000_000, show_default=True)
@click.option("--mutations", default=60_000, show_default=True, help="Of the events.")
@directory_option
def main(files: int, mutations: int, directory: Path) -> None:
    gc.set_threshold(*GC_THRESHOLDS)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=directory) as scratch:
        path = Path(scratch) / "analytics.duckdb"
        click.echo(f"filled: {fill(path, files):.1f} us an item")
        click.echo(f"{files:,} files, {path.stat().st_size / files:.1f} bytes a file")
        text, count = stream_of(mutations)
        for history in (False, True):
            for full in (None, path):
                spent = events(Path(scratch), full, text, history=history) / count * 1e6
                into, more = "full" if full else "empty", "with" if history else "without"
                click.echo(f"{count:,} events, {into} view, {more} history: {spent:.1f} us")
        click.echo(f"{'batch or question':34} {'rows':>6} {'best ms':>9} {'median ms':>9}")
        row(f"a batch of {SMALL_EVENTS} events", "", small_batches(text, path))
        for name, rows, took in answers(path):  # the last of them change the view
            row(name, rows, took)


if __name__ == "__main__":
    main()
