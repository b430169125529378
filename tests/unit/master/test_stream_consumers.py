"""Named consumers go on where they said they were; nobody else notices them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import apsw
import httpx
import pytest
import trio

from bench.namespace_model import EPOCH
from gfs import changes
from gfs.disk import PosixDisk
from gfs.errors import NewerFormat
from master import consumer_file, stream_consumers
from master.checkpoint import make_checkpoint
from master.consumer_file import Consumer, ConsumerFile
from tests.logcheck import ExpectLog
from tests.unit.master.streams import (
    Bench,
    abandoned,
    assert_chained,
    events,
    grow,
    read_all,
    serving,
    until,
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def commit(client: httpx.AsyncClient, name: str, cursor: str) -> httpx.Response:
    return await client.post(f"/consumers/{name}", json={"cursor": cursor})


async def test_a_consumer_goes_on_behind_its_commit_also_after_a_restart(bench: Bench) -> None:
    grow(bench, 1, 80)
    expected = bench.expected()
    async with serving(bench) as client:
        first = events(await read_all(client, consumer="mailer", limit="30"))
        assert (await commit(client, "mailer", first[19].cursor)).status_code == 200
    async with serving(bench) as client:
        lines = await read_all(client, consumer="mailer")
        other = events(await read_all(client, consumer="other"))
    assert [line.cursor for line in events(lines)] == expected[20:]
    assert_chained(lines, expected[19])
    assert [line.cursor for line in other] == expected


async def test_until_its_first_commit_a_consumer_begins_where_it_first_did(bench: Bench) -> None:
    grow(bench, 2, 20)
    async with serving(bench) as client:
        assert events(await read_all(client, consumer="late", **{"from": "now"})) == []
        before = len(bench.expected())
        grow(bench, 3, 10)
        for _ in range(2):
            lines = events(await read_all(client, consumer="late"))
            assert [line.cursor for line in lines] == bench.expected()[before:]


async def test_a_commit_may_go_back_and_from_reads_elsewhere_without_moving_it(
    bench: Bench,
) -> None:
    grow(bench, 4, 40)
    expected = bench.expected()
    async with serving(bench) as client:
        await commit(client, "x", expected[50])
        await commit(client, "x", expected[9])
        aside = events(await read_all(client, consumer="x", **{"from": expected[60]}))
        lines = events(await read_all(client, consumer="x"))
    assert [line.cursor for line in aside] == expected[61:]
    assert [line.cursor for line in lines] == expected[10:]


async def test_consumers_are_listed_shown_with_their_lag_and_removed(bench: Bench) -> None:
    grow(bench, 5, 50)
    end = f"{EPOCH}-{bench.model.position}"
    async with serving(bench) as client:
        await commit(client, "behind", f"{EPOCH}-11")
        await commit(client, "inside", f"{EPOCH}-11.0")
        await commit(client, "at-the-end", end)
        listed = (await client.get("/consumers")).json()
        assert listed["cursor"] == end
        told = {one["consumer"]: one for one in listed["consumers"]}
        assert list(told) == ["at-the-end", "behind", "inside"]
        assert told["behind"]["lag_positions"] == bench.model.position - 11
        assert told["inside"]["lag_positions"] == bench.model.position - 10
        assert told["behind"]["lag_ms"] > 0
        assert told["at-the-end"]["lag_positions"] == told["at-the-end"]["lag_ms"] == 0
        shown = (await client.get("/consumers/behind")).json()
        assert shown["cursor"] == f"{EPOCH}-11"
        metrics = (await client.get("/metrics")).text
        position = bench.model.position
        behind = f'gfs_stream_consumer_lag_positions{{consumer="behind"}} {position - 11}.0'
        assert behind in metrics.splitlines()
        assert 'gfs_stream_consumer_lag_ms{consumer="at-the-end"} 0.0' in metrics.splitlines()
        assert (await client.delete("/consumers/behind")).status_code == 200
        assert (await client.get("/consumers/behind")).status_code == 404
        assert (await client.delete("/consumers/behind")).status_code == 404
    async with serving(bench) as client:
        listed = (await client.get("/consumers")).json()
        assert [one["consumer"] for one in listed["consumers"]] == ["at-the-end", "inside"]


async def test_a_live_reader_is_counted_with_its_consumer(bench: Bench) -> None:
    async with serving(bench) as client:
        async with (
            client.stream("GET", "/stream?consumer=live") as answer,
            abandoned(answer.aiter_raw()) as chunks,
        ):
            await anext(chunks)
            assert (await client.get("/consumers/live")).json()["readers"] == 1
        await until(client, lambda found: not found["consumer"]["live"]["readers"])


async def test_a_consumer_behind_what_the_log_keeps_is_reset_and_goes_on_from_a_snapshot(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, segment_bytes=8192)
    grow(bench, 6, 30)
    async with serving(bench) as client:
        await commit(client, "slow", f"{EPOCH}-5")
    with closing(apsw.Connection(str(bench.directory / "state.db"))) as connection:
        make_checkpoint(connection, bench.directory / "checkpoints", PosixDisk())
    grow(bench, 7, 10)
    assert bench.log.log.truncate_before(32) > 0
    async with serving(bench) as client:
        (line,) = await read_all(client, consumer="slow")
        assert line.kind == changes.RESET
        told = (await client.get("/consumers/slow")).json()
        assert told["cursor"] == f"{EPOCH}-5"
        assert told["reset"]
        assert told["lag_ms"] is None
        snapshot = changes.decode_lines((await client.get("/snapshot")).content)
        await commit(client, "slow", snapshot[0].cursor)
        lines = await read_all(client, consumer="slow")
    assert_chained(lines, snapshot[0].cursor)
    assert events(lines)[0].cursor.startswith(f"{EPOCH}-32.")


async def test_commits_make_no_events_and_move_no_position(bench: Bench) -> None:
    grow(bench, 8, 5)
    async with serving(bench) as client:
        before = (await client.get("/position")).json()
        for number in range(20):
            await commit(client, f"c{number}", f"{EPOCH}-3")
        assert (await client.get("/position")).json() == before


async def test_commits_that_come_together_are_all_kept(bench: Bench) -> None:
    async with serving(bench) as client:
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(commit, client, f"c{number:02}", "0-0")
    async with serving(bench) as client:
        listed = (await client.get("/consumers")).json()["consumers"]
    assert [one["consumer"] for one in listed] == [f"c{number:02}" for number in range(60)]


@pytest.mark.parametrize("name", ["a b", "x" * 65, ".hidden", "é", "a%2Fb", "%00"])
async def test_a_bad_name_is_a_clear_400(bench: Bench, name: str) -> None:
    async with serving(bench) as client:
        for answer in (
            await client.get(f"/stream?consumer={name}"),
            await commit(client, name, "0-0"),
        ):
            # A name with a slash is no route at all.
            assert answer.status_code == 400 or (answer.status_code == 404 and "%2F" in name)
            assert answer.json()["message"]
        assert (await client.get("/consumers")).json()["consumers"] == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff", 400),
        (b"[]", 400),
        (b'{"cursor": 5}', 400),
        (b'{"cursor": "x"}', 400),
        (b'{"cursor": "0-0", "more": 1}', 400),
        (b'{"cursor": "3-999"}', 409),  # beyond the end
        (b'{"cursor": "2-1"}', 409),  # of another history
    ],
)
async def test_a_bad_commit_is_refused_and_changes_nothing(
    bench: Bench, body: bytes, status: int
) -> None:
    async with serving(bench) as client:
        answer = await client.post("/consumers/x", content=body)
        assert answer.status_code == status
        assert answer.json()["message"]
        assert (await client.get("/consumers/x")).status_code == 404


async def test_there_are_only_so_many_consumers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_consumers, "CONSUMERS_MAX", 2)
    async with serving(bench) as client:
        assert (await commit(client, "a", "0-0")).status_code == 200
        assert (await commit(client, "b", "0-0")).status_code == 200
        refused = await commit(client, "c", "0-0")
        assert refused.status_code == 409
        assert "remove one" in refused.json()["message"]
        assert (await client.get("/stream?consumer=c&follow=0")).status_code == 409
        assert (await client.get("/statistics")).json()["readers"] == 0
        assert (await commit(client, "a", f"{EPOCH}-1")).status_code == 200
        await client.delete("/consumers/b")
        assert (await commit(client, "c", "0-0")).status_code == 200


def test_a_damaged_file_is_put_aside_and_a_newer_one_refused(
    tmp_path: Path, expect_log: ExpectLog
) -> None:
    expect_log("^stream[.]consumers-lost", times=2)
    path = tmp_path / "consumers.db"
    path.write_bytes(b"this is no database" * 1000)
    file = ConsumerFile(path)
    file.write([("a", Consumer("a", "0-0", 1, 0))])
    file.close()
    assert [one.name for one in ConsumerFile(path).loaded] == ["a"]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 5")
    assert ConsumerFile(path).loaded == []
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {consumer_file.FORMAT + 1}")
    with pytest.raises(NewerFormat):
        ConsumerFile(path)
    assert len(list(tmp_path.glob("consumers.db.damaged-*"))) == 2
