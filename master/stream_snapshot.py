"""Items of the newest checkpoint as NDJSON: where a reader begins anew after `reset`.

The first line says as of which cursor the items are and how many, the last one how many
there were: an answer without it was cut short. After it the reader follows from that cursor.
"""

from __future__ import annotations

from collections.abc import Iterator

from gfs import changes
from gfs.changes import Control, Cursor
from master.checkpoint import Checkpoint, count_items, iterate_items

PAGE_ITEMS = 2000


def snapshot_lines(checkpoint: Checkpoint | None) -> Iterator[bytes]:
    """Encoded pages of all inodes and dirents of a checkpoint.

    None stands for the empty namespace before the first record. Blocks for each
    page: pull it from a thread.
    """
    cursor, total = str(changes.START), 0
    if checkpoint is not None:
        cursor = str(Cursor(checkpoint.epoch, checkpoint.position))
        total = count_items(checkpoint, changes.DEFAULT_TABLES)
    yield changes.encode((Control(changes.SNAPSHOT, cursor=cursor, items=total),))
    count = 0
    for page in _pages(checkpoint, cursor) if checkpoint is not None else ():
        count += len(page)
        yield changes.encode(page)
    yield changes.encode((Control(changes.END, cursor=cursor, items=count),))


def _pages(checkpoint: Checkpoint, cursor: str) -> Iterator[list[changes.Event]]:
    page: list[changes.Event] = []
    seen: set[str] = set()
    for table, key, item in iterate_items(checkpoint):
        if table not in changes.DEFAULT_TABLES:
            if seen == changes.DEFAULT_TABLES:
                break  # what follows is many extents
            continue
        seen.add(table)
        page.append(changes.snapshot_event(table, key, item, cursor))
        if len(page) == PAGE_ITEMS:
            yield page
            page = []
    if page:
        yield page
