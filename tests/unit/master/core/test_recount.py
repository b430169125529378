"""Wrong counts are set right where that can lose nothing."""

from __future__ import annotations

from msgspec.structs import replace

from gfs.items import CHUNKS, INODES, ChunkState
from master.core import recount
from tests.unit.master.core.harness import Client, Cluster


def filled(c: Cluster, a: Client) -> tuple[int, int]:
    """A file of 100 bytes and its sealed chunk."""
    f, lease = a.write(b"f")
    return f, lease.handle


def mend(c: Cluster, f: int, handle: int) -> list[str]:
    engine, said = c.core.engine, list[str]()
    c.step(
        lambda: said.append(engine.system("fsck", lambda d: recount.recount_chunk(d, handle))),
        lambda: said.append(engine.system("fsck", lambda d: recount.recount_inode(d, f))),
    )
    return [line for line in said if line]


def test_counts_that_are_too_low_are_raised_in_a_record(c: Cluster, a: Client) -> None:
    f, handle = filled(c, a)
    right = c.chunk(handle)
    c.tables.begin()
    c.tables.put(CHUNKS, (handle,), replace(right, references=1, state=ChunkState.CONDEMNED))
    c.tables.put(INODES, (f,), replace(c.item(f), nlink=0, stored=1))  # type: ignore[type-var]
    c.tables.commit()
    assert len(mend(c, f, handle)) == 2
    assert c.operations()[-2:] == ["fsck", "fsck"]
    assert c.chunk(handle) == right
    item = c.item(f)
    assert item is not None
    assert (item.nlink, item.stored) == (1, 100)
    assert mend(c, f, handle) == []


def test_counts_that_are_too_high_only_keep_space_and_are_left(c: Cluster, a: Client) -> None:
    """What they counted may have vanished by a fault that a checkpoint could make good."""
    f, handle = filled(c, a)
    right, item = c.chunk(handle), c.item(f)
    assert item is not None
    c.tables.begin()
    c.tables.put(CHUNKS, (handle,), replace(right, references=900))
    c.tables.put(INODES, (f,), replace(item, nlink=3))
    c.tables.commit()
    assert mend(c, f, handle) == []
    c.tables.begin()
    c.tables.put(CHUNKS, (handle,), right)
    c.tables.put(INODES, (f,), item)
    c.tables.commit()
