"""A shadow follows, answers reads, takes over; masters and shadows are real, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from gfs import messages as m
from gfs.connection import Connection
from gfs.disk import PosixDisk
from gfs.errors import GfsError, ReadOnly, StorageFailed, TimedOut
from master import following
from master.checkpoint import make_checkpoint
from master.core import promotion
from master.promoting import Lead
from tests.logcheck import ExpectLog
from tests.shell.master_server import (
    ROOT,
    MoodyDisk,
    RawClient,
    Running,
    client,
    client_at,
    master,
    until,
)
from tests.shell.shadows import RunningShadow, Voter, cutting, rows, rows_at, shadow

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def ends_are_said(expect_log: ExpectLog) -> None:
    """Connections end in all of these tests, and masters give way."""
    for line in (
        r"shadow\.(gone|reset|anew)", r"follow\.lost", r"server\.lost", r"promise\.refused",
        r"master\.(steps-down|promoted|superseded|does-not-step-down)", r"state\.restored",
    ):  # fmt: skip
        expect_log(line, optional=True)


async def same(running: Running, follower: RunningShadow) -> None:
    """Until the shadow has everything; then it has the same rows."""
    await until(lambda: follower.position == running.ledger.position, 10.0)
    assert rows(follower.opened.ledger.state) == rows(running.ledger.state)


async def test_a_shadow_is_a_prefix_of_the_master_wherever_its_connection_is_cut(
    tmp_path: Path,
) -> None:
    async with (
        master(tmp_path / "m", MoodyDisk()) as running,
        cutting(running.address, seed=3, longest=60_000) as way,
        shadow(tmp_path / "s", MoodyDisk(), way) as follower,
        client(running) as asker,
    ):
        await asker.open()
        for number in range(150):
            await asker.create(b"file%03d" % number)
            if number % 15 == 0:
                position = follower.position
                expected = rows_at(running.ledger, position)
                assert rows(follower.opened.ledger.state.reader()) == expected
        await same(running, follower)


async def test_a_record_longer_than_a_part_arrives_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PART_BYTES", 50_000)
    async with (
        master(tmp_path / "m", MoodyDisk()) as running,
        shadow(tmp_path / "s", MoodyDisk(), running.address) as follower,
        client(running) as asker,
    ):
        await asker.open()
        for number in range(4):
            await asker.mutate(m.SetXattr(1, b"user.big", b"%d" % number * 60_000, 0))
        await same(running, follower)


async def test_what_was_answered_is_on_the_disk_of_a_shadow_that_keeps_up(tmp_path: Path) -> None:
    async with (
        master(tmp_path / "m", MoodyDisk()) as running,
        shadow(tmp_path / "s", MoodyDisk(), running.address) as follower,
        client(running) as asker,
    ):
        await asker.open()
        await until(lambda: any(one.keeps_up for one in running.core.shadows.followers.values()))
        for number in range(50):
            done = await asker.create(b"file%03d" % number)
            assert follower.opened.ledger.log.durable_position >= done.position


@pytest.mark.alone
async def test_a_silent_shadow_is_waited_for_a_second_once(tmp_path: Path) -> None:
    async with (
        master(tmp_path / "m", MoodyDisk()) as running,
        client(running) as asker,
        client(running, role="shadow") as silent,
    ):
        await asker.open()
        position, epoch = running.ledger.position, running.ledger.epoch
        silent.connection.request(m.FollowLog(7, "a:1", position, epoch), lambda *_: None)
        await until(lambda: 7 in running.core.shadows.followers)
        follower = running.core.shadows.followers[7]
        follower.position, follower.keeps_up = running.ledger.position, True
        began = trio.current_time()
        await asker.create(b"first")
        assert 0.9 < trio.current_time() - began < 5.0
        began = trio.current_time()
        await asker.create(b"second")
        assert trio.current_time() - began < 0.8


async def test_a_shadow_answers_reads_and_says_how_old_they_are(tmp_path: Path) -> None:
    async with (
        master(tmp_path / "m", MoodyDisk()) as running,
        shadow(tmp_path / "s", MoodyDisk(), running.address) as follower,
        client(running) as asker,
    ):
        await asker.open()
        await asker.create(b"file")
        await same(running, follower)
        async with client_at("", unix=follower.unix) as reader:
            assert not reader.connection.peer_leads
            opened = await reader.open(mount="")
            assert "behind the master" in opened.notice
            found = await reader.lookup(b"file")
            assert found.ino
            assert not found.cacheable
            with pytest.raises(ReadOnly):
                await reader.create(b"other")
            with pytest.raises(ReadOnly):
                await reader.connection.call(m.Open(found.ino, 1, ROOT))


async def test_a_shadow_further_back_than_the_log_begins_with_a_checkpoint(tmp_path: Path) -> None:
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as asker:
        await asker.open()
        await fill_segments(running, asker)
        async with shadow(tmp_path / "s", MoodyDisk(), running.address) as follower:
            await same(running, follower)
        async with shadow(tmp_path / "s", MoodyDisk(), running.address) as again:
            await asker.create(b"later")
            await same(running, again)


async def fill_segments(running: Running, asker: RawClient) -> None:
    """Checkpoints made and the log's first segment gone."""
    ledger = running.ledger
    for number in range(80):
        await asker.mutate(m.SetXattr(1, b"user.a", b"%d" % (number % 10) * 60_000, 0))
        if number in (40, 79):
            make_checkpoint(ledger.state._connection, ledger.checkpoints, PosixDisk())
    assert ledger.log.truncate_before(ledger.position)
    assert ledger.log.first_position > 1


