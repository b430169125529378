"""`gfs cluster up|down|status` with real processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfs.cluster.layout import Layout, is_free
from gfs.cluster.processes import Process, Registry, boot_id, start_time
from gfs.mounts import mount_at
from tests.system.clusters import LocalCluster

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    found = LocalCluster(tmp_path / "c")
    yield found
    found.end()


def alive(pids: dict[str, int]) -> set[str]:
    return {name for name, pid in pids.items() if start_time(pid) is not None}


@pytest.mark.mount
def test_up_starts_all_down_keeps_the_data_and_purge_removes_it(cluster: LocalCluster) -> None:
    told = cluster.up("--mounts", "2").stdout.decode()
    assert f"mounted at {cluster.first}" in told
    pids = cluster.pids()
    assert list(pids) == [
        "master", "chunkd1", "chunkd2", "chunkd3",
        "projections-search", "projections-analytics", "mount1", "mount2",
    ]  # fmt: skip
    assert alive(pids) == set(pids)
    (cluster.first / "file").write_bytes(b"kept")
    assert (cluster.second / "file").read_bytes() == b"kept"
    status = cluster.json("cluster", "status", "--dir", cluster.directory, "--json", named=False)
    assert status["ok"], status
    assert len(status["master"]["servers"]) == 3
    assert {view["view"] for view in status["views"]} == {"search", "analytics"}

    cluster.down()
    assert not alive(pids)
    assert mount_at(os.fsencode(cluster.first)) is None
    assert cluster.pids() == {}
    cluster.up()
    assert (cluster.second / "file").read_bytes() == b"kept"
    cluster.down("--purge")
    assert not cluster.directory.exists()


@pytest.mark.mount
@pytest.mark.kill
def test_a_second_up_starts_only_what_is_missing(cluster: LocalCluster) -> None:
    cluster.up()
    before = cluster.pids()
    for name in ("chunkd2", "mount1"):
        os.kill(before[name], signal.SIGKILL)
    cluster.up()
    after = cluster.pids()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"chunkd2", "mount1"}
    assert alive(after) == set(before)
    (cluster.first / "file").write_bytes(b"x")  # no dead mount is in the way
    cluster.up()
    assert cluster.pids() == after


@pytest.mark.kill
def test_up_replaces_a_process_that_was_dying_when_it_was_found(cluster: LocalCluster) -> None:
    """As after a kill whose victim still runs: here it ends when it is first asked."""
    cluster.up("--mounts", "0", "--no-projections", "--chunkservers", "1", "--goal", "1")
    pid = cluster.pids()["master"]
    cluster.down()
    layout = Layout(cluster.directory)
    address = layout.load().addresses["master"]
    code = "import socket, sys; socket.create_server(('127.0.0.1', int(sys.argv[1]))).accept()"
    with subprocess.Popen([sys.executable, "-c", code, address.rpartition(":")[2]]) as dying:
        try:
            while is_free(address):
                assert dying.poll() is None
                time.sleep(0.01)
            layout.ready("master").write_text(f'{{"pid": {dying.pid}}}')
            started = start_time(dying.pid)
            assert started is not None
            Registry(layout).put(Process("master", dying.pid, started, boot_id()))
            cluster.up()
        finally:
            dying.kill()
    assert alive(cluster.pids()) == {"master", "chunkd1"}
    assert cluster.pids()["master"] not in (pid, dying.pid)


@pytest.mark.kill
def test_down_ends_stopped_and_stubborn_processes(cluster: LocalCluster) -> None:
    cluster.up("--mounts", "0", "--no-projections")
    pids = cluster.pids()
    for name in ("chunkd1", "master"):
        os.kill(pids[name], signal.SIGSTOP)
    cluster.down()
    assert not alive(pids)


def test_a_taken_port_is_replaced_and_said(cluster: LocalCluster) -> None:
    cluster.up("--mounts", "0", "--no-projections", "--chunkservers", "1")
    cluster.down()
    line = next(
        line for line in (cluster.directory / "cluster.toml").read_text().splitlines()
        if line.startswith("addresses")
    )  # fmt: skip
    port = int(line.split('chunkd1 = "127.0.0.1:')[1].split('"')[0])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        said = cluster.up().stderr.decode()
    assert f"chunkd1: 127.0.0.1:{port} is taken" in said
    cluster.gfs("put", "-", "/x", given=b"data")
    assert cluster.out("cat", "/x") == b"data"


def test_one_chunk_server_works_and_says_what_it_means(cluster: LocalCluster) -> None:
    said = cluster.up("--mounts", "0", "--no-projections", "--chunkservers", "1").stderr.decode()
    assert "one copy" in said
    cluster.gfs("put", "-", "/x", given=b"alone")
    assert cluster.out("cat", "/x") == b"alone"
    chunks = cluster.json("stat", "--chunks", "--json", "/x")["chunks"]
    assert [len(chunk["replicas"]) for chunk in chunks] == [1]


@pytest.mark.mount
def test_a_deep_directory_with_spaces_works(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path / ("deep " * 12) / ("er, and \\ odd " * 4))
    try:
        cluster.up("--chunkservers", "1", "--no-projections")
        sockets = Path(Layout(cluster.directory).load().runtime_dir)
        assert (sockets / "master.sock").is_socket()
        (cluster.first / "a file").write_bytes(b"found")
        assert cluster.out("cat", "a file", cwd=cluster.first, named=False) == b"found"
    finally:
        cluster.end()
    assert not sockets.exists()


def test_a_process_that_cannot_start_is_named_with_its_log(cluster: LocalCluster) -> None:
    cluster.up("--mounts", "0", "--no-projections", "--chunkservers", "1")
    cluster.down()
    data = cluster.directory / "data" / "chunkd1"
    shutil.rmtree(data)
    data.write_text("not a directory")
    began = time.monotonic()
    said = cluster.up(code=1).stderr.decode()
    assert "gfs: chunkd1 ended at its start" in said
    assert "chunkd1.log" in said
    assert time.monotonic() - began < 20
    assert alive(cluster.pids()) == {"master"}


def test_there_is_nothing_to_do_without_a_cluster(cluster: LocalCluster) -> None:
    for word in ("down", "status"):
        done = cluster.gfs("cluster", word, "--dir", cluster.directory, code=2, named=False)
        assert b"no cluster in" in done.stderr


def test_purge_leaves_the_files_of_others(cluster: LocalCluster) -> None:
    cluster.directory.mkdir()
    mine = cluster.directory / "notes.txt"
    mine.write_text("mine")
    cluster.up("--mounts", "0", "--no-projections", "--chunkservers", "1")
    cluster.down("--purge")
    assert [path.name for path in cluster.directory.iterdir()] == ["notes.txt"]
    mine.unlink()


@pytest.mark.netns
def test_without_dev_fuse_the_message_says_what_to_do_and_the_rest_works(tmp_path: Path) -> None:
    script = (
        "mount -t tmpfs -o mode=755 tmpfs /dev && mknod -m 666 /dev/null c 1 3 && "
        'mknod -m 666 /dev/urandom c 1 9 && mkdir /dev/shm && exec "$@"'
    )
    keeper = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script, "sh", "sleep", "300"], stdin=subprocess.DEVNULL
    )
    cluster = LocalCluster(tmp_path / "c", ["nsenter", "-m", "-t", str(keeper.pid), "--"])
    try:
        deadline = time.monotonic() + 10
        while not Path(f"/proc/{keeper.pid}/cmdline").read_bytes().startswith(b"sleep"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        said = cluster.up("--no-projections", "--chunkservers", "1").stderr.decode()
        assert "nothing is mounted: there is no /dev/fuse: modprobe fuse" in said
        cluster.gfs("put", "-", "/x", given=b"data")
        assert cluster.out("cat", "/x") == b"data"
    finally:
        cluster.end()
        keeper.kill()
        keeper.wait()
