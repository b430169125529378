"""What must be there in the end, as workers tell it, and what differs from it.

A call that failed may have had its effect or not; its names are never used again, so what
is expected stays exact: `maybe` (there or not), `either` (one of two names, never both).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec


class Written(msgspec.Struct, frozen=True):
    """A file's content as it was acknowledged.

    Attributes:
      mount, closed_at: if it was closed without fsync: a kill of that mount within the
        time that bytes may wait takes the promise back.
    """

    seed: int
    size: int
    mount: int = 0
    closed_at: float = 0.0


class Life(msgspec.Struct):
    """Records that one handle has appended to a log."""

    log: str
    worker: str
    life: int
    mount: int
    written: int = 0
    acknowledged: int = 0


class Slow(msgspec.Struct, frozen=True):
    """A call that took long; times of the monotonic clock in seconds."""

    what: str
    mount: int
    start: float
    took_s: float


class Trouble(msgspec.Struct, frozen=True):
    """A call that failed, or an answer that was wrong."""

    at: float
    mount: int
    what: str
    errno: int = 0


class Expected(msgspec.Struct):
    """What one worker (or all of them) knows. Paths are relative to the root of the run.

    Attributes:
      files: None: a file whose content nobody vouches for.
    """

    files: dict[str, Written | None] = {}
    directories: set[str] = set()
    maybe: set[str] = set()
    either: list[tuple[str, str]] = []
    lives: list[Life] = []
    slow: list[Slow] = []
    failed: list[Trouble] = []  # calls; judged by what was broken at the time
    wrong: list[Trouble] = []  # answers that no fault excuses but a restart of their mount
    calls: dict[str, int] = {}  # acknowledged, by kind


def merged(parts: Iterable[Expected]) -> Expected:
    """All workers' knowledge; their names are disjoint but for logs and their directory."""
    whole = Expected()
    for part in parts:
        whole.files |= part.files
        whole.directories |= part.directories
        whole.maybe |= part.maybe
        whole.either += part.either
        whole.lives += part.lives
        whole.slow += part.slow
        whole.failed += part.failed
        whole.wrong += part.wrong
        for what, count in part.calls.items():
            whole.calls[what] = whole.calls.get(what, 0) + count
    return whole


def names_differ(expected: Expected, found: Mapping[str, bool]) -> list[str]:
    """Compare with a walk: path -> whether it is a directory."""
    problems = [f"lost: {path}" for path in sorted(expected.files) if found.get(path) is not False]
    problems += [
        f"lost directory: {path}"
        for path in sorted(expected.directories)
        if found.get(path) is not True
    ]
    open_to_doubt = expected.maybe | {path for pair in expected.either for path in pair}
    for path in sorted(found):
        known = path in expected.files or path in expected.directories
        if not known and not _below(path, open_to_doubt):
            problems.append(f"never made, or removed: {path}")
    for first, second in expected.either:
        if (first in found) == (second in found):
            state = "both there" if first in found else "neither there"
            problems.append(f"half a rename: {first} and {second}: {state}")
    return problems


def _below(path: str, tops: set[str]) -> bool:
    parts = path.split("/")
    return any("/".join(parts[: count + 1]) in tops for count in range(len(parts)))


def records_differ(
    lives: Iterable[Life], landed: Mapping[tuple[str, int], int], log: str
) -> list[str]:
    """Compare acknowledged records with those that stand in `log`."""
    problems = []
    known = {(life.worker, life.life): life for life in lives if life.log == log}
    for key, life in known.items():
        count = landed.get(key, 0)
        if not life.acknowledged <= count <= life.written + 1:
            problems.append(
                f"{log}: {life.worker}'s life {life.life}: {life.acknowledged} acknowledged, "
                f"{life.written} written, {count} there"
            )
    problems += [f"{log}: records that nobody wrote: {key}" for key in landed.keys() - known]
    return problems
