"""Medians, comparisons, the file, and how numbers are shown."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from bench import report
from bench.results import Cell, Results, Row
from bench.stage import Better, Figure, Stage, Workload


def _nothing(stage: Stage) -> None:
    """A workload that records nothing."""


FAST = Figure("fast", "MiB/s", Better.HIGHER)
SLOW = Figure("slow", "s", Better.LOWER)
WORK = Workload("work", "some work", (FAST, SLOW), _nothing)
MACHINE = {"cores": 2, "memory_gib": 4.0, "kernel": "6", "load_before": 0.5, "commit": "abc"}
TARGETS = {"local": "a disk", "ours": "this", "moosefs": "peer", "glusterfs": "peer"}


@pytest.fixture
def results() -> Results:
    made = Results.empty(MACHINE, {"rounds": 3, "scale": 1.0}, TARGETS, [WORK])
    for value in (1.0, 9.0, 4.0):
        made.add(WORK, "ours", {"fast": value, "slow": value}, "")
    made.add(WORK, "moosefs", {"fast": 2.0, "slow": 2.0}, "")
    made.add(WORK, "glusterfs", {"fast": 8.0}, "disk [full] and much more to say about it")
    return made


def test_cell_is_the_median_of_its_rounds(results: Results) -> None:
    assert results.rows[0].cells["ours"].median == 4.0
    assert results.rows[0].cells["local"].median is None


def test_advantage_is_against_the_best_peer_either_way(results: Results) -> None:
    fast, slow = results.rows
    assert fast.advantage("ours", ["moosefs", "glusterfs"]) == 0.5
    assert slow.advantage("ours", ["moosefs", "glusterfs"]) == 0.5
    assert slow.advantage("moosefs", ["ours"]) == 2.0


def test_no_advantage_without_a_sample_or_over_zero() -> None:
    row = Row("work", SLOW, {"ours": Cell([0.0]), "peer": Cell([]), "other": Cell([1.0])})
    assert row.advantage("ours", ["peer"]) is None
    assert row.advantage("ours", ["other"]) is None
    assert row.advantage("missing", ["other"]) is None


def test_file_gives_back_what_was_written(results: Results) -> None:
    text = json.dumps(results.to_json())
    assert Results.from_json(json.loads(text)) == results


def test_table_shows_medians_ratio_and_reasons(results: Results) -> None:
    out = io.StringIO()
    report.print_table(results, Console(file=out, width=140))
    text = out.getvalue()
    assert "0.5x" in text
    assert "disk [full] and much more..." in text
    assert "work on glusterfs: disk [full] and much more to say about it" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (12.345, "12.3"), (999.6, "1,000"), (123456.0, "123,000")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert report.digits(value) == text
