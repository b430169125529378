"""Record append against a primary that fails in every way: once, whole, in order."""

from __future__ import annotations

import os
import random

import pytest
import trio

from gfs import messages as m
from gfs.client.files import OpenFile
from gfs.errors import ChunkFull, Fenced, GfsError, NotFound, Refused
from gfs.ids import KIB, MIB
from gfs.messages import Message
from tests.logcheck import ExpectLog
from tests.shell.client_fakes import World, world

APPEND = os.O_RDWR | os.O_APPEND


async def opened(w: World, flags: int = APPEND) -> OpenFile:
    return await w.client.open(w.master.new_file(), flags, w.client.actor)


def records_sent(w: World) -> list[m.RecordAppend]:
    return [
        seen for server in w.servers for seen in server.seen if isinstance(seen, m.RecordAppend)
    ]


async def test_the_first_record_goes_at_once_and_the_rest_gather() -> None:
    async with world() as w:
        file = await opened(w)
        for number in range(100):
            await file.write(0, b"%03d\n" % number)
        await file.flush()
        counts = [message.count for message in records_sent(w)]
        assert sum(counts) == 100
        assert len(counts) < 10
        assert w.master.content(file.ino) == b"".join(b"%03d\n" % n for n in range(100))
        file.release()


async def test_a_write_larger_than_a_record_is_several_records_in_order() -> None:
    async with world(chunk_bytes=8 * MIB) as w:
        file = await opened(w)
        data = random.Random(1).randbytes(3 * MIB + 1)
        assert await file.write(0, data) == len(data)
        await file.flush()
        assert w.master.content(file.ino) == data
        file.release()


@pytest.mark.parametrize("same_chunk", [False, True])
@pytest.mark.parametrize("landed", [False, True])
async def test_in_doubt_the_master_says_what_landed(landed: bool, same_chunk: bool) -> None:
    async with world() as w:
        file = await opened(w)
        await file.append(b"a")
        await file.flush()
        w.master.release_next = same_chunk
        if landed:
            w.servers[0].faults.after.append(m.RecordAppend)
        else:
            w.servers[0].faults.before.append((m.RecordAppend, None))
        await file.append(b"b")
        await file.append(b"c")
        await file.flush()
        assert w.master.content(file.ino) == b"abc"
        file.release()


async def test_sequences_begin_at_one_in_a_new_chunk() -> None:
    async with world() as w:
        file = await opened(w)
        for data in (b"a", b"b"):
            await file.append(data)
            await file.flush()
        w.master.seal_tail(file.ino)
        await file.append(b"c")
        await file.flush()
        assert [message.first for message in records_sent(w)] == [1, 2, 3, 1]
        assert w.master.content(file.ino) == b"abc"
        file.release()


async def test_fsync_of_an_append_handle_syncs_at_the_chain() -> None:
    async with world() as w:
        file = await opened(w)
        await file.append(b"abc")
        await file.sync()
        (replica,) = w.servers[0].replicas.values()
        assert replica.synced == 3
        file.release()


async def test_o_dsync_appends_return_when_synced() -> None:
    async with world() as w:
        file = await opened(w, APPEND | os.O_DSYNC)
        await file.write(0, b"abc")
        (replica,) = w.servers[0].replicas.values()
        assert replica.synced == 3
        file.release()


async def test_a_record_that_fails_fails_all_behind_it(expect_log: ExpectLog) -> None:
    expect_log("append.failed")
    async with world() as w:
        file = await opened(w)
        w.servers[0].faults.before.append((m.RecordAppend, Fenced("fenced")))
        w.master.faults.before.append((m.ResolveTail, NotFound("gone")))
        await file.append(b"a")
        await file.append(b"b")
        with pytest.raises(NotFound):
            await file.flush()
        with pytest.raises(NotFound):
            await file.append(b"c")
        assert w.master.content(file.ino) == b""
        again = await w.client.open(file.ino, APPEND, w.client.actor)
        await again.append(b"d")
        await again.flush()
        assert w.master.content(file.ino) == b"d"
        file.release()
        again.release()


async def test_nothing_is_appended_behind_acknowledged_records_that_are_gone(
    expect_log: ExpectLog,
) -> None:
    """The only member lost its power: once the next record took the place of the lost one."""
    expect_log("append.failed")
    async with world() as w:
        file = await opened(w)
        for data in (b"a", b"b"):
            await file.append(data)
            await file.flush()
        (replica,) = w.servers[0].replicas.values()
        del replica.data[1:]
        replica.writers = dict.fromkeys(replica.writers, 1)
        w.servers[0].faults.before.append((m.RecordAppend, Fenced("fenced")))
        await file.append(b"c")
        with pytest.raises(Refused, match="lost records"):
            await file.sync()
        assert w.master.content(file.ino) == b"a"
        file.release()


