"""Mounts that may not do everything, by real programs: read-only, below a directory, as others.

Each is started as mount(8) does it, by `gfs mount-helper`; the first mount of the cluster
shows what is stored. A rule of the master's exports restricts mounts by name and commands
that come by TCP.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfs import mounts
from gfs.cli.main import run
from gfs.cluster.processes import is_alive, program_command, stop
from tests.fuse.conftest import Cluster
from tests.fuse.restricted import mounted, refused
from tests.fuse.sides import LIBC, acting_as

EXPORTS = """
[[exports]]
mounts = ["exported-*"]
access = "read-only"
subtree = "/exported"
squash = "root"

[[exports]]
clients = ["127.0.0.1"]
mounts = [""]
access = "read-only"

[[exports]]
"""
NOBODY = 65534


@pytest.fixture(scope="module", autouse=True)
def exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The master of this module has exports, in this file."""
    file = tmp_path_factory.mktemp("exports") / "exports.toml"
    file.write_text(EXPORTS)
    os.environ["GFS_MASTER_EXPORTS_FILE"] = str(file)
    yield file
    del os.environ["GFS_MASTER_EXPORTS_FILE"]


def options_of(place: Path) -> set[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    (found,) = [line.split() for line in lines if line.split()[4] == str(place)]
    return set(found[5].split(","))


def test_a_read_only_mount_of_a_subtree(cluster: Cluster, here: Path, tmp_path: Path) -> None:
    tree = here / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d/f").write_bytes(b"content")
    (tree / "link").symlink_to("/d/f")
    with mounted(cluster, tmp_path / "ro", tree, "ro,noatime") as ro:
        assert {"ro", "noatime"} <= options_of(ro)
        assert sorted(os.listdir(ro)) == ["d", "link"]
        assert (ro / "d/f").read_bytes() == b"content"
        assert os.stat(ro / "d/../..").st_ino == os.stat(ro.parent).st_ino
        assert os.stat(ro).st_ino == 1
        assert os.statvfs(ro).f_blocks == os.statvfs(here).f_blocks
        refused(errno.EROFS, (ro / "x").touch)
        refused(errno.EROFS, (ro / "d/f").unlink)
        refused(errno.EROFS, (ro / "d").chmod, 0o700)
        refused(errno.EROFS, os.open, ro / "d/f", os.O_RDWR)
        (tree / "d/g").write_bytes(b"later")  # seen at once, though the kernel caches
        assert (ro / "d/g").read_bytes() == b"later"
        assert subprocess.run(["diff", "-r", tree / "d", ro / "d"], check=False).returncode == 0


def test_what_is_moved_out_of_a_subtree_is_gone_but_for_open_files(
    cluster: Cluster, here: Path, tmp_path: Path
) -> None:
    tree = here / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d/f").write_bytes(b"content")
    (tree / "d/other").write_bytes(b"other")
    with mounted(cluster, tmp_path / "sub", tree, "") as sub:
        directory = os.open(sub / "d", os.O_RDONLY)
        assert sorted(os.listdir(sub / "d")) == ["f", "other"]  # known, and by the kernel too
        with open(sub / "d/f", "r+b", buffering=0) as file:
            (tree / "d").rename(here / "away")
            refused(errno.ENOENT, os.stat, sub / "d")
            assert file.read() == b"content"
            file.write(b", and more")
            os.fsync(file.fileno())
        assert (here / "away/f").read_bytes() == b"content, and more"
        with pytest.raises(OSError):
            os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
        refused(errno.ESTALE, lambda: os.open("other", os.O_RDONLY, dir_fd=directory))
        refused(errno.ESTALE, lambda: os.stat("other", dir_fd=directory))
        assert os.listdir(directory) == []
        os.close(directory)
        (here / "away").rename(tree / "back")
        assert (sub / "back/other").read_bytes() == b"other"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_users_are_mapped_and_root_is_nobody(cluster: Cluster, here: Path, tmp_path: Path) -> None:
    here.chmod(0o777)
    (here / "roots").write_bytes(b"")
    (here / "theirs").write_bytes(b"")
    os.chown(here / "theirs", 3001, 3001)
    words = "root_squash,map_uid=1000:3000:10,map_gid=1000:3000:10"
    with mounted(cluster, tmp_path / "sub", here, words, by_descriptor=True) as sub:
        with acting_as(1000):
            (sub / "mine").write_bytes(b"mine")
            (sub / "mine").chmod(0o4711)
            refused(errno.EACCES, (sub / "roots").write_bytes, b"x")
            refused(errno.EPERM, os.chown, sub / "mine", 1001, -1)
        found, stored = os.stat(sub / "mine"), os.stat(here / "mine")
        assert (found.st_uid, found.st_gid) == (1000, 1000)
        assert (stored.st_uid, stored.st_gid) == (3000, 3000)
        assert stat.S_IMODE(stored.st_mode) == 0o4711
        assert os.stat(sub / "theirs").st_uid == 1001
        (sub / "squashed").write_bytes(b"by root")
        assert (os.stat(here / "squashed").st_uid, os.stat(sub / "squashed").st_uid) == (
            NOBODY,
            NOBODY,
        )
        refused(errno.EACCES, (sub / "roots").write_bytes, b"x")
        refused(errno.EPERM, os.chown, sub / "squashed", 0, 0)
        refused(errno.EPERM, os.mknod, sub / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.utime(sub / "squashed", ns=(1, 2))  # its own, so any time will do
        assert os.stat(here / "squashed").st_mtime_ns == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_everybody_is_one_user(cluster: Cluster, here: Path, tmp_path: Path) -> None:
    shared = here / "shared"
    shared.mkdir()
    os.chown(shared, 77, 88)
    (here / "roots").write_bytes(b"")
    words = "all_squash,anonuid=77,anongid=88"
    with mounted(cluster, tmp_path / "sub", here, words, by_descriptor=True) as sub:
        for user in (0, 1000):
            with acting_as(user):
                file = sub / "shared/f"
                file.write_bytes(b"content")
                file.chmod(0o600)
                os.utime(file, ns=(1, 2))
                assert file.read_bytes() == b"content"
                file.rename(sub / "shared/g")
                assert os.access(sub / "shared", os.W_OK)
                refused(errno.EACCES, (sub / "new").touch)
                refused(errno.EACCES, (sub / "roots").write_bytes, b"x")
            found = os.stat(shared / "g")
            assert (found.st_uid, found.st_gid, found.st_mtime_ns) == (77, 88, 2)
            with acting_as(user):
                (sub / "shared/g").unlink()


def test_exports_of_the_master_bind_a_mount_and_a_command(
    cluster: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    exported = cluster.layout.mountpoint(1) / "exported"
    (exported / "b").mkdir(parents=True)
    (exported / "b/f").write_bytes(b"content")
    with mounted(cluster, tmp_path / "m", None, "rw,name=exported-1,subtree=/b") as place:
        assert "ro" in options_of(place)
        assert (place / "f").read_bytes() == b"content"
        refused(errno.EROFS, (place / "x").touch)
        run(["--cluster", str(cluster.layout.directory), "status"])
        assert "read-only, below /exported/b, root is 65534:65534" in capfd.readouterr().out
    place = tmp_path / "refused"
    place.mkdir()
    words = f"name=exported-2,subtree=/c,log={tmp_path}/log"
    source = str(cluster.layout.directory)
    assert run(["mount-helper", source, str(place), "-o", words]) == 32
    assert "subtree /c: no such directory" in capfd.readouterr().err
    monkeypatch.setenv("GFS_CLUSTER_KEY_FILE", str(cluster.layout.key))
    address = cluster.layout.load().addresses["master"]
    by_tcp = ["--cluster", f"gfs://{address}"]
    assert run([*by_tcp, "put", str(tmp_path / "log"), "/put"]) == 1
    assert "read-only" in capfd.readouterr().err
    assert run([*by_tcp, "cat", "/exported/b/f"]) == 0
    assert capfd.readouterr().out == "content"
    assert run([*by_tcp, "fsck"]) == 1
    assert "exports restrict" in capfd.readouterr().err


def test_a_command_inside_a_mount_of_a_subtree_means_the_file_there(
    cluster: Cluster, here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (here / "f").write_bytes(b"content")
    with mounted(cluster, tmp_path / "sub", here, "") as sub:
        assert run(["cat", str(sub / "f")]) == 0
        monkeypatch.chdir(sub)
        assert run(["cat", "f"]) == 0
        monkeypatch.chdir(tmp_path)
    assert capfd.readouterr().out == "contentcontent"


def test_a_restricted_mount_outlives_its_master(
    cluster: Cluster, here: Path, tmp_path: Path
) -> None:
    """kill -9: the session is taken up with its root, though the path leads elsewhere by now."""
    tree = here / "tree"
    tree.mkdir()
    with mounted(cluster, tmp_path / "sub", tree, "") as sub:
        with open(sub / "f", "wb", buffering=0) as file, open(sub / "tmp", "w+b") as nameless:
            nameless.write(b"nameless")
            nameless.flush()
            (sub / "tmp").unlink()
            tree.rename(here / "moved")
            tree.mkdir()
            master = cluster.process("master")
            os.kill(master.pid, 9)
            stop([master], term_s=5.0)
            assert not is_alive(master)
            cluster.up()
            file.write(b"after")
            os.fsync(file.fileno())
            nameless.seek(0)
            assert nameless.read() == b"nameless"
        assert (here / "moved/f").read_bytes() == b"after"
        assert os.listdir(sub) == ["f"]


def test_other_exports_bind_sessions_that_are_open(
    cluster: Cluster, exports: Path, here: Path, tmp_path: Path
) -> None:
    def read_again(text: str) -> None:
        exports.write_text(text)
        os.kill(cluster.process("master").pid, signal.SIGHUP)

    held = '[[exports]]\nmounts = ["held"]\naccess = "read-only"\n' + EXPORTS
    with mounted(cluster, tmp_path / "m", here, "name=held") as place:
        (place / "before").touch()
        read_again(held)
        refused(errno.EROFS, until_refused, place / "x")
        assert (place / "before").exists()
        read_again(EXPORTS)
        until_made(place / "after")
        read_again("[[exports]]\nnonsense = 1\n")
        while b"exports.kept" not in cluster.layout.log("master").read_bytes():
            time.sleep(0.02)
        (place / "still").touch()
    exports.write_text(EXPORTS)


def until_refused(path: Path) -> None:
    """Make and remove a file until that is refused."""
    while True:
        path.touch()
        path.unlink()


def until_made(path: Path) -> None:
    """Make a file; EROFS meanwhile is no failure."""
    while not path.exists():
        try:
            path.touch()
        except OSError as error:
            if error.errno != errno.EROFS:
                raise


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_mount_on_an_automount(cluster: Cluster, here: Path, tmp_path: Path) -> None:
    """Whoever is not of the process group that answers the kernel waits at such a place.

    systemd runs mount(8) in its own group; here it is that of the tests.
    """
    (here / "f").write_bytes(b"content")
    source = f"{cluster.layout.directory}//{here.relative_to(cluster.layout.mountpoint(1))}"
    place = tmp_path / "auto"
    place.mkdir()
    asked, asking = os.pipe()
    words = f"fd={asking},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct".encode()
    assert LIBC.mount(b"gfs-test", os.fsencode(place), b"autofs", 0, words) == 0
    os.close(asking)
    try:
        assert run(["mount-helper", source, str(place), "-o", f"log={tmp_path}/log"]) == 0
        assert (place / "f").read_bytes() == b"content"
        assert mounts.detach(os.fsencode(place))
    finally:
        while LIBC.umount2(os.fsencode(place), mounts.MNT_DETACH) == 0:
            pass
        os.close(asked)


SCRIPT = """
set -eu
cd "$1"; sbin=$(readlink -f /sbin)
mount -t overlay overlay -o lowerdir="$1/bin:$sbin" "$sbin"
mount -T fstab -a
mount -T fstab "$1/ro"
mount -T fstab -av | grep "$1/rw.*already mounted" >&2
findmnt -n -o SOURCE,FSTYPE,TARGET "$1/ro"; findmnt -n -o SOURCE,FSTYPE,TARGET "$1/rw"
cat ro/f
! touch ro/x 2>&1
touch rw/x
umount ro; umount rw
! findmnt "$1/ro"; ! findmnt "$1/rw"
mount -t fuse.gfs -o nonsense "$2" rw 2>&1 || echo $?
mount -t fuse.gfs -o remount,ro "$2" rw 2>&1 || echo $?
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_mount_umount_and_fstab(cluster: Cluster, here: Path, tmp_path: Path) -> None:
    """The real mount(8), in a mount namespace in which /sbin has our helper."""
    (here / "f").write_bytes(b"content\n")
    below = here.relative_to(cluster.layout.mountpoint(1))
    address = cluster.layout.load().addresses["master"]
    for name in ("ro", "rw", "bin"):
        (tmp_path / name).mkdir()
    command, environment = program_command("gfs.cli.main")
    helper = tmp_path / "bin/mount.fuse.gfs"
    words = " ".join(f"'{word}'" for word in command)
    path = environment.get("PYTHONPATH", "")
    helper.write_text(f"#!/bin/sh\nexport PYTHONPATH='{path}'\nexec {words} mount-helper \"$@\"\n")
    helper.chmod(0o755)
    directory, key, log = cluster.layout.directory, cluster.layout.key, tmp_path / "log"
    (tmp_path / "fstab").write_text(
        f"{address}/{below} {tmp_path}/ro fuse.gfs"
        f" ro,_netdev,noauto,nofail,user,x-systemd.automount,key={key},log={log} 0 0\n"
        f"{directory}//{below} {tmp_path}/rw fuse.gfs rw,noatime,allow_other,log={log} 0 0\n"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", SCRIPT, "sh", tmp_path, directory],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [
        [f"{address}/{below}", "fuse.gfs", f"{tmp_path}/ro"],
        [f"{directory}//{below}", "fuse.gfs", f"{tmp_path}/rw"],
    ]
    assert lines[2] == "content"
    assert "Read-only file system" in lines[3]
    assert lines[4:6] == ["gfs: mount option 'nonsense' is not known", "32"]
    assert "cannot be changed" in lines[6]
    assert lines[7] == "1"
    assert (here / "x").exists()
