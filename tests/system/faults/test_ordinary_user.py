"""A user who is not root: a whole cluster of his own, and no way around permissions."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import fuse_missing
from tests.system.clusters import (
    NOBODY,
    LocalCluster,
    UsersCluster,
    as_user,
    nobody_missing,
    packages,
    passable_directory,
    python_for_others,
)
from tests.system.faults.works import amount

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

OTHER_UID = 54_321  # no such user is needed


@pytest.fixture
def nobody() -> tuple[int, int]:
    if reason := nobody_missing():
        pytest.skip(reason)
    return NOBODY, NOBODY


@pytest.fixture
def passable() -> Iterator[Path]:
    with passable_directory() as path:
        yield path


@pytest.fixture
def users_cluster(passable: Path, nobody: tuple[int, int]) -> Iterator[UsersCluster]:
    """A directory of the user's own, and commands run as him."""
    directory = passable / "c"
    directory.mkdir()
    os.chown(directory, *nobody)
    found = UsersCluster(directory)
    yield found
    found.end()


@pytest.mark.mount
def test_ordinary_user_has_a_whole_cluster(users_cluster: UsersCluster) -> None:
    """Mounted where fusermount3 allows it; else said, and everything else works."""
    said = users_cluster.up("--no-projections").stderr.decode()
    assert (users_cluster.directory / "key").stat().st_uid == NOBODY
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


# One process runs the command for one file after the other: to start it is what takes time.
EACH = """
import sys
from gfs.cli.main import run
codes = [run(["--cluster", sys.argv[1], "cat", path]) for path in sys.argv[2:]]
print(*codes, file=sys.stderr)
"""


def compare(cluster: LocalCluster, key: Path, uid: int, gid: int) -> None:
    """Whatever the kernel answers through the mount, the command must answer too."""
    os.chown(key, uid, gid)
    words = as_user(uid, gid)
    paths = sorted(path for path in cluster.first.rglob("*") if path.is_file())
    by_mount = [run([*words, "cat", str(path)]).returncode for path in paths]
    assert set(by_mount) == {0, 1}
    command = [*words, str(python_for_others()), "-c", EACH, str(cluster.directory)]
    named = [f"/{path.relative_to(cluster.first)}" for path in paths]
    with_key = run([*command, *named], key)
    codes = [int(code) for code in with_key.stderr.splitlines()[-1].split()]
    for path, mount, direct in zip(named, by_mount, codes, strict=True):
        assert (mount == 0) == (direct == 0), (uid, gid, path, mount, direct)
    assert with_key.stdout == b"content" * codes.count(0)
    without = run([*command, "/f644-0"])
    assert without.stderr.splitlines()[-1] != b"0"


def run(words: list[str], key: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | packages()
    if key is not None:
        environment["GFS_CLUSTER_KEY_FILE"] = str(key)
    return subprocess.run(
        words, capture_output=True, cwd="/", env=environment, check=False, timeout=60
    )
