"""Processes that live long but are no `run_daemon`: the collector looks seldom, SIGUSR1 asks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence

import pytest

from gfs.running import GC_THRESHOLDS
from master import stream
from projections import __main__ as projections

REQUIRED = ("log", "committed", "state", "checkpoints", "cluster-id")
STREAM = [*(f"--{name}=none" for name in REQUIRED), "--key-file=/none"]


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("thresholds")
@pytest.mark.parametrize(
    ("main", "arguments"), [(stream.main, STREAM), (projections.main, ["--key-file=/none"])]
)
def test_what_lives_long_is_prepared(
    main: Callable[[Sequence[str]], int],
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("gfs.running.show_stacks_on_sigusr1", lambda: asked.append(True))
    monkeypatch.setattr("os.nice", lambda _: 0)
    monkeypatch.setattr("gfs.logs.set_up", lambda *_: None)
    gc.set_threshold(700, 10, 10)
    assert main(arguments) == 2
    assert "/none" in capsys.readouterr().err
    assert gc.get_threshold() == GC_THRESHOLDS
    assert asked
