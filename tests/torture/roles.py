"""What workers do: each role is a step that is repeated until the run ends.

All keep within a few hundred names and a few dozen MiB, so that a run of hours needs
no more disk than one of minutes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.torture.content import HEAD, file_of, landed, line_of, seed_of
from tests.torture.expected import Life, Trouble, Written
from tests.torture.worker import Failed, Worker

LOGS = ("log-0", "log-1")
MIB = 1 << 20


class Role(Protocol):
    """One kind of work."""

    def step(self) -> None:
        """A little of it.

        Raises:
          Failed: a call failed; what is in doubt has been given up.
        """


class Appender:
    """Appends records to a log that all appenders share: fsync, close or O_DSYNC."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.lives = 0

    def step(self) -> None:
        worker = self.worker
        log = worker.rng.choice(LOGS)
        path = worker.path(log)
        flags = os.O_WRONLY | os.O_APPEND
        synced = worker.rng.random() < 0.2
        fd = worker.call(
            "open append", lambda: os.open(path, flags | (os.O_DSYNC if synced else 0))
        )
        life = Life(log, worker.name, self.lives, worker.mount)
        self.lives += 1
        worker.known.lives.append(life)
        try:
            for number in range(worker.rng.choice((1, 10, 200))):
                line = line_of(worker.name, life.life, number)
                worker.call("append", lambda: os.write(fd, line))  # noqa: B023
                life.written = number + 1
                if synced:
                    life.acknowledged = life.written
                elif worker.rng.random() < 0.1:
                    worker.call("fsync", lambda: os.fsync(fd))
                    life.acknowledged = life.written
                time.sleep(0.005)
        except Failed:
            try:
                os.close(fd)
            except OSError:
                pass
            raise
        worker.call("close", lambda: os.close(fd))
        life.acknowledged = life.written


class Saver:
    """Saves as editors do: a new file, perhaps fsync, rename onto the old one."""

    NAMES = 24

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.slots = {number: worker.fresh("f") for number in range(self.NAMES)}

    def step(self) -> None:
        worker = self.worker
        slot = worker.rng.randrange(self.NAMES)
        target = self.slots[slot]
        temporary = worker.fresh("tmp")
        size = HEAD.size + worker.rng.choice((0, 100, 5000, 5000, 70_000, 300_000, 3 * MIB))
        content = file_of(worker.rng.getrandbits(48), size)
        written = worker.write_file(temporary, content, sync=slot % 2 == 0)
        source, destination = worker.path(temporary), worker.path(target)
        try:
            worker.call("rename", lambda: os.rename(source, destination))
        except Failed:
            worker.forget(temporary)
            worker.forget(target)
            self.slots[slot] = worker.fresh("f")
            raise
        worker.known.files[target] = written
        worker.check(target, written)
        time.sleep(0.03)


class Namer:
    """Makes, renames, links and removes names; compares its directory on other mounts."""

    MOST = 60

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def step(self) -> None:
        worker, known = self.worker, self.worker.known
        roll = worker.rng.random()
        files = sorted(known.files)
        directories = sorted(known.directories)
        if roll < 0.2:
            self._make_directory()
        elif roll < 0.5 or not files:
            self._make_file()
        elif roll < 0.75:
            self._rename(worker.rng.choice(files))
        elif roll < 0.82:
            self._link(worker.rng.choice(files))
        elif roll < 0.95 or len(files) > self.MOST:
            self._remove(worker.rng.choice(files), os.unlink, "unlink")
        elif directories:
            self._remove(worker.rng.choice(directories), os.rmdir, "rmdir")
        if worker.rng.random() < 0.2:
            self._compare()
        time.sleep(0.02)

    def _make_directory(self) -> None:
        name = self.worker.fresh("d")
        self.worker.known.maybe.add(name)
        path = self.worker.path(name)
        self.worker.call("mkdir", lambda: os.mkdir(path))
        self.worker.known.maybe.discard(name)
        self.worker.known.directories.add(name)

    def _make_file(self) -> None:
        name = self.worker.fresh("e")
        self.worker.known.maybe.add(name)
        path = self.worker.path(name)
        self.worker.call("mknod", lambda: os.mknod(path))
        self.worker.known.maybe.discard(name)
        self.worker.known.files[name] = None

    def _rename(self, old: str) -> None:
        known, new = self.worker.known, self.worker.fresh("r")
        source, destination = self.worker.path(old), self.worker.path(new)
        del known.files[old]
        known.either.append((old, new))
        self.worker.call("rename", lambda: os.rename(source, destination))
        known.either.pop()
        known.files[new] = None

    def _link(self, old: str) -> None:
        new = self.worker.fresh("l")
        source, destination = self.worker.path(old), self.worker.path(new)
        self.worker.known.maybe.add(new)
        self.worker.call("link", lambda: os.link(source, destination))
        self.worker.known.maybe.discard(new)
        self.worker.known.files[new] = None

    def _remove(self, name: str, how: Callable[[Path], None], what: str) -> None:
        path = self.worker.path(name)
        self.worker.known.files.pop(name, None)
        self.worker.known.directories.discard(name)
        self.worker.known.maybe.add(name)
        self.worker.call(what, lambda: how(path))
        self.worker.known.maybe.discard(name)

    def _compare(self) -> None:
        worker, known = self.worker, self.worker.known
        mount, path = worker.elsewhere(worker.name)
        try:
            found = {f"{worker.name}/{name}" for name in os.listdir(path)}
        except OSError as error:
            known.failed.append(Trouble(time.monotonic(), mount, "listdir", error.errno or -1))
            return
        doubted = known.maybe | {name for pair in known.either for name in pair}
        wrong = (set(known.files) | known.directories) ^ (found - doubted)
        if wrong:
            what = f"listing differs: {sorted(wrong)[:5]} of {len(wrong)}"
            known.wrong.append(Trouble(time.monotonic(), mount, what))
        known.calls["list"] = known.calls.get("list", 0) + 1


