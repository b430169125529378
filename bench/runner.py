"""Runs workloads round by round on all targets, side by side, and survives what fails.

All targets are up together; a workload runs on each in turn before the next
round of it, each round starting with another target, so that what drifts on
the machine drifts for all. Only ratios within one run are meant to be compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.driving import DriverFailed
from bench.results import Results
from bench.stage import Stage, Workload
from bench.targets.target import NotApplicable, Target, TargetFailed

Say = Callable[[str], None]


class Runner:
    """One run over some targets in one work directory."""

    def __init__(
        self, targets: Sequence[Target], scratch: Path, results: Results, scale: float, say: Say
    ) -> None:
        self._targets = list(targets)
        self._scratch = scratch
        self._results = results
        self._scale = scale
        self._say = say
        self.failures = 0  # stages and starts that failed
        self._dead: dict[str, str] = {}  # target -> why it is not asked any more

    def start(self) -> None:
        """Start each target; one that does not start is left out, with the reason."""
        for target in self._targets:
            self._say(f"start {target.name}")
            try:
                target.start()
            except (TargetFailed, DriverFailed, OSError) as error:
                self._bury(target, f"did not start: {error}")

    def run(self, workloads: Sequence[Workload], rounds: int) -> None:
        """Run every workload; never raises for what a target does."""
        for workload in workloads:
            for number in range(1 if workload.once else rounds):
                turn = number % len(self._targets)
                for target in self._targets[turn:] + self._targets[:turn]:
                    self._one(workload, target, number)

    def stop(self) -> None:
        """Stop each target."""
        for target in self._targets:
            self._say(f"stop {target.name}")
            target.stop()

    def _one(self, workload: Workload, target: Target, number: int) -> None:
        stage = Stage(target, workload.name, number, self._scale, self._scratch)
        if target.name in self._dead:
            self._results.add(workload, target.name, {}, self._dead[target.name])
            return
        start, reason = time.monotonic(), ""
        self._say(f"{workload.name}, round {number + 1}, {target.name}")
        try:
            workload.run(stage)
        except NotApplicable as error:
            reason = str(error)
        except (DriverFailed, TargetFailed, OSError) as error:
            reason = str(error) or type(error).__name__
            self.failures += 1
            self._say(f"{workload.name}, round {number + 1}, {target.name} failed: {reason}")
            self._recover(target)
        self._results.add(workload, target.name, stage.values, reason)
        seconds = time.monotonic() - start
        self._say(f"{workload.name}, round {number + 1}, {target.name}: {seconds:.1f} s")

    def _recover(self, target: Target) -> None:
        """Make the target usable again for what follows, by a restart if need be."""
        probe = Stage(target, "probe", time.monotonic_ns(), 0.0, self._scratch)
        try:
            target.heal()
            probe.make_place()
        except (TargetFailed, DriverFailed, OSError):
            self._say(f"{target.name} does not answer: restart")
            target.stop()
            try:
                target.fresh()
                target.start()
            except (TargetFailed, DriverFailed, OSError) as error:
                self._bury(target, f"down: {error}")

    def _bury(self, target: Target, reason: str) -> None:
        self.failures += 1
        self._dead[target.name] = reason
        self._say(f"{target.name} {reason}")
        target.stop()
