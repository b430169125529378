"""Write-behind: nothing is committed early, nothing is lost, errors are told once."""

from __future__ import annotations

import os
import random

import pytest
import trio

from gfs import messages as m
from gfs.client.files import OpenFile
from gfs.errors import (
    DeadSession,
    Fenced,
    MemberFailed,
    NoSpace,
    PermissionDenied,
    Refused,
    TooLarge,
)
from gfs.ids import KIB, MIB
from gfs.messages import Message
from tests.logcheck import ExpectLog
from tests.shell.client_fakes import World, world
from tests.shell.master_server import until


async def opened(w: World, flags: int = os.O_RDWR) -> OpenFile:
    return await w.client.open(w.master.new_file(), flags, w.client.actor)


def appends(w: World) -> list[m.Append]:
    return [seen for server in w.servers for seen in server.seen if isinstance(seen, m.Append)]


async def test_many_small_files_share_a_frame_and_a_commit() -> None:
    async with world() as w:
        files = [await opened(w) for _ in range(50)]
        for number, file in enumerate(files):
            await file.write(0, b"%04d" % number * 100)
            await file.flush()
            file.release()
        await w.client.flush_all(durable=False)
        assert len(appends(w)) == 1
        assert [len(batch.files) for batch in w.master.batches] == [50]
        for number, file in enumerate(files):
            assert w.master.content(file.ino) == b"%04d" % number * 100


async def test_contiguous_writes_become_frames_of_a_mebibyte_and_one_extent() -> None:
    async with world(chunk_bytes=4 * MIB) as w:
        file = await opened(w)
        data = random.Random(1).randbytes(2 * MIB)
        for start in range(0, len(data), 128 * KIB):
            await file.write(start, data[start : start + 128 * KIB])
        await file.sync()
        sizes = [message.offset for message in appends(w)]
        assert sizes == [0, MIB]
        assert w.master.content(file.ino) == data
        file.release()


async def test_a_chunk_that_is_full_is_followed_by_the_next_without_a_gap() -> None:
    async with world(chunk_bytes=3 * MIB) as w:
        file = await opened(w)
        data = random.Random(2).randbytes(11 * MIB + 17)
        for start in range(0, len(data), 1_000_000):
            await file.write(start, data[start : start + 1_000_000])
        await file.sync()
        assert w.master.content(file.ino) == data
        file.release()


async def test_fsync_returns_after_sync_at_the_chain_and_the_commit() -> None:
    async with world() as w:
        file = await opened(w)
        await file.write(0, b"abc")
        await file.sync()
        (replica,) = [r for r in w.servers[0].replicas.values() if r.data]
        assert replica.synced == 3
        assert w.master.content(file.ino) == b"abc"
        file.release()


async def test_fsync_after_the_handle_that_wrote_has_closed_still_syncs() -> None:
    async with world() as w:
        file = await opened(w)
        await file.write(0, b"abc")
        await file.flush()
        file.release()
        await w.client.settle(file.ino)
        again = await w.client.open(file.ino, os.O_RDWR, w.client.actor)
        await again.sync()
        assert any(isinstance(seen, m.Sync) for seen in w.servers[0].seen)
        again.release()


@pytest.mark.parametrize(
    "trouble",
    ["lost before", "lost after", "fenced", "member failed", "join refused"],
)
async def test_bytes_of_a_chain_that_fails_are_written_again(trouble: str) -> None:
    async with world(servers=2) as w:
        for server in w.servers:
            before, after = server.faults.before, server.faults.after
            if trouble == "lost before":
                before.append((m.Append, None))
            elif trouble == "lost after":
                after.append(m.Append)
            elif trouble == "fenced":
                before.append((m.Append, Fenced("fenced")))
            elif trouble == "member failed":
                before.append((m.Append, MemberFailed("server 9: silent")))
            else:
                before.append((m.Join, MemberFailed("server 9: silent")))
        file = await opened(w)
        data = random.Random(3).randbytes(5 * MIB + 5)
        for start in range(0, len(data), 700_000):
            await file.write(start, data[start : start + 700_000])
        await file.sync()
        assert w.master.content(file.ino) == data
        assert any(
            isinstance(seen, m.Mutate) and isinstance(seen.operation, m.SealChunk)
            for seen in w.master.seen
        )
        file.release()


async def test_a_commit_whose_reply_was_lost_takes_effect_once() -> None:
    async with world() as w:
        w.master.faults.after.append(m.Commit)
        file = await opened(w)
        await file.write(0, b"abc")
        await file.sync()
        assert len(w.master.batches) == 1
        assert w.master.files[file.ino].version == 1
        file.release()


