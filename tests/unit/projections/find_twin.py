"""A random directory, and a search view that holds the same tree: find(1) is asked of both."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gfs import changes, findexpr, findprogram, items
from gfs.changes import Cursor, bytes_of, text_of
from gfs.cli.findacts import led_to
from gfs.findformat import Format, Found, Listing, Names, Row, Shown
from gfs.findprogram import Ended, Pruned
from gfs.findtests import Host
from gfs.findtree import Action, Predicate
from projections.core.following import Batch
from projections.find_queries import FindRequest
from projections.find_run import COLUMNS, Question, Start, find, register
from projections.search_view import SearchView
from projections.storage import SqliteStore
from tests.unit.projections.views import config

NAMES = (
    "alpha.log", "Beta.LOG", "x", "a b", "ä.txt", "[x]", "a*b", "star?", "back\\slash", ".hidden",
    "naïve", "B.tar.gz", "report-1.txt", "report-22.txt", "capture", "x\udcff.log", "-dash", "%_",
    "new\nline", 'q"uote', "tab\there",
)  # fmt: skip
TARGETS = ("target", "../alpha.log", "/etc/pass wd", "ä", "x\udcff")
ENVIRONMENT = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": os.environ.get("TZ", "UTC")}


@dataclass
class Twin:
    """A directory, and a view that holds the same tree at /."""

    root: Path
    store: SqliteStore

    @property
    def shown(self) -> Shown:
        """The directory is its own mount."""
        device = os.stat(self.root).st_dev
        return Shown(lambda _: device, lambda path: led_to(bytes_of(path)))

    def find(self, words: list[str]) -> bytes:
        """What find(1) prints."""
        command = ["find", str(self.root), *words]
        done = subprocess.run(
            command, capture_output=True, timeout=30, check=False, env=ENVIRONMENT
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def real(self, words: list[str]) -> set[str]:
        """The paths that find(1) finds."""
        found = self.find([*words, "-print0"]).split(b"\0")
        return {text_of(path) for path in found if path}

    def ours(self, words: list[str]) -> set[str]:
        """The view's answer, shown as find shows it."""
        paths = [path for path in self.printed([*words, "-print0"]).split(b"\0") if path]
        assert len(paths) == len(set(paths))
        return set(map(text_of, paths))

    def printed(self, words: list[str], *, fail: str = "") -> bytes:
        """What the actions print; commands that contain `fail` count as failed."""
        texts = [text_of(os.fsencode(word)) for word in [str(self.root), *words]]
        program = findprogram.compiled(told := findexpr.parse(texts, Host(time.time_ns())))
        sent = msgspec.json.encode(
            {"predicate": program.where, "prune": program.prune, "tests": program.tests}
        )
        asked = msgspec.json.decode(sent, type=FindRequest)
        assert asked.predicate is not None
        order = ("up" if told.depth_first else "down") if program.in_order else ""
        question = Question(
            asked.predicate, asked.prune, asked.tests, told.mindepth, told.maxdepth, order
        )
        out = bytearray()
        pruned = Pruned()
        listing = Listing(NOBODY, time.time())
        try:
            for start in told.paths:
                for values in find(self.store.connection, [Start("/", start)], question):
                    found = Found(row_of(values), start)
                    if not pruned.hides(0, found.below):
                        self._follow(program.steps, found, pruned, listing, out, fail)
        except Ended:
            pass
        return bytes(out)

    def _follow(
        self, steps: Any, found: Found, pruned: Pruned, listing: Listing, out: bytearray, fail: str
    ) -> None:
        def act(action: Action) -> bool:
            path = bytes_of(found.row.path)
            match action.name:
                case "print" | "print0":
                    out.extend(path + (b"\n" if action.name == "print" else b"\0"))
                case "printf":
                    out.extend(Format(action.words[0], NOBODY, self.shown).render(found))
                case "ls":
                    out.extend(listing.line(found))
                case "exec":  # test -d {}, the one command that the tests run
                    return os.path.isdir(path)
            return True

        findprogram.follow(steps, found.row.tests, act, lambda: pruned.add(0, found.below))

    def count(self, predicate: Predicate) -> int:
        return len(list(find(self.store.connection, [Start("/")], Question(predicate))))


