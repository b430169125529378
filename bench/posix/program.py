"""A program to be tried, and what came of it on one target."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class Program:
    """A piece of bash that does real work in its directory and exits with 0 if all was right.

    Attributes:
      name: unique; what --only takes.
      group: rows of a group stand together.
      says: what it does, for the table.
      script: bash, ended by the first command that fails, in an empty directory of the target.
        `not COMMAND` wants a failure, `until_so COMMAND` tries for ten seconds. It finds
        HERE (that directory), THERE (the same through the target's second mount), LOCAL (an
        empty directory on the local disk), ROOT (this checkout), PYTHON (the Python that
        runs this) and TMPDIR (HERE/tmp).
      packages: Debian packages that it needs.
      limit_s: after this it is ended, and has failed.
      failed_parts: pattern whose first group is the name of a part that failed, searched in
        the output. With it a program that fails on the local disk too is judged by parts.
      skipped_by: exit codes that mean that it found nothing here to try.
      skipped_words: pattern of a line with which it says so and exits with 0.
    """

    name: str
    group: str
    says: str
    script: str
    packages: tuple[str, ...] = ()
    limit_s: float = 60.0
    failed_parts: str = ""
    skipped_by: tuple[int, ...] = ()
    skipped_words: str = ""


class Verdict(Enum):
    """What came of a program."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Outcome:
    """What came of one program on one target.

    Attributes:
      seconds: how long it took.
      reason: why it failed or was skipped.
      parts: names of the parts that failed, of a program that has them.
    """

    verdict: Verdict
    seconds: float = 0.0
    reason: str = ""
    parts: frozenset[str] = field(default_factory=frozenset)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file; `from_json` reads it."""
        return {
            "verdict": self.verdict.value,
            "seconds": round(self.seconds, 1),
            "reason": self.reason,
            "parts": sorted(self.parts),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Outcome:
        """Inverse of `to_json`."""
        verdict = Verdict(value["verdict"])
        return cls(verdict, value["seconds"], value["reason"], frozenset(value["parts"]))

    def as_on(self, local: Outcome | None) -> bool:
        """Whether a failure is one that the local disk has too.

        A part that fails here alone makes it another one; without parts only the verdict counts.
        """
        if local is None or local.verdict is not Verdict.FAILED:
            return False
        return self.parts <= local.parts if self.parts or local.parts else True
