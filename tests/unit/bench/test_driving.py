"""Driver processes: results and errors arrive, time is bounded, nothing is left behind."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bench import channel, driving
from bench.driving import Driver, DriverFailed
from bench.targets.commands import alive

pytestmark = pytest.mark.slow
LIMIT_S = 30.0


def double(number: int) -> int:
    print("stray output does not disturb the answer")
    return 2 * number


def fail(text: str) -> None:
    raise OSError(text)


def die() -> None:
    os._exit(3)


def hang(pid_file: str) -> None:
    child = os.fork()
    if child:
        Path(pid_file).write_text(str(child))
    time.sleep(600)


def talk(path: str) -> str:
    channel.note("before")
    channel.pause("waiting")
    return Path(path).read_text()


def count_to(number: int) -> int:
    for one in range(number):
        channel.note(one)
    return number


def test_notes_are_told_while_the_result_is_waited_for() -> None:
    notes: list[int] = []
    assert Driver(count_to, 3).result(LIMIT_S, notes.append) == 3
    assert notes == [0, 1, 2]


def test_result_arrives() -> None:
    assert driving.call(double, 21, limit_s=LIMIT_S) == 42


def test_error_arrives_with_its_kind() -> None:
    with pytest.raises(DriverFailed, match="OSError: disk on fire"):
        driving.call(fail, "disk on fire", limit_s=LIMIT_S)


def test_death_is_an_error() -> None:
    with pytest.raises(DriverFailed, match="died without a word"):
        driving.call(die, limit_s=LIMIT_S)


def test_overrun_ends_the_driver_and_what_it_has_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    driver = Driver(hang, pid_file)
    deadline = time.monotonic() + LIMIT_S
    while not pid_file.exists() or not pid_file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(DriverFailed, match="not done after"):
        driver.result(0.1)
    assert not alive(driver.pid)
    while alive(int(pid_file.read_text())):  # killed, and perhaps not dead yet
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_driver_goes_on_only_when_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    driver = Driver(talk, file)
    try:
        assert driver.wait_note(LIMIT_S) == "before"
        assert driver.wait_note(LIMIT_S) == "waiting"
        file.write_text("written while it waited")
        driver.go()
        assert driver.result(LIMIT_S) == "written while it waited"
    finally:
        driver.close()
