"""`find` over the view gives the set that find(1) gives on the same tree.

A real directory is made at random, its inodes become a snapshot in the view, and
random expressions are asked of both.
"""

from __future__ import annotations

import os
import random
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from gfs import changes, findexpr, items
from gfs.changes import Cursor, text_of
from gfs.errors import UsageError
from projections.core.following import Batch
from projections.find_query import expression_of, glob_of
from projections.find_run import Start, find, register
from projections.search_view import SearchView
from projections.storage import SqliteStore
from tests.unit.projections.views import config

NAMES = (
    "alpha.log", "Beta.LOG", "x", "a b", "ä.txt", "[x]", "a*b", "star?", "back\\slash", ".hidden",
    "naïve", "B.tar.gz", "report-1.txt", "report-22.txt", "capture", "x\udcff.log", "-dash", "%_",
)  # fmt: skip
PATTERNS = (
    "*.log", "*", "?", "[!a-m]*", "[[]x]", "a\\*b", "*[0-9]*", "report-*", ".*", "*[[:digit:]].txt",
    "*.LOG", "[", "ä*", "*ï*", "\\-*", "*report*", "x", "*]", "[^x]*", "%*", "*\\\\*", "[]x]*",
    "a[",
)  # fmt: skip


@dataclass
class Twin:
    """A directory, and a view that holds the same tree at /."""

    root: Path
    store: SqliteStore
    now_ns: int

    def real(self, words: list[str]) -> set[str]:
        """find(1)'s answer, paths below the root written as absolute."""
        command = ["find", str(self.root), *words, "-print0"]
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, (words, done.stderr)
        return {text_of(path) for path in done.stdout.split(b"\0") if path}

    def ours(self, words: list[str]) -> set[str]:
        """The view's answer, shown as find shows it."""
        told = findexpr.parse([str(self.root), *words], now_ns=self.now_ns)
        predicate = findexpr.from_json(findexpr.to_json(told.predicate))
        starts = [Start("/", shown) for shown in told.paths]
        limits = {"mindepth": told.mindepth, "maxdepth": told.maxdepth}
        rows = list(find(self.store.connection, starts, predicate, **limits))
        assert len(rows) == len({row[0] for row in rows})
        return {row[0] for row in rows}


def populate(root: Path, rng: random.Random, now: float) -> None:
    """A random tree: names of all sorts, sizes, times, modes, links."""
    directories = [root]
    files: list[Path] = []
    for _ in range(150):
        path = rng.choice(directories) / rng.choice(NAMES)
        if os.path.lexists(path):
            continue
        roll = rng.random()
        if roll < 0.25:
            path.mkdir()
            directories.append(path)
        elif roll < 0.32 and files:
            os.link(rng.choice(files), path)
        elif roll < 0.38:
            path.symlink_to("target")
            continue
        elif roll < 0.42:
            os.mkfifo(path)
        else:
            with open(path, "wb") as file:
                file.truncate(rng.choice((0, 1, 511, 512, 513, 1024, 1025, 1 << 20, (1 << 20) + 1)))
            files.append(path)
        os.chmod(path, rng.choice((0o644, 0o755, 0o700, 0o4755, 0o600, 0o1777)))
        if os.geteuid() == 0:
            os.chown(path, rng.randrange(3), rng.randrange(2))
    for path in (*directories, *files):
        when = now - rng.choice((30, 90, 3000, 80000, 90000, 200000, 10**7)) - rng.random()
        os.utime(path, (when - 5, when))


def snapshot(root: Path) -> list[changes.Line]:
    """Inodes and dirents of a real tree as lines of a snapshot; the root becomes inode 1."""
    top = os.lstat(root).st_ino
    number = {top: 1}
    events = [inode_event(1, root)]

    def walk(directory: Path, parent: int) -> None:
        for name in os.listdir(os.fsencode(directory)):
            path = directory / os.fsdecode(name)
            found = os.lstat(path)
            fresh = found.st_ino not in number
            ino = number.setdefault(found.st_ino, len(number) + 10)
            dirent = items.Dirent(ino, stat.S_IFMT(found.st_mode))
            events.append(changes.snapshot_event(items.DIRENTS, (parent, name), dirent, "1-1"))
            if fresh:
                events.append(inode_event(ino, path))
            if stat.S_ISDIR(found.st_mode):
                walk(path, ino)

    walk(root, 1)
    return changes.decode_lines(changes.encode(events))


def inode_event(ino: int, path: Path) -> changes.Event:
    s = os.lstat(path)
    inode = items.Inode(
        s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_size,
        s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns,
    )  # fmt: skip
    return changes.snapshot_event(items.INODES, (ino,), inode, "1-1")


@pytest.fixture(scope="module", params=range(4))
def twin(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Twin]:
    directory = tmp_path_factory.mktemp("find")
    root = directory / "tree"
    root.mkdir()
    populate(root, random.Random(request.param), time.time())
    view = SearchView(config(directory))
    store = view.open_store(directory / "search.db", None)
    assert isinstance(store, SqliteStore)
    batch = Batch(snapshot(root), Cursor(1, 1), snapshot=True)
    store.write(lambda connection: view.apply(batch, connection), batch.cursor)
    register(store.connection)
    yield Twin(root, store, time.time_ns())
    store.close()


