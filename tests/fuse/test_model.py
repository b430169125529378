"""What programs see on two mounts is what they see on a local directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuse.conftest import Cluster
from tests.fuse.model import Programs

STEPS = int(os.environ.get("GFS_MODEL_STEPS", "800"))
STEPS_OF_A_RUN = 50

pytestmark = [pytest.mark.mount, pytest.mark.timeout(60 + STEPS // 10)]


def test_random_programs_see_on_two_mounts_what_they_see_locally(
    cluster: Cluster, here: Path, there: Path, tmp_path: Path
) -> None:
    """`make model STEPS=10000` tries more, and other ones each time."""
    Programs.local, Programs.mounts = tmp_path, (here, there)
    chosen = settings(
        max_examples=max(1, STEPS // STEPS_OF_A_RUN),
        stateful_step_count=STEPS_OF_A_RUN,
        derandomize="GFS_MODEL_STEPS" not in os.environ,
        deadline=None,
        phases=[Phase.generate],  # a step takes long: making an example smaller would take hours
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Programs, settings=chosen)
