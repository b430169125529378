"""Every workload runs on a plain directory and records every figure that it announces."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.stage import Stage, Workload
from bench.targets.local import Local
from bench.targets.target import NotApplicable
from bench.workloads.catalogue import WORKLOADS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
SCALE = 0.001
NEED_DAEMONS = {"memory", "failure"}
DAEMON_FIGURES = {"daemons' CPU, write", "daemons' CPU, read"}


@pytest.fixture
def local(tmp_path: Path) -> Local:
    target = Local(tmp_path / "local")
    target.start()
    (tmp_path / "scratch").mkdir()
    return target


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_workload_records_all_its_figures(workload: Workload, local: Local, tmp_path: Path) -> None:
    stage = Stage(local, workload.name, 0, SCALE, tmp_path / "scratch")
    if workload.name in NEED_DAEMONS:
        with pytest.raises(NotApplicable):
            workload.run(stage)
        return
    workload.run(stage)
    announced = {figure.name for figure in workload.figures} - DAEMON_FIGURES
    assert stage.values.keys() == announced
    assert stage.values.get("4 appenders: wrong lines", 0) == 0


def test_figures_have_names_of_their_own() -> None:
    names = [figure.name for workload in WORKLOADS for figure in workload.figures]
    assert len(names) == len(set(names))
