"""Whatever fails below a handler, the program gets an errno, the log a line, and the mount goes on.

Method: a mount in which the so-many-th thing that a handler calls raises what was ordered
(tests.fuse.faulty), driven by this process. Every handler is gone through call by call until it
calls no more.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyfuse3
import pytest

from gfs import errors, mounts
from gfs.cluster import plan
from gfs.cluster.down import down
from gfs.cluster.layout import Layout
from gfs.cluster.up import Wishes, up
from mount.errnos import ERRNOS
from mount.handlers import Handlers
from tests.conftest import fuse_missing
from tests.fuse.faulty import Order, Told

pytestmark = [pytest.mark.timeout(240), pytest.mark.mount]

UNFORESEEN = ("ValueError", "MemoryError", "ExceptionGroup", "Cancelled", "SystemExit")
TOLD_S = 20.0
NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY
NOT_ASKED = {
    "init": "called once, before there is anything to serve",
    "access": "the kernel checks permissions itself (default_permissions)",
}
OWN_BUSINESS = {"forget", "opendir", "releasedir"}  # ask nobody
UNHEARD = {"forget", "release", "releasedir"}  # the kernel does not wait for their answer


@dataclass
class Mounted:
    """The faulty mount, and how to give it orders."""

    place: Path
    control: Path
    log: Path
    process: subprocess.Popen[bytes]
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    read: int = 0

    def order(self, handler: str, error: str, site: int, *, below: bool) -> int:
        number = next(self.numbers)
        new = self.control / "new-order"
        new.write_bytes(msgspec.json.encode(Order(number, handler, error, site, below)))
        os.replace(new, self.control / "order")
        return number

    def told(self, number: int) -> bool:
        """Whether the handler called so much; waits until it was called at all."""
        until = time.monotonic() + TOLD_S
        while time.monotonic() < until:
            with suppress(FileNotFoundError):
                told = msgspec.json.decode((self.control / "told").read_bytes(), type=Told)
                if told.number == number:
                    (self.control / "order").unlink()
                    return told.struck
            time.sleep(0.001)
        raise AssertionError("the handler was not called")

    def new_log(self, *, until: str = "") -> str:
        """What was logged since it was last asked for; waits for a line with `until`."""
        end = time.monotonic() + TOLD_S
        with self.log.open("rb") as file:
            file.seek(self.read)
            found = file.read()
            while until.encode() not in found and time.monotonic() < end:
                time.sleep(0.001)
                found += file.read()
            self.read = file.tell()
        return found.decode(errors="replace")


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    if reason := fuse_missing():
        pytest.skip(reason)
    layout = Layout(tmp_path_factory.mktemp("c"))
    control, place = layout.directory / "control", layout.directory / "faulty"
    for made in (control, place):
        made.mkdir()
    try:
        facts = up(layout, Wishes(chunkservers=1, mounts=0, goal=1, projections=False), print)
        facts.mounts = 1
        (spec,) = (one for one in plan.specs(layout, facts) if one.name == "mount1")
        words = [sys.executable, "-m", "tests.fuse.faulty", str(control), *spec.arguments[:-1]]
        process = subprocess.Popen([*words, str(place)], cwd=Path(__file__).parents[2])
        while not layout.ready("mount1").exists():
            assert process.poll() is None
            time.sleep(0.01)
        yield Mounted(place, control, layout.log("mount1"), process)
        subprocess.run(["fusermount3", "-u", place], check=True, timeout=30)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        mounts.detach(os.fsencode(place))
        down(layout, print)


# --- a program that has each handler called

Act = Callable[[], object]
Case = Callable[[Path], Act]  # prepares; what it gives has the handler called, once at least


def _file(path: Path, flags: int = NEW) -> int:
    return os.open(path, flags, 0o644)


def _made(path: Path) -> Path:
    os.close(_file(path))
    return path


def _appending(path: Path) -> int:
    descriptor = _file(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND)
    os.write(descriptor, b"record")
    return descriptor


def _then_close(descriptor: int, act: Callable[[int], object]) -> Act:
    def done() -> None:
        try:
            act(descriptor)
        finally:
            with suppress(OSError):
                os.close(descriptor)

    return done


def _in_directory(path: Path, act: Callable[[int], object]) -> Act:
    return _then_close(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY), act)


def _absent(path: Path) -> None:
    with suppress(FileNotFoundError):
        os.lstat(path)


def _removed(path: Path) -> None:
    os.unlink(_made(path))


def _with_attribute(path: Path) -> Path:
    os.setxattr(_made(path), "user.a", b"b")
    return path


def _linked(path: Path) -> Path:
    path.symlink_to("target")
    return path


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


def _case(prepare: Callable[[Path], Any], act: Callable[[Any], object]) -> Case:
    def case(path: Path) -> Act:
        prepared = prepare(path)
        return lambda: act(prepared)

    return case


CASES: dict[str, Case] = {
    "lookup": lambda path: lambda: _absent(path),
    "forget": lambda path: lambda: _removed(path),
    "getattr": lambda path: _then_close(_appending(path), os.fstat),
    "setattr": _case(_made, lambda path: os.chmod(path, 0o600)),
    "readlink": _case(_linked, os.readlink),
    "getxattr": _case(_with_attribute, lambda path: os.getxattr(path, "user.a")),
    "setxattr": _case(_made, lambda path: os.setxattr(path, "user.a", b"b")),
    "listxattr": _case(_with_attribute, os.listxattr),
    "removexattr": _case(_with_attribute, lambda path: os.removexattr(path, "user.a")),
    "statfs": lambda path: lambda: os.statvfs(path.parent),
    "mkdir": lambda path: path.mkdir,
    "mknod": lambda path: lambda: os.mkfifo(path),
    "symlink": lambda path: lambda: path.symlink_to("target"),
    "link": _case(_made, lambda path: os.link(path, f"{path}-link")),
    "unlink": _case(_made, os.unlink),
    "rmdir": _case(_directory, os.rmdir),
    "rename": _case(_made, lambda path: os.rename(path, f"{path}-new")),
    "create": lambda path: lambda: os.close(_file(path)),
    "open": _case(_made, lambda path: os.close(_file(path, os.O_RDONLY))),
    "read": lambda path: _then_close(_appending(path), lambda fd: os.pread(fd, 6, 0)),
    "write": lambda path: _then_close(_file(path), lambda fd: os.write(fd, b"data")),
    "flush": lambda path: _case(_file, os.close)(path),
    "fsync": lambda path: _then_close(_file(path), os.fsync),
    "release": lambda path: _case(_file, os.close)(path),
    "opendir": _case(_directory, os.listdir),
    "readdir": _case(_directory, os.listdir),
    "releasedir": _case(_directory, os.listdir),
    "fsyncdir": lambda path: _in_directory(path, os.fsync),
}
# The same of what is in `.gfs`, where it is another handler.
HIDDEN_CASES: dict[str, Callable[[Path], Act]] = {
    "lookup": lambda top: lambda: _absent(top / "trash/none"),
    "getattr": lambda top: _in_directory(top / "x", os.fstat),
    "open": lambda top: (top / "stats").read_bytes,
    "read": lambda top: (top / "stats").read_bytes,
    "readdir": lambda top: lambda: os.listdir(top / "trash"),
    "opendir": lambda top: lambda: os.listdir(top / "trash"),
}


def _attempt(act: Act) -> int:
    """The errno that a program gets, 0 for none."""
    try:
        act()
    except OSError as error:
        return error.errno or 0
    return 0


def test_every_handler_has_a_case() -> None:
    """One that is written tomorrow is found out here."""
    base = pyfuse3.Operations
    handlers = {
        name
        for name in dir(base)
        if not name.startswith("_")
        and callable(getattr(base, name))
        and getattr(Handlers, name) is not getattr(base, name)
    }
    assert handlers == CASES.keys() | NOT_ASKED.keys()


def test_every_error_has_an_errno() -> None:
    assert set(ERRNOS) == set(errors.BY_CODE.values())


@pytest.mark.parametrize("handler", sorted(CASES))
def test_what_nobody_foresaw(mounted: Mounted, handler: str) -> None:
    """Each call fails once with a ValueError, the first with every kind of error."""
    count = itertools.count()
    for site in itertools.count():
        kinds = UNFORESEEN if site == 0 else UNFORESEEN[:1]
        struck = False
        for error in kinds:
            act = CASES[handler](mounted.place / f"{handler}-{next(count)}")
            mounted.new_log()
            number = mounted.order(handler, error, site, below=False)
            code = _attempt(act)
            struck = mounted.told(number)
            if not struck:
                assert code == 0
                break
            logged = mounted.new_log(until=" ERROR " if error == "Cancelled" else "asked for")
            assert code or handler in UNHEARD, (error, site)
            assert logged.count(" ERROR ") == 1, logged
            assert "asked for" in logged or error == "Cancelled"
            again = CASES[handler](mounted.place / f"{handler}-{next(count)}")
            assert _attempt(again) == 0, (error, site)
        if not struck:
            break
        assert site < 100
    assert mounted.process.poll() is None


@pytest.mark.parametrize("handler", sorted(CASES.keys() - OWN_BUSINESS))
def test_every_error_of_ours(mounted: Mounted, handler: str) -> None:
    """What it asks of the client fails with each; some are tried again, and then it goes on."""
    for at, code in enumerate(sorted(errors.BY_CODE)):
        act = CASES[handler](mounted.place / f"{handler}-ours-{at}")
        number = mounted.order(handler, code, 0, below=True)
        _attempt(act)
        assert mounted.told(number), "it asked nothing"
    again = CASES[handler](mounted.place / f"{handler}-ours")
    assert _attempt(again) == 0
    assert mounted.process.poll() is None


@pytest.mark.parametrize("handler", sorted(HIDDEN_CASES))
def test_what_nobody_foresaw_in_dot_gfs(mounted: Mounted, handler: str) -> None:
    for error in ("ValueError", "Cancelled"):
        act = HIDDEN_CASES[handler](mounted.place / ".gfs")
        number = mounted.order(handler, error, 0, below=False)
        code = _attempt(act)
        if mounted.told(number):
            assert code
        assert _attempt(HIDDEN_CASES[handler](mounted.place / ".gfs")) == 0
    assert mounted.process.poll() is None
