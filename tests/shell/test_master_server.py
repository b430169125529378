"""The master's shell: groups, slow, full and broken disks, strangers, lost replies."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import trio

from gfs import messages as m
from gfs.errors import BadKey, DeadSession, GfsError, NoSpace, StorageFailed
from gfs.records import DECODER
from tests.logcheck import ExpectLog
from tests.shell.master_server import KEY, ROOT, MoodyDisk, client, master, until

pytestmark = pytest.mark.timeout(30)


async def test_a_pipeline_of_mutations_shares_groups_and_keeps_its_order(tmp_path: Path) -> None:
    disk = MoodyDisk()
    async with master(tmp_path / "m", disk) as running, client(running) as a:
        await a.open()
        operations = [m.Create(1, b"%03d" % number, 0o600, 0) for number in range(500)]
        before, steps = disk.syncs, running.server.steps_total
        answers = a.pipeline([a.mutation(op, low=1) for op in operations])
        await until(lambda: None not in answers)
        positions = [answer.position for answer in answers if isinstance(answer, m.Done)]
        assert len(positions) == 500
        assert positions == list(range(positions[0], positions[0] + 500))
        assert disk.syncs - before < 100, "500 mutations, few syncs"
        assert running.server.steps_total - steps < 100
        listing = await a.connection.call(m.ReadDirectory(1, b"", 1000, False, ROOT))
        assert isinstance(listing, m.Listing)
        assert [item.name for item in listing.entries] == [op.name for op in operations]


@pytest.mark.alone
async def test_reads_go_on_while_a_sync_is_slow(tmp_path: Path) -> None:
    disk = MoodyDisk()
    async with master(tmp_path / "m", disk) as running, client(running) as a:
        await a.open()
        await a.create(b"old")
        disk.sync_s = 0.02
        for number in range(3):
            await a.create(b"slow%d" % number)  # the loop learns that this disk is slow
        disk.sync_s = 0.5
        answers = a.pipeline([a.mutation(m.Create(1, b"new", 0o600, 0))])
        began = trio.current_time()
        async with client(running) as b:
            await b.open("")  # waits for the sync under way, then for its own
            waited = trio.current_time() - began
            assert answers[0] is not None
        assert waited < 2
        answers = a.pipeline([a.mutation(m.Create(1, b"newer", 0o600, 0))])
        await trio.sleep(0.05)
        began = trio.current_time()
        assert (await a.lookup(b"old")).ino
        assert (await a.lookup(b"newer")).ino == 0, "not durable, so not there"
        assert trio.current_time() - began < 0.3
        assert answers[0] is None
        await until(lambda: answers[0] is not None)
        assert (await a.lookup(b"newer")).ino
        disk.sync_s = 0.0


async def test_work_that_always_makes_more_work_starves_nobody(tmp_path: Path) -> None:
    """An order to a server that is gone is answered at once, and the answer may order again."""
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as a:
        await a.open()
        engine, orders = running.server._core.engine, 0

        def again(_: object) -> None:
            nonlocal orders
            if orders >= 0:
                orders += 1
                engine.order_server(99, m.DeleteReplicas([], engine.epoch), again)

        running.server._do(lambda: again(None))
        assert (await a.create(b"f")).created
        assert orders > 1
        orders = -1


async def test_what_arrives_during_a_sync_is_the_next_group(tmp_path: Path) -> None:
    disk = MoodyDisk()
    async with master(tmp_path / "m", disk) as running, client(running) as a:
        await a.open()
        disk.sync_s = 0.02
        for number in range(3):
            await a.create(b"slow%d" % number)
        disk.sync_s = 0.2
        first = a.pipeline([a.mutation(m.Create(1, b"first", 0o600, 0))])
        await trio.sleep(0.05)
        steps = running.server.steps_total
        answers: list[m.Message | GfsError | None] = []
        for number in range(50):
            answers = a.pipeline([a.mutation(m.Create(1, b"%d" % number, 0o600, 0), low=1)])
            await trio.sleep(0.001)
        await until(lambda: None not in (*first, *answers))
        assert running.server.steps_total - steps <= 3
        disk.sync_s = 0.0


async def test_a_full_disk_refuses_and_recovers(tmp_path: Path, expect_log: ExpectLog) -> None:
    expect_log(r"space\.exhausted", times=1)
    disk = MoodyDisk()
    async with master(tmp_path / "m", disk) as running, client(running) as a:
        await a.open()
        first = await a.mutate(m.Create(1, b"f", 0o600, 0), number=1, low=1)
        disk.full = True
        await trio.sleep(0.15)
        a.number = 1
        with pytest.raises(NoSpace):
            for number in range(100):
                await a.mutate(m.Create(1, b"%d" % number, 0o600, 0), low=1)
        assert (await a.lookup(b"f")).ino, "reads go on"
        again = await a.mutate(m.Create(1, b"f", 0o600, 0), number=1, low=1)
        assert again == first, "what landed has landed"
        disk.full = False
        await trio.sleep(0.15)
        with trio.fail_after(5):
            while running.server._has_room is False:
                with contextlib.suppress(NoSpace):
                    await a.create(b"g")
                await trio.sleep(0.02)
        assert (await a.create(b"h")).created


async def test_after_a_failed_sync_nobody_is_answered_and_the_master_ends(tmp_path: Path) -> None:
    disk = MoodyDisk()
    answers: list[m.Message | GfsError | None] = []
    with pytest.raises(BaseExceptionGroup) as ended:
        async with master(tmp_path / "m", disk) as running, client(running) as a:
            await a.open()
            disk.broken = True
            answers = a.pipeline([a.mutation(m.Create(1, b"f", 0o600, 0))])
            await trio.sleep_forever()
    assert ended.group_contains(StorageFailed)
    assert not any(isinstance(answer, m.Done) for answer in answers)


@pytest.mark.parametrize(("epoch", "committed"), [(1, 1_000), (2, 0)])
async def test_a_master_restored_from_an_old_copy_ends_when_a_server_has_heard_of_more(
    tmp_path: Path, epoch: int, committed: int
) -> None:
    """It would hand out numbers a second time and judge chunks it does not know."""
    register = m.RegisterServer(
        m.ChainMember(1, "127.0.0.1:1"), "boot", "", 1 << 40, 1 << 40, committed, epoch
    )
    with pytest.raises(BaseExceptionGroup) as ended:
        async with (
            master(tmp_path / "m", MoodyDisk()) as running,
            client(running, role="chunkd") as server,
        ):
            server.connection.request(register, lambda answer, payload: None)
            await trio.sleep_forever()
    assert ended.group_contains(StorageFailed, match="not the newest copy")


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0" * 4096,
        b"\xff" * 4096,
        bytes(range(256)) * 64,
    ],
)
async def test_garbage_ends_its_connection_alone(tmp_path: Path, garbage: bytes) -> None:
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as a:
        await a.open()
        async with await trio.open_unix_socket(running.unix) as stream:
            await stream.send_all(garbage)
            with trio.fail_after(8), contextlib.suppress(trio.BrokenResourceError):
                while await stream.receive_some(65536):
                    pass
        assert (await a.create(b"f")).created


async def test_garbage_behind_a_handshake_ends_its_connection_alone(tmp_path: Path) -> None:
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as a:
        await a.open()
        async with client(running) as b:
            await b.open()
            b.connection._socket.send(b"\xff" * 100)
            await until(lambda: b.connection.closed is not None)
        assert (await a.create(b"f")).created


ODD: list[m.Message] = [
    m.Lookup(1 << 63, b"x", ROOT),
    m.Lookup(-1, b"x", ROOT),
    m.GetAttributes([(1 << 64) - 1], ROOT),
    m.GetLayout(1, 1 << 63, 1 << 63, ROOT),
    m.Open(1, 3, ROOT),
    m.Locate([1 << 63]),
    m.ListTrash(ROOT, 1 << 63),
    m.ReadDirectory(1, b"", -5, True, ROOT),
    m.Walk(b"x" * 5000, True, ROOT),
    m.OpenSession((1 << 64) - 1, "", "", 0, 0),
    m.Mutate((1 << 64) - 1, (1 << 64) - 1, ROOT, m.Allocate()),
    m.Mutate(1, 1, ROOT, m.Create(1 << 63, b"x", 1 << 40, 0)),
    m.Mutate(2, 1, ROOT, m.SetAttributes(1, mtime_ns=(1 << 64) - 1)),
    m.Mutate(3, 1, ROOT, m.EmptyTrash([1 << 63])),
    m.Mutate(4, 1, ROOT, m.SealChunk(1 << 63, 1)),
    m.Mutate(5, 1, ROOT, m.Undelete(1 << 63)),
    m.Heartbeat(0, 0, []),
    m.Done(1),
]


ODD_REPORTS = [
    m.ReportReplicas([m.ReplicaReport(1 << 63, 1, True, 0, 0)], True),
    m.ReportReplicas([], True, gone=[1 << 63]),
    m.Heartbeat(0, 0, [m.TailGrowth(1 << 63, 1, 1, 0)]),
    m.Heartbeat(0, 0, [], bad=[-1]),
    m.Growth([m.TailGrowth(1, 1, 1 << 63, 0)]),
]


@pytest.mark.parametrize("message", ODD, ids=lambda message: type(message).__name__)
async def test_odd_requests_are_answered_and_the_master_stays(
    tmp_path: Path, message: m.Message
) -> None:
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as a:
        await a.open()
        answers = a.pipeline([message])
        await until(lambda: answers[0] is not None)
        async with client(running) as b:
            await b.open()
            assert (await b.create(b"f")).created


async def test_odd_chunk_servers_are_refused_and_the_master_stays(
    tmp_path: Path, expect_log: ExpectLog
) -> None:
    expect_log(r"server\.lost", optional=True)
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as a:
        await a.open()
        async with client(running, role="chunkd") as server:
            with pytest.raises(GfsError):
                await server.connection.call(m.ReportReplicas([], True))
            nobody = m.ChainMember(1 << 63, "x:1")
            with pytest.raises(GfsError):
                await server.connection.call(m.RegisterServer(nobody, "", "", 0, 0, 0, 0))
        for number, odd in enumerate(ODD_REPORTS):
            async with client(running, role="chunkd") as server:
                member = m.ChainMember(1 + number, "x:1")
                await server.connection.call(m.RegisterServer(member, "", "", 0, 0, 0, 0))
                server.connection.post(odd)
                await until(lambda: server.connection.closed is not None)
        assert (await a.create(b"f")).created


async def test_a_wrong_key_is_refused(tmp_path: Path) -> None:
    async with master(tmp_path / "m", MoodyDisk()) as running:
        for unix in (True, False):
            with pytest.raises(BadKey):
                async with client(running, unix=unix, key=b"x" * 64):
                    pass
        async with client(running, unix=False) as a:
            await a.open()


async def test_a_lost_reply_is_given_again_after_a_reconnection(tmp_path: Path) -> None:
    async with master(tmp_path / "m", MoodyDisk()) as running:
        async with client(running) as a:
            session = (await a.open()).session
            answers = a.pipeline([a.mutation(m.Create(1, b"f", 0o600, 0o200))])
            a.connection._pending.clear()  # nobody hears the answer
            await until(lambda: running.core.engine.position > 2)
        async with client(running) as b:
            await b.open(session=session)
            done = await b.mutate(m.Create(1, b"f", 0o600, 0o200), number=1)
        assert answers == [None]
        assert done.created
        payloads = [running.ledger.log.read(p)[1] for p in range(1, running.ledger.position + 1)]
        assert [DECODER.decode(one).operation for one in payloads].count("create") == 1


async def test_a_lost_reply_is_given_again_by_the_next_master(tmp_path: Path) -> None:
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as a:
        session = (await a.open()).session
        first = await a.create(b"f")
        await a.create(b"g")
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as a:
        assert (await a.open(session=session)).epoch == 2
        assert await a.mutate(m.Create(1, b"f", 0o644, 0), number=1, low=1) == first


async def test_invalidations_wait_for_a_session_that_comes_back(tmp_path: Path) -> None:
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as a:
        await a.open("/a")
        async with client(running) as b:
            session = (await b.open("/b")).session
            await b.lookup(b"f")
            b.on_ask = lambda _: False
            answers = a.pipeline([a.mutation(m.Create(1, b"f", 0o600, 0))])
            await until(lambda: bool(b.asked))
            assert answers == [None]
        await trio.sleep(0.05)
        assert answers == [None], "a lost connection is no acknowledgement"
        async with client(running) as again:
            await again.open("/b", session=session)
            await until(lambda: answers[0] is not None)
            told = [message for message in again.asked if isinstance(message, m.Invalidate)]
            assert told[0].names == [m.NamePair(1, b"f")]


async def test_a_mount_that_refuses_to_drop_is_told_again(
    tmp_path: Path, expect_log: ExpectLog
) -> None:
    expect_log(r"invalidate\.refused", times=1)
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as a:
        await a.open("/a")
        async with client(running) as b:
            session = (await b.open("/b")).session
            await b.lookup(b"f")
            b.on_ask = lambda _: False
            answers = a.pipeline([a.mutation(m.Create(1, b"f", 0o600, 0))])
            await until(lambda: bool(b.requests))
            b.connection.refuse(b.requests[0], GfsError("cannot"))
            await until(lambda: b.connection.closed is not None)
            assert answers == [None]
        async with client(running) as again:
            await again.open("/b", session=session)
            await until(lambda: answers[0] is not None)


@pytest.mark.alone
async def test_a_mount_that_stays_away_is_waited_for_its_lease(tmp_path: Path) -> None:
    async with (
        master(tmp_path / "m", MoodyDisk(), lease_s=0.6) as running,
        client(running) as a,
    ):
        await a.open("/a")
        async with client(running) as b:
            await b.open("/b")
            await b.lookup(b"f")
            b.on_ask = lambda _: False
            began = trio.current_time()
            answers = a.pipeline([a.mutation(m.Create(1, b"f", 0o600, 0))])
            while answers[0] is None:
                await a.connection.call(m.Renew())
                await trio.sleep(0.05)
            assert 0.4 < trio.current_time() - began < 1.5
            with pytest.raises(DeadSession):
                await b.create(b"g")
            with pytest.raises(DeadSession):
                await b.connection.call(m.Renew())


async def test_two_sessions_on_one_connection_do_not_confuse_it(tmp_path: Path) -> None:
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as a:
        first = await a.open()
        second = await a.open()
        assert first.session != second.session
        assert (await a.create(b"f")).created
    assert KEY
