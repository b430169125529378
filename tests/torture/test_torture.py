"""A torture of a few seconds ends clean; what `make torture` does for hours is kept working."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import fuse_missing
from tests.torture.run import Run
from tests.torture.schedule import Fault, Kind

pytestmark = [
    pytest.mark.mount, pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(240),
]  # fmt: skip


def test_a_few_faults_lose_nothing_and_everything_is_compared(tmp_path: Path) -> None:
    if reason := fuse_missing():
        pytest.skip(reason)
    faults = [
        Fault(0.5, Kind.KILL, "chunkd2", 0.5),
        Fault(1.0, Kind.HANG, "master", 0.5),
        Fault(2.0, Kind.KILL, "mount2", 0.2),
    ]
    crew = ("appender", "saver", "namer", "copier")
    run = Run(tmp_path, seed=1, length_s=4.0, chunkservers=3, mounts=2, crew=crew, faults=faults)
    report = run.run()
    assert report.lost == []
    assert report.problems == []
    assert report.totals["kills"] == 2
    assert report.totals["hangs"] == 1
    assert report.started_again_s > 0
    assert {"append", "rename", "fsync", "unlink"} <= report.acknowledged.keys()
