"""A program that works on the mounts while things break, and tells what was acknowledged.

    python -m tests.torture.work ROLE NAME SEED PLACE

PLACE has `mounts` (one directory a line) and `stop` (made when it is time to end), and receives
NAME.json (`Expected`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.torture.roles import ROLES
from tests.torture.worker import Worker


def main(words: list[str]) -> None:
    """See the module's text."""
    role, name, seed, place = words
    worker = Worker(name, int(seed), Path(place))
    worker.run(ROLES[role](worker).step)


if __name__ == "__main__":
    main(sys.argv[1:])
