"""kill -9 at every named step of the log, the state and the rotation: nothing acknowledged is lost.

What loses power there is simulated in tests/sim/test_power_loss.py; this is the process.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

from tests.system.dying_master import POINTS
from tests.system.test_master_process import Load, MasterProcess, connected, names_and_inodes

pytestmark = [pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(100)]

# How often a point is passed before the end: rotations are rare.
TIMES = {"segment-begun": 2}
SMALL = ("--log-segment-bytes", "1MiB")


class DyingMaster(MasterProcess):
    """Ends itself at `point`; "" = an ordinary one."""

    point = ""

    def command(self, *extra: str) -> list[str]:
        usual = super().command(*extra)
        if not self.point:
            return usual
        times = str(TIMES.get(self.point, 60))
        return [sys.executable, "-m", "tests.system.dying_master", self.point, times, *usual[3:]]


@pytest.mark.parametrize("point", POINTS)
async def test_nothing_acknowledged_is_lost_by_a_kill_at(point: str, tmp_path: Path) -> None:
    daemon, load = DyingMaster(tmp_path / "m", *SMALL), Load()
    daemon.point = point
    daemon.start()
    try:
        with trio.fail_after(60):
            async with connected(daemon) as raw:
                load.session = (await raw.open()).session
                await load.drive(raw)
        assert daemon.process is not None
        assert daemon.process.wait(10) == -9
        assert load.acknowledged
        daemon.point = ""
        daemon.start()
        async with connected(daemon) as raw:
            await raw.open(session=load.session)
            found = await names_and_inodes(raw)
            for operation, done in load.acknowledged.values():
                assert done.entry is not None
                assert found.get(operation.name) == done.entry.ino  # type: ignore[union-attr]
            for number, operation in sorted(load.unanswered.items()):
                await raw.mutate(operation, number=number, low=min(load.unanswered))
            again = await names_and_inodes(raw)
        asked = [operation for operation, _ in load.acknowledged.values()]
        asked += load.unanswered.values()
        assert sorted(again) == sorted(operation.name for operation in asked)  # type: ignore[union-attr]
    finally:
        daemon.end()
