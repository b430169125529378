"""Samples of a run: a cell for each figure and target, and how cells are compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.stage import Better, Figure, Workload, median


@dataclass
class Cell:
    """What one target gave for one figure: a sample a round, or the reason for none."""

    samples: list[float] = field(default_factory=list)
    reason: str = ""

    @property
    def median(self) -> float | None:
        """Median of the rounds, None without a sample."""
        return median(self.samples) if self.samples else None

    def to_json(self) -> dict[str, Any]:
        """Median, samples in the order of the rounds, reason if a round gave none."""
        return {"median": self.median, "samples": self.samples, "reason": self.reason}


@dataclass
class Row:
    """One figure with a cell a target."""

    workload: str
    figure: Figure
    cells: dict[str, Cell]

    def advantage(self, target: str, others: Iterable[str]) -> float | None:
        """How many times better `target` is than the best of `others`; below 1 is worse."""
        mine = self.cells[target].median if target in self.cells else None
        theirs = [
            value
            for other in others
            if other in self.cells and (value := self.cells[other].median) is not None
        ]
        if mine is None or not theirs:
            return None
        if self.figure.better is Better.HIGHER:
            return mine / max(theirs) if max(theirs) else None
        return min(theirs) / mine if mine else None

    def to_json(self) -> dict[str, Any]:
        """The row as it stands in the file."""
        return {
            "workload": self.workload,
            "name": self.figure.name,
            "unit": self.figure.unit,
            "better": self.figure.better.value,
            "targets": {name: cell.to_json() for name, cell in self.cells.items()},
        }


@dataclass
class Results:
    """Everything a run has found."""

    machine: dict[str, Any]
    options: dict[str, Any]
    targets: dict[str, str]  # name -> what it is, with its version
    rows: list[Row]

    @classmethod
    def empty(
        cls,
        machine: dict[str, Any],
        options: dict[str, Any],
        targets: dict[str, str],
        workloads: Iterable[Workload],
    ) -> Results:
        """A table without samples."""
        rows = [
            Row(workload.name, figure, {name: Cell() for name in targets})
            for workload in workloads
            for figure in workload.figures
        ]
        return cls(machine, options, targets, rows)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Results:
        """Inverse of `to_json`."""
        rows = [
            Row(
                row["workload"],
                Figure(row["name"], row["unit"], Better(row["better"])),
                {
                    name: Cell(cell["samples"], cell["reason"])
                    for name, cell in row["targets"].items()
                },
            )
            for row in value["figures"]
        ]
        return cls(value["machine"], value["options"], value["targets"], rows)

    def to_json(self) -> dict[str, Any]:
        """What is written to the file; `from_json` reads it."""
        return {
            "machine": self.machine,
            "options": self.options,
            "targets": self.targets,
            "figures": [row.to_json() for row in self.rows],
        }

    def add(self, workload: Workload, target: str, values: dict[str, float], reason: str) -> None:
        """Add a round: what was recorded, and why the rest was not."""
        for row in self.rows:
            if row.workload == workload.name and target in row.cells:
                cell = row.cells[target]
                if row.figure.name in values:
                    cell.samples.append(values[row.figure.name])
                elif reason:
                    cell.reason = reason
