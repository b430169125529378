"""The simulation finds the bugs that were put there for it; else its silence would say nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.planted import PLANTS

ROOT = Path(__file__).parents[2]
SEEDS = 200
# Any seed may find any of them; these begin where one did, to be done sooner.
FIRST = {
    "answers_before_fdatasync": 2,
    "honours_the_lease_too_long": 5,
    "decides_a_request_twice": 2,
    "moves_the_cursor_too_far": 4,
    "never_verifies_blocks": 8,
    "confirms_before_it_is_on_disk": 5,
    "holds_a_lock_past_its_lease": 222,
}


@pytest.mark.slow
@pytest.mark.power_loss
@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    command = [
        sys.executable, "-m", "tests.sim", "--plant", name, "--stop", "--jobs", "1",
        "--first", str(FIRST.get(name, 1)), "--seeds", str(SEEDS),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SimulationError" in done.stdout, done.stdout
