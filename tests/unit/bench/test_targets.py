"""What targets know of the machine: processes, mounts, filesystems."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bench.targets import commands
from bench.targets.catalogue import PEERS, TARGETS
from bench.targets.ours import Ours
from bench.targets.target import TargetFailed


def test_pids_are_those_that_still_run(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / "pids").write_text(f"{os.getpid()} master\n{ended.pid} chunkd2\n\n")
    ours = Ours(tmp_path)
    assert ours.pids() == {"master": os.getpid()}
    with pytest.raises(TargetFailed, match="chunkd2 does not run"):
        ours.kill_server()


def test_cluster_that_never_started_has_no_pids(tmp_path: Path) -> None:
    assert Ours(tmp_path).pids() == {}


def test_every_target_has_two_mounts_below_its_directory(tmp_path: Path) -> None:
    for name, kind in TARGETS.items():
        mounts = kind(tmp_path / name).mounts()
        assert len(mounts) == 2
        assert all(tmp_path / name in mount.parents for mount in mounts)
    assert set(PEERS) < TARGETS.keys()


def test_mounts_are_read_from_the_kernels_table(tmp_path: Path) -> None:
    assert commands.mount_device(Path("/proc")) is not None
    assert commands.mount_device(tmp_path) is None
    assert commands.mounted_below(tmp_path) == []
    assert commands.filesystem_of(Path("/proc/self")) == "proc"


def test_failed_command_says_its_last_lines() -> None:
    with pytest.raises(TargetFailed, match="exit code 2: first / at last"):
        commands.run("bash", "-c", "echo first; echo at last; exit 2")
    with pytest.raises(TargetFailed, match="not done after 0 s"):
        commands.run("sleep", "600", limit_s=0.1)
    with pytest.raises(TargetFailed, match="No such file"):
        commands.run("/nonexistent")


def test_dropping_caches_keeps_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    commands.drop_caches([tmp_path])
    assert (tmp_path / "file").read_text() == "kept"
