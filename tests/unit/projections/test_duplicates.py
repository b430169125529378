"""`gfs report duplicates`: files of one size and digest, those with most to spare first."""

from __future__ import annotations

from pathlib import Path

from bench.namespace_model import NamespaceModel
from gfs.checksum import digest_of
from gfs.records import Record
from tests.unit.projections.analytics import analytics_view, asking


def written(
    model: NamespaceModel, path: tuple[int, bytes], data: bytes, *, known: bool = True
) -> list[Record]:
    """A new file with this content."""
    made = model.create(*path)
    ino = model.dirents[path].ino
    record = model.commit(ino, len(data))
    for change in record.changes:
        if change.key == (ino,) and change.new is not None:
            change.new.digest = digest_of(data) if known else 0  # type: ignore[union-attr]
    model.inodes[ino].digest = digest_of(data) if known else 0
    return [made, record]


async def test_duplicates_are_files_of_one_size_and_digest(tmp_path: Path) -> None:
    model = NamespaceModel()
    records = [model.format(), model.mkdir(1, b"d")]
    d = model.dirents[1, b"d"].ino
    for path, data in (
        ((1, b"small"), b"ab"),
        ((d, b"small too"), b"ab"),
        ((1, b"big"), b"x" * 1000),
        ((d, b"big"), b"x" * 1000),
        ((d, b"bigger"), b"x" * 1001),
        ((1, b"alone"), b"y" * 1000),
    ):
        records += written(model, path, data)
    records += written(model, (1, b"unknown"), b"x" * 1000, known=False)
    records += written(model, (1, b"empty"), b"")
    records += written(model, (d, b"empty"), b"")
    records.append(model.link(model.dirents[1, b"big"].ino, 1, b"big again"))
    view = analytics_view(tmp_path, records)
    async with asking(view) as ask:
        rows = await ask.rows("/report/duplicates")
        assert [(row["path"], row["files"], row["spare_bytes"]) for row in rows] == [
            ("/big", 2, 1000),
            ("/d/big", 2, 1000),
            ("/d/small too", 2, 2),
            ("/small", 2, 2),
        ]
        assert {row["digest"] for row in rows} == {digest_of(b"ab"), digest_of(b"x" * 1000)}
        assert [row["path"] for row in await ask.rows("/report/duplicates", n=1)] == [
            "/big",
            "/d/big",
        ]
        assert await ask.rows("/report/duplicates", path="/d") == []
    assert view.store is not None
    view.store.close()
