"""Drivers that check their answers find nothing on a local disk, and do find what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.drivers import alternating, following, scattering
from bench.drivers.alternating import Alternator
from bench.drivers.scattering import Scatterer

SIZE, BLOCK = 1 << 20, 4096


@pytest.mark.parametrize("pattern", ["plain", "mapped", "truncate", "sync"])
def test_a_local_file_holds_what_was_written_at_random(tmp_path: Path, pattern: str) -> None:
    path = str(tmp_path / "f")
    scattering.fill(path, SIZE, BLOCK)
    told = scattering.work(path, SIZE, BLOCK, 0.1, pattern, 1)
    assert told["writes"] > 0
    assert told["write_p50_ms"] <= told["write_p99_ms"] <= told["write_p100_ms"]


def test_a_block_that_is_not_what_was_written_is_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "f")
    scattering.fill(path, SIZE, BLOCK)
    writer = Scatterer(path, SIZE, BLOCK, "plain", 1)
    with open(path, "r+b") as file:
        file.seek(SIZE - 100)
        file.write(b"x")
    with pytest.raises(OSError, match=f"block {SIZE // BLOCK - 1} of generation 1"):
        writer.run(0.0)


def test_one_directory_is_never_stale_and_two_are(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    told = alternating.alternate(str(tmp_path / "one"), str(tmp_path / "one"), 400, 1)
    assert (told["stale"], sum(told["changes"].values())) == (0, 400)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    other = Alternator(str(tmp_path / "a"), str(tmp_path / "b"), 1)
    with pytest.raises(OSError, match="n"):  # it changes a name that is in the other directory
        other.run(400)
    assert any("is not there" in words for words in other.stale)


def test_tail_of_a_local_file_is_told_through_a_rotation(tmp_path: Path) -> None:
    place = os.fspath(tmp_path)
    assert len(following.follow(place, place, ["-s", "0.05", "-F"], 6, True)) == 6
