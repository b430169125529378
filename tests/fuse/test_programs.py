"""A few of the programs of `make posix` on a mount: those that take a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.posix import running
from bench.posix.program import Verdict
from bench.posix.programs.catalogue import PROGRAMS
from bench.targets.packages import installed
from tests.fuse.conftest import Cluster

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow, pytest.mark.mount]

QUICK = {"inotify", "sed", "sort", "test_fcntl", "test_fileio", "vim", "vim-recover"}


@pytest.mark.parametrize("name", sorted(QUICK))
def test_program_does_on_the_mount_what_it_does_elsewhere(
    cluster: Cluster, tmp_path: Path, name: str
) -> None:
    (program,) = (one for one in PROGRAMS if one.name == name)
    if missing := [package for package in program.packages if not installed(package)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    mounts = [cluster.layout.mountpoint(number) for number in (1, 2)]
    outcome = running.run(program, mounts, tmp_path)
    assert outcome.verdict is Verdict.PASSED, outcome.reason
