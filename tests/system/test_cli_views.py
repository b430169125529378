"""`gfs find`, `search`, `du`, `sql`, `stream` and `status` against a real cluster.

What the views say is compared with what ordinary tools find on the mount.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tests.system.clusters import (
    LocalCluster,
    UsersCluster,
    nobody_missing,
    passable_directory,
)

pytestmark = [pytest.mark.mount, pytest.mark.timeout(180)]

NAMES = [b"caf\xe9", b"new\nline", "ü€".encode(), b"space here", b"-dash", b"q'uote\"s", b"*star?"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with passable_directory() as path:
        yield from filled(LocalCluster(path / "c"))


def filled(found: LocalCluster) -> Iterator[LocalCluster]:
    """The same, running and with files in it; ended at last."""
    try:
        found.up("--chunkservers", "1")
        tree = found.first / "tree"
        (tree / "a" / "b").mkdir(parents=True)
        (tree / "empty").mkdir()
        for number in range(30):
            (tree / "a" / f"file{number:02d}.log").write_bytes(b"x" * number * 700)
        (tree / "a" / "b" / "BIG.dat").write_bytes(b"y" * 3_000_000)
        (tree / "a" / "link").symlink_to("file01.log")
        os.link(tree / "a" / "file02.log", tree / "a" / "b" / "hard")
        (tree / "a" / "file03.log").chmod(0o600)
        os.utime(tree / "a" / "file04.log", (1, 10**9))
        for name in NAMES:
            (tree / os.fsdecode(name)).write_bytes(name)
        yield found
    finally:
        found.end()


EXPRESSIONS = [
    "",
    "-type f",
    "-type d",
    "-type l",
    "-mindepth 2",
    "-maxdepth 1",
    "-mindepth 1 -maxdepth 2 -type d",
    "-name *.log",
    "-iname big*",
    "-path */a/*",
    "-name file0[1-3].log",
    "-size +1M",
    "-size -2k",
    "-size 3",
    "-empty",
    "-links 2",
    "-perm 600",
    "-perm -400 -type f",
    "-mtime +1000",
    "-mmin -600 -type f",
    "-newer {tree}/a/file04.log -name *.log",
    "-user root -name *.dat",
    "( -name *.log -o -name *.dat ) ! -size +10k",
    "-not -type f",
    "-type f -name *0* -o -type d -name b",
    "-name b -prune -o -type f",
    "-regextype posix-extended -iregex .*/(big|FILE1.)\\..*",
    "-samefile {tree}/a/file02.log",
    "-perm -u+r,g-w -type f",
    "-nouser",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_find_says_what_find_says(cluster: LocalCluster, expression: str) -> None:
    tree = cluster.first / "tree"
    words = expression.format(tree=tree).split()
    theirs = subprocess.run(
        ["find", tree, *words, "-print0"] if "-o" not in words[-5:] else
        ["find", tree, "(", *words, ")", "-print0"],
        capture_output=True, check=True, timeout=20,
    ).stdout  # fmt: skip
    if "-o" in words[-5:]:
        words = ["(", *words, ")"]
    ours = cluster.out("find", tree, *words, "-print0", "--wait")
    assert sorted(ours.split(b"\0")) == sorted(theirs.split(b"\0"))


def test_find_starts_where_one_stands_and_shows_paths_as_typed(cluster: LocalCluster) -> None:
    inside = cluster.first / "tree" / "a"

    def find(*words: str) -> list[bytes]:
        return sorted(cluster.out("find", *words, "--wait", cwd=inside, named=False).splitlines())

    for words in ((), (".", "-name", "*.log"), ("b",), ("../empty", "b")):
        theirs = subprocess.run(
            ["find", *words], cwd=inside, capture_output=True, check=True, timeout=20
        )
        assert find(*words) == sorted(theirs.stdout.splitlines())
    assert cluster.out("find", "/tree/empty") == b"/tree/empty\n"
    assert cluster.out("find", "-maxdepth", "0") == b"/\n"
    assert b"--wait" in cluster.out("find", "--help")


FORMATS = (
    r"%p|%P|%f|%h|%H|%d|%y|%l\0", r"%s %b %k %S %m %#m %M %n %i %P\0", r"%u %U %g %G %-9u|%P\0",
    r"%t|%T@|%TY-%Tm-%Td %TH:%TM:%TS|%c|%C+|%P\0", r"%10s|%-10f|%.3f|%%\t\101\0",
    r"%D %9D|%F %-12F|%Y%y %5Y|%P\0",
)  # fmt: skip


@pytest.mark.parametrize("text", FORMATS)
def test_printf_prints_the_bytes_that_find_prints(cluster: LocalCluster, text: str) -> None:
    words = ["find", str(cluster.first / "tree"), "-printf", text]
    theirs = subprocess.run(words, capture_output=True, check=True, timeout=20).stdout
    ours = cluster.out(*words, "--wait")
    assert sorted(ours.split(b"\0")) == sorted(theirs.split(b"\0"))


def test_ls_prints_what_find_prints(cluster: LocalCluster) -> None:
    words = ["find", str(cluster.first / "tree"), "-ls"]
    theirs = subprocess.run(words, capture_output=True, check=True, timeout=20).stdout
    ours = cluster.out(*words, "--wait")
    assert sorted(map(bytes.split, ours.splitlines())) == sorted(
        map(bytes.split, theirs.splitlines())
    )


def test_commands_get_paths_that_mean_the_files(cluster: LocalCluster) -> None:
    inside = cluster.first / "tree" / "a"
    for words in (
        "-name *.log -exec test -s {} ; -print0",
        "b -type f -exec cat {} ;",
        ". -name file0* -exec ls -d {} +",
        "-type f -execdir ls {} ; -quit",
        "-name b -exec test -d {} ; -prune -o -type f -printf %f\\0",
    ):
        run = ["find", *words.split()]
        theirs = subprocess.run(run, cwd=inside, capture_output=True, check=True, timeout=20)
        ours = cluster.out(*run, cwd=inside, named=False)
        if "-quit" in words:  # which file comes first is anybody's
            assert ours.count(b"\n") == 1
        else:
            assert sorted(ours.replace(b"\0", b" ").split()) == sorted(
                theirs.stdout.replace(b"\0", b" ").split()
            )
    # From outside a mount the path is that on the mount, never one of this host.
    trees = [os.fsencode(mount / "tree") for mount in (cluster.first, cluster.second)]
    counted = cluster.out("find", "/tree/a/b/BIG.dat", "-exec", "wc", "-c", "{}", ";")
    assert counted in [b"3000000 %b/a/b/BIG.dat\n" % tree for tree in trees]
    odd = cluster.out("find", b"/tree/caf\xe9", "-exec", "ls", "-d", "{}", ";")
    assert odd in [tree + b"/caf\xe9\n" for tree in trees]
    said = cluster.gfs("find", "/tree/empty", "-exec", "no-such-command", ";").stderr
    assert b"no-such-command" in said
    cluster.gfs("find", "/tree/empty", "-exec", "false", "{}", "+", code=1)


def test_delete_removes_with_the_callers_rights_and_names_what_stays(
    cluster: LocalCluster,
) -> None:
    doomed = cluster.first / "doomed"
    (doomed / "deep" / "er").mkdir(parents=True)
    for name in (b"a.tmp", b"keep", "ü \n.tmp".encode(), b"x\xff.tmp"):
        (doomed / "deep" / os.fsdecode(name)).write_bytes(b"x")
    gone = cluster.out("find", doomed, "-name", "*.tmp", "-delete", "-print0")
    assert len(gone.split(b"\0")) == 4
    assert sorted(os.listdir(doomed / "deep")) == ["er", "keep"]
    said = cluster.gfs("find", doomed, "-type", "d", "-delete", code=1).stderr.decode()
    assert said.count("cannot delete") == 2
    assert "not empty" in said.lower()
    assert os.listdir(doomed / "deep") == ["keep"]
    if nobody_missing() is None:
        cluster.directory.chmod(0o755)
        other = UsersCluster(cluster.directory)
        other.take_key()
        refused = other.gfs("find", doomed, "-name", "keep", "-delete", code=1).stderr
        assert b"cannot delete" in refused
        assert (doomed / "deep" / "keep").exists()
    assert cluster.out("find", doomed, "-delete") == b""
    assert not doomed.exists()


def test_one_missing_start_does_not_hide_the_others(cluster: LocalCluster) -> None:
    done = cluster.gfs("find", "/nowhere", "/tree/empty", code=1)
    assert done.stdout == b"/tree/empty\n"
    assert b"/nowhere" in done.stderr


def test_search_takes_everything_that_is_known_of_a_file(cluster: LocalCluster) -> None:
    def search(*words: str | Path) -> set[str]:
        return set(cluster.out("search", *words, "--wait").decode(errors="replace").splitlines())

    assert search("--regex", r"^file0[1-3]\.log$", "--path", cluster.first / "tree") == {
        f"/tree/a/file0{n}.log" for n in (1, 2, 3)
    }
    assert search("--ext", "DAT") == {"/tree/a/b/BIG.dat"}
    assert search("--size", "+1M", "--kind", "f") == {"/tree/a/b/BIG.dat"}
    assert search("--size", "+600", "--size", "-1000", "--ext", "log") == {"/tree/a/file01.log"}
    assert search("--target", "file01*") == {"/tree/a/link"}
    assert search("--older", "2002-01-01", "file") == {"/tree/a/file04.log"}
    assert search("--owner", "root", "--perm", "600") == {"/tree/a/file03.log"}
    assert search("--glob", "FILE0[12].LOG", "-i", "--newer", "1d") == {
        "/tree/a/file01.log", "/tree/a/file02.log",
    }  # fmt: skip
    os.setxattr(cluster.first / "tree/a/file05.log", "user.colour", b"red")
    assert search("--xattr", "user.colour=red") == {"/tree/a/file05.log"}
    assert search("--xattr", "user.colour=blue") == set()
    first = cluster.json("search", "file", "--limit", "20", "--json")
    rest = cluster.json("search", "file", "--after", first["next"], "--json")
    assert rest["next"] is None
    assert len({row["path"] for row in first["rows"] + rest["rows"]}) == 30
    for words in (
        (),
        ("--size", "x"),
        ("--kind", "z", "a"),
        ("a", "--after", "1-1"),
        ("--regex", "("),
    ):
        assert cluster.gfs("search", *words, code=2).stderr.startswith(b"gfs: ")


def test_find_refuses_what_it_cannot_do(cluster: LocalCluster) -> None:
    for words in (
        ["-nonsense"],
        ["-printf", "%Q"],
        ["-size", "x"],
        ["-ls", "--json"],
        ["(", "-name", "x"],
        ["--cluster"],
    ):
        said = cluster.gfs("find", "/", *words, code=2).stderr
        assert said.startswith(b"gfs: ")
        assert said.count(b"\n") == 1
    assert b"/nowhere" in cluster.gfs("find", "/nowhere", code=1).stderr


def test_every_answer_states_position_and_lag(cluster: LocalCluster) -> None:
    for words in (["find", "/", "-maxdepth", "0"], ["search", "BIG"], ["du"], ["sql", "SELECT 1"]):
        said = cluster.gfs(*words).stderr.decode()
        assert said.startswith("as of position ")
        assert " lag " in said
    for words in (["search", "BIG"], ["du"], ["sql", "SELECT 1"]):
        answer = cluster.json(*words, "--json")
        assert {"position", "epoch", "lag_ms"} <= set(answer)


def test_with_wait_nothing_done_before_is_missing(cluster: LocalCluster) -> None:
    """Also bytes appended by an open handle: the barrier recalls what mounts hold back."""
    place = cluster.first / "waited"
    place.mkdir()
    with open(place / "log", "ab", buffering=0) as log:
        for number in range(1, 11):
            (place / f"new{number}").write_bytes(b"x" * 100)
            log.write(b"y" * 50)
            answer = cluster.json("du", "/waited", "--wait", "--json")
            assert answer["files"] == number + 1
            assert answer["bytes"] == number * 150


def test_search_finds_parts_of_names_and_patterns(cluster: LocalCluster) -> None:
    assert cluster.out("search", "big", "--wait") == b"/tree/a/b/BIG.dat\n"
    assert cluster.out("search", b"\xe9", "-0") == b"/tree/caf\xe9\0"
    logs = cluster.out("search", "--glob", "file0?.log").split()
    assert logs == [f"/tree/a/file{number:02d}.log".encode() for number in range(10)]
    assert cluster.out("search", "file", "--path", "/tree/empty") == b""
    few = cluster.gfs("search", "file", "--limit", "3")
    assert len(few.stdout.splitlines()) == 3
    assert b"more than 3" in few.stderr


def test_du_agrees_with_the_mount(cluster: LocalCluster) -> None:
    tree = cluster.first / "tree"
    seen: dict[int, int] = {}
    for directory, _, names in os.walk(tree):
        for name in names:
            status = os.lstat(os.path.join(directory, name))
            seen[status.st_ino] = status.st_size
    answer = cluster.json("du", "/tree", "--wait", "--json")
    assert (answer["files"], answer["bytes"]) == (len(seen), sum(seen.values()))


def test_du_prints_what_du_prints_on_the_mount(cluster: LocalCluster) -> None:
    """A hard link within the tree counts once for both; which directory has it may differ."""
    tree = cluster.first / "tree"
    for words in (["-s"], ["-s", "--apparent-size"], ["-s", "-b"], ["-s", "--inodes"], ["-d1"]):
        ours = cluster.out("du", *words, tree, "--wait").splitlines()
        theirs = subprocess.run(["du", *words, tree], capture_output=True, check=True, timeout=20)
        assert sorted(ours) == sorted(theirs.stdout.splitlines()), words
    below = cluster.out("du", "-d", "1", tree).splitlines()
    assert below[-1].endswith(b"/tree")
    one, other = cluster.out("du", "-h", "/tree/a/b/BIG.dat", "/tree/empty").splitlines()
    assert one == b"2.9 MiB\t/tree/a/b/BIG.dat"
    assert other.endswith(b"\t/tree/empty")
    by = cluster.json("du", "--by", "extension", "/tree/a", "--json")
    sums = {row[0]: row[1] for row in by["rows"]}
    assert sums["log"] == 30
    assert sums["dat"] == 1


def test_reports_answer_about_a_tree_of_the_mount(cluster: LocalCluster) -> None:
    place = cluster.first / "reported"
    place.mkdir()
    (place / "gone.txt").write_bytes(b"z" * 100)
    (place / "gone.txt").unlink()  # too young to be kept
    (place / "gone tree" / "inside").mkdir(parents=True)
    cluster.out("rm", "-r", place / "gone tree")
    largest = cluster.out("report", "largest", cluster.first / "tree", "-n", "1", "--wait")
    assert largest.splitlines()[1].startswith(b"/tree/a/b/BIG.dat\t")
    cold = cluster.json("report", "cold", "/tree", "--since", "0s", "--json")
    assert len(cold["rows"]) == 20
    deleted = cluster.json("report", "deleted", "--name", "gone*", "--wait", "--json")
    rows = [dict(zip(deleted["columns"], row, strict=True)) for row in deleted["rows"]]
    assert [(row["path"], row["in_trash"]) for row in rows] == [
        ("/reported/gone tree", True),
        ("/reported/gone.txt", False),
    ]
    assert b"largest" in cluster.out("report")
    assert cluster.gfs("report", "ages", "--of", "size", code=2).stderr.startswith(b"gfs: ")


def test_duplicates_are_found_and_compared(cluster: LocalCluster) -> None:
    place = cluster.first / "twins"
    place.mkdir()
    data = os.urandom(300_000)
    (place / "one").write_bytes(data)
    with open(place / "piece by piece", "wb", buffering=0) as file:
        file.writelines(data[start : start + 7001] for start in range(0, len(data), 7001))
    shutil.copy(place / "one", place / "copied")
    (place / "other").write_bytes(data[::-1])
    with open(place / "appended", "ab") as file:
        file.write(data)
    found = cluster.json("report", "duplicates", place, "--wait", "--verify", "--json")
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    assert {row["path"]: row["verified"] for row in rows} == {
        "/twins/copied": "same",
        "/twins/one": "same",
        "/twins/piece by piece": "same",
    }
    assert {row["spare_bytes"] for row in rows} == {2 * len(data)}
    assert cluster.gfs("report", "largest", "--verify", code=2).stderr.startswith(b"gfs: ")


def test_history_tells_what_was_done_on_the_mount(cluster: LocalCluster) -> None:
    place = cluster.first / "told"
    place.mkdir()
    old, new = place / os.fsdecode(b"old\xe9"), place / "new"
    old.write_bytes(b"x" * 100)
    old.rename(new)
    new.chmod(0o600)
    os.setxattr(new, "user.color", b"red")
    os.link(new, place / "link")
    with open(new, "r+b", buffering=0) as file:
        file.write(b"y" * 120)
        os.fsync(file.fileno())  # else what a removed file held need not be told
    (place / "link").unlink()
    new.unlink()
    found = cluster.json("history", place / "new", "--reverse", "--wait", "--json")
    events = [row[found["columns"].index("event")] for row in found["rows"]]
    assert events[0] == "made"
    assert [one for one in events if one not in ("made", "written")] == [
        "renamed", "attributes", "xattrs", "linked", "unlinked", "removed",
    ]  # fmt: skip
    assert found["state"] == "gone"
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    assert [row["size"] for row in rows if row["event"] == "written"][-1] == 120
    assert all(row["uid"] == os.getuid() for row in rows)
    same = cluster.json("history", "--ino", str(found["ino"]), "--reverse", "--json")
    assert same["rows"] == found["rows"]
    said = cluster.gfs("history", b"/told/old\xe9", "-n", "3")
    assert said.stdout.splitlines()[0] == b"time\tevent\twhat\tby"
    assert b"removed\t/told/new" in said.stdout
    assert b", gone" in said.stderr
    assert b"as of position" in said.stderr
    renamed = cluster.out("history", "--ino", str(found["ino"]))
    assert b"/told/old\xe9 -> /told/new" in renamed
    for words in ([], ["/a", "--ino", "5"], ["/told", "--since", "soon"], ["/told", "-n", "0"]):
        said = cluster.gfs("history", *words, code=2)
        assert said.stderr.startswith(b"gfs: ")
        assert said.stderr.count(b"\n") == 1
    assert b"/never" in cluster.gfs("history", "/never", code=1).stderr


def test_an_export_is_a_parquet_file_of_the_tree(cluster: LocalCluster, tmp_path: Path) -> None:
    tree = cluster.first / "tree"
    wanted = {os.fsencode(tree)[len(os.fsencode(cluster.first)) :]}
    inodes = {os.lstat(tree).st_ino}
    for directory, directories, names in os.walk(os.fsencode(tree)):
        for name in (*directories, *names):
            path = os.path.join(directory, name)
            wanted.add(path[len(os.fsencode(cluster.first)) :])
            inodes.add(os.lstat(path).st_ino)
    file = tmp_path / "tree's.parquet"
    said = cluster.json("export", file, tree, "--wait", "--json")
    assert said["rows"] == len(inodes)
    with duckdb.connect() as database:
        rows = database.execute(
            "SELECT path, path_bytes, ino, size FROM read_parquet(?)", [str(file)]
        ).fetchall()
        facts = database.execute("FROM parquet_kv_metadata(?)", [str(file)]).fetchall()
    assert {row[2] for row in rows} == inodes
    paths = {row[1] or row[0].encode() for row in rows}
    assert paths <= wanted
    assert b"/tree/caf\xe9" in paths
    assert (b"gfs_position", str(said["position"]).encode()) in {row[1:] for row in facts}
    again = cluster.gfs("export", file, code=2)
    assert b"--force" in again.stderr
    whole = cluster.gfs("export", "--force", file)
    assert b"inodes to" in whole.stderr
    assert b"as of position" in whole.stderr
    piped = cluster.out("export", "-", "/tree")
    assert (piped[:4], piped[-4:]) == (b"PAR1", b"PAR1")
    assert b"No such file" in cluster.gfs("export", "/no/such/x.parquet", code=1).stderr
    assert b"/nowhere" in cluster.gfs("export", tmp_path / "x", "/nowhere", code=1).stderr
    assert not (tmp_path / "x").exists()
    command = [*cluster.command(), "export", "-", "/tree"]
    with open("/dev/full", "wb") as target:
        full = subprocess.run(
            command, env=cluster.variables(), stdout=target, stderr=subprocess.PIPE,
            timeout=60, check=False,
        )  # fmt: skip
    assert full.returncode == 1
    assert full.stderr.startswith(b"gfs: standard output: ")
    assert full.stderr.count(b"\n") == 1


def test_growth_answers_about_a_tree_of_the_mount(cluster: LocalCluster) -> None:
    place = cluster.first / "grown" / "deep"
    place.mkdir(parents=True)
    (place / "file").write_bytes(b"z" * 5000)
    growth = cluster.json("report", "growth", cluster.first / "grown", "--wait", "--json")
    rows = [dict(zip(growth["columns"], row, strict=True)) for row in growth["rows"]]
    assert sum(row["bytes_added"] - row["bytes_removed"] for row in rows) == 5000
    lines = cluster.out("report", "growing", "/grown", "--by", "tree", "--since", "1h").splitlines()
    assert lines[1].startswith(b"/grown/deep\t")
    busy = cluster.json("report", "active", "/grown", "--json")
    assert "/grown/deep" in [row[busy["columns"].index("path")] for row in busy["rows"]]


def test_sql_answers_and_refuses(cluster: LocalCluster) -> None:
    count = "SELECT count(*) AS n FROM files WHERE extension = 'log'"
    assert cluster.out("sql", count, "--wait") == b"n\n30\n"
    assert cluster.json("sql", "-", "--json", given=count.encode())["rows"] == [[30]]
    search = "SELECT count(*) FROM dirents WHERE name LIKE '%.dat'"
    assert cluster.json("sql", search, "--view", "search", "--json")["rows"] == [[1]]
    for view in ("search", "analytics"):
        for statement in ("DROP TABLE dirents", "SELECT", "ATTACH 'x' AS y", "SELECT 1; SELECT 2"):
            said = cluster.gfs("sql", statement, "--view", view, code=2).stderr
            assert said.startswith(b"gfs: ")


def test_the_stream_follows(cluster: LocalCluster) -> None:
    command = ["stream", "--prefix", "/streamed", "--limit", "1"]
    (cluster.first / "streamed").mkdir()
    with subprocess.Popen(
        [*cluster.command(), *command], stdout=subprocess.PIPE, env=cluster.variables()
    ) as process:
        try:
            number = 0
            while process.poll() is None and number < 200:  # until it listens
                (cluster.first / "streamed" / f"file{number}").touch()
                number += 1
                with_limit = process.poll()
                if with_limit is None:
                    try:
                        process.wait(0.1)
                    except subprocess.TimeoutExpired:
                        continue
            assert process.stdout is not None
            event = json.loads(process.stdout.readline())
            assert event["kind"] == "insert"
            assert "previous" in event
        finally:
            process.kill()


def test_status_shows_servers_and_views(cluster: LocalCluster) -> None:
    status = cluster.json("status", "--json")
    assert status["ok"]
    assert [view["view"] for view in status["views"]] == ["search", "analytics"]
    assert all("lag_ms" in view for view in status["views"])
    text = cluster.out("status", cwd=Path(cluster.first), named=False).decode()
    for word in ("chunkd1", "mount1", "projections-search", "running", "position"):
        assert word in text
