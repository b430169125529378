"""docs/status.md names tests and commands; all of them exist, and no claim is empty.

Nothing is imported: tests are found by their syntax trees, targets and commands in
the files that declare them.
"""

from __future__ import annotations

import ast
import itertools
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
STATUS = ROOT / "docs" / "status.md"
STATES = ("shown", "partly", "missing")


class Row(NamedTuple):
    """One line of a table: what is claimed, what shows it, how far it holds."""

    section: str
    claim: str
    evidence: list[str]
    state: str


def rows_of(text: str) -> list[Row]:
    """All rows of all tables that have the columns of a status."""
    found = []
    section = ""
    for line in text.splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif line.startswith("| ") and not line.startswith(("| feature |", "| claim |")):
            claim, shown_by, state = (cell.strip() for cell in line.strip().strip("|").split("|"))
            found.append(Row(section, claim, re.findall(r"`([^`]+)`", shown_by), state))
    return found


@cache
def named_tests(path: str) -> frozenset[str]:
    """Names of the test functions in a file; none if there is no such file."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = (node.name for node in ast.walk(tree) if isinstance(node, functions))
    return frozenset(name for name in names if name.startswith("test_"))


@cache
def make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@cache
def literals_of(path: str) -> frozenset[str]:
    """Every text constant of a Python file: names of commands and workloads are among them."""
    tree = ast.parse((ROOT / path).read_text())
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return frozenset(value for value in constants if isinstance(value, str))


def complaint(word: str) -> str | None:
    """What is wrong with a piece of evidence; None if it exists."""
    if word.startswith("tests/"):
        path, _, name = word.partition("::")
        known = named_tests(path)
        if not known or (name and name.partition("[")[0] not in known):
            return f"no such test: {word}"
        return None
    words = word.split()
    if words[0] == "make":
        return None if make_targets() >= set(words[1:]) else f"no such target: {word}"
    if words[0] == "gfs":
        known = literals_of("gfs/cli/main.py")
        return None if words[1] in known else f"no such command: {word}"
    if words[:2] == ["python", "-m"]:
        return _bench_complaint(words[2:], word)
    return None if (ROOT / words[0]).is_file() else f"neither test, command nor file: {word}"


def _bench_complaint(words: list[str], word: str) -> str | None:
    module = ROOT / Path(*words[0].split("."))
    if not module.with_suffix(".py").is_file() and not (module / "__main__.py").is_file():
        return f"no such module: {word}"
    files = sorted((ROOT / "bench" / "workloads").glob("*.py"))
    workloads = frozenset[str]().union(*(literals_of(str(f.relative_to(ROOT))) for f in files))
    for option, value in itertools.pairwise(words):
        if option == "--only" and not workloads >= set(value.split(",")):
            return f"no such workload: {word}"
    return None


def test_everything_named_in_the_status_exists() -> None:
    rows = rows_of(STATUS.read_text())
    assert len(rows) > 50
    complaints = [found for row in rows for word in row.evidence if (found := complaint(word))]
    assert not complaints, "\n".join(complaints)


def test_every_row_has_a_state_and_what_is_shown_names_what_shows_it() -> None:
    for row in rows_of(STATUS.read_text()):
        state, _, open_end = row.state.partition(":")
        assert state in STATES, row
        if state == "shown":
            assert row.evidence, row
        else:
            assert open_end.strip(), f"{row.claim}: what is open?"


def test_no_claim_stands_twice() -> None:
    claims = [(row.section, row.claim) for row in rows_of(STATUS.read_text())]
    assert len(claims) == len(set(claims))


@pytest.mark.parametrize(
    "word",
    [
        "tests/test_status.py::test_that_nobody_wrote",
        "tests/test_no_such_file.py",
        "make coffee",
        "gfs levitate",
        "python -m bench.nothing",
        "python -m bench --only flying",
        "no/such/file",
    ],
)
def test_what_does_not_exist_is_found_out(word: str) -> None:
    assert complaint(word) is not None


@pytest.mark.parametrize(
    "word",
    [
        "tests/test_status.py::test_what_does_not_exist_is_found_out[make coffee]",
        "tests/test_status.py",
        "make help",
        "gfs cluster up",
        "python -m bench --only stream,append",
        ".ci/run",
    ],
)
def test_what_exists_is_let_pass(word: str) -> None:
    assert complaint(word) is None