async def promote(follower: RunningShadow, lose: int = 0) -> m.Promoted:
    refused = None
    async with client_at("", unix=follower.unix) as operator:
        try:
            answer = await operator.connection.call(m.Promote(lose), timeout_s=20)
        except GfsError as error:
            refused = error
    if refused is not None:
        raise refused
    assert isinstance(answer, m.Promoted)
    return answer


@asynccontextmanager
async def voting(voters: list[Voter], unix: str) -> AsyncIterator[list[Connection]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(voter.at(unix)) for voter in voters]


async def test_a_promotion_while_the_master_lives_loses_nothing(tmp_path: Path) -> None:
    voters = [Voter(number) for number in (1, 2, 3)]
    async with (
        master(tmp_path / "m", MoodyDisk()) as running,
        shadow(tmp_path / "s", MoodyDisk(), running.address) as follower,
        voting(voters, running.unix),
        client(running) as asker,
    ):
        await asker.open()
        done = await asker.create(b"file")
        await until(lambda: follower.position >= running.ledger.position)
        async with voting(voters, follower.unix):
            promoted = await promote(follower)
            assert promoted.position > done.position
            with pytest.raises(TimedOut):  # it has stepped down
                await asker.connection.call(
                    asker.mutation(m.Create(1, b"x", 0o644, 0)), timeout_s=1
                )
            assert rows_at(running.ledger, done.position) == rows_at(
                follower.opened.ledger, done.position
            )


