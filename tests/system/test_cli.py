"""The command `gfs` on files, against a real cluster without mounts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfs.changes import bytes_of
from tests.system.clusters import (
    ROOT,
    LocalCluster,
    UsersCluster,
    nobody_missing,
    passable_directory,
)

pytestmark = pytest.mark.timeout(180)
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with passable_directory() as path:
        found = LocalCluster(path / "c")
        try:
            found.up("--mounts", "0", "--no-projections", "--chunkservers", "1")
            yield found
        finally:
            found.end()


@pytest.mark.parametrize("size", [0, 1, 65536, MIB - 1, MIB + 1, 5 * MIB + 17])
def test_what_was_put_is_got_byte_for_byte(
    cluster: LocalCluster, tmp_path: Path, size: int
) -> None:
    local, back = tmp_path / "local", tmp_path / "back"
    local.write_bytes(os.urandom(size))
    local.chmod(0o640)
    cluster.gfs("put", local, f"/put{size}")
    cluster.gfs("get", f"/put{size}", back)
    assert back.read_bytes() == local.read_bytes()
    assert back.stat().st_mode == local.stat().st_mode
    assert cluster.out("cat", f"/put{size}") == local.read_bytes()
    assert cluster.out("get", f"/put{size}", "-") == local.read_bytes()
    assert cluster.json("stat", "--json", f"/put{size}")["size"] == size


def test_put_replaces_whole_and_keeps_the_mode(cluster: LocalCluster) -> None:
    cluster.gfs("put", "-", "/replaced", given=b"old and longer")
    first = cluster.json("stat", "--json", "/replaced")
    cluster.gfs("put", "-", "/replaced", given=b"new")
    second = cluster.json("stat", "--json", "/replaced")
    assert cluster.out("cat", "/replaced") == b"new"
    assert second["ino"] != first["ino"]
    assert second["mode"] == first["mode"]
    assert not [name for name in cluster.out("ls", "/").split(b"\n") if b".gfs-put" in name]


def test_put_into_a_directory_keeps_the_name(cluster: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b"1")
    cluster.gfs("mkdir", "-p", "/into/deep")
    cluster.gfs("put", tmp_path / "name", "/into/deep")
    assert cluster.out("cat", "/into/deep/name") == b"1"
    assert b"/nowhere/x" in cluster.gfs("put", tmp_path / "name", "/nowhere/x", code=1).stderr
    assert b"directory" in cluster.gfs("put", "-", "/into", given=b"", code=1).stderr


def test_a_failed_get_leaves_nothing(cluster: LocalCluster, tmp_path: Path) -> None:
    cluster.gfs("get", "/missing", "here", code=1, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_append_adds_and_makes(cluster: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "more").write_bytes(b"second\n")
    cluster.gfs("append", "/appended", given=b"first\n")
    cluster.gfs("append", "/appended", tmp_path / "more")
    cluster.gfs("append", "/appended", "-", given=b"no newline")
    assert cluster.out("cat", "/appended") == b"first\nsecond\nno newline"
    big = b"".join(b"%07d\n" % number for number in range(400_000))
    cluster.gfs("append", "/big", given=big)
    assert cluster.out("cat", "/big") == big


def test_concurrent_appenders_lose_and_tear_nothing(cluster: LocalCluster) -> None:
    def lines(writer: int) -> bytes:
        return b"".join(b"%d:%d\n" % (writer, number) for number in range(2000))

    command = [sys.executable, "-m", "gfs.cli.main", "--cluster", str(cluster.directory)]
    running = [
        subprocess.Popen([*command, "append", "/shared"], stdin=subprocess.PIPE, cwd=ROOT)
        for _ in range(3)
    ]
    for writer, process in enumerate(running):
        assert process.stdin is not None
        process.stdin.write(lines(writer))
        process.stdin.close()
    assert [process.wait(60) for process in running] == [0, 0, 0]
    found = cluster.out("cat", "/shared").splitlines(keepends=True)
    for writer in range(3):
        mine = [line for line in found if line.startswith(b"%d:" % writer)]
        assert b"".join(mine) == lines(writer)
    assert len(found) == 6000


@pytest.mark.parametrize(
    "name", [b"caf\xe9", b"\xff\xfe", b"new\nline", "ü€😀".encode(), b"x" * 255]
)
def test_names_survive_byte_for_byte(cluster: LocalCluster, name: bytes) -> None:
    cluster.gfs("mkdir", "-p", b"/names")
    path = b"/names/" + name
    cluster.gfs("put", "-", path, given=name)
    assert cluster.out("cat", path) == name
    assert name in cluster.out("ls", "--print0", "/names").split(b"\0")
    assert bytes_of(cluster.json("stat", "--json", path)["path"]) == path
    cluster.gfs("rm", path)
    assert name not in cluster.out("ls", "--print0", "/names").split(b"\0")


def test_a_name_too_long_is_a_clear_error(cluster: LocalCluster) -> None:
    done = cluster.gfs("put", "-", b"/" + b"x" * 256, given=b"", code=1)
    assert b"at most 255" in done.stderr


def test_ls_pages_through_a_big_directory(cluster: LocalCluster) -> None:
    cluster.gfs("mkdir", "/many")
    names = [f"{number:05d}" for number in range(2100)]
    for start in range(0, len(names), 300):
        cluster.gfs("mkdir", *(f"/many/{name}" for name in names[start : start + 300]))
    assert cluster.out("ls", "/many").decode().split() == names
    assert len(cluster.out("ls", "-l", "/many").splitlines()) == len(names)


def test_trees_and_paths_come_back_from_the_trash(cluster: LocalCluster) -> None:
    cluster.gfs("mkdir", "-p", "/tree/sub")
    cluster.gfs("put", "-", "/tree/sub/file", given=b"content")
    assert b"-r" in cluster.gfs("rm", "/tree", code=1).stderr
    cluster.gfs("rm", "-r", "/tree")
    cluster.gfs("ls", "/tree", code=1)
    assert b"/tree" in cluster.out("trash", "list")
    assert cluster.out("undelete", "/tree").strip() == b"/tree"
    assert cluster.out("cat", "/tree/sub/file") == b"content"
    cluster.gfs("rm", "-r", "/tree")
    cluster.gfs("mkdir", "/tree")
    other = cluster.out("undelete", "/tree").strip()
    assert other.startswith(b"/tree.undeleted-")
    assert cluster.out("cat", other + b"/sub/file") == b"content"
    cluster.gfs("rm", "-r", other)
    cluster.gfs("trash", "empty", "--all")
    assert cluster.out("trash", "list") == b""
    assert b"not in the trash" in cluster.gfs("undelete", "/tree", code=1).stderr
    cluster.gfs("trash", "empty", code=2)


def test_undelete_finds_by_time_by_name_and_within_removed_trees(cluster: LocalCluster) -> None:
    for content in (b"one", b"two"):
        cluster.gfs("mkdir", "-p", "/back/sub")
        cluster.gfs("put", "-", "/back/sub/file", given=content)
        cluster.gfs("rm", "-r", "/back")
    listed = cluster.out("undelete", "--list", "--json", "/back/sub/file").splitlines()
    removed_ns = [json.loads(line)["deleted_ns"] for line in listed]
    assert removed_ns == sorted(removed_ns, reverse=True)
    moment = f"@{removed_ns[0] / 1e9 - 0.001:.6f}"
    cluster.gfs("undelete", "--before", "3d", "/back", code=1)
    cluster.gfs("undelete", "--at", "nonsense", "/back", code=2)
    assert cluster.out("undelete", "/back/sub/file").strip() == b"/back/sub/file"
    assert cluster.out("cat", "/back/sub/file") == b"two"
    told = cluster.json("undelete", "--json", "--before", moment, "back")
    assert told["path"] == "/back.undeleted-1"
    assert cluster.out("cat", "/back.undeleted-1/sub/file") == b"one"
    cluster.gfs("trash", "empty", "/back/sub/file", code=1)


def test_snapshots_and_clones_share_content_until_it_is_written(cluster: LocalCluster) -> None:
    cluster.gfs("mkdir", "-p", "/shot/sub")
    cluster.gfs("put", "-", "/shot/sub/file", given=b"first\n")
    assert cluster.out("snapshot", "/shot", "/shot-1").strip() == b"/shot-1"
    cluster.gfs("append", "/shot/sub/file", given=b"second\n")
    cluster.gfs("append", "/shot-1/sub/file", given=b"other\n")
    assert cluster.out("cat", "/shot/sub/file") == b"first\nsecond\n"
    assert cluster.out("cat", "/shot-1/sub/file") == b"first\nother\n"
    made = cluster.json("clone", "--json", "/shot/sub/file", "/shot-1")
    assert (made["path"], made["inodes"]) == ("/shot-1/file", 1)
    cluster.gfs("rm", "-r", "/shot")
    assert cluster.out("cat", "/shot-1/file") == b"first\nsecond\n"
    assert b"File exists" in cluster.gfs("clone", "/shot-1/file", "/shot-1", code=1).stderr
    assert b"own copy" in cluster.gfs("snapshot", "/shot-1", "/shot-1/sub", code=1).stderr
    assert b"regular" in cluster.gfs("clone", "/shot-1", "/x", code=1).stderr


def test_missing_paths_are_one_line_each(cluster: LocalCluster) -> None:
    for words in (["cat", "/no"], ["ls", "/no"], ["stat", "/no"], ["rm", "/no"], ["get", "/no"]):
        done = cluster.gfs(*words, code=1)
        assert done.stderr.startswith(b"gfs: /no: ")
        assert done.stderr.count(b"\n") == 1
    cluster.gfs("rm", "-f", "/no")
    assert b"exists" in cluster.gfs("mkdir", "/", code=1).stderr.lower()


def test_what_cat_is_refused_get_is_refused(cluster: LocalCluster, tmp_path: Path) -> None:
    """The key opens the door; what is behind it is the caller's own user and groups."""
    if reason := nobody_missing():
        pytest.skip(reason)
    cluster.gfs("put", "-", "/secret", given=b"for root")
    local = tmp_path / "private"
    local.write_bytes(b"x")
    local.chmod(0o600)
    cluster.gfs("put", local, "/private")
    cluster.directory.chmod(0o755)
    other = UsersCluster(cluster.directory)
    assert b"key is needed" in other.gfs("cat", "/secret", code=1).stderr
    with_key = UsersCluster(cluster.directory)
    with_key.take_key()
    assert with_key.out("cat", "/secret") == b"for root"
    refused = with_key.gfs("get", "/private", "-", code=1).stderr
    assert refused.startswith(b"gfs: /private: ")
    assert b"ermission denied" in refused
    assert b"/x" in with_key.gfs("put", "-", "/x", given=b"", code=1).stderr
    assert b"ermi" in with_key.gfs("rm", "/secret", code=1).stderr


