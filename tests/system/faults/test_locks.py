"""`gfs lock` on a real cluster: holders, masters and connections that end at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from gfs.cli.commanded import descendants
from gfs.cli.finding import connected, reach
from gfs.messages import LockState
from tests.system.faults.processes import FaultyCluster

pytestmark = [pytest.mark.mount, pytest.mark.kill, pytest.mark.timeout(240)]

CONFIG = "[master]\ncache_lease_s = 6.0\n"  # longer than a restart of the master takes
ROOT = Path(__file__).parents[3]
ADDERS, TIMES = 4, 125
LIMIT_S = 100.0


class Locker:
    """Runs `gfs lock` of this cluster."""

    def __init__(self, cluster: FaultyCluster) -> None:
        self.cluster = cluster
        self.directory = str(cluster.layout.directory)
        self.environment = os.environ | {"PYTHONPATH": str(ROOT), "GFS_CLUSTER": self.directory}

    def start(self, *words: str | Path, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "gfs.cli.main", "lock", *map(str, words)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=cwd, env=self.environment,
        )  # fmt: skip

    def run(self, *words: str | Path, cwd: Path | None = None) -> tuple[int, str, str]:
        """Exit code, standard output and error."""
        return result(self.start(*words, cwd=cwd))

    def listed(self) -> list[LockState]:
        return trio.run(self._listed)

    async def _listed(self) -> list[LockState]:
        async with connected(reach(self.directory)) as files:
            return [one async for one in files.list_locks()]

    def wait_listed(self, count: int) -> list[LockState]:
        self.cluster.wait(f"{count} in the list", lambda: len(self.listed()) == count)
        return self.listed()


def result(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=LIMIT_S)
    return process.returncode, out.decode(), error.decode()


@pytest.fixture
def locker(cluster: FaultyCluster) -> Locker:
    return Locker(cluster)


def test_command_runs_with_the_lock_and_its_code_is_passed_on(
    locker: Locker, here: Path, there: Path
) -> None:
    """From within one mount and the other: a path there means the file there."""
    script = 'test "$1" = "$GFS_LOCK_FENCE" || echo "$GFS_LOCK_FENCE $GFS_LOCK_PATH"; exit 7'
    code, first, _ = locker.run("job", "--", "sh", "-c", script, cwd=here)
    assert code == 7
    fence, path = first.split()
    assert path == f"/{here.name}/job"
    assert (here / "job").exists()
    code, second, _ = locker.run(there / "job", "sh", "-c", script)
    assert int(second.split()[0]) > int(fence)
    assert locker.run(here / "job", "sh", "-c", "kill -9 $$")[0] == 128 + 9
    assert locker.run(here / "job", "/nowhere/at all")[0] == 127
    assert locker.run("-c", "exit 3", here / "job")[0] == 3
    code, _, error = locker.run("--no-create", here / "none", "true")
    assert (code, "No such file" in error) == (1, True)
    assert locker.run(here / "job")[0] == 2
    assert locker.listed() == []


def test_second_waits_or_is_refused_and_the_list_shows_both(locker: Locker, here: Path) -> None:
    holder = locker.start(here / "job", "--", "sleep", "1000")
    locker.wait_listed(1)
    assert locker.run("--no-wait", here / "job", "true")[0] == 124
    assert locker.run("--timeout", "0.1", "-E", "9", here / "job", "true")[0] == 9
    waiter = locker.start("--shared", here / "job", "--", "sh", "-c", "echo $GFS_LOCK_FENCE")
    locker.wait_listed(2)
    held, waits = map(json.loads, locker.run("--list", "--json")[1].splitlines())
    assert (held["state"], held["mode"], held["pid"]) == ("held", "exclusive", holder.pid)
    assert (waits["state"], waits["mode"], waits["pid"]) == ("waits", "shared", waiter.pid)
    assert held["path"] == f"/{here.name}/job"
    fence = str(held["fence"])
    assert locker.run("--check", fence, here / "job")[0] == 0
    os.kill(holder.pid, signal.SIGTERM)  # is passed on
    assert result(holder)[0] == 128 + 15
    code, out, _ = result(waiter)
    assert code == 0
    assert int(out) > int(fence)
    assert locker.run("--check", fence, here / "job")[0] == 1


def test_gfs_commands_of_the_command_change_nothing_once_the_lock_is_gone(
    locker: Locker, here: Path
) -> None:
    gfs = f"{sys.executable} -P -m gfs.cli.main"
    script = f"{gfs} mkdir /{here.name}/early && echo $GFS_LOCK_ID"
    code, told, error = locker.run(here / "job", "--", "sh", "-c", script)
    assert code == 0, error
    late = subprocess.run(
        [sys.executable, "-P", "-m", "gfs.cli.main", "mkdir", f"/{here.name}/late"],
        env=locker.environment | {"GFS_LOCK_ID": told.strip()}, capture_output=True, check=False,
    )  # fmt: skip
    assert late.returncode == 1
    assert b"not held any more" in late.stderr
    assert sorted(os.listdir(here)) == ["early", "job"]


def test_who_is_interrupted_while_waiting_leaves_the_line(locker: Locker, here: Path) -> None:
    with held(locker, here / "job"):
        waiter = locker.start(here / "job", "--", "true")
        locker.wait_listed(2)
        os.kill(waiter.pid, signal.SIGINT)
        assert result(waiter)[0] == 128 + 2
        assert len(locker.listed()) == 1


class held:
    """A holder in a process of its own, for the block."""

    def __init__(self, locker: Locker, path: Path) -> None:
        self.locker = locker
        self.process = locker.start(path, "--", "sleep", "1000")

    def __enter__(self) -> subprocess.Popen[bytes]:
        self.locker.wait_listed(1)
        return self.process

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
        self.process.communicate(timeout=LIMIT_S)


def test_a_killed_holder_takes_its_command_along_and_the_next_goes_on(
    locker: Locker, here: Path
) -> None:
    with held(locker, here / "job") as holder:
        locker.cluster.wait("a command", lambda: bool(children_of(holder.pid)))
        (command,) = children_of(holder.pid)
        waiter = locker.start(here / "job", "--", "true")
        locker.wait_listed(2)
        holder.kill()
        holder.wait(LIMIT_S)
        locker.cluster.wait("the command is gone", lambda: not Path(f"/proc/{command}").exists())
        assert result(waiter)[0] == 0


def children_of(pid: int) -> list[int]:
    return [int(part) for part in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_locks_outlive_a_killed_master(locker: Locker, here: Path) -> None:
    with held(locker, here / "job") as holder:
        (before,) = locker.listed()
        waiter = locker.start(here / "job", "--", "true")
        locker.wait_listed(2)
        locker.cluster.restart("master")
        after = locker.wait_listed(2)
        assert after[0].fence == before.fence
        assert (holder.poll(), waiter.poll()) == (None, None)
        os.kill(holder.pid, signal.SIGTERM)
        assert result(waiter)[0] == 0


def test_who_loses_the_master_has_ended_before_another_can_have_the_lock(
    locker: Locker, here: Path
) -> None:
    """Also what the command has started and left behind, and what does not heed SIGTERM."""
    script = "trap '' TERM; (trap '' TERM; sleep 1000) & echo started; wait; wait"
    holder = locker.start(here / "job", "--", "sh", "-c", script)
    locker.wait_listed(1)
    below = {pid for pid in descendants() if f"{holder.pid}" in ancestors(pid)}
    assert len(below) >= 2
    locker.cluster.kill("master")
    code, _, error = result(holder)
    assert code == 125, error
    assert "lease" in error
    assert not [pid for pid in below if Path(f"/proc/{pid}/exe").exists()]
    locker.cluster.start("master")
    locker.cluster.wait_ready("master")
    assert locker.run(here / "job", "true")[0] == 0


def ancestors(pid: int) -> list[str]:
    found = []
    while pid > 1:
        stat = Path(f"/proc/{pid}/stat").read_text()
        pid = int(stat.rpartition(") ")[2].split()[1])
        found.append(str(pid))
    return found


def test_no_addition_is_lost_under_a_lock(locker: Locker, here: Path, there: Path) -> None:
    """Each reads a number through its mount and writes the next; close-to-open does the rest."""
    (here / "counter").write_bytes(b"")
    (here / "job").touch()
    began = time.monotonic()
    adders = [
        subprocess.Popen(
            [
                sys.executable, "-P", "-m", "tests.system.faults.incrementer",
                locker.directory, f"/{here.name}/job",
                str((here, there)[number % 2] / "counter"), str(TIMES),
            ],
            env=locker.environment, cwd=ROOT,
        )
        for number in range(ADDERS)
    ]  # fmt: skip
    assert [adder.wait(LIMIT_S) for adder in adders] == [0] * ADDERS
    print(f"{ADDERS * TIMES} additions in {time.monotonic() - began:.1f} s")
    assert int((there / "counter").read_bytes()) == ADDERS * TIMES