async def test_bytes_refused_where_they_lie_are_written_elsewhere() -> None:
    async with world() as w:
        w.master.refuse_commit = ["misplaced", "misplaced"]
        file = await opened(w)
        await file.write(0, b"abc")
        await file.sync()
        assert len(appends(w)) == 3
        assert w.master.content(file.ino) == b"abc"
        file.release()


async def test_a_refused_commit_is_told_once_to_each_handle(expect_log: ExpectLog) -> None:
    expect_log("write.lost")
    async with world() as w:
        one = await opened(w)
        two = await w.client.open(one.ino, os.O_RDWR, w.client.actor)
        w.master.refuse_commit = ["no-space"]
        await one.write(0, b"abc")
        for file in (one, two):
            with pytest.raises(NoSpace):
                await file.sync()
            await file.sync()
        three = await w.client.open(one.ino, os.O_RDWR, w.client.actor)
        await three.sync()
        for file in (one, two, three):
            file.release()


async def test_a_refused_file_does_not_hold_back_the_others(expect_log: ExpectLog) -> None:
    expect_log("write.lost")
    async with world() as w:
        bad, good = await opened(w), await opened(w)
        w.master.refuse_commit = ["stale-inode", ""]
        await bad.write(0, b"abc")
        await bad.flush()
        await good.write(0, b"def")
        await good.sync()
        assert w.master.content(good.ino) == b"def"
        bad.release()
        good.release()


async def test_writers_wait_when_too_much_is_dirty() -> None:
    async with world(chunk_bytes=8 * MIB, write_back_bytes=2 * MIB) as w:
        file = await opened(w)
        top = 0
        for at in range(12):
            await file.write(at * MIB, bytes([at]) * MIB)
            top = max(top, w.client.writeback.dirty_bytes)
        assert top <= 2 * MIB
        await file.sync()
        assert w.client.writeback.dirty_bytes == 0
        assert w.master.content(file.ino) == b"".join(bytes([at]) * MIB for at in range(12))
        file.release()


async def test_discarded_bytes_are_not_committed_and_free_their_room() -> None:
    async with world() as w:
        file = await opened(w)
        await file.write(0, b"abc")
        file.release()
        w.client.discard(file.ino)
        assert w.client.writeback.dirty_bytes == 0
        await w.client.flush_all(durable=False)
        assert not w.master.batches


async def test_after_a_lost_session_bytes_are_written_again_conditionally(
    expect_log: ExpectLog,
) -> None:
    expect_log("session.dead")
    async with world() as w:
        file = await opened(w)
        await file.write(0, b"abc")
        await file.sync()
        w.master.faults.before.append((m.Commit, DeadSession("gone")))
        await file.write(3, b"def")
        await file.sync()
        assert w.master.content(file.ino) == b"abcdef"
        assert w.master.batches[-1].files[0].data_version_seen == 1
        file.release()


async def test_a_file_that_changed_while_the_session_was_lost_gets_an_error(
    expect_log: ExpectLog,
) -> None:
    expect_log("session.dead")
    expect_log("write.lost")
    async with world() as w:
        file = await opened(w)
        await file.write(0, b"abc")
        w.master.faults.before.append((m.Commit, DeadSession("gone")))
        w.master.refuse_commit = ["refused"]
        with pytest.raises(Refused):
            await file.sync()
        file.release()


async def test_utimens_after_a_write_wins() -> None:
    async with world() as w:
        file = await opened(w)
        await file.write(0, b"abc")
        w.client.utimens(file.ino)
        await file.sync()
        await file.write(3, b"d")
        await file.sync()
        first, second = w.master.files[file.ino].mtimes
        assert first == 0
        assert second > 0
        file.release()


async def test_closes_are_told_in_batches_once_everything_is_committed() -> None:
    async with world() as w:
        files = [await opened(w) for _ in range(5)]
        for file in files:
            await file.write(0, b"x")
            await file.flush()
            file.release()
        await w.client.flush_all(durable=False)
        inos = {file.ino for file in files}
        for _ in range(200):  # the batch leaves within its quarter of a second
            if told(w) == inos:
                break
            await trio.sleep(0.02)
        assert told(w) == inos
        messages = [seen for seen in w.master.seen if isinstance(seen, m.CloseFiles)]
        assert len(messages) <= 2