def test_stat_shows_where_the_bytes_lie(cluster: LocalCluster) -> None:
    cluster.gfs("put", "-", "/where", given=b"x" * 100_000)
    shown = cluster.json("stat", "--chunks", "--json", "/where")
    assert sum(chunk["length"] for chunk in shown["chunks"]) == 100_000
    assert all(chunk["replicas"] for chunk in shown["chunks"])
    text = cluster.out("stat", "--chunks", "/where").decode()
    assert shown["chunks"][0]["handle"] in text


def test_the_stream_has_every_change(cluster: LocalCluster) -> None:
    cluster.gfs("mkdir", "-p", "/streamed/inside")
    lines = cluster.out("stream", "--no-follow", "--prefix", "/streamed").splitlines()
    assert any(b'"inside"' in line for line in lines)
    refused = cluster.gfs("stream", "--from", "nonsense", code=2).stderr
    assert refused.startswith(b"gfs: ")


def test_fsck_finds_nothing_wrong(cluster: LocalCluster) -> None:
    assert b"no problems" in cluster.out("fsck")
    assert cluster.json("fsck", "--deep", "--json")["ok"]


def test_a_reader_that_goes_away_is_no_error(cluster: LocalCluster) -> None:
    cluster.gfs("put", "-", "/long", given=b"line\n" * MIB)
    command = [sys.executable, "-m", "gfs.cli.main", "--cluster", str(cluster.directory)]
    with subprocess.Popen(
        [*command, "cat", "/long"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(5) == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


@pytest.mark.mount
def test_in_a_mount_paths_start_where_one_stands(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path / "c")
    try:
        cluster.up("--chunkservers", "1", "--no-projections")
        (cluster.first / "dir").mkdir()
        inside = cluster.first / "dir"
        cluster.gfs("put", "-", "here", given=b"1", cwd=inside, named=False)
        assert (inside / "here").read_bytes() == b"1"
        assert cluster.out("cat", "../dir/here", cwd=inside, named=False) == b"1"
        assert cluster.out("ls", cwd=inside, named=False) == b"here\n"
        assert cluster.out("cat", inside / "here", named=False) == b"1"
        assert cluster.out("cat", "/dir/here", cwd=inside, named=False) == b"1"
    finally:
        cluster.end()
