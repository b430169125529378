"""`make demo` on a small scale: it shows what it promises and always cleans up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gfs.mounts import mounted
from tests.system.clusters import ROOT

pytestmark = [pytest.mark.mount, pytest.mark.timeout(240)]


def demo(base: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.demo", "--dir", str(base), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )


def nothing_left(base: Path) -> bool:
    inside = os.fsencode(base)
    return not list(base.iterdir()) and not any(
        one.mountpoint.startswith(inside) for one in mounted()
    )


def test_the_demo_shows_that_everything_agrees(tmp_path: Path) -> None:
    process = demo(tmp_path, "--mib", "32")
    told, _ = process.communicate(timeout=200)
    assert process.returncode == 0, told
    assert "every one there once and whole" in told
    assert "checksum equal" in told
    assert told.count("as of position") == 4
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_is_unmounted_and_stopped(tmp_path: Path, number: int) -> None:
    process = demo(tmp_path, "--mib", "32")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[3/"):  # in the middle of the work
            break
    process.send_signal(number)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert nothing_left(tmp_path)


def test_too_little_space_is_said_at_once(tmp_path: Path) -> None:
    process = demo(tmp_path, "--mib", str(10**9))
    told, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "GiB are needed" in told
    assert nothing_left(tmp_path)
