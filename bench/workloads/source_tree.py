"""A real source tree: copied in, packed, searched, and put under git.

The tree is the running Python's standard library, sources only: found on
every machine that runs this.
"""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from bench.stage import Better, Figure, Stage, Workload

FILES = 2_400
SKIPPED = {"__pycache__", "site-packages", "dist-packages", "lib-dynload", "config"}
COPY, PACK, SEARCH = "cp -r", "tar, fresh mount", "grep -r"
ADD, COMMIT, STATUS = "git add", "git commit", "git status"
WHO = ("-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0")


def run(stage: Stage) -> None:
    """cp -r from the local disk, tar and grep through a fresh mount, then git."""
    source = _source(stage)
    tree = stage.make_place() / "tree"
    stage.settle()
    stage.record(COPY, stage.run("cp", "-r", source, tree, directory=stage.scratch))
    stage.target.remount()
    # To a pipe in the shell: GNU tar does not read the files when it writes to /dev/null.
    stage.record(PACK, stage.run("bash", "-c", "tar cf - . | cat >/dev/null", directory=tree))
    stage.record(SEARCH, stage.run("grep", "-rc", "import", ".", directory=tree))
    stage.run("diff", "-r", source, tree, directory=stage.scratch)
    stage.run("git", "init", "-q", ".", directory=tree)
    stage.settle()
    stage.record(ADD, stage.run("git", *WHO, "add", "-A", directory=tree))
    commit = ("git", *WHO, "commit", "-q", "-m", "all of it")
    stage.record(COMMIT, stage.run(*commit, directory=tree))
    stage.record(STATUS, stage.run("git", *WHO, "status", "--short", directory=tree))
    stage.run("rm", "-rf", tree, directory=stage.scratch)


def _source(stage: Stage) -> Path:
    """A copy on the local disk of as many files as the scale asks for."""
    wanted = stage.scaled(FILES, 100)
    place = stage.scratch / f"source-{wanted}"
    if not place.exists():
        library = Path(sysconfig.get_path("stdlib"))
        for number, path in enumerate(_files(library)):
            if number == wanted:
                break
            copy = place / path.relative_to(library)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return place


def _files(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.is_symlink():
            continue
        if path.is_dir():
            if path.name not in SKIPPED and not path.name.startswith("config-"):
                yield from _files(path)
        elif path.is_file() and path.suffix != ".pyc":
            yield path


SOURCE_TREE = Workload(
    "tree",
    "a source tree of 2,400 files: cp, tar, grep, git",
    tuple(Figure(name, "s", Better.LOWER) for name in (COPY, PACK, SEARCH, ADD, COMMIT, STATUS)),
    run,
)
