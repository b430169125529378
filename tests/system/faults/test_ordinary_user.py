"""A user who is not root: a whole cluster of his own, and no way around permissions."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leftovers
from tests.conftest import fuse_missing
from tests.system.clusters import ROOT, LocalCluster
from tests.system.faults.works import amount

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

OTHER_UID = 54_321  # no such user is needed


def as_user(uid: int, gid: int) -> list[str]:
    """Words that run a command as that user, without any privilege."""
    return [
        "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--inh-caps=-all",
        "--ambient-caps=-all",
    ]  # fmt: skip


def variables() -> dict[str, str]:
    """The packages of this interpreter, for one of another prefix, too."""
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HOME": "/"}


def python_for(words: list[str]) -> str | None:
    """An interpreter that such a user can start, and start again from itself."""
    again = (
        "import subprocess, sys, gfs, msgspec, apsw; "
        "sys.exit(subprocess.call([sys.executable, '-c', 'import pyfuse3']))"
    )
    for python in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        if shutil.which(python) and run([*words, python, "-c", again]) == 0:
            return python
    return None


class UsersCluster(LocalCluster):
    """Commands run as that user, by an interpreter he can reach."""

    python = sys.executable

    def command(self, named: bool = True) -> list[str | Path]:
        words = super().command(named)
        return [self.python if word == sys.executable else word for word in words]

    def variables(self) -> dict[str, str]:
        return {**super().variables(), **variables()}


@pytest.fixture
def nobody() -> tuple[int, int]:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed (package util-linux)")
    entry = pwd.getpwnam("nobody")
    python = python_for(as_user(entry.pw_uid, entry.pw_gid))
    if python is None:
        pytest.skip(f"no other user can run {sys.executable}")
    UsersCluster.python = python
    return entry.pw_uid, entry.pw_gid


@pytest.fixture
def passable() -> Iterator[Path]:
    """A directory on the way to which nobody is stopped.

    Not below pytest's own: each run of pytest, also one that begins meanwhile, shuts those.
    """
    path = Path(tempfile.mkdtemp(prefix="gfs-user-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    path.chmod(0o711)
    yield path
    assert not leftovers.mounts(path)
    shutil.rmtree(path)


@pytest.fixture
def users_cluster(passable: Path, nobody: tuple[int, int]) -> Iterator[UsersCluster]:
    """A directory of the user's own, and commands run as him."""
    directory = passable / "c"
    directory.mkdir()
    os.chown(directory, *nobody)
    found = UsersCluster(directory, as_user(*nobody))
    yield found
    found.end()


@pytest.mark.mount
def test_ordinary_user_has_a_whole_cluster(users_cluster: UsersCluster) -> None:
    """Mounted where fusermount3 allows it; else said, and everything else works."""
    said = users_cluster.up("--no-projections").stderr.decode()
    users_cluster.gfs("put", "-", "/put", given=b"without a mount")
    assert users_cluster.out("cat", "/put") == b"without a mount"
    users_cluster.gfs("append", "/log", given=b"line\n")
    assert users_cluster.out("cat", "/log") == b"line\n"
    if "mount1" not in users_cluster.pids():
        assert "nothing is mounted" in said
        return
    assert "allow_other" in said  # what is lost is said
    assert "read-ahead" in said
    shell = f"cat {users_cluster.first}/put; echo more >> {users_cluster.first}/log"
    done = subprocess.run(
        [*users_cluster.prefix, "sh", "-c", shell], capture_output=True, check=True, timeout=30
    )
    assert done.stdout == b"without a mount"
    assert users_cluster.out("cat", "/log") == b"line\nmore\n"


@pytest.mark.mount
def test_what_cat_is_refused_gfs_get_is_refused(passable: Path, nobody: tuple[int, int]) -> None:
    """Root's cluster, files of several modes, seen by strangers by mount and by command."""
    if reason := fuse_missing():
        pytest.skip(reason)
    cluster = LocalCluster(passable / "c")
    try:
        cluster.up("--no-projections")
        cluster.directory.chmod(0o755)
        fill(cluster.first, *nobody)
        key = passable / "key"
        shutil.copyfile(cluster.directory / "key", key)
        key.chmod(0o600)
        strangers = [nobody, (OTHER_UID, nobody[1]), (OTHER_UID, OTHER_UID)]
        for uid, gid in strangers[: amount(ci=1, full=3)]:
            compare(cluster, key, uid, gid)
    finally:
        cluster.end()


def fill(root: Path, uid: int, gid: int) -> None:
    for mode in (0o600, 0o640, 0o644, 0o604, 0o000, 0o400, 0o040, 0o004):
        for owner in ((0, 0), (uid, gid)):
            path = root / f"f{mode:03o}-{owner[0]}"
            path.write_bytes(b"content")
            os.chown(path, *owner)
            path.chmod(mode)
    for mode in (0o700, 0o711, 0o744, 0o755):
        directory = root / f"d{mode:o}"
        directory.mkdir()
        (directory / "f").write_bytes(b"content")
        directory.chmod(mode)


def compare(cluster: LocalCluster, key: Path, uid: int, gid: int) -> None:
    """Whatever the kernel answers through the mount, the command must answer too."""
    os.chown(key, uid, gid)
    words = as_user(uid, gid)
    command = [*words, UsersCluster.python, "-m", "gfs.cli.main"]
    paths = sorted(path for path in cluster.first.rglob("*") if path.is_file())
    seen = {run([*words, "cat", str(path)]) for path in paths}
    assert seen == {0, 1}
    for path in paths:
        direct = f"/{path.relative_to(cluster.first)}"
        by_mount = run([*words, "cat", str(path)])
        with_key = run([*command, "--cluster", str(cluster.directory), "cat", direct], key)
        assert (by_mount == 0) == (with_key == 0), (uid, gid, direct, by_mount, with_key)
    direct = "/f644-0"
    assert run([*command, "--cluster", str(cluster.directory), "cat", direct]) != 0  # no key


def run(words: list[str], key: Path | None = None) -> int:
    environment = variables()
    if key is not None:
        environment["GFS_CLUSTER_KEY_FILE"] = str(key)
    done = subprocess.run(
        words, capture_output=True, cwd="/", env=environment, check=False, timeout=30
    )
    return done.returncode
