"""Command line: python -m bench."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click
from rich.console import Console

from bench import machine, report
from bench.results import Results
from bench.runner import Runner
from bench.setting import (
    choose_targets,
    choose_workloads,
    clean_up,
    directory_option,
    end_on_signals,
    end_without_interruption,
    work_directory,
)
from bench.stage import Workload
from bench.targets.catalogue import PEERS
from bench.targets.target import Target, TargetFailed, Unavailable
from bench.workloads.catalogue import WORKLOADS

EXIT_FAILURES = 1  # a workload failed on some target; its cell says why
EXIT_INTERRUPTED = 130
messages = Console(stderr=True, highlight=False)

HELP = f"""Measure this project against the local disk and against peers, side by side.

\b
Each workload runs on every target in turn, round by round; the table shows
the median of the rounds. Figures move by 30 % and more from run to run:
compare columns of one run.

\b
Targets:
  local      a plain directory: what no target on the same disk can beat
  ours       this project: gfs cluster up, 3 chunk servers, 2 mounts, goal 3
  moosefs    Debian's MooseFS, goal 3     (root; packages installed if missing)
  glusterfs  Debian's GlusterFS, replica 3  (root; packages installed if missing)

\b
Workloads (--only takes these names):
{"".join(f"  {workload.name:<11}{workload.summary}{chr(10)}" for workload in WORKLOADS)}
\b
Examples:
  python -m bench
  python -m bench --scale 0.05 --rounds 1 --only stream,append
  python -m bench --targets local,ours,{",".join(PEERS)} --json result.json
"""


@click.group(invoke_without_command=True, help=HELP)
@click.option("--targets", default="local,ours", show_default=True, help="Targets, by commas.")
@click.option("--only", default="", help="Workloads to run, by commas; all when empty.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option(
    "--scale",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.001, 100),
    help="Size of files and number of operations; 0.05 is a quick look.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write all samples here."
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw a PNG here; needs matplotlib.")
@directory_option
@click.pass_context
def main(
    context: click.Context,
    targets: str,
    only: str,
    rounds: int,
    scale: float,
    json_file: Path | None,
    plot: Path | None,
    directory: Path,
) -> None:
    """See HELP."""
    if context.invoked_subcommand:
        return
    workloads = choose_workloads(only)
    kinds = choose_targets(targets)
    end_on_signals()
    with work_directory(directory, scale, len(kinds)) as work:
        usable, described = _check(kinds, work)
        options = {"rounds": rounds, "scale": scale, "only": only, "targets": targets}
        results = Results.empty(machine.facts(work), options, described, workloads)
        try:
            code = EXIT_FAILURES if _measure(usable, workloads, results, work) else 0
        except KeyboardInterrupt:
            messages.print("interrupted; what was measured so far:")
            code = EXIT_INTERRUPTED
        _hand_out(results, json_file, plot)
    context.exit(code)


@main.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def show(file: Path) -> None:
    """Print the table of a FILE that --json wrote."""
    report.print_table(Results.from_json(json.loads(file.read_text())), report.output())


@main.command()
@directory_option
def clean(directory: Path) -> None:
    """Remove what a killed run left below its --dir: daemons, mounts, directories."""
    for name in clean_up(directory):
        messages.print(f"removed {name}", markup=False)


def _check(kinds: list[type[Target]], work: Path) -> tuple[list[Target], dict[str, str]]:
    """Targets that can run here, and what each column is or why it is empty."""
    usable, described = [], {}
    for kind in kinds:
        target = kind(work / kind.name)
        try:
            target.check()
            usable.append(target)
            described[kind.name] = target.version()
        except (Unavailable, TargetFailed) as error:
            described[kind.name] = f"left out: {error}"
            messages.print(f"{kind.name} is left out: {error}", style="yellow", markup=False)
    if not usable:
        raise click.ClickException("none of the targets can run here")
    return usable, described


def _measure(targets: list[Target], workloads: list[Workload], results: Results, work: Path) -> int:
    """Fill in the results; returns how many workloads or targets failed."""
    scratch = work / "scratch"
    scratch.mkdir()
    options = results.options
    runner = Runner(targets, scratch, results, options["scale"], _say)
    try:
        runner.start()
        runner.run(workloads, options["rounds"])
    finally:
        end_without_interruption()
        runner.stop()
    return runner.failures


def _hand_out(results: Results, json_file: Path | None, plot: Path | None) -> None:
    report.print_table(results, report.output())
    if json_file:
        json_file.write_text(json.dumps(results.to_json(), indent=1) + "\n")
    if plot:
        try:
            report.save_plot(results, plot)
        except ModuleNotFoundError:
            messages.print("--plot needs matplotlib: pip install matplotlib", style="yellow")


def _say(text: str) -> None:
    messages.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, style="dim")


if __name__ == "__main__":
    sys.exit(main())
