"""`gfs fsck` at a running master: what it names, what it mends, what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gfs import messages as m
from gfs.items import (
    CHUNKS,
    EXTENTS,
    INODES,
    SERVERS,
    Chunk,
    ChunkKind,
    ChunkState,
    Extent,
    Inode,
    Server,
)
from tests.shell.master_server import MoodyDisk, RawClient, Running, client, master

pytestmark = pytest.mark.timeout(30)
HANDLE = (1 << 40) | 1


async def fsck(a: RawClient, *, repair: bool = False) -> dict[str, Any]:
    answer = await a.connection.call(m.CheckFilesystem(repair=repair), timeout_s=20)
    assert isinstance(answer, m.Status)
    found: dict[str, Any] = json.loads(answer.json)
    return found


async def file_of_100_bytes(running: Running, a: RawClient, *, references: int) -> int:
    """A file with a chunk that no server holds, put into the state behind the master's back."""
    done = await a.create(b"f")
    assert done.entry is not None
    ino, state = done.entry.ino, running.ledger.state
    item: Inode | None = state.get(INODES, (ino,))
    assert item is not None
    chunk = Chunk(2, ChunkKind.PRIVATE, ChunkState.SEALED, 3, length=100, references=references)
    state.begin()
    state.put(INODES, (ino,), replace(item, size=100, stored=100))
    state.put(EXTENTS, (ino, 0), Extent(100, HANDLE, 0))
    state.put(CHUNKS, (HANDLE,), chunk)
    state.put(SERVERS, (9,), Server("h:1", "", 1))
    state.commit()
    return ino


async def test_a_missing_chunk_names_its_files_and_a_wrong_count_is_mended(tmp_path: Path) -> None:
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as a:
        await a.open()
        assert (await fsck(a))["ok"]
        await file_of_100_bytes(running, a, references=7)
        found = await fsck(a)
        counts, missing = found["problems"]
        assert not found["ok"]
        assert counts == f"chunk {HANDLE:016x} counts 7 referenced bytes, not 100: /f"
        assert missing == f"chunk {HANDLE:016x} has no replica: /f"
        assert [one["kind"] for one in found["details"]] == ["references", "missing"]
        assert found["details"][1]["files"] == ["/f"]
        assert found["repaired"] == []
        mended = await fsck(a, repair=True)
        assert not mended["ok"], "it says what it found, not what is left"
        said = f"chunk {HANDLE:016x} counts 100 referenced bytes, as there are"
        assert said in mended["repaired"]
        left = await fsck(a)
        assert left["problems"] == [missing]
        assert left["position"] > found["position"], "the count was set right by a record"


async def test_what_is_written_while_it_counts_is_no_problem(tmp_path: Path) -> None:
    """It sees one moment, however long it looks."""
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as a:
        await a.open()
        async with client(running) as b:
            await b.open("/other")
            answers = b.pipeline(
                [b.mutation(m.Create(1, b"%d" % n, 0o600, 0), low=1) for n in range(2000)]
            )
            found = await fsck(a)
            assert found["problems"] == []
            assert found["checked"]["names"] <= 2000
            assert len(answers) == 2000
