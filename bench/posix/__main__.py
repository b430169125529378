"""Command line: python -m bench.posix."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import click

from bench import machine
from bench.posix import page, running
from bench.posix.findings import Findings
from bench.posix.program import Outcome, Program, Verdict
from bench.posix.programs.catalogue import PROGRAMS
from bench.setting import (
    choose_targets,
    directory_option,
    end_on_signals,
    end_without_interruption,
    work_directory,
)
from bench.targets.ours import Ours
from bench.targets.packages import require_packages
from bench.targets.target import Target, TargetFailed, Unavailable

SPACE_SCALE = 0.5  # of what the benchmarks need
EXIT_DIFFERENT = 1  # something fails here that works on the local disk

HELP = """Run real programs on a directory of each target and say what failed.

\b
Examples:
  python -m bench.posix                          all, on ext4 and here
  python -m bench.posix --only 'git|^sqlite'     some, by name or group
  python -m bench.posix --targets local,ours,moosefs --json FILE
  python -m bench.posix --json FILE --page docs/programs.md

With --json the outcomes are added to what FILE holds, so that targets and groups may be
run one after another. Exit code 1: a program failed on `ours` that did not on `local`.
"""


def choose_programs(only: str) -> list[Program]:
    """Programs of which the regular expression `only` is found in name or group.

    Raises:
      click.UsageError: it is found in none, or is none.
    """
    try:
        wanted = re.compile(only)
    except re.error as error:
        raise click.UsageError(f"--only: {error}") from None
    found = [p for p in PROGRAMS if wanted.search(p.name) or wanted.search(p.group)]
    if not found:
        raise click.UsageError(f"--only: none of {', '.join(p.name for p in PROGRAMS)}")
    return found


@click.command(help=HELP)
@click.option("--targets", default="local,ours", show_default=True, help="Targets, by commas.")
@click.option("--only", default="", help="Regular expression on names and groups.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Outcomes, added to.")
@click.option("--page", "page_file", type=click.Path(path_type=Path), help="Page with the table.")
@click.option("--logs", type=click.Path(path_type=Path), help="Keep what failed programs printed.")
@directory_option
@click.pass_context
def main(
    context: click.Context,
    targets: str,
    only: str,
    json_file: Path | None,
    page_file: Path | None,
    logs: Path | None,
    directory: Path,
) -> None:
    """See HELP."""
    programs = choose_programs(only)
    kinds = choose_targets(targets)
    findings = Findings.load(json_file)
    if logs:
        logs.mkdir(parents=True, exist_ok=True)
    with work_directory(directory, SPACE_SCALE, len(kinds)) as work:
        work.chmod(0o755)  # PostgreSQL's user walks in
        findings.machine = machine.facts(work)
        for kind in kinds:
            target = kind(work / kind.name)
            with closing(_tried(target, programs, findings, logs or work / "logs")) as tried:
                for name, outcome in tried:
                    findings.add(name, target.name, outcome)
                    findings.save(json_file)  # after each: a run may be interrupted
    page.print_summary(findings)
    if page_file:
        page.write(findings, page_file)
    context.exit(EXIT_DIFFERENT if findings.differences(Ours.name) else 0)


def _tried(
    target: Target, programs: Sequence[Program], findings: Findings, logs: Path
) -> Generator[tuple[str, Outcome]]:
    """Outcomes on one target, which is up only meanwhile; one that stops answering is replaced."""
    end_on_signals()
    try:
        target.check()
        findings.targets[target.name] = target.version()
        target.start()
    except (Unavailable, TargetFailed) as error:
        findings.targets[target.name] = f"left out: {error}"
        click.echo(f"{target.name} is left out: {error}", err=True)
        target.stop()
        return
    try:
        for number, program in enumerate(programs, 1):
            outcome = _try(program, target, logs)
            about = f"{outcome.verdict.value} {outcome.seconds:.1f} s {outcome.reason}"
            click.echo(f"{number}/{len(programs)} {target.name} {program.name}: {about}", err=True)
            yield program.name, outcome
            if not running.answers(target.mounts()):
                click.echo(f"{target.name} does not answer: restart", err=True)
                target.stop()
                target.fresh()
                target.start()
    finally:
        end_without_interruption()
        target.stop()


def _try(program: Program, target: Target, logs: Path) -> Outcome:
    try:
        require_packages(program.packages)
    except Unavailable as error:
        return Outcome(Verdict.SKIPPED, reason=str(error))
    return running.run(program, target.mounts(), logs / target.name)


if __name__ == "__main__":
    sys.exit(main())