def random_test(rng: random.Random, root: Path) -> list[str]:
    sign = rng.choice(("", "+", "-"))
    choices: list[list[str]] = [
        ["-name", rng.choice(PATTERNS)],
        ["-iname", rng.choice(PATTERNS)],
        ["-path", "*" + rng.choice(PATTERNS)],
        ["-path", str(root) + "/" + rng.choice(PATTERNS)],
        ["-type", rng.choice(("f", "d", "l", "p", "f,d", "s"))],
        ["-size", sign + rng.choice(("0", "1", "2", "1k", "1M", "2M", "1025c", "256w", "1G"))],
        ["-mtime", sign + rng.choice("0123")],
        ["-mmin", sign + rng.choice(("1", "2", "50", "1500"))],
        ["-perm", rng.choice(("644", "-600", "/111", "4755", "-4000", "/7000", "-u=rw", "u=rwx"))],
        ["-uid", sign + rng.choice("012")],
        ["-user", rng.choice("012")],
        ["-links", sign + rng.choice("123")],
        ["-empty"],
        ["-newer", str(root)],
        ["-newermt", "@" + str(int(time.time()) - 85000)],
        ["-maxdepth", rng.choice("0123")],
        ["-mindepth", rng.choice("0123")],
        ["-true"],
    ]
    return rng.choice(choices)


def random_expression(rng: random.Random, root: Path, depth: int = 0) -> list[str]:
    roll = rng.random()
    if depth > 2 or roll < 0.4:
        return random_test(rng, root)
    first = random_expression(rng, root, depth + 1)
    if roll < 0.55:
        return ["!", "(", *first, ")"]
    second = random_expression(rng, root, depth + 1)
    if roll < 0.8:
        return ["(", *first, ")", *rng.choice(([], ["-a"])), "(", *second, ")"]
    return ["(", *first, "-o", *second, ")"]


def same_words(words: list[str], root: Path) -> list[str]:
    """-newer names a path of the filesystem; in the view the root is /."""
    return [
        "/" if word == str(root) and words[at - 1] == "-newer" else word
        for at, word in enumerate(words)
    ]


@pytest.mark.parametrize("seed", range(80))
def test_random_expression_finds_what_find_finds(twin: Twin, seed: int) -> None:
    rng = random.Random(seed)
    words = random_expression(rng, twin.root)
    assert twin.ours(same_words(words, twin.root)) == twin.real(words), words


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("test", ["-name", "-iname"])
def test_patterns_match_as_fnmatch(twin: Twin, pattern: str, test: str) -> None:
    assert twin.ours([test, pattern]) == twin.real([test, pattern])


def test_action_is_reached_as_in_find() -> None:
    told = findexpr.parse(["/", "-name", "a", "-o", "-name", "b", "-print0"], now_ns=0)
    name_a, name_b = findexpr.Name("a"), findexpr.Name("b")
    assert told.action == findexpr.Action("print0")
    assert told.predicate == findexpr.And(
        [findexpr.Not(name_a), findexpr.And([name_b, findexpr.Always(True)])]
    )
    run = findexpr.parse(["-exec", "rm", "{}", "+"], now_ns=0)
    assert run.paths == ["."]
    assert run.action == findexpr.Action("exec", ["rm", "{}", "+"])


@pytest.mark.parametrize(
    "words",
    ["-nosuch", "-name", "( -name a", "-name a )", "-type q", "-size 1x", "-mtime x", "-perm 8",
     "-user nobody-of-that-name", "-links", "-newermt yesterday", "-newerxy /",
     "-print -delete", "-maxdepth -1", "!", "-size 99999999999999999999", "-exec rm"],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(words: str) -> None:
    with pytest.raises(UsageError):
        findexpr.parse(words.split(), now_ns=0)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(UsageError):
        findexpr.parse(["("] * 5000 + [")"] * 5000, now_ns=0)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"is":"sql"}', b'{"is":"type","kinds":"f)"}', b'{"is":"and"}',
                b'{"is":"number","attribute":"size; DROP","sign":"","n":1}'],
)  # fmt: skip
def test_predicate_from_outside_is_checked(content: bytes) -> None:
    with pytest.raises(UsageError):
        findexpr.from_json(content)


def test_glob_agrees_with_the_regular_expression_on_random_patterns() -> None:
    rng = random.Random(1)
    connection = apsw.Connection(":memory:")
    compared = 0
    for _ in range(3000):
        pattern = "".join(rng.choice("ab*?[]!^-\\.") for _ in range(rng.randrange(1, 7)))
        glob = glob_of(pattern)
        if glob is None:
            continue
        text = "".join(rng.choice("ab[]!^-.\\") for _ in range(rng.randrange(5)))
        found = connection.execute("SELECT ? GLOB ?", (text, glob)).get
        wanted = expression_of(pattern, False).fullmatch(text) is not None
        if "-" not in pattern:
            assert bool(found) == wanted, (pattern, glob, text)
            compared += 1
    assert compared > 500
    connection.close()
