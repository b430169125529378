"""`python -m master` as processes: kill -9 under load, mistakes, and a clean end."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

from gfs import messages as m
from gfs.errors import DeadSession, GfsError, Unreachable
from gfs.handshake import create_key, load_key
from gfs.readiness import read
from tests.shell.master_server import RawClient, client_at

pytestmark = [pytest.mark.kill, pytest.mark.timeout(100)]

START_S = 20.0
ROOT = m.Actor(0, 0, groups=())


class MasterProcess:
    """One data directory and the process on it, if there is one."""

    def __init__(self, directory: Path, *extra: str) -> None:
        self.directory = directory
        self.key_file = directory.with_suffix(".key")
        create_key(self.key_file)
        self.ready_file = directory.with_suffix(".ready")
        self.log_file = directory.with_suffix(".log")
        self.unix = str(directory.with_suffix(".sock"))
        self.extra = extra
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *extra: str) -> list[str]:
        flags = {
            "--data-dir": self.directory,
            "--key-file": self.key_file,
            "--ready-file": self.ready_file,
            "--unix": self.unix,
        }
        words = [str(word) for pair in flags.items() for word in pair]
        return [sys.executable, "-m", "master", *words, *self.extra, *extra]

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start it; `wait_ready` comes next."""
        self.ready_file.unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log)

    def wait_ready(self) -> None:
        """Until it serves; shows its log if it ends instead."""
        assert self.process is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            found = read(self.ready_file)
            if found is not None and found.pid == self.process.pid:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.005)
        pytest.fail(f"the master did not start:\n{self.log_file.read_text()[-2000:]}")

    def refuse(self, *extra: str) -> tuple[int, str]:
        """Start what must not start: exit code and what it said, without a traceback."""
        done = subprocess.run(
            self.command(*extra), capture_output=True, text=True, timeout=30, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stderr.strip()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[MasterProcess]:
    """A master that runs."""
    process = MasterProcess(tmp_path / "m")
    process.start()
    yield process
    process.end()


def connected(daemon: MasterProcess) -> AbstractAsyncContextManager[RawClient]:
    return client_at("", unix=daemon.unix, key=load_key(daemon.key_file), cluster="")


class Load:
    """A small client that creates, links, renames and removes without pause and remembers."""

    def __init__(self) -> None:
        self.session = 0
        self.number = 0
        self.unanswered: dict[int, m.Operation] = {}
        self.acknowledged: dict[int, tuple[m.Operation, m.Done]] = {}
        self.rounds = 0

    def next(self) -> m.Operation:
        number = self.number
        kind = number % 4
        name = b"%d" % (number - kind)
        if kind == 0:
            return m.Create(1, name, 0o600, 0)
        if kind == 1:
            return m.MakeSymlink(1, name + b"-link", b"target")
        return m.MakeNode(1, name + b"-%d" % kind, 0o040700)

    async def drive(self, raw: RawClient) -> None:
        """64 in flight until the connection ends."""
        window = trio.CapacityLimiter(64)
        async with trio.open_nursery() as nursery:
            for number, operation in sorted(self.unanswered.items()):
                await self.begin(nursery, window, raw, number, operation)
            while raw.connection.closed is None:
                self.number += 1
                operation = self.next()
                self.unanswered[self.number] = operation
                await self.begin(nursery, window, raw, self.number, operation)

    async def begin(
        self,
        nursery: trio.Nursery,
        window: trio.CapacityLimiter,
        raw: RawClient,
        number: int,
        operation: m.Operation,
    ) -> None:
        await window.acquire_on_behalf_of(number)
        nursery.start_soon(self.one, window, raw, number, operation)

    async def one(
        self, window: trio.CapacityLimiter, raw: RawClient, number: int, operation: m.Operation
    ) -> None:
        try:
            low = min(self.unanswered)
            answer = await raw.connection.call(m.Mutate(number, low, ROOT, operation))
            assert isinstance(answer, m.Done)
            self.acknowledged[number] = (operation, answer)
            del self.unanswered[number]
        except Unreachable:
            pass
        finally:
            window.release_on_behalf_of(number)


async def names_and_inodes(raw: RawClient) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    after = b""
    while True:
        page = await raw.connection.call(m.ReadDirectory(1, after, 5000, False, ROOT))
        assert isinstance(page, m.Listing)
        found |= {item.name: item.ino for item in page.entries}
        if not page.more:
            return found
        after = page.entries[-1].name


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_no_acknowledged_mutation_is_lost_or_done_twice_over_kills(
    daemon: MasterProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 under load, restart, resend what was unanswered with its number; again and again."""
    load, rounds, gaps = Load(), 8, []
    for turn in range(rounds + 1):
        async with connected(daemon) as raw:
            opened = await raw.open(session=load.session)
            load.session = opened.session
            assert opened.epoch == turn + 1
            found = await names_and_inodes(raw)
            for operation, done in load.acknowledged.values():
                assert done.entry is not None
                assert isinstance(operation, m.Create | m.MakeNode | m.MakeSymlink)
                assert found.get(operation.name) == done.entry.ino
            if turn == rounds:
                break
            with trio.move_on_after(30) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(load.drive, raw)
                    await trio.sleep(0.05 + 0.37 * turn % 0.25)
                    daemon.kill()
            assert not scope.cancelled_caught
        began = time.monotonic()
        daemon.start()
        gaps.append(time.monotonic() - began)
    async with connected(daemon) as raw:
        await raw.open(session=load.session)
        sample = sorted(load.acknowledged)[-200:]
        for number in sample:  # above the mark: the first outcome again
            operation, done = load.acknowledged[number]
            if number >= min(load.unanswered, default=load.number + 1):
                again = await raw.mutate(operation, number=number, low=number)
                assert again == done
        everything = await names_and_inodes(raw)
        known = {op.name for op, _ in load.acknowledged.values()}  # type: ignore[union-attr]
        pending = {op.name for op in load.unanswered.values()}  # type: ignore[union-attr]
        assert everything.keys() <= known | pending
    with capsys.disabled():
        gaps.sort()
        print(
            f"\n  {len(load.acknowledged)} mutations acknowledged over {rounds} kills;"
            f" from start to serving: median {gaps[len(gaps) // 2] * 1000:.0f} ms,"
            f" longest {gaps[-1] * 1000:.0f} ms",
            flush=True,
        )


async def test_an_idle_master_answers_soon_after_a_kill(
    daemon: MasterProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    async with connected(daemon) as raw:
        session = (await raw.open()).session
        await raw.create(b"f")
    began = time.monotonic()
    daemon.kill()
    with daemon.log_file.open("ab") as log:
        daemon.process = subprocess.Popen(daemon.command(), stdout=log, stderr=log)
    with trio.fail_after(START_S):
        while True:
            try:
                async with connected(daemon) as raw:
                    await raw.open(session=session)
                    assert (await raw.lookup(b"f")).ino
                    assert (await raw.create(b"g")).created
                    break
            except (GfsError, BaseExceptionGroup):
                await trio.sleep(0.01)
    with capsys.disabled():
        print(f"\n  kill to first mutation answered: {(time.monotonic() - began) * 1000:.0f} ms")


def test_two_masters_on_one_directory_the_second_is_told(daemon: MasterProcess) -> None:
    code, said = daemon.refuse("--unix", f"{daemon.unix}2")
    assert (code != 0, "\n" in said) == (True, False)
    assert str(daemon.directory) in said


def test_a_directory_of_another_cluster_is_refused_and_left_as_it_is(
    daemon: MasterProcess,
) -> None:
    daemon.end()
    before = (daemon.directory / "cluster").read_bytes()
    code, said = daemon.refuse("--cluster-id", "feedfeedfeedfeed")
    assert (code != 0, "\n" in said) == (True, False)
    assert "feedfeedfeedfeed" in said
    assert (daemon.directory / "cluster").read_bytes() == before
    daemon.start()


def test_a_state_of_a_newer_format_is_refused(daemon: MasterProcess) -> None:
    daemon.end()
    with sqlite3.connect(daemon.directory / "state.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    code, said = daemon.refuse()
    assert (code != 0, "\n" in said) == (True, False)
    assert "format 99" in said


def test_a_port_in_use_is_named(daemon: MasterProcess, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = MasterProcess(tmp_path / "other")
        code, said = other.refuse("--address", address)
    assert code == 2
    assert address in said


def test_a_port_that_the_stream_of_a_killed_master_still_has_is_waited_for(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = MasterProcess(tmp_path / "m", "--stream-http", address)
        try:
            daemon.spawn()
            deadline = time.monotonic() + START_S
            while b"stream.not_started" not in daemon.log_file.read_bytes():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            taken.close()
            daemon.wait_ready()
        finally:
            daemon.end()
    found = read(daemon.ready_file)
    assert found is not None
    assert found.stream_http == address


@pytest.mark.parametrize(
    ("mode", "content", "word"),
    [(0o644, b"k" * 64, "chmod 600"), (0o600, b"short", "no cluster key"), (0o600, None, "read")],
)
def test_a_key_file_that_is_none_is_refused(
    tmp_path: Path, mode: int, content: bytes | None, word: str
) -> None:
    daemon = MasterProcess(tmp_path / "m")
    daemon.key_file.unlink()
    if content is not None:
        daemon.key_file.write_bytes(content)
        daemon.key_file.chmod(mode)
    code, said = daemon.refuse()
    assert (code, word in said, "\n" in said) == (2, True, False), said
    assert not daemon.directory.exists()


def test_a_missing_data_directory_setting_is_a_mistake_of_usage(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "master"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "--data-dir" in done.stderr


def children(pid: int) -> list[int]:
    """Of all its threads: a child belongs to the one that started it."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    found = [int(word) for text in texts for word in text.split()]
    assert found
    return found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_master_and_stream_within_three_seconds(
    daemon: MasterProcess, number: signal.Signals
) -> None:
    assert daemon.process is not None
    stream = children(daemon.process.pid)
    began = time.monotonic()
    os.kill(daemon.process.pid, number)
    assert daemon.process.wait(10) == 0
    assert not any(is_alive(pid) for pid in stream), "somebody may start the next master now"
    assert time.monotonic() - began < 3
    assert not os.path.exists(daemon.unix)


def test_the_stream_process_ends_with_a_killed_master(daemon: MasterProcess) -> None:
    assert daemon.process is not None
    stream = children(daemon.process.pid)
    daemon.kill()
    deadline = time.monotonic() + 5
    while any(is_alive(pid) for pid in stream):
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def test_status_and_fsck_over_frames(daemon: MasterProcess) -> None:
    async with connected(daemon) as raw:
        await raw.open()
        await raw.create(b"f")
        for question in (m.ClusterStatus(), m.CheckFilesystem()):
            answer = await raw.connection.call(question)
            assert isinstance(answer, m.Status)
            found = json.loads(answer.json)
            assert found.get("ok", True)
        assert found["checked"]["names"] == 1


async def test_a_master_that_was_stopped_takes_its_sessions_back(tmp_path: Path) -> None:
    """It has slept over every lease, and has not read a renewal when it wakes."""
    daemon = MasterProcess(tmp_path / "m", "--cache-lease-s", "2")
    daemon.start()
    assert daemon.process is not None
    try:
        async with connected(daemon) as raw:
            session = (await raw.open()).session
            await raw.create(b"f")
            daemon.process.send_signal(signal.SIGSTOP)
            await trio.sleep(4.0)
            daemon.process.send_signal(signal.SIGCONT)
            await trio.sleep(0.5)
        async with connected(daemon) as raw:
            assert (await raw.open(session=session)).epoch == 1
            assert (await raw.mutate(m.Create(1, b"g", 0o600, 0), number=2)).created
            await trio.sleep(2.5)
        async with connected(daemon) as raw:
            with pytest.raises(DeadSession):
                await raw.open(session=session)
    finally:
        daemon.end()