async def test_a_reader_of_the_same_process_sees_what_was_appended() -> None:
    async with world() as w:
        file = await opened(w)
        await file.append(b"hello ")
        await file.append(b"world")
        assert await file.size() == 11
        assert bytes(await file.read(0, 100)) == b"hello world"
        (grown,) = await w.client.grown([w.master.entry(file.ino)])
        assert grown.size == 11
        file.release()


async def test_a_reader_is_given_no_more_than_the_primary_acknowledges() -> None:
    async with world() as w:
        writer = await opened(w)
        await writer.append(b"abc")
        await writer.flush()
        reader = await w.client.open(writer.ino, os.O_RDONLY, w.client.actor)
        w.servers[0].replicas[w.master.files[writer.ino].tail].data += b"def"  # another's
        assert bytes(await reader.read(0, 3)) == b"abc"
        assert bytes(await reader.read(0, 100)) == b"abcdef"
        reader.release()
        writer.release()


async def test_what_a_tail_had_is_read_though_nobody_told_that_it_was_sealed() -> None:
    """Attributes asked for come before word of a change: an older layout made zeros of it."""
    async with world() as w:
        writer = await opened(w)
        await writer.append(b"abcdef")
        await writer.flush()
        reader = await w.client.open(writer.ino, os.O_RDONLY, w.client.actor)
        tail = w.master.files[writer.ino].tail
        w.client.reader.layouts.forget_chunk(tail)  # where it lies is asked again
        w.master.seal_tail(writer.ino)
        w.master.files[writer.ino].version += 1
        w.master.position += 1
        assert bytes(await reader.read(0, 100)) == b"abcdef"
        reader.release()
        writer.release()


async def test_private_writes_come_before_a_later_append() -> None:
    async with world() as w:
        private = await opened(w, os.O_RDWR)
        await private.write(0, b"head")
        tail = await w.client.open(private.ino, APPEND, w.client.actor)
        await tail.write(0, b"-tail")
        await tail.flush()
        assert w.master.content(private.ino) == b"head-tail"
        private.release()
        tail.release()


async def test_sizes_of_many_tails_cost_few_questions() -> None:
    async with world() as w:
        files = [await opened(w) for _ in range(40)]
        for file in files:
            await file.append(b"abc")
            await file.flush()
        entries = [w.master.entry(file.ino) for file in files]
        assert [grown.size for grown in await w.client.grown(entries)] == [3] * 40
        questions = [seen for seen in w.servers[0].seen if isinstance(seen, m.TailEnds)]
        assert len(questions) <= 3
        for file in files:
            file.release()


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_fails_every_record_stands_once_whole_and_in_order(seed: int) -> None:
    # Goal: exactly once. Method: two processes' worth of writers (two appenders on one file
    # through one client and a second client) would need two masters' sessions; one writer and
    # every fault at random steps covers the sequences, which are per writer.
    draw = random.Random(seed)
    async with world(servers=3, chunk_bytes=8 * KIB) as w:
        file = await opened(w)
        truth = b""
        for number in range(150):
            record = b"<%d:" % number + draw.randbytes(draw.randrange(0, 200)) + b">"
            await file.append(record)
            truth += record
            step = draw.random()
            if step < 0.15:
                strike(draw, w, file.ino)
            elif step < 0.25:
                await (file.sync() if draw.random() < 0.5 else file.flush())
            elif step < 0.35:
                await trio.lowlevel.checkpoint()
            elif step < 0.4:
                assert bytes(await file.read(0, len(truth) + 1)) == truth
        await file.sync()
        assert w.master.content(file.ino) == truth
        file.release()


def strike(draw: random.Random, w: World, ino: int) -> None:
    """One fault, somewhere."""
    server = draw.choice(w.servers)
    errors: list[GfsError | None] = [None, Fenced("fenced"), ChunkFull("full")]
    asked: list[type[Message]] = [m.RecordAppend, m.Sync, m.Join]
    changes: list[type[Message]] = [m.ResolveTail, m.OpenTail]
    kind = draw.randrange(8)
    if kind < 2:
        server.faults.before.append((m.RecordAppend, draw.choice(errors)))
    elif kind == 2:
        server.faults.after.append(draw.choice(asked))
    elif kind == 3:
        server.cut()
    elif kind == 4:
        w.master.cut()
    elif kind == 5:
        w.master.faults.after.append(draw.choice(changes))
    elif kind == 6 and w.master.files[ino].tail:
        w.master.seal_tail(ino)
    else:
        w.master.release_next = True
