"""Logging of a daemon: one line a message to stderr or to a file that is rotated by size.

A message begins with a stable word (``lease.grant``), so that it can be searched
for; what comes from libraries is kept at WARNING.
"""

from __future__ import annotations

import logging
import logging.handlers
import sys

FILE_BYTES_MAX = 10 * 1024 * 1024
FILES_KEPT = 3  # the current one and two older ones
FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s %(message)s"
OURS = ("gfs", "master", "chunkd", "mount", "projections", "bench", "__main__")


def set_up(level: str = "info", file: str = "") -> None:
    """Send this process's log to `file` (rotated), or to stderr when that is empty.

    Raises:
      OSError: the file cannot be opened.
    """
    handler: logging.Handler
    if file:
        handler = logging.handlers.RotatingFileHandler(
            file, maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT - 1, encoding="utf-8"
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT, "%Y-%m-%dT%H:%M:%S"))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
