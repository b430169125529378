"""Ten thousand small files: created, seen through a fresh mount, read, listed, renamed, removed."""

from __future__ import annotations

from bench.drivers import files
from bench.drivers.files import FILE_BYTES
from bench.driving import DriverFailed
from bench.stage import Better, Figure, Stage, Workload

FILES = 10_000
CREATE, EMPTY = "create 4 KiB files", "create empty files"
STAT, READ = "stat, fresh mount", "read 4 KiB files"
LIST, FIND, USAGE = "ls -lR, fresh mount", "find", "du"
RENAME, REMOVE = "rename", "rm -rf"


def run(stage: Stage) -> None:
    """All of it on one tree of ten directories; a second one has the empty files."""
    place = stage.make_place()
    count = stage.scaled(FILES, 500) // files.DIRECTORIES * files.DIRECTORIES
    full, empty = place / "full", place / "empty"
    stage.settle()
    stage.record(CREATE, stage.call(files.create, full, count, FILE_BYTES))
    stage.settle()
    stage.record(EMPTY, stage.call(files.create, empty, count // 2, 0))
    stage.target.remount()
    stage.record(STAT, stage.call(files.stat_all, full, count, FILE_BYTES))
    stage.record(READ, stage.call(files.read_all, full, count, FILE_BYTES))
    stage.target.remount()
    stage.record(LIST, stage.run("ls", "-lR", full, directory=stage.scratch))
    stage.record(FIND, stage.run("find", full, directory=stage.scratch))
    stage.record(USAGE, stage.run("du", "-s", full, directory=stage.scratch))
    if (seen := stage.call(files.count_files, full)) != count:
        raise DriverFailed(f"{seen} files listed of {count}")
    stage.settle()
    stage.record(RENAME, stage.call(files.rename_all, full, count // 5))
    stage.record(REMOVE, count / stage.run("rm", "-rf", full, directory=stage.scratch))


SMALL_FILES = Workload(
    "small",
    "10,000 files of 4 KiB and 5,000 empty ones in ten directories each",
    (
        Figure(CREATE, "files/s", Better.HIGHER),
        Figure(EMPTY, "files/s", Better.HIGHER),
        Figure(STAT, "/s", Better.HIGHER),
        Figure(READ, "files/s", Better.HIGHER),
        Figure(LIST, "s", Better.LOWER),
        Figure(FIND, "s", Better.LOWER),
        Figure(USAGE, "s", Better.LOWER),
        Figure(RENAME, "/s", Better.HIGHER),
        Figure(REMOVE, "files/s", Better.HIGHER),
    ),
    run,
)
