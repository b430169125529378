"""Pytest plugin: a WARNING or worse that a test did not announce fails it.

WARNING means that redundancy was lost, ERROR that data are at risk; a test in
which that happens has to say so. Seen are the records of this process, in all
phases of a test; daemons' log files are the business of the tests that start them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Generator
from dataclasses import dataclass

import pytest


@dataclass
class Announced:
    """A record that a test has said will come."""

    pattern: re.Pattern[str]
    times: int | None
    optional: bool
    seen: int = 0

    def complaint(self) -> str | None:
        """What to say at the end of the test, or None if all is as announced."""
        wanted = self.seen > 0 if self.times is None else self.seen == self.times
        if wanted or (self.optional and self.seen == 0):
            return None
        expected = "at least once" if self.times is None else f"{self.times} times"
        return f"announced {expected}, seen {self.seen} times: {self.pattern.pattern!r}"


class LogWatch(logging.Handler):
    """Handler on the root logger while one test runs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.announced: list[Announced] = []
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def unannounced(self) -> list[str]:
        """Lines for the records since the last call that no announcement covers."""
        lines = []
        for record in self.records:
            message = record.getMessage()
            hits = [entry for entry in self.announced if entry.pattern.search(message)]
            for entry in hits:
                entry.seen += 1
            if not hits:
                lines.append(f"unannounced {record.levelname} of {record.name}: {message}")
        self.records.clear()
        return lines


WATCH = pytest.StashKey[LogWatch]()

ExpectLog = Callable[..., None]


@pytest.fixture
def expect_log(request: pytest.FixtureRequest) -> ExpectLog:
    """`expect_log(pattern, *, times=None, optional=False)` announces log records.

    Records of level WARNING or worse whose message `pattern` (a regular expression,
    searched) matches are allowed; there must be `times` of them, or at least one.
    """
    watch = request.node.stash[WATCH]

    def announce(pattern: str, *, times: int | None = None, optional: bool = False) -> None:
        watch.announced.append(Announced(re.compile(pattern), times, optional))

    return announce


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    watch = item.stash[WATCH] = LogWatch()
    root = logging.getLogger()
    root.addHandler(watch)
    try:
        return (yield)
    finally:
        root.removeHandler(watch)


def _judge(item: pytest.Item, *, last: bool) -> None:
    watch = item.stash[WATCH]
    problems = watch.unannounced()
    if last:
        problems += filter(None, (entry.complaint() for entry in watch.announced))
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    yield
    _judge(item, last=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    yield
    _judge(item, last=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    yield
    _judge(item, last=False)
