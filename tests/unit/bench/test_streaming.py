"""What a streaming driver writes is what its check demands, to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.drivers import streaming
from bench.drivers.streaming import MIB

TOTAL = 3 * MIB


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    times = streaming.write(str(path), TOTAL, 128 * 1024)
    assert 0 < times["fsync_s"] <= times["seconds"]
    assert times["longest_s"] > 0
    return path


def test_content_does_not_depend_on_the_size_of_writes(written: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    streaming.write(str(other), TOTAL, MIB)
    assert other.read_bytes() == written.read_bytes()
    streaming.verify(str(written), TOTAL)


@pytest.mark.parametrize("offset", [0, MIB - 1, 2 * MIB + 5])
def test_changed_byte_is_found(written: Path, offset: int) -> None:
    content = bytearray(written.read_bytes())
    content[offset] ^= 1
    written.write_bytes(content)
    with pytest.raises(OSError, match=f"MiB {offset // MIB} of 3"):
        streaming.verify(str(written), TOTAL)


def test_swapped_blocks_are_found(written: Path) -> None:
    content = written.read_bytes()
    written.write_bytes(content[MIB : 2 * MIB] + content[:MIB] + content[2 * MIB :])
    with pytest.raises(OSError, match="MiB 0"):
        streaming.verify(str(written), TOTAL)


def test_surplus_is_found(written: Path) -> None:
    with written.open("ab") as file:
        file.write(b"x")
    with pytest.raises(OSError, match="longer"):
        streaming.verify(str(written), TOTAL)


def test_short_file_fails_the_read(written: Path) -> None:
    assert streaming.read(str(written), TOTAL) > 0
    with pytest.raises(OSError, match="read 3145728 bytes of 4194304"):
        streaming.read(str(written), TOTAL + MIB)


def test_random_reads_never_repeat_a_page(written: Path) -> None:
    pages = TOTAL // streaming.PAGE
    assert len(streaming.random_reads(str(written), TOTAL, [1, 100, 8, pages - 100])) == 2
    with pytest.raises(ValueError, match="larger than population"):
        streaming.random_reads(str(written), TOTAL, [1, pages + 1])
