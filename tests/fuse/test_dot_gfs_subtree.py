"""`.gfs` in a mount of a subtree: what belongs to the subtree, nothing outside is named."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from gfs.cli.main import run
from tests.fuse.conftest import Cluster
from tests.fuse.restricted import mounted, refused
from tests.fuse.sides import acting_as

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.mount,
    pytest.mark.usefixtures("young_files_go_to_the_trash_too"),
]


@pytest.fixture
def tree(here: Path) -> Path:
    (here / "tree/d").mkdir(parents=True)
    return here / "tree"


def written(path: Path, data: bytes) -> Path:
    """To the disk: of what a mount has not committed yet, nothing goes to the trash."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file)
    return path


def found_in(sub: Path) -> dict[str, str]:
    """What the trash of a mount holds: the names, without the times of removal."""
    return {name.rpartition(".20")[0]: name for name in os.listdir(sub / ".gfs/trash")}


def test_the_trash_holds_what_was_removed_below(
    cluster: Cluster, here: Path, tree: Path, tmp_path: Path
) -> None:
    written(here / "secret", b"outside").unlink()
    with mounted(cluster, tmp_path / "sub", tree, "") as sub:
        written(tree / "d/theirs", b"by another mount").unlink()
        written(sub / "d/mine", b"by this one").unlink()
        written(sub / "top", b"at the root").unlink()
        found = found_in(sub)
        assert set(found) == {"theirs", "mine", "top"}
        trash = sub / ".gfs/trash"
        assert (trash / found["theirs"]).read_bytes() == b"by another mount"
        outside = found_in(cluster.layout.mountpoint(1))["secret"]
        refused(errno.ENOENT, os.stat, trash / outside)
        refused(errno.ENOENT, os.unlink, trash / outside)
        refused(errno.ENOENT, os.rename, trash / outside, sub / "taken")
        subprocess.run(["mv", trash / found["mine"], sub / "d/back"], check=True)
        os.rename(trash / found["top"], sub / "top")
        assert (tree / "d/back").read_bytes() == b"by this one"
        assert (tree / "top").read_bytes() == b"at the root"
        (trash / found["theirs"]).unlink()
        assert os.listdir(trash) == []
        assert "theirs" not in found_in(cluster.layout.mountpoint(1))


def test_what_lay_in_directories_that_are_gone_is_found_and_comes_back(
    cluster: Cluster, here: Path, tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "beside").mkdir()
    with mounted(cluster, tmp_path / "sub", tree, "") as sub:
        (sub / "d/e").mkdir()
        for name in ("f", "e/g"):
            written(sub / "d" / name, name.encode())
        written(here / "beside/h", b"outside")
        subprocess.run(["rm", "-r", sub / "d", here / "beside"], check=True)
        found = found_in(sub)
        assert set(found) == {"f", "g"}
        trash = sub / ".gfs/trash"
        assert (trash / found["g"]).read_bytes() == b"e/g"
        os.rename(trash / found["f"], sub / "f")
        assert (tree / "f").read_bytes() == b"f"


def test_a_removed_tree_is_taken_apart(cluster: Cluster, tree: Path, tmp_path: Path) -> None:
    with mounted(cluster, tmp_path / "sub", tree, "") as sub:
        written(sub / "d/before", b"removed before its directory").unlink()
        written(sub / "d/f", b"content")
        assert run(["rm", "-r", str(sub / "d")]) == 0
        found = found_in(sub)
        assert set(found) == {"d", "before"}
        gone = sub / ".gfs/trash" / found["d"]
        assert (gone / "f").read_bytes() == b"content"
        os.rename(gone / "f", sub / "f")
        gone.rmdir()
        assert set(found_in(sub)) == {"before"}
        assert (tree / "f").read_bytes() == b"content"