async def test_who_opens_again_while_the_last_commit_is_answered_stays_a_writer() -> None:
    async with world() as w, trio.open_nursery() as nursery:
        first = await opened(w)
        await first.write(0, b"old")
        w.master.hold = (m.Commit, m.Open)
        await first.flush()
        first.release()
        await until(lambda: seen(w, m.Commit) == 1)
        again: list[OpenFile] = []

        async def open_again() -> None:
            again.append(await w.client.open(first.ino, os.O_RDWR, w.client.actor))

        nursery.start_soon(open_again)
        await until(lambda: seen(w, m.Open) == 2)
        w.master.let_go()  # the commit is answered first, then the open
        await until(lambda: bool(again))
        other = await opened(w)
        other.release()
        await until(lambda: other.ino in told(w))  # the batch that would tell the first
        assert first.ino not in told(w)
        await again[0].write(0, b"new")
        await again[0].sync()
        assert w.master.content(first.ino) == b"new"
        again[0].release()


async def test_an_open_that_is_refused_does_not_leave_the_session_a_writer() -> None:
    async with world() as w:
        file = await opened(w)
        await file.write(0, b"x")
        await w.client.flush_all(durable=False)
        file.release()
        w.master.faults.before.append((m.Open, PermissionDenied("no")))
        with pytest.raises(PermissionDenied):
            await w.client.open(file.ino, os.O_RDWR, w.client.actor)
        await until(lambda: file.ino in told(w))


def seen(w: World, kind: type[Message]) -> int:
    """How many of a kind the master has seen, alone or as mutations."""
    asked = (one.operation if isinstance(one, m.Mutate) else one for one in w.master.seen)
    return sum(isinstance(one, kind) for one in asked)


def told(w: World) -> set[int]:
    """Inodes told as written."""
    return {ino for seen in w.master.seen if isinstance(seen, m.CloseFiles) for ino in seen.written}


@pytest.mark.parametrize("seed", range(12))
async def test_random_writes_reads_truncates_and_faults_equal_a_bytearray(seed: int) -> None:
    # Goal: whatever is hidden, cut, flushed or struck by a fault, a read gives what an
    # ordinary file would. Method: one file, a bytearray beside it, random steps.
    draw = random.Random(seed)
    async with world(servers=2, chunk_bytes=256 * KIB) as w:
        file = await opened(w)
        truth = bytearray()
        for _ in range(120):
            step = draw.random()
            at = draw.randrange(0, 300 * KIB)
            if step < 0.5:
                data = draw.randbytes(draw.choice([1, 100, 4096, 70_000]))
                await file.write(at, data)
                truth.extend(bytes(max(0, at + len(data) - len(truth))))
                truth[at : at + len(data)] = data
            elif step < 0.8:
                length = draw.choice([1, 5000, 200_000])
                assert bytes(await file.read(at, length)) == truth[at : at + length]
            elif step < 0.85:
                await file.truncate(at)
                del truth[at:]
                truth.extend(bytes(at - len(truth)))
            elif step < 0.93:
                await (file.sync() if draw.random() < 0.5 else file.flush())
            else:
                strike(draw, w)
        await file.sync()
        assert await file.size() == len(truth)
        assert w.master.content(file.ino) == truth
        assert bytes(await file.read(0, len(truth) + 10)) == truth
        file.release()


def strike(draw: random.Random, w: World) -> None:
    """One fault, somewhere."""
    server = draw.choice(w.servers)
    asked: list[type[Message]] = [m.Append, m.Read, m.Sync]
    changes: list[type[Message]] = [m.Commit, m.Allocate, m.SealChunk]
    kind = draw.randrange(5)
    if kind == 0:
        server.faults.after.append(draw.choice(asked))
    elif kind == 1:
        server.faults.before.append((m.Append, Fenced("fenced")))
    elif kind == 2:
        server.cut()
    elif kind == 3:
        w.master.faults.after.append(draw.choice(changes))
    else:
        w.master.cut()


async def test_a_batch_that_does_not_fit_a_record_is_committed_in_parts() -> None:
    async with world() as w:
        files = [await opened(w) for _ in range(5)]
        for number, file in enumerate(files):
            for at in range(3):
                await file.write(at * 10, b"%d%d" % (number, at))
        w.master.commit_pieces_max = 2
        await w.client.flush_all(durable=False)
        for number, file in enumerate(files):
            content = b"".join(b"%d%d" % (number, at) + bytes(8) for at in range(3))
            assert w.master.content(file.ino) == content[:22]
            await file.sync()
            file.release()
        assert max(sum(len(f.ranges) for f in batch.files) for batch in w.master.batches) <= 2


async def test_a_single_piece_that_does_not_fit_a_record_is_an_error(
    expect_log: ExpectLog,
) -> None:
    expect_log("write.lost")
    async with world() as w:
        file = await opened(w)
        await file.write(0, b"abc")
        w.master.commit_pieces_max = 0
        with pytest.raises(TooLarge):
            await file.sync()
        file.release()
