"""`.gfs` at the root of a mount: the trash as files, figures, the version; nobody else meets it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuse.conftest import Cluster
from tests.system.clusters import NOBODY, as_user, nobody_missing

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.mount,
    pytest.mark.usefixtures("young_files_go_to_the_trash_too"),
]
GFS = [sys.executable, "-m", "gfs.cli.main"]


@pytest.fixture
def root(cluster: Cluster) -> Path:
    return cluster.layout.mountpoint(1)


@pytest.fixture
def trash(root: Path) -> Path:
    return root / ".gfs/trash"


def gfs(*words: str | Path) -> subprocess.CompletedProcess[str]:
    words = tuple(map(str, words))
    return subprocess.run([*GFS, *words], capture_output=True, text=True, timeout=30, check=False)


def found_in(trash: Path, name: str) -> Path:
    """The one entry whose name begins so."""
    (found,) = (one for one in os.listdir(trash) if one.startswith(f"{name}.20"))
    return trash / found


def written(path: Path, data: bytes) -> None:
    """To the disk: of what a mount has not committed yet, nothing goes to the trash."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file)


def removed(trash: Path, path: Path, data: bytes) -> Path:
    """A file with this content that was made and removed; where it is now."""
    written(path, data)
    path.unlink()
    return found_in(trash, path.name)


def fails_with(code: int, call: Callable[[], object]) -> None:
    with pytest.raises(OSError) as told:
        call()
    assert errno.errorcode[told.value.errno or 0] == errno.errorcode[code]


def test_nothing_that_walks_the_tree_meets_it(root: Path) -> None:
    assert sorted(os.listdir(root / ".gfs")) == ["snapshots", "stats", "trash", "version"]
    (root / "tree").mkdir()
    (root / "tree/file").touch()
    assert ".gfs" not in os.listdir(root)
    seen = subprocess.run(["find", root, "-name", ".gfs*"], capture_output=True, check=True)
    assert seen.stdout == b""
    subprocess.run("rm -rf ./* .[!.]*", shell=True, cwd=root, check=True)
    assert os.listdir(root) == []
    assert sorted(os.listdir(root / ".gfs")) == ["snapshots", "stats", "trash", "version"]


def test_what_was_removed_can_be_read_and_moved_back(
    cluster: Cluster, here: Path, there: Path, trash: Path
) -> None:
    data = os.urandom(3_000_000)
    gone = removed(trash, here / "report", data)
    assert gone.read_bytes() == data
    assert gone.stat().st_size == len(data)
    other = cluster.layout.mountpoint(2) / ".gfs/trash" / gone.name
    assert other.read_bytes() == data
    with gone.open("rb") as opened:
        os.rename(gone, here / "back")
        assert opened.read(10) == data[:10]
    assert (here / "back").read_bytes() == data == (there / "back").read_bytes()
    assert not gone.exists()
    assert not other.exists()
    assert stat.S_ISREG((here / "back").stat().st_mode)
    with (here / "back").open("ab") as again:
        again.write(b"more")
    assert (there / "back").stat().st_size == len(data) + 4


def test_nothing_is_replaced_by_what_comes_back(here: Path, trash: Path) -> None:
    gone = removed(trash, here / "kept", b"old")
    (here / "kept").write_bytes(b"new")
    fails_with(errno.EEXIST, lambda: os.rename(gone, here / "kept"))
    assert (here / "kept").read_bytes() == b"new"
    assert gone.read_bytes() == b"old"
    assert subprocess.run(["mv", gone, here / "older"], check=True).returncode == 0
    assert (here / "older").read_bytes() == b"old"


def test_removing_it_from_the_trash_gives_it_up(here: Path, trash: Path) -> None:
    gone = removed(trash, here / "secret", b"x" * 1000)
    gone.unlink()
    assert not gone.exists()
    assert "secret" not in gfs("trash", "list", "--cluster", str(here)).stdout
    fails_with(errno.ENOENT, gone.unlink)


def test_two_of_one_name_can_be_told_apart(here: Path, trash: Path) -> None:
    for number in range(3):
        (here / str(number)).mkdir()
        written(here / str(number) / "same", b"%d" % number)
        (here / str(number) / "same").unlink()
    found = [trash / one for one in os.listdir(trash) if one.startswith("same.20")]
    assert {one.read_bytes() for one in found} == {b"0", b"1", b"2"}


def test_a_removed_tree_is_browsed_and_taken_apart(here: Path, there: Path, trash: Path) -> None:
    inner = here / "tree/a/b"
    inner.mkdir(parents=True)
    for number in range(300):
        (inner / f"f{number}").write_bytes(b"%d" % number)
    (inner / "link").symlink_to("f7")
    assert gfs("rm", "-r", here / "tree").returncode == 0
    gone = found_in(trash, "tree")
    assert sorted(os.listdir(gone / "a/b")) == sorted([*(f"f{n}" for n in range(300)), "link"])
    assert (gone / "a/b/f7").read_bytes() == b"7"
    assert os.readlink(gone / "a/b/link") == "f7"
    assert (gone / "a/b/link").read_bytes() == b"7"
    os.rename(gone / "a/b/f8", here / "saved")
    assert (there / "saved").read_bytes() == b"8"
    assert not (gone / "a/b/f8").exists()
    fails_with(errno.ENOTEMPTY, gone.rmdir)
    fails_with(errno.EROFS, lambda: (gone / "a/new").write_bytes(b"x"))
    fails_with(errno.EROFS, lambda: (gone / "a/b/f9").write_bytes(b"x"))
    os.rename(gone / "a", here / "a")
    assert len(os.listdir(there / "a/b")) == 300
    (here / "a/new").write_bytes(b"it is an ordinary directory again")
    gone.rmdir()
    assert not gone.exists()


