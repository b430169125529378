"""The command line refuses what it does not know, and the work directory goes away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bench import driving, processes
from bench.setting import PREFIX, choose_targets, choose_workloads, clean_up, work_directory


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(click.UsageError, match="no workload 'strem'; there are stream, random"):
        choose_workloads("strem")
    with pytest.raises(click.UsageError, match="no target 'nfs'; there are local, ours"):
        choose_targets("local,nfs")
    with pytest.raises(click.UsageError, match="no target named"):
        choose_targets("")


def test_workloads_run_in_their_own_order() -> None:
    assert [workload.name for workload in choose_workloads("tree,stream")] == ["stream", "tree"]


def test_work_directory_is_removed_even_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), work_directory(tmp_path, 0.001, 1) as work:
        (work / "file").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_short_space_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="are needed"), work_directory(tmp_path, 1e6, 4):
        raise AssertionError("unreachable")


def test_clean_up_takes_only_directories_of_dead_runs(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead = tmp_path / f"{PREFIX}{ended.pid}-abc"
    living = tmp_path / f"{PREFIX}{os.getpid()}-abc"
    foreign = tmp_path / f"{PREFIX}notes-abc"
    for directory in (dead, living, foreign):
        (directory / "files").mkdir(parents=True)
    assert str(dead) in clean_up(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([living, foreign])


def test_memory_and_time_of_this_process_are_seen() -> None:
    assert processes.memory_bytes([os.getpid()]) > 1_000_000
    assert processes.cpu_seconds([os.getpid()]) > 0
    assert processes.cpu_seconds([]) == 0


def test_a_run_told_to_end_takes_its_cluster_down(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from bench.setting import local_cluster\n"
        "with local_cluster(pathlib.Path(sys.argv[1])) as layout:\n"
        "    layout.save(layout.create())\n"
        "    print(*pathlib.Path(sys.argv[1]).iterdir(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert PREFIX in ended.stdout
    assert "KeyboardInterrupt" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_command_writes_a_file_that_show_prints(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    words = ["--targets", "local", "--only", "append", "--rounds", "2", "--scale", "0.001"]
    _bench(*words, "--dir", str(tmp_path), "--json", str(file))
    [first, *_] = json.loads(file.read_text())["figures"]
    assert len(first["targets"]["local"]["samples"]) == 2
    assert "append 100-byte lines" in _bench("show", str(file))
    assert list(tmp_path.iterdir()) == [file]


def _bench(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=driving.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
