"""What a view remembers besides its rows: whether it is paused, when it was built last.

One small file beside the view, written whole or not at all. It is no part of the view:
a rebuild leaves it alone, and a view without it is simply not paused.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from gfs.cluster.layout import replace_file

log = logging.getLogger(__name__)


class Standing(msgspec.Struct):
    """Times are nanoseconds since 1970; 0: never, or not."""

    paused_ns: int = 0  # since when nothing is applied, because somebody said so
    rebuilt_ns: int = 0  # when the last rebuild ended
    rebuild_s: float = 0.0  # how long it took


def load_standing(path: Path) -> Standing:
    """What the file says; a missing one says nothing, a damaged one is said in the log."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Standing)
    except FileNotFoundError:
        return Standing()
    except msgspec.MsgspecError as error:
        log.warning("view.standing damaged, taken for empty: %s: %s", path, error)
        return Standing()


def save_standing(path: Path, standing: Standing) -> None:
    """Write it durably.

    Raises: OSError.
    """
    replace_file(path, msgspec.json.encode(standing) + b"\n")
