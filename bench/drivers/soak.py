"""Every kind of everyday call in a mix, for as long as one likes, on a bounded number of files.

Names are never used twice, so that whoever keeps something by name or by inode grows; what is there
at any time stays the same. What a file should hold is known here, and looked at.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable

from bench import channel

DIRECTORIES = 40
LIVE = 1500  # files of this driver, made first; about as many are there at any time
APPENDED = 16  # files that are appended to, in turn
APPENDED_BYTES_MAX = 256 * 1024  # then it begins anew
SMALL_BYTES_MAX = 8192
LARGE_BYTES = 300_000  # one file in a hundred
BLOCK = random.Random(5).randbytes(LARGE_BYTES + SMALL_BYTES_MAX)
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def work(place: str, other: str, operations: int, pauses: int, seed: int) -> int:
    """Do `operations` calls or small groups of calls below `place`; returns how many were done.

    Args:
      other: directory of another driver, as this one's mount shows it; read only.
      pauses: so many times, evenly, it tells how many are done and waits to be told to go on;
        the first time when its files are there and nothing is done.
    """
    rng = random.Random(seed)
    mix = Mix(place, other, rng)
    while len(mix.files) < LIVE:
        mix.create()
    channel.pause(0)
    names = list(mix.weights)
    weights = list(mix.weights.values())
    done = 0
    for number in range(1, pauses + 1):
        until = operations * number // pauses
        for act in rng.choices(names, weights, k=until - done):
            act()
        done = until
        channel.pause(done)
    return done


class Mix:
    """One driver's files, what they should hold, and the kinds of calls with their weights."""

    def __init__(self, place: str, other: str, rng: random.Random) -> None:
        self.place = place
        self.other = other
        self.rng = rng
        self.files: list[str] = []
        self.bytes: dict[str, int] = {}  # beginning of BLOCK that a file holds
        self.appended = [0] * APPENDED
        self.made = 0
        for number in range(DIRECTORIES):
            os.makedirs(f"{place}/d{number}", exist_ok=True)
        self.weights: dict[Callable[[], None], int] = {
            self.create: 20,
            self.remove: 20,
            self.read: 16,
            self.look: 13,
            self.look_in_vain: 4,
            self.rename: 8,
            self.append: 6,
            self.write_on: 3,
            self.list_names: 3,
            self.look_at_other: 2,
            self.directory: 2,
            self.attribute: 1,
            self.links: 1,
            self.truncate: 1,
        }

    def _new_path(self) -> str:
        self.made += 1
        return f"{self.place}/d{self.rng.randrange(DIRECTORIES)}/file-{self.made:08d}"

    def _some(self) -> str:
        return self.rng.choice(self.files)

    def _taken(self) -> str:
        """A file that is about to lose its name."""
        index = self.rng.randrange(len(self.files))
        self.files[index], self.files[-1] = self.files[-1], self.files[index]
        return self.files.pop()

    def create(self) -> None:
        if len(self.files) >= LIVE * 1.1:
            return self.remove()
        path = self._new_path()
        size = LARGE_BYTES if self.rng.random() < 0.01 else self.rng.randrange(SMALL_BYTES_MAX)
        descriptor = os.open(path, NEW, 0o644)
        os.write(descriptor, BLOCK[:size])
        os.close(descriptor)
        self.files.append(path)
        self.bytes[path] = size
        return None

    def remove(self) -> None:
        if len(self.files) <= LIVE * 0.9:
            return self.create()
        path = self._taken()
        os.unlink(path)
        del self.bytes[path]
        return None

    def read(self) -> None:
        path = self._some()
        with open(path, "rb") as file:
            if file.read() != BLOCK[: self.bytes[path]]:
                raise OSError(f"{path} does not hold what was written")

    def look(self) -> None:
        path = self._some()
        if os.stat(path).st_size != self.bytes[path]:
            raise OSError(f"{path} has another size than was written")

    def look_in_vain(self) -> None:
        if os.path.exists(self._new_path()):
            raise OSError("a name that was never made exists")

    def rename(self) -> None:
        old, new = self._taken(), self._new_path()
        os.rename(old, new)
        self.files.append(new)
        self.bytes[new] = self.bytes.pop(old)

    def append(self) -> None:
        number = self.rng.randrange(APPENDED)
        path = f"{self.place}/log{number}"
        if self.appended[number] >= APPENDED_BYTES_MAX:
            os.unlink(path)
            self.appended[number] = 0
        descriptor = os.open(path, APPEND, 0o644)
        self.appended[number] += os.write(descriptor, BLOCK[: self.rng.randrange(1, 4096)])
        os.close(descriptor)

    def write_on(self) -> None:
        path = self._some()
        size = self.bytes[path]
        if size >= LARGE_BYTES:
            return
        with open(path, "r+b", buffering=0) as file:
            file.seek(size)
            self.bytes[path] = size + file.write(BLOCK[size : size + 500])

    def truncate(self) -> None:
        path = self._some()
        self.bytes[path] //= 2
        os.truncate(path, self.bytes[path])

    def list_names(self) -> None:
        with os.scandir(f"{self.place}/d{self.rng.randrange(DIRECTORIES)}") as found:
            for one in found:
                one.stat()

    def look_at_other(self) -> None:
        """What another mount changes meanwhile: names may have gone."""
        with contextlib.suppress(FileNotFoundError):
            with os.scandir(f"{self.other}/d{self.rng.randrange(DIRECTORIES)}") as found:
                names = [one.path for one in found]
            for path in names[:5]:
                with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                    file.read()

    def directory(self) -> None:
        self.made += 1
        path = f"{self.place}/directory-{self.made:08d}"
        os.mkdir(path)
        os.close(os.open(f"{path}/file", NEW, 0o644))
        os.unlink(f"{path}/file")
        os.rmdir(path)

    def attribute(self) -> None:
        os.setxattr(self._some(), "user.soak", b"%d" % self.made)

    def links(self) -> None:
        path = self._some()
        self.made += 1
        for make, name in ((os.symlink, "soft"), (os.link, "hard")):
            other = f"{self.place}/{name}-{self.made:08d}"
            make(path, other)
            os.lstat(other)
            os.unlink(other)
