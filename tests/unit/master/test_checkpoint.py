"""Checkpoints, what they keep alive, and a start from each kind of ruin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import apsw
import msgspec
import pytest

from gfs import errors
from gfs.disk import PosixDisk
from gfs.items import DIRENTS, INODES, Dirent, Inode
from master.checkpoint import (
    Checkpoint,
    is_whole,
    iterate_items,
    list_checkpoints,
    log_floor,
    make_checkpoint,
    newest_whole,
    remove_old,
)
from master.core.tables import Tables
from master.log import OperationLog
from master.recovery import Recovered, open_state
from master.segments import HEADER_BYTES, LogDamaged
from tests.logcheck import ExpectLog

DISK = PosixDisk()


def _apply(tables: Tables, payload: bytes) -> None:
    ino, size = msgspec.msgpack.decode(payload)
    tables.put(INODES, (ino,), Inode(0o100644, 0, 0, 1, size, 0, 0, 0))
    tables.put(DIRENTS, (1, b"%d" % ino), Dirent(ino, 0))


class Master:
    """State, log and checkpoints in one directory, as the server has them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkpoints = root / "checkpoints"
        self.start()

    def start(self) -> Recovered:
        self.log = OperationLog(
            self.root / "log", DISK, "c1", segment_bytes=HEADER_BYTES + 1024, step_bytes=1024
        )
        self.recovered = open_state(
            self.root / "state", "c1", self.log, _apply, disk=DISK, checkpoints=self.checkpoints
        )
        self.state = self.recovered.state
        return self.recovered

    def run(self, count: int) -> None:
        for _ in range(count):
            position = self.log.last_position + 1
            payload = msgspec.msgpack.encode((position % 50 + 2, position))
            self.state.begin()
            _apply(self.state, payload)
            self.log.append(1, [(position, payload)])
            self.log.sync()
            self.state.set_position(position, 1)
            self.state.commit()

    def checkpoint(self) -> Checkpoint:
        source = apsw.Connection(str(self.root / "state"), flags=apsw.SQLITE_OPEN_READONLY)
        made = make_checkpoint(source, self.checkpoints, DISK)
        source.close()
        return made

    def content(self) -> list[object]:
        return [self.state.scan(INODES), self.state.scan(DIRENTS), self.state.position]

    def stop(self) -> None:
        self.state.close()
        self.log.close()


@pytest.fixture
def master(tmp_path: Path) -> Master:
    return Master(tmp_path)


def test_a_checkpoint_is_the_state_at_its_position(master: Master) -> None:
    master.run(70)
    made = master.checkpoint()
    expected = [
        *((INODES, key, item) for key, item in master.state.scan(INODES)),
        *((DIRENTS, key, item) for key, item in master.state.scan(DIRENTS)),
    ]
    master.run(30)
    assert made.position == 70
    assert list(iterate_items(made)) == expected
    assert is_whole(DISK, made)
    assert list_checkpoints(DISK, master.checkpoints) == [made]
    assert [path.name for path in master.checkpoints.iterdir()] == [made.path.name]
    master.stop()


def test_the_newest_two_whole_ones_are_kept_and_bound_the_log(master: Master) -> None:
    made: list[Checkpoint] = []
    for _ in range(4):
        assert log_floor(DISK, master.checkpoints) == (made[-2].position + 1 if made[1:] else 1)
        master.run(20)
        made.append(master.checkpoint())
    _flip_bit(made[2].path)
    assert newest_whole(DISK, master.checkpoints, 9) == [made[3], made[1], made[0]]
    assert log_floor(DISK, master.checkpoints) == made[1].position + 1
    assert remove_old(DISK, master.checkpoints) == [made[0]]
    assert list_checkpoints(DISK, master.checkpoints) == [made[3], made[2], made[1]]
    master.stop()


def test_a_healthy_state_is_used_and_the_rest_of_the_log_applied(master: Master) -> None:
    master.run(20)
    expected = master.content()
    payload = msgspec.msgpack.encode((5, 77))
    master.log.append(2, [(21, payload)])  # logged and synced, killed before COMMIT
    master.log.sync()
    master.stop()
    recovered = master.start()
    assert (recovered.replayed, recovered.checkpoint) == (1, None)
    assert (master.state.position, master.state.epoch) == (21, 2)
    inode: Inode | None = master.state.get(INODES, (5,))
    assert inode is not None
    assert inode.size == 77
    assert expected != master.content()
    master.stop()


def test_a_lost_state_comes_back_from_the_log_alone(master: Master, expect_log: ExpectLog) -> None:
    master.run(120)
    expected = master.content()
    master.stop()
    for name in ("state", "state-wal", "state-shm"):
        (master.root / name).unlink(missing_ok=True)
    assert master.start().replayed == 120
    assert master.content() == expected
    master.stop()


