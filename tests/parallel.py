"""A run that several workers share (pytest-xdist, `make test`).

A worker takes whole test files, so that a cluster that a module starts is started
once. A test marked `alone` measures time: while it runs the other workers begin no
test. Files with such tests come first, when nothing long has to be waited for; then
those that wait most: the quick ones even out the end.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LONGEST_FIRST = (
    "tests/torture/",
    "tests/system/faults/",
    "tests/system/",
    "tests/fuse/",
    "tests/sim/",
    "tests/shell/",
    "tests/",
)
FIRST_PORT, PORT_SHARES, PORTS_EACH = 20_000, 12, 1000


def is_worker(config: pytest.Config) -> bool:
    """Whether this process runs a share of the tests for another one that reports them."""
    return hasattr(config, "workerinput")


def is_shared(config: pytest.Config) -> bool:
    """Whether this process leaves the running of tests to workers."""
    return not is_worker(config) and bool(config.getoption("numprocesses", None))


def basetemp(config: pytest.Config) -> Path:
    """Where this process's tests have their directories."""
    factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]
    return factory.getbasetemp()


class Turns:
    """Many tests at a time, or one that is alone; kept in two files that all workers lock.

    Whoever wants a turn passes the door first. Who waits to be alone keeps the door
    shut, so that the others cannot go on in turns of theirs for ever.
    """

    def __init__(self, directory: Path) -> None:
        self._door, self._room = (
            os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            for name in ("door", "room")
        )

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Waits until it may be this test's turn."""
        fcntl.flock(self._door, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._door)
        os.close(self._room)


class Worker:
    """Pytest plugin: what a worker does differently."""

    def __init__(self, config: pytest.Config) -> None:
        self._turns = Turns(basetemp(config).parent)
        # A port that is chosen is free until its daemon listens: no other may choose it, too.
        os.environ["GFS_PORTS"] = ports_of(int(config.workerinput["workerid"].removeprefix("gw")))  # type: ignore[attr-defined]

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        measuring = {item.path for item in items if is_alone(item)}
        items.sort(key=lambda item: (item.path not in measuring, place(item)))

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # its time limit does not run while it waits
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        with self._turns.turn(alone=is_alone(item)):
            return (yield)

    def pytest_unconfigure(self) -> None:
        self._turns.close()


def ports_of(worker: int) -> str:
    """A range of ports for the clusters of one worker, below those of outgoing connections."""
    first = FIRST_PORT + worker % PORT_SHARES * PORTS_EACH
    return f"{first}-{first + PORTS_EACH - 1}"


def is_alone(item: pytest.Item) -> bool:
    """Whether no other test may run beside this one."""
    return item.get_closest_marker("alone") is not None


def place(item: pytest.Item) -> int:
    """Where in the run a test's folder comes."""
    found = (number for number, folder in enumerate(LONGEST_FIRST) if folder in item.nodeid)
    return next(found, len(LONGEST_FIRST))
