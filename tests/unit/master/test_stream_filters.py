"""Filters are judged on the server as of each record, combine, and leave no gap unproved.

The oracle replays the whole history, which the server never does.
"""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from bench.namespace_model import random_step
from gfs import changes
from gfs.changes import COPY
from gfs.items import Dirent
from gfs.records import Copy, DirentChange, InodeChange, Record
from master import stream_links
from tests.unit.master.streams import (
    Bench,
    abandoned,
    assert_chained,
    events,
    grow,
    read_all,
    serving,
)

COMMIT_OR_RENAME = frozenset({"commit", "rename"})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def wanted(
    bench: Bench,
    *,
    tree: int = 0,
    name: str = "",
    kinds: frozenset[str] = frozenset(),
    operations: frozenset[str] = frozenset(),
    owner: int | None = None,
) -> list[str]:
    """Cursors of what passes, by replaying names from the start."""
    links: dict[int, set[tuple[int, bytes]]] = {}

    def inside(ino: int) -> bool:
        return ino == tree or any(inside(parent) for parent, _ in links.get(ino, ()))

    def fits(key: tuple[int, bytes], ino: int) -> bool:
        named = not name or fnmatch.fnmatchcase(changes.text_of(key[1]), name)
        return named and (not tree or ino == tree or inside(key[0]))

    def placed(change: Any) -> bool:
        if isinstance(change, DirentChange):
            return fits(change.key, 0)
        ino = change.key[0]
        if tree and ino == tree and not name:
            return True
        return any(fits(link, ino) for link in links.get(ino, ()))

    def owned(change: Any, owners: dict[int, set[int]]) -> bool:
        images = [image for image in (change.old, change.new) if image is not None]
        inos = [image.ino for image in images] if isinstance(images[0], Dirent) else change.key
        return any(ino not in owners or owner in owners[ino] for ino in inos)

    found = []
    for record in bench.records:
        owners = {
            one.key[0]: {image.uid for image in (one.old, one.new) if image is not None}
            for one in record.changes
            if isinstance(one, InodeChange)
        }
        anywhere = not tree and not name
        before = [anywhere or placed(one) for one in record.changes]
        for one in record.changes:
            if isinstance(one, DirentChange):
                if one.old is not None:
                    links[one.old.ino].discard(one.key)
                if one.new is not None:
                    links.setdefault(one.new.ino, set()).add(one.key)
        shown = {event.cursor: event for event in changes.events_of(record)}
        for at, one in enumerate(record.changes):
            event = shown.get(f"{record.epoch}-{record.position}.{at}")
            if (
                event is not None
                and (before[at] or placed(one))
                and (not kinds or event.kind in kinds)
                and (not operations or record.operation in operations)
                and (owner is None or owned(one, owners))
            ):
                found.append(event.cursor)
    return found


def with_a_tree(bench: Bench, seed: int, count: int = 400) -> int:
    """Random moves in, out and within /tree, which is never removed; its inode."""
    bench.add([bench.model.mkdir(1, b"tree")])
    tree = bench.model.dirents[1, b"tree"].ino
    rng = random.Random(seed)
    while len(bench.records) < count:
        if len(bench.model.children[tree]) < 2:  # never empty, so never removed
            bench.add([bench.model.create(tree, b"keep%d" % len(bench.records))])
        bench.add([random_step(bench.model, rng)])
    if (key := min(bench.model.links[tree])) != (1, b"tree"):
        bench.add([bench.model.rename(*key, 1, b"tree")])
    return tree


def behind(cursors: list[str], start: str) -> list[str]:
    """Those that come after a cursor."""
    place = changes.parse_cursor(start).place
    return [one for one in cursors if changes.parse_cursor(one).place > place]


@pytest.mark.parametrize("seed", range(4))
async def test_prefix_is_a_directory_as_of_each_record(bench: Bench, seed: int) -> None:
    """Files and directories long gone: the same events as a replay of all history finds."""
    tree = with_a_tree(bench, seed)
    expected = wanted(bench, tree=tree)
    assert 50 < len(expected) < len(bench.expected()) - 50
    async with serving(bench) as client:
        lines = await read_all(client, prefix="/tree")
    assert [line.cursor for line in events(lines)] == expected
    assert_chained(lines, "0-0")