def test_rm_r_in_the_trash_leaves_nothing_there(here: Path, trash: Path) -> None:
    inner = here / "whole/a"
    inner.mkdir(parents=True)
    (inner / "file").write_bytes(b"x" * 1000)
    assert gfs("rm", "-r", here / "whole").returncode == 0
    before = set(os.listdir(trash)) - {found_in(trash, "whole").name}
    shutil.rmtree(found_in(trash, "whole"))
    assert set(os.listdir(trash)) == before


def test_everybody_sees_his_own_trash_and_root_sees_all(
    root: Path, here: Path, trash: Path
) -> None:
    if reason := nobody_missing():
        pytest.skip(reason)

    def as_nobody(script: str) -> subprocess.CompletedProcess[str]:
        """From the root of the mount on: the way there may be closed to nobody."""
        words = [*as_user(NOBODY, NOBODY), "sh", "-c", script]
        return subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)

    os.chmod(here, 0o777)
    roots = removed(trash, here / "roots", b"x" * 10)
    mine = f"{here.name}/mine"
    made = as_nobody(f"echo mine > {mine} && sync {mine} && rm {mine} && ls .gfs/trash")
    assert made.returncode == 0, made.stderr
    (listed,) = made.stdout.split()
    assert listed.startswith("mine.20")
    assert listed in os.listdir(trash)
    assert as_nobody(f"cat .gfs/trash/{listed}").stdout == "mine\n"
    for command in ("cat {0}", "rm -f {0} && cat {0}", f"mv {{0}} {here.name}/taken"):
        assert as_nobody(command.format(f".gfs/trash/{roots.name}")).returncode, command
    assert roots.read_bytes() == b"x" * 10
    assert as_nobody(f"mv .gfs/trash/{listed} {mine}").returncode == 0
    assert (here / "mine").read_text() == "mine\n"


def test_whatever_else_would_change_it_is_refused(root: Path, here: Path, trash: Path) -> None:
    gone = removed(trash, here / "f", b"x" * 10)
    (here / "own").write_bytes(b"y")
    dot_gfs = root / ".gfs"
    fails_with(errno.EEXIST, dot_gfs.mkdir)
    for refused in (
        lambda: (dot_gfs / "new").touch(),
        lambda: (trash / "new").mkdir(),
        lambda: (trash / "new").symlink_to("x"),
        lambda: os.mkfifo(trash / "new"),
        lambda: os.rename(here / "own", trash / "own"),
        lambda: os.rename(gone, trash / "other"),
        lambda: os.link(here / "own", trash / "own"),
        lambda: os.link(gone, here / "linked"),
        lambda: (dot_gfs / "stats").unlink(),
        trash.rmdir,
        dot_gfs.rmdir,
        lambda: os.rename(dot_gfs, here / "gfs"),
        lambda: os.rename(here, dot_gfs),
        lambda: os.truncate(gone, 0),
        lambda: os.chmod(gone, 0o777),
        lambda: os.utime(gone),
        lambda: os.setxattr(gone, "user.a", b"b"),
        lambda: os.open(dot_gfs / "version", os.O_WRONLY),
        lambda: os.open(gone, os.O_RDWR),
    ):
        fails_with(errno.EROFS, refused)
    assert os.listxattr(gone) == []
    assert gone.read_bytes() == b"x" * 10
    assert (here / "own").read_bytes() == b"y"
    told = gfs("mkdir", "/.gfs", "--cluster", str(root))
    assert told.returncode


def test_snapshots_are_found_wherever_they_are(
    cluster: Cluster, root: Path, here: Path, there: Path
) -> None:
    (here / "source").mkdir()
    (here / "source/f").write_bytes(b"as it was")
    shown = root / ".gfs/snapshots"
    before = set(os.listdir(shown))
    for name in ("monday", "tuesday"):
        assert gfs("snapshot", here / "source", here / name).returncode == 0
    assert set(os.listdir(shown)) - before == {"monday", "tuesday"}
    (here / "source/f").write_bytes(b"as it is")
    assert (shown / "monday/f").read_bytes() == b"as it was"
    assert (shown / "monday").resolve() == here / "monday"
    (there / "monday").rename(there / "moved")
    assert (shown / "moved/f").read_bytes() == b"as it was"
    assert not os.path.lexists(shown / "monday")
    assert gfs("rm", "-r", here / "tuesday").returncode == 0
    assert set(os.listdir(shown)) - before == {"moved"}
    fails_with(errno.EROFS, (shown / "new").mkdir)
    fails_with(errno.EROFS, (shown / "moved").unlink)


def test_figures_are_those_of_the_moment(root: Path, here: Path) -> None:
    def figures() -> dict[str, str]:
        lines = (root / ".gfs/stats").read_text().splitlines()
        return dict(line.split(" ", 1) for line in lines)

    assert (root / ".gfs/version").read_text().startswith("gfs ")
    before = figures()
    assert before["cluster.chunk_servers_up"] == "3"
    assert float(before["mount.lease_left_s"]) > 0
    with (here / "a").open("w"), (here / "b").open("w"):
        assert int(figures()["mount.files"]) == int(before["mount.files"]) + 2
    assert figures()["mount.files"] == before["mount.files"]