def test_snapshots_are_those_below(
    cluster: Cluster, here: Path, tree: Path, tmp_path: Path
) -> None:
    written(tree / "d/f", b"as it was")
    assert run(["snapshot", str(tree / "d"), str(here / "outside")]) == 0
    with mounted(cluster, tmp_path / "sub", tree, "") as sub:
        assert run(["snapshot", str(sub / "d"), str(sub / "monday")]) == 0
        shown = sub / ".gfs/snapshots"
        assert os.listdir(shown) == ["monday"]
        assert os.readlink(shown / "monday") == "../../monday"
        written(sub / "d/f", b"as it is")
        assert (shown / "monday/f").read_bytes() == b"as it was"
        (tree / "monday").rename(tree / "d/moved")
        assert (shown / "moved/f").read_bytes() == b"as it was"
        (tree / "d/moved").rename(here / "moved")
        assert os.listdir(shown) == []
        refused(errno.EROFS, (shown / "new").mkdir)
    with mounted(cluster, tmp_path / "of", here / "outside", "") as sub:
        assert os.listdir(sub / ".gfs/snapshots") == []


def test_figures_and_version(cluster: Cluster, tree: Path, tmp_path: Path) -> None:
    with mounted(cluster, tmp_path / "sub", tree, "") as sub:
        assert sorted(os.listdir(sub / ".gfs")) == ["snapshots", "stats", "trash", "version"]
        assert os.listdir(sub) == ["d"]
        text = (sub / ".gfs/stats").read_text()
        assert "cluster.chunk_servers_up 3\n" in text
        assert "tree" not in text
        assert (sub / ".gfs/version").read_text().startswith("gfs ")
        assert os.stat(sub / ".gfs/..").st_ino == 1


def test_a_real_one_in_the_directory_is_shown_instead(
    cluster: Cluster, tree: Path, tmp_path: Path
) -> None:
    """Only in the root of the cluster the name is nobody's; one may come, and go, at any time."""
    with mounted(cluster, tmp_path / "sub", tree, "") as sub:
        assert os.listdir(sub / ".gfs/trash") == []
        (tree / ".gfs").mkdir()
        written(tree / ".gfs/own", b"a file like others")
        assert sorted(os.listdir(sub)) == [".gfs", "d"]
        assert os.listdir(sub / ".gfs") == ["own"]
        written(sub / ".gfs/more", b"made here")
        (tree / ".gfs/own").unlink()  # by the mount that may still have it open: else no trash
        subprocess.run(["rm", "-r", sub / ".gfs"], check=True)
        assert os.listdir(tree) == ["d"]
        assert len(os.listdir(sub / ".gfs/trash")) == 2
        refused(errno.EEXIST, (sub / ".gfs").mkdir)


def test_a_read_only_mount_shows_it_and_takes_nothing_out(
    cluster: Cluster, tree: Path, tmp_path: Path
) -> None:
    written(tree / "d/f", b"content").unlink()
    with mounted(cluster, tmp_path / "sub", tree, "ro") as sub:
        (gone,) = (sub / ".gfs/trash").iterdir()
        assert gone.read_bytes() == b"content"
        refused(errno.EROFS, gone.unlink)
        refused(errno.EROFS, os.rename, gone, sub / "f")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_users_see_their_own_by_the_mounts_numbers(
    cluster: Cluster, tree: Path, tmp_path: Path
) -> None:
    tree.chmod(0o777)
    (tree / "d").chmod(0o777)
    written(tree / "d/roots", b"x").unlink()
    words = "root_squash,map_uid=1000:3000:10,map_gid=1000:3000:10"
    with mounted(cluster, tmp_path / "sub", tree, words, by_descriptor=True) as sub:
        with acting_as(1000):
            written(sub / "d/mine", b"mine").unlink()
            (name,) = os.listdir(sub / ".gfs/trash")
            assert name.startswith("mine.20")
            assert os.stat(sub / ".gfs/trash" / name).st_uid == 1000
            os.rename(sub / ".gfs/trash" / name, sub / "mine")
        assert os.listdir(sub / ".gfs/trash") == []  # root is nobody here
        assert os.stat(tree / "mine").st_uid == 3000
