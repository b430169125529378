"""The simulation finds the bugs that were put there for it; else its silence would say nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.planted import PLANTS

ROOT = Path(__file__).parents[2]
SEEDS = 200


@pytest.mark.slow
@pytest.mark.power_loss
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    command = [
        sys.executable, "-m", "tests.sim", "--plant", name, "--stop", "--jobs", "1",
        "--seeds", str(SEEDS),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SimulationError" in done.stdout, done.stdout
