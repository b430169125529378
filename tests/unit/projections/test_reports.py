"""Reports of the analytics view say what the model says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from bench.namespace_model import NamespaceModel
from gfs.bearer import authorization
from gfs.changes import bytes_of, text_of
from gfs.cli.report import moment
from gfs.errors import UsageError
from projections.__main__ import app
from projections.analytics_reports import REPORTS
from projections.analytics_view import AnalyticsView
from projections.stream_source import StreamSource
from projections.worker import View
from tests.unit.projections.views import apply_split, config, history

KEY = b"k" * 32


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NamespaceModel, View]]:
    model, records = history(11, 400)
    settings = config(tmp_path_factory.mktemp("reports"))
    view = View(AnalyticsView(settings), settings, StreamSource("http://x", "", None))
    view.store = view.projection.open_store(view.path, view.history_path)
    apply_split(view.projection, view.store, records, random.Random(1))
    view.cursor = view.store.cursor
    view.rebuilding = False
    yield model, view
    view.store.close()


Ask = Any


@pytest.fixture
async def ask(built: tuple[NamespaceModel, View]) -> Any:
    view = built[1]
    view._moved = trio.Event()
    transport = httpx.ASGITransport(app([view], config(Path("/nowhere")), KEY))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://views", headers=authorization(KEY)
    ) as client:

        async def get(path: str, /, *, status: int = 200, **query: Any) -> list[dict[str, Any]]:
            answer = await client.get(path, params=query)
            assert answer.status_code == status, answer.text
            found = answer.json()
            if status != 200:
                assert found["message"]
                assert "\n" not in found["message"]
                return []
            assert {"position", "epoch", "lag_ms", "rebuilding"} <= found.keys()
            if "reports" in found:
                return found["reports"]  # type: ignore[no-any-return]
            return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]

        yield get


@pytest.fixture
def model(built: tuple[NamespaceModel, View]) -> NamespaceModel:
    return built[0]


async def test_every_report_answers_with_its_defaults_and_of_a_tree(ask: Ask) -> None:
    listed = await ask("/report")
    assert {one["report"] for one in listed} == set(REPORTS)
    for name, report in REPORTS.items():
        await ask(f"/report/{name}")
        if "path" in report.takes:
            await ask(f"/report/{name}", path="/")
            await ask(f"/report/{name}", path="/no/such", status=404)


BAD_VALUES = {
    "path": ("relative", "", "/no/such"),
    "n": ("x", "-1", "1e3", "10001", "1; DROP TABLE inodes", "٣"),
    "since_ns": ("x", "-1", "9223372036854775808", "yesterday"),
    "uid": ("root", "-1", "1.5"),
    "by": ("", "x", "hour; --", "uid"),
    "of": ("", "size", "mtime_ns"),
    "owner": ("2", "yes"),
    "name": ("x" * 1001,),
}


@pytest.mark.parametrize("name", REPORTS)
async def test_every_bad_value_of_every_report_is_refused_in_one_line(ask: Ask, name: str) -> None:
    report = REPORTS[name]
    assert set(report.takes) <= set(BAD_VALUES)
    for taken in report.takes:
        for value in BAD_VALUES[taken]:
            status = 404 if value == "/no/such" else 400
            await ask(f"/report/{name}", status=status, **{taken: value})
    await ask(f"/report/{name}", status=400, wait="never")
    for strange in {*BAD_VALUES, "x", "PATH"} - set(report.takes):
        await ask(f"/report/{name}", status=400, **{strange: "1"})


async def test_reports_of_a_directory_whose_name_is_not_utf8(
    ask: Ask, model: NamespaceModel
) -> None:
    path = next(
        path
        for ino, children in model.children.items()
        if children and b"\xff" in (path := model.path(ino)) and not model.is_below(ino, 2)
    )
    for name, report in REPORTS.items():
        if "path" in report.takes:
            await ask(f"/report/{name}", path=text_of(path))
    rows = await ask("/report/crowded", path=text_of(path), n=1000)
    assert any(bytes_of(row["path"]) == path for row in rows)


async def test_largest_files_come_with_a_path_of_theirs(ask: Ask, model: NamespaceModel) -> None:
    rows = await ask("/report/largest", n=15)
    files = [one for one in model.inodes.values() if not one.is_directory]
    assert [row["size"] for row in rows] == sorted((one.size for one in files), reverse=True)[:15]
    for row in rows:
        name = bytes_of(row["path"]).rpartition(b"/")[2]
        assert (not model.links.get(row["ino"])) or name in {
            link[1] for link in model.links[row["ino"]]
        }


async def test_histograms_count_every_file_once(ask: Ask, model: NamespaceModel) -> None:
    files = sum(one.is_file for one in model.inodes.values())
    for of in ("mtime", "atime", "ctime", "created", "used"):
        assert sum(row["files"] for row in await ask("/report/ages", of=of)) == files
    assert sum(row["files"] for row in await ask("/report/sizes")) == files
    in_tree = await ask("/report/sizes", path="/")
    assert 0 < sum(row["files"] for row in in_tree) <= files


async def test_extensions_and_sums_count_every_inode_once(ask: Ask, model: NamespaceModel) -> None:
    files = [one for one in model.inodes.values() if one.is_file]
    rows = await ask("/report/extensions")
    assert sum(row["files"] for row in rows) == len(files)
    assert sum(row["bytes"] for row in rows) == sum(one.size for one in files)
    for by in ("owner", "group", "extension", "kind"):
        sums = await ask("/report/sums", by=by)
        assert sum(row["files"] for row in sums) == len(model.inodes)
        assert sum(row["bytes"] for row in sums) == sum(o.size for o in model.inodes.values())
    one = {row["extension"]: row["files"] for row in rows}
    assert one.keys() <= {"", "log", "txt", "py", "gz", "jpg", "data", "parquet"}
    assert len(one) == 8


async def test_crowded_directories_are_those_with_most_names(
    ask: Ask, model: NamespaceModel
) -> None:
    counts = Counter(parent for parent, _ in model.dirents)
    rows = await ask("/report/crowded", n=5)
    assert [row["entries"] for row in rows] == [count for _, count in counts.most_common(5)]
    assert all(counts[row["ino"]] == row["entries"] for row in rows)


async def test_cold_files_are_those_untouched_before_the_moment(
    ask: Ask, model: NamespaceModel
) -> None:
    times = sorted(max(one.atime_ns, one.mtime_ns) for one in model.inodes.values() if one.is_file)
    since = times[len(times) // 2]
    rows = await ask("/report/cold", n=10_000, since_ns=since)
    assert len(rows) == sum(one < since for one in times)


async def test_growth_by_owner_sums_to_growth_by_day(ask: Ask) -> None:
    whole = [await ask("/report/growth", by=by) for by in ("hour", "day", "month", "owner")]
    for column in ("created", "removed", "bytes_added", "bytes_removed"):
        assert len({sum(row[column] for row in rows) for rows in whole}) == 1
    assert sum(row["created"] for row in whole[0]) > 0


async def test_deleted_says_what_is_in_the_trash_still(ask: Ask, model: NamespaceModel) -> None:
    rows = await ask("/report/deleted", n=10_000)
    assert rows
    trashed = {ino for (parent, _), ino in (
        (key, dirent.ino) for key, dirent in model.dirents.items()) if parent == 2}  # fmt: skip
    assert all(row["in_trash"] == (row["ino"] in trashed) for row in rows)
    assert any(row["in_trash"] for row in rows)
    few = await ask("/report/deleted", name="*.log", n=10_000)
    assert few == [row for row in rows if row["path"].endswith(".log")]


async def test_a_report_takes_values_never_sql(ask: Ask) -> None:
    await ask("/report/growth", by="day'); DROP TABLE inodes; --", status=400)
    await ask("/report/ages", of="size", status=400)
    await ask("/report/nosuch", status=404)
    await ask("/report/largest", n="1; DROP TABLE inodes", status=400)
    assert await ask("/report/deleted", name="' OR 1=1; --") == []
    assert await ask("/report/largest", n=1)


def test_a_moment_is_an_age_or_a_date() -> None:
    assert moment("90d", 100 * 86400 * 10**9) == 10 * 86400 * 10**9
    assert moment("1y", 10**9) == 0
    assert moment("2026-01-31", 0) == moment("2026-01-31T00:00:00", 0)
    for wrong in ("", "90", "d", "-1d", "2026-13-01", "yesterday", "90d; DROP"):
        with pytest.raises(UsageError):
            moment(wrong, 0)
