"""What the tests of views share: lines of records, snapshots of a model, dumps of tables."""

from __future__ import annotations

import random
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.namespace_model import NamespaceModel, random_step
from gfs import changes, items
from gfs.changes import START, Cursor, Line, text_of
from gfs.config import ProjectionsConfig
from gfs.records import Record
from projections.core.following import Batch
from projections.projection import Projection
from projections.search_schema import extension_of
from projections.storage import Store

Tables = dict[str, list[tuple[Any, ...]]]

INODE = (
    "ino, mode, uid, gid, nlink, size, stored, atime_ns, mtime_ns, ctime_ns, created_ns,"
    " data_version, rdev, target, home, name, extension, xattrs"
)
SEARCH_DUMPS = {
    "dirents": "SELECT parent, name, ino FROM dirents",
    "inodes": f"SELECT {INODE} FROM inodes",
    "xattrs": "SELECT * FROM xattrs",
    "directories": "SELECT * FROM directories",
    "owners": "SELECT * FROM owners",
    "extensions": "SELECT * FROM extensions",
}


def lines_of(records: Iterable[Record]) -> list[Line]:
    """Lines as the stream would deliver them."""
    events, previous = [], "0-0"
    for record in records:
        found = changes.events_of(record)
        previous = changes.chain(found, previous)
        events += found
    return changes.decode_lines(changes.encode(events))


def snapshot_of(model: NamespaceModel) -> list[Line]:
    """Lines of a snapshot of the model as it is."""
    events = [
        *(
            changes.snapshot_event(items.INODES, (ino,), inode, "9-9")
            for ino, inode in model.inodes.items()
        ),
        *(
            changes.snapshot_event(items.DIRENTS, key, dirent, "9-9")
            for key, dirent in model.dirents.items()
        ),
    ]
    return changes.decode_lines(changes.encode(events))


def history(seed: int, count: int) -> tuple[NamespaceModel, list[Record]]:
    """A model after `count` random operations, and their records."""
    model = NamespaceModel()
    rng = random.Random(seed)
    return model, [model.format(), *(random_step(model, rng) for _ in range(count))]


def apply_split(
    projection: Projection, store: Store, records: list[Record], rng: random.Random
) -> None:
    """Apply records in batches of random size, history too."""
    at = 0
    while at < len(records):
        part = records[at : at + rng.choice((1, 2, 7, 40))]
        at += len(part)
        lines = lines_of(part)
        cursor = Cursor(part[-1].epoch, part[-1].position)
        batch = Batch(lines, cursor)
        if store.history_cursor is not None:
            store.write_history(
                lambda past, view, lines=lines: projection.record(lines, past, view),  # type: ignore[misc]
                cursor,
            )
        store.write(
            lambda connection, batch=batch: projection.apply(batch, connection),  # type: ignore[misc]
            cursor,
        )


def load(projection: Projection, store: Store, lines: list[Line], rng: random.Random) -> None:
    """Apply a snapshot in shuffled order, so that links come before what they link."""
    lines = lines[:]
    rng.shuffle(lines)
    for part in (*chunks(lines, 53), []):
        batch = Batch(part, START if part else Cursor(9, 9), snapshot=True)
        store.write(
            lambda connection, batch=batch: projection.apply(batch, connection),  # type: ignore[misc]
            batch.cursor,
        )


def chunks(lines: list[Line], size: int) -> Iterator[list[Line]]:
    for at in range(0, len(lines), size):
        yield lines[at : at + size]


def config(directory: Path, **values: Any) -> ProjectionsConfig:
    return ProjectionsConfig(data_dir=str(directory), **values)


def expected_search(model: NamespaceModel) -> Tables:
    """The search view's tables, computed from the model without any history."""
    homes = {ino: _home(model, ino) for ino in model.inodes}
    directories = {0: (-1, "", "<orphans>"), 1: (-1, "", ""), 2: (-1, "", "<trash>")}
    for ino in sorted(model.inodes):
        if model.inodes[ino].is_directory and ino > 2:
            parent, name = homes[ino]
            directories[ino] = (parent, name or str(ino), _path(homes, ino))
    sums = {ino: [0, 0, 0, 0] for ino in directories}
    owners: dict[int, list[int]] = {}
    extensions: dict[str, list[int]] = {}
    rows = []
    for ino, one in model.inodes.items():
        home, name = homes[ino]
        disk = -(-one.stored // 512) * 512
        add = [int(not one.is_directory), int(one.is_directory), one.size, disk]
        at = home
        while at != -1:
            sums[at] = [a + b for a, b in zip(sums[at], add, strict=True)]
            at = directories[at][0]
        owner = owners.setdefault(one.uid, [0, 0, 0, 0])
        owners[one.uid] = [a + b for a, b in zip(owner, add, strict=True)]
        extension = extension_of(name) if one.is_file else ""
        if one.is_file:
            counts = extensions.setdefault(extension, [0, 0, 0])
            both = zip(counts, (1, one.size, disk), strict=True)
            extensions[extension] = [a + b for a, b in both]
        rows.append(_inode_row(ino, one, home, name, extension))
    return {
        "dirents": [(*_text(key), dirent.ino) for key, dirent in model.dirents.items()],
        "inodes": rows,
        "xattrs": [
            (ino, text_of(name), text_of(value))
            for ino, one in model.inodes.items()
            for name, value in one.attributes.items()
        ],
        "directories": [(ino, *place, *sums[ino]) for ino, place in directories.items()],
        "owners": [(uid, *values) for uid, values in owners.items()],
        "extensions": [(name, *values) for name, values in extensions.items()],
    }


def _text(key: tuple[int, bytes]) -> tuple[int, str]:
    return key[0], text_of(key[1])


def _home(model: NamespaceModel, ino: int) -> tuple[int, str]:
    if ino in (1, 2):
        return -1, ""
    links = model.links.get(ino)
    return min(_text(link) for link in links) if links else (0, "")


def _path(homes: dict[int, tuple[int, str]], ino: int) -> str:
    if ino <= 2:
        return {0: "<orphans>", 1: "", 2: "<trash>"}[ino]
    parent, name = homes[ino]
    return f"{_path(homes, parent)}/{name or ino}"


def _inode_row(ino: int, one: items.Inode, home: int, name: str, extension: str) -> tuple[Any, ...]:
    return (
        ino,
        one.mode,
        one.uid,
        one.gid,
        one.nlink,
        one.size,
        one.stored,
        one.atime_ns,
        one.mtime_ns,
        one.ctime_ns,
        one.created_ns,
        one.data_version,
        one.rdev,
        text_of(one.target),
        home,
        name,
        extension if stat.S_ISREG(one.mode) else "",
        len(one.attributes),
    )