async def test_a_lost_tail_is_counted_and_given_up_only_when_that_is_said(tmp_path: Path) -> None:
    voters = [Voter(number) for number in (1, 2, 3)]
    async with master(tmp_path / "m", MoodyDisk()) as running, client(running) as asker:
        await asker.open()
        async with voting(voters, running.unix):
            async with shadow(tmp_path / "s", MoodyDisk(), running.address) as follower:
                await asker.create(b"kept")
                await same(running, follower)
            for number in range(3):
                await asker.create(b"lost%d" % number)
            end = running.ledger.epoch, running.ledger.position
            await until(lambda: all(voter.heard == end for voter in voters))
    async with shadow(tmp_path / "s", MoodyDisk(), "127.0.0.1:1") as follower:
        async with voting(voters, follower.unix):
            with pytest.raises(GfsError, match=r"^3 position"):
                await promote(follower)
            assert all(voter.epoch == end[0] for voter in voters)  # nobody was disturbed
            promoted = await promote(follower, lose=3)
    assert promoted.epoch == end[0] + 1
    async with master_on(tmp_path / "s") as running, voting(voters, running.unix):
        await until(lambda: all(voter.heard[0] > end[0] for voter in voters))
        # The old master has a longer log, of a history that is over.
        async with shadow(tmp_path / "m", MoodyDisk(), running.address) as old:
            aside = tmp_path / "m" / "before-1" / "state.db"
            await until(aside.exists, 10.0)
            await same(running, old)


@asynccontextmanager
async def master_on(directory: Path) -> AsyncIterator[Running]:
    async with master(directory, MoodyDisk()) as running:
        yield running


async def test_an_old_master_that_starts_again_does_not_lead(tmp_path: Path) -> None:
    voters = [Voter(number) for number in (1, 2, 3)]
    async with master(tmp_path / "m", MoodyDisk()) as running, voting(voters, running.unix):
        async with shadow(tmp_path / "s", MoodyDisk(), running.address) as follower:
            await until(lambda: bool(running.core.shadows.registered))
            await same(running, follower)
            async with voting(voters, follower.unix):
                promoted = await promote(follower)
    for voter in voters:
        voter.heard = promoted.epoch, promoted.position
    (tmp_path / "m" / "led").write_text("1")
    async with shadow(tmp_path / "m", MoodyDisk(), "127.0.0.1:1") as old:
        async with voting(voters[:2], old.unix):
            await until(lambda: old.opened.led_epoch == 0, 10.0)
        assert old.lead is None
    assert all(voter.epoch == promoted.epoch for voter in voters)


async def test_a_master_that_starts_again_leads_at_once_if_nobody_took_over(tmp_path: Path) -> None:
    voters = [Voter(number) for number in (1, 2, 3)]
    async with master(tmp_path / "m", MoodyDisk()) as running, voting(voters, running.unix):
        async with shadow(tmp_path / "s", MoodyDisk(), running.address):
            await until(lambda: bool(running.core.shadows.registered))
        epoch = running.ledger.epoch
        await until(lambda: all(voter.epoch == epoch for voter in voters))
    (tmp_path / "m" / "led").write_text(str(epoch))
    async with shadow(tmp_path / "m", MoodyDisk()) as candidate:
        async with voting(voters[:2], candidate.unix):
            await until(lambda: candidate.lead is not None)
        assert candidate.lead == Lead(0.0)
        assert candidate.opened.led_epoch == epoch + 1


async def test_a_master_that_is_cut_off_answers_no_change_and_ends_when_it_hears_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "SILENCE_S", 0.3)
    voters = [Voter(number) for number in (1, 2, 3)]
    with pytest.RaisesGroup(StorageFailed, flatten_subgroups=True, allow_unwrapped=True):
        async with (
            master(tmp_path / "m", MoodyDisk()) as running,
            client(running) as asker,
        ):
            await asker.open()
            async with voting(voters, running.unix):
                async with shadow(tmp_path / "s", MoodyDisk(), running.address) as follower:
                    await same(running, follower)
            async with shadow(tmp_path / "s", MoodyDisk(), "127.0.0.1:1") as follower:
                async with voting(voters, follower.unix):
                    await promote(follower)
            await until(lambda: not running.core.in_charge(trio.current_time()))
            with pytest.raises(TimedOut):
                more = asker.mutation(m.Create(1, b"x", 0o644, 0))
                await asker.connection.call(more, timeout_s=0.5)
            assert (await asker.lookup(b"x")).ino == 0
            async with voters[0].at(running.unix):
                await trio.sleep_forever()
