"""What a mount keeps open past the last close is seen by nobody but the master."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuse.conftest import Cluster
from tests.fuse.test_watching import requests
from tests.system.clusters import LocalCluster

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.mount,
    pytest.mark.usefixtures("young_files_go_to_the_trash_too"),
]
TURNS = 300


@pytest.fixture
def gfs(cluster: Cluster) -> LocalCluster:
    return LocalCluster(cluster.layout.directory)


def trashed(gfs: LocalCluster, here: Path) -> list[str]:
    found = gfs.out("trash", "list", "--json").splitlines()
    paths = [json.loads(line)["path"] for line in found]
    return [Path(path).name for path in paths if path.startswith(f"/{here.name}/")]


def used(gfs: LocalCluster, path: Path) -> int:
    found: int = json.loads(gfs.out("quota", path, "--json").splitlines()[0])["bytes"]["used"]
    return found


def stored(path: Path, content: bytes) -> None:
    """As of the log: what waits in a mount does not go to the trash."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_twice(path: Path) -> list[bytes]:
    """Opened each time, the second time by what the mount keeps."""
    found = [path.read_bytes() for _ in range(2)]
    let_go(path)
    return found


def let_go(path: Path) -> None:
    """The mount knows what was closed: close(2) does not wait for that, a request after it does."""
    os.statvfs(path)


def test_each_open_sees_what_was_closed_elsewhere_before(here: Path, there: Path) -> None:
    """Also where only the content tells: of the same size, with the time before."""
    for turn in range(TURNS):
        writer, reader = (here, there) if turn % 2 else (there, here)
        content = b"%06d" % turn * 100
        assert read_twice(reader / "f") == [b"%06d" % (turn - 1) * 100] * 2 if turn else True
        (writer / "f").write_bytes(content)
        os.utime(writer / "f", ns=(1, 1))
        assert read_twice(reader / "f") == [content] * 2
        assert read_twice(writer / "f") == [content] * 2


def test_permission_that_is_taken_away_elsewhere_counts_at_the_next_open(
    here: Path, there: Path
) -> None:
    """Of another user, who has read it before."""
    os.chmod(here, 0o755)
    (here / "f").write_bytes(b"x")
    program = """if True:
        import os, sys
        os.chdir(sys.argv[1])
        os.setgroups([])
        os.setgid(12345)
        os.setuid(12345)
        for line in sys.stdin:
            try:
                os.close(os.open("f", os.O_RDONLY))
                print("read", flush=True)
            except PermissionError:
                print("refused", flush=True)
    """
    command = [sys.executable, "-c", program, str(there)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as stranger:
        assert stranger.stdin is not None
        assert stranger.stdout is not None
        for turn in range(20):
            os.chmod((here, there)[turn % 2] / "f", (0o604, 0o600)[turn // 2 % 2])
            for _ in range(2):
                stranger.stdin.write("\n")
                stranger.stdin.flush()
                told = stranger.stdout.readline()
                assert told == ("read\n", "refused\n")[turn // 2 % 2]
        stranger.stdin.close()


@pytest.mark.parametrize("way", ["unlink", "rename over"])
def test_space_of_a_file_read_elsewhere_is_there_at_once(
    gfs: LocalCluster, here: Path, there: Path, way: str
) -> None:
    (here / "new").touch()
    stored(here / "f", b"x" * 100_000)
    gfs.gfs("quota", "set", here, "--bytes", "1MiB")
    assert read_twice(there / "f") == [b"x" * 100_000] * 2
    with (there / "f").open("rb") as held:
        pass
    let_go(there)
    if way == "unlink":
        os.unlink(here / "f")
    else:
        os.rename(here / "new", here / "f")
    assert used(gfs, here) == 0
    assert held.closed


def test_space_of_a_file_open_elsewhere_is_there_after_its_close(
    gfs: LocalCluster, here: Path, there: Path
) -> None:
    stored(here / "f", b"x" * 100_000)
    gfs.gfs("quota", "set", here, "--bytes", "1MiB")
    assert read_twice(there / "f") == [b"x" * 100_000] * 2
    with (there / "f").open("rb") as held:
        os.unlink(here / "f")
        assert used(gfs, here) == 100_000
        assert held.read() == b"x" * 100_000
    while used(gfs, here):
        pass  # until the close is told, a quarter of a second
    assert trashed(gfs, here) == []


@pytest.mark.parametrize("where", ["here", "there"])
def test_what_was_read_goes_to_the_trash(
    gfs: LocalCluster, here: Path, there: Path, where: str
) -> None:
    reader = here if where == "here" else there
    for name in ("read", "open", "both"):
        stored(here / name, b"x")
        assert read_twice(reader / name) == [b"x"] * 2
    with (reader / "open").open("rb"), (reader / "both").open("rb") as closed:
        closed.close()
        let_go(reader)
        for name in ("read", "open", "both"):
            os.unlink(here / name)
    assert sorted(trashed(gfs, here)) == ["both", "read"]


def test_a_tree_that_is_removed_elsewhere_file_by_file_is_in_the_trash_file_by_file(
    gfs: LocalCluster, here: Path, there: Path
) -> None:
    for number in range(30):
        stored(here / f"{number}", b"x")
    subprocess.run(["grep", "-r", "x", str(there)], check=True, capture_output=True, timeout=60)
    for number in range(30):
        os.unlink(here / f"{number}")
    assert len(trashed(gfs, here)) == 30


def test_a_mount_that_reads_again_what_it_has_written_asks_once(here: Path) -> None:
    for number in range(20):
        stored(here / f"{number}", b"%d" % number)
    for number in range(20):
        (here / f"{number}").read_bytes()
    before = requests(here)
    for number in range(20):
        os.chmod(here / f"{number}", 0o600 + number % 2)  # a change of its own ends nothing
        assert (here / f"{number}").read_bytes() == b"%d" % number
    assert requests(here) == before + 20
