"""The findings for people: the table of docs/programs.md, and a summary on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from bench.posix.findings import Findings
from bench.posix.program import Program, Verdict
from bench.posix.programs.catalogue import PROGRAMS
from bench.targets.local import Local

BEGIN = "<!-- The table: written by `make posix`, not by hand. -->"
END = "<!-- End of the table. -->"


def print_summary(findings: Findings) -> None:
    """How many passed on each target, and what failed on it that does not on the local disk."""
    for target in findings.targets:
        click.echo(f"{target}: {_counted(findings, target, PROGRAMS)}")
        for name in findings.differences(target):
            click.echo(f"  {name}: {findings.outcomes[name][target].reason}")


def write(findings: Findings, path: Path) -> None:
    """Replace the table of a page.

    Raises:
      click.UsageError: the page has no place for it.
    """
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise click.UsageError(f"{path} has not the lines {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{''.join(_table(findings))}\n{END}{after}")


def _table(findings: Findings) -> Iterator[str]:
    machine = findings.machine
    yield (
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"{machine['system']}; commit {machine['commit']}, {machine['date'][:10]}.\n\n"
    )
    for name, text in findings.targets.items():
        yield f"- **{name}**: {text}\n"
    yield "\n"
    yield _row("", *findings.targets)
    yield _row("---", *("---:" for _ in findings.targets))
    groups = dict.fromkeys(program.group for program in PROGRAMS)
    for group in groups:
        rows = [program for program in PROGRAMS if program.group == group]
        counted = (_counted(findings, target, rows) for target in findings.targets)
        yield _row(f"**{group}** ({len(rows)})", *counted)
    notes: list[str] = []
    for group in groups:
        yield f"\n### {group}\n\n"
        yield _row("program", "what it does", *findings.targets)
        yield _row("---", "---", *("---:" for _ in findings.targets))
        for program in PROGRAMS:
            if program.group == group:
                cells = (_cell(findings, program, target, notes) for target in findings.targets)
                yield _row(program.name, program.says, *cells)
    yield "\n### What failed or was skipped\n\n"
    for number, note in enumerate(notes, 1):
        yield f"{number}. {note}\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _counted(findings: Findings, target: str, programs: tuple[Program, ...] | list[Program]) -> str:
    """How many passed, failed as on the local disk, failed only here, were skipped."""
    passed = same = failed = skipped = 0
    for program in programs:
        outcome = findings.outcomes.get(program.name, {}).get(target)
        if outcome is None:
            continue
        if outcome.verdict is Verdict.PASSED:
            passed += 1
        elif outcome.verdict is Verdict.SKIPPED:
            skipped += 1
        elif findings.differs(program.name, target) or target == Local.name:
            failed += 1
        else:
            same += 1
    words = [f"{passed} passed"]
    words += [f"{same} fail as on {Local.name}"] if same else []
    words += [f"{failed} failed"] if failed else []
    words += [f"{skipped} skipped"] if skipped else []
    return ", ".join(words)


def _cell(findings: Findings, program: Program, target: str, notes: list[str]) -> str:
    """Seconds, or what else came of it with the number of the note that says why."""
    outcome = findings.outcomes.get(program.name, {}).get(target)
    if outcome is None:
        return ""
    if outcome.verdict is Verdict.PASSED:
        return f"{outcome.seconds:.1f} s"
    same = outcome.verdict is Verdict.FAILED and target != Local.name
    if same and not findings.differs(program.name, target):
        return f"as {Local.name}, {outcome.seconds:.1f} s"
    note = f"{program.name}: {_quoted(outcome.reason)}"
    if note not in notes:
        notes.append(note)
    return f"{outcome.verdict.value} ({notes.index(note) + 1})"


def _quoted(text: str) -> str:
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"
