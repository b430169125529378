"""Chunk servers as processes that are killed, stopped, started wrongly and talked nonsense to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio

from chunkd.directory import DataDirectory
from chunkd.formats import SIDE, SideHeader, seal_block
from chunkd.server import ChunkServer
from gfs import messages
from gfs.bearer import authorization
from gfs.checksum import crc32c
from gfs.config import ChunkdConfig
from gfs.disk import PosixDisk
from gfs.errors import (
    BadKey,
    DirectoryInUse,
    Fenced,
    GfsError,
    MemberFailed,
    NewerFormat,
    UsageError,
    WrongCluster,
)
from gfs.handshake import create_key, dial
from gfs.ids import CHUNK_BYTES, MIB
from tests.shell.chunkd_processes import (
    CLUSTER,
    Servers,
    Stream,
    append_records,
    in_process,
    join_tail,
    running,
)

HANDLE = (1 << 40) + 9
FRAME = memoryview(os.urandom(MIB))
FRAME_SUM = crc32c(FRAME)


async def stream_until_refused(stream: Stream) -> float:
    """Append without end; seconds from the last acknowledgement to the refusal."""
    last = time.monotonic()
    had = stream.acknowledged
    try:
        while stream.end + MIB <= CHUNK_BYTES:
            stream.append(FRAME, FRAME_SUM)
            await stream.wait(4 * MIB)
            if stream.acknowledged > had:
                had, last = stream.acknowledged, time.monotonic()
        await stream.wait()
    except MemberFailed:
        return time.monotonic() - last
    raise AssertionError("the chain did not fail")


async def seal(servers: Servers, members: list[messages.ChainMember]) -> int:
    """Fence and condense these members; the greatest end."""
    ends = []
    for member in members:
        answer = await servers.master.order(member.server, messages.Fence(HANDLE, 2, 1))
        assert isinstance(answer, messages.FencedAt)
        ends.append(answer.end)
    length = max(ends)
    source = members[ends.index(length)]
    sums = set()
    for member in (source, *members):
        order: messages.Message = messages.Condense(HANDLE, 2, length)
        if ends[members.index(member)] < length:
            order = messages.CopyReplica(HANDLE, 2, length, source)
        answer = await servers.master.order(member.server, order)
        assert isinstance(answer, messages.Condensed)
        sums.add(answer.checksum)
    assert len(sums) == 1
    return length


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.timeout(60)
@pytest.mark.parametrize("victim", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_member_that_dies_or_hangs_in_a_stream_is_named_and_the_rest_seals(
    tmp_path: Path, victim: int, how: signal.Signals
) -> None:
    async with running(tmp_path) as servers:
        members = servers.members
        connection = await servers.connect(servers.processes[0])
        stream = Stream(connection, HANDLE, members)
        stream.join()
        for _ in range(16):
            stream.append(FRAME, FRAME_SUM)
        await stream.wait()
        servers.processes[victim].signal(how)
        took = await stream_until_refused(stream)
        print(f"\nmember {victim + 1} {how.name}: refused {took:.3f} s after the last answer")
        assert str(members[victim].server) in str(stream.error)
        assert took < (1.0 if how is signal.SIGKILL else 3.5)
        others = [member for member in members if member is not members[victim]]
        length = await seal(servers, others)
        assert length >= stream.acknowledged >= 16 * MIB
        survivor = await servers.connect(servers.processes[3 - victim])
        for offset in range(0, length, MIB):
            ask = messages.Read(HANDLE, 2, offset, MIB)
            _, payload = await survivor.call_for_payload(ask)
            assert payload == FRAME
        servers.processes[victim].signal(signal.SIGCONT)
        if how is signal.SIGSTOP:  # the woken one is behind, and cannot be appended to alone
            woken = await servers.connect(servers.processes[victim])
            answer = await servers.master.order(
                members[victim].server, messages.Fence(HANDLE, 2, 1)
            )
            assert isinstance(answer, messages.FencedAt)
            assert answer.end <= length
            with pytest.raises(Fenced):
                await woken.call(messages.Append(HANDLE, 1, answer.end, FRAME_SUM), FRAME)


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.timeout(60)
async def test_kill_of_all_loses_no_acknowledged_record_and_same_boot_counts_as_intact(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as servers:
        connection = await servers.connect(servers.processes[0])
        joined = await join_tail(connection, HANDLE, servers.members)
        records = [b"%05d\n" % number for number in range(200)]
        for number, record in enumerate(records):
            await append_records(connection, HANDLE, number + 1, record)
        for process in servers.processes:
            process.kill()
        servers.master.servers.clear()
        for process in servers.processes:
            process.spawn()
        for process in servers.processes:
            await trio.to_thread.run_sync(process.wait_ready)
        # Before the master has looked after it, nobody appends.
        again = await servers.connect(servers.processes[0])
        with pytest.raises(Fenced):
            await join_tail(again, HANDLE, servers.members)
        for member, boot in zip(servers.members, joined.boots, strict=True):
            answer = await servers.master.order(member.server, messages.Fence(HANDLE, 2, 1))
            assert answer == messages.FencedAt(6 * 200, boot, {7: 200})
            reported = servers.master.replicas[member.server][HANDLE]
            assert (reported.version, reported.sealed, reported.length) == (1, False, 6 * 200)
        assert await seal(servers, servers.members) == 6 * 200
        _, payload = await again.call_for_payload(messages.Read(HANDLE, 2, 0, MIB))
        assert bytes(payload or b"") == b"".join(records)
        # And once more, sealed.
        servers.processes[1].kill()
        servers.processes[1].start()
        other = await servers.connect(servers.processes[1])
        _, payload = await other.call_for_payload(messages.Read(HANDLE, 2, 0, MIB))
        assert bytes(payload or b"") == b"".join(records)


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.timeout(30)
async def test_term_ends_it_within_three_seconds_and_nothing_listens_any_more(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, 1) as servers:
        process = servers.processes[0]
        connection = await servers.connect(process)
        await join_tail(connection, HANDLE, servers.members)
        await append_records(connection, HANDLE, 1, b"x", sync=True)
        began = time.monotonic()
        assert process.terminate() == 0
        assert time.monotonic() - began < 3
        assert not (process.directory / "chunkd.sock").exists()


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.timeout(30)
async def test_http_tells_health_and_statistics_to_those_who_have_the_key(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as servers:
        process = servers.processes[0]
        await servers.master.wait_for(lambda: servers.members[0].server in servers.master.servers)
        connection = await servers.connect(process)
        await join_tail(connection, HANDLE, servers.members)
        await append_records(connection, HANDLE, 1, b"12345")
        base = f"http://{process.ready.http}"
        proof = authorization(servers.key)
        async with httpx.AsyncClient(
            base_url=base, headers=proof, timeout=30, verify=False
        ) as client:
            health = (await client.get("/health")).json()
            assert health == {
                "ok": True, "server": process.ready.server, "registered": True, "failing": [],
            }  # fmt: skip
            numbers = (await client.get("/statistics")).json()
            assert numbers["data"]["bytes_written_total"] == 5
            assert numbers["replicas_open"] == 1
            metrics = (await client.get("/metrics")).text
            assert "gfs_chunkd_data_appends_total 1.0" in metrics
        async with httpx.AsyncClient(base_url=base, timeout=30, verify=False) as stranger:
            assert (await stranger.get("/statistics")).status_code == 401


@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.timeout(30)
async def test_second_daemon_on_a_directory_ends_with_one_line_and_code_2(tmp_path: Path) -> None:
    async with running(tmp_path, 1) as servers:
        process = servers.processes[0]
        second = await trio.run_process(
            process.command, capture_stdout=True, capture_stderr=True, check=False
        )
        assert second.returncode == 2
        assert second.stderr.count(b"\n") == 1
        assert b"is in use by process" in second.stderr
        connection = await servers.connect(process)
        await join_tail(connection, HANDLE, servers.members)


def config_of(tmp_path: Path, **settings: object) -> ChunkdConfig:
    create_key(tmp_path / "key")
    known: dict[str, object] = {
        "data_dirs": [str(tmp_path / "data")], "key_file": str(tmp_path / "key"),
        "cluster_id": CLUSTER, "master": "127.0.0.1:1",
    }  # fmt: skip
    return ChunkdConfig(**(known | settings))  # type: ignore[arg-type]


def opened_and_closed(config: ChunkdConfig) -> ChunkServer:
    server = ChunkServer(config, PosixDisk())
    server.store.close()
    return server


def test_directory_in_use_is_refused_and_free_again_after_the_end(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    first = ChunkServer(config, PosixDisk())
    with pytest.raises(DirectoryInUse):
        ChunkServer(config, PosixDisk())
    first.store.close()
    assert opened_and_closed(config).server == first.server


def test_directory_of_another_cluster_or_of_a_stranger_is_refused_untouched(
    tmp_path: Path,
) -> None:
    opened_and_closed(config_of(tmp_path))
    before = sorted(os.walk(tmp_path / "data"))
    with pytest.raises(WrongCluster, match="test-cluster"):
        ChunkServer(config_of(tmp_path, cluster_id="other"), PosixDisk())
    assert sorted(os.walk(tmp_path / "data")) == before
    home = tmp_path / "home"
    (home / "letters").mkdir(parents=True)
    with pytest.raises(WrongCluster):
        ChunkServer(config_of(tmp_path, data_dirs=[str(home)]), PosixDisk())
    assert os.listdir(home) == ["letters"]


def test_directory_of_another_server_is_refused(tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    opened_and_closed(config_of(tmp_path, data_dirs=[one]))
    opened_and_closed(config_of(tmp_path, data_dirs=[two]))
    with pytest.raises(WrongCluster, match="belongs to chunk server"):
        ChunkServer(config_of(tmp_path, data_dirs=[one, two]), PosixDisk())
    both = opened_and_closed(config_of(tmp_path, data_dirs=[one, str(tmp_path / "new")]))
    assert len(both.directories) == 2


def test_cluster_id_is_taken_from_the_directory_but_a_new_one_needs_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cluster-id"):
        ChunkServer(config_of(tmp_path, cluster_id=""), PosixDisk())
    opened_and_closed(config_of(tmp_path))
    assert opened_and_closed(config_of(tmp_path, cluster_id="")).cluster == CLUSTER


def test_chunk_or_directory_of_a_newer_format_is_refused_and_kept(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    opened_and_closed(config)
    disk = PosixDisk()
    directory = DataDirectory.open(tmp_path / "data", disk, cluster=CLUSTER, server=0, index=0)
    header = seal_block(SIDE, SideHeader(CLUSTER, HANDLE, 1, False, CHUNK_BYTES, "boot"))
    newer = header[:8] + (99).to_bytes(4, "little") + header[12:]
    directory.file(HANDLE, "side").write_bytes(newer)
    directory.file(HANDLE, "data").write_bytes(b"precious")
    directory.close()
    with pytest.raises(NewerFormat, match="format 99"):
        ChunkServer(config, PosixDisk())
    assert directory.file(HANDLE, "data").read_bytes() == b"precious"
    directory.file(HANDLE, "side").unlink()
    identity = (tmp_path / "data" / "identity").read_bytes()
    (tmp_path / "data" / "identity").write_bytes(
        identity[:8] + (99).to_bytes(4, "little") + identity[12:]
    )
    with pytest.raises(NewerFormat):
        ChunkServer(config, PosixDisk())


@pytest.mark.timeout(30)
async def test_wrong_key_wrong_cluster_and_garbage_are_refused_and_it_serves_on(
    tmp_path: Path,
) -> None:
    async with in_process(tmp_path, 1) as servers:
        member = servers.members[0]

        async def call(key: bytes | None, cluster: str, unix: str) -> None:
            connection = await dial(
                member.address, unix=unix, key=key, cluster=cluster, role="client"
            )
            connection.close()

        for unix in ("", member.unix):
            with pytest.raises(BadKey):
                await call(b"x" * 64, CLUSTER, unix)
            with pytest.raises(BadKey):
                await call(None, CLUSTER, unix)
            with pytest.raises(WrongCluster):
                await call(servers.key, "other", unix)
        host, _, port = member.address.rpartition(":")
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4096, os.urandom(1 << 16), b""):
            with socket.create_connection((host, int(port))) as sock:
                await trio.to_thread.run_sync(sock.sendall, garbage)
        connection = await servers.connect(servers.tasks[0])
        with pytest.raises(GfsError):
            await connection.call(messages.Fence(1, 1, 1))
        await join_tail(connection, HANDLE, servers.members)
        assert (await append_records(connection, HANDLE, 1, b"fine")).offset == 0


@pytest.mark.timeout(30)
async def test_port_in_use_is_a_usage_error(tmp_path: Path) -> None:
    async with in_process(tmp_path, 1) as servers:
        taken = servers.members[0].address
        config = config_of(tmp_path, address=taken)
        server = ChunkServer(config, PosixDisk())
        with pytest.raises(UsageError, match="cannot listen"):
            await server.run()


def mounted(path: Path, size: str) -> bool:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "gfs-test", str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_full_disk_refuses_the_append_and_keeps_what_was_there(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    small = tmp_path / "small"
    if os.geteuid() != 0 or not mounted(small, "24m"):
        pytest.skip("a small filesystem needs root and tmpfs")
    expect_log("append.failed")
    expect_log("chain.failed")
    try:
        async with in_process(tmp_path, 1) as servers:
            on_small = await servers.add_task(reserve_bytes=0)
            await on_small.end()
            config = on_small.config
            config.data_dirs = [str(small)]
            on_small.directory = small
            await on_small.start(servers.nursery)
            connection = await servers.connect(servers.tasks[0])
            stream = Stream(connection, HANDLE, servers.members)
            stream.join()
            await stream_until_refused(stream)
            assert "No space" in str(stream.error)
            assert str(on_small.live.server) in str(stream.error)
            direct = await servers.connect(on_small)
            landed = stream.acknowledged
            assert landed >= 8 * MIB
            _, payload = await direct.call_for_payload(messages.Read(HANDLE, 1, landed - MIB, MIB))
            assert payload == FRAME
            answer = await servers.master.order(on_small.live.server, messages.Fence(HANDLE, 2, 1))
            assert isinstance(answer, messages.FencedAt)
            assert answer.end >= landed
            assert answer.boot
            await on_small.end()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)
