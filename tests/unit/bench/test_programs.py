"""Programs tried on targets: how they are run and judged, and the table that comes of it."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
import pytest

from bench.posix import page, running
from bench.posix.__main__ import choose_programs
from bench.posix.findings import Findings
from bench.posix.program import Outcome, Program, Verdict
from bench.posix.programs.catalogue import PROGRAMS
from bench.targets.commands import alive

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "programs.md"
PASSED = Outcome(Verdict.PASSED, 1.5)


def program(script: str, **more: object) -> Program:
    return Program("sample", "group", "says", script, **more)  # type: ignore[arg-type]


def run(tmp_path: Path, script: str, **more: object) -> Outcome:
    place = tmp_path / "place"
    place.mkdir()
    outcome = running.run(program(script, **more), [place, place], tmp_path / "logs")
    assert list(place.iterdir()) == []
    return outcome


def failed(*parts: str) -> Outcome:
    return Outcome(Verdict.FAILED, 1.0, "reason", frozenset(parts))


def test_a_script_finds_its_places_and_leaves_nothing(tmp_path: Path) -> None:
    script = """
        [ "$PWD" = "$HERE" ]
        echo here > "$THERE/file" && mv file "$TMPDIR/" && echo local > "$LOCAL/file"
        [ -e "$ROOT/README.md" ] && "$PYTHON" -c 'import bench'
        not false
        until_so true
    """
    assert run(tmp_path, script).verdict is Verdict.PASSED


@pytest.mark.parametrize("wrong", ["false", "not true", "(false)", "echo x | grep -q y"])
def test_the_first_command_that_fails_is_the_reason(tmp_path: Path, wrong: str) -> None:
    outcome = run(tmp_path, f"echo before\n{wrong}\necho after")
    assert outcome.verdict is Verdict.FAILED
    assert "before" in outcome.reason
    assert "failed: " in outcome.reason
    assert "after" not in outcome.reason


def test_what_takes_too_long_is_ended_and_says_where_it_was(tmp_path: Path) -> None:
    outcome = run(tmp_path, "echo so far; sleep 600", limit_s=0.5)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.reason.startswith("not done after")
    assert "so far" in outcome.reason


def test_daemons_that_a_program_leaves_are_ended(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    run(tmp_path, f"setsid sleep 600 > /dev/null & echo $! > {pidfile}")
    assert not alive(int(pidfile.read_text()))


def test_a_run_that_is_interrupted_ends_its_program(tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise Interrupted

    pidfile = tmp_path / "pid"
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            run(tmp_path, f"sleep 600 & echo $! > {pidfile}; kill -USR1 $PPID; wait")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not alive(int(pidfile.read_text()))


def test_exit_codes_and_parts_are_judged() -> None:
    parts = program("", failed_parts=r"^FAIL: (\S+)", skipped_by=(4,), skipped_words="skipping.*")
    assert running.judge(parts, 0, 1.0, "FAIL: a").verdict is Verdict.PASSED
    assert running.judge(parts, 4, 1.0, "none here").reason == "none here"
    said = running.judge(parts, 0, 1.0, "begin\nso skipping it\nend")
    assert (said.verdict, said.reason) == (Verdict.SKIPPED, "skipping it")
    outcome = running.judge(parts, 2, 1.0, "x\nFAIL: a (A)\nFAIL: b (B)\nend")
    assert outcome.parts == {"a", "b"}
    assert outcome.reason == "a, b"
    assert running.judge(parts, 1, 1.0, "1\n2\n3\n4").reason == "exit code 1: 2 / 3 / 4"


def test_a_failure_that_the_local_disk_has_too_is_no_difference() -> None:
    assert failed().as_on(failed())
    assert failed("a").as_on(failed("a", "b"))
    assert not failed("a", "c").as_on(failed("a", "b"))
    assert not failed("a").as_on(PASSED)
    assert not failed("a").as_on(None)
    assert not failed("a").as_on(failed())


def test_findings_are_added_to_those_of_earlier_runs(tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    first = Findings.load(file)
    first.targets["local"] = "a disk"
    first.add("x", "local", PASSED)
    first.add("y", "local", failed("a"))
    first.save(file)
    second = Findings.load(file)
    second.add("x", "ours", failed())
    second.add("y", "ours", failed("a"))
    assert second.outcomes["y"]["local"] == failed("a")
    assert second.differences("ours") == ["x"]


def test_only_the_table_of_the_page_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    findings = Findings(
        {"cores": 2, "memory_gib": 1, "kernel": "6", "system": "D", "commit": "c", "date": "d"},
        {"local": "a disk", "ours": "a cluster"},
    )
    one, other, third = (found.name for found in PROGRAMS[:3])
    findings.add(one, "local", PASSED)
    findings.add(one, "ours", failed())
    findings.add(other, "local", failed("a"))
    findings.add(other, "ours", failed("a"))
    findings.add(third, "ours", Outcome(Verdict.SKIPPED, 0.0, "a|b"))
    page.write(findings, file)
    text = file.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert f"| {one} | {PROGRAMS[0].says} | 1.5 s | failed (1) |" in text
    assert "as local, 1.0 s" in text
    assert "1. " in text
    file.write_text("no marks")
    with pytest.raises(click.UsageError):
        page.write(findings, file)


def test_names_are_unique_and_found_by_what_they_are() -> None:
    names = [one.name for one in PROGRAMS]
    assert len(set(names)) == len(names)
    assert [one.name for one in choose_programs("^git-")] == [n for n in names if n[:4] == "git-"]
    with pytest.raises(click.UsageError, match="none of"):
        choose_programs("^nothing$")
    with pytest.raises(click.UsageError):
        choose_programs("(")


def test_the_page_has_a_row_for_every_program() -> None:
    rows = [line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if "|" in line]
    assert {one.name for one in PROGRAMS} <= set(rows)
