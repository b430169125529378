"""A run goes on whatever a target does, and asks every target in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.results import Results
from bench.runner import Runner
from bench.stage import Better, Figure, Stage, Workload
from bench.targets.local import Local
from bench.targets.target import NotApplicable, TargetFailed

pytestmark = pytest.mark.slow
FIRST, SECOND = Figure("first", "s", Better.LOWER), Figure("second", "s", Better.LOWER)


class Fragile(Local):
    """A directory whose heal fails as often as it is told, and which may refuse to start."""

    def __init__(self, directory: Path, name: str, *, heals: bool = True, starts: int = 9) -> None:
        super().__init__(directory)
        self.name = name
        self.heals = heals
        self.starts = starts
        self.stopped = 0

    def start(self) -> None:
        self.starts -= 1
        if self.starts < 0:
            raise TargetFailed("no disk")
        super().start()

    def heal(self) -> None:
        if not self.heals:
            raise TargetFailed("beyond healing")

    def stop(self) -> None:
        self.stopped += 1


def make(tmp_path: Path, targets: list[Fragile], workload: Workload) -> tuple[Runner, Results]:
    names = {target.name: "a fake" for target in targets}
    results = Results.empty({}, {}, names, [workload])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Runner(targets, scratch, results, 0.001, lambda text: None), results


def breaks_on(name: str) -> Workload:
    def run(stage: Stage) -> None:
        stage.record("first", 1.0)
        if stage.target.name == name:
            raise OSError("it broke")
        stage.record("second", 2.0)

    return Workload("work", "breaks on one", (FIRST, SECOND), run)


def test_failure_keeps_what_was_recorded_and_says_why(tmp_path: Path) -> None:
    good, bad = Fragile(tmp_path / "a", "good"), Fragile(tmp_path / "b", "bad")
    workload = breaks_on("bad")
    runner, results = make(tmp_path, [good, bad], workload)
    runner.start()
    runner.run([workload], 2)
    first, second = results.rows
    assert first.cells["bad"].samples == [1.0, 1.0]
    assert (second.cells["bad"].samples, second.cells["bad"].reason) == ([], "it broke")
    assert second.cells["good"].samples == [2.0, 2.0]
    assert runner.failures == 2


def test_target_that_cannot_heal_is_restarted_empty(tmp_path: Path) -> None:
    bad = Fragile(tmp_path / "b", "bad", heals=False)
    workload = breaks_on("bad")
    runner, results = make(tmp_path, [bad], workload)
    runner.start()
    runner.run([workload], 2)
    assert bad.stopped == 2
    assert bad.directory.name == "b++"
    assert results.rows[0].cells["bad"].samples == [1.0, 1.0]


def test_target_that_does_not_come_back_is_not_asked_again(tmp_path: Path) -> None:
    bad = Fragile(tmp_path / "b", "bad", heals=False, starts=1)
    workload = breaks_on("bad")
    runner, results = make(tmp_path, [bad], workload)
    runner.start()
    runner.run([workload], 3)
    cell = results.rows[1].cells["bad"]
    assert cell.reason == "down: no disk"
    assert results.rows[0].cells["bad"].samples == [1.0]


def test_target_that_does_not_start_leaves_the_others_alone(tmp_path: Path) -> None:
    good, bad = Fragile(tmp_path / "a", "good"), Fragile(tmp_path / "b", "bad", starts=0)
    workload = breaks_on("neither")
    runner, results = make(tmp_path, [good, bad], workload)
    runner.start()
    runner.run([workload], 1)
    assert results.rows[1].cells["good"].samples == [2.0]
    assert results.rows[1].cells["bad"].reason == "did not start: no disk"


def test_what_a_target_does_not_have_is_no_failure(tmp_path: Path) -> None:
    def run(stage: Stage) -> None:
        raise NotApplicable("no server")

    workload = Workload("work", "asks for a server", (FIRST,), run)
    runner, results = make(tmp_path, [Fragile(tmp_path / "a", "plain")], workload)
    runner.start()
    runner.run([workload], 1)
    assert results.rows[0].cells["plain"].reason == "no server"
    assert runner.failures == 0


def test_each_round_begins_with_another_target(tmp_path: Path) -> None:
    asked: list[str] = []

    def run(stage: Stage) -> None:
        asked.append(stage.target.name)

    workload = Workload("work", "notes who was asked", (FIRST,), run)
    targets = [Fragile(tmp_path / name, name) for name in "ab"]
    runner, _ = make(tmp_path, targets, workload)
    runner.start()
    runner.run([workload], 3)
    assert asked == ["a", "b", "b", "a", "a", "b"]