NOBODY = Names(lambda _: None, lambda _: None)


def row_of(values: tuple[Any, ...]) -> Row:
    fields = dict(zip(("path", *COLUMNS), values, strict=False))
    return Row(**fields, tests=list(values[len(fields) :]))


def make_twin(directory: Path, seed: int) -> Twin:
    root = directory / "tree"
    root.mkdir()
    populate(root, random.Random(seed), time.time())
    add_links_and_devices(root, time.time())
    view = SearchView(config(directory))
    store = view.open_store(directory / "search.db", None)
    assert isinstance(store, SqliteStore)
    batch = Batch(snapshot(root), Cursor(1, 1), snapshot=True)
    store.write(lambda connection: view.apply(batch, connection), batch.cursor)
    register(store.connection)
    return Twin(root, store)


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
            path.symlink_to(rng.choice(TARGETS))
            os.utime(path, (now + 3600, now - rng.random()), follow_symlinks=False)
            continue
        elif roll < 0.42:
            os.mkfifo(path)
        else:
            with open(path, "wb") as file:
                file.truncate(rng.choice((0, 1, 511, 512, 513, 1024, 1025, 1 << 20, (1 << 20) + 1)))
                if rng.random() < 0.3:
                    file.write(b"x" * rng.choice((1, 5000)))
            files.append(path)
        os.chmod(path, rng.choice((0o644, 0o755, 0o700, 0o4755, 0o600, 0o1777, 0o000, 0o2710)))
        if os.geteuid() == 0:
            os.chown(path, rng.choice((0, 1, 2, 54321)), rng.choice((0, 1, 54321)))
    for path in (*directories, *files):
        when = now - rng.choice((30, 90, 3000, 80000, 90000, 200000, 10**7)) - rng.random()
        # Whoever lists a directory or reads a link would change an older time of reading.
        os.utime(path, (now + 3600 if path in directories else when - 5, when))


def add_links_and_devices(root: Path, now: float) -> None:
    """Links in a circle, upwards and through what is no directory; devices if we may make them."""
    for name, target in (("round", "about"), ("about", "round"), ("up", ".."), ("no", "x/x/x")):
        (root / name).symlink_to(target)
        os.utime(root / name, (now + 3600, now), follow_symlinks=False)
    if os.geteuid() == 0:
        os.mknod(root / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(1000, 70_000))


def snapshot(root: Path) -> list[changes.Line]:
    """Inodes and dirents of a real tree as lines of a snapshot; the root becomes inode 1."""
    top = os.lstat(root).st_ino
    seen = {top}
    events = [inode_event(1, root)]

    def walk(directory: Path, parent: int) -> None:
        for name in os.listdir(os.fsencode(directory)):
            path = directory / os.fsdecode(name)
            found = os.lstat(path)
            ino = found.st_ino
            dirent = items.Dirent(ino, stat.S_IFMT(found.st_mode))
            events.append(changes.snapshot_event(items.DIRENTS, (parent, name), dirent, "1-1"))
            if ino not in seen:
                seen.add(ino)
                events.append(inode_event(ino, path))
            if stat.S_ISDIR(found.st_mode):
                walk(path, ino)

    walk(root, 1)
    return changes.decode_lines(changes.encode(events))


def inode_event(ino: int, path: Path) -> changes.Event:
    s = os.lstat(path)
    target = os.fsencode(os.readlink(path)) if stat.S_ISLNK(s.st_mode) else b""
    inode = items.Inode(
        s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_size,
        s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns,
        stored=s.st_blocks * 512, rdev=s.st_rdev, target=target,
    )  # fmt: skip
    return changes.snapshot_event(items.INODES, (ino,), inode, "1-1")
