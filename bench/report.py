"""Results for people: a table on the terminal, a picture on request."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.results import Cell, Results, Row

OURS = "ours"
LOCAL = "local"
REASON_WIDTH = 28
FILE_WIDTH = 140  # of the table when stdout is no terminal


def output() -> Console:
    """Standard output, wide enough for all columns when it goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=FILE_WIDTH)


def print_table(results: Results, console: Console) -> None:
    """Print medians by target, and how this project stands to the best peer."""
    peers = [name for name in results.targets if name not in (OURS, LOCAL)]
    compared = OURS in results.targets and bool(peers)
    table = Table(title=_title(results), title_justify="left", pad_edge=False)
    table.add_column("workload", no_wrap=True)
    table.add_column("unit", style="dim")
    for name in results.targets:
        table.add_column(name, justify="right", overflow="fold")
    if compared:
        table.add_column("ours : best peer", justify="right")
    previous = ""
    for row in results.rows:
        if previous and row.workload != previous:
            table.add_section()
        previous = row.workload
        cells = [_cell(row.cells[name]) for name in results.targets]
        extra = [_advantage(row, peers)] if compared else []
        table.add_row(row.figure.name, row.figure.unit, *cells, *extra)
    console.print(table)
    for name, text in results.targets.items():
        console.print(f"{name}: {text}", style="dim", highlight=False)
    for line in reasons(results):
        console.print(line, style="yellow", highlight=False, markup=False)


def reasons(results: Results) -> list[str]:
    """One line for each different reason why cells lack samples, unless the cells show it."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for row in results.rows:
        for name, cell in row.cells.items():
            if cell.reason and (cell.samples or len(cell.reason) > REASON_WIDTH):
                found.setdefault((name, cell.reason), {})[row.workload] = None
    return [f"{', '.join(works)} on {name}: {reason}" for (name, reason), works in found.items()]


def digits(value: float) -> str:
    """Three significant digits, thousands with a comma."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"


def save_plot(results: Results, path: Path) -> None:
    """Draw each figure relative to the local disk, on a logarithmic axis.

    Raises:
      ModuleNotFoundError: matplotlib, an optional extra, is not installed.
    """
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    others = [name for name in results.targets if name != LOCAL]
    rows = [row for row in results.rows if any(row.advantage(n, [LOCAL]) for n in others)]
    figure, axes = pyplot.subplots(figsize=(9, 1.5 + 0.35 * len(rows)))
    height = 0.8 / max(1, len(others))
    for number, name in enumerate(others):
        places = [place + number * height for place in range(len(rows))]
        widths = [row.advantage(name, [LOCAL]) or 0 for row in rows]
        axes.barh(places, widths, height=height, label=name)
    axes.set_xscale("log")
    axes.axvline(1, color="grey", linewidth=0.8)
    middle = height * (len(others) - 1) / 2
    axes.set_yticks([place + middle for place in range(len(rows))])
    axes.set_yticklabels([row.figure.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("times as good as the local disk")
    axes.legend()
    figure.savefig(path, bbox_inches="tight", dpi=120)


def _title(results: Results) -> str:
    machine, options = results.machine, results.options
    rounds = f"{options['rounds']} round{'s' if options['rounds'] != 1 else ''}"
    return (
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"load {machine['load_before']:.1f} before, commit {machine['commit']}; "
        f"scale {options['scale']:g}, median of {rounds}"
    )


def _cell(cell: Cell) -> str:
    if cell.median is not None:
        return digits(cell.median) + (" *" if cell.reason else "")
    reason = cell.reason or "-"
    if len(reason) > REASON_WIDTH:
        reason = reason[: REASON_WIDTH - 3] + "..."
    return f"[dim]{escape(reason)}[/dim]"


def _advantage(row: Row, peers: list[str]) -> str:
    times = row.advantage(OURS, peers)
    if times is None:
        return ""
    return f"[{'green' if times >= 1 else 'red'}]{digits(times)}x[/]"
