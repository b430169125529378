"""A shadow's directory begun anew, also when that was cut short."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfs.disk import PosixDisk
from gfs.errors import StorageFailed
from master import beginning

DISK = PosixDisk()


def fill(directory: Path) -> Path:
    (directory / "log").mkdir(parents=True)
    (directory / "checkpoints").mkdir()
    (directory / "state.db").write_bytes(b"old")
    checkpoint = directory / "new.checkpoint"
    checkpoint.write_bytes(b"new")
    return checkpoint


def test_what_was_there_is_kept_and_the_checkpoint_is_in_its_place(tmp_path: Path) -> None:
    aside = beginning.begin_anew(tmp_path, DISK, fill(tmp_path), 41)
    assert (aside / "state.db").read_bytes() == b"old"
    assert (tmp_path / "checkpoints" / "new.checkpoint").read_bytes() == b"new"
    assert not (tmp_path / "state.db").exists()
    assert beginning.begin_of(tmp_path, DISK) == 42
    beginning.finish(tmp_path, DISK)
    assert (tmp_path / "checkpoints" / "new.checkpoint").exists()


@pytest.mark.parametrize("step", range(5))
def test_a_crash_in_between_leaves_all_or_nothing(tmp_path: Path, step: int) -> None:
    class Failing(PosixDisk):
        renames = 0

        def rename(self, source: Path, destination: Path) -> None:
            if self.renames == step:
                raise StorageFailed("killed here")
            self.renames += 1
            super().rename(source, destination)

    checkpoint = fill(tmp_path)
    try:
        beginning.begin_anew(tmp_path, Failing(), checkpoint, 41)
    except StorageFailed:
        beginning.finish(tmp_path, DISK)
        names = ("log", "state.db", "checkpoints")
        there = [name for name in names if (tmp_path / name).exists()]
        assert there == (list(names) if step == 0 else [])  # the first renames the note
        assert (tmp_path / "before-1").exists() == (step > 0)
    else:
        assert (tmp_path / "checkpoints").exists()
