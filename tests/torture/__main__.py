"""`make torture MINUTES=n`: break a real cluster at random for n minutes; exit code 1 if it lost.

    python -m tests.torture [--minutes N] [--seed N] [--dir DIR] [--json FILE] [--keep]

The same seed gives the same schedule of faults, not the same interleaving.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

import msgspec

from gfs import mounts
from tests.torture.run import PROBLEMS_SHOWN, Report, Run


def show(report: Report) -> None:
    """For people."""
    print(f"\nseed {report.seed}, {report.minutes:g} minutes")
    print("injected:     " + ", ".join(f"{count} {what}" for what, count in report.totals.items()))
    for what, count in report.injected.items():
        print(f"              {count:5} {what}")
    acknowledged = ", ".join(f"{count} {what}" for what, count in report.acknowledged.items())
    print(f"acknowledged: {sum(report.acknowledged.values())} calls: {acknowledged}")
    print(f"failed calls: {report.excused_failures}, each on a mount that was broken itself")
    print("longest call of a writer by what was broken at the time:")
    for what, took_ms in report.stalls_ms.items():
        print(f"              {took_ms:7} ms  {what}")
    print(f"converged in {report.converged_s} s; started again in {report.started_again_s} s")
    for title, lines in (("lost", report.lost), ("problems", report.problems)):
        print(f"{title}: {len(lines) or 'nothing'}")
        for line in lines[:PROBLEMS_SHOWN]:
            print(f"  {line}")


def interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run; 0 if nothing was lost and nothing failed."""
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "big"))
    parser.add_argument("--dir", type=Path, help="where; default: a new one in /var/tmp")
    parser.add_argument("--json", type=Path, help="file for the report")
    parser.add_argument("--keep", action="store_true", help="keep the directory in any case")
    asked = parser.parse_args()
    if why_not := mounts.why_no_mounts():
        print(f"nothing can be mounted here: {why_not}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, interrupted)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    directory = asked.dir or Path(tempfile.mkdtemp(prefix="gfs-torture-", dir="/var/tmp"))
    print(f"seed {asked.seed}, evidence in {directory}")
    run = Run(directory, seed=asked.seed, length_s=60 * asked.minutes)
    try:
        report = run.run()
    except BaseException:
        show(run.report)
        print(f"not finished; evidence in {directory}")
        raise
    show(report)
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    failed = bool(report.lost or report.problems)
    if failed or asked.keep:
        print(f"evidence in {directory}")
    else:
        shutil.rmtree(directory)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
