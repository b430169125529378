"""An export is the namespace as of one position, and whole or not there."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from bench.namespace_model import NamespaceModel
from gfs.changes import text_of
from gfs.cli import export
from gfs.cli.export import _whole, write_parquet
from gfs.cli.output import CommandFailed
from gfs.errors import UsageError
from projections import analytics_export
from tests.unit.projections.analytics import Asker, analytics_view, asking
from tests.unit.projections.views import history


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    model, records = history(11, 500)
    view = analytics_view(tmp_path_factory.mktemp("export"), records)
    yield SimpleNamespace(model=model, view=view)
    assert view.store is not None
    view.store.close()


@pytest.fixture
async def ask(built: SimpleNamespace) -> AsyncIterator[Asker]:
    async with asking(built.view) as asker:
        yield asker


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analytics_export, "SLICE_INODES", 17)
    monkeypatch.setattr(analytics_export, "LINES_AT_ONCE", 5)
    monkeypatch.setattr(export, "PART_ROWS", 40)


async def sent(ask: Asker, **query: Any) -> bytes:
    answer = await ask.client.get("/export", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-GFS-Cursor"]
    return answer.content


def cut(content: bytes, seed: int = 1) -> Iterator[bytes]:
    """The same bytes in blocks of any size, as a network gives them."""
    rng, at = random.Random(seed), 0
    while at < len(content):
        size = rng.choice((1, 7, 100, 5000))
        yield content[at : at + size]
        at += size


def exported(content: bytes, file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Metadata of the service and rows of the file."""
    with _whole(os.fsencode(file), force=True) as target:
        directory = os.fsencode(file.parent)
        head, count = write_parquet(cut(content), target, str(file), directory)
    with duckdb.connect() as database:
        found = database.execute(f"SELECT * FROM '{file}'")
        columns = [column[0] for column in found.description or ()]
        rows = [dict(zip(columns, row, strict=True)) for row in found.fetchall()]
    assert len(rows) == count
    return head, rows


def visible(model: NamespaceModel, ino: int) -> bytes:
    """Path by the least name, as text orders names."""
    if ino in (1, 2):
        return b"" if ino == 1 else b"<trash>"
    parent, name = min((key[0], text_of(key[1]), key[1]) for key in model.links[ino])[::2]
    return visible(model, parent) + b"/" + name


async def test_every_inode_is_in_it_once_with_all_it_has(
    ask: Asker, built: SimpleNamespace, tmp_path: Path
) -> None:
    model: NamespaceModel = built.model
    _, rows = exported(await sent(ask), tmp_path / "all.parquet")
    assert sorted(row["ino"] for row in rows) == sorted(model.inodes)
    odd = 0
    for row in rows:
        inode, path = model.inodes[row["ino"]], visible(model, row["ino"]) or b"/"
        assert row["path"] == text_of(path)
        assert row["path_bytes"] == (path if text_of(path).encode() != path else None)
        odd += row["path_bytes"] is not None
        facts = row["size"], row["uid"], row["gid"], row["nlink"], row["permissions"]
        mode = inode.mode & 0o7777
        assert facts == (inode.size, inode.uid, inode.gid, inode.nlink, mode)
        assert row["kind"] == ("d" if inode.is_directory else "f")
        assert row["target"] == text_of(inode.target)
    assert odd
    with duckdb.connect() as database:
        file = tmp_path / "all.parquet"
        times = "epoch_ns(mtime), epoch_ns(atime), epoch_ns(ctime), epoch_ns(created)"
        for ino, *found in database.execute(f"SELECT ino, {times} FROM '{file}'").fetchall():
            inode = model.inodes[ino]
            wanted = [inode.mtime_ns, inode.atime_ns, inode.ctime_ns, inode.created_ns]
            assert found == wanted


