"""`python -m tests.sim`: many seeds, or one with a trace; totals at the end.

Each seed runs in a process of its own, because it replaces clocks and sockets for good.
Exit code 1 if any seed failed; the line to repeat it is printed.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.sim.running import run_seeds
from tests.sim.totals import print_totals


def main(argv: list[str]) -> int:
    """Run; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one alone and print what happens")
    parser.add_argument("--seeds", type=int, default=20, help="how many, from --first on")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    parser.add_argument("--operations", type=int, default=1000, help="of clients, at least")
    parser.add_argument("--plant", default="", help="a bug to plant (tests/sim/planted.py)")
    parser.add_argument("--stop", action="store_true", help="at the first seed that fails")
    options = parser.parse_args(argv)
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of strings must be walked in one order
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *argv])
    seeds = [options.seed] if options.seed is not None else None
    failed = print_totals(
        run_seeds(
            seeds or range(options.first, options.first + options.seeds),
            jobs=options.jobs,
            trace=seeds is not None,
            plant=options.plant,
            operations=options.operations,
        ),
        stop=options.stop,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
