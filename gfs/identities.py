"""User and group numbers as a client has them, and as they are stored.

A *map* gives ranges of numbers of the client's other numbers here, and gives them back in
attributes. It is one to one: a number without a range of its own stays what it is, unless
a range has given that number to another, who would then be taken for him.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from gfs.errors import UsageError

NOBODY = 65534  # the kernel's overflow number, and NFS's anonymous one
ID_MAX = (1 << 32) - 2  # the last is -1, "leave as it is"
RANGES_MAX = 340  # as in a user namespace of Linux

Range = tuple[int, int, int]  # first of the client's, first stored, how many


class IdMap:
    """Both directions of a map.

    >>> users = IdMap([(1000, 5000, 2)])
    >>> users.stored(1001), users.shown(5001), users.stored(7)
    (5001, 1001, 7)
    >>> users.stored(5000) is None  # another's number
    True
    """

    def __init__(self, ranges: Sequence[Range] = ()) -> None:
        """Raises UsageError: a range is empty or too long, two overlap, or there are too many."""
        if len(ranges) > RANGES_MAX:
            raise UsageError(f"{len(ranges)} ranges in a map, at most {RANGES_MAX}")
        for first, to, count in ranges:
            if count < 1 or min(first, to) < 0 or max(first, to) + count - 1 > ID_MAX:
                raise UsageError(f"{first}:{to}:{count} is no range of user or group numbers")
        for side in (0, 1):
            taken = sorted((one[side], one[2]) for one in ranges)
            for (low, count), (high, _) in pairwise(taken):
                if low + count > high:
                    raise UsageError(f"number {high} stands in two ranges of a map")
        self.ranges = tuple(ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def stored(self, number: int) -> int | None:
        """The number to be stored for a client's; None: it has none here."""
        return self._image(number, 0, 1)

    def shown(self, number: int) -> int | None:
        """The client's number for a stored one; None: the client has none for it."""
        return self._image(number, 1, 0)

    def _image(self, number: int, side: int, other: int) -> int | None:
        taken = False
        for one in self.ranges:
            if one[side] <= number < one[side] + one[2]:
                return number - one[side] + one[other]
            taken = taken or one[other] <= number < one[other] + one[2]
        return None if taken else number

    def __str__(self) -> str:
        return ",".join(":".join(map(str, one if one[2] > 1 else one[:2])) for one in self.ranges)


def parse_range(text: str) -> Range:
    """``FROM:TO`` or ``FROM:TO:COUNT``.

    Raises:
      UsageError: it is neither.
    """
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"{text!r} is no FROM:TO[:COUNT] of user or group numbers")
    first, to, count = (*map(int, parts), 1)[:3]
    return first, to, count
