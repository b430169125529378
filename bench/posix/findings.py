"""All outcomes of one or more runs, as they are kept in a file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.posix.program import Outcome, Verdict
from bench.targets.local import Local


@dataclass
class Findings:
    """What came of each program on each target.

    Attributes:
      machine: facts about where the last run was.
      targets: name -> what it is, with its version, or why it was left out.
      outcomes: program -> target -> outcome.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | None) -> Findings:
        """Those that a file holds; none if there is no file."""
        if path is None or not path.exists():
            return cls()
        value = json.loads(path.read_text())
        outcomes = {
            program: {target: Outcome.from_json(one) for target, one in row.items()}
            for program, row in value["outcomes"].items()
        }
        return cls(value["machine"], value["targets"], outcomes)

    def save(self, path: Path | None) -> None:
        """Write them to a file that `load` reads, if one is named."""
        if path is None:
            return
        outcomes = {
            program: {target: one.to_json() for target, one in row.items()}
            for program, row in self.outcomes.items()
        }
        value = {"machine": self.machine, "targets": self.targets, "outcomes": outcomes}
        path.write_text(json.dumps(value, indent=1) + "\n")

    def add(self, program: str, target: str, outcome: Outcome) -> None:
        """Take in an outcome, in place of an older one."""
        self.outcomes.setdefault(program, {})[target] = outcome

    def differs(self, program: str, target: str) -> bool:
        """Whether a program fails on a target in a way in which it does not on the local disk."""
        row = self.outcomes.get(program, {})
        found = row.get(target)
        if found is None or found.verdict is not Verdict.FAILED:
            return False
        return not found.as_on(row.get(Local.name))

    def differences(self, target: str) -> list[str]:
        """Programs for which `differs`."""
        return [program for program in self.outcomes if self.differs(program, target)]
