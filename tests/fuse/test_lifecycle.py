"""How mounts start, end, and live through the end of others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gfs import mounts
from gfs.cluster import processes
from tests.fuse.conftest import Cluster

pytestmark = [pytest.mark.timeout(90), pytest.mark.kill]


def gfs_mount(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mount", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)


def test_unfit_places_are_refused_in_one_line(tmp_path: Path, cluster: Cluster) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    flags = [f"--master={cluster.layout.load().addresses['master']}"]
    for place, words in (
        ("none", "mkdir"),
        ("file", "not a directory"),
        ("full", "not empty"),
        (str(cluster.layout.mountpoint(1)), "already"),
    ):
        done = gfs_mount(str(tmp_path / place), *flags)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_wrong_key_is_refused_and_nothing_stays_mounted(tmp_path: Path, cluster: Cluster) -> None:
    (tmp_path / "key").write_text("0" * 64)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "m").mkdir()
    address = cluster.layout.load().addresses["master"]
    done = gfs_mount(str(tmp_path / "m"), f"--master={address}", f"--key-file={tmp_path / 'key'}")
    assert done.returncode == 2
    assert "key" in done.stderr
    assert mounts.mount_at(os.fsencode(tmp_path / "m")) is None


def test_terminated_mount_has_written_everything_and_left_nothing(
    cluster: Cluster, here: Path, there: Path
) -> None:
    (here / "f").write_bytes(b"x" * 100_000)
    mount1 = cluster.process("mount1")
    assert processes.stop([mount1], term_s=20) == []
    assert mounts.mount_at(os.fsencode(cluster.layout.mountpoint(1))) is None
    assert (there / "f").read_bytes() == b"x" * 100_000
    cluster.up()
    assert (here / "f").read_bytes() == b"x" * 100_000


def test_busy_mount_ends_all_the_same_and_loses_nothing(
    cluster: Cluster, here: Path, there: Path
) -> None:
    fd = os.open(here / "f", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"busy")
    assert processes.stop([cluster.process("mount1")], term_s=25) == []
    with pytest.raises(OSError):
        os.write(fd, b"more")
    with pytest.raises(OSError):
        os.close(fd)
    assert (there / "f").read_bytes() == b"busy"
    cluster.up()


def test_unmounted_mount_ends_by_itself(cluster: Cluster, here: Path, there: Path) -> None:
    (here / "f").write_bytes(b"unmounted")
    mount1 = cluster.process("mount1")
    subprocess.run(["fusermount3", "-u", cluster.layout.mountpoint(1)], check=True, timeout=20)
    assert processes.wait_for_end([mount1], 20) == []
    assert (there / "f").read_bytes() == b"unmounted"
    cluster.up()


def test_mount_that_ends_while_the_master_restarts_loses_nothing(
    cluster: Cluster, here: Path, there: Path
) -> None:
    """As when all daemons of a host are restarted: the new master finds no kernel to tell of it."""
    (here / "f").write_bytes(b"late")  # waits in the mount
    master, mount1 = cluster.process("master"), cluster.process("mount1")
    os.kill(master.pid, signal.SIGKILL)
    os.kill(mount1.pid, signal.SIGTERM)
    assert processes.wait_for_end([master], 5) == []
    while mounts.mount_at(os.fsencode(cluster.layout.mountpoint(1))) is not None:
        time.sleep(0.02)
    cluster.up()
    assert processes.wait_for_end([mount1], 25) == []
    assert (there / "f").read_bytes() == b"late"
    cluster.up()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_mount_that_another_namespace_has_too_ends_all_the_same(
    cluster: Cluster, here: Path, there: Path
) -> None:
    """A service or container that was started meanwhile may have it: umount takes ours alone."""
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        (here / "f").write_bytes(b"held")
        assert processes.stop([cluster.process("mount1")], term_s=25) == []
        holder.kill()
    assert (there / "f").read_bytes() == b"held"
    cluster.up()


def test_killed_mount_is_recovered_and_fsynced_bytes_are_there(
    cluster: Cluster, here: Path, there: Path
) -> None:
    fd = os.open(here / "f", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"synced")
    os.fsync(fd)
    mount1 = cluster.process("mount1")
    os.kill(mount1.pid, signal.SIGKILL)
    processes.wait_for_end([mount1], 5)
    with pytest.raises(OSError):
        os.close(fd)
    with pytest.raises(OSError):
        os.stat(here)
    cluster.up()
    assert (here / "f").read_bytes() == b"synced"
    assert (there / "f").read_bytes() == b"synced"


def test_dead_mountpoint_is_taken_over_by_the_next_mount(cluster: Cluster, tmp_path: Path) -> None:
    point = tmp_path / "m"
    point.mkdir()
    words = [
        sys.executable,
        "-m",
        "mount",
        str(point),
        f"--master={cluster.layout.load().addresses['master']}",
        f"--key-file={cluster.layout.key}",
        f"--ready-file={tmp_path / 'ready'}",
    ]
    for end in (signal.SIGKILL, signal.SIGTERM):
        (tmp_path / "ready").unlink(missing_ok=True)
        child = subprocess.Popen(words)
        while not (tmp_path / "ready").exists():
            assert child.poll() is None
            time.sleep(0.02)
        assert os.path.ismount(point)
        child.send_signal(end)
        child.wait(20)
    assert mounts.mount_at(os.fsencode(point)) is None


def test_master_that_was_killed_and_came_back_is_believed_anew(
    cluster: Cluster, here: Path, there: Path
) -> None:
    (here / "before").write_bytes(b"before")
    assert not (there / "after").exists()
    assert (there / "before").exists()
    os.kill(cluster.process("master").pid, signal.SIGKILL)
    cluster.up()
    os.rename(here / "before", here / "after")
    assert not (there / "before").exists()
    assert (there / "after").read_bytes() == b"before"
    os.mkdir(there / "d")
    (here / "d/x").touch()
    assert os.listdir(there / "d") == ["x"]


def test_calls_wait_for_a_master_that_is_away(cluster: Cluster, here: Path) -> None:
    os.kill(cluster.process("master").pid, signal.SIGKILL)
    child = subprocess.Popen(["touch", here / "waited"])
    time.sleep(0.3)
    assert child.poll() is None
    cluster.up()
    assert child.wait(40) == 0
    assert (here / "waited").exists()