@pytest.mark.parametrize("ruin", ["missing", "garbage", "pages"])
def test_a_ruined_state_comes_back_from_checkpoint_and_log(
    master: Master, expect_log: ExpectLog, ruin: str
) -> None:
    expect_log("^state[.]restored", times=1)
    master.run(60)
    older = master.checkpoint()
    master.run(60)
    master.checkpoint()
    master.run(30)
    expected = master.content()
    master.log.truncate_before(log_floor(DISK, master.checkpoints))
    assert 1 < master.log.first_position <= older.position + 1
    master.stop()
    path = master.root / "state"
    if ruin == "missing":
        path.unlink()
    else:
        expect_log("^state[.]damaged", times=1)
        content = bytearray(path.read_bytes())
        where = slice(0, 4096) if ruin == "garbage" else slice(8192, None)
        content[where] = b"\xa5" * len(content[where])
        path.write_bytes(content)
    recovered = master.start()
    assert recovered.checkpoint is not None
    assert (recovered.checkpoint.position, recovered.replayed) == (120, 30)
    assert master.content() == expected
    assert (master.root / "state.damaged-1").exists() == (ruin != "missing")
    master.stop()


def test_a_state_from_before_the_log_begins_gives_way_to_the_checkpoint(
    master: Master, expect_log: ExpectLog
) -> None:
    expect_log("^state[.]damaged .*the log begins at", times=1)
    expect_log("^state[.]restored", times=1)
    master.run(20)
    master.stop()
    path = master.root / "state"
    outdated = path.read_bytes()
    master.start()
    for _ in range(2):
        master.run(60)
        master.checkpoint()
    master.run(30)
    expected = master.content()
    master.log.truncate_before(log_floor(DISK, master.checkpoints))
    assert master.log.first_position > 21
    master.stop()
    path.write_bytes(outdated)
    recovered = master.start()
    assert recovered.checkpoint is not None
    assert master.content() == expected
    master.stop()


def test_a_rotten_checkpoint_is_passed_over(master: Master, expect_log: ExpectLog) -> None:
    expect_log("^state[.]restored", times=1)
    master.run(20)
    master.checkpoint()
    master.run(20)
    _flip_bit(master.checkpoint().path)
    expected = master.content()
    master.stop()
    (master.root / "state").unlink()
    recovered = master.start()
    assert recovered.checkpoint is not None
    assert recovered.checkpoint.position == 20
    assert master.content() == expected
    master.stop()


def test_a_lost_state_whose_log_begins_too_late_is_refused(master: Master) -> None:
    master.run(150)
    master.log.truncate_before(100)
    master.stop()
    (master.root / "state").unlink()
    with pytest.raises(LogDamaged, match=r"records 1 to \d+ are missing"):
        master.start()


def test_a_state_of_another_history_is_refused(master: Master) -> None:
    master.run(3)
    master.state.begin()
    master.state.set_position(3, 9)
    master.state.commit()
    master.stop()
    with pytest.raises(LogDamaged, match="epoch 1 in the log and 9 in the state"):
        master.start()


def test_a_newer_or_foreign_state_is_refused_and_left_alone(master: Master) -> None:
    master.run(3)
    master.stop()
    path = master.root / "state"
    log = OperationLog(master.root / "log", DISK, "c2")
    with pytest.raises(errors.WrongCluster):
        open_state(path, "c2", log, _apply, disk=DISK, checkpoints=master.checkpoints)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 99)
    connection.close()
    with pytest.raises(errors.NewerFormat):
        master.start()
    assert path.exists()


def test_a_damaged_state_makes_no_checkpoint(master: Master) -> None:
    master.run(3)
    connection = apsw.Connection(str(master.root / "state"))
    connection.execute("UPDATE dirents SET ino = 8")
    connection.close()
    with pytest.raises(errors.Corrupt):
        master.checkpoint()
    assert list(master.checkpoints.iterdir()) == []
    master.stop()


@pytest.mark.timeout(30)
def test_the_command_makes_a_checkpoint_beside_a_running_master(master: Master) -> None:
    made = []
    for _ in range(3):
        master.run(30)
        made.append(_command(str(master.root / "state"), str(master.checkpoints)))
    assert [done.returncode for done in made] == [0, 0, 0]
    assert [kept.position for kept in list_checkpoints(DISK, master.checkpoints)] == [90, 60]
    assert made[-1].stdout.split()[0] == "90"
    assert _command("one").returncode == 2
    missing = _command(str(master.root / "none"), str(master.checkpoints))
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    master.stop()


def test_a_newer_checkpoint_is_not_read(master: Master) -> None:
    master.run(3)
    made = master.checkpoint()
    connection = apsw.Connection(str(made.path))
    connection.pragma("user_version", 99)
    connection.close()
    with pytest.raises(errors.NewerFormat):
        list(iterate_items(made))
    master.stop()


def test_nobody_else_may_read_what_names_and_attributes_there_are(master: Master) -> None:
    master.run(3)
    master.checkpoint()
    files = [path for path in master.root.rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert [path for path in files if path.stat().st_mode & 0o077] == []
    master.stop()


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "master.checkpoint", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def _flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