class Copier:
    """Makes small trees, reads them through another mount, removes old ones."""

    KEPT = 3
    FILES = 12

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.trees: list[str] = []

    def step(self) -> None:
        worker, known = self.worker, self.worker.known
        tree = worker.fresh("tree")
        known.maybe.add(tree)
        made: dict[str, Written] = {}
        self._mkdir(tree)
        for number in range(self.FILES):
            where = tree
            if number % 4 == 0:
                where = f"{tree}/d{number}"
                self._mkdir(where)
            name = f"{where}/n{number}"
            size = HEAD.size + worker.rng.choice((0, 900, 20_000))
            content = file_of(worker.rng.getrandbits(48), size)
            made[name] = worker.write_file(name, content, sync=number == self.FILES - 1)
        known.maybe.discard(tree)
        directories = {name.rpartition("/")[0] for name in made}
        known.files |= made
        known.directories |= directories
        for name, written in made.items():
            worker.check(name, written)
        self.trees.append(tree)
        if len(self.trees) > self.KEPT:
            self._remove(self.trees.pop(0))
        time.sleep(0.1)

    def _mkdir(self, name: str) -> None:
        path = self.worker.path(name)
        self.worker.call("mkdir", lambda: os.mkdir(path))

    def _remove(self, tree: str) -> None:
        worker, known = self.worker, self.worker.known
        files = [name for name in known.files if name.startswith(f"{tree}/")]
        directories = [d for d in known.directories if d == tree or d.startswith(f"{tree}/")]
        known.maybe.add(tree)
        for name in files:
            del known.files[name]
        known.directories -= set(directories)
        for name in files:
            path = worker.path(name)
            worker.call("unlink", lambda: os.unlink(path))  # noqa: B023
        for name in sorted(directories, reverse=True):
            path = worker.path(name)
            worker.call("rmdir", lambda: os.rmdir(path))  # noqa: B023
        known.maybe.discard(tree)


class Streamer:
    """Writes a file of several chunks, block by block; its stalls are the ones to tell."""

    SIZE = 24 * MIB
    PACE_S = 0.15

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.last = ""

    def step(self) -> None:
        worker = self.worker
        name = worker.fresh("s")
        content = file_of(worker.rng.getrandbits(48), self.SIZE + worker.rng.randrange(MIB))
        written = worker.write_file(name, content, sync=True, pace_s=self.PACE_S)
        worker.known.files[name] = written
        worker.check(name, written)
        old, self.last = self.last, name
        if old:
            worker.forget(old)
            path = worker.path(old)
            worker.call("unlink", lambda: os.unlink(path))
            worker.known.maybe.discard(old)


class Reader:
    """Reads what others write: saved files are whole, logs are in order and never shrink."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.sizes = dict.fromkeys(LOGS, 0)

    def step(self) -> None:
        worker = self.worker
        if worker.rng.random() < 0.1:
            self._read_log(worker.rng.choice(LOGS))
        else:
            saver = f"saver{worker.rng.randrange(2)}"
            # Even slots are those that are fsynced before the rename.
            self._read_saved(f"{saver}/f{1 + 2 * worker.rng.randrange(Saver.NAMES // 2)}")
        time.sleep(0.05)

    def _read_log(self, log: str) -> None:
        path = self.worker.path(log)
        content = self.worker.call("read log", path.read_bytes)
        # The last record may be read in part: a record is whole, a read(2) need not be.
        whole = content[: content.rfind(b"\n") + 1]
        _, problems = landed(whole)
        if len(content) < self.sizes[log]:
            problems.append(f"{len(content)} bytes, before it were {self.sizes[log]}")
        self.sizes[log] = len(content)
        for problem in problems[:3]:
            self._wrong(f"{log}: {problem}")

    def _read_saved(self, name: str) -> None:
        path = self.worker.path(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return  # not saved yet
        except OSError as error:
            number = error.errno or -1
            trouble = Trouble(time.monotonic(), self.worker.mount, f"reading {name}", number)
            self.worker.known.failed.append(trouble)
            self.worker.move(number)
            return
        if seed_of(content) is None:
            self._wrong(f"{name}: {len(content)} bytes that are no whole file")
        self.worker.known.calls["read"] = self.worker.known.calls.get("read", 0) + 1

    def _wrong(self, what: str) -> None:
        self.worker.known.wrong.append(Trouble(time.monotonic(), self.worker.mount, what))


ROLES: dict[str, Callable[[Worker], Role]] = {
    "appender": Appender, "saver": Saver, "namer": Namer, "copier": Copier,
    "streamer": Streamer, "reader": Reader,
}  # fmt: skip