FILTERS: list[tuple[str, dict[str, str], Callable[[Bench, int], list[str]]]] = [
    ("kind", {"kind": "remove"}, lambda b, _: wanted(b, kinds=frozenset({"remove"}))),
    (
        "operation",
        {"operation": "commit,rename"},
        lambda b, _: wanted(b, operations=COMMIT_OR_RENAME),
    ),
    ("owner", {"owner": "1002"}, lambda b, _: wanted(b, owner=1002)),
    ("name", {"name": "*.log"}, lambda b, _: wanted(b, name="*.log")),
    ("name-odd", {"name": "na?ve[0-3]*"}, lambda b, _: wanted(b, name="na?ve[0-3]*")),
    (
        "name-not-utf8",
        {"name": "x\U0010feff*"},
        lambda b, _: wanted(b, name="x\U0010feff*"),
    ),
    (
        "all",
        {
            "prefix": "/tree", "name": "*[0-5]*", "owner": "1000", "kind": "modify,insert",
            "operation": "commit,rename,create",
        },
        lambda b, tree: wanted(
            b, tree=tree, name="*[0-5]*", owner=1000, kinds=frozenset({"modify", "insert"}),
            operations=COMMIT_OR_RENAME | {"create"},
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("query", "oracle"), [pytest.param(q, o, id=i) for i, q, o in FILTERS])
async def test_filters_pass_what_a_replay_finds_from_wherever_one_begins(
    bench: Bench, query: dict[str, str], oracle: Callable[[Bench, int], list[str]]
) -> None:
    tree = with_a_tree(bench, 7, 300)
    whole = oracle(bench, tree)
    assert 3 < len(whole) < len(bench.expected()) - 50
    cursors = bench.expected()
    async with serving(bench) as client:
        for start in ("0-0", cursors[len(cursors) // 3], whole[len(whole) // 2]):
            lines = await read_all(client, **query, **{"from": start})
            assert [line.cursor for line in events(lines)] == behind(whole, start)
            assert_chained(lines, start)
            limited = await read_all(client, **query, **{"from": start, "limit": "2"})
            assert [line.cursor for line in events(limited)] == behind(whole, start)[:2]
            assert_chained(limited, start)


async def test_filtered_readers_share_what_was_encoded(bench: Bench) -> None:
    grow(bench, 3, 300)
    async with serving(bench) as client:
        first = await read_all(client, operation="commit", owner="1000")
        made = (await client.get("/statistics")).json()["stretches_made_total"]
        second = await read_all(client, owner="1000", operation="commit")
        figures = (await client.get("/statistics")).json()
    assert events(first) == events(second)
    assert made == figures["stretches_made_total"] == figures["stretches_shared_total"]


async def test_readers_who_began_apart_meet_in_the_same_stretches(bench: Bench) -> None:
    grow(bench, 5, 1200)
    cursors = bench.expected()
    async with serving(bench) as client:
        whole = await read_all(client)
        made = (await client.get("/statistics")).json()["stretches_made_total"]
        rest = await read_all(client, **{"from": cursors[40].partition(".")[0]})
        after = (await client.get("/statistics")).json()["stretches_made_total"]
    assert made > 2
    assert after == made + 1  # the first one alone begins elsewhere
    tail = events(rest)
    assert [line.cursor for line in tail[1:]] == [
        line.cursor for line in events(whole)[-len(tail) + 1 :]
    ]
    assert_chained(rest, cursors[40].partition(".")[0])


async def test_following_a_tree_remembers_no_more_than_is_still_to_be_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_links, "UNDONE_MAX", 40)
    bench.add([bench.model.mkdir(1, b"tree")])
    tree = bench.model.dirents[1, b"tree"].ino
    async with (
        serving(bench) as client,
        client.stream("GET", "/stream?prefix=/tree&from=now&limit=120&kind=insert") as answer,
        abandoned(answer.aiter_raw()) as chunks,
    ):
        lines = changes.decode_lines(await anext(chunks))
        for number in range(60):
            bench.add([bench.model.create(tree, b"%d" % number)])
            with trio.fail_after(5):
                while len(events(lines)) < 2 * number + 2:
                    lines += changes.decode_lines(await anext(chunks))
    assert len(events(lines)) == 120
    assert {line.operation for line in events(lines)} == {"create"}


async def test_a_copy_comes_to_all_whom_it_may_concern(bench: Bench) -> None:
    bench.add([bench.model.mkdir(1, b"source"), bench.model.mkdir(1, b"other")])
    source = bench.model.dirents[1, b"source"].ino
    root = bench.model.inodes[source]
    made = InodeChange((99,), None, root)
    named = DirentChange((1, b"copy"), None, Dirent(99, root.mode & 0o170000))
    copy = Copy(source, 1, b"copy", 99, 99, 1, owners={1003: (1, 0)})
    bench.model.position += 1
    position = bench.model.position
    record = Record(position, 3, 5, "snapshot", bench.model.actor, [made, named], copy=copy)
    bench.add([record])
    async with serving(bench) as client:
        for query, count in (
            ({"kind": "copy"}, 1),
            ({"kind": "copy", "owner": "1003"}, 1),
            ({"kind": "copy", "owner": "1000"}, 0),
            ({"kind": "copy", "name": "*.log"}, 1),  # such names may lie in it
            ({"kind": "copy", "prefix": "/other"}, 0),
            ({"kind": "copy", "operation": "snapshot"}, 1),
            ({"kind": "copy", "operation": "clone"}, 0),
        ):
            lines = events(await read_all(client, **query))
            assert [line.kind for line in lines] == [COPY] * count, query


@pytest.mark.parametrize(
    "query",
    ["operation=drop", "owner=root", "owner=-1", f"name={'x' * 1001}", "tables=landed"],
)
async def test_bad_filter_is_a_clear_400(bench: Bench, query: str) -> None:
    async with serving(bench) as client:
        answer = await client.get("/stream?" + query)
    assert answer.status_code == 400
    assert answer.json()["message"]


async def test_a_pattern_cannot_make_the_server_think_for_ever(bench: Bench) -> None:
    bench.add([bench.model.create(1, b"a" * 255)])
    async with serving(bench) as client:
        with trio.fail_after(5):
            answer: httpx.Response = await client.get(
                "/stream", params={"follow": "0", "name": "*a" * 300 + "b"}
            )
    assert events(changes.decode_lines(answer.content)) == []
