"""What holds for every test: where it may write, what it needs, what it must clean up.

Log check and skip report are plugins of their own (tests/logcheck.py, tests/skips.py).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

import pytest

from tests import leftovers
from tests.parallel import Worker, basetemp, is_shared, is_worker

pytest_plugins = ["tests.logcheck", "tests.skips"]

IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}
TEMP_ROOTS = ("/var/tmp", "/tmp")  # short: the path of a Unix socket ends at 107 bytes
DAEMONS = ("mount", "kill", "netns")  # markers of tests that start processes
TIMEOUT_GRACE_S = 20  # beyond its limit a test is stuck in the kernel
LEFTOVER_GRACE_S = 3


def filesystem_type(path: str) -> str:
    """Type of the filesystem that holds `path`, as the kernel names it."""
    best, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4]
        if Path(path).is_relative_to(point) and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind


def real_temp_root() -> str | None:
    """A writable directory on a real disk: in memory fsync, space and O_DIRECT differ."""
    for root in TEMP_ROOTS:
        path = os.path.realpath(root)
        if os.access(path, os.W_OK) and filesystem_type(path) not in IN_MEMORY:
            return path
    return None


if root := real_temp_root():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", root)  # read when tmp_path is first used


def fuse_missing() -> str | None:
    """Why nothing can be mounted here, or None."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse: {error.strerror}"
    program = shutil.which("fusermount3")
    if program is None:
        return "fusermount3 is not installed (package fuse3)"
    if os.geteuid() != 0 and not os.stat(program).st_mode & stat.S_ISUID:
        return "fusermount3 is not setuid and this is not root"
    if importlib.util.find_spec("pyfuse3") is None:
        return "pyfuse3 is not installed"
    return None


def netns_missing() -> str | None:
    """Why no network namespace can be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    return None if shutil.which("ip") else "ip is not installed (package iproute2)"


@pytest.fixture
def require_fuse() -> None:
    """Skip, with the reason, where nothing can be mounted; marks the test `mount`."""
    if reason := fuse_missing():
        pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What mounts carries the marker, so that no skip of it can go unseen."""
    for item in items:
        fixtures: list[str] = getattr(item, "fixturenames", [])
        if "require_fuse" in fixtures or "tests/fuse/" in item.nodeid:
            item.add_marker("mount")


class Watchdog:
    """Frees a test that is stuck in the kernel beyond its time limit.

    A call on a mount whose server hangs cannot be interrupted, so the alarm of
    pytest-timeout does not get through until the server is dead.
    """

    def __init__(self, mark: str, directory: Path) -> None:
        self.mark = mark
        self.directory = directory
        self.changed = threading.Condition()
        self.deadline: float | None = None
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def arm(self, limit_s: float | None) -> None:
        """Act after `limit_s` seconds; None: not at all."""
        with self.changed:
            self.deadline = None if limit_s is None else time.monotonic() + limit_s
            self.changed.notify()

    def _watch(self) -> None:
        with self.changed:
            while True:
                left = None if self.deadline is None else self.deadline - time.monotonic()
                if left is None or left > 0:
                    self.changed.wait(left)
                    continue
                print("\nstuck in the kernel: ending the daemons", file=sys.__stderr__, flush=True)
                leftovers.end(self.mark, self.directory)
                self.deadline = time.monotonic() + TIMEOUT_GRACE_S


class Node(Protocol):
    """A worker, as the process sees it that reports for it."""

    workeroutput: dict[str, list[str]]  # missing if it crashed


class Housekeeping:
    """One run's mark, its watchdog, and the check that nothing of it is left.

    A worker has a mark and a directory below those of the whole run, and looks only at
    what is its own; what it has found goes to the process that reports.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.mark = leftovers.new_mark()
        self.watchdog: Watchdog | None = None
        self.left: list[str] = []
        self.outer = os.environ.get(leftovers.MARK)
        os.environ[leftovers.MARK] = self.mark

    def limit_s(self, item: pytest.Item) -> float:
        marker = item.get_closest_marker("timeout")
        return float(marker.args[0] if marker and marker.args else self.config.getini("timeout"))

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if item.get_closest_marker("mount") and (reason := fuse_missing()):
            pytest.skip(reason)
        if item.get_closest_marker("netns") and (reason := netns_missing()):
            pytest.skip(reason)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        if not any(item.get_closest_marker(name) for name in DAEMONS):
            return (yield)
        if self.watchdog is None:
            self.watchdog = Watchdog(self.mark, basetemp(self.config))
        self.watchdog.arm(self.limit_s(item) + TIMEOUT_GRACE_S)
        try:
            return (yield)
        finally:
            self.watchdog.arm(None)

    @pytest.hookimpl(wrapper=True, trylast=True)  # within pytest's own, which prints what is left
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        shared = is_shared(self.config)
        if not shared:  # look before pytest removes the directories
            self._look()
        if self.left:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        yield
        if shared:  # the workers have ended; one that crashed may have left something
            self._look()
            if self.left:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _look(self) -> None:
        if self.config.option.collectonly:
            return
        directory = basetemp(self.config)
        left = leftovers.found(self.mark, directory, grace_s=LEFTOVER_GRACE_S)
        if left:
            leftovers.end(self.mark, directory)
        self.left += left
        if is_worker(self.config):
            self.config.workeroutput["left"] = self.left  # type: ignore[attr-defined]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Node) -> None:
        self.left += getattr(node, "workeroutput", {}).get("left", [])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.left:
            terminalreporter.section("left behind by the tests (now ended)", red=True)
            for line in self.left:
                terminalreporter.line(line)

    def pytest_unconfigure(self) -> None:
        if self.outer is None:
            os.environ.pop(leftovers.MARK, None)
        else:
            os.environ[leftovers.MARK] = self.outer


@pytest.hookimpl(trylast=True)  # the temporary directory is known by then
def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Housekeeping(config), "gfs-housekeeping")
    if is_worker(config):
        config.pluginmanager.register(Worker(config), "gfs-worker")