async def test_the_file_says_what_it_is_true_for(
    ask: Asker, built: SimpleNamespace, tmp_path: Path
) -> None:
    head, _ = exported(await sent(ask), tmp_path / "all.parquet")
    cursor = built.view.store.cursor
    assert (head["cursor"], head["position"]) == (str(cursor), cursor.position)
    assert {"lag_ms", "rebuilding"} <= head.keys()
    with duckdb.connect() as database:
        sql = f"SELECT key, value FROM parquet_kv_metadata('{tmp_path / 'all.parquet'}')"
        facts = dict(database.execute(sql).fetchall())
    assert facts[b"gfs_position"] == str(cursor.position).encode()
    assert facts[b"gfs_epoch"] == str(cursor.epoch).encode()
    assert facts[b"gfs_cursor"] == str(cursor).encode()


async def test_a_tree_is_its_own_inodes_at_paths_within_it(
    ask: Asker, built: SimpleNamespace, tmp_path: Path
) -> None:
    model: NamespaceModel = built.model
    for top in [ino for ino in model.children if ino > 2 and not model.is_below(ino, 2)][:6]:
        path = model.path(top)
        _, rows = exported(await sent(ask, path=text_of(path)), tmp_path / "tree.parquet")
        inside, todo = {top}, [top]
        while todo:
            for ino in model.children.get(todo.pop(), {}).values():
                todo += [] if ino in inside else [ino]
                inside.add(ino)
        assert sorted(row["ino"] for row in rows) == sorted(inside)
        for row in rows:
            found = row["path_bytes"] or row["path"].encode()
            assert found == path or found.startswith(path + b"/")


async def test_an_export_without_its_end_is_refused_and_leaves_nothing(
    ask: Asker, tmp_path: Path
) -> None:
    content = await sent(ask)
    file = tmp_path / "cut.parquet"
    lines = content.splitlines(keepends=True)
    for part in (b"".join(lines[:-1]), b"".join([*lines[:5], *lines[6:]]), content[:-9]):
        with pytest.raises(CommandFailed, match=r"cut short|no export"):
            exported(part, file)
        assert list(tmp_path.iterdir()) == []
    for part in (b"", b"<html>", b'{"kind":"other"}\n'):
        with pytest.raises(CommandFailed, match="no export"):
            exported(part, file)


async def test_a_full_disk_is_one_line_and_leaves_nothing(ask: Asker, tmp_path: Path) -> None:
    content = await sent(ask)
    with open("/dev/full", "r+b") as full, pytest.raises(CommandFailed) as failed:
        write_parquet(cut(content), full.fileno(), "x.parquet", os.fsencode(tmp_path))
    assert os.strerror(errno.ENOSPC) in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_file_that_is_there_stays_unless_forced(tmp_path: Path) -> None:
    file = tmp_path / "f.parquet"
    file.write_bytes(b"old")
    with pytest.raises(UsageError, match="--force"), _whole(os.fsencode(file), force=False):
        pytest.fail("begun")
    with pytest.raises(ValueError), _whole(os.fsencode(file), force=True) as target:
        os.write(target, b"half")
        raise ValueError
    assert [one.name for one in tmp_path.iterdir()] == ["f.parquet"]
    assert file.read_bytes() == b"old"
    with _whole(os.fsencode(file), force=True) as target:
        os.write(target, b"new")
    assert file.read_bytes() == b"new"
    with pytest.raises(UsageError, match="directory"), _whole(os.fsencode(tmp_path), force=True):
        pytest.fail("begun")
    with pytest.raises(CommandFailed, match="No such"), _whole(b"/no/such/f", force=False):
        pytest.fail("begun")


@pytest.mark.parametrize(
    ("query", "status"),
    [({"path": "relative"}, 400), ({"path": "/no/such"}, 404), ({"patth": "/"}, 400),
     ({"wait": "never"}, 400)],
)  # fmt: skip
async def test_a_bad_question_is_refused_before_anything_is_sent(
    ask: Asker, query: dict[str, Any], status: int
) -> None:
    await ask.answer("/export", status=status, **query)
