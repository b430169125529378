"""Quotas as programs meet them: dd, cp, touch, tee and mv against limits, on two mounts."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fuse.conftest import Cluster
from tests.fuse.restricted import mounted
from tests.system.clusters import LocalCluster

MIB = 1 << 20
TEXT = "Disk quota exceeded"
FILLED_S = 60.0  # until appended bytes have been counted, however slow the machine is


@pytest.fixture
def gfs(cluster: Cluster) -> LocalCluster:
    return LocalCluster(cluster.layout.directory)


def run(*words: object, given: bytes | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(word) for word in words],
        input=given,
        capture_output=True,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def used(gfs: LocalCluster, path: Path) -> tuple[int, int]:
    found = json.loads(gfs.out("quota", path, "--json").splitlines()[0])
    return found["bytes"]["used"], found["files"]["used"]


def write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def refused(call: Any, *arguments: Any) -> None:
    with pytest.raises(OSError, match=TEXT) as caught:
        call(*arguments)
    assert caught.value.errno == errno.EDQUOT


def test_dd_writes_up_to_the_limit_and_is_told(gfs: LocalCluster, here: Path) -> None:
    gfs.gfs("quota", "set", here, "--bytes", "10MiB")
    done = run("dd", "if=/dev/zero", f"of={here}/big", "bs=1M", "count=20")
    assert done.returncode == 1
    assert TEXT in done.stderr
    assert "10+0 records out" in done.stderr  # each write that was not refused stands
    assert (here / "big").stat().st_size == 10 * MIB
    assert used(gfs, here) == (10 * MIB, 1)
    (here / "big").write_bytes(b"less")
    (here / "again").write_bytes(b"fits")


def test_cp_and_the_close_of_a_small_file_are_told(
    gfs: LocalCluster, here: Path, there: Path
) -> None:
    """Also when the other mount has taken the space meanwhile."""
    gfs.gfs("quota", "set", here, "--bytes", "1MiB")
    mine = os.open(here / "mine", os.O_CREAT | os.O_WRONLY)
    (there / "theirs").write_bytes(b"x" * (MIB - 10))
    with pytest.raises(OSError, match=TEXT):
        os.write(mine, b"12345678901")
        os.close(mine)
    source = here.parent / "cp-source"
    source.write_bytes(b"y" * 4096)
    done = run("cp", source, here / "copy")
    assert done.returncode == 1
    assert TEXT in done.stderr
    assert used(gfs, here)[0] == MIB - 10
    done = run("cp", source, here.parent / "cp-copy")
    assert done.returncode == 0


def test_touch_mkdir_and_links_end_at_the_limit_of_files(
    gfs: LocalCluster, here: Path, there: Path
) -> None:
    gfs.gfs("quota", "set", here, "--files", "5")
    done = run("sh", "-c", f"cd {here} && for i in 1 2 3 4 5 6 7; do touch f$i || exit 7; done")
    assert done.returncode == 7
    assert TEXT in done.stderr
    assert len(os.listdir(there)) == 5
    refused(os.mkdir, there / "d")
    refused(os.symlink, "f1", there / "s")
    os.link(there / "f1", there / "hard")  # no file more
    os.unlink(here / "f2")
    os.mkdir(there / "d")


def test_appends_end_soon_after_the_limit(gfs: LocalCluster, here: Path, there: Path) -> None:
    """tee goes on for seconds; the master hears how far the tail has come, and seals it."""
    gfs.gfs("quota", "set", here, "--bytes", "2MiB")
    line = b"z" * 65535 + b"\n"
    log, ends_at = here / "log", time.monotonic() + FILLED_S
    with pytest.raises(OSError, match=TEXT), log.open("ab", buffering=0) as file:
        while time.monotonic() < ends_at:
            file.write(line)
            time.sleep(0.02)
    assert log.stat().st_size % len(line) == 0  # what was refused does not stand in part
    done = run("tee", "-a", log, given=line)
    assert done.returncode == 1
    assert TEXT in done.stderr
    assert run("sh", "-c", f"printf more >> {there}/log").returncode != 0
    stood = log.stat().st_size
    assert stood >= 2 * MIB
    assert used(gfs, here)[0] == stood
    os.truncate(log, 0)
    done = run("tee", "-a", log, given=line)
    assert (done.returncode, log.stat().st_size) == (0, len(line))


def test_a_handle_that_was_refused_appends_again_when_there_is_room(
    gfs: LocalCluster, here: Path
) -> None:
    gfs.gfs("quota", "set", here, "--bytes", "4KiB")
    (here / "full").write_bytes(b"x" * 4096)
    with (here / "log").open("ab", buffering=0) as log:
        refused(log.write, b"no\n")
        os.unlink(here / "full")
        assert log.write(b"yes\n") == 4
    assert (here / "log").read_bytes() == b"yes\n"


def test_what_was_written_and_closed_elsewhere_is_not_lost_by_a_move_into_a_quota(
    gfs: LocalCluster, here: Path
) -> None:
    """It waits in the mount still when it moves, and nobody could be told."""
    inside = here / "inside"
    inside.mkdir()
    gfs.gfs("quota", "set", inside, "--bytes", "1KiB")
    (here / "f").write_bytes(b"x" * 5000)
    os.rename(here / "f", inside / "f")
    os.sync()
    deadline = time.monotonic() + FILLED_S
    while used(gfs, inside) != (5000, 1) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert used(gfs, inside) == (5000, 1)
    assert (inside / "f").read_bytes() == b"x" * 5000
    refused((inside / "f").write_bytes, b"y" * 1025)


def test_mv_and_rm_go_on_working(gfs: LocalCluster, here: Path) -> None:
    inside, outside = here / "inside", here / "outside"
    inside.mkdir()
    gfs.gfs("quota", "set", inside, "--bytes", "1MiB", "--files", "10")
    (outside / "deep").mkdir(parents=True)
    write_durably(outside / "deep" / "file", b"x" * 1000)
    assert run("mv", outside, inside).returncode == 0
    assert used(gfs, inside) == (1000, 3)
    write_durably(here / "huge", b"x" * 2 * MIB)
    done = run("mv", here / "huge", inside)
    assert done.returncode == 1
    assert TEXT in done.stderr
    write_durably(here / "linked", b"x")
    os.link(here / "linked", here / "other")
    assert run("mv", here / "linked", inside).returncode == 0  # EXDEV, so mv copies
    assert used(gfs, inside) == (1001, 4)
    shutil.rmtree(inside / "outside")
    assert used(gfs, inside) == (1, 1)


def test_the_command_shows_lists_and_clears(gfs: LocalCluster, here: Path) -> None:
    (here / "sub").mkdir()
    gfs.gfs("quota", "set", here, "--bytes", "10G", "--soft-files", "1")
    gfs.gfs("quota", "set", here / "sub", "--files", "1k")
    write_durably(here / "sub" / "f", b"x" * 5000)
    text = gfs.out("quota", here / "sub").decode()
    assert text.splitlines()[0] == f"/{here.name}/sub"
    assert "files: 1 used of 1000, 0 %" in text
    assert "bytes: 4.9 KiB used of 10.0 GiB, 0 %" in text
    assert "files: 2 used, soft limit 1, 200 %, 7 d of grace left" in text
    listed = {json.loads(line)["path"] for line in gfs.out("quota", "list", "--json").splitlines()}
    assert {f"/{here.name}", f"/{here.name}/sub"} <= listed
    exceeded = gfs.json("status", "--json")["master"]["quotas_exceeded"]
    assert [one["files_soft"] for one in exceeded if one["path"] == f"/{here.name}"] == [1]
    assert b"soft limit 1, 7 d of grace left" in gfs.out("status")
    gfs.gfs("quota", "clear", here / "sub")
    gfs.gfs("quota", "set", here, "--soft-files", "none")
    done = gfs.gfs("quota", "clear", here / "sub", code=1)
    assert b"the directory has no quota" in done.stderr
    done = gfs.gfs("quota", "set", here, "--bytes", "1k", "--soft-bytes", "2k", code=1)
    assert b"the soft limit on bytes, 2048, is above the hard one, 1024" in done.stderr


def df(place: Path, *words: str) -> list[int]:
    """What df(1) prints in its columns of numbers, once the answer that the mount keeps is old."""
    time.sleep(1.1)
    done = run("df", "--output=size,used,avail,itotal,iused,iavail", *words, place)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.splitlines()[1].split()]


@pytest.mark.parametrize("options", ["", "ro"])
def test_df_of_a_subtree_shows_the_quota_of_its_directory(
    cluster: Cluster, gfs: LocalCluster, here: Path, tmp_path: Path, options: str
) -> None:
    gfs.gfs("quota", "set", here, "--bytes", "1GiB", "--files", "1000")
    write_durably(here / "f", b"x" * 3 * MIB)
    with mounted(cluster, tmp_path / "sub", here, options) as sub:
        assert df(sub, "-B1") == [1 << 30, 3 * MIB, (1 << 30) - 3 * MIB, 1000, 1, 999]
        told = run("stat", "-f", "-c", "%T %b %f %a %S %c %d", sub).stdout.split()
        blocks = (1 << 30) // 4096
        free = str(blocks - 3 * MIB // 4096)
        assert told == ["fuseblk", str(blocks), free, free, "4096", "1000", "999"]
        write_durably(here / "g", b"x" * MIB)
        assert df(sub, "-B1")[1] == 4 * MIB
        gfs.gfs("quota", "set", here, "--bytes", "1MiB")  # less than there is
        assert df(sub, "-B1")[:3] == [MIB, MIB, 0]
        gfs.gfs("quota", "clear", here)
        assert df(sub, "-B1")[0] == df(cluster.layout.mountpoint(1), "-B1")[0]


def test_df_below_several_quotas_shows_the_lowest_limit_and_the_nearest_use(
    cluster: Cluster, gfs: LocalCluster, here: Path, tmp_path: Path
) -> None:
    (here / "mine/deep").mkdir(parents=True)
    gfs.gfs("quota", "set", here, "--bytes", "100MiB")
    gfs.gfs("quota", "set", here / "mine", "--bytes", "10MiB", "--files", "10")
    write_durably(here / "mine/deep/f", b"x" * MIB)
    with mounted(cluster, tmp_path / "sub", here / "mine/deep", "") as sub:
        assert df(sub, "-B1M") == [10, 1, 9, 10, 2, 8]
        write_durably(here / "theirs", b"x" * 95 * MIB)
        assert df(sub, "-B1M")[:3] == [10, 1, 4]  # what there is room for further up
        gfs.gfs("quota", "set", here / "mine", "--bytes", "1GiB")
        assert df(sub, "-B1M")[:3] == [100, 1, 4]


def test_df_shows_a_quota_of_the_root_and_fsck_agrees_with_all_counts(
    cluster: Cluster, gfs: LocalCluster, here: Path
) -> None:
    root = cluster.layout.mountpoint(1)
    gfs.gfs("quota", "set", root, "--bytes", "1GiB", "--files", "100k")
    (here / "f").write_bytes(b"x" * MIB)
    size, used, available, files = df(root, "-B1")[:4]
    assert size == 1 << 30
    assert size - used == available
    assert files == 100_000
    gfs.gfs("quota", "clear", root)
    assert gfs.json("fsck", "--json")["problems"] == []
