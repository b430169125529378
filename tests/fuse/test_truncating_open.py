"""O_TRUNC on a file whose last bytes still wait in the mount to be committed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(60)


@pytest.mark.mount
def test_truncating_open_cuts_off_bytes_that_are_not_committed_yet(here: Path, there: Path) -> None:
    (here / "f").write_bytes(b"long content")
    (here / "f").write_bytes(b"x")  # at once: nothing of the first is at the master
    (here / "g").write_bytes(b"long content")
    (here / "g").write_bytes(b"")
    assert (here / "f").read_bytes() == b"x"
    assert os.stat(here / "g").st_size == 0
    assert (there / "f").read_bytes() == b"x"
    assert (there / "g").read_bytes() == b""


@pytest.mark.mount
def test_truncating_open_cuts_off_records_on_their_way(here: Path) -> None:
    appender = os.open(here / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for _ in range(100):
        os.write(appender, b"record\n")
    (here / "log").write_bytes(b"new")
    os.write(appender, b"record\n")
    os.close(appender)
    assert (here / "log").read_bytes() == b"newrecord\n"


@pytest.mark.mount
def test_truncating_open_of_an_empty_file_moves_its_times(here: Path, there: Path) -> None:
    (here / "f").touch()
    before = os.stat(there / "f")
    os.close(os.open(here / "f", os.O_WRONLY | os.O_TRUNC))
    after = os.stat(there / "f")
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns


@pytest.mark.mount
def test_truncating_open_for_reading_alone_truncates_as_linux_does(here: Path, there: Path) -> None:
    (here / "f").write_bytes(b"content")
    (there / "f").read_bytes()
    os.close(os.open(here / "f", os.O_RDONLY | os.O_TRUNC))
    assert os.stat(there / "f").st_size == 0
    assert (here / "f").read_bytes() == b""
