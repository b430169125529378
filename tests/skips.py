"""Pytest plugin: say which tests were skipped and why, to people and to CI.

A skipped test proves nothing, so a run ends with the number of skips and each
reason. With `--skip-report FILE` the same is written as JSON, and
`python -m tests.skips FILE` fails if a test was skipped that must not be. Where
workers share a run it is the process that hears their reports that gathers.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.parallel import is_worker

MUST_RUN = ("mount", "kill", "power_loss")  # markers whose tests CI may not skip
WHOLE_MODULE = "module"  # skipped while collecting: which markers it held is unknown


class Skip(NamedTuple):
    """One test, or one module, that did not run."""

    test: str
    reason: str
    markers: list[str]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A report knows keywords, and a folder's name is one; so the markers go with it."""
    report = yield
    report.markers = sorted({mark.name for mark in item.iter_markers()})  # type: ignore[attr-defined]
    return report


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The text given to `pytest.skip`, without pytest's own words before it."""
    longrepr = report.longrepr
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return text.removeprefix("Skipped: ")


class SkipReporter:
    """Gathers the skips of one run; prints them last of all."""

    def __init__(self, config: pytest.Config, path: Path | None) -> None:
        self.config = config
        self.path = path
        self.skipped: list[Skip] = []
        self.ran = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.skipped.append(Skip(report.nodeid, reason_of(report), report.markers))
        elif report.when == "call":
            self.ran += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        skip = Skip(report.nodeid, reason_of(report), [WHOLE_MODULE])
        if report.skipped and skip not in self.skipped:  # each worker collects them all
            self.skipped.append(skip)

    def pytest_sessionfinish(self) -> None:
        if self.path is not None:
            facts = {"ran": self.ran, "skipped": [skip._asdict() for skip in self.skipped]}
            self.path.write_text(json.dumps(facts, indent=1) + "\n")

    @pytest.hookimpl(tryfirst=True)
    def pytest_unconfigure(self) -> None:
        """Print after pytest's closing line: a run ends with this."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None or self.config.option.collectonly:
            return
        terminal.write_line(f"{len(self.skipped)} skipped")
        reasons = Counter(skip.reason for skip in self.skipped)
        for reason, count in sorted(reasons.items()):
            terminal.write_line(f"  {count} x {reason}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--skip-report", metavar="FILE", help="write the skipped tests and their reasons as JSON"
    )


def pytest_configure(config: pytest.Config) -> None:
    if is_worker(config):
        return
    path = config.getoption("--skip-report")
    reporter = SkipReporter(config, Path(path) if path else None)
    config.pluginmanager.register(reporter, "gfs-skips")


def forbidden(skips: list[Skip]) -> list[Skip]:
    """Those of `skips` that a continuous integration run may not have."""
    fatal = {*MUST_RUN, WHOLE_MODULE}
    return [skip for skip in skips if fatal & set(skip.markers)]


def main(path: str) -> int:
    """Exit code 1 if the run written to `path` skipped what it must not."""
    facts = json.loads(Path(path).read_text())
    bad = forbidden([Skip(**skip) for skip in facts["skipped"]])
    for skip in bad:
        print(f"must not be skipped: {skip.test} ({', '.join(skip.markers)}): {skip.reason}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
